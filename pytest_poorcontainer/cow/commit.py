"""Changes become the lower's own: all of them or none, whatever interrupts it.

All content is copied into one directory of the lower first, and a journal that says what is to be done, last of all
under its name. From then on the rest is renames and removals that can be done twice; who finds a journal finishes it.
Before that, who finds the directory removes it. Who works on it holds a lock (flock(2)) of it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_poorcontainer.cow import permission, tripwire
from pytest_poorcontainer.cow.changes import ADDED, DELETED, Changes, printable
from pytest_poorcontainer.cow.copying import Copier, remove
from pytest_poorcontainer.errors import LabError, PoorContainerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from pytest_poorcontainer.cow.layer import Layer
    from pytest_poorcontainer.cow.view import View

__all__ = ["NAME", "CommitRefused", "Known", "commit", "finish"]

NAME = ".poor-container-commit"
"""The directory in the lower, while a commit is under way."""
_JOURNAL = "journal"


class CommitRefused(PoorContainerError):
    """The lower has changed since the tree was made, so nothing was done. ``paths`` are relative to it."""

    def __init__(self, lower: str, paths: list[str]) -> None:
        """Say which paths."""
        self.lower = lower
        self.paths = paths
        super().__init__(lower, paths)

    def __str__(self) -> str:
        """Return what has changed, and what to do."""
        shown = "".join(f"\n  {printable(path)}" for path in self.paths[:20])
        more = f"\n  ... and {len(self.paths) - 20} more" if len(self.paths) > 20 else ""  # noqa: PLR2004
        return (
            f"cannot commit to {self.lower}: these have changed there since the tree was made:{shown}{more}\n"
            "commit other paths, or make the changes again on a new tree"
        )


@dataclass
class Known:
    """What a tree knows of its lower: the ctime ``since`` which changes are new to it, and its ``own`` ones.

    Those are path to two ctimes, as :data:`tripwire.allowed` has them of inodes. They are each tree's: what another one
    has committed meanwhile is as new to this one as what anybody else has done.
    """

    since: int
    own: dict[str, tuple[int, int]] = field(default_factory=dict)

    def counted(self, path: str, info: os.stat_result) -> int:
        """Return the ctime of the last change that was not the tree's own; 0 for what it has made."""
        left, before = self.own.get(path, (None, 0))
        return before if left == info.st_ctime_ns else info.st_ctime_ns


def finish(lower: Layer, name: str) -> None:
    """Finish, or undo, a commit that was interrupted. Raises :class:`LabError` when that is impossible."""
    if lower.find(NAME) is None:
        return
    with _told(name), _locked(lower) as here:
        if here is not None:
            _redo(lower, here)


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    """Say of an error of the system what has been left half done, and what to do."""
    try:
        yield
    except OSError as error:
        at = os.path.join(name, NAME)
        remedy = (
            "mend that, and the next tree or commit on it goes on (as the user who began it, or as root); "
            f"or give the rest of it up: rm -r {at}"
        )
        raise LabError("finish the commit that was interrupted in", at, error.errno or 0, remedy) from error


def commit(
    lower: Layer,
    view: View,
    changes: Changes,
    known: Known,
    name: str,
    *,
    owners: bool,
    apart: Callable[[], AbstractContextManager[None]],
    taker: int | None = None,
) -> None:
    """Make these changes of ``view`` in the lower, which people know as ``name``.

    ``apart`` keeps everybody from the view while the lower changes: the kernel wants that of an overlay's. What has
    become the user ``taker``'s by being copied keeps the owner that it has in the lower.
    Raises :class:`CommitRefused` when one of the paths has changed there without being ``known``, :class:`LabError`
    when a directory may not be changed, and OSError; then nothing has changed, unless a journal is there, which the
    next commit or tree on this lower finishes.
    """
    finish(lower, name)
    modes = permission.check(lower, view, changes, name)
    late = [path for path, kind in changes.items() if _is_late(lower, path, kind, known)]
    if late:
        raise CommitRefused(name, late)
    before = _looked_at(lower, _touched(changes))
    with lower.place(NAME) as place:
        os.mkdir(place, 0o700)
    with _locked(lower) as here:
        if here is None:
            raise PoorContainerError(f"cannot commit to {name}: somebody else has begun to at the same time")
        try:
            steps = [("mode", path, f"{mode:o}") for path, mode in modes.items()]
            steps += _stage(here, view, changes, owners=owners)
            if owners and taker is not None:
                _keep_owners(lower, here, changes, taker)
            _promise(here, steps)
        except BaseException:
            remove(lower, NAME)
            _allow(lower, [""], before, known)
            raise
        with apart(), _told(name):
            _redo(lower, here)
    _allow(lower, _touched(changes), before, known)


def _is_late(lower: Layer, path: str, kind: str, known: Known) -> bool:
    """Return whether the lower has something else at a path than it had when the tree was made."""
    info = lower.find("" if path == "." else path)
    if kind == ADDED:
        return info is not None
    if info is None:
        return True
    # Of a directory that is deleted too: what was added to it since would go with it.
    return known.counted("" if path == "." else path, info) >= known.since


@contextlib.contextmanager
def _locked(lower: Layer) -> Iterator[Layer | None]:
    """Hold the lock of the directory, and wait for it; None when it is gone by then."""
    try:
        here = lower.below(NAME)
    except FileNotFoundError:
        yield None
        return
    try:
        fcntl.flock(here.fd, fcntl.LOCK_EX)
        found = lower.find(NAME)
        same = found is not None and found.st_ino == os.fstat(here.fd).st_ino
        yield here if same else None
    finally:
        here.close()


