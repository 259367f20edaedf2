"""The processes of a service, and who holds a socket: read from /proc."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Tree", "children_of", "command_of", "descendants", "holds", "is_doomed", "parent_of", "state_of"]

_STATE, _PARENT, _STARTED = 0, 1, 19  # fields of /proc/PID/stat behind the name: 3, 4 and 22 of proc_pid_stat(5)
_SHOWN = 80  # characters of a command line
_DEAD = ("Z", "X", "x")


class _Stat(NamedTuple):
    state: str
    parent: int
    started: int


def _stat(pid: int) -> _Stat | None:
    """Return what /proc says of a process; None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - proc(5)
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    if len(fields) <= _STARTED:
        return None
    return _Stat(fields[_STATE].decode(), int(fields[_PARENT]), int(fields[_STARTED]))


def parent_of(pid: int) -> int:
    """Return the parent's pid, 0 when the process is gone."""
    found = _stat(pid)
    return 0 if found is None else found.parent


def state_of(pid: int) -> str:
    """Return the state of a process as a letter (proc_pid_stat(5)), "" when it is gone."""
    found = _stat(pid)
    return "" if found is None else found.state


def children_of(pid: int) -> list[int]:
    """Return the children of a process (proc(5), CONFIG_PROC_CHILDREN)."""
    found: list[int] = []
    if not _lists_children():
        return [child for child in _processes() if parent_of(child) == pid]
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - proc(5)
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found += _children_of_task(pid, task)
    return found


@functools.cache
def _lists_children() -> bool:
    """Whether the kernel tells a process's children; else we have to look at everybody's parent."""
    return os.path.exists(f"/proc/self/task/{threading.get_native_id()}/children")  # noqa: PTH110 - proc(5)


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - proc(5)


def _children_of_task(pid: int, task: str) -> list[int]:
    with open(f"/proc/{pid}/task/{task}/children", "rb") as file:  # noqa: PTH123 - proc(5)
        return [int(word) for word in file.read().split()]


def descendants(pid: int) -> list[int]:
    """Return the living processes below one, parents before their children."""
    found: list[int] = []
    waiting = children_of(pid)
    while waiting:
        child = waiting.pop(0)
        stat = _stat(child)
        if stat is not None:
            waiting += children_of(child)
            if stat.state not in _DEAD:
                found.append(child)
    return found


def sockets_of(pid: int) -> set[int] | None:
    """Return the inodes of the sockets that a process has open; None when we may not know."""
    found: set[int] = set()
    try:
        names = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208 - proc(5)
    except PermissionError:
        return None
    except OSError:
        return found  # gone
    for name in names:
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/{pid}/fd/{name}")  # noqa: PTH115 - proc(5)
            if target.startswith("socket:["):
                found.add(int(target[8:-1]))
    return found


def holds(pids: Iterable[int], inode: int) -> int | None:
    """Return which of the processes has the socket open, 0 for none of them, None when that cannot be found out."""
    unknown = False
    for pid in pids:
        sockets = sockets_of(pid)
        if sockets is None:
            unknown = True
        elif inode in sockets:
            return pid
    return None if unknown else 0


def command_of(pid: int) -> str:
    """Return the command line of a process, shortened, for a message; "?" when it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123 - proc(5)
        words = file.read(_SHOWN + 1).rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
        return f"{words[:_SHOWN]}..." if len(words) > _SHOWN else words or "?"
    return "?"


def is_doomed(pid: int) -> bool:
    """Return whether a process is dead, or has a SIGKILL waiting for it."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", "rb") as file:  # noqa: PTH123 - proc(5)
        for line in file:
            name, _, value = line.partition(b":")
            if name == b"State" and value.split()[0].decode() in _DEAD:
                return True
            if name in (b"SigPnd", b"ShdPnd") and int(value, 16) & 1 << (signal.SIGKILL - 1):
                return True
        return False
    return True


class Tree:
    """The command of a service and all that it started. ``watcher`` is their common ancestor, 0 when unknown.

    All pids are as this process sees them.
    """

    def __init__(self, main: int) -> None:
        """Find the watcher, as long as the command lives."""
        self.main = main
        self.watcher = parent_of(main)

    def pids(self) -> list[int]:
        """Return the living processes."""
        if self.watcher:
            return descendants(self.watcher)
        stat = _stat(self.main)
        return [] if stat is None or stat.state in _DEAD else [self.main, *descendants(self.main)]

    def roots(self) -> list[int]:
        """Return those that have no parent among them, the oldest first: the command, and what it left behind."""
        found = [(stat.started, pid) for pid, stat in self._below() if stat.state not in _DEAD]
        return [pid for _, pid in sorted(found)]

    def _below(self) -> Iterator[tuple[int, _Stat]]:
        for pid in children_of(self.watcher) if self.watcher else ():
            stat = _stat(pid)
            if stat is not None:
                yield pid, stat

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to one of the roots, and to nobody who has its pid by now."""
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            return  # gone
        try:
            if parent_of(pid) == self.watcher:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fd, number)
        finally:
            os.close(fd)
