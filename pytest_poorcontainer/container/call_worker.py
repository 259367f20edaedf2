"""Our side of a Python in a container: how it is started, asked, listened to, and ended."""

from __future__ import annotations

import codecs
import contextlib
import errno
import fcntl
import marshal
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import weakref
from _socket import AF_UNIX, MSG_NOSIGNAL, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socketpair
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pytest_poorcontainer.container import call_coverage
from pytest_poorcontainer.container.call_errors import CallDied, CallError
from pytest_poorcontainer.container.callee import ANSWER, LINE_CLOSED, REQUEST, Frame
from pytest_poorcontainer.container.process import Process
from pytest_poorcontainer.errors import LabError, PoorContainerError
from pytest_poorcontainer.lab import forks
from pytest_poorcontainer.lab.protocol import Socket

if TYPE_CHECKING:
    from pytest_poorcontainer.errors import LabDied
    from pytest_poorcontainer.lab.agent import Agent
    from pytest_poorcontainer.lab.handle import Handle

__all__ = ["Answer", "Pool", "pool_of"]

_MODULES = ("call_pickle", "callee")
_IDLE_MAX = 16
_PATIENCE_AT_END = 5.0  # seconds
_QUOTED = 2000  # bytes of what a Python that does not start has said
_TOGETHER = 65536  # bytes that are copied to save a system call
_OUTPUT = {Frame.STDOUT: "stdout", Frame.STDERR: "stderr"}
# Code objects go in marshal's format, which belongs to one version of Python.
_BOOTSTRAP = """\
# host.call() of pytest-poorcontainer
import sys
if sys.argv[1] != sys.version: sys.exit("it is Python " + sys.version + ", expected " + sys.argv[1])
import marshal, os
def read(length):
    data = b""
    while len(data) < length:
        part = os.read(0, length - len(data))
        if not part: os._exit(0)
        data += part
    return data
for name, code in marshal.loads(read(int.from_bytes(read(8), sys.byteorder))):
    module = sys.modules[name] = type(sys)(name)
    if code is None: module.__path__ = []
    else: exec(code, module.__dict__)
    parent, _, last = name.rpartition(".")
    if parent: setattr(sys.modules[parent], last, module)
serve = module.main
for name in [name for name in sys.modules if name in ("pytest_poorcontainer", "pytest_poorcontainer.container")]:
    del sys.modules[name]  # only stand-ins: the functions may want the real ones
del name, code, module, parent, last, read
serve(0)
"""


class Answer(NamedTuple):
    """How a call ended: a :class:`Frame`'s kind, and what came with it."""

    kind: int
    data: bytearray


class _Anchor:
    """A container as :class:`Process` sees it, but not held: who drops the container ends it, and its workers too."""

    clock = 0  # a worker serves many calls

    def __init__(self, handle: Handle) -> None:
        self.lab = handle.lab
        self.name = handle.name
        self.rootfs = handle.rootfs
        self._agent = weakref.ref(handle.agent)

    @property
    def agent(self) -> Agent:
        agent = self._agent()
        if agent is None:
            raise PoorContainerError(f"container {self.name} is closed: it cannot be used any more")
        return agent

    def check(self) -> None:
        self.lab.check_fork(f"container {self.name}")
        if self.ended_by_us():
            raise PoorContainerError(f"container {self.name} was closed while a function was called in it")

    def ended_by_us(self) -> bool:
        agent = self._agent()
        return agent is None or agent.fileno() < 0 or self.lab.closed

    def died(self, operation: str) -> LabDied:
        return self.agent.died(operation)


