import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Every way to consume. */
final class Consumes {
    private Consumes() {}

    private static Set<String> bodies(List<MessageExt> messages) {
        Set<String> bodies = new HashSet<>();
        for (MessageExt message : messages) {
            World.check(bodies.add(World.text(message)), "twice: " + World.text(message));
        }
        return bodies;
    }

    private static Set<String> send(World world, DefaultMQProducer producer, int from, int to)
            throws Exception {
        Set<String> bodies = new HashSet<>();
        for (int i = from; i < to; i++) {
            producer.send(world.message("tag" + i % 3, "key-" + i, "body " + i));
            bodies.add("body " + i);
        }
        return bodies;
    }

    /** Then a second consumer of the group goes on where the first one stopped. */
    static String concurrent(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        Set<String> sent = send(world, producer, 0, 100);
        BlockingQueue<MessageExt> inbox = new LinkedBlockingQueue<>();
        DefaultMQPushConsumer consumer = world.pushConsumer("*");
        consumer.setConsumeMessageBatchMaxSize(8);
        consumer.registerMessageListener(World.into(inbox));
        consumer.start();
        World.same("bodies", sent, bodies(World.take(inbox, 100)));
        consumer.shutdown(); // commits its offsets
        Set<String> later = send(world, producer, 100, 120);
        World.same("after a restart", later, bodies(World.take(world.consume(), 20)));
        return "";
    }

