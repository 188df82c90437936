import java.io.PrintStream;
import java.nio.charset.StandardCharsets;

/** The lines that the suite reads. */
final class Line {
    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

    private Line() {
    }

    static void sent(String id) {
        OUT.println("{\"id\": \"" + id + "\"}");
    }

    static void got(String id, byte[] body, String tag, String keys, String mine) {
        OUT.println("{\"id\": \"" + id + "\", \"body\": \"" + new String(body, StandardCharsets.UTF_8) + "\", \"tag\": \""
            + tag + "\", \"keys\": \"" + keys + "\", \"mine\": \"" + mine + "\"}");
    }
}
