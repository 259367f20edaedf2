"""The conversation with a command's watcher, the small process that stands between the agent and the command."""

from __future__ import annotations

import errno
import functools
import select
import signal
import threading
from _socket import SO_PASSCRED, SOL_SOCKET
from typing import TYPE_CHECKING

from pytest_poorcontainer.lab import forks, protocol
from pytest_poorcontainer.lab.clock import now
from pytest_poorcontainer.lab.protocol import Field, Message, Op

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_poorcontainer.errors import LabError

__all__ = ["Control", "is_signal"]


class Control:
    """One command's line. What has come over it so far stands in the attributes; any thread may ask for more.

    ``status`` is the command's raw wait status (waitpid(2)), None while it runs. ``tree_dead``: the watcher has said
    that all it started is dead. ``gone``: the watcher has ended, so nothing of the command is left. ``complaint``:
    what it could not do. ``watcher`` is its pid as we see it, 0 until it has said something of its own.
    """

    __slots__ = (
        "_poller",
        "_reading",
        "_sending",
        "_socket",
        "_theirs",
        "complaint",
        "gone",
        "status",
        "tree_dead",
        "watcher",
    )

    def __init__(self) -> None:
        """Make the line; the watcher's end waits to be passed on."""
        self._socket, self._theirs = protocol.connected()
        forks.guard(self._socket.fileno())
        # STARTED then carries the command's pid as we see it (unix(7), SCM_CREDENTIALS).
        self._socket.setsockopt(SOL_SOCKET, SO_PASSCRED, 1)
        self._reading = threading.Lock()
        self._sending = threading.Lock()
        self._poller: select.poll | None = None
        self.status: int | None = None
        self.tree_dead = False
        self.gone = False
        self.complaint: LabError | None = None
        self.watcher = 0

    def theirs(self) -> int:
        """Return the descriptor of the watcher's end."""
        return self._theirs.fileno()

    def fileno(self) -> int:
        """Return the descriptor to poll on for news, -1 when the line is closed."""
        return self._socket.fileno()

    def passed_on(self) -> None:
        """Close the watcher's end: it has its own copy now. Else we would never see the end of file."""
        self._theirs.close()

    def first(self, patience: float) -> Message | None:
        """Return the watcher's first message, STARTED or ERROR; None at the end of file.

        Raises BlockingIOError when there is none within ``patience`` seconds.
        """
        if not self._readable(patience):
            raise BlockingIOError(errno.EAGAIN, "the watcher is silent")
        return protocol.receive(self._socket)

    def until(self, reached: Callable[[], bool], deadline: float | None) -> bool:
        """Read until ``reached()``, or until the watcher is gone; return False when the deadline comes first.

        While another thread reads, we wait for it: what it reads may be what we want.
        """
        if reached() or self.gone:
            return True
        remaining = -1.0 if deadline is None else max(0.0, deadline - now())
        if not self._reading.acquire(timeout=min(remaining, threading.TIMEOUT_MAX)):
            return False
        try:
            while not reached() and not self.gone:
                if deadline is not None and not self._readable(max(0.0, deadline - now())):
                    return False
                self._take(protocol.receive(self._socket))
        finally:
            self._reading.release()
        return True

    def glance(self, *, further: bool = False) -> None:
        """Read what is there, without waiting, unless another thread reads already.

        ``further``: also beyond the command's death, to learn of the end of all that it started.
        """
        if self.gone or not self._reading.acquire(blocking=False):
            return
        try:
            while (further or self.status is None) and not self.gone and self._readable(0):
                self._take(protocol.receive(self._socket))
        finally:
            self._reading.release()

    def signal(self, number: int) -> None:
        """Send a signal to the command. A watcher that is gone has none to send it to."""
        self._send(Op.SIGNAL, protocol.pack(((Field.SIGNAL, number),)))

    def kill_tree(self) -> None:
        """Ask for the end of the command and of all that it started; TREE_DEAD answers."""
        self._send(Op.KILL_TREE, b"")

    def close(self) -> None:
        """Close our end. Idempotent; the command goes on."""
        with self._reading, self._sending:
            self.gone = True
            fd = self._socket.fileno()
            if fd >= 0:
                forks.expose(fd)
                self._socket.close()
            self._theirs.close()

    def _send(self, op: Op, body: bytes) -> None:
        with self._sending:
            try:
                protocol.send(self._socket, op, body)
            except OSError as error:
                # Gone, with all that it watched over: the reader learns how it ended.
                if error.errno not in protocol.GONE and self._socket.fileno() >= 0:
                    raise

    def _readable(self, timeout: float) -> bool:
        if self._poller is None:
            self._poller = select.poll()
            self._poller.register(self._socket.fileno(), select.POLLIN)
        return bool(self._poller.poll(timeout * 1000))

    def _take(self, message: Message | None) -> None:
        if message is None:
            self.gone = True
        elif message.op == Op.EXITED:
            self.status = message.number(Field.STATUS)
            self.watcher = message.pid
        elif message.op == Op.TREE_DEAD:
            self.tree_dead = True
        elif message.op == Op.ERROR:
            self.complaint = message.error()


def is_signal(number: int) -> bool:
    """Return whether kill(2) takes this number: 0 (no signal, only a look), or a signal."""
    return number == 0 or number in _signals()


@functools.cache
def _signals() -> frozenset[int]:
    return frozenset(signal.valid_signals())  # half a millisecond: the numbers become enums
