"""Finds what a run of pytest has left on the machine: processes, namespaces, mounts, directories.

Only what belongs to one run is counted, since others may use the machine at the same time:
our programs are recognised by their executable (each pytest process of a run has a copy of its
own), commands in containers by a word in their arguments, namespaces by having been seen with one
of these processes in it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Found", "Left", "Traces", "handles_work", "mounts"]

KINDS = ("mnt", "pid", "net", "uts", "ipc", "cgroup", "user")
PLACES = (Path("/tmp"), Path("/run"), Path("/var/tmp"), Path("/dev/shm"), Path("/run/netns"))
OUR_NAMES = re.compile(r"pclab.*|proc|old|root|lower|skel|c|o|try")
"""The directories that a lab makes, on a tmpfs in its own mount namespace: on the machine there may be none of them."""
REAPING = 10.0
"""Seconds that the machine's init gets to reap a dead lab; some look for orphans only now and then."""
FREEING, FREEING_LOADED = 0.5, 5.0
"""Seconds from that on until the kernel must have freed both: by RCU and a work queue, which wait for a processor."""
AT_EMPTY_PATH = 0x1000
FD_NSFS_ROOT = -10003
LIBC = ctypes.CDLL(None, use_errno=True)


class _Handle(ctypes.Structure):
    """struct file_handle, as name_to_handle_at(2) fills it."""

    _fields_ = (("size", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * 128))


@dataclass(frozen=True)
class Found:
    """A process of a run: ``role`` is "lab", "init", "program" (another one of ours) or "command"."""

    pid: int
    role: str
    text: str


@dataclass
class Left:
    """What was found, in words."""

    processes: list[str]
    namespaces: list[str]
    mounts: list[str]
    directories: list[str]

    def __bool__(self) -> bool:
        """Whether anything was left."""
        return bool(self.processes or self.namespaces or self.mounts or self.directories)

    def counts(self) -> dict[str, int]:
        """Return how many of each."""
        return {name: len(found) for name, found in vars(self).items()}


class Traces:
    """The traces of one run, which has ``directory`` to itself and starts commands with ``word`` in their arguments."""

    def __init__(self, directory: Path, word: str) -> None:
        """Remember what is there before the run."""
        self.directory = directory
        self.word = word
        self._mounts = mounts()
        self._entries = set(_entries())
        self._own = {_identity(f"/proc/self/ns/{kind}") for kind in KINDS}
        self._seen: dict[tuple[str, bytes], tuple[str, _Handle | None]] = {}

    def processes(self, owner: int | None = None) -> list[Found]:
        """Return the run's processes (those of one pytest process, ``owner``, or all), and note their namespaces."""
        return list(self._processes(owner))

    def _processes(self, owner: int | None) -> Iterator[Found]:
        programs = f"{self.directory}/native-{'' if owner is None else f'{owner}/'}"
        word = self.word + ("" if owner is None else f"{owner}x")
        for process in _all_processes():
            with contextlib.suppress(OSError):
                program, arguments = _executable(process), Path(process, "cmdline").read_bytes()
                ours = program.startswith(programs) or arguments.startswith(programs.encode())
                if not ours and word.encode() not in arguments:
                    continue
                role = _role(process) if ours else "command"
                found = Found(int(process.rpartition("/")[2]), role, _describe(process, arguments))
                if found.text:
                    self._note(process)
                    yield found

    def _note(self, process: str) -> None:
        for kind in KINDS:
            with contextlib.suppress(OSError):
                path = f"{process}/ns/{kind}"
                name = _identity(path)
                if name not in self._own:
                    handle = _handle(path)
                    self._seen.setdefault((name, bytes(handle.data) if handle else b""), (name, handle))

    def pytest_processes(self) -> list[int]:
        """Return the Pythons of the run: pytest, its workers, and what they forked without exec."""
        mark = f"NOTHING_LEFT={self.directory}".encode()
        found = []
        for process in _all_processes():
            with contextlib.suppress(OSError):
                if mark in Path(process, "environ").read_bytes().split(b"\0"):
                    found.append(int(process.rpartition("/")[2]))
        return found

    def namespaces(self) -> list[str]:
        """Return which of the namespaces that were seen still exist, whether a process is in them or not.

        Told by handles: their numbers are used again at once. Before Linux 6.18, and for users who may not open
        handles, only processes and mounts tell that a namespace was left. A lab that is dead, but that the machine's
        init has not yet reaped, holds its pid and user namespace for so long; that is waited for, since it is not in
        our hands.
        """
        freeing = FREEING_LOADED if os.getloadavg()[0] > (os.cpu_count() or 1) else FREEING
        end = time.monotonic() + REAPING
        grace = time.monotonic() + freeing
        while True:
            left = [name for name, handle in self._seen.values() if handle is not None and _still_there(handle)]
            if not all(name.startswith(("pid:", "user:")) for name in left):
                return left
            if _waiting_for_init():
                grace = time.monotonic() + freeing
            if not left or time.monotonic() > min(end, grace):
                return left
            time.sleep(0.05)

    def directories(self) -> list[str]:
        """Return new entries of the run's own TMPDIR, and new ones elsewhere that carry our name."""
        fresh = [path for path in _entries() if path not in self._entries and OUR_NAMES.fullmatch(Path(path).name)]
        return fresh + [str(path) for path in Path(self.directory, "tmp").iterdir()]

    def left(self, owner: int | None = None) -> Left:
        """Return all that is left: of ``owner`` only the processes, while the rest of the run goes on."""
        processes = [f"{found.role} {found.pid}: {found.text}" for found in self.processes(owner)]
        if owner is not None:
            return Left(processes, [], [], [])
        fresh = sorted(mounts() - self._mounts)
        return Left(processes, self.namespaces(), fresh, self.directories())

    @property
    def seen(self) -> int:
        """How many namespaces of the run were seen: a run that built something has some."""
        return len(self._seen)


