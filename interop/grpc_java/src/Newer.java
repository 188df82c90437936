import java.lang.reflect.Method;
import java.time.Duration;
import java.util.concurrent.BlockingQueue;
import org.apache.rocketmq.client.apis.consumer.ConsumeResult;
import org.apache.rocketmq.client.apis.consumer.FilterExpression;
import org.apache.rocketmq.client.apis.consumer.SimpleConsumer;
import org.apache.rocketmq.client.apis.message.MessageBuilder;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.Producer;
import org.apache.rocketmq.client.apis.producer.SendReceipt;

/** What only newer clients can: called by name, since one source is compiled for all of them. */
final class Newer {
    private static final Method PRIORITY = method(MessageBuilder.class, "setPriority", int.class);
    private static final Method HANDLE = method(SendReceipt.class, "getRecallHandle");
    private static final Method RECALL = method(Producer.class, "recallMessage", String.class, String.class);
    static final boolean KNOWN = PRIORITY != null && HANDLE != null && RECALL != null;

    private Newer() {
    }

    private static Method method(Class<?> type, String name, Class<?>... parameters) {
        try {
            return type.getMethod(name, parameters);
        } catch (NoSuchMethodException older) {
            return null;
        }
    }

    static String priority(World world) throws Exception {
        Producer producer = world.producer();
        for (int number : new int[] {1, 3, 0, 2}) {
            MessageBuilder message = (MessageBuilder) PRIORITY.invoke(world.message("" + number), number);
            producer.send(message.build());
        }
        SimpleConsumer consumer = world.simple(FilterExpression.SUB_ALL);
        StringBuilder order = new StringBuilder();
        while (order.length() < 4) {
            for (MessageView message : consumer.receive(1, Duration.ofSeconds(15))) {
                order.append(World.text(message));
                consumer.ack(message);
            }
        }
        World.check(order.toString(), "3210", "order");
        return null;
    }

    static String recall(World world) throws Exception {
        BlockingQueue<MessageView> inbox = world.push(FilterExpression.SUB_ALL, message -> ConsumeResult.SUCCESS);
        Producer producer = world.producer();
        long due = System.currentTimeMillis() + 6000;
        SendReceipt receipt = producer.send(world.message("taken back").setDeliveryTimestamp(due).build());
        producer.send(world.message("kept").setDeliveryTimestamp(due).build());
        RECALL.invoke(producer, world.topic, HANDLE.invoke(receipt));
        World.check(World.text(World.next(inbox)), "kept", "body");
        World.nothing(inbox, 1000);
        return null;
    }
}
