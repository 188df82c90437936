import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** Sends the message of one label, or receives all: ACTION ADDRESS TOPIC GROUP LABEL COUNT. */
public final class Remoting {
    public static void main(String[] arguments) throws Exception {
        String address = arguments[1];
        String topic = arguments[2];
        String group = arguments[3];
        String label = arguments[4];
        if (arguments[0].equals("send")) {
            DefaultMQProducer producer = new DefaultMQProducer(group);
            producer.setNamesrvAddr(address);
            producer.start();
            Message message = new Message(topic, "red", "k1 k-" + label, ("from " + label + " \u00e9").getBytes("UTF-8"));
            message.putUserProperty("mine", label);
            Line.sent(producer.send(message).getMsgId());
        } else {
            BlockingQueue<MessageExt> inbox = new LinkedBlockingQueue<>();
            DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
            consumer.setNamesrvAddr(address);
            consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
            consumer.subscribe(topic, "*");
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                inbox.addAll(messages);
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
            consumer.start();
            for (int left = Integer.parseInt(arguments[5]); left > 0; left--) {
                MessageExt got = inbox.poll(40, TimeUnit.SECONDS);
                if (got == null) {
                    break;
                }
                Line.got(got.getMsgId(), got.getBody(), got.getTags(), got.getKeys(), got.getUserProperty("mine"));
            }
        }
        Runtime.getRuntime().halt(0);
    }
}
