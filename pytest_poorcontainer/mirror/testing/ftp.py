"""An FTP server for tests (RFC 959, 2428, 3659): with and without MLSD, and with faults."""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_poorcontainer.mirror.testing.serving import Item, Served

__all__ = ["FtpServer"]

_PATIENCE = 10.0
_HALF_YEAR = 180 * 86400
_TRANSFERS = {"MLSD", "LIST", "RETR"}
_BEFORE_LOGIN = {"USER", "PASS", "FEAT", "AUTH"}


def _mlsd_line(item: Item) -> str:
    kind = {"f": "file", "d": "dir", "l": f"OS.unix=slink:{item.target}"}[item.kind]
    size = f"size={item.size};" if item.kind == "f" else ""
    return f"type={kind};{size}modify={time.strftime('%Y%m%d%H%M%S', time.gmtime(item.mtime))}; {item.name}"


def _list_line(item: Item) -> str:
    recent = abs(time.time() - item.mtime) < _HALF_YEAR
    when = time.strftime("%b %d %H:%M" if recent else "%b %d  %Y", time.gmtime(item.mtime))
    kind = {"f": "-", "d": "d", "l": "l"}[item.kind]
    name = f"{item.name} -> {item.target}" if item.kind == "l" else item.name
    return f"{kind}rw-r--r--    1 ftp      ftp      {item.size:>10} {when} {name}"


