"""Limits of a container: memory, processes, processors. The kernel keeps them for all that runs in it (cgroups(7))."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import math
import os
import re
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_poorcontainer.container import cgroups
from pytest_poorcontainer.container.cgroups import Setting
from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.lab import Lab
from pytest_poorcontainer.lab.protocol import Field, Op
from pytest_poorcontainer.lab.sizes import parse_size, shown_size

if TYPE_CHECKING:
    from pytest_poorcontainer.container.cgroups import Controller
    from pytest_poorcontainer.lab.handle import Handle

__all__ = ["OWN_PROCESSES", "Limits", "Usage"]

OWN_PROCESSES = 3
"""What of a container's processes is ours while a command runs: its init, the command's watcher, the next one's."""

_LEAST_MEMORY = 1 << 20
_LEAST_CPU = 0.01  # a quota of 1 ms, the kernel's least (min_cfs_quota_period)
_PERIOD = 100_000  # microseconds, the kernel's default


@dataclass(frozen=True)
class Limits:
    """Limits of one container; None is no limit. ``memory`` is in bytes, ``cpu`` in processors.

    Make it with :meth:`parse`; ``str()`` is for people: "memory 64M, pids 20, cpu 0.5".
    """

    memory: int | None = None
    pids: int | None = None
    cpu: float | None = None

    @classmethod
    def parse(cls, memory: int | str | None = None, pids: int | None = None, cpu: float | None = None) -> Limits | None:
        """Return the limits that these arguments of :class:`Container` ask for; None when they ask for none.

        Raises :class:`UsageError` for values that are none.
        """
        if memory is None and pids is None and cpu is None:
            return None
        size = None if memory is None else parse_size(memory, "memory")
        if size is not None and size < _LEAST_MEMORY:
            raise UsageError(f"memory={memory!r} is too little for any process: at least 1M")
        if pids is not None and (isinstance(pids, bool) or not isinstance(pids, int) or pids < 1):
            raise UsageError(f"pids is how many processes and threads may run, 1 or more, not {pids!r}")
        if cpu is not None and (
            isinstance(cpu, bool) or not isinstance(cpu, (int, float)) or not math.isfinite(cpu) or cpu < _LEAST_CPU
        ):
            raise UsageError(f"cpu is a number of processors, {_LEAST_CPU} or more (0.5 is half of one), not {cpu!r}")
        return cls(size, pids, None if cpu is None else float(cpu))

    def __str__(self) -> str:
        """Return them for people."""
        parts = [f"memory {shown_size(self.memory)}"] if self.memory is not None else []
        parts += [f"pids {self.pids}"] if self.pids is not None else []
        parts += [f"cpu {self.cpu:g}"] if self.cpu is not None else []
        return ", ".join(parts)

    def require(self) -> None:
        """Do nothing if such limits can be set here: it is tried. Raises :class:`Unavailable`."""
        with _guard:
            name = _new_name()
            cgroups.remove(_make(self, cgroups.controllers(self._controllers()), name))

    def apply(self, handle: Handle) -> None:
        """Limit a container in which nothing has run yet. It takes some 5 ms, for which the kernel makes us wait.

        Raises :class:`Unavailable` when this machine or this user cannot, :class:`LabError`, :class:`LabDied`.
        """
        with _guard:
            found = cgroups.controllers(self._controllers())
            _sweep(found)
            name = _new_name()
            groups = _make(self, found, name)
            try:
                _hand_over(handle, name, groups)
                for group in groups:
                    cgroups.enter(group, handle.pid())
            except BaseException:
                cgroups.remove(groups)
                raise
            _placed[handle.lab.pid, handle.id] = _Placed(self, found, name, weakref.ref(handle.lab))

    def _controllers(self) -> list[str]:
        wanted = {"memory": self.memory, "pids": self.pids, "cpu": self.cpu}
        return [name for name, value in wanted.items() if value is not None]

    def settings(self, controller: str, version: int) -> list[Setting]:
        """Return what is written to a group's files for a controller of a version."""
        if controller == "pids":
            return [Setting("pids.max", str((self.pids or 0) + OWN_PROCESSES))]
        if controller == "cpu":
            quota = round((self.cpu or 0) * _PERIOD)
            if version == 1:
                return [Setting("cpu.cfs_period_us", str(_PERIOD)), Setting("cpu.cfs_quota_us", str(quota))]
            return [Setting("cpu.max", f"{quota} {_PERIOD}")]
        # Swap would hide from a test that its memory is used up.
        if version == 1:
            limit = str(self.memory)
            return [
                Setting("memory.limit_in_bytes", limit),
                Setting("memory.memsw.limit_in_bytes", limit, optional=True),
            ]
        return [Setting("memory.max", str(self.memory)), Setting("memory.swap.max", "0", optional=True)]

    @staticmethod
    def used(handle: Handle) -> Usage | None:
        """Return what a container has used of its limits, also after its end by another's hand; None without limits.

        It is no longer known when the container was closed.
        """
        placed = _placed.get((handle.lab.pid, handle.id))
        return None if placed is None else placed.usage()

    @staticmethod
    def trouble(handle: Handle) -> str:
        """Return what limits did to a container, for people; "" for nothing, and without limits."""
        usage = Limits.used(handle)
        return "" if usage is None else usage.news()


