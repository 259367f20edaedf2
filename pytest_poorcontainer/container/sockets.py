"""Which sockets a container has: the kernel's own tables, read by sock_diag(7) from inside its network."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from _socket import (
    AF_INET,
    AF_INET6,
    AF_NETLINK,
    AF_UNIX,
    IPPROTO_TCP,
    IPPROTO_UDP,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    inet_ntop,
)
from typing import TYPE_CHECKING, NamedTuple

from pytest_poorcontainer.errors import LabError
from pytest_poorcontainer.lab.protocol import Socket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from typing_extensions import Self

    from pytest_poorcontainer.lab.handle import Handle

    _Parser: TypeAlias = "Callable[[bytes], SocketInfo]"

__all__ = ["SocketInfo", "SocketTable", "open_sockets"]

_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG, linux/netlink.h
_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY, linux/sock_diag.h
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR: the table changed below the dump
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_INET_REQUEST = struct.Struct("=BBBxI2s46x")  # struct inet_diag_req_v2: only the family, states and source port
_INET_ANSWER = struct.Struct("=BBxx2s2s16s16s12x16xI")  # struct inet_diag_msg; the last is the inode
_UNIX_REQUEST = struct.Struct("=BxxxIII8x")
_UNIX_ANSWER = struct.Struct("=BBBxI8x")
_NUMBER = struct.Struct("=i")
_ATTRIBUTE = struct.Struct("=HH")
_SHOW_NAME, _SHOW_VFS = 1, 2
_NAME, _VFS = 0, 1
_ALL_STATES = 0xFFFFFFFF
_LISTEN, _CLOSE = 10, 7
_STATES = (
    "",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "UNCONNECTED",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "SYN_RECV",
)  # enum of net/tcp_states.h; a UDP or unix socket that is merely bound is in TCP_CLOSE
_PROTOCOLS = {"tcp": IPPROTO_TCP, "udp": IPPROTO_UDP}
_BUFFER = 65536
_OURS = "@poor-container/"
_TRIES = 10


class SocketInfo(NamedTuple):
    """One socket of a container.

    ``protocol`` is "tcp", "udp" or "unix", ``family`` "ipv4", "ipv6" or "unix", ``state`` "LISTEN", "ESTABLISHED",
    "UNCONNECTED" (bound, connected to nobody) and so on. ``local`` and ``remote`` are "10.0.0.1:80", "[::]:80", a path,
    or "@name" for an abstract unix socket; ``remote`` is "" when there is none. ``inode`` is the number that
    ``/proc/PID/fd`` shows. ``address`` and ``port`` are the local ones ("" and 0 of a unix socket); ``file`` is the
    inode of a unix socket's file (0 when it has none).
    """

    protocol: str
    family: str
    state: str
    local: str
    remote: str
    inode: int
    address: str = ""
    port: int = 0
    file: int = 0

    def __str__(self) -> str:
        """Return one line, as ss(8) has it."""
        line = f"{self.protocol} {self.state} {self.local}"
        return f"{line} -> {self.remote}" if self.remote else line


class _Missing(LabError):
    """The kernel has no such table."""


class SocketTable:
    """Reads the tables of one container's network as often as needed: one netlink socket made inside it.

    Close it, or use it as a context manager. Raises what ``Handle.check`` and ``Agent.socket`` raise.
    """

    def __init__(self, handle: Handle) -> None:
        """Have the socket made inside the container."""
        handle.check()
        self._name = handle.name
        fd = handle.agent.socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, _SOCK_DIAG)
        self._socket = Socket(AF_NETLINK, SOCK_DGRAM, _SOCK_DIAG, fd)
        self._socket.settimeout(None)  # whatever a test has set with socket.setdefaulttimeout()
        self._sequence = 0

    def inet(self, protocol: str, port: int = 0, *, listening: bool = False) -> list[SocketInfo]:
        """Return the TCP or UDP sockets, those of one local port alone if given.

        ``listening`` leaves out of TCP what does not listen, of UDP what is connected.
        """
        states = _ALL_STATES if not listening else 1 << (_LISTEN if protocol == "tcp" else _CLOSE)
        return [
            info
            for family in (AF_INET, AF_INET6)
            for info in self._dump(
                _INET_REQUEST.pack(family, _PROTOCOLS[protocol], 0, states, port.to_bytes(2, "big")),
                lambda body: _inet(protocol, body),
            )
            if not port or info.port == port
        ]

    def unix(self) -> list[SocketInfo]:
        """Return the unix sockets that have a name, but those on which we ourselves listen (notify.py)."""
        request = _UNIX_REQUEST.pack(AF_UNIX, _ALL_STATES, 0, _SHOW_NAME | _SHOW_VFS)
        return [info for info in self._dump(request, _unix) if info.local and not info.local.startswith(_OURS)]

    def all(self) -> list[SocketInfo]:
        """Return all of them, TCP first, what listens before the rest; of a table that the kernel lacks none."""
        found: list[SocketInfo] = []
        tables: tuple[Callable[[], list[SocketInfo]], ...] = (
            lambda: self.inet("tcp"),
            lambda: self.inet("udp"),
            self.unix,
        )
        for read in tables:
            with contextlib.suppress(_Missing):
                found += read()
        order = {"tcp": 0, "udp": 1, "unix": 2}
        return sorted(found, key=lambda info: (order[info.protocol], info.state != "LISTEN", info.port, info.local))

    def close(self) -> None:
        """Close the netlink socket. Idempotent."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _dump(self, request: bytes, parse: _Parser) -> list[SocketInfo]:
        for _ in range(_TRIES):
            found = self._dump_once(request, parse)
            if found is not None:
                return found
        return []  # a table that never holds still; whoever waits looks again

    def _dump_once(self, request: bytes, parse: _Parser) -> list[SocketInfo] | None:
        """Return what the kernel says; None when the table changed meanwhile (netlink(7))."""
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(request), _BY_FAMILY, _REQUEST_DUMP, self._sequence, 0)
        self._socket.send(header + request)
        found: list[SocketInfo] = []
        torn = False
        while True:
            for kind, flags, sequence, body in _messages(self._socket.recv(_BUFFER)):
                if sequence != self._sequence:
                    continue  # the rest of a dump that an interruption (Ctrl-C) made us give up
                torn = torn or bool(flags & _INTERRUPTED)
                if kind in (_DONE, _ERROR):
                    number = -_NUMBER.unpack_from(body)[0]  # a dump that fails says so at its end (netlink_dump_done)
                    if number == errno.ENOENT:
                        remedy = "the kernel lacks it: modprobe tcp_diag udp_diag unix_diag"
                        raise _Missing("read a socket table of", self._name, number, remedy)
                    if number > 0:
                        raise LabError("read a socket table of", self._name, number)
                    return None if torn else found
                found.append(parse(body))


