"""How the lab is started: one posix_spawn(3), never a fork of pytest."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pytest_poorcontainer import native
from pytest_poorcontainer.errors import LabDied, LabError
from pytest_poorcontainer.lab import forks, idmap, protocol
from pytest_poorcontainer.lab.protocol import Field, Message, Op
from pytest_poorcontainer.lab.run_directories import run_directories

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_poorcontainer.lab.protocol import Socket

__all__ = ["Launched", "bind_arguments", "launch"]

_PATIENCE = 20  # seconds
_ABOVE = 10  # the descriptors' targets are 3 to 6: out of their way first
_CONTROL, _LIFELINE, _OWNER, _SECOND = 3, 4, 5, 6
_CRAMPED = frozenset(Path("/", part) for part in ("", "tmp", "run", "dev", "dev/shm", "proc", "sys"))
_DEFAULTED = frozenset(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}


class Launched(NamedTuple):
    """A lab that runs: its control socket, our end of the lifeline, a pidfd of it, and what it said about itself."""

    control: Socket
    lifeline: int
    pidfd: int
    pid: int
    level: str
    reason: str
    ids: int


def launch(basetemp: Path | None, rootdir: Path | None) -> Launched:
    """Start a lab and wait until it has said that it works.

    Raises :class:`LabError` with the step that failed, :class:`LabDied` when it ended without a word.
    """
    argv = [native.program("pclab"), *idmap.arguments(), *bind_arguments(basetemp, rootdir)]
    for directory in run_directories():
        argv += ["--run-directory", directory.option()]
    fail_step = os.environ.get("POOR_CONTAINER_FAIL_STEP")
    if fail_step:
        argv += ["--fail-step", fail_step]
    with contextlib.ExitStack() as undo:
        try:
            control, lifeline, launcher = _spawn(argv, undo)
        except OSError as error:
            remedy = "raise the limit of open files (ulimit -n)" if error.errno == errno.EMFILE else ""
            raise LabError("start the lab", argv[0], error.errno or 0, remedy) from error
        protocol.limit_waits(control, _PATIENCE)
        report = _report(control, launcher)
        pid = report.number(Field.PID)
        pidfd = _pidfd(pid)
        if pidfd is None:
            raise LabDied("start the lab", "", 0, f"its process {pid} ended right after it had started")
        undo.pop_all()
    for fd in (control.fileno(), lifeline, pidfd):
        forks.guard(fd)
    level, reason = report.text(Field.LEVEL), report.text(Field.REASON)
    return Launched(control, lifeline, pidfd, pid, level, reason, report.number(Field.IDS))


def bind_arguments(basetemp: Path | None, rootdir: Path | None) -> list[str]:
    """Return pclab's options for what containers see at the same path as here, parents before what lies in them.

    The real paths: to the lab, which has pivoted, an absolute symbolic link leads elsewhere. Left out are the root
    directory, which is shown anyhow, and the directories that a container needs empty and writable for itself.
    """
    # This package may lie elsewhere, when it was installed to be edited; functions that are called inside may want it.
    shown = (rootdir, sys.prefix, sys.base_prefix, Path(__file__).parents[1])
    wanted = dict.fromkeys((_real(path) for path in shown if path), "--bind-ro")
    if basetemp is not None:
        wanted[_real(basetemp)] = "--bind-rw"
    options: list[str] = []
    for path in sorted(wanted):
        if path not in _CRAMPED and path.is_dir():
            options += [wanted[path], str(path)]
    return options


def _real(path: Path | str) -> Path:
    return Path(os.path.realpath(path))


def _spawn(argv: list[str], undo: contextlib.ExitStack) -> tuple[Socket, int, int]:
    """Start the launcher; return our control socket, the lifeline's write end, and the launcher's pid."""
    ours, theirs = protocol.connected()
    undo.callback(ours.close)
    with contextlib.ExitStack() as passed:
        passed.callback(theirs.close)
        read_end, write_end = os.pipe()
        passed.callback(os.close, read_end)
        undo.callback(os.close, write_end)
        moved = [_moved(theirs.fileno(), passed), _moved(read_end, passed)]
        moved += [_moved(fd, passed) for fd in _watched(passed)]
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_DUP2, 0, 2),
        ]
        actions += [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(moved, _CONTROL)]
        if len(moved) <= _SECOND - _CONTROL:
            actions.append((os.POSIX_SPAWN_CLOSE, _SECOND))  # pytest may have inherited one with this number (make -j)
        pid = os.posix_spawn(
            argv[0], argv, _environment(), file_actions=actions, setsid=True, setsigmask=(), setsigdef=_DEFAULTED
        )
    return ours, write_end, pid


def _moved(fd: int, passed: contextlib.ExitStack) -> int:
    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE)
    passed.callback(os.close, high)
    return high


def _watched(passed: contextlib.ExitStack) -> Iterator[int]:
    """Yield pidfds of the processes whose death is to be the lab's: ours, and in an xdist worker its controller's.

    A worker whose controller is killed goes on until its test is over and it reads from a broken pipe; nobody will ever
    see the result, so its containers need not live that long.
    """
    watched = [os.getpid()]
    if "PYTEST_XDIST_WORKER" in os.environ and os.getppid() > 0:
        watched.append(os.getppid())
    for number, pid in enumerate(watched):
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            if number == 0:
                raise
            return  # the controller is gone already: our own end is near
        passed.callback(os.close, fd)
        yield fd


def _environment() -> dict[str, str]:
    """Return the lab's own environment: a search path for newuidmap, and what a sanitizer build reads."""
    names = ("PATH", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS")
    return {name: os.environ[name] for name in names if name in os.environ}


def _report(control: Socket, launcher: int) -> Message:
    """Receive the launcher's one message, and reap it: it ends right after."""
    try:
        report = protocol.receive(control)
    except BlockingIOError:
        os.kill(launcher, signal.SIGKILL)
        _reap(launcher)
        raise LabError("start the lab", "", errno.ETIMEDOUT, f"it said nothing within {_PATIENCE} s") from None
    except BaseException:
        os.kill(launcher, signal.SIGKILL)
        _reap(launcher)
        raise
    status = _reap(launcher)
    if report is None:
        raise LabDied("start the lab", "", 0, f"its launcher ended without a word ({status})")
    if report.op == Op.ERROR:
        raise report.error()
    return report


def _reap(pid: int) -> str:
    """Wait for the launcher at once, so that no test's os.wait() meets it; return how it ended."""
    try:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return "nobody knows how: another thread waited for it, or SIGCHLD is ignored"
    return f"signal {-code}" if code < 0 else f"exit status {code}"


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None
