"""Processes that stand still for a while, and processes that die at once: as on a machine that hangs, or crashes."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
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


class Frozen:
    """Processes that were stopped (SIGSTOP): they answer nothing, keep their sockets, and time goes on.

    :meth:`thaw`, or the end of the block, lets go on those that ran before, and no others.
    """

    def __init__(self, what: str) -> None:
        """Begin with none."""
        self.what = what
        self._stopped: dict[int, int] = {}

    @property
    def active(self) -> bool:
        """Whether they stand still."""
        return bool(self._stopped)

    def stop(self, pids: Callable[[], Iterable[int]]) -> None:
        """Stop them all, also what they start meanwhile; return when none of them runs any more."""
        deadline = time.monotonic() + _PATIENCE
        try:
            while True:
                running = [pid for pid in pids() if state_of(pid) not in (*_STOPPED, *_DEAD)]
                if not running:
                    return
                for pid in running:
                    self._stop(pid)
                _check_time(deadline, "freeze", self.what, "its processes do not stop: are they traced?")
                time.sleep(_PAUSE)
        except BaseException:
            self.thaw()
            raise

    def _stop(self, pid: int) -> None:
        if pid not in self._stopped:
            with contextlib.suppress(ProcessLookupError):
                self._stopped[pid] = os.pidfd_open(pid)
                forks.guard(self._stopped[pid])
        fd = self._stopped.get(pid)
        if fd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on. Idempotent."""
        if not self._stopped:
            return
        while self._stopped:
            _, fd = self._stopped.popitem()
            try:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fd, signal.SIGCONT)
            finally:
                forks.expose(fd)
                os.close(fd)
        note(f"{self.what}: thawed")

    end = heal = thaw

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.thaw()

    def __del__(self) -> None:
        """Close the descriptors; whoever forgets it leaves the processes as they are."""
        for fd in getattr(self, "_stopped", {}).values():
            forks.expose(fd)
            os.close(fd)


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
