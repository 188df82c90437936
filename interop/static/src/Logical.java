import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;

/**
 * Each line of input is {@code send COUNT} or {@code receive COUNT}; the answer is one line, a JSON list of what was
 * sent or came, in this order: broker name that the client has for it, logical queue, offset, body.
 */
public class Logical {
    private static final int RECEIVE_SECONDS_MAX = 15;
    private static final int LATE_MILLIS = 300; // what comes twice has time to come

    private static String namesrv;
    private static String topic;
    private static int clients;
    private static int messages;

    public static void main(String[] arguments) throws Exception {
        namesrv = arguments[0];
        topic = arguments[1];
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            String[] words = line.split(" ");
            int count = Integer.parseInt(words[1]);
            List<String> lines = words[0].equals("send") ? send(count) : receive(count);
            System.out.println("[" + String.join(",", lines) + "]");
        }
        System.exit(0);
    }

    private static List<String> send(int count) throws Exception {
        String name = "logical" + clients++;
        DefaultMQProducer producer = new DefaultMQProducer(name);
        producer.setNamesrvAddr(namesrv);
        producer.setInstanceName(name);
        producer.start();
        List<String> sent = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            String body = "message " + messages++;
            SendResult result = producer.send(new Message(topic, "tag", body, body.getBytes()));
            String broker = result.getMessageQueue().getBrokerName();
            sent.add(line(broker, result.getMessageQueue().getQueueId(), result.getQueueOffset(), body));
        }
        producer.shutdown();
        return sent;
    }

    /** By a new group, from the first offset. */
    private static List<String> receive(int count) throws Exception {
        String name = "logical" + clients++;
        List<String> received = Collections.synchronizedList(new ArrayList<>());
        CountDownLatch rest = new CountDownLatch(count);
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(name);
        consumer.setNamesrvAddr(namesrv);
        consumer.setInstanceName(name);
        consumer.setHeartbeatBrokerInterval(2000);
        consumer.setConsumeThreadMin(1); // so that each queue's messages come in its order
        consumer.setConsumeThreadMax(1);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (batch, context) -> {
            String broker = context.getMessageQueue().getBrokerName();
            int queue = context.getMessageQueue().getQueueId();
            batch.forEach(message -> {
                received.add(line(broker, queue, message.getQueueOffset(), new String(message.getBody())));
                rest.countDown();
            });
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        rest.await(RECEIVE_SECONDS_MAX, TimeUnit.SECONDS);
        Thread.sleep(LATE_MILLIS);
        consumer.shutdown();
        return received;
    }

    private static String line(String broker, int queue, long offset, String body) {
        return String.format("[\"%s\",%d,%d,\"%s\"]", broker, queue, offset, body);
    }
}
