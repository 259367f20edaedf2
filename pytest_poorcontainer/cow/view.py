"""What layers show together: the topmost one's files over those of the others, less what whiteouts hide."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from pytest_poorcontainer.cow import overlayfs
from pytest_poorcontainer.cow.layer import Layer, join

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["View", "visible"]

_LINKS_MAX = 40  # path_resolution(7)


class View:
    """A merged view, for reading. Paths are those of a :class:`Layer`: below it, "" is its root.

    ``place`` is where programs see it: an absolute symbolic link to there leads back into the view. Every method raises
    OSError as the system call does that it is named after.
    """

    def __init__(self, layers: Sequence[Layer], place: str) -> None:
        """Show these layers, the topmost first."""
        self.layers = tuple(layers)
        self.place = place

    def stack(self, path: str) -> list[Layer]:
        """Return the layers that a path is of: for a directory all that are merged in it, else the one that has it."""
        layers = list(self.layers)
        at = ""
        for part in path.split("/") if path else ():
            at = join(at, part)
            layers = visible(layers, at)
        return layers

    def find(self, path: str) -> list[Layer]:
        """Return the same, but an empty list when there is nothing."""
        try:
            return self.stack(path)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def lstat(self, path: str) -> os.stat_result:
        """Return what is there; the last part is not followed."""
        return self.stack(path)[0].lstat(path)

    def readlink(self, path: str) -> str:
        """Return where a symbolic link leads."""
        return self.stack(path)[0].readlink(path)

    def listing(self, path: str, stack: Sequence[Layer] | None = None) -> dict[str, tuple[os.stat_result, list[Layer]]]:
        """Return the names in a directory in order, each with its status and with its own :meth:`stack`."""
        layers = list(self.stack(path) if stack is None else stack)
        found: dict[str, tuple[os.stat_result, list[Layer]]] = {}
        hidden: set[str] = set()
        for layer in layers:
            for name, info in layer.entries(path):
                if name in hidden:
                    continue
                below = join(path, name)
                if name in found:
                    if stat.S_ISDIR(info.st_mode):
                        found[name][1].append(layer)
                    else:
                        hidden.add(name)
                        continue
                elif overlayfs.is_whiteout(layer, below, info):
                    hidden.add(name)
                    continue
                else:
                    found[name] = info, [layer]
                if not stat.S_ISDIR(info.st_mode) or (len(layers) > 1 and overlayfs.is_opaque(layer, below)):
                    hidden.add(name)
        return dict(sorted(found.items()))

    def walk(self, path: str = "", stack: Sequence[Layer] | None = None) -> Iterator[tuple[str, os.stat_result, Layer]]:
        """Yield all that is below a directory, parents first, each with the layer that has it."""
        pending = [(path, list(self.stack(path) if stack is None else stack))]
        while pending:
            directory, layers = pending.pop()
            below = []
            for name, (info, own) in self.listing(directory, layers).items():
                yield join(directory, name), info, own[0]
                if stat.S_ISDIR(info.st_mode):
                    below.append((join(directory, name), own))
            pending += reversed(below)

    def open(self, path: str) -> int:
        """Return a descriptor for reading of a file that is no symbolic link."""
        return self.stack(path)[0].open(path)

    def inside(self, path: str | os.PathLike[str]) -> str:
        """Return a path of the caller's as one of the view: relative to it, or absolute and below its place.

        ".." is what it is to the kernel: resolved by :meth:`resolve`. Raises FileNotFoundError for one that is outside.
        """
        text = os.fsdecode(path)
        if text.startswith("/"):
            place = self.place.rstrip("/")
            if text.rstrip("/") != place and not text.startswith(f"{place}/"):
                raise FileNotFoundError(errno.ENOENT, f"not in the tree, which is of {self.place}", text)
            text = text[len(place) :]
        return text.strip("/")

    def resolve(self, path: str | os.PathLike[str], *, follow: bool = True) -> str:
        """Return the path that is meant, its symbolic links followed inside the view; the last one if ``follow``.

        What leads out comes back as an absolute path of the machine. Raises FileNotFoundError, NotADirectoryError,
        and OSError with ELOOP.
        """
        done: list[str] = []
        ahead = self.inside(path).split("/")[::-1]
        links = 0
        while ahead:
            part = ahead.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                if not done:
                    return os.path.normpath("/".join([os.path.dirname(self.place), *ahead[::-1]]))
                done.pop()
                continue
            here = "/".join([*done, part])
            mode = self.lstat(here).st_mode
            if stat.S_ISLNK(mode) and (ahead or follow):
                links += 1
                if links > _LINKS_MAX:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(path))
                target = self.readlink(here)
                if target.startswith("/"):
                    try:
                        target, done = self.inside(target), []
                    except FileNotFoundError:
                        return "/".join([target.rstrip("/"), *ahead[::-1]])
                ahead += target.split("/")[::-1]
                continue
            done.append(part)
        return "/".join(done)


def visible(layers: list[Layer], path: str) -> list[Layer]:
    """Return which of the layers that its parent is of a path is of. Raises FileNotFoundError, NotADirectoryError."""
    found: list[Layer] = []
    for layer in layers:
        info = layer.find(path)
        if info is None:
            continue
        if not stat.S_ISDIR(info.st_mode):
            if not found and not overlayfs.is_whiteout(layer, path, info):
                found.append(layer)
            break
        found.append(layer)
        if len(layers) > 1 and overlayfs.is_opaque(layer, path):
            break
    if found:
        return found
    head = path.rpartition("/")[0]
    info = layers[0].find(head)
    number = errno.ENOENT if info is None or stat.S_ISDIR(info.st_mode) else errno.ENOTDIR
    raise OSError(number, os.strerror(number), path)