class _Session(socketserver.StreamRequestHandler):
    """Serves one control connection. The methods ``on_...`` are the commands."""

    server: FtpServer
    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Begin without a user, at the top."""
        super().setup()
        self.name = ""
        self.logged_in = False
        self.directory = ""
        self.start = 0
        self.listener: socket.socket | None = None

    def finish(self) -> None:
        """Close what is open."""
        if self.listener is not None:
            self.listener.close()
        with contextlib.suppress(OSError):
            super().finish()

    def say(self, text: str) -> None:
        """Send a reply."""
        self.wfile.write(os.fsencode(text) + b"\r\n")
        self.wfile.flush()

    def handle(self) -> None:
        """Take commands until the client leaves."""
        busy = self.server.served.faults.find("busy", "")
        self.full = bool(busy) and self.server.now > int((busy or {})["most"])
        if self.full and not (busy or {}).get("code"):
            self.say("421 too many connections")
            return
        self.say("220 a server for tests")
        while line := self.rfile.readline(8192):
            verb, _, argument = os.fsdecode(line.rstrip(b"\r\n")).partition(" ")
            verb = verb.upper()
            if verb == "QUIT":
                self.say("221 bye")
                return
            self.server.seen.append((verb, argument))
            method = getattr(self, f"on_{verb.lower()}", None)
            if method is None or (verb == "MLSD" and not self.server.mlsd):
                self.say("500 unknown command")
            elif not self.logged_in and verb not in _BEFORE_LOGIN:
                self.say("530 log in first")
            else:
                method(argument)
                if verb in _TRANSFERS and self.server.served.faults.find("drop", ""):
                    return

    def where(self, argument: str) -> str:
        """Return an argument as a path relative to the top."""
        whole = argument if argument.startswith("/") else f"{self.directory}/{argument}"
        parts: list[str] = []
        for part in whole.split("/"):
            if part == "..":
                del parts[-1:]
            elif part not in {"", "."}:
                parts.append(part)
        return "/".join(parts)

    def refused(self, where: str) -> bool:
        """Whether a fault keeps a path from being there; answers if so."""
        faults = self.server.served.faults
        error = faults.find("error", where)
        if error:
            self.say(f"{error.get('code', 550)} an error, as a fault says")
            return True
        if faults.find("vanish", where):
            self.say("550 no such file")
            return True
        return False

    def on_user(self, argument: str) -> None:
        """Take the name."""
        self.name = argument
        self.say("331 and the password?")

    def on_pass(self, argument: str) -> None:
        """Take the password."""
        if self.full:
            self.say("530 Sorry, the maximum number of clients are already connected")
            return
        if self.server.password and (self.name, argument) != self.server.password:
            self.say("530 wrong user or password")
            return
        self.logged_in = True
        self.say("230 welcome")

    def on_feat(self, _: str) -> None:
        """Say what there is."""
        extra = " MLST type*;size*;modify*;\r\n" if self.server.mlsd else ""
        self.say(f"211-Features:\r\n MDTM\r\n SIZE\r\n REST STREAM\r\n{extra}211 End")

    def on_type(self, _: str) -> None:
        """Take a mode: all are binary here."""
        self.say("200 done")

    on_opts = on_noop = on_type

    def on_pwd(self, _: str) -> None:
        """Say where we are."""
        self.say(f'257 "/{self.directory}"')

    def on_cwd(self, argument: str) -> None:
        """Go to a directory."""
        where = self.where(argument)
        if self.refused(where):
            return
        if (self.server.served.root / where).is_dir():
            self.directory = where
            self.say("250 done")
        else:
            self.say("550 no such directory")

    def on_epsv(self, _: str) -> None:
        """Listen for the data connection."""
        self.say(f"229 here (|||{self._listen()}|)")

    def on_pasv(self, _: str) -> None:
        """Listen for the data connection, in the old form."""
        port = self._listen()
        host = self.request.getsockname()[0].replace(".", ",")
        self.say(f"227 here ({host},{port >> 8},{port & 255})")

    def _listen(self) -> int:
        if self.listener is not None:  # of a command that was refused: who has connected there has left
            self.listener.close()
        address = self.request.getsockname()[0]
        self.listener = socket.create_server((address, 0), family=self.request.family, backlog=1)
        self.listener.settimeout(_PATIENCE)
        return int(self.listener.getsockname()[1])

    def on_rest(self, argument: str) -> None:
        """Take the place to begin at."""
        self.start = int(argument) if argument.isdigit() else 0
        self.say(f"350 from {self.start}")

    def on_size(self, argument: str) -> None:
        """Say how large a file is."""
        where = self.where(argument)
        path = self.server.served.root / where
        if self.refused(where):
            return
        lie = self.server.served.faults.find("lie", where)
        self.say(f"213 {lie['size'] if lie else path.stat().st_size}" if path.is_file() else "550 no such file")

    def on_mdtm(self, argument: str) -> None:
        """Say how old a file is."""
        path = self.server.served.root / self.where(argument)
        when = (
            time.strftime("213 %Y%m%d%H%M%S", time.gmtime(path.stat().st_mtime))
            if path.is_file()
            else "550 no such file"
        )
        self.say(when)

    def on_mlsd(self, argument: str) -> None:
        """List a directory for programs."""
        self._list(argument, _mlsd_line)

    def on_list(self, argument: str) -> None:
        """List a directory as ls does."""
        self._list(argument.removeprefix("-a").strip(), _list_line)

    def _list(self, argument: str, line: Callable[[Item], str]) -> None:
        where = self.where(argument)
        served = self.server.served
        if self.refused(where):
            return
        if not (served.root / where).is_dir():
            self.say("550 no such directory")
            return
        page = served.faults.find("page", where)
        lines = (
            [page["text"]] if page else [line(self.server.shifted(item)) for item in served.items(where, links=True)]
        )
        self._send(os.fsencode("".join(f"{one}\r\n" for one in lines)) for _ in (0,))

    def on_retr(self, argument: str) -> None:
        """Send a file."""
        where, start, self.start = self.where(argument), self.start, 0
        served = self.server.served
        if self.refused(where):
            return
        if not (served.root / where).is_file():
            self.say("550 no such file")
            return
        self._send(served.content(where, start))

    def _send(self, chunks: Iterable[bytes]) -> None:
        if self.listener is None:
            self.say("425 no data connection")
            return
        early = self.server.served.faults.find("early", "")
        self.say("150 here it comes\r\n226 done" if early else "150 here it comes")
        data, _ = self.listener.accept()
        try:
            with data:
                for chunk in chunks:
                    data.sendall(chunk)
        except ConnectionError:
            self.say("426 cut")
        else:
            if not early:
                self.say("226 done")
        self.listener.close()
        self.listener = None


class FtpServer(socketserver.ThreadingTCPServer):
    """Serves a directory; ``seen`` has the commands. ``zone`` is how far its LIST is from UTC, in seconds."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        served: Served,
        *,
        mlsd: bool = True,
        password: tuple[str, str] | None = None,
        zone: float = 0.0,
    ) -> None:
        """Listen on an address, of IPv4 or IPv6; port 0 is any."""
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.served = served
        self.mlsd = mlsd
        self.password = password
        self.zone = zone
        self.seen: list[tuple[str, str]] = []
        self.now = 0
        self._count = threading.Lock()
        super().__init__(address, _Session)

    def shifted(self, item: Item) -> Item:
        """Return an item with its time in the server's zone, where LIST shows it."""
        return item if self.mlsd else item._replace(mtime=item.mtime + self.zone)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Count the connections, and take one that ends early for what it is."""
        with self._count:
            self.now += 1
        try:
            with contextlib.suppress(ConnectionError, TimeoutError):
                super().finish_request(request, client_address)
        finally:
            with self._count:
                self.now -= 1