    static String orderly(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        int lanes = 5;
        for (int i = 0; i < 100; i++) {
            Message message = world.message("t", "lane-" + i % lanes, "" + i);
            producer.send(
                message, (queues, m, lane) -> queues.get((Integer) lane % queues.size()), i % lanes);
        }
        BlockingQueue<MessageExt> inbox = new LinkedBlockingQueue<>();
        Map<Integer, AtomicInteger> busy = new ConcurrentHashMap<>();
        List<String> overlaps = Collections.synchronizedList(new ArrayList<>());
        AtomicInteger failures = new AtomicInteger();
        DefaultMQPushConsumer consumer = world.pushConsumer("*");
        consumer.setSuspendCurrentQueueTimeMillis(50);
        consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
            int queue = messages.get(0).getQueueId();
            AtomicInteger inside = busy.computeIfAbsent(queue, q -> new AtomicInteger());
            if (inside.incrementAndGet() > 1) {
                overlaps.add("queue " + queue);
            }
            try {
                // One hiccup: the queue must wait for the message, not pass it by.
                if (World.text(messages.get(0)).equals("50") && failures.getAndIncrement() == 0) {
                    return ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT;
                }
                inbox.addAll(messages);
                return ConsumeOrderlyStatus.SUCCESS;
            } finally {
                inside.decrementAndGet();
            }
        });
        consumer.start();
        Map<String, Integer> last = new HashMap<>();
        for (MessageExt message : World.take(inbox, 100)) {
            int number = Integer.parseInt(World.text(message));
            Integer before = last.put(message.getKeys(), number);
            int expected = before == null ? number % lanes : before + lanes;
            World.same("next of " + message.getKeys(), expected, number);
        }
        World.same("two listeners in a queue", List.of(), overlaps);
        World.same("deliveries of the message that failed once", 2, failures.get());
        return "";
    }

    static String broadcast(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        Set<String> sent = send(world, producer, 0, 20);
        List<BlockingQueue<MessageExt>> inboxes = new ArrayList<>();
        for (int member = 0; member < 2; member++) {
            BlockingQueue<MessageExt> inbox = new LinkedBlockingQueue<>();
            DefaultMQPushConsumer consumer = world.pushConsumer("*");
            World.broadcast(consumer);
            consumer.registerMessageListener(World.into(inbox));
            consumer.start();
            inboxes.add(inbox);
        }
        for (BlockingQueue<MessageExt> inbox : inboxes) {
            World.same("bodies", sent, bodies(World.take(inbox, 20)));
        }
        return "";
    }

    static String tags(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        send(world, producer, 0, 30); // tag0, tag1, tag2 in turn
        producer.send(new Message(world.topic, World.bytes("no tag")));
        BlockingQueue<MessageExt> inbox = new LinkedBlockingQueue<>();
        DefaultMQPushConsumer consumer = world.pushConsumer("tag0 || tag2");
        consumer.registerMessageListener(World.into(inbox));
        consumer.start();
        List<MessageExt> got = World.take(inbox, 20);
        for (MessageExt message : got) {
            int number = Integer.parseInt(World.text(message).substring(5));
            World.same("tag of " + number, "tag" + number % 3, message.getTags());
            World.check(number % 3 != 1, "not subscribed: " + number);
        }
        World.same("bodies", 20, bodies(got).size());
        return "";
    }

    /** Wakes waiting consumers too: half of the messages are sent when they are there. */
    static String sqlFilter(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        sendNumbers(world, producer, 0, 10);
        BlockingQueue<MessageExt> inbox = new LinkedBlockingQueue<>();
        DefaultMQPushConsumer consumer = world.pushConsumer("*");
        consumer.subscribe(world.topic,
            MessageSelector.bySql("n BETWEEN 3 AND 6 OR (word = 'it''s' AND n > 15)"));
        consumer.registerMessageListener(World.into(inbox));
        consumer.start();
        Set<String> got = bodies(World.take(inbox, 4));
        World.same("first half", Set.of("3", "4", "5", "6"), got);
        sendNumbers(world, producer, 10, 20);
        World.same("second half", Set.of("16", "18"), bodies(World.take(inbox, 2)));
        refused(world);
        return "";
    }

    private static void sendNumbers(World world, DefaultMQProducer producer, int from, int to)
            throws Exception {
        for (int i = from; i < to; i++) {
            Message message = new Message(world.topic, World.bytes("" + i));
            message.putUserProperty("n", "" + i);
            message.putUserProperty("word", i % 2 == 0 ? "it's" : "its");
            producer.send(message);
        }
    }

    /** A consumer asks the broker before it starts. */
    private static void refused(World world) throws Exception {
        DefaultMQPushConsumer wrong = new DefaultMQPushConsumer(world.group + "-wrong");
        wrong.setNamesrvAddr(world.namesrv);
        wrong.setInstanceName(world.instance());
        wrong.subscribe(world.topic, MessageSelector.bySql("n > 'x'"));
        wrong.registerMessageListener(World.into(new LinkedBlockingQueue<>()));
        try {
            wrong.start();
        } catch (MQClientException refusal) {
            World.same("code of the refusal", 23, refusal.getResponseCode());
            return;
        } finally {
            wrong.shutdown();
        }
        World.check(false, "a wrong expression was accepted");
    }

    static String litePull(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        SendResult first = producer.send(world.message("t", "key-0", "0"));
        World.awaitRoute(producer, world.topic);
        MessageQueue queue = first.getMessageQueue();
        long middle = 0;
        for (int i = 1; i < 10; i++) {
            if (i == 6) {
                Thread.sleep(20);
                middle = System.currentTimeMillis();
                Thread.sleep(20);
            }
            producer.send(world.message("t", "key-" + i, "" + i), queue);
        }
        DefaultLitePullConsumer consumer = world.litePull();
        World.same("queues", 4, consumer.fetchMessageQueues(world.topic).size());
        consumer.assign(List.of(queue));
        consumer.seek(queue, 4);
        World.same("from offset 4", List.of(4L, 5L, 6L, 7L, 8L, 9L), poll(consumer, 6));
        consumer.seekToBegin(queue);
        World.same("from the beginning", 0L, poll(consumer, 10).get(0));
        World.same("offset at a time", 6L, consumer.offsetForTimestamp(queue, middle));
        consumer.seek(queue, 8);
        World.same("from offset 8", List.of(8L, 9L), poll(consumer, 2));
        consumer.commitSync();
        consumer.shutdown();
        DefaultLitePullConsumer next = world.litePull();
        next.assign(List.of(queue));
        World.same("committed", 10L, next.committed(queue));
        return "";
    }

    private static List<Long> poll(DefaultLitePullConsumer consumer, int count) throws Exception {
        List<Long> offsets = new ArrayList<>();
        World.until(count + " messages pulled", () -> {
            for (MessageExt message : consumer.poll(100)) {
                World.same("body", "" + message.getQueueOffset(), World.text(message));
                offsets.add(message.getQueueOffset());
            }
            return offsets.size() >= count;
        });
        World.same("pulled", count, offsets.size());
        return offsets;
    }

    /** One retry after a second, then the dead-letter topic of the group. */
    static String deadLetter(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        // The broker makes the retry topic when the group first shows up; a push consumer that
        // looked for its route before that looks again in 30 s, so another member comes first.
        producer.send(world.message("other", "key-other", "makes the topic"));
        DefaultMQPushConsumer first = world.pushConsumer("t");
        first.registerMessageListener(World.into(new LinkedBlockingQueue<>()));
        first.start();
        World.awaitRoute(producer, "%RETRY%" + world.group);
        first.shutdown();
        Message sent = world.message("t", "key-dead", "nobody wants it");
        SendResult result = producer.send(sent);
        BlockingQueue<MessageExt> inbox = new LinkedBlockingQueue<>();
        DefaultMQPushConsumer consumer = world.pushConsumer("t");
        consumer.setMaxReconsumeTimes(1);
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            inbox.addAll(messages);
            context.setDelayLevelWhenNextConsume(1);
            return ConsumeConcurrentlyStatus.RECONSUME_LATER;
        });
        long started = System.nanoTime();
        consumer.start();
        World.until("the second delivery", () -> inbox.size() >= 2);
        long millis = (System.nanoTime() - started) / 1_000_000;
        World.check(millis >= 900, "the retry came after " + millis + " ms, not a second");
        int times = 0;
        for (MessageExt message : World.take(inbox, 2)) {
            World.same("reconsume times", times++, message.getReconsumeTimes());
            retried(world, sent, result, message);
        }
        String topic = "%DLQ%" + world.group;
        MessageQueue queue =
            new MessageQueue(topic, result.getMessageQueue().getBrokerName(), 0);
        World.awaitRoute(producer, topic);
        DefaultLitePullConsumer pull = world.litePull();
        pull.assign(List.of(queue));
        pull.seek(queue, 0);
        List<MessageExt> dead = new ArrayList<>();
        World.until("a dead letter", () -> dead.addAll(pull.poll(100)));
        World.same("dead letters", 1, dead.size());
        World.same("topic", topic, dead.get(0).getTopic());
        World.same("origin topic", world.topic, dead.get(0).getProperty("RETRY_TOPIC"));
        retried(world, sent, result, dead.get(0));
        return "";
    }

    private static void retried(World world, Message sent, SendResult result, MessageExt got) {
        World.same("body", World.text(sent), World.text(got));
        World.same("keys", sent.getKeys(), got.getKeys());
        World.same("tags", sent.getTags(), got.getTags());
        World.same("property", sent.getUserProperty("colour"), got.getUserProperty("colour"));
        World.same("unique id", result.getMsgId(), got.getMsgId());
        if (got.getReconsumeTimes() == 0) {
            World.same("topic", world.topic, got.getTopic());
        } else {
            World.same("origin", result.getOffsetMsgId(), got.getProperty("ORIGIN_MESSAGE_ID"));
        }
    }
}
