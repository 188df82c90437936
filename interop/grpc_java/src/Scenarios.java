import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.apis.ClientException;
import org.apache.rocketmq.client.apis.consumer.ConsumeResult;
import org.apache.rocketmq.client.apis.consumer.FilterExpression;
import org.apache.rocketmq.client.apis.consumer.FilterExpressionType;
import org.apache.rocketmq.client.apis.consumer.SimpleConsumer;
import org.apache.rocketmq.client.apis.message.Message;
import org.apache.rocketmq.client.apis.message.MessageBuilder;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.Producer;
import org.apache.rocketmq.client.apis.producer.SendReceipt;
import org.apache.rocketmq.client.apis.producer.Transaction;
import org.apache.rocketmq.client.apis.producer.TransactionResolution;

/** What a RocketMQ 5 client does, and what must arrive. */
final class Scenarios {
    private static final Duration INVISIBLE = Duration.ofSeconds(30);
    private static final FilterExpression ALL = FilterExpression.SUB_ALL;

    private Scenarios() {
    }

    static String normal(World world) throws Exception {
        SendReceipt receipt = world.producer().send(world.message("hello").setTag("red").setKeys("k1", "k2")
            .addProperty("mine", "1").build());
        MessageView got = World.receive(world.simple(ALL), 1, INVISIBLE).get(0);
        World.check(World.text(got), "hello", "body");
        World.check(got.getTag().get(), "red", "tag");
        World.check(new HashSet<>(got.getKeys()), Set.of("k1", "k2"), "keys");
        World.check(got.getProperties().get("mine"), "1", "property");
        World.check(got.getMessageId(), receipt.getMessageId(), "id");
        World.check(got.getDeliveryAttempt(), 1, "attempt");
        return null;
    }

    static String fifo(World world) throws Exception {
        Producer producer = world.producer();
        for (int number = 0; number < 20; number++) {
            producer.send(world.message("" + number).setMessageGroup("one").build());
        }
        SimpleConsumer consumer = world.simple(ALL);
        List<String> bodies = new ArrayList<>();
        for (int tries = 0; bodies.size() < 20 && tries < 30; tries++) {
            for (MessageView message : consumer.receive(4, INVISIBLE)) {
                bodies.add(World.text(message));
                consumer.ack(message);
            }
        }
        for (int number = 0; number < 20; number++) {
            World.check(bodies.get(number), "" + number, "order");
        }
        return null;
    }

    static String delayed(World world) throws Exception {
        BlockingQueue<MessageView> inbox = world.push(ALL, message -> ConsumeResult.SUCCESS);
        long due = System.currentTimeMillis() + 4000;
        world.producer().send(world.message("later").setDeliveryTimestamp(due).build());
        World.next(inbox);
        long late = System.currentTimeMillis() - due;
        if (late < 0) {
            throw new IllegalStateException("early by " + -late + " ms");
        }
        return late + " ms after its time";
    }

    static String transaction(World world) throws Exception {
        Producer producer = world.transactionProducer(message -> TransactionResolution.UNKNOWN);
        BlockingQueue<MessageView> inbox = world.push(ALL, message -> ConsumeResult.SUCCESS);
        Transaction commit = producer.beginTransaction();
        producer.send(world.message("kept").build(), commit);
        Transaction rollback = producer.beginTransaction();
        producer.send(world.message("gone").build(), rollback);
        World.nothing(inbox, 1000);
        commit.commit();
        rollback.rollback();
        World.check(World.text(World.next(inbox)), "kept", "body");
        World.nothing(inbox, 1000);
        return null;
    }

    static String orphan(World world) throws Exception {
        AtomicInteger asked = new AtomicInteger();
        Producer producer = world.transactionProducer(message -> {
            asked.incrementAndGet();
            return TransactionResolution.COMMIT;
        });
        BlockingQueue<MessageView> inbox = world.push(ALL, message -> ConsumeResult.SUCCESS);
        producer.send(world.message("orphan").build(), producer.beginTransaction());
        MessageView got = inbox.poll(100, TimeUnit.SECONDS);
        World.check(got == null ? "nothing" : World.text(got), "orphan", "body");
        return "asked " + asked.get() + " times";
    }

