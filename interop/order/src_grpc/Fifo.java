import java.io.FileOutputStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.ArrayList;
import java.util.List;
import org.apache.rocketmq.client.apis.ClientConfiguration;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.consumer.ConsumeResult;
import org.apache.rocketmq.client.apis.consumer.FilterExpression;
import org.apache.rocketmq.client.apis.consumer.SimpleConsumer;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.Producer;

/**
 * {@code send ENDPOINT TOPIC KEYS PER_KEY}: messages 0, 1, 2 ... of each message group.
 * {@code consume ENDPOINT TOPIC GROUP JOURNAL}: a simple consumer that writes a line
 * {@code pid key number} for each message, then acknowledges it.
 */
public final class Fifo {
    private static final int SENDERS = 4;
    private static final ClientServiceProvider PROVIDER = ClientServiceProvider.loadService();

    private Fifo() {}

    public static void main(String[] arguments) throws Exception {
        ClientConfiguration configuration = ClientConfiguration.newBuilder()
            .setEndpoints(arguments[1]).enableSsl(false).setRequestTimeout(Duration.ofSeconds(10)).build();
        if (arguments[0].equals("send")) {
            send(configuration, arguments[2], Integer.parseInt(arguments[3]), Integer.parseInt(arguments[4]));
            System.exit(0);
        }
        consume(configuration, arguments[2], arguments[3], arguments[4]);
    }

    private static void send(ClientConfiguration configuration, String topic, int keys, int perKey)
            throws Exception {
        Producer producer =
            PROVIDER.newProducerBuilder().setClientConfiguration(configuration).setTopics(topic).build();
        ExecutorService threads = Executors.newFixedThreadPool(SENDERS);
        List<Future<?>> running = new ArrayList<>();
        for (int i = 0; i < SENDERS; i++) {
            int sender = i;
            running.add(threads.submit(() -> {
                for (int number = 0; number < perKey; number++) {
                    for (int key = sender; key < keys; key += SENDERS) {
                        byte[] body = (key + " " + number).getBytes(StandardCharsets.UTF_8);
                        producer.send(PROVIDER.newMessageBuilder().setTopic(topic).setBody(body)
                            .setMessageGroup("key-" + key).build());
                    }
                }
                return null;
            }));
        }
        System.out.println("ready");
        for (Future<?> one : running) {
            one.get();
        }
    }

    private static void consume(
            ClientConfiguration configuration, String topic, String group, String journal)
            throws Exception {
        long pid = ProcessHandle.current().pid();
        FileOutputStream lines = new FileOutputStream(journal, true); // each write is one append
        SimpleConsumer consumer = PROVIDER.newSimpleConsumerBuilder().setClientConfiguration(configuration)
            .setConsumerGroup(group).setAwaitDuration(Duration.ofSeconds(5))
            .setSubscriptionExpressions(Map.of(topic, FilterExpression.SUB_ALL)).build();
        System.out.println("ready");
        while (true) {
            for (MessageView message : consumer.receive(16, Duration.ofSeconds(10))) {
                ByteBuffer body = message.getBody();
                byte[] bytes = new byte[body.remaining()];
                body.get(bytes);
                String line = pid + " " + new String(bytes, StandardCharsets.UTF_8) + "\n";
                lines.write(line.getBytes(StandardCharsets.UTF_8));
                consumer.ack(message);
            }
        }
    }
}
