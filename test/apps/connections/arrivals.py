# Cases of states.py: what comes while the program is away, and who waits for it.
import fcntl, os, select, signal, socket

from ends import case, equal, in_thread, inode, must, pattern, queued, read_all, sleeps_in, stuck, until


# An urgent byte that comes while the program is away, and one that comes after.
@case
class urgent_away:
    def inside(s):
        until("bytes", lambda: queued(s) == 3)
        fcntl.fcntl(s, fcntl.F_SETOWN, os.getpid())
        yield
        until("what is urgent", lambda: select.select([], [], [s], 0)[2])
        equal(s.recv(100), b"abcdef", "what comes before the mark")
        equal(s.recv(1, socket.MSG_OOB), b"!", "the urgent byte")
        equal(s.recv(100), b"ghi", "what comes after it")
        equal(fcntl.fcntl(s, fcntl.F_GETOWN), os.getpid(), "the owner")
        got = []
        signal.signal(signal.SIGURG, lambda *_: got.append(1))
        s.send(b"again")
        until("SIGURG", lambda: got)
        equal(s.recv(1, socket.MSG_OOB), b"?", "the next one")

    def outside(s):
        s.send(b"abc")
        yield
        s.send(b"def")
        s.send(b"!", socket.MSG_OOB)
        s.send(b"ghi")
        yield
        equal(read_all(s, 5), b"again", "what came")
        s.send(b"?", socket.MSG_OOB)
        until("the program to end", lambda: select.select([s], [], [], 0)[0])


# Who owns a socket hears of an urgent byte, and one whose socket is asynchronous of every one, that came while it was away.
@case
class urgent_signal:
    def inside(s):
        got = []
        signal.signal(signal.SIGURG, lambda *_: got.append(1))
        fcntl.fcntl(s, fcntl.F_SETOWN, os.getpid())
        yield
        until("what is urgent", lambda: select.select([], [], [s], 0)[2])
        until("SIGURG", lambda: got)

    def outside(s):
        yield
        s.send(b"!", socket.MSG_OOB)
        yield


