"""The line to a container's first process: it starts commands, and makes sockets and opens files in there."""

from __future__ import annotations

import errno
import os
import struct
import threading
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import LabDied, LabError
from pytest_poorcontainer.lab import forks, protocol
from pytest_poorcontainer.lab.protocol import Field, File, Op

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Agent", "shown"]

_PATIENCE = 20  # seconds; an agent answers in microseconds, unless the machine is in deep trouble
_REQUESTS = 1 << 32
_SHOWN = 400  # letters of a path
_TIME = struct.Struct("=q")


def shown(name: str, path: bytes) -> str:
    """Return a path in the container of this name, for messages: "c:/etc/hosts"; what is very long loses its middle."""
    text = os.fsdecode(path)
    return f"{name}:{text}" if len(text) <= _SHOWN else f"{name}:{text[: _SHOWN // 2]}...{text[-_SHOWN // 2 :]}"


class Agent:
    """Talks to one container's agent. Safe to use from several threads at once.

    ``preload`` is a library that every command to come is to load first (ld.so(8), LD_PRELOAD), b"" for none.
    """

    def __init__(self, fd: int, name: str) -> None:
        """Take over the descriptor of the agent's socket; ``name`` is the container's, for messages."""
        self._name = name
        self._socket = protocol.socket_of(fd)
        forks.guard(fd)
        protocol.limit_waits(self._socket, _PATIENCE)
        self._lock = threading.Lock()
        self._next = 1
        self.preload = b""

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
        return self._ask(Op.SOCKET, protocol.pack(fields), f"make a socket in {self._name}", 1).pop()

    def netns(self) -> int:
        """Return a descriptor of the container's network namespace, as setns(2) takes it."""
        return self._ask(Op.NETNS, b"", f"open the network namespace of {self._name}", 1).pop()

    def rename(self, name: str, hosts: str) -> None:
        """Give the container another host name, and another text of /etc/hosts."""
        self._ask(Op.RENAME, protocol.pack(((Field.HOSTS, hosts), (Field.NAME, name))), f"rename {self._name}", 0)
        self._name = name

    def expose(self, listener: int, port: int, addresses: Sequence[bytes]) -> None:
        """Forward what connects to a listening socket to a port inside, at the first address that answers.

        ``addresses`` are packed, of 4 or 16 bytes. The socket is copied. Raises :class:`LabError`.
        """
        fields: list[tuple[Field, int | bytes]] = [(Field.PORT, port)]
        fields += [(Field.ADDRESS, address) for address in addresses]
        self._ask(Op.EXPOSE, protocol.pack(fields), f"expose port {port} of {self._name}", 0, (listener,))

    def open(
        self,
        path: bytes,
        flags: int = os.O_RDONLY,
        *,
        kind: File = File.OPEN,
        mode: int | None = None,
        owner: str | None = None,
        target: bytes = b"",
        modified: int | None = None,
    ) -> int:
        """Return a descriptor of one of the container's files, looked up as in there.

        Only regular files and directories; with O_PATH anything. With O_CREAT missing parents are made. The other
        kinds make a directory, and its parents, and open it; or a symbolic link to ``target``, in place of whatever
        has its name. ``mode``, ``owner`` (a user's name or number) and ``modified`` (time of modification,
        in nanoseconds) are what it then has, also when it was there.

        Raises OSError with the container's name and the path, :class:`LabError` for an unknown user, :class:`LabDied`.
        """
        fields: list[tuple[Field, int | str | bytes]] = [(Field.PATH, path), (Field.KIND, kind), (Field.FLAGS, flags)]
        if mode is not None:
            fields.append((Field.MODE, mode))
        if owner is not None:
            fields.append((Field.USER, owner))
        if modified is not None:
            fields.append((Field.VALUE, _TIME.pack(modified)))
        if kind == File.LINK:
            fields.append((Field.TARGET, target))
        try:
            return self._ask(Op.OPEN, protocol.pack(fields), f"open a file in {self._name}", 1).pop()
        except LabError as error:
            if isinstance(error, LabDied) or not error.errno or error.operation == "find the user":
                raise
            why = os.strerror(error.errno)
            why = f"{why}; {error.remedy}" if error.remedy else why
            raise OSError(error.errno, why, shown(self._name, path)) from None

    def terminal(self, user: str | None = None) -> tuple[int, int]:
        """Open a pseudo-terminal of the container's (pty(7)); return its master, and the terminal, which is ``user``'s.

        Raises :class:`LabError`.
        """
        operation = f"open a terminal in {self._name}"
        ours, theirs = protocol.connected()
        try:
            protocol.limit_waits(ours, _PATIENCE)
            with self._lock:
                body = b"" if user is None else protocol.pack(((Field.USER, user),))
                self._send(Op.PTY, body, (theirs.fileno(),), self._number(), operation)
            theirs.close()
            try:
                answer = protocol.receive(ours)
            except BlockingIOError:
                raise self._silent(operation) from None
            if answer is None:
                raise self.died(operation)
            if answer.op == Op.ERROR:
                raise answer.error()
            master, terminal = answer.fds
            answer.fds = []
            return master, terminal
        finally:
            ours.close()
            theirs.close()

    def fileno(self) -> int:
        """Return the descriptor of the line, for a lab that is to keep the container."""
        return self._socket.fileno()

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

    def _ask(self, op: Op, body: bytes, operation: str, expected: int, fds: Sequence[int] = ()) -> list[int]:
        """Ask, and return the descriptors that come with the answer, so many as are ``expected``."""
        with self._lock:
            number = self._number()
            self._send(op, body, fds, number, operation)
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
        if len(answer.fds) != expected:
            raise LabError(operation, "", errno.EPROTO, f"expected {expected} descriptors, {len(answer.fds)} came")
        taken, answer.fds = answer.fds, []
        return taken

    def died(self, operation: str) -> LabDied:
        """Return the error for an agent that is no more."""
        why = f"the container {self._name} has ended although nobody asked it to: its init or the lab was killed"
        return LabDied(operation, "", 0, why)

    def _silent(self, operation: str) -> LabError:
        why = f"the agent of {self._name} did not answer; is the machine overloaded, or the agent stopped (SIGSTOP)?"
        return LabError(operation, "", errno.ETIMEDOUT, why)
