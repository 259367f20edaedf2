"""The Python that runs in a container and is called: it waits for a request, calls, answers, and waits again.

Loaded alone, from memory, as ``call_pickle`` is: the package itself need not be visible in the container.

A request is a header (two lengths), a head in marshal's format (settings, files of modules), and the pickle of
(function, args, kwargs); the caller's stdout and stderr travel beside the header. An answer is any number of frames,
a byte and a length before each: what was printed, what coverage has measured, at last how the call ended.
"""

from __future__ import annotations

import contextlib
import io
import marshal
import os
import sys
import threading
from _socket import AF_UNIX, CMSG_SPACE, MSG_CMSG_CLOEXEC, MSG_NOSIGNAL, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socket
from struct import Struct
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.container import call_pickle

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ANSWER", "LINE_CLOSED", "REQUEST", "Frame", "main"]

REQUEST = Struct("=QQ")
"""The lengths of a request's head and of its pickle."""
ANSWER = Struct("=BQ")
"""The kind and the length of a frame."""
LINE_CLOSED = 94
"""The exit status when the function has closed the descriptor over which its result was to go."""
_LINE = 100  # out of the way of functions that count on low numbers


class Frame:
    """The kinds of frames."""

    READY = 0
    STDOUT = 1
    STDERR = 2
    COVERAGE = 3
    RETURNED = 4
    RAISED = 5
    NOT_LOADED = 6
    NOT_PICKLED = 7


def main(stdin: int) -> None:
    """Serve whoever has the other end of the socket at ``stdin``, until that is closed. Does not return."""
    import fcntl  # noqa: PLC0415 - a C module; the other side has no use for it

    # A descriptor that is not stdin: what the function starts is not to read from our line.
    line = fcntl.fcntl(stdin, fcntl.F_DUPFD_CLOEXEC, _LINE)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, stdin)
    sys.argv = [""]
    call_pickle.refer_back = True
    sys.dont_write_bytecode = True  # what comes from the project is read-only, or would be littered
    callee = _Callee(socket(AF_UNIX, SOCK_STREAM, 0, line))
    os.register_at_fork(before=callee.flush, after_in_child=callee.forked)
    try:
        import faulthandler  # noqa: PLC0415 - as above

        faulthandler.enable(file=2)  # a segfault then says on stderr where it came from
    except (ImportError, RuntimeError, OSError):
        pass  # a Python without it: the signal's name must do
    callee.send(Frame.READY)
    for number in (1, 2):
        os.dup2(null, number)
    os.close(null)
    while True:
        callee.serve()


class _Callee:
    """The line, and what lasts from one call to the next."""

    def __init__(self, line: socket) -> None:
        self._line = line
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self.busy = False
        self._measure: _Measure | None = None
        self._open_streams()

    def _open_streams(self) -> None:
        self._out, self._err = (
            io.TextIOWrapper(
                io.BufferedWriter(_Printed(self, number)),
                encoding="utf-8",
                errors="backslashreplace",
                line_buffering=True,
            )
            for number in (1, 2)
        )

    def flush(self) -> None:
        """Let nothing that was printed lie in a buffer."""
        for stream in (self._out, self._err):
            # Closed by the function, or we are in a signal handler that came while something was printed.
            with contextlib.suppress(ValueError, OSError, RuntimeError):
                stream.flush()

    def forked(self) -> None:
        """Keep a forked child off the line: its words would mix with ours."""
        self.busy = False
        self._lock = threading.Lock()
        with contextlib.suppress(OSError):  # closed by the function
            self._line.close()

    def send(self, kind: int, data: bytes = b"") -> None:
        """Send a frame whole. When nobody listens any more there is nothing left to do."""
        header = ANSWER.pack(kind, len(data))
        with self._lock:
            try:
                if len(data) < 65536:  # noqa: PLR2004 - one system call less; larger ones are not to be copied
                    self._line.sendall(header + data, MSG_NOSIGNAL)
                else:
                    self._line.sendall(header, MSG_NOSIGNAL)
                    self._line.sendall(data, MSG_NOSIGNAL)
            except OSError:
                os._exit(LINE_CLOSED)

    def serve(self) -> None:
        """Receive one request and answer it."""
        header, descriptors = self._header()
        for number, fd in enumerate(descriptors, 1):
            os.dup2(fd, number)
            os.close(fd)
        head, body = (self._receive(length) for length in REQUEST.unpack(header))
        if self._out.closed or self._err.closed:
            self._open_streams()
        sys.stdout, sys.stderr = self._out, self._err
        settings, files = marshal.loads(head)  # noqa: S302 - of the process that has started us
        self.busy = True
        if settings:
            self._settle(*marshal.loads(settings))  # noqa: S302
        kind, answer = self._call(body, files)
        self.flush()
        if os.getpid() != self._pid:  # a forked child that has come out of the function instead of ending
            os._exit(int(kind != Frame.RETURNED))
        if self._measure is not None:
            self.send(Frame.COVERAGE, self._measure.taken())
        self.busy = False  # first: what a thread prints after the answer would be read with the next one
        self.send(kind, answer)

    def _header(self) -> tuple[bytes, list[int]]:
        try:
            header, ancillary, _, _ = self._line.recvmsg(REQUEST.size, CMSG_SPACE(2 * 4), MSG_CMSG_CLOEXEC)
        except OSError:
            os._exit(LINE_CLOSED)
        if not header:
            os._exit(0)
        descriptors: list[int] = []
        for level, kind, value in ancillary:
            if level == SOL_SOCKET and kind == SCM_RIGHTS:
                descriptors += [int.from_bytes(value[at : at + 4], sys.byteorder) for at in range(0, len(value), 4)]
        return header + bytes(self._receive(REQUEST.size - len(header))), descriptors

    def _receive(self, length: int) -> bytearray:
        data = bytearray(length)
        view, got = memoryview(data), 0
        while got < length:
            count = self._line.recv_into(view[got:])
            if not count:
                os._exit(0)
            got += count
        return data

    def _settle(self, path: list[str], cwd: str | None, measure: dict[str, Any] | None) -> None:
        """Make ourselves like the caller: where modules are looked for, the working directory, coverage."""
        if path != sys.path:
            import importlib  # noqa: PLC0415 - already loaded

            sys.path[:] = path
            importlib.invalidate_caches()
        if self._measure is None or self._measure.options != measure:
            if self._measure is not None:
                self._measure.stop()
            self._measure = None if measure is None else _Measure.started(measure)
        for place in (cwd, os.environ.get("HOME"), "/"):
            try:
                os.chdir(place or "/")
            except OSError:
                continue  # not to be seen in here, or nobody's home
            return

    def _call(self, body: bytearray, files: dict[str, str]) -> tuple[int, bytes]:
        """Call what the request asks for; return how that ended."""
        try:
            function, args, kwargs = call_pickle.loads(body)
        except BaseException as error:  # noqa: BLE001 - also what a module raises when it is imported
            names = getattr(error, "poor_container_modules", [])
            return Frame.NOT_LOADED, marshal.dumps((names, f"{type(error).__name__}: {error}", _formatted(error, 1)))
        for name, file in files.items():
            other = getattr(sys.modules.get(name), "__file__", file)
            if other != file:
                return Frame.NOT_LOADED, marshal.dumps(([name], f"module {name} is {other} there, not {file}", ""))
        del body
        try:
            value = function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - it is the caller's, also SystemExit
            if os.getpid() != self._pid:
                sys.stderr.write(_formatted(error, 1))
                return Frame.RAISED, b""
            return Frame.RAISED, marshal.dumps((_formatted(error, 1), call_pickle.pack_raised(error)))
        try:
            return Frame.RETURNED, call_pickle.dumps(value)[0]
        except Exception:  # noqa: BLE001 - any __reduce__ may raise anything
            text = call_pickle.culprit(value, "the return value")
            if hasattr(value, "__await__"):
                text += "; a coroutine runs in an event loop: call a function that does asyncio.run(...)"
            return Frame.NOT_PICKLED, text.encode("utf-8", "backslashreplace")


