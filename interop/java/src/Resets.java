import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.stream.Collectors;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** An operator sets a group elsewhere, by time and offset, while it is online and while it is not. */
final class Resets {
    /** A client that is told of another offset waits 10 s, and up to 20 s more for its queue. */
    private static final int RESET_SECONDS_MAX = 60;

    private Resets() {}

    static String resets(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        SendResult first = producer.send(world.message("t", "k", "0"));
        MessageQueue queue = first.getMessageQueue();
        Raw raw = Raw.of(producer, first);
        for (int i = 1; i < 5; i++) {
            producer.send(world.message("t", "k", "" + i), queue);
        }
        Thread.sleep(50);
        long middle = System.currentTimeMillis();
        Thread.sleep(50);
        for (int i = 5; i < 10; i++) {
            producer.send(world.message("t", "k", "" + i), queue);
        }
        BlockingQueue<MessageExt> inbox = new LinkedBlockingQueue<>();
        DefaultMQPushConsumer consumer = world.pushConsumer("*");
        consumer.setConsumeThreadMin(1);
        consumer.setConsumeThreadMax(1);
        consumer.registerMessageListener(World.into(inbox));
        consumer.start();
        World.same("at first", from(0, 10), texts(inbox, 10));
        consumer.getDefaultMQPushConsumerImpl().persistConsumerOffset();

        raw.reset(world, middle, null, -1);
        producer.send(world.message("t", "k", "10"), queue); // ends a pull that waits
        World.until(RESET_SECONDS_MAX, "what came after a time, again", () -> inbox.size() >= 6);
        List<String> again = texts(inbox, inbox.size());
        // The new message may have been on its way before the next pull was told of the reset.
        World.same("by time", from(5, 11), again.subList(again.size() - 6, again.size()));
        World.check(again.size() <= 7, "came again: " + again);

        raw.configure("useServerSideResetOffset", "false"); // the broker tells the client instead
        try {
            consumer.getDefaultMQPushConsumerImpl().persistConsumerOffset();
            raw.reset(world, middle, null, -1);
            World.until(RESET_SECONDS_MAX, "what the client was told", () -> inbox.size() >= 6);
            World.same("told", from(5, 11), texts(inbox, inbox.size()));
        } finally {
            raw.configure("useServerSideResetOffset", "true");
        }
        consumer.shutdown();

        raw.reset(world, -1, queue, 8);
        World.same("offline, to an offset", from(8, 11), once(world, 3));
        producer.send(world.message("t", "k", "skipped"), queue);
        raw.reset(world, -1, null, -1);
        producer.send(world.message("t", "k", "new"), queue);
        World.same("offline, to the end", List.of("new"), once(world, 1));
        return "";
    }

    /** What a member that comes and goes gets. */
    private static List<String> once(World world, int count) throws Exception {
        BlockingQueue<MessageExt> inbox = new LinkedBlockingQueue<>();
        DefaultMQPushConsumer consumer = world.pushConsumer("*");
        consumer.setConsumeThreadMin(1);
        consumer.setConsumeThreadMax(1);
        consumer.registerMessageListener(World.into(inbox));
        consumer.start();
        List<String> got = texts(inbox, count);
        consumer.shutdown();
        return got;
    }

    private static List<String> texts(BlockingQueue<MessageExt> inbox, int count) throws Exception {
        return World.take(inbox, count).stream().map(World::text).collect(Collectors.toList());
    }

    private static List<String> from(int first, int end) {
        return java.util.stream.IntStream.range(first, end).mapToObj(n -> "" + n)
            .collect(Collectors.toList());
    }
}
