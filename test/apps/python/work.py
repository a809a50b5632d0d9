"""Threads, a child on two pipes, and a file that is being written. Argument: the file. Ends on SIGTERM."""

import queue
import signal
import subprocess
import sys
import threading
import time

ending = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ending.set())

SQUARE = "import sys\nfor line in sys.stdin: print(int(line) ** 2, flush=True)\n"
child = subprocess.Popen([sys.executable, "-c", SQUARE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
numbers = queue.Queue(maxsize=10)
squares = queue.Queue(maxsize=10)
ticks = [0]


def produce():
    n = 0
    while not ending.is_set():
        numbers.put(n)
        n += 1
    numbers.put(None)


def ask():
    while (n := numbers.get()) is not None:
        child.stdin.write(f"{n}\n")
        child.stdin.flush()
        squares.put((n, int(child.stdout.readline())))
    child.stdin.close()
    squares.put(None)


def tick():
    last = time.monotonic()
    while not ending.wait(0.005):
        now = time.monotonic()
        assert now >= last, "the clock went back"
        last = now
        ticks[0] += 1


threads = [threading.Thread(target=f) for f in (produce, ask, tick)]
for thread in threads:
    thread.start()
with open(sys.argv[1], "w") as file:
    while (pair := squares.get()) is not None:
        n, square = pair
        if square != n * n:
            print(f"WRONG {n} {square}", flush=True)
        file.write(f"{n}\n")
        if n % 7 == 0:
            file.flush()
        if n % 50 == 0:
            print(f"written {n} ticks {ticks[0]} threads {threading.active_count()}", flush=True)
        time.sleep(0.0002)
for thread in threads:
    thread.join()
print(f"done {n + 1}, the child said {child.wait()}", flush=True)
