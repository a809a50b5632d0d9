"""A program that does with its sockets what it is told: each request is a Python expression in a file of the directory given,
each answer a file beside it. So it can be asked the same way before and after it was moved, and needs no connection for it."""

import errno, functools, json, os, random, select, struct, sys, threading, time
from socket import *

s = {}  # its sockets, by name
BLOCK = 1 << 16
OPTIONS_LINGER = struct.Struct("ii")


def listen(name, family, address, port=0, backlog=128):
    l = s[name] = socket(family, SOCK_STREAM)
    l.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    l.bind((address, port))
    l.listen(backlog)
    return l.getsockname()[1]


def accept(name, listener):
    s[name] = s[listener].accept()[0]


def connect(name, family, address, port):
    c = socket(family, SOCK_STREAM)
    c.connect((address, port))
    s[name] = c


def listen_unix(name, path, backlog=128):
    l = s[name] = socket(AF_UNIX, SOCK_STREAM)
    l.bind(path)
    l.listen(backlog)


def connect_unix(name, path):
    c = socket(AF_UNIX, SOCK_STREAM)
    c.connect(path)
    s[name] = c


def names(name):
    def plain(a):
        return a if isinstance(a, str) else list(a[:2])

    return [plain(s[name].getsockname()), plain(s[name].getpeername())]


def send(name, text, flags=0):
    return s[name].send(text.encode("latin1"), flags | MSG_NOSIGNAL)


def receive(name, size, flags=0):
    return s[name].recv(size, flags).decode("latin1")


def whole(name, size):
    """Exactly so many bytes, or fewer before the end."""
    got = b""
    while len(got) < size:
        part = s[name].recv(size - len(got))
        if not part:
            break
        got += part
    return got.decode("latin1")


def rest(name):
    """What comes before the end."""
    return whole(name, 1 << 30)


def soon(name, size=1 << 16):
    """What can be had now: bytes, "" at the end, None if there is nothing."""
    try:
        return receive(name, size, MSG_DONTWAIT)
    except BlockingIOError:
        return None


def error_of(name):
    e = s[name].getsockopt(SOL_SOCKET, SO_ERROR)
    return errno.errorcode.get(e, "")


def ready(name, events=select.POLLIN | select.POLLOUT | select.POLLPRI | 0x2000, patience_ms=0):
    p = select.poll()
    p.register(s[name], events)
    got = p.poll(patience_ms)
    return got[0][1] if got else 0


def drop(name):
    s.pop(name).close()


def reset(name):
    s[name].setsockopt(SOL_SOCKET, SO_LINGER, OPTIONS_LINGER.pack(1, 0))
    drop(name)


@functools.lru_cache(maxsize=1024)
def block(seed, n):
    return random.Random(f"{seed}:{n}").randbytes(BLOCK)


progress = {}


def pour(name, seed, size, sizes=None):
    """Writes that many bytes that the seed tells, in pieces of random length; gives the number that were written."""
    random_sizes = random.Random(f"{seed} sizes")
    sent = 0
    while sent < size:
        at = sent % BLOCK
        most = random_sizes.randint(1, sizes) if sizes else BLOCK
        piece = block(seed, sent // BLOCK)[at : min(BLOCK, at + most, at + size - sent)]
        while piece:
            n = s[name].send(piece, MSG_NOSIGNAL)
            piece = piece[n:]
            sent += n
            progress[name + " out"] = sent
    return sent


def gulp(name, seed, size, sizes=None):
    """Reads that many bytes, and each must be what the seed tells."""
    random_sizes = random.Random(f"{seed} reads")
    got = 0
    while got < size:
        most = random_sizes.randint(1, sizes) if sizes else BLOCK
        part = s[name].recv(min(most, size - got, BLOCK))
        if not part:
            raise EOFError(f"the end after {got} bytes")
        while part:
            at = got % BLOCK
            n = min(len(part), BLOCK - at)
            if part[:n] != block(seed, got // BLOCK)[at : at + n]:
                raise ValueError(f"other bytes after {got}")
            part = part[n:]
            got += n
            progress[name + " in"] = got
    return got


def gulp_to_end(name, seed, size):
    gulp(name, seed, size)
    more = s[name].recv(1)
    if more:
        raise ValueError("more than was sent")
    return size


def fill(name, seed):
    """Writes until it would block for good; gives how much."""
    s[name].setblocking(False)
    sent, quiet = 0, 0
    while quiet < 20:
        at = sent % BLOCK
        try:
            sent += s[name].send(block(seed, sent // BLOCK)[at:], MSG_NOSIGNAL)
            quiet = 0
        except BlockingIOError:
            quiet += 1
            time.sleep(0.01)
    s[name].setblocking(True)
    return sent


def flood(prefix, count, size, sizes):
    """Both ways on sockets prefix0 …, at once; what each wrote and read is as its seed tells."""
    failures = []

    def one(f, name, seed):
        try:
            f(name, seed, size, sizes)
        except Exception as e:
            failures.append(f"{name}: {e!r}")

    threads = []
    for i in range(count):
        name = f"{prefix}{i}"
        for f, way in ((pour, mine), (gulp, theirs)):
            threads.append(threading.Thread(target=one, args=(f, name, f"{way} {i}")))
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return failures


def babble(address, port, times):
    """Connects and says anything."""
    for i in range(times):
        with socket(AF_INET, SOCK_STREAM) as c:
            try:
                c.connect((address, port))
                c.sendall(b"virtrlay"[: i % 9] + random.randbytes(i * 37))
                c.settimeout(0.05)
                c.recv(100)
            except OSError:
                pass


mine, theirs = "", ""  # of flood(): what the seeds of each direction begin with


def child(directory):
    """A process that has all of this one's sockets, and takes requests in another directory."""
    os.mkdir(directory)
    if os.fork() == 0:
        serve(directory)
    return True


def plain(value):
    if isinstance(value, bytes):
        return value.decode("latin1")
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value if isinstance(value, (int, str, bool, float, type(None))) else repr(value)


def answer(directory, number, expression):
    try:
        said = {"value": plain(eval(expression, globals()))}
    except OSError as e:
        said = {"errno": errno.errorcode.get(e.errno, str(e))}
    except BaseException as e:
        said = {"failure": repr(e)}
    aside = f"{directory}/{number}.new"
    with open(aside, "w") as f:
        json.dump(said, f)
    os.rename(aside, f"{directory}/{number}.did")


def serve(directory):
    while True:
        try:
            names = os.listdir(directory)
        except FileNotFoundError:
            names = []  # on another host, to which nobody has said anything yet
        for name in names:
            if not name.endswith(".do"):
                continue
            path = f"{directory}/{name}"
            with open(path) as f:
                expression = f.read()
            os.unlink(path)
            threading.Thread(target=answer, args=(directory, name[:-3], expression), daemon=True).start()
        time.sleep(0.005)


serve(sys.argv[1])
