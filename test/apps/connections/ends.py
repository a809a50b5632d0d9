# What the cases of states.py share: checks, threads, and what the kernel tells of a socket.
import array, errno, fcntl, os, socket, struct, termios, threading, time

cases = {}


def case(pair):
    cases[pair.__name__] = pair
    return pair


def must(condition, what):
    if not condition:
        raise AssertionError(what)


def equal(got, wanted, what):
    must(got == wanted, f"{what}: {got!r} where {wanted!r} should be")


def fails(call, *numbers):
    try:
        got = call()
    except OSError as e:
        must(e.errno in numbers, f"failed with {e}")
    else:
        raise AssertionError(f"gave {got!r} instead of an error")


def read_all(s, most=1 << 30):
    parts = []
    while most > 0 and (part := s.recv(min(most, 1 << 16))):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


def until(what, condition):
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError(f"waited in vain for {what}")


def queued(s):
    """How many bytes wait to be read."""
    n = array.array("i", [0])
    fcntl.ioctl(s, termios.FIONREAD, n)
    return n[0]


def inode(s):
    return os.fstat(s.fileno()).st_ino


def sleeps_in(tid, *calls):
    """Whether a thread of ours waits inside one of these system calls."""
    with open(f"/proc/self/task/{tid}/syscall") as f:
        return f.read().split()[0] in [str(c) for c in calls]


def in_thread(call):
    """Starts a thread; gives a function that waits for its end and gives what it returned."""
    result = []

    def body():
        try:
            result.append(call())
        except BaseException as e:
            result.append(e)

    t = threading.Thread(target=body, daemon=True)
    t.start()

    def end():
        t.join(20)
        must(result, "the thread does not end")
        if isinstance(result[0], BaseException):
            raise result[0]
        return result[0]

    end.tid = t.native_id
    end.done = lambda: bool(result)
    return end


def tries_to_send(s):
    try:
        return s.send(b"x")
    except OSError as e:
        must(e.errno in (errno.EPIPE, errno.ECONNRESET), e)
        return 0


def reset(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def pattern(name, length):
    block = b"".join(struct.pack("<IcH", n, name, n & 0xFFFF) for n in range(1 << 16))
    return (block * (length // len(block) + 1))[:length]


def stuck(s, writes):
    """In a write, and nothing has moved for a while."""
    before = queued(s)
    for _ in range(10):
        time.sleep(0.01)
        if queued(s) != before or not sleeps_in(writes.tid, 44):
            return False
    return True
