import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.AckStatus;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.header.PopMessageRequestHeader;

/** Consumption in pop mode, which clients know from 5.0 on. */
final class Pops {
    /** Read by Main where this class is there. */
    static final Map<String, Main.Scenario> SCENARIOS = new LinkedHashMap<>();

    static {
        SCENARIOS.put("pop, later again", Pops::laterAgain);
        SCENARIOS.put("pop, forgotten", Pops::forgotten);
        SCENARIOS.put("pop, priority", Pops::priority);
        SCENARIOS.put("pop concurrent", Pops::concurrent);
        SCENARIOS.put("pop, members", Pops::members);
        SCENARIOS.put("pop, tags", Pops::tags);
        SCENARIOS.put("pop, SQL92 filter", Pops::sql);
        SCENARIOS.put("pop, invisible time", Pops::invisible);
        SCENARIOS.put("pop in order", Pops::ordered);
        SCENARIOS.put("pop, long poll", Pops::longPoll);
    }

    private Pops() {}

    /** Messages 0 to count, one by one over the queues; the broker that took them. */
    private static String send(World world, DefaultMQProducer producer, int from, int to)
            throws Exception {
        String broker = "";
        for (int i = from; i < to; i++) {
            Message message = world.message("tag" + i % 3, "key-" + i, "body " + i);
            message.putUserProperty("number", "" + i);
            SendResult result = producer.send(message);
            broker = result.getMessageQueue().getBrokerName();
        }
        return broker;
    }

    private static Set<String> bodies(List<MessageExt> messages) {
        Set<String> bodies = new HashSet<>();
        for (MessageExt message : messages) {
            World.check(bodies.add(World.text(message)), "twice: " + World.text(message));
        }
        return bodies;
    }

    private static Set<String> numbered(int from, int to) {
        Set<String> bodies = new HashSet<>();
        for (int i = from; i < to; i++) {
            bodies.add("body " + i);
        }
        return bodies;
    }

    private static Popping popping(World world, DefaultMQProducer producer, String broker)
            throws Exception {
        World.awaitRoute(producer, world.topic);
        Popping popping = new Popping(world, producer, broker);
        PopMessageRequestHeader probe = popping.header(1000);
        probe.setConsumerGroup(world.group + "-probe");
        popping.pop(probe); // skips where pop cannot be asked for
        return popping;
    }

    /** A push consumer in pop mode gets everything once and acknowledges it. */
    static String concurrent(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        Popping popping = popping(world, producer, send(world, producer, 0, 50));
        popping.mode(-1);
        BlockingQueue<MessageExt> inbox = new LinkedBlockingQueue<>();
        DefaultMQPushConsumer consumer = Popping.consumer(world, "*");
        consumer.setPopInvisibleTime(5000);
        consumer.registerMessageListener(World.into(inbox));
        consumer.start();
        List<MessageExt> got = World.take(inbox, 50);
        World.same("bodies", numbered(0, 50), bodies(got));
        for (MessageExt message : got) {
            World.check(popping.handle(message) != null, "not popped: " + World.text(message));
            World.same("topic", world.topic, message.getTopic());
        }
        send(world, producer, 50, 100);
        World.same("later ones", numbered(50, 100), bodies(World.take(inbox, 50)));
        MessageExt again = inbox.poll(11, TimeUnit.SECONDS); // the invisible time and revive
        World.check(again == null, "acknowledged, and came again: " + again);
        return "";
    }

