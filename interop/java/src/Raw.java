import java.util.HashMap;
import java.util.Map;
import org.apache.rocketmq.client.impl.factory.MQClientInstance;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageAccessor;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;

/** What an operator or a newer client does, sent over this client's own connection. */
final class Raw {
    private static final int CREATE_TOPIC = 17;
    private static final int UPDATE_BROKER_CONFIG = 25;
    private static final int RESET_OFFSET = 222;

    private final MQClientInstance client;
    private final String broker;

    private Raw(MQClientInstance client, String broker) {
        this.client = client;
        this.broker = broker;
    }

    /** The broker that took a message of this producer. */
    static Raw of(DefaultMQProducer producer, SendResult sent) {
        return new Raw(
            producer.getDefaultMQProducerImpl().getMqClientFactory(),
            sent.getMessageQueue().getBrokerName());
    }

    RemotingCommand call(int code, byte[] body, String... fields) throws Exception {
        RemotingCommand request = RemotingCommand.createRequestCommand(code, null);
        HashMap<String, String> ext = new HashMap<>();
        for (int i = 0; i < fields.length; i += 2) {
            ext.put(fields[i], fields[i + 1]);
        }
        request.setExtFields(ext);
        request.setBody(body);
        String address = client.findBrokerAddressInPublish(broker);
        return client.getMQClientAPIImpl().getRemotingClient().invokeSync(address, request, 8000);
    }

    /** A topic that attributes make a special one; false where the broker does not know them. */
    boolean createTopic(String topic, int queues, String attributes) throws Exception {
        return call(CREATE_TOPIC, null, "topic", topic, "defaultTopic", "TBW102",
            "readQueueNums", "" + queues, "writeQueueNums", "" + queues, "perm", "6",
            "topicFilterType", "SINGLE_TAG", "topicSysFlag", "0", "order", "false",
            "attributes", attributes).getCode() == 0;
    }

    void configure(String key, String value) throws Exception {
        RemotingCommand answer = call(UPDATE_BROKER_CONFIG, World.bytes(key + "=" + value + "\n"));
        World.same("code of " + key, 0, answer.getCode());
    }

    /** To a time, -1 for the end; of a {@code queue} to an offset, or of all queues where that is null. */
    void reset(World world, long time, MessageQueue queue, long offset) throws Exception {
        String[] where = queue == null
            ? new String[] {} : new String[] {"queueId", "" + queue.getQueueId(), "offset", "" + offset};
        String[] fields = new String[8 + where.length];
        System.arraycopy(new String[] {"topic", world.topic, "group", world.group,
            "timestamp", "" + time, "isForce", "true"}, 0, fields, 0, 8);
        System.arraycopy(where, 0, fields, 8, where.length);
        RemotingCommand answer = call(RESET_OFFSET, null, fields);
        World.check(answer.getCode() == 0, "a reset was refused: " + answer.getRemark());
    }

    /** A property that this client may keep for itself or not know. */
    static Message with(Message message, String name, Object value) {
        Map<String, String> before = message.getProperties();
        MessageAccessor.putProperty(message, name, String.valueOf(value));
        World.check(before == null || message.getProperties().containsKey(name), name);
        return message;
    }
}
