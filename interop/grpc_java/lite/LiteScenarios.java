import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.apis.consumer.ConsumeResult;
import org.apache.rocketmq.client.apis.consumer.LitePushConsumer;
import org.apache.rocketmq.client.apis.consumer.OffsetOption;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.Producer;
import org.apache.rocketmq.client.java.exception.LiteSubscriptionQuotaExceededException;

/** What clients do with lite topics; only those since 5.2.0 have them. */
final class LiteScenarios {
    private static final int QUIET_MILLIS = 1500;

    private LiteScenarios() {
    }

    static void addTo(Map<String, Main.Scenario> all) {
        all.put("gRPC lite push in order", LiteScenarios::push);
        all.put("gRPC lite retry", LiteScenarios::retry);
        all.put("gRPC lite offset in order", LiteScenarios::offset);
        all.put("gRPC lite exclusive", LiteScenarios::exclusive);
        all.put("gRPC lite quota", LiteScenarios::quota);
        all.put("gRPC lite names", LiteScenarios::names);
    }

    private static LitePushConsumer consumer(World world, BlockingQueue<MessageView> inbox, World.Verdict verdict)
        throws Exception {
        return world.provider.newLitePushConsumerBuilder().setClientConfiguration(world.configuration())
            .setConsumerGroup(world.group).bindTopic(world.topic).setMessageListener(message -> {
                inbox.add(message);
                return verdict.of(message);
            }).build();
    }

    private static void send(World world, Producer producer, String liteTopic, String... bodies) throws Exception {
        for (String body : bodies) {
            producer.send(world.message(body).setLiteTopic(liteTopic).build());
        }
    }

    /** Many lite topics, each in order; nothing of those that nobody wants, or wants no longer. */
    static String push(World world) throws Exception {
        BlockingQueue<MessageView> inbox = new LinkedBlockingQueue<>();
        LitePushConsumer consumer = consumer(world, inbox, message -> ConsumeResult.SUCCESS);
        for (int topic = 0; topic < 5; topic++) {
            consumer.subscribeLite("lite-" + topic);
        }
        World.check(consumer.getLiteTopicSet().size(), 5, "subscriptions");
        Producer producer = world.producer();
        send(world, producer, "of-nobody", "x");
        for (int number = 0; number < 20; number++) {
            for (int topic = 0; topic < 5; topic++) {
                send(world, producer, "lite-" + topic, "" + number);
            }
        }
        Map<String, List<String>> found = new HashMap<>();
        for (int count = 0; count < 100; count++) {
            MessageView message = World.next(inbox);
            World.check(message.getTopic(), world.topic, "topic");
            found.computeIfAbsent(message.getLiteTopic().get(), name -> new ArrayList<>()).add(World.text(message));
        }
        for (List<String> bodies : found.values()) {
            for (int number = 0; number < 20; number++) {
                World.check(bodies.get(number), "" + number, "order");
            }
        }
        consumer.unsubscribeLite("lite-0");
        send(world, producer, "lite-0", "late");
        World.nothing(inbox, QUIET_MILLIS);
        return null;
    }

    static String retry(World world) throws Exception {
        BlockingQueue<MessageView> inbox = new LinkedBlockingQueue<>();
        LitePushConsumer consumer = consumer(world, inbox, message ->
            message.getDeliveryAttempt() < 3 ? ConsumeResult.FAILURE : ConsumeResult.SUCCESS);
        consumer.subscribeLite("stubborn");
        send(world, world.producer(), "stubborn", "x");
        List<Integer> attempts = new ArrayList<>();
        for (int number = 0; number < 3; number++) {
            attempts.add(World.next(inbox).getDeliveryAttempt());
        }
        World.check(attempts, List.of(1, 2, 3), "attempts");
        World.nothing(inbox, QUIET_MILLIS);
        return null;
    }

    static String offset(World world) throws Exception {
        Producer producer = world.producer();
        send(world, producer, "a", "0", "1", "2", "3");
        send(world, producer, "b", "0", "1");
        send(world, producer, "c", "0", "1");
        BlockingQueue<MessageView> inbox = new LinkedBlockingQueue<>();
        LitePushConsumer consumer = consumer(world, inbox, message -> ConsumeResult.SUCCESS);
        consumer.subscribeLite("a", OffsetOption.ofOffset(2));
        World.check(World.text(World.next(inbox)) + World.text(World.next(inbox)), "23", "from an offset");
        consumer.subscribeLite("b", OffsetOption.MIN_OFFSET);
        World.check(World.text(World.next(inbox)) + World.text(World.next(inbox)), "01", "from the first");
        consumer.subscribeLite("c", OffsetOption.MAX_OFFSET);
        World.nothing(inbox, QUIET_MILLIS);
        send(world, producer, "c", "2");
        World.check(World.text(World.next(inbox)), "2", "from the end");
        return null;
    }

    /** The newest subscriber has the lite topic alone, and the one before is told. */
    static String exclusive(World world) throws Exception {
        BlockingQueue<MessageView> first = new LinkedBlockingQueue<>();
        BlockingQueue<MessageView> second = new LinkedBlockingQueue<>();
        LitePushConsumer older = consumer(world, first, message -> ConsumeResult.SUCCESS);
        older.subscribeLite("one");
        older.subscribeLite("two");
        Producer producer = world.producer();
        send(world, producer, "one", "before");
        World.check(World.text(World.next(first)), "before", "body");
        LitePushConsumer newer = consumer(world, second, message -> ConsumeResult.SUCCESS);
        newer.subscribeLite("one");
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(5);
        while (!older.getLiteTopicSet().equals(Set.of("two")) && System.nanoTime() < deadline) {
            Thread.sleep(20);
        }
        World.check(older.getLiteTopicSet(), Set.of("two"), "what is left");
        send(world, producer, "one", "after");
        send(world, producer, "two", "still");
        World.check(World.text(World.next(second)), "after", "body");
        World.check(World.text(World.next(first)), "still", "body");
        World.nothing(first, QUIET_MILLIS);
        World.nothing(second, 0);
        return null;
    }

    /** The group allows three lite topics; the client is told and keeps to it. */
    static String quota(World world) throws Exception {
        LitePushConsumer consumer = consumer(world, new LinkedBlockingQueue<>(), message -> ConsumeResult.SUCCESS);
        for (int topic = 0; topic < 3; topic++) {
            consumer.subscribeLite("q" + topic);
        }
        try {
            consumer.subscribeLite("q3");
        } catch (LiteSubscriptionQuotaExceededException refused) {
            consumer.unsubscribeLite("q0");
            consumer.subscribeLite("q3");
            return null;
        }
        throw new IllegalStateException("a fourth subscription was taken");
    }

    static String names(World world) throws Exception {
        Producer producer = world.producer();
        for (String name : List.of("a$b", "x".repeat(65))) {
            try {
                send(world, producer, name, "x");
            } catch (Exception refused) {
                continue;
            }
            throw new IllegalStateException(name + " was taken");
        }
        send(world, producer, "x".repeat(64), "x");
        return null;
    }
}
