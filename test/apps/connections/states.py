# What becomes of one socket while its program is away. Each case is a pair of functions: `inside` is the program in the pod, and
# yields when it is ready to leave; it goes on when it is back. `outside` is its peer, which is not disturbed: it yields when
# it is ready, goes on while the program is away, yields again, and goes on when the program is back.
#   states.py inside CASE ADDRESS PORT GO      (GO: a file that says that it is back)
#   states.py outside CASE ADDRESS PORT        (its standard input says: away, back)
# ADDRESS PORT is a TCP or UDP address of the peer; an ADDRESS with a / is that of a unix socket.
import os, signal, socket, sys, time

sys.dont_write_bytecode = True
import arrivals, endings  # they tell their cases
from ends import cases


def address_of(host, port):
    return host if "/" in host else (host, int(port))


def family_of(host):
    return socket.AF_UNIX if "/" in host else socket.AF_INET6 if ":" in host else socket.AF_INET


def main():
    role, name, host, port = sys.argv[1:5]
    s = socket.socket(family_of(host), socket.SOCK_DGRAM if name.startswith("udp_") else socket.SOCK_STREAM)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    if role == "outside":
        s.bind(address_of(host, port))
        if s.type == socket.SOCK_STREAM:
            s.listen(1)
        print("listening", flush=True)
        if s.type == socket.SOCK_STREAM:
            s, _ = s.accept()
        step = cases[name].outside(s)
        next(step)
        for line in sys.stdin:
            next(step, None)
            print("done", line.strip(), flush=True)
        print("PASS", flush=True)
        return
    s.connect(address_of(host, port))
    step = cases[name].inside(s)
    next(step)
    print("ready", flush=True)
    while not os.path.exists(sys.argv[5]):
        time.sleep(0.005)
    next(step, None)
    print("PASS", flush=True)
    s.close()


main()
