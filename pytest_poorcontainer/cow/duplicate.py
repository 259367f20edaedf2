"""The backends ``copy`` and ``reflink``: a directory of its own, right on every file system and for every program."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import tempfile
from typing import TYPE_CHECKING

from pytest_poorcontainer.cow import overlayfs
from pytest_poorcontainer.cow.attached import Attached
from pytest_poorcontainer.cow.backend import Backend, Lower, missing
from pytest_poorcontainer.cow.changes import ADDED, DELETED, METADATA, Changes, Comparison
from pytest_poorcontainer.cow.copying import Copier, remove, remove_directory
from pytest_poorcontainer.cow.layer import Layer, join
from pytest_poorcontainer.cow.tripwire import now_on
from pytest_poorcontainer.cow.upper import UPPER
from pytest_poorcontainer.cow.view import View
from pytest_poorcontainer.errors import UsageError

if TYPE_CHECKING:
    from pytest_poorcontainer.cow.backend import Request
    from pytest_poorcontainer.lab import Lab
    from pytest_poorcontainer.lab.handle import Handle

__all__ = ["Copy", "Reflink"]

_CANNOT_CLONE = frozenset(
    {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM, errno.ETXTBSY}
)
_SINCE = "since"


class Copy(Backend):
    """A copy of everything. What it costs is in proportion to the lower, and so is looking for changes."""

    name = "copy"
    rank = 40
    clone = False
    trust = (
        "programs change a copy; one that goes to the original by its absolute path reaches it, and the tripwire tells"
    )

    def __init__(self, request: Request) -> None:
        """Copy it, or take up the copy that the store has."""
        self.owners = os.geteuid() == 0
        self._temporary: str | None = None
        self._saves: Layer | None = None
        self._frozen = False
        if request.size is not None:
            raise UsageError(f"size= is for a backend that has its changes on a tmpfs, not for {self.name}")
        self.lower = View(request.layers, request.place)
        directory = request.store
        if directory is None:
            self._temporary = directory = tempfile.mkdtemp(prefix="cow-", dir=request.temporary)
        self._directory = os.path.abspath(directory)
        self._target = os.path.join(self._directory, UPPER)
        try:
            if not os.path.exists(os.path.join(self._directory, _SINCE)):
                self._copy()
            self._layer = Layer.at(self._target)
            with open(os.path.join(self._directory, _SINCE), encoding="ascii") as file:
                self._since = int(file.read())
        except BaseException:
            self.close()
            raise
        self.view = View([self._layer], request.place)

    def _copy(self) -> None:
        """Copy the lower; the file that tells when it was done is written last."""
        if os.path.lexists(self._target):
            remove_directory(self._target)  # what was begun and not ended
        os.makedirs(self._target, 0o700)
        copied = self._copy_by_cp()
        layer = Layer.at(self._target)
        try:
            if not copied:
                Copier(layer, owners=self.owners, clone=self.clone).tree(self.lower)
            since = now_on(layer)
        except OSError as error:
            if self.clone and error.errno in _CANNOT_CLONE:
                why = (
                    f"{error.strerror} (FICLONE): it takes btrfs or xfs, and the copy has to be on the original's own "
                    "file system"
                )
                raise missing(self.name, why, "give upper= a directory there, or take backend='copy'") from error
            raise
        finally:
            layer.close()
        with open(os.path.join(self._directory, _SINCE), "w", encoding="ascii") as file:
            file.write(str(since))

    def _copy_by_cp(self) -> bool:
        """Let cp(1) copy, which takes half of our time; return whether it did. What hinders it we can tell better."""
        if len(self.lower.layers) > 1:
            return False
        source = f"/proc/{os.getpid()}/fd/{self.lower.layers[0].fd}/."
        share = "always" if self.clone else "auto"
        argv = ["cp", "-a", f"--reflink={share}", "-T", "--", source, self._target]
        try:
            if subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, check=False).returncode == 0:
                return True
        except FileNotFoundError:
            return False
        remove_directory(self._target)
        os.mkdir(self._target, 0o700)
        return False

    def path(self) -> str:
        """Return the path of the copy."""
        return self._target

    def root(self, lab: Lab, *, readonly: bool) -> int:
        """Return the lab's number of the copy. Raises :class:`LabError`."""
        return self.roots.number(lab, self._target, -1, readonly=readonly)

    def attach(self, handle: Handle, target: str | bytes) -> Attached:
        """Bind the copy in a container. Raises :class:`LabError`."""
        return Attached(handle, target, self._target)

    def changes(self) -> Changes:
        """Return what is different from the lower."""
        return Comparison(self.view, self.lower, owners=self.owners).of_copy(self._since)

    def reset(self, changes: Changes | None) -> None:
        """Copy from the lower again what has changed."""
        wanted = self.changes() if changes is None else changes
        copier = Copier(self._layer, owners=self.owners, clone=self.clone)
        directories: list[str] = []
        for path, kind in wanted.items():
            name = "" if path == "." else path
            if kind == ADDED:
                remove(self._layer, name)
                continue
            source, info = self.lower.stack(name)[0], self.lower.lstat(name)
            if stat.S_ISDIR(info.st_mode):
                directories.append(name)
                found = self._layer.find(name)
                if found is not None and stat.S_ISDIR(found.st_mode):
                    continue
            if kind != METADATA or not stat.S_ISDIR(info.st_mode):
                remove(self._layer, name)
                self._parents(name, copier)
                copier.entry(source, name, info)
        for name in reversed(directories):
            copier.metadata(self.lower.stack(name)[0], name, self.lower.lstat(name), name)

    def _parents(self, path: str, copier: Copier) -> None:
        at = ""
        for part in path.split("/")[:-1]:
            at = join(at, part)
            found = self._layer.find(at)
            if found is None or not stat.S_ISDIR(found.st_mode):
                remove(self._layer, at)
                copier.entry(self.lower.stack(at)[0], at, self.lower.lstat(at))

    def save(self, name: str) -> None:
        """Keep the changes as an upper, which is what a snapshot of a tree of layers is."""
        saves = self._snapshots()
        remove(saves, "new")
        with saves.place("new") as place:
            os.mkdir(place, 0o700)
        layer = saves.below("new")
        try:
            self._delta(layer)
        except BaseException:
            remove(saves, "new")
            raise
        finally:
            layer.close()
        remove(saves, f"={name}")
        with saves.place("new") as old, saves.place(f"={name}") as new:
            os.rename(old, new)

    def _snapshots(self) -> Layer:
        if self._saves is None:
            directory = os.path.join(self._directory, "snapshots")
            os.makedirs(directory, 0o700, exist_ok=True)
            self._saves = Layer.at(directory)
        return self._saves

    def _delta(self, layer: Layer) -> None:
        """Write the changes, as an upper has them."""
        copier = Copier(layer, owners=self.owners)
        for path, kind in self.changes().items():
            if path == ".":
                copier.metadata(self._layer, "", self._layer.lstat(""), "")
                continue
            at = ""
            gone = False
            for part in path.split("/")[:-1]:
                at = join(at, part)
                info = layer.find(at)
                gone = info is not None and not stat.S_ISDIR(info.st_mode)
                if gone:
                    break
                if info is None:
                    copier.entry(self._layer, at, self._layer.lstat(at))
            if kind == DELETED and not gone:
                overlayfs.make_whiteout(layer, path)
            elif not gone and layer.find(path) is None:
                copier.entry(self._layer, path, self._layer.lstat(path))

    def load(self, name: str) -> None:
        """Make the changes those of a snapshot, which stays."""
        saves = self._snapshots()
        if saves.find(f"={name}") is None:
            known = ", ".join(each[1:] for each in saves.names("") if each[0] == "=")
            raise UsageError(f"there is no snapshot {name!r}; there are: {known or 'none'}")
        self.reset(None)
        layer = saves.below(f"={name}")
        try:
            self._apply(layer)
        finally:
            layer.close()

    def _apply(self, layer: Layer) -> None:
        copier = Copier(self._layer, owners=self.owners)
        directories: list[tuple[str, os.stat_result]] = []
        for path, info in layer.walk():
            found = self._layer.find(path)
            if overlayfs.is_whiteout(layer, path, info):
                remove(self._layer, path)
            elif stat.S_ISDIR(info.st_mode):
                directories.append((path, info))
                if found is None or not stat.S_ISDIR(found.st_mode):
                    remove(self._layer, path)
                    copier.entry(layer, path, info)
            else:
                remove(self._layer, path)
                copier.entry(layer, path, info)
        for path, info in reversed(directories):
            copier.metadata(layer, path, info, path)

    def freeze(self) -> None:
        """Nothing keeps programs from writing to a copy; whoever stands on it copies it as it is then."""
        self._frozen = True

    def lowers(self) -> list[Lower]:
        """Return the copy, which is all that a tree on it needs."""
        return [Lower(self._target, self._layer)]

    def close(self) -> None:
        """Remove the copy, unless it is in a store that was given. Idempotent."""
        self.roots.give_up()
        for layer in (getattr(self, "_layer", None), self._saves):
            if layer is not None:
                layer.close()
        temporary, self._temporary = self._temporary, None
        if temporary is not None:
            remove_directory(temporary)


class Reflink(Copy):
    """A copy that shares the content of its files with the original until one of them is changed (btrfs, xfs)."""

    name = "reflink"
    rank = 30
    clone = True
    trust = "as copy"

    def __init__(self, request: Request) -> None:
        """Try with one file before everything is copied. Raises :class:`Unavailable` where content cannot be shared."""
        if (
            request.store is None
            and os.stat(request.temporary or tempfile.gettempdir()).st_dev != request.layers[0].lstat("").st_dev
        ):
            raise missing(
                self.name,
                "the copy would be on another file system than the original",
                "give upper= a directory on the original's file system",
            )
        super().__init__(request)
