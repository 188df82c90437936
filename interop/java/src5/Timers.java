import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;

/** Messages for a time of their own, which clients know from 5.0 on. */
final class Timers {
    /** Read by Main where this class is there. */
    static final Map<String, Main.Scenario> SCENARIOS = new LinkedHashMap<>();

    /** A message may come up to one step of the broker's wheel too early. */
    private static final long EARLY_MILLIS_MAX = 1001;

    static {
        SCENARIOS.put("timer, recall", Timers::timer);
    }

    private Timers() {}

    /** All three ways to say when, sent in the order in which they must not arrive; one recalled. */
    static String timer(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        BlockingQueue<Delays.Arrival> inbox = Delays.listen(world, producer);
        long begin = System.currentTimeMillis();
        Map<String, Long> due = new LinkedHashMap<>();
        due.put("soon", begin + 2500);
        due.put("later", begin + 5000);
        due.put("last", begin + 8000);

        Message last = world.message("t", "last", "last");
        last.setDelayTimeSec(8);
        Message recalled = world.message("t", "recalled", "recalled");
        recalled.setDelayTimeMs(6000);
        Message later = world.message("t", "later", "later");
        later.setDelayTimeMs(5000);
        Message soon = world.message("t", "soon", "soon");
        soon.setDeliverTimeMs(due.get("soon"));
        producer.send(last);
        SendResult handled = producer.send(recalled);
        producer.send(later);
        producer.send(soon);
        World.check(handled.getRecallHandle() != null, "no recall handle");
        World.same("recalled", handled.getMsgId(),
            producer.recallMessage(world.topic, handled.getRecallHandle()));

        StringBuilder figures = new StringBuilder();
        for (String name : due.keySet()) {
            Delays.Arrival arrival = Delays.next(inbox);
            World.same("next", name, World.text(arrival.message));
            World.sameAsSent(world.message("t", name, name), arrival.message);
            long after = arrival.millis - due.get(name);
            World.check(after > -EARLY_MILLIS_MAX && after < Delays.LATE_MILLIS_MAX,
                name + " came " + after + " ms after its time");
            figures.append(figures.length() == 0 ? "" : ", ").append(after).append(" ms");
        }
        World.check(inbox.poll(1500, TimeUnit.MILLISECONDS) == null, "the recalled one came");
        return figures + " after their times";
    }
}
