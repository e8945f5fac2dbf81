import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Base64;

/** Writes a line per input line; see tests/receiver/toolchains.py. */
final class Verifiers {
    public static void main(String[] arguments) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] fields = line.split("\t", -1);
            System.out.println(UpliftWebhook.verify(
                    text(fields[1]), bytes(fields[3]), text(fields[4]), text(fields[5]), text(fields[6]),
                    Long.parseLong(text(fields[2]))));
        }
    }

    private static byte[] bytes(String field) {
        return Base64.getDecoder().decode(field);
    }

    private static String text(String field) {
        return field.equals("-") ? null : new String(bytes(field), StandardCharsets.UTF_8);
    }
}
