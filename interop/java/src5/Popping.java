import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.AckCallback;
import org.apache.rocketmq.client.consumer.AckResult;
import org.apache.rocketmq.client.consumer.AckStatus;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.PopCallback;
import org.apache.rocketmq.client.consumer.PopResult;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.impl.MQClientAPIImpl;
import org.apache.rocketmq.client.impl.factory.MQClientInstance;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.constant.ConsumeInitMode;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageRequestMode;
import org.apache.rocketmq.remoting.protocol.header.AckMessageRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.ChangeInvisibleTimeRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.ExtraInfoUtil;
import org.apache.rocketmq.remoting.protocol.header.PopMessageRequestHeader;

/** The client's own pop requests to one broker, made synchronous. */
final class Popping {
    static final long TIMEOUT = 8000;

    final World world;
    final String broker;
    final String address;
    final MQClientAPIImpl api;

    Popping(World world, DefaultMQProducer producer, String broker) {
        this.world = world;
        this.broker = broker;
        MQClientInstance client = producer.getDefaultMQProducerImpl().getMqClientFactory();
        address = client.findBrokerAddressInPublish(broker);
        api = client.getMQClientAPIImpl();
    }

    /** After this the group's members that leave sharing out to the broker pop the topic. */
    void mode(int share) throws Exception {
        World.until("the request mode", () -> {
            api.setMessageRequestMode(
                address, world.topic, world.group, MessageRequestMode.POP, share, TIMEOUT);
            return true;
        });
    }

    static DefaultMQPushConsumer consumer(World world, String tags) throws Exception {
        DefaultMQPushConsumer consumer = world.pushConsumer(tags);
        consumer.setClientRebalance(false);
        return consumer;
    }

    PopMessageRequestHeader header(long invisible) {
        PopMessageRequestHeader header = new PopMessageRequestHeader();
        header.setTopic(world.topic);
        header.setConsumerGroup(world.group);
        header.setQueueId(-1);
        header.setMaxMsgNums(32);
        header.setInvisibleTime(invisible);
        header.setBornTime(System.currentTimeMillis());
        header.setPollTime(0);
        header.setInitMode(ConsumeInitMode.MIN);
        header.setExp("*");
        header.setExpType("TAG");
        header.setOrder(false);
        return header;
    }

    List<MessageExt> pop(long invisible) throws Exception {
        return pop(header(invisible));
    }

    /** What a pop finds; a refusal of the code itself skips the scenario. */
    List<MessageExt> pop(PopMessageRequestHeader header) throws Exception {
        CompletableFuture<PopResult> result = new CompletableFuture<>();
        api.popMessageAsync(broker, address, header, TIMEOUT + header.getPollTime(),
            new PopCallback() {
                @Override
                public void onSuccess(PopResult popped) {
                    result.complete(popped);
                }

                @Override
                public void onException(Throwable error) {
                    result.completeExceptionally(error);
                }
            });
        try {
            List<MessageExt> found =
                result.get(TIMEOUT + header.getPollTime() + 2000, TimeUnit.MILLISECONDS)
                    .getMsgFoundList();
            return found == null ? List.of() : found;
        } catch (ExecutionException failed) {
            if (failed.getCause() instanceof MQBrokerException
                    && ((MQBrokerException) failed.getCause()).getResponseCode() == 3) {
                throw new Main.Skipped("binary headers cut the codes of pop requests");
            }
            throw failed;
        }
    }

    String handle(MessageExt message) {
        return message.getProperty("POP_CK");
    }

    private String stored(MessageExt message) {
        return ExtraInfoUtil.getRealTopic(
            ExtraInfoUtil.split(handle(message)), world.topic, world.group);
    }

    AckStatus ack(MessageExt message) throws Exception {
        AckMessageRequestHeader header = new AckMessageRequestHeader();
        header.setTopic(stored(message));
        header.setConsumerGroup(world.group);
        header.setQueueId(ExtraInfoUtil.getQueueId(ExtraInfoUtil.split(handle(message))));
        header.setOffset(ExtraInfoUtil.getQueueOffset(ExtraInfoUtil.split(handle(message))));
        header.setExtraInfo(handle(message));
        Answer answer = new Answer();
        api.ackMessageAsync(address, TIMEOUT, answer, header);
        return answer.get().getStatus();
    }

    AckStatus ackAll(List<String> handles) throws Exception {
        Answer answer = new Answer();
        api.batchAckMessageAsync(address, TIMEOUT, answer, world.topic, world.group, handles);
        return answer.get().getStatus();
    }

    /** The new handle. */
    String change(MessageExt message, long invisible) throws Exception {
        ChangeInvisibleTimeRequestHeader header = new ChangeInvisibleTimeRequestHeader();
        header.setTopic(stored(message));
        header.setConsumerGroup(world.group);
        header.setQueueId(ExtraInfoUtil.getQueueId(ExtraInfoUtil.split(handle(message))));
        header.setOffset(ExtraInfoUtil.getQueueOffset(ExtraInfoUtil.split(handle(message))));
        header.setExtraInfo(handle(message));
        header.setInvisibleTime(invisible);
        Answer answer = new Answer();
        api.changeInvisibleTimeAsync(broker, address, header, TIMEOUT, answer);
        return answer.get().getExtraInfo();
    }

    private static final class Answer extends CompletableFuture<AckResult>
            implements AckCallback {
        @Override
        public void onSuccess(AckResult result) {
            complete(result);
        }

        @Override
        public void onException(Throwable error) {
            completeExceptionally(error);
        }
    }
}
