# A server that accepts one client at a time, for ever, and answers each line of it. backlog.py ADDRESS PORT; with a / it is a path.
import socket, sys

if "/" in sys.argv[1]:
    server = socket.socket(socket.AF_UNIX)
    server.bind(sys.argv[1])
    server.listen(64)
else:
    server = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=64)
print("listening", flush=True)
served = 0
while True:
    client, _ = server.accept()
    try:
        for line in client.makefile("rb"):
            served += 1
            client.sendall(b"%d %s" % (served, line))
    except (BrokenPipeError, ConnectionResetError):
        print("one did not wait", flush=True)
    client.close()