class _Worker:
    """One Python in a container. Used by one thread at a time."""

    def __init__(self, anchor: _Anchor) -> None:
        """Start it; what was started is ended again when that fails."""
        self._anchor = anchor
        self._fds: list[int] = []
        self._ready = False
        self._settings = b""
        self._decoders = {kind: codecs.getincrementaldecoder("utf-8")("replace") for kind in _OUTPUT}
        self._line: Socket | None = None
        self._preload = anchor.agent.preload
        try:
            ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
        except OSError as error:
            raise _no_descriptors(error) from error
        self._line = Socket(AF_UNIX, SOCK_STREAM, 0, ours.detach())
        self._line.settimeout(None)  # not what a test may have set with socket.setdefaulttimeout()
        forks.guard(self._line.fileno())
        theirs.setblocking(True)
        try:
            with contextlib.closing(theirs):
                # What Python says when it cannot even start; from the first request on the caller hears it.
                self._fds.append(os.memfd_create("poor-container-call", os.MFD_CLOEXEC))
                self._process = self._started(theirs.fileno())
            with contextlib.suppress(ProcessLookupError):  # the end of the line says the same
                self._fds.append(os.pidfd_open(self._process.pid))
                forks.guard(self._fds[-1])
            self._poller = select.poll()
            self._poller.register(self._line.fileno(), select.POLLIN)
            for fd in self._fds[1:]:
                self._poller.register(fd, select.POLLIN)
            code = _code()
            self._send(struct.pack("=Q", len(code)) + code)
        except OSError as error:
            self.close()
            raise _no_descriptors(error) from error
        except BaseException:
            self.close()
            raise

    def _started(self, stdin: int) -> Process:
        if not sys.executable:
            raise CallError(f"cannot call in {self._anchor.name}: this Python does not know its own sys.executable")
        argv = [_python(), "-B", *_flags(), "-c", _BOOTSTRAP, sys.version]
        try:
            return Process(
                cast("Handle", self._anchor),
                argv,
                stdin=stdin,
                stdout=self._fds[0],
                stderr=self._fds[0],
                cwd="/",
            )
        except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
            raise CallError(
                f"cannot call in {self._anchor.name}: there is no Python in it: {sys.executable}, which runs here, is "
                f"not to be seen there ({error.strerror}); what a call runs in is the Python that runs pytest, so "
                "install that below a directory that containers see (not /tmp or /run), or use run() with what is there"
            ) from error

    def lives(self) -> bool:
        """Return whether it still waits for a request: what a function has left behind may have ended it meanwhile.

        One that was started before the container got a library for all its programs will not do any more.
        """
        assert self._line is not None  # noqa: S101 - for the type checker
        number = self._line.fileno()
        return self._preload == self._anchor.agent.preload and all(
            fd == number and not event & select.POLLHUP for fd, event in self._poller.poll(0)
        )

    def ask(self, settings: bytes, files: dict[str, str], body: bytes, what: str) -> Answer:
        """Let it call a function and wait for the end; print what it prints.

        Raises :class:`CallDied` when it ends before the function does, with ``what`` as its name. After any exception
        the worker must be ended.
        """
        head = marshal.dumps((b"" if settings == self._settings else settings, files))
        self._settings = settings
        try:
            self._request(head, body)
            while True:
                kind, data = self._frame()
                if kind in _OUTPUT:
                    self._print(kind, data)
                elif kind == Frame.READY:
                    self._ready = True
                    os.close(self._fds.pop(0))
                elif kind == Frame.COVERAGE:
                    call_coverage.merge(data)
                else:
                    return Answer(kind, data)
        except (EOFError, *_GONE):
            raise self._died(what) from None

    def _request(self, head: bytes, body: bytes) -> None:
        """Send a request, with our stdout and stderr: what the function's own children print goes where ours do."""
        assert self._line is not None  # noqa: S101 - for the type checker
        first = REQUEST.pack(len(head), len(body)) + head
        if len(body) <= _TOGETHER:
            first, body = first + body, b""
        streams, null = [1, 2], -1
        for place, fd in enumerate(streams):
            if not _is_open(fd):
                null = null if null >= 0 else os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                streams[place] = null
        try:
            rights = (SOL_SOCKET, SCM_RIGHTS, struct.pack("=2i", *streams))
            sent = self._line.sendmsg((first,), (rights,), MSG_NOSIGNAL)
        finally:
            if null >= 0:
                os.close(null)
        if sent < len(first):
            self._send(first[sent:])
        if body:
            self._send(body)

    def _send(self, data: bytes) -> None:
        assert self._line is not None  # noqa: S101 - for the type checker
        with contextlib.suppress(*_GONE):  # then what it has said last is to be read, or its end to be seen
            self._line.sendall(data, MSG_NOSIGNAL)

    def _frame(self) -> tuple[int, bytearray]:
        """Receive a frame. Raises EOFError when the worker is gone."""
        kind, length = ANSWER.unpack(self._receive(ANSWER.size))
        return kind, self._receive(length)

    def _receive(self, length: int) -> bytearray:
        assert self._line is not None  # noqa: S101 - for the type checker
        data = bytearray(length)
        view, got = memoryview(data), 0
        number = self._line.fileno()
        while got < length:
            # The line alone does not tell: a child that the function has left behind may have it open too.
            if all(fd != number for fd, _ in self._poller.poll()):
                raise EOFError
            count = self._line.recv_into(view[got:])
            if not count:
                raise EOFError
            got += count
        return data

    def _print(self, kind: int, data: bytearray) -> None:
        stream = getattr(sys, _OUTPUT[kind])
        if stream is not None:  # pythonw, or a test that wants it so: as print() does
            stream.write(self._decoders[kind].decode(data))

    def _died(self, what: str) -> Exception:
        """Return the error for a worker that has ended by itself."""
        try:
            code = self._process.wait(_PATIENCE_AT_END)
        except subprocess.TimeoutExpired:
            code = self._process.end()
        if self._anchor.ended_by_us():
            return PoorContainerError(f"container {self._anchor.name} was closed while {what} was called in it")
        if code < 0:
            name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
            how = f"was killed by {name}"
            if code == -signal.SIGKILL:
                how += " (by the function, from outside, or for want of memory)"
        elif code == LINE_CLOSED:
            how = "could not answer: the function has closed descriptors that were not its own (os.closerange?)"
        else:
            how = f"ended with exit status {code} (os._exit?)"
        if not self._ready:
            size = os.fstat(self._fds[0]).st_size
            said = os.pread(self._fds[0], _QUOTED, max(0, size - _QUOTED)).decode("utf-8", "replace").strip()
            return CallDied(f"the Python of {self._anchor.name} does not start: {sys.executable} {how}: {said}", code)
        text = f"the Python of {self._anchor.name} {how} while {what} was called in it; the next call gets another one"
        return CallDied(text, code)

    def end(self) -> None:
        """End it, with all that the function has started, because nobody waits for the answer any more."""
        try:
            if not self._anchor.ended_by_us():
                self._process.end()
        except LabError:
            pass  # the container is gone, or it is said when that is closed: what led here matters more
        finally:
            self.close()

    def close(self) -> None:
        """Close the line: an idle worker ends then. Idempotent."""
        line, self._line = self._line, None
        if line is not None:
            forks.expose(line.fileno())
            line.close()
        while self._fds:
            fd = self._fds.pop()
            forks.expose(fd)
            os.close(fd)
        process = getattr(self, "_process", None)
        if process is not None:
            process.close()

    def __del__(self) -> None:
        """Close quietly what nobody refers to any more."""
        if getattr(self, "_line", None) is not None:
            self.close()


