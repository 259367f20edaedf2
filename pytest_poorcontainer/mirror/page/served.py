"""Serves the status page: rendered when something has changed, progress by server-sent events."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.mirror.errors import BadConfig, MirrorError
from pytest_poorcontainer.mirror.overview import overview, watch
from pytest_poorcontainer.mirror.page import render
from pytest_poorcontainer.mirror.plan import printable

if TYPE_CHECKING:
    from pytest_poorcontainer.mirror.config import Config

__all__ = ["PageServer", "address_of"]

_KEPT = 0.5  # seconds that a rendered page is good for while something runs
_OLD = 30.0  # ages in the page change, too
_BEAT = 0.5
_RELOAD = 300.0  # what only time changes: ages, and what is late
_MOST_LISTENERS = 64
_NICE = 10
_LINE, _LINES, _PARTS = 8192, 100, 3
_COMMON = (
    "Cache-Control: no-cache\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
    f"Content-Security-Policy: {render.POLICY}; frame-ancestors 'self'\r\n"
)
_TYPES = {"html": "text/html; charset=utf-8", "json": "application/json", "css": "text/css", "js": "text/javascript",
          "svg": "image/svg+xml", "atom": "application/atom+xml"}  # fmt: skip


def address_of(text: str) -> tuple[str, int]:
    """Return the address and port of ``--serve``; raises :class:`BadConfig`."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004 - TCP's
        raise BadConfig(f'"{text}" is no address to serve at: write it as 127.0.0.1:8080 or [::1]:8080')
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - asked for by leaving the host out


def _answer(status: str, content: bytes, kind: str, more: str = "") -> bytes:
    """Return a whole answer: nothing in it depends on who asks."""
    lines = (
        f"HTTP/1.1 {status}\r\nServer: poor-mirror\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
        f"{_COMMON}{more}\r\n"
    )
    return lines.encode("ascii") + content


_NOT_FOUND = _answer("404 Not Found", b"there is no such page\n", "text/plain")


def _kind(name: str) -> str:
    return _TYPES.get(name.rpartition(".")[2], "text/plain; charset=utf-8")


