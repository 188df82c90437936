import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.stream.Collectors;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** What the broker does for any client: topics with attributes, properties that it looks at. */
final class Topics {
    private Topics() {}

    /** A producer, and how to make the scenario's topic before the first message does. */
    private static DefaultMQProducer producer(World world, int queues, String attributes)
            throws Exception {
        DefaultMQProducer producer = world.producer();
        SendResult other = producer.send(new Message(world.topic + "-other", World.bytes("x")));
        if (!Raw.of(producer, other).createTopic(world.topic, queues, attributes)) {
            throw new Main.Skipped("RocketMQ's broker has no topics with " + attributes);
        }
        World.awaitRoute(producer, world.topic);
        return producer;
    }

    /** For a client that has no methods for it, a time is a property. */
    static String timer(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        BlockingQueue<Delays.Arrival> inbox = Delays.listen(world, producer);
        long begin = System.currentTimeMillis();
        Map<String, Long> due = new LinkedHashMap<>();
        due.put("soon", begin + 2500);
        due.put("later", begin + 4000);
        due.put("last", begin + 6000);
        producer.send(Raw.with(world.message("t", "last", "last"), "TIMER_DELAY_SEC", 6));
        producer.send(Raw.with(world.message("t", "later", "later"), "TIMER_DELAY_MS", 4000));
        producer.send(
            Raw.with(world.message("t", "soon", "soon"), "TIMER_DELIVER_MS", due.get("soon")));
        List<String> figures = new ArrayList<>();
        for (String name : due.keySet()) {
            Delays.Arrival arrival = Delays.next(inbox);
            World.same("next", name, World.text(arrival.message));
            World.sameAsSent(world.message("t", name, name), arrival.message);
            long after = arrival.millis - due.get(name);
            // RocketMQ's wheel may be a step early; a machine that is busy is late.
            World.check(after > -1001 && after < Delays.LATE_MILLIS_MAX,
                name + " came " + after + " ms after its time");
            figures.add(after + " ms");
        }
        return String.join(", ", figures) + " after their times";
    }

    static String priority(World world) throws Exception {
        DefaultMQProducer producer = producer(world, 3, "+message.type=PRIORITY");
        int[][] cases = {{2, 2}, {0, 0}, {9, 2}, {1, 1}};
        for (int[] it : cases) {
            Message message = Raw.with(world.message("t", "k", "" + it[0]), "_SYS_MSG_PRIORITY_", it[0]);
            SendResult sent = producer.send(message);
            World.same("queue of " + it[0], it[1], sent.getMessageQueue().getQueueId());
        }
        World.take(world.consume(), cases.length);
        return "";
    }

    /** Keys are needed; who reads gets at least the newest value of each. */
    static String compaction(World world) throws Exception {
        DefaultMQProducer producer = producer(world, 1, "+cleanup.policy=COMPACTION");
        try {
            producer.send(new Message(world.topic, World.bytes("no key")));
            throw new AssertionError("a message without keys was taken");
        } catch (MQBrokerException refusal) {
            World.same("code", 13, refusal.getResponseCode());
        }
        for (int i = 0; i < 9; i++) {
            producer.send(world.message("t", "k" + i % 3, "v" + i));
        }
        Map<String, String> newest = new LinkedHashMap<>();
        BlockingQueue<MessageExt> inbox = world.consume();
        Map<String, String> expected = Map.of("k0", "v6", "k1", "v7", "k2", "v8");
        World.until("the newest of each key; got " + newest, () -> {
            for (MessageExt m = inbox.poll(); m != null; m = inbox.poll()) {
                newest.merge(m.getKeys(), World.text(m), (a, b) -> a.compareTo(b) > 0 ? a : b);
            }
            return newest.equals(expected);
        });
        return "";
    }

    /** Stored once, read from the topic and from two light queues. */
    static String lightQueues(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        String[] light = {"%LMQ%" + world.topic + "-a", "%LMQ%" + world.topic + "-b"};
        SendResult sent = null;
        for (int i = 0; i < 6; i++) {
            String names = i % 2 == 0 ? light[0] + "," + light[1] : light[1];
            sent = producer.send(
                Raw.with(world.message("t", "k" + i, "" + i), "INNER_MULTI_DISPATCH", names));
        }
        World.take(world.consume(), 6);
        World.same("a", List.of("0", "2", "4"), pull(world, sent, light[0], 3));
        World.same("b", List.of("0", "1", "2", "3", "4", "5"), pull(world, sent, light[1], 6));
        return "";
    }

    /** No name server knows a light queue: the client must know the broker of its parent. */
    private static List<String> pull(
            World world, SendResult sent, String topic, int count) throws Exception {
        DefaultMQPullConsumer consumer = new DefaultMQPullConsumer(world.group + "-light");
        consumer.setNamesrvAddr(world.namesrv);
        consumer.setInstanceName(world.instance());
        consumer.start();
        try {
            consumer.pull(sent.getMessageQueue(), "*", 0, 1); // now it knows the broker
            MessageQueue queue = new MessageQueue(topic, sent.getMessageQueue().getBrokerName(), 0);
            List<MessageExt> got = new ArrayList<>();
            World.until("messages of " + topic, () -> {
                List<MessageExt> more = consumer.pull(queue, "*", got.size(), 32).getMsgFoundList();
                got.addAll(more == null ? List.of() : more);
                return got.size() >= count;
            });
            return got.stream().map(World::text).collect(Collectors.toList());
        } finally {
            consumer.shutdown();
        }
    }

    /** Attributes that only Firearrow has: no duplicates, an end of each message. */
    static String rules(World world) throws Exception {
        DefaultMQProducer producer =
            producer(world, 1, "+dedup.window.ms=60000,+retention.ms=3600000");
        SendResult first = producer.send(world.message("t", "order-1", "once"));
        SendResult second = producer.send(world.message("t", "order-1", "once more"));
        World.same("place of the second", first.getOffsetMsgId(), second.getOffsetMsgId());
        Message brief = world.message("t", "order-2", "over");
        brief.putUserProperty("TTL_MS", "1");
        producer.send(brief);
        Message lasting = world.message("t", "order-3", "still of use");
        lasting.putUserProperty("TTL_MS", "600000");
        producer.send(lasting);
        Thread.sleep(20);
        Set<String> got = World.take(world.consume(), 2).stream().map(World::text)
            .collect(Collectors.toSet());
        World.same("what was delivered", Set.of("once", "still of use"), got);
        return "";
    }
}
