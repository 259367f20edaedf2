"""The line to a container's first process: it starts commands and makes sockets in there."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

from pytest_poorcontainer.container import forks, protocol
from pytest_poorcontainer.container.protocol import Field, Op
from pytest_poorcontainer.errors import LabDied, LabError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Agent"]

_PATIENCE = 20  # seconds; an agent answers in microseconds, unless the machine is in deep trouble
_REQUESTS = 1 << 32


class Agent:
    """Talks to one container's agent. Safe to use from several threads at once."""

    def __init__(self, fd: int, name: str) -> None:
        """Take over the descriptor of the agent's socket; ``name`` is the container's, for messages."""
        self._name = name
        self._socket = protocol.socket_of(fd)
        forks.guard(fd)
        protocol.limit_waits(self._socket, _PATIENCE)
        self._lock = threading.Lock()
        self._next = 1

    def execute(self, body: bytes, fds: Sequence[int], what: str) -> int:
        """Ask for a command to be started; return the request's number.

        It is answered on the command's own socket, the first of ``fds``. Raises :class:`LabDied`, or OSError E2BIG.
        """
        with self._lock:
            number = self._number()
            self._send(Op.EXEC, body, fds, number, f"run {what}")
        return number

    def complaint(self, number: int) -> LabError | None:
        """Return what the agent said about a command that it could not even give a watcher, if it did."""
        with self._lock:
            while True:
                try:
                    answer = protocol.receive(self._socket, wait=False)
                except OSError:
                    return None
                if answer is None:
                    return None
                if answer.request == number and answer.op == Op.ERROR:
                    return answer.error()

    def socket(self, family: int, kind: int, proto: int = 0) -> int:
        """Make a socket inside the container and return its descriptor.

        Raises OSError as socket(2) does (EAFNOSUPPORT, EPERM, ...), :class:`LabDied` when the container has ended.
        """
        fields = ((Field.FAMILY, family), (Field.TYPE, kind), (Field.PROTOCOL, proto))
        return self._ask(Op.SOCKET, protocol.pack(fields), f"make a socket in {self._name}")

    def netns(self) -> int:
        """Return a descriptor of the container's network namespace, as setns(2) takes it."""
        return self._ask(Op.NETNS, b"", f"open the network namespace of {self._name}")

    def close(self) -> None:
        """Close the line. Idempotent; the container itself lives on until the lab ends it."""
        with self._lock:
            fd = self._socket.fileno()
            if fd >= 0:
                forks.expose(fd)
                self._socket.close()

    def __del__(self) -> None:
        """Close quietly the line that nobody refers to any more."""
        if getattr(self, "_lock", None) is not None:
            self.close()

    def _number(self) -> int:
        number = self._next
        self._next = (number + 1) % _REQUESTS
        return number

    def _send(self, op: Op, body: bytes, fds: Sequence[int], number: int, operation: str) -> None:
        try:
            protocol.send(self._socket, op, body, fds, number)
        except BlockingIOError:
            raise self._silent(operation) from None
        except OSError as error:
            if error.errno not in protocol.GONE and self._socket.fileno() >= 0:
                raise
            raise self.died(operation) from None

    def _ask(self, op: Op, body: bytes, operation: str) -> int:
        with self._lock:
            number = self._number()
            self._send(op, body, (), number, operation)
            while True:  # passing over answers to those who were interrupted while waiting for them
                try:
                    answer = protocol.receive(self._socket)
                except BlockingIOError:
                    raise self._silent(operation) from None
                except OSError as error:
                    if error.errno not in protocol.GONE:
                        raise
                    raise self.died(operation) from None
                if answer is None:
                    raise self.died(operation)
                if answer.request == number:
                    break
        if answer.op == Op.ERROR:
            error_number = answer.number(Field.ERRNO)
            if op == Op.SOCKET and error_number:
                raise OSError(error_number, os.strerror(error_number), f"a socket in {self._name}")
            raise answer.error()
        if len(answer.fds) != 1:
            raise LabError(operation, "", errno.EPROTO, f"expected one descriptor, got {len(answer.fds)}")
        return answer.fds.pop()

    def died(self, operation: str) -> LabDied:
        """Return the error for an agent that is no more."""
        why = f"the container {self._name} has ended although nobody asked it to: its init or the lab was killed"
        return LabDied(operation, "", 0, why)

    def _silent(self, operation: str) -> LabError:
        why = f"the agent of {self._name} did not answer; is the machine overloaded, or the agent stopped (SIGSTOP)?"
        return LabError(operation, "", errno.ETIMEDOUT, why)
