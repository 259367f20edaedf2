"""Just enough of rtnetlink(7) for many hosts: messages packed by hand, sent in batches, errors with their step.

pyroute2 would take three times what the kernel takes; it serves what is rare (:meth:`Host.iproute`).
"""

from __future__ import annotations

import errno
import itertools
import struct
from typing import TYPE_CHECKING, NamedTuple

from pytest_poorcontainer.errors import LabError
from pytest_poorcontainer.lab import forks, protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from typing_extensions import Self

__all__ = [
    "ACK",
    "CREATE",
    "DUMP",
    "EXCL",
    "REPLACE",
    "Netlink",
    "Request",
    "attribute",
    "attributes",
    "nest",
    "number",
    "text",
]

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
_REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
REPLACE, EXCL, CREATE = 0x100, 0x200, 0x400
_IS_ERROR, _IS_DONE = 2, 3
_AT_ONCE = 32  # requests in one datagram: their answers have to fit into our receive buffer, at 4 KiB each
_LARGEST = 1 << 31
_ROOM = 1 << 16
_PATIENCE = 20  # seconds


def attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute, padded (netlink(7), NLA_ALIGN)."""
    length = 4 + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def nest(kind: int, *parts: bytes) -> bytes:
    """Return an attribute made of attributes."""
    return attribute(kind, b"".join(parts))


def number(kind: int, value: int) -> bytes:
    """Return an attribute of 32 bits in the machine's byte order."""
    return attribute(kind, struct.pack("=I", value))


def text(kind: int, value: str) -> bytes:
    """Return an attribute that is a string."""
    return attribute(kind, value.encode() + b"\0")


def attributes(body: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    """Yield the attributes of a message behind its fixed part of ``start`` bytes."""
    while start + 4 <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, start)
        if length < 4:  # noqa: PLR2004 - its own header
            return
        yield kind & 0x3FFF, body[start + 4 : start + length]
        start += length + -length % 4


class Request(NamedTuple):
    """One message. ``step`` and ``object`` are for the error; the errnos in ``fine`` are none."""

    kind: int
    flags: int
    body: bytes
    step: str
    object: str = ""
    fine: tuple[int, ...] = ()


_numbers = itertools.count(1, _AT_ONCE)


class Netlink:
    """A netlink socket. Not safe to use from several threads at once; other processes may have it too."""

    def __init__(self, fd: int) -> None:
        """Take over its descriptor."""
        forks.guard(fd)
        self._socket = protocol.socket_of(fd)
        protocol.limit_waits(self._socket, _PATIENCE)

    def send(self, requests: Sequence[Request]) -> list[tuple[int, bytes]]:
        """Send them in order and return what came back, as (type, body).

        The kernel goes on behind one that fails. Raises :class:`LabError` for the first that did.
        """
        replies: list[tuple[int, bytes]] = []
        for start in range(0, len(requests), _AT_ONCE):
            some = requests[start : start + _AT_ONCE]
            first = next(_numbers) % _LARGEST
            self._socket.send(
                b"".join(
                    _HEADER.pack(16 + len(one.body), one.kind, one.flags | _REQUEST, number, 0) + one.body
                    for number, one in enumerate(some[:-1], first)
                )
                + self._last(some[-1], first + len(some) - 1)
            )
            self._receive(some, first, replies)
        return replies

    @staticmethod
    def _last(request: Request, number: int) -> bytes:
        """Return the one that is acknowledged whatever becomes of it; errors of the others come before."""
        return (
            _HEADER.pack(16 + len(request.body), request.kind, request.flags | _REQUEST | ACK, number, 0) + request.body
        )

    def _receive(self, requests: Sequence[Request], first: int, replies: list[tuple[int, bytes]]) -> None:
        failed: tuple[int, int] | None = None
        acknowledged = False
        while not acknowledged:
            try:
                data = self._socket.recv(_ROOM)
            except BlockingIOError:
                raise LabError(requests[-1].step, requests[-1].object, errno.ETIMEDOUT) from None
            start = 0
            while start + 16 <= len(data):
                length, kind, _, number, _ = _HEADER.unpack_from(data, start)
                place = number - first
                body = data[start + 16 : start + length]
                start += length + -length % 4
                if not 0 <= place < len(requests):
                    continue  # the answer to somebody who was interrupted while waiting for it
                if kind == _IS_ERROR:
                    code = -_ERROR.unpack_from(body)[0]
                    if code and code not in requests[place].fine and failed is None:
                        failed = (place, code)
                    acknowledged = acknowledged or place == len(requests) - 1
                elif kind == _IS_DONE:
                    acknowledged = True
                else:
                    replies.append((kind, body))
        if failed is not None:
            place, code = failed
            raise LabError(requests[place].step, requests[place].object, code)

    def dump(self, request: Request) -> list[tuple[int, bytes]]:
        """Return all answers to a request for everything of a kind."""
        replies: list[tuple[int, bytes]] = []
        first = next(_numbers) % _LARGEST
        self._socket.send(_HEADER.pack(16 + len(request.body), request.kind, _REQUEST | DUMP, first, 0) + request.body)
        self._receive([request], first, replies)
        return replies

    def close(self) -> None:
        """Close it. Idempotent."""
        fd = self._socket.fileno()
        if fd >= 0:
            forks.expose(fd)
            self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        """Close quietly what nobody refers to any more."""
        if getattr(self, "_socket", None) is not None:
            self.close()
