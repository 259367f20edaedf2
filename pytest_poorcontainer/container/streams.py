"""The standard streams of a command: what they are joined to, and the exchange over pipes."""

from __future__ import annotations

import errno
import io
import os
import select
from subprocess import DEVNULL, PIPE, STDOUT
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.lab.clock import now

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO, TypeAlias

    Target: TypeAlias = "int | IO[bytes] | IO[str] | None"

__all__ = ["Exchange", "Screen", "Streams", "TerminalStreams"]

_CHUNK = 65536  # what a pipe holds (pipe(7))
_STDIN, _STDOUT, _STDERR = 0, 1, 2


class Streams:
    """Descriptors of the three streams: ``child`` are the command's, ``ours`` the other ends of pipes (else -1)."""

    __slots__ = ("_opened", "child", "ours")

    def __init__(self, stdin: Target, stdout: Target, stderr: Target) -> None:
        """Make what the targets ask for, as subprocess does; but no stdin means /dev/null, never the terminal."""
        self.child = [-1, -1, -1]
        self.ours = [-1, -1, -1]
        self._opened: list[int] = []
        try:
            self._join(_STDIN, DEVNULL if stdin is None else stdin)
            self._join(_STDOUT, stdout)
            self._join(_STDERR, stderr)
        except BaseException:
            self.close()
            raise

    def _join(self, number: int, target: Target) -> None:
        if target is None:
            self.child[number] = number
        elif target == DEVNULL:
            self.child[number] = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            self._opened.append(self.child[number])
        elif target == PIPE:
            read_end, write_end = os.pipe()
            mine, theirs = (write_end, read_end) if number == _STDIN else (read_end, write_end)
            self.ours[number], self.child[number] = mine, theirs
            self._opened.append(theirs)
        elif target == STDOUT:
            if number != _STDERR:
                raise ValueError("STDOUT can only be used for stderr")
            self.child[number] = self.child[_STDOUT]
        elif isinstance(target, int):
            if target < 0:
                raise ValueError(f"expected a descriptor, PIPE, DEVNULL or STDOUT, got {target}")
            self.child[number] = target
        else:
            self.child[number] = target.fileno()

    def passed_on(self) -> None:
        """Close the command's ends; it has its own copies now."""
        while self._opened:
            os.close(self._opened.pop())

    def close(self) -> None:
        """Close all that was opened, both ends."""
        self.passed_on()
        for number, fd in enumerate(self.ours):
            if fd >= 0:
                self.ours[number] = -1
                os.close(fd)


class TerminalStreams(Streams):
    """Those of a command whose three streams are a terminal: ours are its other side, twice (pty(7))."""

    __slots__ = ()

    def __init__(self, master: int, terminal: int) -> None:
        """Take over both descriptors."""
        self.child = [terminal] * 3
        self.ours = [-1, master, -1]
        self._opened = [terminal]
        try:
            self.ours[_STDIN] = os.dup(master)
        except BaseException:
            self.close()
            raise


class Screen(io.RawIOBase):
    """What a command prints on its terminal. That nobody has it open any more, an EIO, is the end of the file.

    ``ended`` says that this has been seen.
    """

    def __init__(self, fd: int) -> None:
        """Take over the descriptor of the terminal's other side."""
        super().__init__()
        self._fd = fd
        self.ended = False

    def readable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor. Raises ValueError when it is closed."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        return self._fd

    def isatty(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what is there, at least a byte; 0 at the end."""
        view = memoryview(buffer).cast("B")
        data = read_end(self.fileno(), len(view))
        view[: len(data)] = data
        self.ended = not data and len(view) > 0
        return len(data)

    def close(self) -> None:
        """Close it. Idempotent."""
        if not self.closed:
            super().close()
            os.close(self._fd)


def read_end(fd: int, size: int) -> bytes:
    """Read from a pipe or from a terminal's other side; nothing is the end of both."""
    try:
        return os.read(fd, size)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


class Exchange:
    """Feeds a command's stdin and collects what it prints, of any size, at once so that neither side blocks.

    ``ends`` are our descriptors of stdin, stdout and stderr, -1 for what is no pipe; ``close`` is called with 0, 1 or 2
    when one is done with. After a deadline it can be run again, nothing is lost.
    """

    __slots__ = ("_close", "_data", "_ends", "_sent", "chunks")

    def __init__(self, ends: tuple[int, int, int], close: Callable[[int], None], data: bytes | memoryview) -> None:
        """Begin with nothing sent and nothing received."""
        self._ends = {number: fd for number, fd in enumerate(ends) if fd >= 0}
        self._close = close
        self._data = memoryview(data).cast("B")
        self._sent = 0
        self.chunks: dict[int, list[bytes]] = {number: [] for number in self._ends if number != _STDIN}

    def output(self, number: int) -> bytes | None:
        """Return what came so far from stdout (1) or stderr (2), None when it is no pipe."""
        chunks = self.chunks.get(number)
        return None if chunks is None else b"".join(chunks)

    def run(self, deadline: float | None) -> bool:
        """Exchange until every pipe is at its end; return False when the deadline comes first."""
        if _STDIN in self._ends:
            if not self._data:
                self._finish(_STDIN)
            else:
                os.set_blocking(self._ends[_STDIN], False)
        if not self._ends:
            return True
        if deadline is None and len(self._ends) == 1 and _STDIN not in self._ends:
            (number,) = self._ends
            while number in self._ends:
                self._read(number)
            return True
        return self._run(deadline)

    def _run(self, deadline: float | None) -> bool:
        poller = select.poll()
        numbers: dict[int, int] = {}
        for number, fd in self._ends.items():
            poller.register(fd, select.POLLOUT if number == _STDIN else select.POLLIN)
            numbers[fd] = number
        while numbers:
            remaining = None if deadline is None else (deadline - now()) * 1000
            if remaining is not None and remaining <= 0:
                return False
            for fd, _ in poller.poll(remaining):
                number = numbers[fd]
                (self._write if number == _STDIN else self._read)(number)
                if number not in self._ends:
                    # The number is closed already; unregister() only forgets it.
                    poller.unregister(fd)
                    del numbers[fd]
        return True

    def _read(self, number: int) -> None:
        data = read_end(self._ends[number], _CHUNK)
        if data:
            self.chunks[number].append(data)
        else:
            self._finish(number)

    def _write(self, number: int) -> None:
        try:
            self._sent += os.write(self._ends[number], self._data[self._sent : self._sent + _CHUNK])
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            # The command does not want to read it all, which is its right: so does subprocess.
            self._sent = len(self._data)
        if self._sent >= len(self._data):
            self._finish(number)

    def _finish(self, number: int) -> None:
        if number == _STDIN and self._data:
            os.set_blocking(self._ends[number], True)  # a terminal's two are one open file
        del self._ends[number]
        self._close(number)
