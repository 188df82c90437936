import java.io.PrintStream;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.AckCallback;
import org.apache.rocketmq.client.consumer.AckResult;
import org.apache.rocketmq.client.consumer.PopCallback;
import org.apache.rocketmq.client.consumer.PopResult;
import org.apache.rocketmq.client.impl.MQClientAPIImpl;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.lite.LiteSubscriptionAction;
import org.apache.rocketmq.common.lite.LiteSubscriptionDTO;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageAccessor;
import org.apache.rocketmq.common.message.MessageConst;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.RequestCode;
import org.apache.rocketmq.remoting.protocol.body.LiteSubscriptionCtlRequestBody;
import org.apache.rocketmq.remoting.protocol.header.AckMessageRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.LiteSubscriptionCtlRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.PopLiteMessageRequestHeader;

/** A client of lite topics over remoting, as RocketMQ's proxy is one. Prints what it sees. */
final class Lite {
    private static final String CLIENT = "lite-client";
    private static final long TIMEOUT = 5000;

    private final MQClientAPIImpl api;
    private final String broker;
    private final String topic;
    private final String group;
    private final PrintStream out;

    Lite(DefaultMQProducer producer, String broker, String topic, String group, PrintStream out) {
        this.api = producer.getDefaultMQProducerImpl().getMqClientFactory().getMQClientAPIImpl();
        this.broker = broker;
        this.topic = topic;
        this.group = group;
        this.out = out;
    }

    /** Three messages of lite topic a and one of b; pops all, and acknowledges the first of a. */
    void run(DefaultMQProducer producer, String brokerName) throws Exception {
        for (String place : List.of("a 0", "a 1", "a 2", "b 0")) {
            String liteTopic = place.substring(0, 1);
            Message message = new Message(topic, place.getBytes());
            MessageAccessor.setLiteTopic(message, liteTopic);
            producer.send(message, new MessageQueue(topic, brokerName, 0));
        }
        out.println("subscribed " + subscribe(group, "a", "b"));
        out.println("a group that is not there " + subscribe("NoSuchLiteGroup", "a"));
        List<MessageExt> messages = pop(brokerName);
        for (MessageExt message : messages) {
            out.println(new String(message.getBody()) + " attempt " + message.getReconsumeTimes()
                + " offset " + message.getQueueOffset() + " of " + message.getProperty(MessageConst.PROPERTY_LITE_TOPIC));
        }
        out.println("nothing more " + pop(brokerName).size());
        for (MessageExt message : messages) {
            if (new String(message.getBody()).equals("a 0")) {
                out.println("acknowledged " + ack(message, "a", message.getQueueOffset()));
                out.println("again " + ack(message, "a", message.getQueueOffset()));
                out.println("beyond " + ack(message, "a", 9));
                out.println("not in the batch " + ack(message, "a", 3));
            }
        }
    }

    private int subscribe(String name, String... liteTopics) throws Exception {
        LiteSubscriptionDTO change = new LiteSubscriptionDTO().setAction(LiteSubscriptionAction.PARTIAL_ADD)
            .setClientId(CLIENT).setGroup(name).setTopic(topic).setLiteTopicSet(new HashSet<>(List.of(liteTopics)));
        LiteSubscriptionCtlRequestBody body = new LiteSubscriptionCtlRequestBody();
        body.setSubscriptionSet(Set.of(change));
        RemotingCommand request = RemotingCommand.createRequestCommand(
            RequestCode.LITE_SUBSCRIPTION_CTL, new LiteSubscriptionCtlRequestHeader());
        request.setBody(body.encode());
        return api.getRemotingClient().invokeSync(broker, request, TIMEOUT).getCode();
    }

    private List<MessageExt> pop(String brokerName) throws Exception {
        PopLiteMessageRequestHeader header = new PopLiteMessageRequestHeader();
        header.setClientId(CLIENT);
        header.setConsumerGroup(group);
        header.setTopic(topic);
        header.setMaxMsgNum(32);
        header.setInvisibleTime(60_000);
        header.setPollTime(500);
        header.setBornTime(System.currentTimeMillis());
        CompletableFuture<PopResult> popped = new CompletableFuture<>();
        api.popLiteMessageAsync(brokerName, broker, header, TIMEOUT, new PopCallback() {
            @Override
            public void onSuccess(PopResult result) {
                popped.complete(result);
            }

            @Override
            public void onException(Throwable problem) {
                popped.completeExceptionally(problem);
            }
        });
        List<MessageExt> found = popped.get(TIMEOUT, TimeUnit.MILLISECONDS).getMsgFoundList();
        List<MessageExt> messages = new ArrayList<>(found == null ? List.of() : found);
        Collections.sort(messages, (one, other) -> new String(one.getBody()).compareTo(new String(other.getBody())));
        return messages;
    }

    private Object ack(MessageExt message, String liteTopic, long offset) throws Exception {
        AckMessageRequestHeader header = new AckMessageRequestHeader();
        header.setConsumerGroup(group);
        header.setTopic(topic);
        header.setQueueId(0);
        header.setExtraInfo(message.getProperty(MessageConst.PROPERTY_POP_CK));
        header.setOffset(offset);
        header.setLiteTopic(liteTopic);
        CompletableFuture<Object> answered = new CompletableFuture<>();
        api.ackMessageAsync(broker, TIMEOUT, new AckCallback() {
            @Override
            public void onSuccess(AckResult result) {
                answered.complete(result.getStatus());
            }

            @Override
            public void onException(Throwable problem) {
                answered.complete(problem.getClass().getSimpleName());
            }
        }, header);
        return answered.get(TIMEOUT, TimeUnit.MILLISECONDS);
    }
}
