import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueAveragely;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.remoting.RPCHook;

/** Clients that write down what becomes of each message. */
final class Traces {
    private static final String TOPIC = "RMQ_SYS_TRACE_TOPIC";
    private static final String FIELD_END = "\u0001";
    private static final String RECORD_END = "\u0002";
    /** Clients send what they have every 5 s. */
    private static final int WRITTEN_SECONDS_MAX = 40;

    private Traces() {}

    static String trace(World world) throws Exception {
        DefaultMQProducer producer =
            new DefaultMQProducer(world.group + "-producer", (RPCHook) null, true, null);
        producer.setNamesrvAddr(world.namesrv);
        producer.setInstanceName(world.instance());
        producer.start();
        world.closeLater(producer::shutdown);
        SendResult sent = producer.send(world.message("t", "traced-key", "traced"));
        World.awaitRoute(producer, world.topic);
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(
            world.group, null, new AllocateMessageQueueAveragely(), true, null);
        consumer.setNamesrvAddr(world.namesrv);
        consumer.setInstanceName(world.instance());
        consumer.setHeartbeatBrokerInterval(2000); // as in World.pushConsumer
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(world.topic, "*");
        BlockingQueue<MessageExt> inbox = new LinkedBlockingQueue<>();
        consumer.registerMessageListener(World.into(inbox));
        consumer.start();
        world.closeLater(consumer::shutdown);
        World.take(inbox, 1);
        for (String key : List.of(sent.getMsgId(), "traced-key")) {
            List<String> got = new ArrayList<>();
            World.until(WRITTEN_SECONDS_MAX, "a trace of " + key, () -> {
                got.clear();
                got.addAll(records(producer, key, sent.getMsgId()));
                return got.contains("Pub") && got.contains("SubBefore") && got.contains("SubAfter");
            });
            World.same("records of " + key, 3, got.size());
        }
        return "";
    }

    /** The kinds of records about a message, as they are found by a key. */
    private static List<String> records(DefaultMQProducer producer, String key, String id)
            throws Exception {
        List<String> kinds = new ArrayList<>();
        List<MessageExt> found;
        try {
            found = producer.queryMessage(TOPIC, key, 32, 0, Long.MAX_VALUE).getMessageList();
        } catch (MQClientException none) {
            return kinds;
        }
        for (MessageExt message : found) {
            for (String record : World.text(message).split(RECORD_END)) {
                if (record.contains(id)) {
                    kinds.add(record.split(FIELD_END)[0]);
                }
            }
        }
        return kinds;
    }
}