class Pool:
    """The workers of one container that wait for a call. Safe to use from several threads at once."""

    def __init__(self, handle: Handle) -> None:
        """Begin with none."""
        self.anchor = _Anchor(handle)
        self._idle: list[_Worker] = []

    def take(self) -> _Worker:
        """Return a worker that nobody else uses, the one that was used last; start one when all are busy."""
        while True:
            try:
                worker = self._idle.pop()
            except IndexError:
                _sweep()
                return _Worker(self.anchor)
            if worker.lives():
                return worker
            worker.close()

    def give(self, worker: _Worker) -> None:
        """Take back a worker that has answered."""
        if len(self._idle) < _IDLE_MAX and not self.anchor.ended_by_us():
            self._idle.append(worker)  # one bytecode: no lock that a signal handler or the collector could find locked
        else:
            worker.close()

    def close(self) -> None:
        """End those that wait."""
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread was faster
                self._idle.pop().close()


# By the agent, which the container alone holds: workers must not keep a container alive that nobody uses any more.
_pools: weakref.WeakKeyDictionary[Agent, Pool] = weakref.WeakKeyDictionary()
_lock = threading.RLock()


def pool_of(handle: Handle) -> Pool:
    """Return the workers of a container."""
    pool = _pools.get(handle.agent)
    if pool is None:
        with _lock:
            pool = _pools.setdefault(handle.agent, Pool(handle))
    return pool


def _sweep() -> None:
    """Close our ends of workers whose containers were closed, though somebody still holds the objects."""
    with _lock:
        for pool in list(_pools.values()):
            if pool.anchor.ended_by_us():
                pool.close()


_GONE = (BrokenPipeError, ConnectionResetError)
_packed_code: bytes | None = None


def _code() -> bytes:
    """Return the modules that run inside, compiled, with stand-ins for the packages that they are in."""
    global _packed_code  # noqa: PLW0603 - the same for every worker
    if _packed_code is None:
        package = __name__.rpartition(".")[0]
        modules: list[tuple[str, Any]] = [(package.rpartition(".")[0], None), (package, None)]
        for name in _MODULES:
            # Not the loader that it came by: pytest rewrites the asserts of plugins, which would want pytest inside.
            whole, file = f"{package}.{name}", str(Path(__file__).with_name(f"{name}.py"))
            modules.append((whole, SourceFileLoader(whole, file).get_code(whole)))
        _packed_code = marshal.dumps(modules)
    return _packed_code


def _python() -> str:
    """Return this Python's path without links and ".." in it: "../venv/bin/python" leads through where we began."""
    place, name = os.path.split(sys.executable)
    return os.path.join(os.path.realpath(place), name)  # noqa: PTH118 - the last link is the virtual environment's


def _flags() -> list[str]:
    """Return the options of this Python that change what code means."""
    flags = ["-O"] * sys.flags.optimize
    flags += ["-s"] * sys.flags.no_user_site
    flags += ["-S"] * sys.flags.no_site
    return flags


def _is_open(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def _no_descriptors(error: OSError) -> Exception:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        remedy = "raise the limit of open files (ulimit -n), or close what is no longer needed"
        return LabError("make the line of", "a call", error.errno, remedy)
    return error
