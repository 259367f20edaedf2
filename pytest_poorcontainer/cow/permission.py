"""What a commit needs of the directories of the lower, looked at before anything is done, since all or nothing is.

A directory that its owner may not write in is opened for the moment, as an owner could do by hand.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from pytest_poorcontainer.cow.changes import DELETED, Changes, printable
from pytest_poorcontainer.cow.layer import join
from pytest_poorcontainer.errors import LabError

if TYPE_CHECKING:
    from pytest_poorcontainer.cow.layer import Layer
    from pytest_poorcontainer.cow.view import View

__all__ = ["check", "open_up"]

_WHO = "leave it out, or commit as its owner or as root"
_REMEDIES = {
    errno.EACCES: f"this user may not change what is in this directory: {_WHO}",
    errno.EPERM: f"it belongs to another user, who alone may change it: {_WHO}",
    errno.EXDEV: "another file system is mounted there: leave it out, or make a tree of that one",
    errno.EROFS: "its file system is mounted read-only: mount it for writing, or export_oci the changes",
}


def check(lower: Layer, view: View, changes: Changes, name: str) -> dict[str, int]:
    """Return the directories that are to be opened for the moment, with the modes that they have.

    Raises :class:`LabError` that names what cannot be changed in the lower, which people know as ``name``.
    """
    looked = _Look(lower, name)
    looked.writable("")  # where the journal lies
    for path, kind in changes.items():
        looked.at(path, kind, view)
    return looked.opened


def open_up(lower: Layer, path: str) -> None:
    """Let the owner of a directory write in it."""
    info = lower.find(path)
    if info is None or not stat.S_ISDIR(info.st_mode) or os.geteuid() != info.st_uid or not _lacks(info):
        return
    with lower.place(path) as place:
        os.chmod(place, stat.S_IMODE(info.st_mode) | stat.S_IRWXU)


def _lacks(info: os.stat_result) -> bool:
    return info.st_mode & stat.S_IRWXU != stat.S_IRWXU


class _Look:
    """Looks at each directory once."""

    def __init__(self, lower: Layer, name: str) -> None:
        self._lower = lower
        self._name = name
        self._user = os.geteuid()
        self._device = lower.lstat("").st_dev
        self._seen: set[str] = set()
        self.opened: dict[str, int] = {}

    def at(self, path: str, kind: str, view: View) -> None:
        """Look whether this change can be made."""
        self._reach(path)
        here = "" if path == "." else path
        info = self._lower.find(here)
        if info is None:
            self.writable(here.rpartition("/")[0])
            return
        stays = kind != DELETED and stat.S_ISDIR(view.lstat(here).st_mode)
        if stat.S_ISDIR(info.st_mode) and stays:
            if self._user not in (0, info.st_uid):
                raise self._refused(here, errno.EPERM)
            return
        head = here.rpartition("/")[0]
        self.writable(head)
        parent = self._lower.lstat(head)
        if parent.st_mode & stat.S_ISVTX and self._user not in (0, info.st_uid, parent.st_uid):
            raise self._refused(here, errno.EPERM)
        if stat.S_ISDIR(info.st_mode):
            self._removable(here)

    def _reach(self, path: str) -> None:
        """Look whether the directories above can be entered."""
        at = ""
        for part in path.split("/")[:-1]:
            at = join(at, part)
            info = self._lower.find(at)
            if info is None or not stat.S_ISDIR(info.st_mode):
                return  # to be made
            if not self._may(at, os.X_OK):
                raise self._refused(at, errno.EACCES)

    def _removable(self, directory: str) -> None:
        """Look at all directories below one that is to go."""
        names = self._lower.entries(directory) if self._may(directory, os.R_OK | os.X_OK) else []
        if names or _lacks(self._lower.lstat(directory)):
            self.writable(directory)
        for name, info in names:
            if stat.S_ISDIR(info.st_mode):
                self._removable(join(directory, name))

    def writable(self, directory: str) -> None:
        """Look whether names can be added to a directory and taken out; if it is to be made they can."""
        if directory in self._seen:
            return
        self._seen.add(directory)
        info = self._lower.find(directory)
        if info is None or not stat.S_ISDIR(info.st_mode):
            return
        if info.st_dev != self._device:
            raise self._refused(directory, errno.EXDEV)
        if self._may(directory, os.W_OK | os.X_OK):
            return
        with self._lower.place(directory) as place:
            if os.statvfs(place).f_flag & os.ST_RDONLY:
                raise self._refused(directory, errno.EROFS)
        # The top is where the journal lies: it would be open before that can tell how it was.
        if not directory or self._user != info.st_uid or not _lacks(info):
            raise self._refused(directory, errno.EACCES)
        self.opened[directory] = stat.S_IMODE(info.st_mode)

    def _may(self, directory: str, what: int) -> bool:
        with self._lower.place(directory) as place:
            return os.access(place, what, effective_ids=True)

    def _refused(self, path: str, number: int) -> LabError:
        place = join(self._name.rstrip("/"), printable(path)) if path else self._name
        remedy = _REMEDIES[number]
        if not path and number == errno.EACCES:
            remedy = "this user may not write there: let it (chmod u+w), or commit as its owner or as root"
        return LabError("commit to", place, number, remedy)