@case
class async_signal:
    def inside(s):
        got = []
        signal.signal(signal.SIGIO, lambda *_: got.append(1))
        fcntl.fcntl(s, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(s, fcntl.F_SETFL, fcntl.fcntl(s, fcntl.F_GETFL) | os.O_ASYNC)
        yield
        until("SIGIO", lambda: got)
        equal(s.recv(100), b"while away", "what came")
        got.clear()
        s.send(b"now")
        until("SIGIO", lambda: got)

    def outside(s):
        yield
        s.send(b"while away")
        yield
        equal(read_all(s, 3), b"now", "what came")
        s.send(b"more")


# The same with a signal of its own choice, for a process group; it says what can be done.
@case
class chosen_signal:
    def inside(s):
        number = signal.SIGRTMIN + 3
        signal.pthread_sigmask(signal.SIG_BLOCK, [number])
        fcntl.fcntl(s, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(s, fcntl.F_SETSIG, number)
        fcntl.fcntl(s, fcntl.F_SETFL, fcntl.fcntl(s, fcntl.F_GETFL) | os.O_ASYNC)
        yield
        info = signal.sigtimedwait([number], 10)
        must(info is not None, "no signal")
        equal([info.si_code, info.si_band & select.POLLIN], [1, select.POLLIN], "what it says")
        equal(s.recv(100), b"while away", "what came")

    def outside(s):
        yield
        s.send(b"while away")
        yield


# A connection that is still being made, because the other end has no room for it.
@case
class connecting:
    def inside(s):
        address = s.getpeername()[0], int(s.recv(8))
        crowd = []
        while True:
            new = socket.socket(s.family)
            new.setblocking(False)
            new.connect_ex(address)
            crowd.append(new)
            if not select.select([], [new], [], 0.1)[1]:
                break
        before = inode(new)
        yield
        equal(inode(new), before, "the inode")
        equal(select.select([], [new], [], 0)[1], [], "who is connected")
        s.send(b"make room")
        for one in crowd:
            must(select.select([], [one], [], 20)[1], "not connected")
            equal(one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0, "SO_ERROR")
        equal(new.getpeername()[:2], address, "the peer")
        new.setblocking(True)
        equal(new.recv(10), b"welcome", "what came")

    def outside(s):
        listener = socket.create_server((s.getsockname()[0], 0), family=s.family, backlog=0)
        s.send(b"%8d" % listener.getsockname()[1])
        yield
        yield
        read_all(s, 9)
        listener.settimeout(0.1)
        guests = []
        while not select.select([s], [], [], 0)[0]:
            try:
                guests.append(listener.accept()[0])
                guests[-1].send(b"welcome")
            except TimeoutError:
                pass


# A thread in accept(2), and a client that comes while it is away; another one is gone again by then.
@case
class accepting:
    def inside(s):
        listener = socket.create_server((s.getsockname()[0], 0), family=s.family)
        before = inode(listener)
        accepts = in_thread(listener.accept)
        until("the thread to wait", lambda: sleeps_in(accepts.tid, 43, 288))
        s.send(b"%8d" % listener.getsockname()[1])
        yield
        equal(inode(listener), before, "the inode")
        first = accepts()[0]
        equal(read_all(first), b"hello", "what the first said")
        second = listener.accept()[0]
        equal(read_all(second, 5), b"still", "what the second said")
        second.send(b"served")

    def outside(s):
        address = s.getpeername()[0], int(read_all(s, 8))
        yield
        with socket.create_connection(address) as first:
            first.send(b"hello")
        second = socket.create_connection(address)
        second.send(b"still")
        yield
        equal(read_all(second), b"served", "the answer")


# Datagrams of all sizes, with their borders; the socket is connected.
@case
class udp_queue:
    def inside(s):
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        s.send(b"here I am")
        until("a datagram", lambda: queued(s) == 5)
        before = inode(s), s.getsockname(), s.getpeername(), s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        yield
        after = inode(s), s.getsockname(), s.getpeername(), s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        equal(after, before, "the socket")
        s.settimeout(10)
        for n, wanted in enumerate([b"first", b"", b"x" * 50000, b"last"]):
            got, sender = s.recvfrom(1 << 16)
            must(got == wanted, f"datagram {n} has {len(got)} bytes where {len(wanted)} should be")
            equal(sender, s.getpeername(), "the sender")
        s.send(b"thanks")

    def outside(s):
        _, peer = s.recvfrom(100)
        s.connect(peer)
        s.send(b"first")
        yield
        for bytes in [b"", b"x" * 50000, b"last"]:
            s.send(bytes)
        yield
        equal(s.recv(100), b"thanks", "the answer")


# Both queues full, both sides blocked in a write, in the middle of a long message.
@case
class full_both_ways:
    length = 24 << 20

    def inside(s):
        writes = in_thread(lambda: s.sendall(pattern(b"i", full_both_ways.length)))
        until("the thread to be blocked", lambda: stuck(s, writes))
        yield
        must(not writes.done(), "the write goes on")
        equal(read_all(s, full_both_ways.length) == pattern(b"o", full_both_ways.length), True, "what came")
        writes()
        s.shutdown(socket.SHUT_WR)
        equal(s.recv(1), b"", "what came after")

    def outside(s):
        writes = in_thread(lambda: s.sendall(pattern(b"o", full_both_ways.length)))
        until("the thread to be blocked", lambda: stuck(s, writes))
        yield
        must(stuck(s, writes), "the write goes on")
        yield
        equal(read_all(s) == pattern(b"i", full_both_ways.length), True, "what came")
        writes()
        s.shutdown(socket.SHUT_WR)


# Threads that wait to read, to be told (edge-triggered), and for a timeout that is far away.
@case
class waits:
    def inside(s):
        e = select.epoll()
        e.register(s, select.EPOLLIN | select.EPOLLET)
        told = in_thread(lambda: e.poll(60))
        until("the thread to wait", lambda: sleeps_in(told.tid, 232, 281))
        yield
        equal(told(), [(s.fileno(), select.EPOLLIN)], "what epoll tells")
        equal(s.recv(100), b"while away", "what came")
        equal(e.poll(0), [], "nothing more")
        told = in_thread(lambda: e.poll(60))
        s.send(b"now")
        equal(told(), [(s.fileno(), select.EPOLLIN)], "the next edge")
        equal(s.recv(100), b"after", "what came")
        read = in_thread(lambda: s.recv(100))
        until("the thread to wait", lambda: sleeps_in(read.tid, 45))
        s.send(b"end")
        equal(read(), b"", "the end")

    def outside(s):
        yield
        s.send(b"while away")
        yield
        equal(read_all(s, 3), b"now", "what came")
        s.send(b"after")
        equal(read_all(s, 3), b"end", "what came")