def mounts() -> set[str]:
    """Return the mounts of our own mount namespace, without their numbers (proc_pid_mountinfo(5))."""
    return {line.split(" ", 2)[2] for line in Path("/proc/self/mountinfo").read_text().splitlines()}


def handles_work() -> bool:
    """Return whether a namespace without a process in it can be seen here (Linux 6.18, with privileges)."""
    return _handle("/proc/self/ns/uts") is not None


def _entries() -> Iterator[str]:
    for place in PLACES:
        with contextlib.suppress(OSError):
            yield from map(str, place.iterdir())


def _all_processes() -> list[str]:
    return [f"/proc/{name}" for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - names, not paths


def _executable(process: str) -> str:
    try:
        return str(Path(process, "exe").readlink())
    except PermissionError:  # another user's, or one that changed its ids: its arguments tell
        return ""


def _describe(process: str, arguments: bytes) -> str:
    """Return the arguments and state of a process, "" for one that is dead and waits to be reaped by its parent."""
    status = dict(line.split(":\t", 1) for line in Path(process, "status").read_text().splitlines() if ":\t" in line)
    if status["State"].startswith(("Z", "X")):
        return ""
    return f"{arguments.replace(bytes(1), b' ').decode(errors='replace')[:120]} ({status['State']})"


def _waiting_for_init() -> bool:
    """Return whether a dead lab of anybody's waits to be reaped (its parent ended, as it should)."""
    for process in _all_processes():
        with contextlib.suppress(OSError):
            name, state = Path(process, "stat").read_text().partition("(")[2].rsplit(")", 1)
            if name == "pclab" and state.split()[0] == "Z":
                return True
    return False


def _role(process: str) -> str:
    """Tell lab and inits from our other processes by their pids: 1 in one, or in two, nested pid namespaces."""
    for line in Path(process, "status").read_text().splitlines():
        if line.startswith("NSpid:"):
            numbers = line.split()[1:]
            if len(numbers) > 1 and numbers[-1] == "1":
                return "lab" if len(numbers) == 2 else "init"
    return "program"


def _identity(path: str) -> str:
    return str(Path(path).readlink())


def _handle(path: str) -> _Handle | None:
    """Return a handle that tells later whether a namespace still exists (Linux 6.18, nsfs), or None."""
    handle, mount = _Handle(128, 0), ctypes.c_int()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        result = LIBC.name_to_handle_at(descriptor, b"", ctypes.byref(handle), ctypes.byref(mount), AT_EMPTY_PATH)
    finally:
        os.close(descriptor)
    if result != 0:
        return None
    return handle if _still_there(handle) else None


def _still_there(handle: _Handle) -> bool:
    descriptor = LIBC.open_by_handle_at(FD_NSFS_ROOT, ctypes.byref(handle), os.O_RDONLY)
    if descriptor >= 0:
        os.close(descriptor)
        return True
    if ctypes.get_errno() not in (errno.ESTALE, errno.EPERM, errno.EACCES, errno.EBADF, errno.EINVAL, errno.EOPNOTSUPP):
        raise OSError(ctypes.get_errno(), "open_by_handle_at")
    return False
