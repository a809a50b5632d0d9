# Cases of states.py: the socket itself, and ends of connections, of one direction or of both, before and while the program is
# away.
import errno, fcntl, os, select, signal, socket, struct, time

from ends import case, equal, fails, in_thread, inode, queued, read_all, reset, sleeps_in, tries_to_send, until


# The very socket, and all that was set on it or waits in it.
@case
class same:
    def inside(s):
        tcp = s.family != socket.AF_UNIX
        if tcp:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 777)
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 54321)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 17, 0))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 50000)
        fcntl.fcntl(s, fcntl.F_SETFL, fcntl.fcntl(s, fcntl.F_GETFL) | os.O_NONBLOCK)
        until("bytes", lambda: queued(s) == 10)

        def look():
            names = ["SO_ERROR", "SO_KEEPALIVE", "SO_SNDBUF", "SO_RCVBUF", "SO_TYPE", "SO_ACCEPTCONN", "SO_REUSEADDR"]
            found = [s.getsockopt(socket.SOL_SOCKET, getattr(socket, n)) for n in names]
            found += [s.getsockopt(socket.SOL_SOCKET, n, 16) for n in (socket.SO_LINGER, socket.SO_RCVTIMEO)]
            if tcp:
                names = ["TCP_NODELAY", "TCP_KEEPIDLE", "TCP_USER_TIMEOUT", "TCP_MAXSEG"]
                found += [s.getsockopt(socket.IPPROTO_TCP, getattr(socket, n)) for n in names]
            else:
                found.append(s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            return found + [inode(s), s.getsockname(), s.getpeername(), fcntl.fcntl(s, fcntl.F_GETFL), s.fileno()]

        before = look()
        equal(s.recv(4, socket.MSG_PEEK), b"abcd", "peeked before")
        yield
        equal(look(), before, "options")
        equal(s.recv(100, socket.MSG_PEEK), b"abcdefghijmore", "peeked after")
        equal(s.recv(100), b"abcdefghijmore", "read")
        fails(lambda: s.recv(1), errno.EAGAIN)
        s.send(b"thanks")

    def outside(s):
        s.send(b"abcdefghij")
        yield
        s.send(b"more")
        yield
        equal(read_all(s), b"thanks", "the answer")


# The program has said that it sends no more; the peer goes on.
@case
class half_closed_inside:
    def inside(s):
        s.send(b"question")
        s.shutdown(socket.SHUT_WR)
        until("the first of the answer", lambda: queued(s) == 6)
        yield
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        equal(read_all(s), b"answer, and more", "what came")
        fails(lambda: s.send(b"x"), errno.EPIPE)

    def outside(s):
        equal(read_all(s), b"question", "what came")
        s.send(b"answer")
        yield
        s.send(b", and")
        yield
        s.send(b" more")


# The peer has said that it sends no more; the program goes on.
@case
class half_closed_outside:
    def inside(s):
        equal(read_all(s), b"question", "what came")
        s.send(b"answer")
        yield
        equal(s.recv(1), b"", "still at the end")
        s.send(b" after all")

    def outside(s):
        s.send(b"question")
        s.shutdown(socket.SHUT_WR)
        equal(read_all(s, 6), b"answer", "what came")
        yield
        yield
        equal(read_all(s), b" after all", "what came")


# The program does not read any more.
@case
class reads_no_more:
    def inside(s):
        s.shutdown(socket.SHUT_RD)
        yield
        equal(s.recv(1, socket.MSG_DONTWAIT), b"", "the end")
        s.send(b"still here")

    def outside(s):
        yield
        yield
        equal(read_all(s), b"still here", "what came")


# The peer goes while the program is away.
@case
class closed_away:
    def inside(s):
        yield
        until("the end", lambda: select.select([s], [], [], 0)[0])
        equal(read_all(s), b"the last", "what came")
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        until("the peer to say no", lambda: not tries_to_send(s))

    def outside(s):
        yield
        s.send(b"the last")
        s.close()
        yield


# The peer breaks off while the program is away, and the program asks for the error.
@case
class reset_away:
    def inside(s):
        yield
        if s.family == socket.AF_UNIX:
            return equal(read_all(s), b"", "a unix socket knows no reset")
        until("the reset", lambda: select.select([s], [], [], 0)[0])
        equal(s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), errno.ECONNRESET, "SO_ERROR")
        equal(s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0, "SO_ERROR, asked again")

    def outside(s):
        yield
        reset(s)
        yield


# The same, found by a thread that waits to read all the time.
@case
class reset_away_reader:
    def inside(s):
        if s.family == socket.AF_UNIX:
            waits = in_thread(lambda: equal(s.recv(1), b"", "a unix socket knows no reset"))
        else:
            waits = in_thread(lambda: fails(lambda: s.recv(1), errno.ECONNRESET))
        until("the thread to wait", lambda: sleeps_in(waits.tid, 45))
        yield
        waits()

    def outside(s):
        yield
        reset(s)
        yield


# One connection that a parent, its child and a duplicate share.
@case
class shared:
    def inside(s):
        again = os.dup(s.fileno())
        r, w = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(w)
            os.read(r, 1)
            equal(s.recv(5), b"child", "what came to the child")
            s.send(b"from child")
            os._exit(0)
        yield
        os.close(w)
        equal(os.waitpid(child, 0)[1], 0, "how the child ended")
        equal(os.read(again, 6), b"parent", "what came to the parent")
        os.write(again, b", from parent")
        s.shutdown(socket.SHUT_WR)  # holds for all of them
        fails(lambda: os.write(again, b"x"), errno.EPIPE)

    def outside(s):
        s.send(b"chi")
        yield
        s.send(b"ldparent")
        yield
        equal(read_all(s), b"from child, from parent", "what came")
