#!/usr/bin/env python3
"""A stand-in for ssh and sshd between the hosts of hosts.ts, where nobody has keys and a pump that is told to may fail.

`stand-in-ssh.py serve ADDRESS` is the daemon: it runs commands with a connection as their standard streams, and tells them
who is there as sshd does. Called with ssh's words it is the client. CUT=out|in:WHAT:before|after ends it with SIGKILL at the
first frame of a move in that direction that is called so (a message's type, pages, or file): before or after it was passed on.
"""
import json, os, select, signal, socket, struct, subprocess, sys, threading

PORT = 2222


def line(s):
    text = b""
    while not text.endswith(b"\n"):
        byte = s.recv(1)
        if not byte:
            raise SystemExit("the line has ended")
        text += byte
    return text.decode().rstrip("\n")


def serve(address):
    server = socket.create_server((address, PORT), backlog=16)
    print("up", flush=True)
    while True:
        # The first of two connections is the command's input and output; the other has its complaints and how it ended.
        streams, peer = server.accept()
        token = line(streams)
        beside, _ = server.accept()
        assert line(beside) == token
        command = line(beside)
        me = streams.getsockname()
        env = {**os.environ, "SSH_CONNECTION": f"{peer[0]} {peer[1]} {me[0]} {me[1]}"}
        child = subprocess.Popen(["/bin/sh", "-c", command], stdin=streams, stdout=streams, stderr=beside, env=env)
        streams.close()

        def ended(child=child, beside=beside):
            code = child.wait()
            beside.sendall(b"\0%d" % (code if code >= 0 else 255))
            beside.close()

        threading.Thread(target=ended, daemon=True).start()


class Frames:
    """Looks at what goes by, and knows when the frame that is waited for comes."""

    def __init__(self, wanted, when):
        self.wanted, self.when, self.kept = wanted, when, b""

    def take(self, data):
        """Whole frames to pass on; ends the process where it was told to."""
        self.kept += data
        whole = []
        while len(self.kept) >= 16:
            kind, size, _ = struct.unpack("<IIQ", self.kept[:16])
            if len(self.kept) < 16 + size:
                break
            frame, self.kept = self.kept[: 16 + size], self.kept[16 + size :]
            name = json.loads(frame[16:])["type"] if kind == 1 else "pages" if kind == 2 else "file"
            if name != self.wanted:
                whole.append(frame)
                continue
            if self.when == "after":
                whole.append(frame)
            return b"".join(whole), True
        return b"".join(whole), False


def pump(source, sink, frames, end):
    while True:
        data = os.read(source, 1 << 20)
        cut = False
        if frames and data:
            data, cut = frames.take(data)
        elif not data:
            end()
            return
        while data:
            data = data[os.write(sink, data) :]
        if cut:
            os.kill(os.getpid(), signal.SIGKILL)


def client(words):
    at = words.index("--")
    host, command = words[at + 1], words[at + 2]
    token = "%d-%d\n" % (os.getpid(), int.from_bytes(os.urandom(4), "big"))
    try:
        streams, beside = (socket.create_connection((host, PORT)) for _ in range(2))
    except OSError as e:
        print(f"ssh: connect to host {host} port {PORT}: {e.strerror}", file=sys.stderr)
        return 255
    streams.sendall(token.encode())
    beside.sendall(token.encode() + command.encode() + b"\n")
    way, what, when = (os.environ.get("CUT") or "::").split(":")
    frames = {way: Frames(what, when)}

    def no_more():
        try:
            streams.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def out():
        try:
            pump(0, streams.fileno(), frames.get("out"), no_more)
        except OSError:
            pass

    def back():
        try:
            pump(streams.fileno(), 1, frames.get("in"), lambda: os.close(1))
        except OSError:
            pass

    threading.Thread(target=out, daemon=True).start()
    coming = threading.Thread(target=back, daemon=True)
    coming.start()
    said = b""
    while data := beside.recv(1 << 16):
        said += data
    text, _, code = said.partition(b"\0")
    sys.stderr.buffer.write(text)
    sys.stderr.flush()
    coming.join()
    return int(code or b"255")


if sys.argv[1:2] == ["serve"]:
    serve(sys.argv[2])
status = client(sys.argv[1:])
sys.stdout = None
os._exit(status)
