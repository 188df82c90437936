import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.rocketmq.client.QueryResult;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Queries, members that come and go, waiting consumers, a broker that restarts, TLS. */
final class Cluster {
    private Cluster() {}

    static String query(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        long begin = System.currentTimeMillis() - 1000;
        Message sent = world.message("t", "order-7 customer-3", "seven");
        SendResult result = producer.send(sent);
        producer.send(world.message("t", "order-8 customer-3", "eight"));
        long end = System.currentTimeMillis() + 1000;
        World.same("order-7", Set.of("seven"), found(producer, world, "order-7", begin, end, 1));
        World.same("customer-3", Set.of("seven", "eight"),
            found(producer, world, "customer-3", begin, end, 2));
        World.same("an hour ago", Set.of(),
            found(producer, world, "order-7", begin - 7_200_000, begin - 3_600_000, 0));
        MessageExt byOffset = producer.viewMessage(world.topic, result.getOffsetMsgId());
        World.sameAsSent(sent, byOffset);
        World.same("queue offset", result.getQueueOffset(), byOffset.getQueueOffset());
        MessageExt byUnique = producer.viewMessage(world.topic, result.getMsgId());
        World.sameAsSent(sent, byUnique);
        World.same("queue offset", result.getQueueOffset(), byUnique.getQueueOffset());
        return "";
    }

    /** The bodies with this key; the index may follow the log a moment later. */
    private static Set<String> found(
            DefaultMQProducer producer, World world, String key, long begin, long end, int count)
            throws Exception {
        Set<String> bodies = new HashSet<>();
        World.until(count + " with the key " + key, () -> {
            try {
                QueryResult result = producer.queryMessage(world.topic, key, 32, begin, end);
                result.getMessageList().forEach(message -> bodies.add(World.text(message)));
            } catch (MQClientException none) {
                World.check(none.toString().contains("no message"), none.toString());
            }
            return bodies.size() >= count;
        });
        return bodies;
    }

    /** Four queues: all to one member, two each to two, all to the one that stays. */
    static String rebalance(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        MessageQueue any = producer.send(world.message("t", "first", "first")).getMessageQueue();
        BlockingQueue<MessageExt> inboxA = new LinkedBlockingQueue<>();
        BlockingQueue<MessageExt> inboxB = new LinkedBlockingQueue<>();
        AtomicBoolean settled = new AtomicBoolean();
        DefaultMQPushConsumer a = member(world, inboxA, settled);
        World.until("four queues for one member", () -> queues(world, a).size() == 4);
        World.take(inboxA, 1);
        long joined = System.nanoTime();
        DefaultMQPushConsumer b = member(world, inboxB, settled);
        World.until("two queues each, none in common", () -> shared(world, a, b));
        long join = millisSince(joined);
        // Each newcomer's notice makes everyone share out again; a message of a queue that moves
        // may come to both (at least once), so let that settle before who gets what is checked.
        for (int calm = 0; calm < 10; calm = shared(world, a, b) ? calm + 1 : 0) {
            World.check(millisSince(joined) < 20_000, "the queues keep moving");
            Thread.sleep(50);
        }
        settled.set(true);
        inboxA.clear();
        inboxB.clear();
        Set<Integer> mineA = queues(world, a);
        Set<Integer> mineB = queues(world, b);
        sendToEach(world, producer, any, 3);
        takeFrom(mineA, "a", inboxA);
        takeFrom(mineB, "b", inboxB);
        long left = System.nanoTime();
        b.shutdown();
        World.until("four queues again", () -> queues(world, a).size() == 4);
        long leave = millisSince(left);
        sendToEach(world, producer, any, 1);
        World.take(inboxA, 4);
        World.check(join < 6_000 && leave < 6_000,
            "nobody was notified: joined in " + join + " ms, left in " + leave + " ms");
        return "joined in " + join + " ms, left in " + leave + " ms";
    }

    private static void takeFrom(Set<Integer> mine, String who, BlockingQueue<MessageExt> inbox)
            throws Exception {
        try {
            for (MessageExt message : World.take(inbox, 6)) {
                World.check(mine.contains(message.getQueueId()), "from " + message.getQueueId());
            }
        } catch (AssertionError wrong) {
            throw new AssertionError(who + " with the queues " + mine + ": " + wrong.getMessage());
        }
    }

