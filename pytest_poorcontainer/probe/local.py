"""What a probe needs of the place where it starts: the address it comes from, and ports that nobody else uses."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import UsageError

if TYPE_CHECKING:
    from typing_extensions import Self

    from pytest_poorcontainer.probe.wire import Opener

__all__ = ["NO_ROUTE", "Ports", "family_of", "source_of"]

NO_ROUTE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.EADDRNOTAVAIL}
"""What connect(2) says of a target to which there is no route, or only one that refuses."""
_TRIES = 20


def family_of(address: str) -> socket.AddressFamily:
    """Return the family of an address as text."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def source_of(opener: Opener, target: str, port: int, scope: int, given: str = "") -> str:
    """Return the address from which the kernel would send to the target, or check that ``given`` is one.

    Raises OSError as connect(2) does when there is no route, :class:`UsageError` for an address that is not ours.
    """
    family = family_of(target)
    with opener(family, socket.SOCK_DGRAM, 0) as sock:
        if given:
            try:
                sock.bind((given, 0))
            except OSError as error:
                raise UsageError(f"cannot probe from address {given!r}: {error.strerror}") from None
        if family == socket.AF_INET:
            sock.connect((target, port or 9))
        else:
            sock.connect((target, port or 9, 0, scope))
        return str(sock.getsockname()[0]).partition("%")[0]


class Ports:
    """Ports that stay bound as long as a trace lasts, so that no answer goes to somebody else.

    A SYN+ACK finds no connection there, and the kernel answers it by a reset: the half-open connection at the server
    ends, and its program never sees it.
    """

    def __init__(self, opener: Opener, source: str, wanted: int = 0, scope: int = 0) -> None:
        """Bind one TCP port and the UDP port of the same number. Raises :class:`UsageError` when it is taken."""
        self._opener = opener
        self._source = source
        self._scope = scope
        self._held: list[socket.socket] = []
        try:
            self.first = self._hold(wanted)
        except BaseException:
            self.close()
            raise

    @property
    def span(self) -> tuple[int, int]:
        """The first and the last port that :meth:`second` and the first one can be."""
        return self.first & ~1, self.first | 1

    def second(self) -> int | None:
        """Bind the neighbour of the first port too and return it, None when somebody else has it."""
        try:
            return self._bind(self.first ^ 1, socket.SOCK_STREAM)
        except OSError:
            return None

    def block(self, count: int) -> list[int]:
        """Bind so many more TCP ports and return them, fewer when no more are free."""
        ports: list[int] = []
        with contextlib.suppress(OSError):
            ports.extend(self.another() for _ in range(count))
        return ports

    def another(self) -> int:
        """Bind one more TCP port, whichever is free, and return it. Raises OSError."""
        return self._bind(0, socket.SOCK_STREAM)

    def _hold(self, wanted: int) -> int:
        for _ in range(_TRIES):
            port = self._hold_both(wanted)
            if port is not None:
                return port
        raise UsageError(f"cannot probe from {self._source}: no port is free for both TCP and UDP")

    def _hold_both(self, wanted: int) -> int | None:
        try:
            port = self._bind(wanted, socket.SOCK_STREAM)
            self._bind(port, socket.SOCK_DGRAM)
        except OSError as error:
            if not wanted and error.errno == errno.EADDRINUSE:
                return None
            what = f"port {wanted}" if wanted else "a port"
            raise UsageError(f"cannot probe from {what} of {self._source}: {error.strerror}") from None
        return port

    def _bind(self, port: int, kind: int) -> int:
        sock = self._opener(family_of(self._source), kind, 0)
        try:
            if ":" in self._source:
                sock.bind((self._source, port, 0, self._scope))
            else:
                sock.bind((self._source, port))
        except BaseException:
            sock.close()
            raise
        self._held.append(sock)
        return int(sock.getsockname()[1])

    def close(self) -> None:
        """Let the ports go. Idempotent."""
        for sock in self._held:
            sock.close()
        self._held.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
