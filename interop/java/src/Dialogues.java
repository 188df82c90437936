import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.RequestTimeoutException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.client.producer.TransactionSendResult;
import org.apache.rocketmq.client.utils.MessageUtil;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** What takes more than one step of both sides: transactions, request and reply. */
final class Dialogues {
    /** The servers of the table look for silent producers every 3 s. */
    private static final int CHECK_SECONDS_MAX = 30;

    private Dialogues() {}

    /** The tag says what the producer decides at once; the key, what it answers when asked. */
    static String transaction(World world) throws Exception {
        Map<String, Integer> checks = new ConcurrentHashMap<>();
        TransactionMQProducer producer = new TransactionMQProducer(world.group + "-producer");
        producer.setNamesrvAddr(world.namesrv);
        producer.setInstanceName(world.instance());
        producer.setTransactionListener(new TransactionListener() {
            @Override
            public LocalTransactionState executeLocalTransaction(Message message, Object argument) {
                return LocalTransactionState.valueOf(message.getTags());
            }

            @Override
            public LocalTransactionState checkLocalTransaction(MessageExt message) {
                String body = World.text(message);
                int asked = checks.merge(body, 1, Integer::sum);
                World.same("topic of a check", world.topic, message.getTopic());
                World.check(message.getTransactionId() != null, "a transaction id");
                return LocalTransactionState.valueOf(message.getKeys().split(" ")[asked - 1]);
            }
        });
        world.closeLater(producer::shutdown);
        producer.start();
        String commit = LocalTransactionState.COMMIT_MESSAGE.name();
        String rollback = LocalTransactionState.ROLLBACK_MESSAGE.name();
        String unknown = LocalTransactionState.UNKNOW.name();
        String[][] cases = {
            {commit, "none", "committed"},
            {rollback, "none", "rolled back"},
            {unknown, commit, "committed when asked"},
            {unknown, rollback, "rolled back when asked"},
            {unknown, unknown + " " + commit, "committed when asked twice"},
        };
        for (String[] it : cases) {
            Message message = world.message(it[0], it[1], it[2]);
            TransactionSendResult result = producer.sendMessageInTransaction(message, null);
            World.same("state", it[0], result.getLocalTransactionState().name());
            World.same("transaction id", result.getMsgId(), result.getTransactionId());
        }
        World.awaitRoute(producer, world.topic);
        BlockingQueue<MessageExt> inbox = world.consume();
        Set<String> expected =
            Set.of("committed", "committed when asked", "committed when asked twice");
        Set<String> got = new TreeSet<>();
        World.until(CHECK_SECONDS_MAX, "all that was committed; got " + got, () -> {
            for (MessageExt m = inbox.poll(); m != null; m = inbox.poll()) {
                World.check(got.add(World.text(m)), "twice: " + World.text(m));
                World.check(m.getTransactionId() != null, "a transaction id");
            }
            return got.containsAll(expected);
        });
        Thread.sleep(7000); // two more rounds of checks
        World.same("more messages", 0, inbox.size());
        World.same("committed", expected, got);
        World.same("checks", Map.of("committed when asked", 1, "rolled back when asked", 1,
            "committed when asked twice", 2), checks);
        return "";
    }

    static String requestReply(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        producer.send(world.message("t", "k", "first"));
        DefaultMQProducer replier = world.producer();
        BlockingQueue<Throwable> errors = new LinkedBlockingQueue<>();
        DefaultMQPushConsumer consumer = world.pushConsumer("*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt message : messages) {
                answer(replier, message, errors);
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        // The broker finds the requester by its heartbeat, which is first due a second after its start
        // when it knows the route already; a reply before it gets lost.
        producer.getDefaultMQProducerImpl().getMqClientFactory().sendHeartbeatToAllBrokerWithLock();
        for (String body : List.of("one", "zwei", "long ".repeat(3000))) {
            Message reply = producer.request(world.message("t", "k", body), 20_000);
            World.same("reply", "re: " + body, World.text(reply));
        }
        long started = System.nanoTime();
        int count = 50;
        for (int i = 0; i < count; i++) {
            producer.request(world.message("t", "k", "again"), 20_000);
        }
        double millis = (System.nanoTime() - started) / 1e6 / count;
        try {
            producer.request(world.message("t", "k", "no answer"), 500);
            throw new AssertionError("a request that nobody answers came back");
        } catch (RequestTimeoutException expected) {
            World.check(errors.poll(1, TimeUnit.MILLISECONDS) == null, "a reply was refused");
        }
        return String.format("%.1f ms each", millis);
    }

    private static void answer(
            DefaultMQProducer replier, MessageExt message, BlockingQueue<Throwable> errors) {
        String body = World.text(message);
        if (body.equals("first") || body.equals("no answer")) {
            return;
        }
        try {
            replier.send(MessageUtil.createReplyMessage(message, World.bytes("re: " + body)));
        } catch (Exception error) {
            errors.add(error);
        }
    }
}