    private static long millisSince(long nanos) {
        return TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - nanos);
    }

    /** The first message comes again where a new owner of its queue asked before the offset of the
     * old one came: that counts no more once the queues are settled. */
    private static DefaultMQPushConsumer member(
            World world, BlockingQueue<MessageExt> inbox, AtomicBoolean settled) throws Exception {
        DefaultMQPushConsumer consumer = world.pushConsumer("*");
        MessageListenerConcurrently listener = (messages, context) -> {
            for (MessageExt message : messages) {
                if (!settled.get() || !"first".equals(World.text(message))) {
                    inbox.add(message);
                }
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        };
        consumer.registerMessageListener(listener);
        consumer.start();
        return consumer;
    }

    /** The queues of the topic that this member has now. */
    private static Set<Integer> queues(World world, DefaultMQPushConsumer consumer) {
        Set<Integer> ids = new HashSet<>();
        for (MessageQueue queue : consumer.getDefaultMQPushConsumerImpl()
                .getRebalanceImpl().getProcessQueueTable().keySet()) {
            if (queue.getTopic().equals(world.topic)) {
                ids.add(queue.getQueueId());
            }
        }
        return ids;
    }

    private static boolean shared(
            World world, DefaultMQPushConsumer a, DefaultMQPushConsumer b) {
        Set<Integer> all = queues(world, a);
        boolean two = all.size() == 2 && queues(world, b).size() == 2;
        return all.addAll(queues(world, b)) && two && all.equals(Set.of(0, 1, 2, 3));
    }

    private static void sendToEach(World world, DefaultMQProducer producer, MessageQueue any,
            int count) throws Exception {
        for (int i = 0; i < 4 * count; i++) {
            producer.send(world.message("t", "k" + i, "to " + i % 4),
                new MessageQueue(world.topic, any.getBrokerName(), i % 4));
        }
    }

    /** From before the send to the listener, while the consumer's pull waits at the broker. */
    static String wakeUp(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        producer.send(world.message("t", "k", "warm-up"));
        BlockingQueue<MessageExt> inbox = world.consume();
        World.take(inbox, 1);
        double[] millis = new double[31];
        for (int i = 0; i < millis.length; i++) {
            Thread.sleep(60); // lets the pull arrive at the broker and wait there
            long started = System.nanoTime();
            producer.send(world.message("t", "k", "wake " + i));
            MessageExt message = inbox.poll(World.WAIT_SECONDS, TimeUnit.SECONDS);
            World.check(message != null, "arrived: " + i + " of " + millis.length);
            millis[i] = (System.nanoTime() - started) / 1e6;
            World.same("body", "wake " + i, World.text(message));
        }
        Arrays.sort(millis);
        double median = millis[millis.length / 2];
        World.check(median < 500, "median " + median + " ms: nothing woke the waiting pull");
        return String.format("median %.1f ms, worst %.1f ms", median, millis[millis.length - 1]);
    }

    /** What was acknowledged before and after the restart arrives; the same clients go on. */
    static String restart(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        producer.send(world.message("t", "k", "before 0"));
        DefaultMQPushConsumer consumer = world.pushConsumer("*");
        Set<String> got = ConcurrentHashMap.newKeySet();
        BlockingQueue<MessageExt> inbox = new LinkedBlockingQueue<>();
        consumer.registerMessageListener(World.into(inbox));
        Set<String> acknowledged = new HashSet<>(Set.of("before 0"));
        consumer.start();
        sendAll(world, producer, acknowledged, "before", 20);
        drain(inbox, got, acknowledged, "before the restart");
        sendAll(world, producer, acknowledged, "during", 20);
        Main.requestRestart();
        long started = System.nanoTime();
        sendAll(world, producer, acknowledged, "after", 20);
        long resent = millisSince(started);
        drain(inbox, got, acknowledged, "after the restart");
        return "sends went on after " + resent + " ms, all arrived after "
            + millisSince(started) + " ms";
    }

    /** Each message until it is acknowledged: a restart may refuse some. */
    private static void sendAll(World world, DefaultMQProducer producer, Set<String> acknowledged,
            String word, int count) throws Exception {
        for (int i = 1; i < count; i++) {
            Message message = world.message("t", word + i, word + " " + i);
            List<Exception> errors = new ArrayList<>();
            World.until(word + " " + i + " acknowledged: " + errors, () -> {
                try {
                    return producer.send(message).getSendStatus() == SendStatus.SEND_OK;
                } catch (MQClientException | org.apache.rocketmq.remoting.exception
                        .RemotingException | org.apache.rocketmq.client.exception
                        .MQBrokerException error) {
                    errors.add(error);
                    return false;
                }
            });
            acknowledged.add(word + " " + i);
        }
    }

    /** At least once: a message may come twice over a restart, none may be missing. */
    private static void drain(BlockingQueue<MessageExt> inbox, Set<String> got,
            Set<String> expected, String when) throws Exception {
        // 4.9.8 waits out the 30 s of a pull that the stopped broker held and never answered.
        World.until(45, "all messages " + when, () -> {
            for (MessageExt m = inbox.poll(); m != null; m = inbox.poll()) {
                got.add(World.text(m));
            }
            return got.containsAll(expected);
        });
        World.same("bodies " + when, expected, got);
    }

    static String tls(World world) throws Exception {
        World.check(Boolean.getBoolean("tls.enable"), "this process has no tls.enable");
        return Sends.sync(world);
    }
}
