import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.Socket;

/** Counts over one connection: sends a number, and wants it back before it sends the next. Arguments: host, port. */
public class Count {
    public static void main(String[] args) throws Exception {
        try (var socket = new Socket(args[0], Integer.parseInt(args[1]))) {
            socket.setTcpNoDelay(true);
            var in = new BufferedReader(new InputStreamReader(socket.getInputStream()));
            var out = socket.getOutputStream();
            for (long n = 0;; n++) {
                out.write((n + "\n").getBytes());
                String answer = in.readLine();
                if (!String.valueOf(n).equals(answer)) {
                    System.out.println("WRONG " + answer + " where " + n + " should be");
                    System.exit(1);
                }
                Thread.sleep(1);
            }
        }
    }
}
