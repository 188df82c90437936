import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.Field;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;

/**
 * Runs the scenarios and prints one JSON object a line.
 * Arguments: {@code list}, or {@code plain|pop|tls NAMESRV CLIENT HEADERS RUN [SCENARIO ...]}.
 */
public final class Main {
    /** Returns a measured figure or nothing; throws when something is not as it should be. */
    interface Scenario {
        String run(World world) throws Exception;
    }

    static final class Skipped extends RuntimeException {
        Skipped(String reason) {
            super(reason);
        }
    }

    private static final Set<String> OWN =
        Set.of("Sends", "Consumes", "Cluster", "Dialogues", "World", "Pops", "Popping", "Batches",
            "Resets", "Topics", "Traces", "Raw", "Delays");
    private static final Map<String, Scenario> TOGETHER = new LinkedHashMap<>();
    private static final Map<String, Scenario> ALONE = new LinkedHashMap<>();
    private static final PrintStream OUT =
        new PrintStream(System.out, true, StandardCharsets.UTF_8);
    private static final BufferedReader IN =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));

    static {
        TOGETHER.put("reset offsets", Resets::resets);
        TOGETHER.put("retry, dead letter", Consumes::deadLetter);
        TOGETHER.put("transaction", Dialogues::transaction);
        TOGETHER.putAll(newer("Timers"));
        TOGETHER.putAll(newer("Batches"));
        TOGETHER.put("trace", Traces::trace);
        TOGETHER.put("timer", Topics::timer);
        TOGETHER.put("delay level", Delays::levels);
        TOGETHER.put("rebalance", Cluster::rebalance);
        TOGETHER.put("send sync", Sends::sync);
        TOGETHER.put("send async", Sends::async);
        TOGETHER.put("send one-way", Sends::oneWay);
        TOGETHER.put("send to a queue", Sends::toQueue);
        TOGETHER.put("send by selector", Sends::bySelector);
        TOGETHER.put("send batch", Sends::batch);
        TOGETHER.put("push concurrent", Consumes::concurrent);
        TOGETHER.put("push orderly", Consumes::orderly);
        TOGETHER.put("push broadcast", Consumes::broadcast);
        TOGETHER.put("tags", Consumes::tags);
        TOGETHER.put("SQL92 filter", Consumes::sqlFilter);
        TOGETHER.put("lite pull, seek", Consumes::litePull);
        TOGETHER.put("query by key, id", Cluster::query);
        TOGETHER.put("request and reply", Dialogues::requestReply);
        TOGETHER.put("priority", Topics::priority);
        TOGETHER.put("light queues", Topics::lightQueues);
        TOGETHER.put("compaction topic", Topics::compaction);
        TOGETHER.put("topic rules", Topics::rules);
        ALONE.put("long-poll wake-up", Cluster::wakeUp); // other load would be measured with it
        ALONE.put("broker restart", Cluster::restart);
    }

    private Main() {}

    /** The scenarios of src5, which only clients from 5.0 on can compile. */
    @SuppressWarnings("unchecked")
    private static Map<String, Scenario> newer(String name) {
        try {
            Field scenarios = Class.forName(name).getDeclaredField("SCENARIOS");
            return (Map<String, Scenario>) scenarios.get(null);
        } catch (ClassNotFoundException olderClient) {
            return Map.of();
        } catch (ReflectiveOperationException error) {
            throw new IllegalStateException(error);
        }
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments[0].equals("list")) {
            TOGETHER.keySet().forEach(OUT::println);
            newer("Pops").keySet().forEach(OUT::println);
            ALONE.keySet().forEach(OUT::println);
            OUT.println("TLS");
            System.exit(0);
        }
        String namesrv = arguments[1];
        String client = arguments[2];
        String headers = RemotingCommand.getSerializeTypeConfigInThisServer().name();
        World.same("headers of this process", arguments[3], headers);
        String run = arguments[4];
        if (arguments[0].equals("tls")) {
            run(namesrv, client, run, "TLS", Cluster::tls);
        } else if (arguments[0].equals("pop")) {
            together(newer("Pops"), 9, namesrv, client, run); // most of them wait
        } else {
            if (arguments.length > 5) {
                List<String> only = List.of(arguments).subList(5, arguments.length);
                TOGETHER.keySet().retainAll(only);
                ALONE.keySet().retainAll(only);
            }
            together(TOGETHER, 5, namesrv, client, run);
            ALONE.forEach((name, scenario) -> run(namesrv, client, run, name, scenario));
        }
        System.exit(0); // the clients' own threads would linger
    }

    private static void together(
            Map<String, Scenario> scenarios, int at, String namesrv, String client, String run)
            throws InterruptedException {
        ExecutorService threads = Executors.newFixedThreadPool(at);
        scenarios.forEach((name, scenario) ->
            threads.execute(() -> run(namesrv, client, run, name, scenario)));
        threads.shutdown();
        threads.awaitTermination(2, TimeUnit.MINUTES);
    }

    private static void run(
            String namesrv, String client, String run, String name, Scenario scenario) {
        long started = System.nanoTime();
        String detail;
        boolean ok = false;
        boolean skipped = false;
        try (World world = new World(namesrv, run, name)) {
            detail = scenario.run(world);
            ok = true;
        } catch (Skipped reason) {
            detail = reason.getMessage();
            skipped = true;
        } catch (AssertionError wrong) {
            detail = wrong.getMessage();
        } catch (Throwable error) {
            detail = error + at(error);
        }
        double seconds = (System.nanoTime() - started) / 1e9;
        print(String.format(Locale.ROOT,
            "{\"client\":%s,\"scenario\":%s,\"ok\":%b,\"seconds\":%.3f,\"detail\":%s,"
                + "\"skipped\":%b}",
            quoted(client), quoted(name), ok, seconds, quoted(detail), skipped));
    }

    private static String at(Throwable error) {
        for (StackTraceElement element : error.getStackTrace()) {
            if (OWN.contains(element.getClassName())) {
                return " at " + element.getFileName() + ":" + element.getLineNumber();
            }
        }
        return "";
    }

    static void requestRestart() throws IOException {
        print("{\"request\":\"restart\"}");
        if (!"restarted".equals(IN.readLine())) {
            throw new Skipped("the server cannot be restarted from here");
        }
    }

    /** A client may write to standard output in the middle of a line of its own. */
    private static synchronized void print(String line) {
        OUT.print("\n" + line + "\n");
        OUT.flush();
    }

    private static String quoted(String text) {
        StringBuilder quoted = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                quoted.append('\\').append(c);
            } else if (c < ' ') {
                quoted.append(String.format("\\u%04x", (int) c));
            } else {
                quoted.append(c);
            }
        }
        return quoted.append('"').toString();
    }
}
