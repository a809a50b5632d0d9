# Holds files in every way there is, and proves on request that all are what they were: shared and private mappings, a lock,
# a position, an append, an unlinked file, a fifo, a socket.
import fcntl, mmap, os, socket, sys

shared = open("shared", "w+b")
shared.write(b"s" * 10000)
shared.flush()
view = mmap.mmap(shared.fileno(), 0)
private = open("private", "w+b")
private.write(b"p" * 10000)
private.flush()
copy = mmap.mmap(private.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
copy[5000] = ord("X")
unlinked = open("unlinked", "w+b")
os.unlink("unlinked")
unlinked.write(b"nameless")
unlinked.flush()
append = open("append", "ab", buffering=0)
reader = open("append", "rb", buffering=0)
fcntl.flock(append, fcntl.LOCK_EX)
server = socket.socket(socket.AF_UNIX)
server.bind("socket")
server.listen()
os.mkfifo("fifo")
fifo = os.open("fifo", os.O_RDWR)
print("ready", flush=True)
for n, line in enumerate(sys.stdin):
    view[n] = ord("0") + n
    append.write(b"line %d\n" % n)
    said = reader.read()
    with open("shared", "rb") as again:
        seen = again.read(n + 1)
    with open("private", "rb") as again:
        below = again.read()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("socket")
        client.send(b"hello")
        served, _ = server.accept()
        heard = served.recv(100)
        served.close()
    with open("fifo", "wb", buffering=0) as end:
        end.write(b"through")
    ok = (
        said == b"line %d\n" % n
        and seen == b"0123456789"[: n + 1]
        and view[n + 1 : 10000] == b"s" * (9999 - n)
        and below == b"p" * 10000
        and copy[4999:5002] == b"pXp"
        and os.pread(unlinked.fileno(), 100, 0) == b"nameless"
        and heard == b"hello"
        and os.read(fifo, 100) == b"through"
        and os.path.samestat(os.fstat(shared.fileno()), os.stat("shared"))
    )
    print("answer", n, ok, said, seen, flush=True)