def _stage(here: Layer, view: View, changes: Changes, *, owners: bool) -> list[tuple[str, str, str]]:
    """Copy all that is to come, and return what is to be done. Names of files are numbers."""
    copier = Copier(here, owners=owners)
    steps: list[tuple[str, str, str]] = []
    for number, (path, kind) in enumerate(changes.items()):
        if kind == DELETED:
            steps.append(("remove", path, ""))
            continue
        name = "" if path == "." else path
        layer = view.stack(name)[0]
        info = layer.lstat(name)
        if not stat.S_ISDIR(info.st_mode):
            _check_kind(info, path)
        copier.entry(layer, name, info, str(number))
        steps.append(("directory" if stat.S_ISDIR(info.st_mode) else "rename", path, str(number)))
    return steps


def _promise(here: Layer, steps: list[tuple[str, str, str]]) -> None:
    """Write the journal."""
    data = json.dumps(steps).encode()
    fd = here.open("new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        _write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    _sync(here)
    with here.place("new") as old, here.place(_JOURNAL) as new:
        os.rename(old, new)
    os.fsync(here.fd)


def _keep_owners(lower: Layer, here: Layer, changes: Changes, taker: int) -> None:
    """Give what was staged the owner that it has in the lower, where it is the taker's only for having been copied."""
    for number, path in enumerate(changes):
        staged, before = here.find(str(number)), lower.find("" if path == "." else path)
        if staged is None or before is None or not staged.st_uid == taker != before.st_uid:
            continue
        with here.place(str(number)) as place:
            os.chown(place, before.st_uid, before.st_gid, follow_symlinks=False)
            if not stat.S_ISLNK(staged.st_mode):
                os.chmod(place, stat.S_IMODE(staged.st_mode))


def _write_all(fd: int, data: bytes) -> None:
    written = 0
    while written < len(data):
        written += os.write(fd, data[written:])


def _sync(here: Layer) -> None:
    """Write to the disk what was copied: a journal must not promise what is not there after a power failure."""
    for name, info in here.entries(""):
        if stat.S_ISREG(info.st_mode):
            with here.place(name) as place:
                try:
                    fd = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                except PermissionError:
                    continue  # a mode that shuts us out too
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def _check_kind(info: os.stat_result, path: str) -> None:
    if stat.S_ISSOCK(info.st_mode):
        raise OSError(errno.EOPNOTSUPP, "a socket cannot be committed: leave it out", path)


def _redo(lower: Layer, here: Layer) -> None:
    """Do what the journal says, as far as it is not done; without one remove what was copied."""
    if here.find(_JOURNAL) is not None:
        fd = here.open(_JOURNAL)
        with os.fdopen(fd, "rb") as file:
            steps: list[list[str]] = json.loads(file.read())
        modes = {path: int(mode, 8) for what, path, mode in steps if what == "mode"}
        directories = {path: number for what, path, number in steps if what == "directory"}
        ordered = sorted({*modes, *directories}, key=lambda path: "" if path == "." else path)
        for path in ordered:
            permission.open_up(lower, "" if path == "." else path)
        for what, path, _ in steps:
            if what == "remove":
                remove(lower, path)
        for what, path, number in steps:
            if what == "rename":
                _rename(lower, here, path, number)
            elif what == "directory":
                _directory(lower, path)
        copier = Copier(lower)
        for path in reversed(ordered):  # from below: the ones above may be closed then
            if path in directories:
                number = directories[path]
                copier.metadata(here, number, here.lstat(number), "" if path == "." else path)
            else:
                _give_back(lower, path, modes[path])
        os.fsync(lower.fd)
        with here.place(_JOURNAL) as place:
            os.unlink(place)  # done: what is left is only to be removed
    remove(lower, NAME)


def _rename(lower: Layer, here: Layer, path: str, number: str) -> None:
    if here.find(number) is None:
        return  # it was renamed before the interruption
    found = lower.find(path)
    if found is not None and stat.S_ISDIR(found.st_mode):
        remove(lower, path)
    with here.place(number) as old, lower.place(path) as new:
        os.rename(old, new)


def _directory(lower: Layer, path: str) -> None:
    found = lower.find("" if path == "." else path)
    if found is not None and not stat.S_ISDIR(found.st_mode):
        remove(lower, path)
        found = None
    if found is None:
        with lower.place(path) as place:
            os.mkdir(place, 0o700)


def _give_back(lower: Layer, path: str, mode: int) -> None:
    """Give a directory that was opened for the moment its mode again; one that is gone needs none."""
    found = lower.find(path)
    if found is not None and stat.S_ISDIR(found.st_mode):
        with lower.place(path) as place:
            os.chmod(place, mode)


def _touched(changes: Changes) -> set[str]:
    """Return the paths of the changes, and of all directories above, whose ctimes a commit changes."""
    found = {""}
    for path in changes:
        at = "" if path == "." else path
        while at not in found:
            found.add(at)
            at = at.rpartition("/")[0]
    return found


def _looked_at(lower: Layer, paths: Iterable[str]) -> dict[str, os.stat_result]:
    found = ((path, lower.find(path)) for path in paths)
    return {path: info for path, info in found if info is not None}


def _allow(lower: Layer, paths: Iterable[str], before: dict[str, os.stat_result], known: Known) -> None:
    """Let tripwires, and later commits, pass over what was changed on purpose, but not over what others did before."""
    for path, info in _looked_at(lower, paths).items():
        old = before.get(path)
        if old is None or (old.st_dev, old.st_ino) != (info.st_dev, info.st_ino):
            old = None  # what is there now is what was made
        tripwire.allowed[info.st_dev, info.st_ino] = info.st_ctime_ns, 0 if old is None else tripwire.counted(old)
        known.own[path] = info.st_ctime_ns, 0 if old is None else known.counted(path, old)
