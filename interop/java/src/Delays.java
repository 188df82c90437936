import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** Messages that come later than they were sent. */
final class Delays {
    /** How much too late a message may be on a busy machine. */
    static final long LATE_MILLIS_MAX = 4000;

    private Delays() {}

    /** A message that arrived, and when. */
    static final class Arrival {
        final MessageExt message;
        final long millis = System.currentTimeMillis();

        Arrival(MessageExt message) {
            this.message = message;
        }
    }

    /** A consumer that already reads the topic, so that what it notes is when a message came. */
    static BlockingQueue<Arrival> listen(World world, DefaultMQProducer producer) throws Exception {
        producer.send(world.message("t", "k", "first"));
        BlockingQueue<Arrival> inbox = new LinkedBlockingQueue<>();
        DefaultMQPushConsumer consumer = world.pushConsumer("*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(message -> inbox.add(new Arrival(message)));
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        World.same("body", "first", World.text(next(inbox).message));
        return inbox;
    }

    static Arrival next(BlockingQueue<Arrival> inbox) throws Exception {
        Arrival arrival = inbox.poll(World.WAIT_SECONDS, TimeUnit.SECONDS);
        World.check(arrival != null, "nothing arrived");
        return arrival;
    }

    static String levels(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        BlockingQueue<Arrival> inbox = listen(world, producer);
        List<String> figures = new ArrayList<>();
        long[] millis = {0, 1000, 5000};
        for (int level : new int[] {2, 1}) { // the shorter wait, sent last, ends first
            Message message = world.message("t", "level-" + level, "level " + level);
            message.setDelayTimeLevel(level);
            SendResult result = producer.send(message);
            World.same("status", SendStatus.SEND_OK, result.getSendStatus());
        }
        for (int level = 1; level <= 2; level++) {
            Arrival arrival = next(inbox);
            MessageExt got = arrival.message;
            World.same("body", "level " + level, World.text(got));
            World.sameAsSent(world.message("t", "level-" + level, "level " + level), got);
            long after = arrival.millis - got.getBornTimestamp();
            long late = after - millis[level];
            World.check(late > -20 && late < LATE_MILLIS_MAX, "level " + level + " came after "
                + after + " ms");
            figures.add(after + " ms");
        }
        World.check(inbox.poll(World.SURPLUS_MILLIS, TimeUnit.MILLISECONDS) == null, "a surplus");
        return String.join(", ", figures);
    }
}
