import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/**
 * Runs the scenarios of a RocketMQ 5 gRPC client and prints one JSON object a line.
 * Arguments: {@code list}, or {@code ENDPOINT NAMESRV CLIENT TLS RUN}.
 */
public final class Main {
    /** Returns a measured figure or nothing; throws when something is not as it should be. */
    interface Scenario {
        String run(World world) throws Exception;
    }

    private static final Map<String, Scenario> ALL = new LinkedHashMap<>();
    private static final String LAST = "gRPC server restart";
    private static final PrintStream OUT =
        new PrintStream(System.out, true, StandardCharsets.UTF_8);

    static {
        ALL.put("gRPC send normal", Scenarios::normal);
        ALL.put("gRPC send FIFO", Scenarios::fifo);
        ALL.put("gRPC send delayed", Scenarios::delayed);
        if (Newer.KNOWN) {
            ALL.put("gRPC priority", Newer::priority);
            ALL.put("gRPC recall", Newer::recall);
        }
        ALL.put("gRPC transaction", Scenarios::transaction);
        ALL.put("gRPC orphaned transaction", Scenarios::orphan);
        ALL.put("gRPC simple consumer", Scenarios::simple);
        ALL.put("gRPC invisible time", Scenarios::invisible);
        ALL.put("gRPC stale receipt", Scenarios::stale);
        ALL.put("gRPC push consumer", Scenarios::push);
        ALL.put("gRPC push in order", Scenarios::pushFifo);
        ALL.put("gRPC push retry", Scenarios::pushRetry);
        ALL.put("gRPC dead letter", world -> Scenarios.dies(world, null));
        ALL.put("gRPC dead letter in order", world -> Scenarios.dies(world, "one"));
        ALL.put("gRPC tags", Scenarios::tags);
        ALL.put("gRPC SQL92 filter", Scenarios::sql);
        ALL.put("gRPC wrong type", Scenarios::wrongType);
        ALL.put("gRPC wrong topic", Scenarios::wrongTopic);
        ALL.put("gRPC large body", Scenarios::large);
        try { // only clients that have lite topics
            Class.forName("LiteScenarios").getDeclaredMethod("addTo", Map.class).invoke(null, ALL);
        } catch (ReflectiveOperationException without) {
            // an older client
        }
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments[0].equals("list")) {
            ALL.keySet().forEach(OUT::println);
            OUT.println(LAST);
            System.exit(0);
        }
        World.prepare(arguments[0], arguments[1], arguments[4], arguments[3].equals("TLS"), ALL.keySet());
        ExecutorService pool = Executors.newFixedThreadPool(5);
        ALL.forEach((name, scenario) -> pool.submit(() -> report(arguments[2], name, scenario)));
        pool.shutdown();
        pool.awaitTermination(140, TimeUnit.SECONDS);
        // Nothing else may be under way while the server restarts.
        report(arguments[2], LAST, world -> Scenarios.restart(world, Main::askRestart));
        System.exit(0);
    }

    private static boolean askRestart() throws IOException {
        OUT.println("{\"request\": \"restart\"}");
        return "restarted".equals(new BufferedReader(new InputStreamReader(System.in)).readLine());
    }

    private static void report(String client, String name, Scenario scenario) {
        long started = System.nanoTime();
        String detail = "";
        boolean ok = false;
        boolean skipped = false;
        try (World world = new World(name)) {
            String figure = scenario.run(world);
            detail = figure == null ? "" : figure;
            ok = true;
        } catch (Scenarios.Skipped reason) {
            detail = reason.getMessage();
            skipped = true;
        } catch (Throwable failure) {
            detail = failure.getClass().getSimpleName() + ": " + failure.getMessage();
        }
        double seconds = (System.nanoTime() - started) / 1e9;
        OUT.println("{\"client\":" + quote(client) + ",\"scenario\":" + quote(name) + ",\"ok\":" + ok
            + ",\"skipped\":" + skipped + ",\"seconds\":" + String.format(java.util.Locale.ROOT, "%.2f", seconds) + ",\"detail\":" + quote(detail) + "}");
    }

    private static String quote(String text) {
        StringBuilder quoted = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                quoted.append('\\').append(c);
            } else if (c < ' ') {
                quoted.append(' ');
            } else {
                quoted.append(c);
            }
        }
        return quoted.append('"').toString();
    }
}