@dataclass(frozen=True)
class Usage:
    """What a container has used of its limits; None for what is not limited, or not told by this kernel.

    ``memory`` and ``memory_peak`` are bytes, ``oom_kills`` processes that the kernel killed for memory, ``processes``
    counts threads too and ours, ``refused`` is how many were not started, ``throttled`` are seconds of waiting for a
    processor that was free.
    """

    limits: Limits
    memory: int | None = None
    memory_peak: int | None = None
    oom_kills: int | None = None
    processes: int | None = None
    refused: int | None = None
    throttled: float | None = None

    def news(self) -> str:
        """Return what the limits did, for people; "" for nothing."""
        parts = []
        if self.oom_kills:
            processes = "a process" if self.oom_kills == 1 else f"{self.oom_kills} processes"
            parts.append(f"the kernel killed {processes} of it: memory limit {shown_size(self.limits.memory or 0)}")
        if self.refused:
            times = "once" if self.refused == 1 else f"{self.refused} times"
            parts.append(f"the kernel refused {times} to start a process in it: limit pids={self.limits.pids}")
        return "; ".join(parts)


@dataclass
class _Placed:
    """A container in its groups."""

    limits: Limits
    controllers: dict[str, Controller]
    name: str
    lab: weakref.ref[Lab]

    def is_orphaned(self) -> bool:
        """Return whether nobody but us will remove the groups."""
        lab = self.lab()
        return lab is None or not lab.alive()

    def groups(self) -> list[Path]:
        return _directories(self.controllers, self.name)

    def usage(self) -> Usage | None:
        """Return what was used; None when the groups are gone."""
        if not all(group.exists() for group in self.groups()):
            return None
        numbers = {name: self._numbers(name) for name in self.controllers}
        memory, peak, kills = numbers.get("memory", (None, None, None))
        processes, refused = numbers.get("pids", (None, None))
        (waited,) = numbers.get("cpu", (None,))
        seconds = None if waited is None else waited / (1e9 if self.controllers["cpu"].version == 1 else 1e6)
        return Usage(self.limits, memory, peak, kills, processes, refused, seconds)

    def _numbers(self, name: str) -> tuple[int | None, ...]:
        version, above = self.controllers[name]
        return tuple(_number(above / self.name / file, key) for file, key in _FILES[name, version])


_FILES: dict[tuple[str, int], tuple[tuple[str, str | None], ...]] = {
    ("memory", 1): (
        ("memory.usage_in_bytes", None),
        ("memory.max_usage_in_bytes", None),
        ("memory.oom_control", "oom_kill"),
    ),
    ("memory", 2): (("memory.current", None), ("memory.peak", None), ("memory.events", "oom_kill")),
    ("pids", 1): (("pids.current", None), ("pids.events", "max")),
    ("pids", 2): (("pids.current", None), ("pids.events", "max")),
    ("cpu", 1): (("cpu.stat", "throttled_time"),),
    ("cpu", 2): (("cpu.stat", "throttled_usec"),),
}
"""Where a controller of a version tells what was used: a file, and the key of a line in it."""


