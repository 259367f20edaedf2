"""Changes of an upper that nobody uses meanwhile: taking changes back, snapshots. All in proportion to the changes."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from pytest_poorcontainer.cow import overlayfs
from pytest_poorcontainer.cow.changes import ADDED, METADATA, Changes
from pytest_poorcontainer.cow.copying import Copier, remove
from pytest_poorcontainer.cow.layer import Layer, join
from pytest_poorcontainer.cow.view import View
from pytest_poorcontainer.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["INDEX", "SNAPSHOTS", "UPPER", "WORK", "Upper"]

UPPER, WORK, SNAPSHOTS = "upper", "work", "snapshots"
INDEX = "work/index"
"""Where overlayfs keeps one more name of each upper file that has several in the lower (``index=on``)."""


class Upper:
    """The upper of a tree in its store, a directory that has it beside ``work`` and the snapshots."""

    def __init__(self, store: Layer, lowers: Sequence[Layer], place: str, index: str = INDEX) -> None:
        """Work on the upper in ``store``, which lies over ``lowers``; ``index`` is where hard links are kept whole."""
        self.store = store
        self.index = index
        self.layer = store.below(UPPER)
        self.lower = View(lowers, place)
        self.view = View([self.layer, *lowers], place)

    def clear(self) -> None:
        """Take everything back."""
        for name, _ in self.layer.entries(""):
            remove(self.layer, name)
        self._clear_work()
        with self.layer.place("") as new:
            names = os.listxattr(new)
            for name in names:
                os.removexattr(new, name)
        lower = self.lower.layers[0]
        Copier(self.layer).metadata(lower, "", lower.lstat(""), "")

    def take_back(self, changes: Changes) -> None:
        """Make these paths what they are in the lower."""
        self._forget_links(changes)
        for path, kind in changes.items():
            if path == ".":
                Copier(self.layer).metadata(self.lower.layers[0], "", self.lower.lstat(""), "")
            elif kind == ADDED:
                remove(self.layer, path)
            elif kind == METADATA and stat.S_ISDIR(self.lower.lstat(path).st_mode):
                Copier(self.layer).metadata(self.lower.stack(path)[0], path, self.lower.lstat(path), path)
            elif not self._shows_lower(path):
                self._show_lower(path)

    def _shows_lower(self, path: str) -> bool:
        found = self.view.find(path)
        return bool(found) and found[0] is not self.layer

    def _show_lower(self, path: str) -> None:
        if not self._hidden_above(path):
            remove(self.layer, path)
            if self._shows_lower(path):
                return
        self._make_parents(path)
        if self.layer.find(path) is not None:
            remove(self.layer, path)
        source = self.lower.stack(path)[0]
        Copier(self.layer).entry(source, path, source.lstat(path))

    def _hidden_above(self, path: str) -> bool:
        """Return whether a directory above the path is no directory in the upper."""
        head = path.rpartition("/")[0]
        while head:
            info = self.layer.find(head)
            if info is not None and not stat.S_ISDIR(info.st_mode):
                return True
            head = head.rpartition("/")[0]
        return False

    def _make_parents(self, path: str) -> None:
        """Let the directories above a path exist, with nothing in them that is deleted now."""
        at = ""
        for part in path.split("/")[:-1]:
            at = join(at, part)
            info = self.layer.find(at)
            if info is not None and stat.S_ISDIR(info.st_mode):
                continue
            if info is None and self._shows_lower(at):
                continue
            if info is not None:
                remove(self.layer, at)
            source = self.lower.stack(at)[0]
            Copier(self.layer).entry(source, at, source.lstat(at))
            overlayfs.make_opaque(self.layer, at)

    def _forget_links(self, changes: Changes) -> None:
        """Remove all names that a file of several has in upper and index: they are one file, so they go as one."""
        inodes = set()
        for path in changes:
            info = self.layer.find(path)
            if info is not None and stat.S_ISREG(info.st_mode) and info.st_nlink > 1:
                inodes.add(info.st_ino)
        if not inodes:
            return
        index = self._index()
        for name, info in index:
            if info.st_ino in inodes:
                remove(self.store, f"{self.index}/{name}")
        of_the_lower = {info.st_ino for _, info in index}
        for path, info in list(self.layer.walk()):
            if info.st_ino in inodes & of_the_lower and path not in changes:
                remove(self.layer, path)

    def _index(self) -> list[tuple[str, os.stat_result]]:
        return self.store.entries(self.index) if self.store.find(self.index) else []

    def renew(self) -> None:
        """Move all of it into directories that the kernel does not know yet.

        An overlay lives on as long as somebody has a file of it open, and no other may have the same upper (EBUSY). So
        the old one is left with empty directories.
        """
        old = "old"
        remove(self.store, old)
        with self.store.place(old) as place:
            os.mkdir(place, 0o700)
        for name in (UPPER, WORK):
            self._rename(name, f"{old}/{name}")
            with self.store.place(name) as place:
                os.mkdir(place, 0o700)
        for name in self.store.names(f"{old}/{UPPER}"):
            self._rename(f"{old}/{UPPER}/{name}", f"{UPPER}/{name}")
        Copier(self.store, own=True).metadata(self.store, f"{old}/{UPPER}", self.store.lstat(f"{old}/{UPPER}"), UPPER)
        index = f"{old}/{INDEX}"
        if self.store.find(index):
            self._rename(index, INDEX)
            with self.store.place(INDEX) as place:
                for name in os.listxattr(place):
                    os.removexattr(place, name)  # it names the former upper
        remove(self.store, old)
        lowers = self.view.layers[1:]
        self.layer = self.store.below(UPPER)
        self.view = View([self.layer, *lowers], self.view.place)

    def _rename(self, old: str, new: str) -> None:
        with self.store.place(old) as source, self.store.place(new) as target:
            os.rename(source, target)

    def has_links(self) -> bool:
        """Return whether a file that has several names in the lower is in the upper."""
        return any(not name.startswith("#") for name, _ in self._index())

    def _clear_work(self) -> None:
        for name, _ in self.store.entries(WORK) if self.store.find(WORK) else ():
            remove(self.store, f"{WORK}/{name}")
        for name, _ in self._index():
            remove(self.store, f"{self.index}/{name}")

    def save(self, name: str) -> None:
        """Keep a copy of all changes under a name; a former one of that name is replaced."""
        with self.store.place(SNAPSHOTS) as place:
            os.makedirs(place, 0o700, exist_ok=True)
        to, complete = f"{SNAPSHOTS}/new", f"{SNAPSHOTS}/={name}"
        remove(self.store, to)
        with self.store.place(to) as place:
            os.mkdir(place, 0o700)
        try:
            self._copy(Copier(self.store, own=True), UPPER, self.index, to, "index")
        except BaseException:
            remove(self.store, to)
            raise
        remove(self.store, complete)
        with self.store.place(to) as old, self.store.place(complete) as new:
            os.rename(old, new)

    def load(self, name: str) -> None:
        """Make the changes those of a snapshot, which stays."""
        saved = f"{SNAPSHOTS}/={name}"
        if self.store.find(saved) is None:
            raise UsageError(f"there is no snapshot {name!r}; there are: {', '.join(self.saved()) or 'none'}")
        self._clear_work()
        for entry, _ in self.layer.entries(""):
            remove(self.layer, entry)
        self._copy(Copier(self.store, own=True), f"{saved}/{UPPER}", f"{saved}/index", "", self.index)

    def saved(self) -> list[str]:
        """Return the names of the snapshots."""
        return (
            [name[1:] for name in self.store.names(SNAPSHOTS) if name[0] == "="] if self.store.find(SNAPSHOTS) else []
        )

    def _copy(self, copier: Copier, upper: str, index: str, to: str, index_to: str) -> None:
        """Copy an upper and an index to a place, what they share included."""
        goal = join(to, UPPER)
        directories = [(upper, goal, self.store.lstat(upper))]
        if self.store.find(goal) is None:
            copier.entry(self.store, upper, self.store.lstat(upper), goal)
        for path, info in self.store.walk(upper):
            copier.entry(self.store, path, info, goal + path[len(upper) :])
            if stat.S_ISDIR(info.st_mode):
                directories.append((path, goal + path[len(upper) :], info))
        if self.store.find(index):
            with self.store.place(join(to, index_to)) as place:
                os.makedirs(place, 0o700, exist_ok=True)
            for name, info in self.store.entries(index):
                if not name.startswith("#"):  # what overlayfs has not finished, or keeps for the next whiteout
                    copier.entry(self.store, f"{index}/{name}", info, join(to, f"{index_to}/{name}"))
        for path, place, info in reversed(directories):
            copier.metadata(self.store, path, info, place)

    def close(self) -> None:
        """Close what is open. Idempotent."""
        self.layer.close()
