"""A proxy for tests: CONNECT, and requests with a whole URL. It alone knows where ``origin.test`` is."""

import base64
import contextlib
import socket
import socketserver
import threading
from urllib.parse import urlsplit

NAME = "origin.test"
"""A name that no resolver knows (RFC 6761 6.2): what is fetched from it came through the proxy."""
_LONGEST = 1 << 16


class Proxy(socketserver.ThreadingTCPServer):
    """``seen`` has what was asked for, as (method, target); ``password`` is (user, password) if it wants one."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, password=None):
        self.seen, self.password = [], password
        super().__init__(("127.0.0.1", 0), _Session)

    @property
    def port(self):
        """Where it listens, on 127.0.0.1."""
        return self.server_address[1]


class _Session(socketserver.StreamRequestHandler):
    def handle(self):
        with contextlib.suppress(OSError):
            while self._one():
                pass

    def _one(self):
        """Serve one request; whether there may be another."""
        words = self.rfile.readline(_LONGEST).decode("latin-1").split()
        if len(words) != 3:
            return False
        header = []
        while (line := self.rfile.readline(_LONGEST)) not in {b"\r\n", b"\n", b""}:
            header.append(line)
        self.server.seen.append((words[0], words[1]))
        if self.server.password and self._credentials(header) != ":".join(self.server.password):
            self._refuse("407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x")
        elif words[0] == "CONNECT":
            self._tunnel(words[1])
        elif words[1].startswith("http://"):
            self._forward(words, header)
        else:
            self._refuse("501 Not Implemented")
        return False

    def _refuse(self, status):
        self.wfile.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())

    @staticmethod
    def _credentials(header):
        for line in header:
            name, _, value = line.decode("latin-1").partition(":")
            if name.lower() == "proxy-authorization":
                return base64.b64decode(value.split()[-1]).decode()
        return ""

    def _connect(self, host, port):
        if host != NAME:
            self._refuse("502 Bad Gateway")
            return None
        return socket.create_connection(("127.0.0.1", port), timeout=30)

    def _tunnel(self, target):
        host, _, port = target.rpartition(":")
        there = self._connect(host, int(port))
        if there is not None:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with there:
                self._carry(there)

    def _forward(self, words, header):
        parts = urlsplit(words[1])
        there = self._connect(parts.hostname, parts.port)
        if there is None:
            return
        kept = [line for line in header if not line.lower().startswith((b"proxy-", b"connection:"))]
        with there:
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            there.sendall(f"{words[0]} {target} HTTP/1.1\r\n".encode() + b"".join(kept) + b"Connection: close\r\n\r\n")
            self._carry(there)

    def _carry(self, there):
        """Carry bytes both ways, until the far end has sent all of its own."""

        def forth():
            with contextlib.suppress(OSError):
                while data := self.rfile.read1(_LONGEST):
                    there.sendall(data)
                there.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=forth, daemon=True)
        thread.start()
        there.settimeout(None)
        while data := there.recv(_LONGEST):
            self.wfile.write(data)
        with contextlib.suppress(OSError):
            self.request.shutdown(socket.SHUT_RDWR)  # also wakes the other direction
        thread.join(60)


@contextlib.contextmanager
def proxy(password=None):
    """Run a proxy for as long as the block lasts."""
    with Proxy(password) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(10)