    /** RECONSUME_LATER changes the invisible time to 10 s; then the message comes again. */
    static String laterAgain(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        Popping popping = popping(world, producer, send(world, producer, 0, 1));
        popping.mode(-1);
        BlockingQueue<MessageExt> inbox = new LinkedBlockingQueue<>();
        AtomicInteger tries = new AtomicInteger();
        DefaultMQPushConsumer consumer = Popping.consumer(world, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            inbox.addAll(messages);
            return tries.getAndIncrement() == 0
                ? ConsumeConcurrentlyStatus.RECONSUME_LATER
                : ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        World.until("the first delivery", () -> inbox.size() >= 1);
        long first = System.nanoTime();
        World.until(40, "the second delivery", () -> inbox.size() >= 2);
        long millis = (System.nanoTime() - first) / 1_000_000;
        World.check(millis > 9_500, "again after " + millis + " ms, not 10 s");
        int times = 0;
        for (MessageExt message : World.take(inbox, 2)) {
            World.same("body", "body 0", World.text(message));
            World.same("topic", world.topic, message.getTopic());
            World.same("reconsume times", times++, message.getReconsumeTimes());
        }
        return "again after " + millis + " ms";
    }

    /** Popped by somebody who dies: those not acknowledged come again, and again. */
    static String forgotten(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        Popping popping = popping(world, producer, send(world, producer, 0, 12));
        List<MessageExt> first = popAll(popping, 5000, 12);
        Set<String> open = new HashSet<>();
        List<String> handles = new ArrayList<>();
        for (MessageExt message : first) {
            int number = Integer.parseInt(message.getProperty("number"));
            if (number % 3 == 0) {
                World.same("acknowledged", AckStatus.OK, popping.ack(message));
            } else if (number % 3 == 1) {
                handles.add(popping.handle(message));
            } else {
                open.add(World.text(message));
            }
        }
        World.same("batch", AckStatus.OK, popping.ackAll(handles));
        World.same("invisible", List.of(), popping.pop(5000));
        for (int times = 1; times <= 2; times++) {
            List<MessageExt> again = popAll(popping, 5000, open.size());
            World.same("come again", open, bodies(again));
            for (MessageExt message : again) {
                World.same("reconsume times", times, message.getReconsumeTimes());
                World.same("topic", world.topic, message.getTopic());
                World.same("property", message.getKeys(), "key-" + message.getProperty("number"));
                if (times == 2) {
                    World.same("acknowledged", AckStatus.OK, popping.ack(message));
                }
            }
        }
        Thread.sleep(10_000);
        World.same("all acknowledged", List.of(), popping.pop(5000));
        return "";
    }

    private static List<MessageExt> popAll(Popping popping, long invisible, int count)
            throws Exception {
        List<MessageExt> all = new ArrayList<>();
        World.until(30, count + " popped", () -> {
            all.addAll(popping.pop(invisible));
            Thread.sleep(50);
            return all.size() >= count;
        });
        World.same("popped", count, all.size());
        return all;
    }

    /** Two members share; nothing is lost or doubled when one joins and leaves. */
    static String members(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        Popping popping = popping(world, producer, send(world, producer, 0, 10));
        popping.mode(-1);
        BlockingQueue<MessageExt> inboxA = new LinkedBlockingQueue<>();
        BlockingQueue<MessageExt> inboxB = new LinkedBlockingQueue<>();
        DefaultMQPushConsumer a = member(world, inboxA);
        World.same("one member", numbered(0, 10), bodies(World.take(inboxA, 10)));
        DefaultMQPushConsumer b = member(world, inboxB);
        AtomicInteger next = new AtomicInteger(10);
        World.until("both get messages", () -> {
            send(world, producer, next.get(), next.addAndGet(10));
            return inboxB.size() > 0 && inboxA.size() > 0;
        });
        List<MessageExt> got = new ArrayList<>();
        World.until("all of them", () -> {
            inboxA.drainTo(got);
            inboxB.drainTo(got);
            return got.size() >= next.get() - 10;
        });
        World.same("between them", numbered(10, next.get()), bodies(got));
        b.shutdown();
        int from = next.get();
        send(world, producer, from, from + 10);
        // A pop of the leaving member may have taken some: they come again to the other.
        Set<String> later = new HashSet<>();
        World.until(45, "the rest to the one that stays", () -> {
            MessageExt message = inboxA.poll(50, TimeUnit.MILLISECONDS);
            if (message != null) {
                later.add(World.text(message));
            }
            return later.containsAll(numbered(from, from + 10));
        });
        return next.get() - 10 + " messages between two members";
    }

    private static DefaultMQPushConsumer member(World world, BlockingQueue<MessageExt> inbox)
            throws Exception {
        DefaultMQPushConsumer consumer = Popping.consumer(world, "*");
        consumer.setPopInvisibleTime(10_000);
        consumer.registerMessageListener(World.into(inbox));
        consumer.start();
        return consumer;
    }

    static String tags(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        Popping popping = popping(world, producer, send(world, producer, 0, 30));
        popping.mode(-1);
        BlockingQueue<MessageExt> inbox = new LinkedBlockingQueue<>();
        DefaultMQPushConsumer consumer = Popping.consumer(world, "tag0 || tag2");
        consumer.registerMessageListener(World.into(inbox));
        consumer.start();
        for (MessageExt message : World.take(inbox, 20)) {
            World.check(!"tag1".equals(message.getTags()), "not subscribed");
        }
        send(world, producer, 30, 60);
        for (MessageExt message : World.take(inbox, 20)) {
            World.check(!"tag1".equals(message.getTags()), "not subscribed");
        }
        return "";
    }

    static String sql(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        Popping popping = popping(world, producer, send(world, producer, 0, 30));
        popping.mode(-1);
        BlockingQueue<MessageExt> inbox = new LinkedBlockingQueue<>();
        DefaultMQPushConsumer consumer = Popping.consumer(world, "*");
        consumer.subscribe(world.topic, MessageSelector.bySql("number BETWEEN 10 AND 19"));
        consumer.registerMessageListener(World.into(inbox));
        consumer.start();
        World.same("matching", numbered(10, 20), bodies(World.take(inbox, 10)));
        return "";
    }

    /** A longer time keeps a message away; none gives it back. */
    static String invisible(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        Popping popping = popping(world, producer, send(world, producer, 0, 2));
        List<MessageExt> got = popAll(popping, 5000, 2);
        MessageExt kept = got.get(0);
        MessageExt returned = got.get(1);
        String handle = popping.change(kept, 20_000);
        popping.change(returned, 0);
        List<MessageExt> again = popAll(popping, 60_000, 1);
        World.same("given back", World.text(returned), World.text(again.get(0)));
        World.same("acknowledged", AckStatus.OK, popping.ack(again.get(0)));
        Thread.sleep(9000); // past the first invisible time
        World.same("still away", List.of(), popping.pop(5000));
        World.same("new handle", AckStatus.OK, popping.ackAll(List.of(handle)));
        return "";
    }

    /** One batch of a queue at a time; the next one follows the last acknowledgement. */
    static String ordered(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        MessageQueue queue = producer.send(world.message("t", "k", "0")).getMessageQueue();
        for (int i = 1; i < 6; i++) {
            producer.send(world.message("t", "k", "" + i), queue);
        }
        Popping popping = popping(world, producer, queue.getBrokerName());
        PopMessageRequestHeader header = popping.header(6000);
        header.setOrder(true);
        header.setQueueId(queue.getQueueId());
        header.setMaxMsgNums(3);
        header.setAttemptId("first");
        List<MessageExt> batch = popping.pop(header);
        World.same("in order", List.of("0", "1", "2"), texts(batch));
        World.same("the same attempt", List.of("0", "1", "2"), texts(popping.pop(header)));
        header.setAttemptId("second");
        header.setBornTime(System.currentTimeMillis());
        World.same("blocked", List.of(), popping.pop(header));
        header.setPollTime(20_000);
        header.setBornTime(System.currentTimeMillis());
        List<MessageExt> again = popping.pop(header);
        World.same("visible again", List.of("0", "1", "2"), texts(again));
        Map<Integer, Integer> times = new HashMap<>();
        for (MessageExt message : again) {
            times.merge(message.getReconsumeTimes(), 1, Integer::sum);
        }
        World.same("reconsume times", Map.of(1, 3), times);
        for (MessageExt message : again) {
            World.same("acknowledged", AckStatus.OK, popping.ack(message));
        }
        header.setAttemptId("third");
        header.setBornTime(System.currentTimeMillis());
        World.same("the next ones", List.of("3", "4", "5"), texts(popping.pop(header)));
        return "";
    }

    /** A priority is a queue; the highest comes first, and again first when all come again. */
    static String priority(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        Popping popping = popping(world, producer, send(world, producer, 0, 1));
        popAll(popping, 60_000, 1);
        TopicConfig topic = new TopicConfig(world.topic, 3, 3);
        topic.setAttributes(Map.of("+message.type", "PRIORITY"));
        popping.api.createTopic(popping.address, "TBW102", topic, 5000);
        int[] priorities = {0, 2, 1, 9};
        int[] queues = {0, 2, 1, 2};
        for (int i = 0; i < priorities.length; i++) {
            Message message = world.message("t", "k" + i, "" + priorities[i]);
            message.setPriority(priorities[i]);
            MessageQueue asked = new MessageQueue(world.topic, popping.broker, 0);
            SendResult sent = producer.send(message, asked);
            World.same("queue", queues[i], sent.getMessageQueue().getQueueId());
        }
        List<String> order = List.of("2", "9", "1", "0");
        World.same("the first time", order, oneByOne(popping, order.size(), 3000));
        Thread.sleep(15_000); // all of them have come again
        // 2 and 9 are one priority here, and come back in the order of their revive queues.
        List<String> again = oneByOne(popping, order.size(), 60_000);
        Collections.sort(again.subList(0, 2));
        World.same("the second time", order, again);
        return "";
    }

    private static List<String> oneByOne(Popping popping, int count, long invisible) throws Exception {
        List<String> found = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            PopMessageRequestHeader header = popping.header(invisible);
            header.setMaxMsgNums(1);
            found.addAll(texts(popping.pop(header)));
        }
        return found;
    }

    private static List<String> texts(List<MessageExt> messages) {
        List<String> texts = new ArrayList<>();
        messages.forEach(message -> texts.add(World.text(message)));
        return texts;
    }

    /** A waiting pop is answered when a message comes. */
    static String longPoll(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        Popping popping = popping(world, producer, send(world, producer, 0, 1));
        popAll(popping, 60_000, 1);
        PopMessageRequestHeader header = popping.header(60_000);
        header.setPollTime(15_000);
        long[] sent = {0};
        Thread later = new Thread(() -> {
            try {
                Thread.sleep(1500);
                sent[0] = System.nanoTime();
                send(world, producer, 1, 2);
            } catch (Exception error) {
                throw new IllegalStateException(error);
            }
        });
        later.start();
        List<MessageExt> got = popping.pop(header);
        long millis = (System.nanoTime() - sent[0]) / 1_000_000;
        later.join();
        World.same("woken", List.of("body 1"), texts(got));
        World.check(millis < 2000, "answered " + millis + " ms after the send");
        return millis + " ms after the send";
    }
}
