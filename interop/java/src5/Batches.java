import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.impl.MQClientAPIImpl;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.compression.CompressionType;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.route.BrokerData;

/** Topics whose queues hold whole batches, and compressors: what clients know from 5.1 on. */
final class Batches {
    /** Read by Main where this class is there. */
    static final Map<String, Main.Scenario> SCENARIOS = new LinkedHashMap<>();

    private static final String TEMPLATE = "TBW102";
    private static final int QUEUES = 2;
    private static final int AUTOMATIC = 200;
    private static final int LISTED = 10;
    private static final int ALONE = 3;

    static {
        SCENARIOS.put("batch queues", Batches::queues);
        SCENARIOS.put("compressors", Batches::compressors);
    }

    private Batches() {}

    /**
     * What the producer batches by itself, lists and single messages share the queues. Each message
     * comes once with an offset of its own; one that fails comes again, without those in its batch.
     */
    static String queues(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        create(producer, world.topic);
        World.awaitRoute(producer, world.topic);
        Set<String> sent = new HashSet<>();
        for (int i = 0; i < ALONE; i++) {
            sent.add(alone(world, producer, "alone " + i));
        }
        List<Message> listed = new ArrayList<>();
        for (int i = 0; i < LISTED; i++) {
            listed.add(world.message("t", "listed-" + i, "listed " + i));
            sent.add("listed " + i);
        }
        SendResult whole = producer.send(listed);
        World.same("status", SendStatus.SEND_OK, whole.getSendStatus());
        World.check(!whole.getMsgId().contains(","), "one id for the batch: " + whole.getMsgId());
        int batches = sendByItself(world, producer, sent);

        AtomicInteger failures = new AtomicInteger();
        BlockingQueue<MessageExt> inbox = new LinkedBlockingQueue<>();
        DefaultMQPushConsumer consumer = world.pushConsumer("*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt message : messages) {
                if (World.text(message).equals("listed 5") && failures.getAndIncrement() == 0) {
                    return ConsumeConcurrentlyStatus.RECONSUME_LATER;
                }
                inbox.add(message);
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        List<MessageExt> got = World.take(inbox, sent.size());
        Map<Integer, Set<Long>> offsets = new HashMap<>();
        Set<String> bodies = new HashSet<>();
        for (MessageExt message : got) {
            String body = World.text(message);
            World.check(bodies.add(body), "twice: " + body);
            boolean again = body.equals("listed 5");
            World.same("tries of " + body, again ? 1 : 0, message.getReconsumeTimes());
            World.same("tag of " + body, "t", message.getTags());
            if (!again) {
                offsets.computeIfAbsent(message.getQueueId(), q -> new HashSet<>())
                    .add(message.getQueueOffset());
            }
        }
        World.same("bodies", sent, bodies);
        check(whole, listed, got);
        long inQueues = 0;
        for (MessageQueue queue : producer.fetchPublishMessageQueues(world.topic)) {
            inQueues += producer.maxOffset(queue);
            World.same("first of " + queue, 0L, producer.minOffset(queue));
        }
        World.same("offsets in queues", (long) sent.size(), inQueues);
        World.same("deliveries of the message that failed once", 2, failures.get());
        int counted = offsets.values().stream().mapToInt(Set::size).sum();
        World.same("different offsets", sent.size() - 1, counted);
        return AUTOMATIC + " messages in " + batches + " batches";
    }

    private static String alone(World world, DefaultMQProducer producer, String body)
            throws Exception {
        SendResult result = producer.send(world.message("t", body.replace(' ', '-'), body));
        World.same("status", SendStatus.SEND_OK, result.getSendStatus());
        return body;
    }

    /** Sends what the client collects into batches; how many it made of it. */
    private static int sendByItself(World world, DefaultMQProducer producer, Set<String> sent)
            throws Exception {
        producer.setAutoBatch(true);
        producer.batchMaxDelayMs(20);
        ConcurrentLinkedQueue<SendResult> results = new ConcurrentLinkedQueue<>();
        ConcurrentLinkedQueue<Throwable> errors = new ConcurrentLinkedQueue<>();
        SendCallback callback = new SendCallback() {
            @Override
            public void onSuccess(SendResult result) {
                results.add(result);
            }

            @Override
            public void onException(Throwable error) {
                errors.add(error);
            }
        };
        for (int i = 0; i < AUTOMATIC; i++) {
            producer.send(world.message("t", "auto-" + i, "auto " + i), callback);
            sent.add("auto " + i);
            if (i % 20 == 19) {
                Thread.sleep(8); // so that there are several batches
            }
        }
        World.until("every send is answered", () -> results.size() + errors.size() >= AUTOMATIC);
        producer.setAutoBatch(false);
        World.check(errors.isEmpty(), "errors: " + errors);
        Set<String> ids = new HashSet<>();
        for (SendResult result : results) {
            World.same("status", SendStatus.SEND_OK, result.getSendStatus());
            ids.add(result.getOffsetMsgId());
        }
        World.check(ids.size() < AUTOMATIC / 2, ids.size() + " batches of " + AUTOMATIC);
        return ids.size();
    }

    /** The messages of a list stand in its order behind the offset that the producer was told. */
    private static void check(SendResult whole, List<Message> listed, List<MessageExt> got) {
        for (MessageExt message : got) {
            String body = World.text(message);
            if (body.startsWith("listed") && message.getReconsumeTimes() == 0) {
                int n = Integer.parseInt(body.substring("listed ".length()));
                World.same("queue of " + body,
                    whole.getMessageQueue().getQueueId(), message.getQueueId());
                World.same("offset of " + body, whole.getQueueOffset() + n,
                    message.getQueueOffset());
                World.same("keys", listed.get(n).getKeys(), message.getKeys());
                World.same("property", listed.get(n).getUserProperty("colour"),
                    message.getUserProperty("colour"));
            }
        }
    }

    private static void create(DefaultMQProducer producer, String topic) throws Exception {
        TopicConfig config = new TopicConfig(topic, QUEUES, QUEUES);
        config.setAttributes(Collections.singletonMap("+queue.type", "BatchCQ"));
        World.awaitRoute(producer, TEMPLATE);
        MQClientAPIImpl api =
            producer.getDefaultMQProducerImpl().getMqClientFactory().getMQClientAPIImpl();
        for (BrokerData broker : api.getTopicRouteInfoFromNameServer(TEMPLATE, 5000).getBrokerDatas()) {
            api.createTopic(broker.selectBrokerAddr(), TEMPLATE, config, 5000);
        }
    }

    /** Compressed bodies come out as they went in, whatever compressed them. */
    static String compressors(World world) throws Exception {
        Map<String, String> sent = new HashMap<>();
        for (CompressionType type : CompressionType.values()) {
            DefaultMQProducer producer = world.producer();
            producer.setCompressType(type);
            StringBuilder body = new StringBuilder();
            for (int i = 0; body.length() < 20_000; i++) {
                body.append(type).append(" säge ").append(i);
            }
            Message message = world.message("t", type.name(), body.toString());
            SendResult result = producer.send(message);
            World.same("status", SendStatus.SEND_OK, result.getSendStatus());
            sent.put(type.name(), body.toString());
        }
        for (MessageExt message : World.take(world.consume(), sent.size())) {
            World.same("body by " + message.getKeys(), sent.remove(message.getKeys()),
                World.text(message));
            World.check(message.getStoreSize() < 10_000,
                message.getKeys() + " stored " + message.getStoreSize() + " bytes");
        }
        return "";
    }
}
