# A server with as many connections as one wants: sends back each line. many.py ADDRESS PORT; prints how many it has.
import resource, selectors, socket, sys

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
poll = selectors.DefaultSelector()
server = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=4096)
server.setblocking(False)
poll.register(server, selectors.EVENT_READ)
connections = 0
print("listening", flush=True)
while True:
    for key, _ in poll.select():
        if key.fileobj is not server:
            key.fileobj.sendall(key.fileobj.recv(4096))
            continue
        try:
            while True:
                s, _ = server.accept()
                poll.register(s, selectors.EVENT_READ)
                connections += 1
        except BlockingIOError:
            print("connections", connections, flush=True)