def open_sockets(handle: Handle) -> list[SocketInfo]:
    """Return the TCP and UDP sockets of a container, and its unix sockets with a name.

    Raises :class:`PoorContainerError` when it is closed, :class:`LabDied` when it was killed, :class:`LabError` when
    the kernel has no such tables.
    """
    with SocketTable(handle) as table:
        return table.all()


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, flags, sequence, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def _inet(protocol: str, body: bytes) -> SocketInfo:
    family, state, source_port, remote_port, source, remote, inode = _INET_ANSWER.unpack_from(body)
    address, port = _address(family, source), int.from_bytes(source_port, "big")
    other = int.from_bytes(remote_port, "big")
    return SocketInfo(
        protocol,
        "ipv4" if family == AF_INET else "ipv6",
        _state(state),
        _endpoint(address, port),
        _endpoint(_address(family, remote), other) if other else "",
        inode,
        address,
        port,
    )


def _address(family: int, packed: bytes) -> str:
    return inet_ntop(family, packed[:4] if family == AF_INET else packed)


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _state(number: int) -> str:
    return _STATES[number] if number < len(_STATES) else str(number)


def _unix(body: bytes) -> SocketInfo:
    _, _, state, inode = _UNIX_ANSWER.unpack_from(body)
    name, file, at = b"", 0, _UNIX_ANSWER.size
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if length < _ATTRIBUTE.size:
            break
        value = body[at + _ATTRIBUTE.size : at + length]
        if kind == _NAME:
            # The zero byte in front says that it is no path (unix(7)).
            name = b"@" + value[1:] if value[:1] == b"\0" else value.rstrip(b"\0")
        elif kind == _VFS:
            (file,) = struct.unpack_from("=I", value)
        at += (length + 3) & ~3
    return SocketInfo("unix", "unix", _state(state), os.fsdecode(name), "", inode, file=file)
