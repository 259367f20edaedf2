"""Processes that stand still for a while, and processes that die at once: as on a machine that hangs, or crashes."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import threading
import time
import weakref
from typing import TYPE_CHECKING

from pytest_poorcontainer.container.service_tree import children_of, descendants, state_of
from pytest_poorcontainer.errors import LabError
from pytest_poorcontainer.lab import forks
from pytest_poorcontainer.lab.events import note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Frozen", "everything_below", "freeze", "kill"]

_STOPPED = ("T", "t")
_DEAD = ("Z", "X", "x", "")
_PATIENCE = 5.0  # seconds; who is in the kernel stops or dies when it comes out
_PAUSE = 0.001


class _Stopped:
    """A process that we have stopped, and how many freezes want it to stand still."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError."""
        self.freezes = 0
        self._fd = -1
        self._fd = os.pidfd_open(pid)
        forks.guard(self._fd)

    def ended(self) -> bool:
        """Whether it is dead, so that its number may be another's."""
        waiting = select.poll()
        waiting.register(self._fd, select.POLLIN)
        return bool(waiting.poll(0))

    def signal(self, number: int) -> None:
        """Send it a signal, if it is there."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._fd, number)

    def __del__(self) -> None:
        """Close the descriptor; who forgets all its freezes leaves the process as it is."""
        if self._fd >= 0:
            forks.expose(self._fd)
            os.close(self._fd)


_all: weakref.WeakValueDictionary[int, _Stopped] = weakref.WeakValueDictionary()
_lock = threading.Lock()


class Frozen:
    """Processes that were stopped (SIGSTOP): they answer nothing, keep their sockets, and time goes on.

    :meth:`thaw`, or the end of the block, lets go on those that ran before and that no other freeze has stopped too.
    """

    def __init__(self, what: str) -> None:
        """Begin with none."""
        self.what = what
        self._stopped: dict[int, _Stopped] = {}

    @property
    def active(self) -> bool:
        """Whether they stand still."""
        return bool(self._stopped)

    def stop(self, pids: Callable[[], Iterable[int]]) -> None:
        """Stop them all, also what they start meanwhile; return when none of them runs any more."""
        deadline = time.monotonic() + _PATIENCE
        try:
            while True:
                states = {pid: state_of(pid) for pid in pids()}
                running = [pid for pid, state in states.items() if state not in (*_STOPPED, *_DEAD)]
                for pid, state in states.items():
                    if pid in running or (state in _STOPPED and pid in _all):
                        self._stop(pid)
                if not running:
                    return
                _check_time(deadline, "freeze", self.what, "its processes do not stop: are they traced?")
                time.sleep(_PAUSE)
        except BaseException:
            self.thaw()
            raise

    def _stop(self, pid: int) -> None:
        with _lock:
            process = _all.get(pid)
            if process is None or process.ended():
                try:
                    process = _all[pid] = _Stopped(pid)
                except ProcessLookupError:
                    return
            if self._stopped.get(pid) is not process:
                process.freezes += 1
                self._stopped[pid] = process
            process.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on. Idempotent."""
        if not self._stopped:
            return
        with _lock:
            while self._stopped:
                pid, process = self._stopped.popitem()
                process.freezes -= 1
                if not process.freezes:
                    if _all.get(pid) is process:
                        del _all[pid]  # who is stopped by another after this is not ours to wake
                    process.signal(signal.SIGCONT)
        note(f"{self.what}: thawed")

    end = heal = thaw

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.thaw()


def _check_time(deadline: float, operation: str, what: str, why: str) -> None:
    if time.monotonic() > deadline:
        raise LabError(operation, what, errno.ETIMEDOUT, why)


def everything_below(init: int) -> list[int]:
    """Return the processes of a container, but for its init and the watchers, which are ours."""
    return [pid for watcher in children_of(init) for pid in descendants(watcher)]


def freeze(what: str, pids: Callable[[], Iterable[int]]) -> Frozen:
    """Stop these processes, and return what lets them go on. Raises :class:`LabError` when they do not stop."""
    frozen = Frozen(what)
    frozen.stop(pids)
    note(f"{what}: frozen")
    return frozen


def kill(what: str, pids: Callable[[], Iterable[int]]) -> int:
    """Kill these processes, and what they start meanwhile; return how many, when all are dead. Raises LabError."""
    deadline = time.monotonic() + _PATIENCE
    killed: set[int] = set()
    while True:
        living = [pid for pid in pids() if state_of(pid) not in _DEAD]
        if not living:
            break
        for pid in living:
            with contextlib.suppress(ProcessLookupError):
                fd = os.pidfd_open(pid)
                try:
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                finally:
                    os.close(fd)
                killed.add(pid)
        _check_time(deadline, "kill", what, "a process of it hangs in the kernel")
        time.sleep(_PAUSE)
    note(f"{what}: killed")
    return len(killed)
