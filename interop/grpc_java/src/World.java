import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.apis.ClientConfiguration;
import org.apache.rocketmq.client.apis.ClientException;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.consumer.ConsumeResult;
import org.apache.rocketmq.client.apis.consumer.FilterExpression;
import org.apache.rocketmq.client.apis.consumer.SimpleConsumer;
import org.apache.rocketmq.client.apis.message.Message;
import org.apache.rocketmq.client.apis.message.MessageBuilder;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.Producer;
import org.apache.rocketmq.client.apis.producer.TransactionChecker;

/** What one scenario opens, the names it uses, and how it checks. */
final class World implements AutoCloseable {
    static final int WAIT_SECONDS = 40;
    private static String endpoint;
    private static String run;
    private static boolean tls;

    final ClientServiceProvider provider = ClientServiceProvider.loadService();
    final String topic;
    final String group;
    private final List<AutoCloseable> closers = new ArrayList<>();

    World(String scenario) {
        topic = topicOf(scenario);
        group = "group-" + topic;
    }

    /** The topics exist before the clients come: the runner makes them. */
    static void prepare(String access, String namesrv, String name, boolean withTls, Set<String> scenarios) {
        endpoint = access;
        run = name;
        tls = withTls;
    }

    static String topicOf(String scenario) {
        return run + "-" + scenario.replaceAll("[^A-Za-z0-9]+", "-");
    }

    ClientConfiguration configuration() {
        return ClientConfiguration.newBuilder().setEndpoints(endpoint).enableSsl(tls)
            .setRequestTimeout(Duration.ofSeconds(8)).build();
    }

    Producer producer() throws Exception {
        Producer producer =
            provider.newProducerBuilder().setClientConfiguration(configuration()).setTopics(topic).build();
        closers.add(producer);
        return producer;
    }

    Producer transactionProducer(TransactionChecker checker) throws Exception {
        Producer producer = provider.newProducerBuilder().setClientConfiguration(configuration())
            .setTopics(topic).setTransactionChecker(checker).build();
        closers.add(producer);
        return producer;
    }

    SimpleConsumer simple(FilterExpression filter) throws Exception {
        return simple(topic, group, filter);
    }

    SimpleConsumer simple(String of, String by, FilterExpression filter) throws Exception {
        SimpleConsumer consumer = provider.newSimpleConsumerBuilder().setClientConfiguration(configuration())
            .setConsumerGroup(by).setAwaitDuration(Duration.ofSeconds(10))
            .setSubscriptionExpressions(Map.of(of, filter)).build();
        closers.add(consumer);
        return consumer;
    }

    interface Verdict {
        ConsumeResult of(MessageView message);
    }

    BlockingQueue<MessageView> push(FilterExpression filter, Verdict verdict) throws Exception {
        BlockingQueue<MessageView> inbox = new LinkedBlockingQueue<>();
        // Never closed: that waits for the last receive, up to 20 s; the program ends anyway.
        provider.newPushConsumerBuilder().setClientConfiguration(configuration())
            .setConsumerGroup(group).setSubscriptionExpressions(Map.of(topic, filter))
            .setMessageListener(message -> {
                inbox.add(message);
                return verdict.of(message);
            }).build();
        return inbox;
    }

    MessageBuilder message(String body) {
        return provider.newMessageBuilder().setTopic(topic).setBody(body.getBytes(StandardCharsets.UTF_8));
    }

    static String text(MessageView message) {
        ByteBuffer body = message.getBody();
        byte[] bytes = new byte[body.remaining()];
        body.get(bytes);
        return new String(bytes, StandardCharsets.UTF_8);
    }

    /** Receives until `count` messages are there, without acknowledging them. */
    static List<MessageView> receive(SimpleConsumer consumer, int count, Duration invisible) throws Exception {
        List<MessageView> found = new ArrayList<>();
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_SECONDS);
        while (found.size() < count && System.nanoTime() < deadline) {
            try {
                found.addAll(consumer.receive(16, invisible));
            } catch (ClientException away) { // while a server restarts
                Thread.sleep(200);
            }
        }
        check(found.size(), count, "received");
        return found;
    }

    /** Does it again until it works. */
    static <T> T persist(Callable<T> act) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_SECONDS);
        while (true) {
            try {
                return act.call();
            } catch (Exception failure) {
                if (System.nanoTime() > deadline) {
                    throw failure;
                }
                Thread.sleep(200);
            }
        }
    }

    static MessageView next(BlockingQueue<MessageView> inbox) throws Exception {
        MessageView message = inbox.poll(WAIT_SECONDS, TimeUnit.SECONDS);
        if (message == null) {
            throw new IllegalStateException("nothing arrived in " + WAIT_SECONDS + " s");
        }
        return message;
    }

    static void nothing(BlockingQueue<MessageView> inbox, int millis) throws Exception {
        MessageView surplus = inbox.poll(millis, TimeUnit.MILLISECONDS);
        if (surplus != null) {
            throw new IllegalStateException("too much arrived: " + text(surplus));
        }
    }

    static void check(Object found, Object wanted, String what) {
        if (!Objects.equals(found, wanted)) {
            throw new IllegalStateException(what + ": " + found + ", not " + wanted);
        }
    }

    @Override
    public void close() {
        for (int index = closers.size() - 1; index >= 0; index--) {
            try {
                closers.get(index).close();
            } catch (Exception ignored) {
                // the scenario's own verdict counts
            }
        }
    }
}
