"""Faults of disks: full, out of inodes, read-only half-way, programs that may not run."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import LabError, PoorContainerError, UsageError
from pytest_poorcontainer.lab import forks
from pytest_poorcontainer.lab.names import located
from pytest_poorcontainer.lab.protocol import Mount
from pytest_poorcontainer.lab.sizes import parse_size
from pytest_poorcontainer.mounts.kinds import parse_inodes
from pytest_poorcontainer.mounts.requests import flags
from pytest_poorcontainer.mounts.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeAlias

    from pytest_poorcontainer.lab.handle import Handle
    from pytest_poorcontainer.mounts.entry import MountEntry
    from pytest_poorcontainer.mounts.made import MadeList
    from pytest_poorcontainer.mounts.requests import Limits, Requests

    Path: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"
    Changes: TypeAlias = "list[tuple[bytes, int]]"

__all__ = ["Faults"]

_WORDS = {"readonly": "ro", "noexec": "noexec"}  # of mountinfo


class Faults:
    """What can go wrong with a container's disks, on request; each is taken back by what it returns."""

    _handle: Handle
    _requests: Requests
    _made: MadeList

    def table(self) -> list[MountEntry]:
        """Return what is mounted; see ``Mounts.table``."""
        raise NotImplementedError

    def full(self, path: Path) -> Undo:
        """Let the disk that ``path`` is on be full from now on: who writes more gets ENOSPC.

        What is written already stays, and what is deleted makes room for as much. It works for what :meth:`tmpfs` and
        :meth:`overlay` have mounted, and for /tmp, /run and /dev/shm, which are on one file system in memory with all
        else that the container may change without a mount, so that all of this is full then.
        """
        return self._fill(path, inodes=False)

    def out_of_inodes(self, path: Path) -> Undo:
        """Let no further file or directory be made on the disk that ``path`` is on; else as :meth:`full`."""
        return self._fill(path, inodes=True)

    def resize(self, path: Path, *, size: int | str | None = None, inodes: int | None = None) -> Undo:
        """Give the disk that ``path`` is on another ``size`` (bytes, or like "64M") or number of ``inodes``.

        It cannot become smaller than what it holds (EINVAL). For which disks: see :meth:`full`.
        """
        wanted = {} if size is None else {"size": parse_size(size)}
        if inodes is not None:
            wanted["nr_inodes"] = parse_inodes(inodes)
        if not wanted:
            raise UsageError("resize() needs a size, a number of inodes, or both")
        place = located(path)
        with self._disk(place) as fd:
            former = self._requests.resize(place, fd, [f"{key}={value}" for key, value in wanted.items()])
        return self._limited(f"resized {self._shown(place)}", place, former, tuple(wanted))

    def readonly(self, path: Path) -> Undo:
        """Make a file, or a directory with all that is below it, read-only while its users run: EROFS.

        Where something is mounted that mount is changed, also for who is in it already; the kernel refuses that (EBUSY)
        while somebody has a file of it open for writing, and the error names who. Elsewhere a read-only view of the
        place is mounted over it, which is seen by who looks the place up from now on.
        """
        return self._restrict(path, "readonly")

    def noexec(self, path: Path) -> Undo:
        """Let nothing be executed that is below ``path``: EACCES; else as :meth:`readonly`."""
        return self._restrict(path, "noexec")

    def remount(self, path: Path, *, readonly: bool | None = None, noexec: bool | None = None) -> Undo:
        """Change a mount that was made here: what is None stays. A disk that goes read-only half-way, and comes back.

        Raises :class:`~pytest_poorcontainer.UsageError` for other mounts: those may only be restricted, by
        :meth:`readonly` and :meth:`noexec`.
        """
        place = located(path)
        wanted = {"readonly": readonly, "noexec": noexec}
        with self._made.lock:
            seen = self._requests.place(place)
            if not seen.is_root or self._made.of(seen.number) is None:
                why = "is no mount that was made here, and those alone can be changed in both directions"
                raise UsageError(f"{self._shown(place)} {why}: readonly() and noexec() restrict any place")
            entry = next(entry for entry in self.table() if entry.number == seen.number)
            backs = [
                self._changed([(place, seen.number)], key, clear=not value)
                for key, value in wanted.items()
                if value is not None and (_WORDS[key] in entry.options) is not value
            ]
        return self._undo(f"remounted {self._shown(place)}", lambda: [back() for back in reversed(backs)])

    def _fill(self, path: Path, *, inodes: bool) -> Undo:
        place = located(path)
        with self._disk(place) as fd:
            former, ballast = self._requests.fill(place, fd, inodes=inodes)
        if ballast >= 0:
            forks.guard(ballast)
        what, key = ("no inodes left on", "nr_inodes") if inodes else ("full:", "size")
        return self._limited(f"{what} {self._shown(place)}", place, former, (key,), ballast)

    def _limited(self, what: str, place: bytes, former: Limits, keys: Sequence[str], ballast: int = -1) -> Undo:
        """Return what gives a disk its limits back."""
        values = {"size": former.size, "nr_inodes": former.inodes}

        def back() -> None:
            with self._disk(place) as fd:
                self._requests.resize(place, fd, [f"{key}={values[key]}" for key in keys])

        return self._undo(what, back, ballast)

    def _undo(self, what: str, back: Callable[[], object], fd: int = -1) -> Undo:
        """Return what takes back; in a container that is closed there is nothing to do."""

        def release() -> None:
            try:
                back()
            except PoorContainerError:
                if not self._handle.closed:
                    raise
            if fd >= 0:
                forks.expose(fd)
                os.close(fd)

        return Undo(what, release)

    @contextlib.contextmanager
    def _disk(self, place: bytes) -> Iterator[int]:
        """Open the file system that a path is on; of an overlay the one that it writes to."""
        with self._made.lock:
            seen, fd = self._requests.look(place)
            made = self._made.of(seen.number)
            try:
                yield made.upper if made is not None and made.upper >= 0 else fd
            except LabError as error:
                if "only a tmpfs" not in error.remedy:
                    raise
                remedy = f"{error.remedy}: mount one there first, with tmpfs() or overlay()"
                raise LabError(error.operation, error.object, error.errno, remedy) from None
            finally:
                os.close(fd)

    def _restrict(self, path: Path, key: str) -> Undo:
        place = located(path)
        with self._made.lock:
            seen = self._requests.place(place)
            if not seen.is_root:
                made = self._made.attach(Mount.BIND, place, flags=flags(**{key: True}))
                back: Callable[[], object] = lambda: self._made.detach(made)  # noqa: E731 - two ways of the same
            else:
                back = self._changed(self._free(place, key), key, clear=False)
        return self._undo(f"{key} {self._shown(place)}", back)

    def _free(self, place: bytes, key: str) -> Changes:
        """Return the mounts at a place and below it that are not restricted yet, and can be seen."""
        top = os.fsdecode(place).rstrip("/")
        found: Changes = []
        for entry in self.table():
            below = entry.target.rstrip("/") == top or entry.target.startswith(f"{top}/")
            if below and _WORDS[key] not in entry.options:
                target = os.fsencode(entry.target)
                with contextlib.suppress(LabError):  # hidden by another mount
                    if self._requests.place(target) == (entry.number, True):
                        found.append((target, entry.number))
        return found

    def _changed(self, mounts: Changes, key: str, *, clear: bool) -> Callable[[], None]:
        """Change mounts, all or none; return what takes it back."""
        attribute = flags(**{key: True})
        done: Changes = []

        def back() -> None:
            while done:
                target, number = done[-1]
                self._requests.change(target, number, attribute, clear=not clear)
                done.pop()

        try:
            for target, number in mounts:
                self._requests.change(target, number, attribute, clear=clear)
                done.append((target, number))
        except BaseException:
            back()
            raise
        return back

    def _shown(self, place: bytes) -> str:
        return f"{self._handle.name}:{os.fsdecode(place)}"