def _number(file: Path, key: str | None = None) -> int | None:
    """Return the number in a file of the kernel's, or that of the line with a key; None where there is none."""
    try:
        text = file.read_text(encoding="ascii")
    except OSError:  # this kernel does not have it, or the group has gone meanwhile (ENODEV)
        return None
    for line in text.splitlines():
        words = line.split()
        if key is None or (len(words) > 1 and words[0] == key):
            return int(words[-1])
    return None


def _directories(controllers: dict[str, Controller], name: str) -> list[Path]:
    return [above / name for above in dict.fromkeys(one.above for one in controllers.values())]


def _make(limits: Limits, controllers: dict[str, Controller], name: str) -> list[Path]:
    """Make the groups of a name; raises :class:`Unavailable`, then there is none."""
    made: list[Path] = []
    try:
        for above in dict.fromkeys(one.above for one in controllers.values()):
            here = {key: limits.settings(key, one.version) for key, one in controllers.items() if one.above == above}
            made.append(cgroups.make(above, name, here))
    except BaseException:
        cgroups.remove(made)
        raise
    return made


def _hand_over(handle: Handle, name: str, groups: list[Path]) -> None:
    """Let the lab remove the groups when the container has ended, also if this process cannot."""
    with contextlib.ExitStack() as opened:
        fds = []
        for group in groups:
            fds.append(os.open(group.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            opened.callback(os.close, fds[-1])
        fields = ((Field.ID, handle.id), (Field.NAME, name))
        handle.lab.ask(Op.LIMIT, fields, f"limit container {handle.name}", fds)


# What is left when a lab was killed is removed by us, or when we were killed too by who comes next.

_guard = threading.RLock()
_numbers = itertools.count(1)
_placed: dict[tuple[int, int], _Placed] = {}
_swept: set[Path] = set()
_PLACED_BEFORE_LOOKING = 64


def _new_name() -> str:
    """Return a name that says whose it is: a pid, in which pid namespace, and since when."""
    return f"{_prefix()}{os.getpid()}-{_started(os.getpid())}-{next(_numbers)}"


def _prefix() -> str:
    # Who sees the same tree of groups from another pid namespace cannot tell whether we live.
    return f"poor-container-{Path('/proc/self/ns/pid').stat().st_ino}-"


def _started(pid: int) -> int:
    """Return when a process started, in ticks since boot (proc_pid_stat(5)); -1 when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return -1
    return int(stat.rpartition(")")[2].split()[19])


def _sweep(controllers: dict[str, Controller]) -> None:
    """Remove what killed labs of ours, and processes that are no more, have left; once a place what others left."""
    dead = {key for key, placed in _placed.items() if placed.is_orphaned()}
    if dead or len(_placed) >= _PLACED_BEFORE_LOOKING:
        for key, placed in list(_placed.items()):
            groups = cgroups.remove(placed.groups()) if key in dead else placed.groups()
            if not any(group.exists() for group in groups):
                del _placed[key]
    for above in {one.above for one in controllers.values()} - _swept:
        _swept.add(above)
        cgroups.remove(_orphans(above))


def _orphans(above: Path) -> list[Path]:
    """Return the groups there whose makers are dead; those that a kept lab still uses cannot be removed."""
    name = re.compile(rf"{re.escape(_prefix())}(\d+)-(\d+)-\d+")
    found = ((entry, name.fullmatch(entry.name)) for entry in above.iterdir())
    return [entry for entry, match in found if match and _started(int(match[1])) != int(match[2])]


def _leave() -> None:
    """At exit: nothing stays that a killed lab could not remove."""
    try:
        Lab.close_current()
    finally:
        with _guard:
            for placed in _placed.values():
                cgroups.remove(placed.groups())
            _placed.clear()


def _forget_in_child() -> None:
    global _guard  # noqa: PLW0603 - another thread of the parent's may have held it
    _guard = threading.RLock()
    _placed.clear()


os.register_at_fork(after_in_child=_forget_in_child)
atexit.register(_leave)