    static String simple(World world) throws Exception {
        Producer producer = world.producer();
        for (int number = 0; number < 50; number++) {
            producer.send(world.message("" + number).build());
        }
        SimpleConsumer consumer = world.simple(ALL);
        Set<String> bodies = new HashSet<>();
        for (int tries = 0; bodies.size() < 50 && tries < 30; tries++) {
            for (MessageView message : consumer.receive(32, INVISIBLE)) {
                bodies.add(World.text(message));
                consumer.ack(message);
            }
        }
        World.check(bodies.size(), 50, "received");
        return null;
    }

    static String invisible(World world) throws Exception {
        world.producer().send(world.message("again").build());
        SimpleConsumer consumer = world.simple(ALL);
        MessageView first = World.receive(consumer, 1, INVISIBLE).get(0);
        long started = System.nanoTime();
        consumer.changeInvisibleDuration(first, Duration.ofSeconds(10));
        MessageView second = World.receive(consumer, 1, INVISIBLE).get(0);
        long seconds = TimeUnit.NANOSECONDS.toSeconds(System.nanoTime() - started);
        World.check(second.getMessageId(), first.getMessageId(), "id");
        World.check(second.getDeliveryAttempt(), 2, "attempt");
        consumer.ack(second);
        if (seconds < 9 || seconds > 20) {
            throw new IllegalStateException("back after " + seconds + " s, not 10");
        }
        return "back after " + seconds + " s";
    }

    static String stale(World world) throws Exception {
        world.producer().send(world.message("slow").build());
        SimpleConsumer consumer = world.simple(ALL);
        MessageView got = World.receive(consumer, 1, Duration.ofSeconds(10)).get(0);
        Thread.sleep(11_000);
        expect("INVALID_RECEIPT_HANDLE", () -> consumer.ack(got));
        consumer.ack(World.receive(consumer, 1, INVISIBLE).get(0));
        return null;
    }

    static String push(World world) throws Exception {
        BlockingQueue<MessageView> inbox = world.push(ALL, message -> ConsumeResult.SUCCESS);
        Producer producer = world.producer();
        for (int number = 0; number < 100; number++) {
            producer.send(world.message("" + number).build());
        }
        Set<String> bodies = new HashSet<>();
        while (bodies.size() < 100) {
            World.check(bodies.add(World.text(World.next(inbox))), true, "only once");
        }
        World.nothing(inbox, 500);
        return null;
    }

    static String pushFifo(World world) throws Exception {
        AtomicInteger failures = new AtomicInteger(2);
        BlockingQueue<MessageView> inbox = world.push(ALL, message -> World.text(message).equals("3")
            && failures.getAndDecrement() > 0 ? ConsumeResult.FAILURE : ConsumeResult.SUCCESS);
        Producer producer = world.producer();
        for (int number = 0; number < 8; number++) {
            producer.send(world.message("" + number).setMessageGroup("one").build());
        }
        StringBuilder order = new StringBuilder();
        while (!order.toString().endsWith("7")) {
            order.append(World.text(World.next(inbox)));
        }
        World.check(order.toString(), "0123334567", "order");
        return null;
    }

    static String pushRetry(World world) throws Exception {
        BlockingQueue<MessageView> inbox = world.push(ALL, message ->
            message.getDeliveryAttempt() < 3 ? ConsumeResult.FAILURE : ConsumeResult.SUCCESS);
        world.producer().send(world.message("stubborn").build());
        List<Integer> attempts = new ArrayList<>();
        for (int number = 0; number < 3; number++) {
            attempts.add(World.next(inbox).getDeliveryAttempt());
        }
        World.check(attempts, List.of(1, 2, 3), "attempts");
        return null;
    }

    /** A message of this group, or of none, fails until it is a dead letter. */
    static String dies(World world, String messageGroup) throws Exception {
        BlockingQueue<MessageView> inbox = world.push(ALL, message ->
            World.text(message).equals("poison") ? ConsumeResult.FAILURE : ConsumeResult.SUCCESS);
        Producer producer = world.producer();
        SendReceipt sent = producer.send(grouped(world.message("poison"), messageGroup));
        for (int number = 0; number < 3; number++) {
            World.check(World.text(World.next(inbox)), "poison", "body");
        }
        // There is no such topic before the first dead letter.
        SimpleConsumer consumer = World.persist(() -> world.simple("%DLQ%" + world.group, world.group + "-2", ALL));
        MessageView dead = World.receive(consumer, 1, INVISIBLE).get(0);
        World.check(World.text(dead), "poison", "body");
        World.check(dead.getMessageId(), sent.getMessageId(), "id");
        producer.send(grouped(world.message("next"), messageGroup));
        World.check(World.text(World.next(inbox)), "next", "body");
        return null;
    }

