import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Map;
import org.apache.rocketmq.client.apis.ClientConfiguration;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.consumer.FilterExpression;
import org.apache.rocketmq.client.apis.consumer.SimpleConsumer;
import org.apache.rocketmq.client.apis.message.Message;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.Producer;

/** Sends the message of one label, or receives all: ACTION ADDRESS TOPIC GROUP LABEL COUNT. */
public final class Grpc {
    public static void main(String[] arguments) throws Exception {
        ClientServiceProvider provider = ClientServiceProvider.loadService();
        ClientConfiguration configuration =
            ClientConfiguration.newBuilder().setEndpoints(arguments[1]).enableSsl(false).build();
        String topic = arguments[2];
        String label = arguments[4];
        if (arguments[0].equals("send")) {
            Producer producer = provider.newProducerBuilder().setClientConfiguration(configuration).setTopics(topic).build();
            Message message = provider.newMessageBuilder().setTopic(topic).setTag("red").setKeys("k1", "k-" + label)
                .setBody(("from " + label + " \u00e9").getBytes(StandardCharsets.UTF_8)).addProperty("mine", label).build();
            Line.sent(producer.send(message).getMessageId().toString());
        } else {
            SimpleConsumer consumer = provider.newSimpleConsumerBuilder().setClientConfiguration(configuration)
                .setConsumerGroup(arguments[3]).setAwaitDuration(Duration.ofSeconds(5))
                .setSubscriptionExpressions(Map.of(topic, FilterExpression.SUB_ALL)).build();
            long end = System.nanoTime() + 40_000_000_000L;
            for (int left = Integer.parseInt(arguments[5]); left > 0 && System.nanoTime() < end;) {
                for (MessageView got : consumer.receive(32, Duration.ofSeconds(30))) {
                    byte[] body = new byte[got.getBody().remaining()];
                    got.getBody().get(body);
                    Line.got(got.getMessageId().toString(), body, got.getTag().orElse(null),
                        String.join(" ", got.getKeys()), got.getProperties().get("mine"));
                    consumer.ack(got);
                    left--;
                }
            }
        }
        Runtime.getRuntime().halt(0);
    }
}