class _Handler(StreamRequestHandler):
    """Answers GET and HEAD; there is nothing to change here.

    http.server's own handler takes longer to parse the header than all the rest: here a request is its first line, and
    of the other lines only whether the connection is to be closed.
    """

    disable_nagle_algorithm = True
    timeout = 30
    server: PageServer

    def handle(self) -> None:
        """Answer one request after the other."""
        while True:
            line = self.rfile.readline(_LINE)
            if not line:
                return
            closing = self._header(line)
            parts = line.split()
            if closing is None or len(parts) != _PARTS:
                self.wfile.write(_answer("400 Bad Request", b"bad request\n", "text/plain", "Connection: close\r\n"))
                return
            if parts[0] not in {b"GET", b"HEAD"}:
                self.wfile.write(_answer("405 Method Not Allowed", b"", "text/plain", "Connection: close\r\n"))
                return
            path = parts[1].partition(b"?")[0].strip(b"/").decode("ascii", "replace")
            if path == "events" and parts[0] == b"GET":
                self._events()
                return
            try:
                answer = self.server.answer(path or "index.html")
            except MirrorError as error:
                answer = _answer("500 Internal Server Error", f"{printable(str(error))}\n".encode(), "text/plain")
            self.wfile.write(answer if parts[0] == b"GET" else answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
            if closing:
                return

    def _header(self, first: bytes) -> bool | None:
        """Read the rest of a header; whether the connection is to be closed after it, None if it is none."""
        closing = first.rstrip().endswith(b"HTTP/1.0")
        for _ in range(_LINES):
            line = self.rfile.readline(_LINE)
            if not line.endswith(b"\n"):
                return None
            if line in {b"\r\n", b"\n"}:
                return closing
            if line[:11].lower() == b"connection:":
                closing = b"close" in line.lower()
            elif line[:15].lower() == b"content-length:" and line[15:].strip() != b"0":
                return None  # a body, which nothing here has a use for
        return None

    def _events(self) -> None:
        """Tell how the runs go, until the browser leaves."""
        if not self.server.listen(1):
            self.wfile.write(_answer("503 Service Unavailable", b"too many listeners\n", "text/plain"))
            return
        try:
            head = f"HTTP/1.1 200 OK\r\nServer: poor-mirror\r\nContent-Type: text/event-stream\r\n{_COMMON}"
            self.wfile.write(f"{head}Connection: close\r\n\r\n".encode("ascii"))
            before, said = self.server.event()
            until = time.monotonic() + _RELOAD
            while not self.server.ending.wait(_BEAT):
                mark, said = self.server.event()
                said["reload"] = mark != before or time.monotonic() > until
                before = mark
                self.wfile.write(f"data: {json.dumps(said)}\n\n".encode())
        except (OSError, MirrorError):
            pass  # the browser has left, or the page says what is wrong: it comes again in a while
        finally:
            self.server.listen(-1)


class PageServer(ThreadingTCPServer):
    """Serves the page of a configuration. ``ending`` tells open event streams to end."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, config: Config, address: tuple[str, int]) -> None:
        """Listen; raises :class:`MirrorError` when the address cannot be had."""
        self._config = config
        self._lock = threading.Lock()
        self._parts: dict[str, bytes] = {}
        self._found: dict[str, Any] | None = None
        self._running: dict[str, dict[str, Any]] = {}
        self._mark = self._drawn = 0
        self._made = self._looked = -_OLD
        self._listeners = 0
        self.ending = threading.Event()
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        try:
            super().__init__(address, _Handler)
        except OSError as error:
            raise MirrorError(
                f"cannot serve the page at {address[0]}:{address[1]}: {error.strerror}; is the port free, and ours?"
            ) from error

    def serve_politely(self) -> None:
        """Serve until :meth:`shutdown`, behind the runs: a thread has a nice value of its own (setpriority(2))."""
        with contextlib.suppress(OSError):  # a sandbox's own rules
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        self.serve_forever(poll_interval=0.1)

    def show(self, config: Config) -> None:
        """Show this configuration from now on."""
        with self._lock:
            self._config, self._found, self._looked = config, None, -_OLD

    @property
    def server_port(self) -> int:
        """The port that it listens on."""
        return int(self.server_address[1])

    def listen(self, change: int) -> bool:
        """Count the event streams; whether another one may begin."""
        with self._lock:
            if change > 0 and self._listeners >= _MOST_LISTENERS:
                return False
            self._listeners += change
            return True

    def answer(self, name: str) -> bytes:
        """Return the whole answer for a part of the page, rendered anew if something has changed since."""
        with self._lock:
            self._look(_KEPT)
            old = time.monotonic() - self._made
            if self._found is None or self._mark != self._drawn or old > (_KEPT if self._running else _OLD):
                self._found = overview(self._config)
                self._made, self._drawn = time.monotonic(), self._mark
                self._parts = {}
            if name not in self._parts:
                content = render.part(self._config, self._found, name, live=True)
                if content is None:
                    return _NOT_FOUND
                self._parts[name] = _answer("200 OK", content, _kind(name))
            return self._parts[name]

    def event(self) -> tuple[int, dict[str, Any]]:
        """Return a number that is another one when the page has to be, and how far the runs are, in words."""
        with self._lock:
            self._look(_BEAT / 2)
            told = self._running
            return self._mark, {
                "running": {name: render.progress(one) for name, one in told.items()},
                "share": {name: render.share(one) for name, one in told.items()},
            }

    def _look(self, patience: float) -> None:
        """Look at history and locks, unless that was done a moment ago: for all who ask, not for each of them."""
        now = time.monotonic()
        if now - self._looked > patience:
            self._mark, self._running = watch(self._config)
            self._looked = now

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Take a connection that ends early for what it is."""
        with contextlib.suppress(ConnectionError, TimeoutError):
            super().finish_request(request, client_address)