    private static Message grouped(MessageBuilder message, String messageGroup) {
        return (messageGroup == null ? message : message.setMessageGroup(messageGroup)).build();
    }

    static final class Skipped extends Exception {
        Skipped(String reason) {
            super(reason);
        }
    }

    /** A producer, a push consumer and what a simple consumer holds outlive the server's restart. */
    static String restart(World world, Callable<Boolean> askRestart) throws Exception {
        Producer producer = world.producer();
        BlockingQueue<MessageView> inbox = world.push(ALL, message -> ConsumeResult.SUCCESS);
        SimpleConsumer holder = world.simple(world.topic, world.group + "-2", ALL);
        producer.send(world.message("before").build());
        World.check(World.text(World.next(inbox)), "before", "body");
        World.receive(holder, 1, Duration.ofSeconds(10));
        if (!askRestart.call()) {
            throw new Skipped("--quick restarts nothing");
        }
        long started = System.nanoTime();
        World.persist(() -> producer.send(world.message("after").build()));
        World.check(World.text(World.next(inbox)), "after", "body");
        long millis = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - started);
        Set<String> bodies = new HashSet<>();
        World.receive(holder, 2, INVISIBLE).forEach(message -> bodies.add(World.text(message)));
        World.check(bodies, Set.of("before", "after"), "bodies");
        return "goes on after " + millis + " ms";
    }

    static String tags(World world) throws Exception {
        Producer producer = world.producer();
        for (String tag : List.of("Aa", "BB", "C")) { // the first two have the same Java hash
            producer.send(world.message(tag).setTag(tag).build());
        }
        SimpleConsumer consumer = world.simple(new FilterExpression("Aa || C", FilterExpressionType.TAG));
        Set<String> bodies = new HashSet<>();
        World.receive(consumer, 2, INVISIBLE).forEach(message -> bodies.add(World.text(message)));
        World.check(bodies, Set.of("Aa", "C"), "bodies");
        return null;
    }

    static String sql(World world) throws Exception {
        Producer producer = world.producer();
        for (int number = 0; number < 6; number++) {
            producer.send(world.message("" + number).addProperty("n", "" + number).build());
        }
        SimpleConsumer consumer = world.simple(new FilterExpression("n > 1 AND n < 4", FilterExpressionType.SQL92));
        Set<String> bodies = new HashSet<>();
        World.receive(consumer, 2, INVISIBLE).forEach(message -> bodies.add(World.text(message)));
        World.check(bodies, Set.of("2", "3"), "bodies");
        return null;
    }

    static String wrongType(World world) throws Exception {
        Producer producer = world.producer();
        try {
            producer.send(world.message("x").setMessageGroup("g").build());
        } catch (IllegalArgumentException | ClientException refused) {
            return null; // the client knows from the route
        }
        throw new IllegalStateException("a FIFO message went to a NORMAL topic");
    }

    static String wrongTopic(World world) throws Exception {
        expect("TOPIC_NOT_FOUND", () -> world.provider.newProducerBuilder()
            .setClientConfiguration(world.configuration()).setTopics("no-such-topic").build().close());
        return null;
    }

    static String large(World world) throws Exception {
        Producer producer = world.producer();
        String body = "x".repeat(4 * 1024 * 1024);
        producer.send(world.message(body).build());
        World.check(World.text(World.receive(world.simple(ALL), 1, INVISIBLE).get(0)).length(), body.length(), "size");
        try {
            producer.send(world.message(body + "x").build());
        } catch (Exception refused) {
            return null;
        }
        throw new IllegalStateException("a body above the limit was taken");
    }

    interface Step {
        void run() throws Exception;
    }

    private static void expect(String code, Step step) throws Exception {
        try {
            step.run();
        } catch (Exception refused) {
            for (Throwable cause = refused; cause != null; cause = cause.getCause()) {
                String seen = String.valueOf(cause.getMessage());
                if (seen.contains(code) || seen.contains(codeOf(code))) {
                    return;
                }
            }
            throw new IllegalStateException("no " + code + ", but " + refused + ", " + refused.getCause());
        }
        throw new IllegalStateException("no " + code);
    }

    private static String codeOf(String code) {
        return code.equals("TOPIC_NOT_FOUND") ? "40402" : "40013";
    }
}
