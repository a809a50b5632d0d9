import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;

/** Hot loops whose results are checked all the time, garbage, locks, and timers. Prints how far each is. */
public class Work {
    static final AtomicLong loops = new AtomicLong(), ticks = new AtomicLong(), objects = new AtomicLong(),
            exchanges = new AtomicLong();

    static void wrong(String what) {
        System.out.println("WRONG " + what);
    }

    static double floating(int n) {
        double x = 0;
        for (int i = 1; i <= n; i++) x += Math.sqrt(i) / (i + 1.5);
        return x;
    }

    static long integer(int n) {
        long x = n;
        int[] a = new int[1024];
        for (int i = 0; i < n; i++) {
            x = x * 31 + (x >>> 7) + i;
            a[i & 1023] += (int) x;
        }
        for (int v : a) x ^= v;
        return x;
    }

    static void hot() {
        double f = floating(20_000);
        long n = integer(20_000);
        for (;;) {
            if (floating(20_000) != f) wrong("floating point");
            if (integer(20_000) != n) wrong("integers");
            loops.incrementAndGet();
        }
    }

    static void garbage() {
        var kept = new ConcurrentHashMap<Integer, List<String>>();
        for (int round = 0;; round++) {
            for (int i = 0; i < 200; i++) {
                int key = (round * 7 + i) % 500;
                var old = kept.get(key);
                if (old != null && !old.get(old.size() - 1).equals("value " + key)) wrong("heap");
                var list = new ArrayList<String>();
                for (int k = 0; k < 20; k++) list.add("filler " + k);
                list.add("value " + key);
                kept.put(key, list);
            }
            objects.incrementAndGet();
            Thread.yield();
        }
    }

    static final Object lock = new Object();
    static boolean ping;

    static void partner(boolean mine) {
        try {
            for (;;) {
                synchronized (lock) {
                    while (ping != mine) lock.wait(1000);
                    ping = !mine;
                    exchanges.incrementAndGet();
                    lock.notifyAll();
                }
            }
        } catch (InterruptedException e) {
            wrong("interrupted");
        }
    }

    public static void main(String[] args) {
        var timers = Executors.newScheduledThreadPool(2);
        var last = new long[] {System.nanoTime()};
        timers.scheduleAtFixedRate(() -> {
            long now = System.nanoTime();
            if (now < last[0]) wrong("clock");
            last[0] = now;
            ticks.incrementAndGet();
        }, 5, 5, TimeUnit.MILLISECONDS);
        for (Runnable r : new Runnable[] {Work::hot, Work::hot, Work::garbage, () -> partner(true), () -> partner(false)}) {
            var thread = new Thread(r);
            thread.setDaemon(true);
            thread.start();
        }
        Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("shutting down")));
        timers.scheduleAtFixedRate(() -> System.out.println(
                "state " + loops + " " + ticks + " " + objects + " " + exchanges), 50, 50, TimeUnit.MILLISECONDS);
    }
}
