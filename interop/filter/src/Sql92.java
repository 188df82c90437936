import java.io.BufferedReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Base64;
import java.util.Map;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.filter.FilterFactory;
import org.apache.rocketmq.filter.expression.EvaluationContext;
import org.apache.rocketmq.filter.expression.Expression;

/**
 * Reads cases, one a line: an expression and property strings, all in Base64, separated by blanks.
 * Prints one line for each: {@code +} and T, F, N (null) or E (error) for each property string, or
 * {@code -} and the reason in Base64 when the expression does not compile.
 */
public class Sql92 {
    public static void main(String[] arguments) throws Exception {
        PrintStream out = new PrintStream(System.out, false, "UTF-8");
        try (BufferedReader lines = Files.newBufferedReader(Path.of(arguments[0]))) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                out.println(judge(line.split(" ", -1)));
            }
        }
        out.flush();
    }

    private static String judge(String[] fields) {
        Expression expression;
        try {
            expression = FilterFactory.INSTANCE.get("SQL92").compile(text(fields[0]));
        } catch (Throwable error) {
            byte[] reason = String.valueOf(error.getMessage()).getBytes(StandardCharsets.UTF_8);
            return "-" + Base64.getEncoder().encodeToString(reason);
        }
        StringBuilder verdicts = new StringBuilder("+");
        for (int i = 1; i < fields.length; i++) {
            verdicts.append(verdict(expression, MessageDecoder.string2messageProperties(text(fields[i]))));
        }
        return verdicts.toString();
    }

    private static char verdict(Expression expression, Map<String, String> properties) {
        Object value;
        try {
            value = expression.evaluate(new EvaluationContext() {
                public Object get(String name) {
                    return properties.get(name);
                }

                public Map<String, Object> keyValues() {
                    return Map.copyOf(properties);
                }
            });
        } catch (Throwable error) {
            return 'E';
        }
        return value == null ? 'N' : Boolean.TRUE.equals(value) ? 'T' : 'F';
    }

    private static String text(String encoded) {
        return new String(Base64.getDecoder().decode(encoded), StandardCharsets.UTF_8);
    }
}
