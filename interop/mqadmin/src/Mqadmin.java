import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueAveragely;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.RPCHook;
import org.apache.rocketmq.tools.command.MQAdminStartup;

/**
 * Runs mqadmin commands in one JVM. Each line of standard input is one command, its words separated
 * by tabs; each answer is one line, what the command printed in Base64. Words that begin with @ are
 * the live clients that some commands look at.
 */
public class Mqadmin {
    private static final PrintStream ANSWERS = System.out;
    private static DefaultMQProducer producer;
    private static DefaultMQPushConsumer consumer;

    public static void main(String[] arguments) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream errors = System.err;
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            ByteArrayOutputStream printed = new ByteArrayOutputStream();
            PrintStream out = new PrintStream(printed, true, "UTF-8");
            System.setOut(out);
            System.setErr(out);
            try {
                run(line.split("\t"), out);
            } catch (Throwable problem) {
                problem.printStackTrace(out);
            }
            System.setErr(errors);
            ANSWERS.println(Base64.getEncoder().encodeToString(printed.toByteArray()));
            ANSWERS.flush();
        }
        System.exit(0);
    }

    private static void run(String[] words, PrintStream out) throws Exception {
        switch (words[0]) {
            case "@produce":
                produce(words[1], words[2], words[3], Integer.parseInt(words[4]), out);
                break;
            case "@batches":
                batches(words[1], Integer.parseInt(words[2]), Integer.parseInt(words[3]));
                break;
            case "@consume":
                consume(words[1], words[2], words[3], Integer.parseInt(words[4]));
                break;
            case "@trace":
                trace(words[1], words[2], words[3], out);
                break;
            case "@lite":
                new Lite(producer, words[1], words[2], words[3], out).run(producer, awaitBroker(words[2]));
                break;
            case "@stop":
                consumer.shutdown();
                producer.shutdown();
                break;
            default:
                MQAdminStartup.main0(words, null);
        }
    }

    /** Sends to queue after queue and prints, for each message, its unique and its offset id. */
    private static void produce(String namesrv, String group, String topic, int count, PrintStream out)
        throws Exception {
        producer = new DefaultMQProducer(group);
        producer.setNamesrvAddr(namesrv);
        producer.setInstanceName("producer");
        producer.start();
        String broker = awaitBroker(topic);
        for (int i = 0; i < count; i++) {
            Message message = new Message(topic, "tag" + i % 2, "key" + i, ("body " + i).getBytes());
            MessageQueue queue = new MessageQueue(topic, broker, i % 4);
            SendResult sent = producer.send(message, queue);
            out.println(sent.getMsgId() + " " + sent.getOffsetMsgId());
        }
    }

    private static void batches(String topic, int count, int messages) throws Exception {
        awaitBroker(topic);
        for (int i = 0; i < count * messages; i += messages) {
            List<Message> batch = new ArrayList<>();
            for (int n = i; n < i + messages; n++) {
                batch.add(new Message(topic, "tag", "key" + n, ("body " + n).getBytes()));
            }
            producer.send(batch);
        }
    }

    /** One message, sent and consumed by clients that write traces; prints its unique id. */
    private static void trace(String namesrv, String group, String topic, PrintStream out) throws Exception {
        DefaultMQProducer sender = new DefaultMQProducer(group + "-producer", (RPCHook) null, true, null);
        sender.setNamesrvAddr(namesrv);
        sender.setInstanceName("traced-producer");
        sender.start();
        DefaultMQPushConsumer reader =
            new DefaultMQPushConsumer(group, null, new AllocateMessageQueueAveragely(), true, null);
        reader.setNamesrvAddr(namesrv);
        reader.setInstanceName("traced-consumer");
        reader.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        reader.subscribe(topic, "*");
        CountDownLatch rest = new CountDownLatch(1);
        reader.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            rest.countDown();
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        SendResult sent = sender.send(new Message(topic, "traced", "trace-key", "traced".getBytes()));
        reader.start();
        if (!rest.await(60, TimeUnit.SECONDS)) {
            throw new IllegalStateException("the traced message did not arrive");
        }
        Thread.sleep(7000); // clients send what they have of their traces every 5 s
        reader.shutdown();
        sender.shutdown();
        Thread.sleep(2000); // the traces are indexed
        out.println(sent.getMsgId());
    }

    /** The broker of a topic; it tells the name server of a new one a moment after it made it. */
    private static String awaitBroker(String topic) throws Exception {
        for (int tries = 0; ; tries++) {
            try {
                return producer.fetchPublishMessageQueues(topic).get(0).getBrokerName();
            } catch (MQClientException notYet) {
                if (tries > 100) {
                    throw notYet;
                }
                Thread.sleep(100);
            }
        }
    }

    /** Consumes until everything is consumed, every queue is there and committed, and stays. */
    private static void consume(String namesrv, String group, String topic, int count) throws Exception {
        CountDownLatch rest = new CountDownLatch(count);
        consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(namesrv);
        consumer.setInstanceName("consumer");
        consumer.setPollNameServerInterval(500); // the broker makes the retry topic meanwhile
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(message -> rest.countDown());
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        if (!rest.await(60, TimeUnit.SECONDS)) {
            throw new IllegalStateException(rest.getCount() + " messages did not arrive");
        }
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
        while (!hasRetryQueue()) {
            if (System.nanoTime() > deadline) {
                throw new IllegalStateException("the queue of the retry topic was not shared out");
            }
            Thread.sleep(50);
        }
        Thread.sleep(300); // the last answers of the listener are noted
        consumer.getDefaultMQPushConsumerImpl().persistConsumerOffset();
        Thread.sleep(300);
    }

    private static boolean hasRetryQueue() {
        return consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable()
            .keySet().stream().anyMatch(queue -> queue.getTopic().startsWith("%RETRY%"));
    }
}