def _formatted(error: BaseException, skip: int) -> str:
    """Return a traceback as text, without the first frames, which are ours."""
    import traceback  # noqa: PLC0415 - not for calls that return

    frames = error.__traceback__
    for _ in range(skip):
        frames = frames and frames.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, frames))
    except Exception as other:  # noqa: BLE001 - anybody's __str__
        text = f"{type(error).__name__} (its traceback cannot be shown: {type(other).__name__})\n"
    return text.encode("utf-8", "backslashreplace").decode()


class _Printed(io.RawIOBase):
    """stdout or stderr: what is written during a call goes to the caller's ``sys.stdout``, which pytest captures."""

    def __init__(self, callee: _Callee, number: int) -> None:
        self._callee = callee
        self._number = number

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return False

    def write(self, data: Any) -> int:
        """Send it; between calls, and in a forked child, it goes to the descriptor, which is the last caller's."""
        data = bytes(data)
        if self._callee.busy:
            self._callee.send(self._number, data)
        else:
            os.write(self._number, data)
        return len(data)


class _Measure:
    """coverage.py, with the caller's options: what is executed here is reported there."""

    def __init__(self, options: dict[str, Any]) -> None:
        import coverage  # noqa: PLC0415 - the caller has it

        self.options = options
        self._coverage = coverage.Coverage(data_file=None, config_file=False)
        for name, value in options["options"].items():
            self._coverage.set_option(name, value)

    @classmethod
    def started(cls, options: dict[str, Any]) -> _Measure | None:
        """Start measuring, from the directory that the caller's coverage was started in."""
        try:
            os.chdir(options["directory"])
        except OSError:
            os.chdir("/")  # only relative file names want it
        try:
            measure = cls(options)
            measure.start()
        except Exception as error:  # noqa: BLE001 - the call itself is more important, but it must not go unsaid
            sys.stderr.write(f"host.call: coverage does not run in the container: {error!r}\n")
            return None
        return measure

    def start(self) -> None:
        """Start. Its warnings are about the caller's options, and were given there."""
        import warnings  # noqa: PLC0415 - already loaded

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._coverage.start()

    def stop(self) -> None:
        """Stop measuring."""
        self._coverage.stop()

    def taken(self) -> bytes:
        """Return what was measured since the last time, in marshal's format."""
        import warnings  # noqa: PLC0415 - already loaded

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = self._coverage.get_data()
            arcs = bool(self.options["options"]["run:branch"])
            found: dict[str, Sequence[Any]] = {}
            for file in data.measured_files():
                found[file] = list((data.arcs(file) if arcs else data.lines(file)) or ())
            data.erase()
        return marshal.dumps((arcs, found))
