import java.io.FileOutputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * {@code send NAMESRV TOPIC KEYS PER_KEY}: messages 0, 1, 2 ... of each key, every key in its queue.
 * {@code consume NAMESRV TOPIC GROUP JOURNAL}: writes a line {@code pid key number} for each message.
 * Both say {@code ready} once they are.
 */
public final class Ordered {
    private static final int SENDERS = 4;

    private Ordered() {}

    public static void main(String[] arguments) throws Exception {
        if (arguments[0].equals("send")) {
            send(arguments[1], arguments[2], Integer.parseInt(arguments[3]), Integer.parseInt(arguments[4]));
            System.exit(0); // the client's own threads would linger
        }
        consume(arguments[1], arguments[2], arguments[3], arguments[4]);
    }

    private static void send(String namesrv, String topic, int keys, int perKey) throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer("ordered-producer");
        producer.setNamesrvAddr(namesrv);
        producer.setSendMsgTimeout(15000);
        producer.start();
        List<MessageQueue> queues = producer.fetchPublishMessageQueues(topic);
        ExecutorService threads = Executors.newFixedThreadPool(SENDERS);
        List<Future<?>> running = new ArrayList<>();
        for (int i = 0; i < SENDERS; i++) {
            int sender = i;
            running.add(threads.submit(() -> {
                for (int number = 0; number < perKey; number++) {
                    for (int queue = sender; queue < queues.size(); queue += SENDERS) {
                        sendOne(producer, queues, queue, topic, keys, number);
                    }
                }
                return null;
            }));
        }
        System.out.println("ready");
        for (Future<?> one : running) {
            one.get();
        }
        producer.shutdown();
    }

    /** One batch: the same number for every key of the queue. */
    private static void sendOne(
            DefaultMQProducer producer, List<MessageQueue> queues, int queue, String topic, int keys,
            int number) throws Exception {
        List<Message> batch = new ArrayList<>();
        for (int key = queue; key < keys; key += queues.size()) {
            batch.add(new Message(topic, (key + " " + number).getBytes(StandardCharsets.UTF_8)));
        }
        if (!batch.isEmpty()
                && producer.send(batch, queues.get(queue)).getSendStatus() != SendStatus.SEND_OK) {
            throw new IllegalStateException("a send was not acknowledged");
        }
    }

    private static void consume(String namesrv, String topic, String group, String journal)
            throws Exception {
        long pid = ProcessHandle.current().pid();
        FileOutputStream lines = new FileOutputStream(journal, true); // each write is one append
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(namesrv);
        consumer.setInstanceName("member-" + pid);
        consumer.setHeartbeatBrokerInterval(2000);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setConsumeThreadMin(4);
        consumer.setConsumeThreadMax(4);
        consumer.setConsumeMessageBatchMaxSize(32);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
            StringBuilder text = new StringBuilder();
            for (MessageExt message : messages) {
                text.append(pid).append(' ')
                    .append(new String(message.getBody(), StandardCharsets.UTF_8)).append('\n');
            }
            try {
                lines.write(text.toString().getBytes(StandardCharsets.UTF_8));
            } catch (java.io.IOException full) {
                return ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT;
            }
            return ConsumeOrderlyStatus.SUCCESS;
        });
        consumer.start();
        System.out.println("ready");
    }
}
