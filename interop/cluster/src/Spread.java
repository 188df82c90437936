import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;

/** Sends to a topic that several brokers have, consumes it all, and prints how much each broker took and gave. */
public class Spread {
    public static void main(String[] arguments) throws Exception {
        String topic = arguments[0];
        int count = Integer.parseInt(arguments[1]);
        for (int i = 2; i < arguments.length; i++) {
            System.out.println(spread(arguments[i], topic, count));
        }
        System.exit(0);
    }

    private static String spread(String namesrv, String topic, int count) throws Exception {
        String name = "spread" + Long.toHexString(System.nanoTime());
        DefaultMQProducer producer = new DefaultMQProducer(name);
        producer.setNamesrvAddr(namesrv);
        producer.setInstanceName(name);
        producer.start();
        Map<String, Integer> sent = new TreeMap<>();
        Set<String> missing = ConcurrentHashMap.newKeySet();
        for (int i = 0; i < count; i++) {
            Message message = new Message(topic, "tag", name + i, (name + i).getBytes());
            missing.add(name + i);
            SendResult result = producer.send(message);
            sent.merge(result.getMessageQueue().getBrokerName(), 1, Integer::sum);
        }
        Map<String, Integer> received = new ConcurrentHashMap<>();
        CountDownLatch rest = new CountDownLatch(count);
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(name);
        consumer.setNamesrvAddr(namesrv);
        consumer.setInstanceName(name + "c");
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(message -> {
                if (missing.remove(new String(message.getBody()))) {
                    received.merge(context.getMessageQueue().getBrokerName(), 1, Integer::sum);
                    rest.countDown();
                }
            });
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        rest.await(30, TimeUnit.SECONDS);
        consumer.shutdown();
        producer.shutdown();
        return "{\"sent\":" + json(sent) + ",\"received\":" + json(new TreeMap<>(received)) + "}";
    }

    private static String json(Map<String, Integer> counts) {
        StringBuilder text = new StringBuilder("{");
        counts.forEach((broker, n) -> text.append(text.length() > 1 ? "," : "").append('"').append(broker).append("\":").append(n));
        return text.append('}').toString();
    }
}
