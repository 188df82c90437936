import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageClientExt;
import org.apache.rocketmq.common.message.MessageExt;

/** What one scenario opens, the names it uses, and how it checks. */
final class World implements AutoCloseable {
    static final int WAIT_SECONDS = 20;
    /** How long surplus messages get to show up once the expected ones are there. */
    static final int SURPLUS_MILLIS = 300;

    final String namesrv;
    final String topic;
    final String group;
    private final List<Runnable> closers = new ArrayList<>();
    private int instances;
    private DefaultMQProducer lastProducer;

    World(String namesrv, String run, String scenario) {
        this.namesrv = namesrv;
        String name = run + "-" + scenario.replaceAll("[^A-Za-z0-9]+", "-");
        topic = "java-" + name;
        group = "java-group-" + name;
    }

    /** One of its own for every client, so that two members of a group can live in this process. */
    String instance() {
        return group + "-" + instances++;
    }

    void closeLater(Runnable closer) {
        closers.add(closer);
    }

    DefaultMQProducer producer() throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer(group + "-producer");
        producer.setNamesrvAddr(namesrv);
        producer.setInstanceName(instance());
        producer.setSendMsgTimeout(8000);
        producer.start();
        closers.add(producer::shutdown);
        lastProducer = producer;
        return producer;
    }

    /**
     * Waits until the name server knows the topic: a broker tells it of a new topic a moment after
     * it acknowledged the first message, and a consumer that starts in between looks again in 30 s.
     */
    static void awaitRoute(DefaultMQProducer producer, String topic) throws Exception {
        until("a route of " + topic, () -> {
            try {
                return !producer.fetchPublishMessageQueues(topic).isEmpty();
            } catch (MQClientException notYet) {
                return false;
            }
        });
    }

    DefaultMQPushConsumer pushConsumer(String tags) throws Exception {
        if (lastProducer != null) {
            awaitRoute(lastProducer, topic);
        }
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(namesrv);
        consumer.setInstanceName(instance());
        // After its queues changed, a 5.5.0 consumer pulls nothing until a heartbeat told the broker of
        // it; it leaves that one out when another heartbeat is under way, and the next is due in 30 s.
        // A broker that restarted, too, knows the group again with the next heartbeat.
        consumer.setHeartbeatBrokerInterval(2000);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setConsumeThreadMin(4);
        consumer.setConsumeThreadMax(4);
        consumer.subscribe(topic, tags);
        closers.add(consumer::shutdown);
        return consumer;
    }

    DefaultLitePullConsumer litePull() throws Exception {
        DefaultLitePullConsumer consumer = new DefaultLitePullConsumer(group);
        consumer.setNamesrvAddr(namesrv);
        consumer.setInstanceName(instance());
        consumer.setAutoCommit(false);
        consumer.start();
        closers.add(consumer::shutdown);
        return consumer;
    }

    static MessageListenerConcurrently into(BlockingQueue<MessageExt> inbox) {
        return (messages, context) -> {
            inbox.addAll(messages);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        };
    }

    /** A started consumer of every message of the topic. */
    BlockingQueue<MessageExt> consume() throws Exception {
        BlockingQueue<MessageExt> inbox = new LinkedBlockingQueue<>();
        DefaultMQPushConsumer consumer = pushConsumer("*");
        consumer.registerMessageListener(into(inbox));
        consumer.start();
        return inbox;
    }

    /** Exactly {@code count} messages: fewer in time, or one more soon after, is a failure. */
    static List<MessageExt> take(BlockingQueue<MessageExt> inbox, int count) throws Exception {
        List<MessageExt> messages = new ArrayList<>();
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_SECONDS);
        while (messages.size() < count) {
            MessageExt message = inbox.poll(deadline - System.nanoTime(), TimeUnit.NANOSECONDS);
            check(message != null, "arrived: " + messages.size() + " of " + count);
            messages.add(message);
        }
        MessageExt surplus = inbox.poll(SURPLUS_MILLIS, TimeUnit.MILLISECONDS);
        check(surplus == null, "arrived besides the " + count + " expected: " + surplus + ", with "
            + messages);
        return messages;
    }

    /** The first true, or a failure after the usual wait. */
    static void until(String what, Callable<Boolean> condition) throws Exception {
        until(WAIT_SECONDS, what, condition);
    }

    static void until(int seconds, String what, Callable<Boolean> condition) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(seconds);
        while (!condition.call()) {
            check(System.nanoTime() < deadline, "not in " + seconds + " s: " + what);
            Thread.sleep(20);
        }
    }

    Message message(String tag, String key, String body) {
        Message message = new Message(topic, tag, key, bytes(body));
        message.putUserProperty("colour", "blau-grün " + key);
        return message;
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(Message message) {
        return new String(message.getBody(), StandardCharsets.UTF_8);
    }

    /** All that a consumer can see of a message is what the producer put in and was told. */
    static void sameAsSent(Message sent, SendResult result, MessageExt got) {
        same("status", SendStatus.SEND_OK, result.getSendStatus());
        same("queue", result.getMessageQueue().getQueueId(), got.getQueueId());
        same("queue offset", result.getQueueOffset(), got.getQueueOffset());
        same("broker name", result.getMessageQueue().getBrokerName(), got.getBrokerName());
        same("unique id", result.getMsgId(), got.getMsgId());
        String offsetId = ((MessageClientExt) got).getOffsetMsgId();
        same("offset id", result.getOffsetMsgId(), offsetId);
        sameAsSent(sent, got);
    }

    static void sameAsSent(Message sent, MessageExt got) {
        same("topic", sent.getTopic(), got.getTopic());
        same("body", text(sent), text(got));
        same("keys", sent.getKeys(), got.getKeys());
        same("tags", sent.getTags(), got.getTags());
        same("property", sent.getUserProperty("colour"), got.getUserProperty("colour"));
        same("reconsume times", 0, got.getReconsumeTimes());
        long age = System.currentTimeMillis() - got.getBornTimestamp();
        check(age >= 0 && age < 60_000, "born " + age + " ms ago");
        long taken = got.getStoreTimestamp() - got.getBornTimestamp();
        check(taken >= 0 && taken < 60_000, "stored " + taken + " ms after its birth");
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static void same(String what, Object expected, Object got) {
        check(Objects.equals(expected, got), what + ": expected " + expected + ", got " + got);
    }

    /** The enum lives in another package in each release, so its name must not be compiled in. */
    @SuppressWarnings({"unchecked", "rawtypes"})
    static void broadcast(DefaultMQPushConsumer consumer) throws Exception {
        for (Method method : DefaultMQPushConsumer.class.getMethods()) {
            if (method.getName().equals("setMessageModel")) {
                Class type = method.getParameterTypes()[0];
                method.invoke(consumer, Enum.valueOf(type, "BROADCASTING"));
            }
        }
    }

    @Override
    public void close() {
        for (int i = closers.size() - 1; i >= 0; i--) {
            closers.get(i).run();
        }
    }
}
