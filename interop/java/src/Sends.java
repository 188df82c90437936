import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReferenceArray;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Every way to send; a push consumer then says what arrived. */
final class Sends {
    private static final int COUNT = 12;

    private Sends() {}

    /** Bodies of several sizes; the long ones are compressed by the client. */
    private static List<Message> messages(World world) {
        List<Message> messages = new ArrayList<>();
        for (int i = 0; i < COUNT; i++) {
            String body = "Grüße " + i + " ".repeat(i) + (i % 4 == 3 ? "long ".repeat(5000) : "");
            messages.add(world.message("tag" + i % 3, "key-" + i, body));
        }
        return messages;
    }

    private static void arrived(World world, List<Message> sent, List<SendResult> results)
            throws Exception {
        Map<String, MessageExt> got = new HashMap<>();
        for (MessageExt message : World.take(world.consume(), sent.size())) {
            got.put(message.getKeys(), message);
        }
        for (int i = 0; i < sent.size(); i++) {
            MessageExt message = got.get(sent.get(i).getKeys());
            World.check(message != null, "never arrived: " + sent.get(i).getKeys());
            if (results == null) {
                World.sameAsSent(sent.get(i), message);
            } else {
                World.sameAsSent(sent.get(i), results.get(i), message);
            }
        }
    }

    static String sync(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        List<Message> sent = messages(world);
        List<SendResult> results = new ArrayList<>();
        Set<Integer> queues = new HashSet<>();
        for (Message message : sent) {
            SendResult result = producer.send(message);
            results.add(result);
            queues.add(result.getMessageQueue().getQueueId());
        }
        World.same("queues used in turn", Set.of(0, 1, 2, 3), queues);
        arrived(world, sent, results);
        return "";
    }

    static String async(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        List<Message> sent = messages(world);
        CountDownLatch left = new CountDownLatch(sent.size());
        AtomicReferenceArray<Object> answers = new AtomicReferenceArray<>(sent.size());
        for (int i = 0; i < sent.size(); i++) {
            int index = i;
            producer.send(sent.get(i), new SendCallback() {
                @Override
                public void onSuccess(SendResult result) {
                    answer(result);
                }

                @Override
                public void onException(Throwable error) {
                    answer(error);
                }

                private void answer(Object answer) {
                    answers.set(index, answer);
                    left.countDown();
                }
            });
        }
        World.check(left.await(World.WAIT_SECONDS, TimeUnit.SECONDS), "callbacks: not all came");
        List<SendResult> results = new ArrayList<>();
        for (int i = 0; i < sent.size(); i++) {
            Object answer = answers.get(i);
            World.check(answer instanceof SendResult, "callback got " + answer);
            results.add((SendResult) answer);
        }
        arrived(world, sent, results);
        return "";
    }

    static String oneWay(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        List<Message> sent = messages(world);
        SendResult first = producer.send(sent.get(0)); // a one-way send tells nobody of a new topic
        World.same("status", SendStatus.SEND_OK, first.getSendStatus());
        for (Message message : sent.subList(1, COUNT)) {
            producer.sendOneway(message);
        }
        arrived(world, sent, null);
        return "";
    }

    static String toQueue(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        List<Message> sent = messages(world);
        List<SendResult> results = new ArrayList<>();
        results.add(producer.send(sent.get(0)));
        World.awaitRoute(producer, world.topic);
        List<MessageQueue> queues = producer.fetchPublishMessageQueues(world.topic);
        World.same("queues", 4, queues.size());
        for (int i = 1; i < COUNT; i++) {
            MessageQueue queue = queues.get(i % 4);
            SendResult result = producer.send(sent.get(i), queue);
            World.same("queue", queue, result.getMessageQueue());
            results.add(result);
        }
        arrived(world, sent, results);
        return "";
    }

    static String bySelector(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        List<Message> sent = messages(world);
        List<SendResult> results = new ArrayList<>();
        for (int i = 0; i < COUNT; i++) {
            SendResult result = producer.send(
                sent.get(i),
                (queues, message, number) -> queues.get((Integer) number % queues.size()),
                i % 2);
            World.same("queue", i % 2, result.getMessageQueue().getQueueId());
            World.same("queue offset", (long) (i / 2), result.getQueueOffset());
            results.add(result);
        }
        arrived(world, sent, results);
        return "";
    }

    static String batch(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        List<Message> sent = messages(world);
        SendResult result = producer.send(sent);
        World.same("status", SendStatus.SEND_OK, result.getSendStatus());
        String[] unique = result.getMsgId().split(",");
        String[] offsets = result.getOffsetMsgId().split(",");
        World.same("unique ids", COUNT, unique.length);
        World.same("offset ids", COUNT, offsets.length);
        List<SendResult> results = new ArrayList<>();
        for (int i = 0; i < COUNT; i++) {
            results.add(new SendResult(
                SendStatus.SEND_OK, unique[i], offsets[i], result.getMessageQueue(),
                result.getQueueOffset() + i));
        }
        arrived(world, sent, results);
        return "";
    }
}
