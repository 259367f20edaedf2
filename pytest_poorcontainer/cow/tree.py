"""A copy-on-write tree: what tests and the command line do with one."""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_poorcontainer.cow import commit as commits
from pytest_poorcontainer.cow import oci, store
from pytest_poorcontainer.cow.backend import Lower, Request, environment
from pytest_poorcontainer.cow.changes import Changes, Comparison, matcher
from pytest_poorcontainer.cow.choosing import AUTO, choose
from pytest_poorcontainer.cow.layer import Layer
from pytest_poorcontainer.cow.reading import Readable
from pytest_poorcontainer.cow.tripwire import MANY, Damaged, Tripwire, now_on
from pytest_poorcontainer.errors import LabError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from pytest_poorcontainer.cow.attached import Attached
    from pytest_poorcontainer.cow.roots import Roots
    from pytest_poorcontainer.lab import Lab
    from pytest_poorcontainer.lab.handle import Handle

    Name = str | os.PathLike[str]

__all__ = ["Stored", "Tree"]

_GLOB = frozenset("*?[")
_NAME_MAX = 200
_DESCRIPTOR = re.compile(r"^/proc/self/fd/\d+/?")
_HELP = {
    errno.EACCES: "this user may not read or write there: be its owner or root, or give upper= a directory of your own",
    errno.EROFS: "that file system is read-only: give upper= a directory on another one",
    errno.ENOSPC: "there is no room left: give upper= a directory that has some, or take a backend that copies nothing",
    errno.EDQUOT: "the quota is used up: give upper= a directory elsewhere, or take a backend that copies nothing",
    errno.ENOENT: "no directory can be made there: give upper= another one",
    errno.ELOOP: "its symbolic links lead in a circle: give upper= a directory",
    errno.ENAMETOOLONG: "a name has at most 255 bytes, a path 4,095: give upper= a shorter one",
}


@dataclass(frozen=True)
class Stored:
    """A tree of an earlier time, or of another process, on which trees can stand: its layers, and where it was seen."""

    lowers: tuple[str, ...]
    place: str


class Tree(Readable):
    """A directory that may be changed while its original stays as it is. Close it, or use it as a context manager.

    ``backend`` is the name of how it works here, ``reason`` why it is this one, ``trust`` what that protects from;
    ``place`` is the original's path, where commands of the tree see it.
    """

    is_tree = True
    """For who wants to know without importing this."""

    def __init__(
        self,
        source: Name | Tree | Stored,
        *,
        backend: str = AUTO,
        upper: Name | None = None,
        size: int | str | None = None,
        place: Name | None = None,
        tripwire: bool = True,
        temporary: Name | None = None,
        start: Callable[[], None] | None = None,
    ) -> None:
        """Make a tree of a directory, or of another tree, which cannot be changed from then on.

        ``backend`` is "auto" or the name of one (docs/copy-on-write.md). Changes are gone with the tree unless
        ``upper`` names a directory, new or of an earlier tree of the same original, in which they stay. ``size`` is the
        most that they may take (bytes, or like "64M"); a program that wants more gets ENOSPC. ``place`` is where
        commands of the tree see it, the original's path unless given. Without ``tripwire`` nobody looks whether the
        original was changed. ``temporary`` is where directories may be made, ``start`` is called before a lab is
        started.

        Raises :class:`UsageError` for what makes no sense, :class:`LabError` for a source that cannot be read,
        :class:`Unavailable` when the backend does not work here.
        """
        self.closed = True
        self._kept: list[Layer] = []
        self._plain = not isinstance(source, (Tree, Stored))
        self._upper = None if upper is None else os.path.abspath(upper)
        try:
            lowers, self.place = self._open(source)
            if place is not None:
                self.place = _absolute(place)
            described = self._described(lowers)
            times = [now_on(lower.layer) for lower in lowers]
            self._since, own = (times, {}) if described is None else (described.since, described.own)
            self._known = commits.Known(self._since[0], own)
            watched = [(lower, since) for lower, since in zip(lowers, times, strict=True) if lower.stage is None]
            self._wires = [Tripwire(lower.layer, lower.path, since) for lower, since in watched if tripwire]
            where = None if temporary is None else os.fspath(temporary)
            request = Request(lowers, self.place, self._upper, _size(size), where, start)
            wanted = described.backend if described is not None and backend == AUTO else backend
            self._check_backend(described, wanted)
            self._backend, self.reason = choose(wanted, request)
        except BaseException as error:
            self._release()
            if isinstance(error, OSError):
                raise self._failure(error) from error
            raise
        self._lowers = lowers
        self.closed = self.frozen = False
        self._snapshots: set[str] = set()
        if self._upper is not None and described is None:
            self._describe(self._upper)

    def _open(self, source: Name | Tree | Stored) -> tuple[list[Lower], str]:
        """Return the layers that are to lie below, and where they are seen."""
        if isinstance(source, Tree):
            source.freeze()
            return source._backend.lowers(), source.place  # noqa: SLF001 - of our own kind
        if isinstance(source, Stored):
            return [Lower(path, self._layer(path)) for path in source.lowers], source.place
        path = os.path.realpath(source)
        layer = self._layer(path)
        commits.finish(layer, path)
        return [Lower(path, layer)], path

    def _failure(self, error: OSError) -> LabError:
        """Return what tells people where it failed, and what would help."""
        named = os.fsdecode(error.filename) if error.filename else self._upper or ""
        where = _DESCRIPTOR.sub("", named)  # of a path that begins with a descriptor, what is below that
        at = f", at {where}" if where else ""
        return LabError(
            "make a copy-on-write tree of", f"{self.place}{at}", error.errno or 0, _HELP.get(error.errno or 0, "")
        )

    def _layer(self, path: str) -> Layer:
        try:
            layer = Layer.at(path)
            self._kept.append(layer)
        except OSError as error:
            remedy = {
                errno.ENOENT: "name a directory that exists",
                errno.ENOTDIR: "a directory is needed: take the one that the file is in",
                errno.EACCES: "this user may not read it",
                errno.ELOOP: "its symbolic links lead in a circle",
                errno.ENAMETOOLONG: "the kernel takes paths of 4,095 bytes: give a relative one, from nearer to it",
            }.get(error.errno or 0, "")
            raise LabError("make a copy-on-write tree of", path, error.errno or 0, remedy) from None
        return layer

    def _described(self, lowers: Sequence[Lower]) -> store.Description | None:
        """Return what the store on disk says of the tree that it is of. Raises :class:`UsageError` for another's."""
        if self._upper is None:
            return None
        for lower in lowers:
            if lower.stage is not None:
                raise UsageError("upper= is for a tree of a directory, or of a tree that has an upper= itself")
            store.check_apart(self._upper, lower.path)
        found = store.read(self._upper)
        if found is not None and found.lowers != [lower.path for lower in lowers]:
            raise UsageError(
                f"upper {self._upper} has changes of {found.lowers[0]}, not of {lowers[0].path}: name another"
            )
        return found

    def _check_backend(self, described: store.Description | None, wanted: str) -> None:
        if described is not None and described.backend != wanted:
            raise UsageError(
                f"upper {self._upper} was made by the backend {described.backend}, whose notes {wanted} does not know: "
                "go on with that, or name another directory"
            )

    def _describe(self, directory: str) -> None:
        """Let a store on disk say what it is of."""
        paths = [lower.path for lower in self._lowers]
        store.write(directory, store.Description(paths, self._since, self.backend, self.place, own=self._known.own))

    @property
    def backend(self) -> str:
        """The name of the backend."""
        return self._backend.name

    @property
    def trust(self) -> str:
        """What the backend protects the original from, in a sentence."""
        return self._backend.trust

    @property
    def refused(self) -> list[str]:
        """What programs wanted and did not get, since the backend could not serve it: "CALL PATH: REASON" each."""
        return self._backend.refused()

    # Where it is.

    def __fspath__(self) -> str:
        """Return a path that this process and its children can use until the tree is closed; never the original's.

        An absolute symbolic link in the tree leads from there to what it names on the machine, which may be the
        original: :meth:`open` follows it in the tree. On the backend preload there is no path: raises TypeError.
        """
        self._check()
        return self._backend.path()

    @property
    def path(self) -> Path:
        """The same as a :class:`pathlib.Path`."""
        return Path(os.fspath(self))

    def __truediv__(self, name: Name) -> Path:
        """Return the path of something in it."""
        return self.path / name

    @property
    def env(self) -> dict[str, str]:
        """An environment for ``subprocess``: this process's, with what programs need to be in the tree.

        POOR_CONTAINER_TREE is the path by which they reach it.
        """
        self._check()
        try:
            where = self._backend.path()
        except TypeError:
            where = self.place
        return environment({"POOR_CONTAINER_TREE": where, **self._backend.env()})

    def attach(self, handle: Handle, target: str | bytes) -> Attached:
        """Let a container see the tree at a path of its own; ``container.mount(tree, target)`` does that."""
        self._check()
        return self._backend.attach(handle, target)

    def root(self, lab: Lab, *, readonly: bool) -> int:
        """Return a lab's number of the tree as a root; ``Container(rootfs=tree)`` asks for it."""
        self._check()
        return self._backend.root(lab, readonly=readonly)

    @property
    def roots(self) -> Roots:
        """Which containers have it as their root."""
        return self._backend.roots

    # What has changed.

    def diff(self) -> Changes:
        """Return what is different from the original: path to "added", "modified", "deleted" or "metadata"."""
        self._check()
        return self._backend.changes()

    def diff_text(self, changes: Changes | None = None) -> str:
        """Return the changes for people: of text files what diff -u shows of them."""
        wanted = self.diff() if changes is None else changes
        return "\n".join(Comparison(self._backend.view, self._backend.lower).text(wanted))

    def assert_only_changed(self, *patterns: Name) -> None:
        """Raise AssertionError, with the difference as text, if anything has changed that no pattern matches.

        A pattern matches a whole path: "*" is in one name, "**" any number of names ("data/**", "**/*.log").
        """
        __tracebackhide__ = True
        others = self.diff().without(os.fspath(pattern) for pattern in patterns)
        if others:
            but = f" beside {', '.join(repr(os.fspath(pattern)) for pattern in patterns)}" if patterns else ""
            raise AssertionError(
                f"{len(others)} path{'s' * (len(others) != 1)} of {self.place} changed{but}:\n{self.diff_text(others)}"
            )

    def assert_unchanged(self) -> None:
        """Raise AssertionError if anything has changed."""
        __tracebackhide__ = True
        self.assert_only_changed()

    # Changes taken back, kept, made the original's.

    def reset(self, *paths: Name) -> None:
        """Take changes back: those whose path, or a directory above, a pattern matches; all without patterns.

        All names of a file that has several go together. Containers that have the tree mounted get it anew; what they
        have open is still the old one's.
        """
        self._check_changeable("reset")
        self._backend.reset(self._with_links(self._chosen(paths)) if paths else None)

    def snapshot(self, name: str = "1") -> None:
        """Keep all changes under a name; a former snapshot of that name is replaced."""
        self._check()
        _check_name(name)
        self._backend.save(name)

    def restore(self, name: str = "1") -> None:
        """Make the changes those of a snapshot, which stays. Raises :class:`UsageError` when there is none."""
        self._check_changeable("restore")
        _check_name(name)
        self._backend.load(name)

    def commit(self, paths: Iterable[Name] | None = None) -> Changes:
        """Make changes the original's own: all, or those that a pattern matches; return them.

        All of them or none: what interrupts it is finished by the next tree or commit on the original. Raises
        :class:`CommitRefused` when a path has changed in the original since the tree was made, :class:`UsageError`
        for a tree on a tree, :class:`LabError` when this user may not change a directory of the original, OSError.
        """
        self._check()
        self._check_idle("commit")
        if not self._plain:
            raise UsageError(
                "commit: the tree stands on another tree, which must not change; export_oci or copy it instead"
            )
        wanted = self.diff() if paths is None else self._with_parents(self._chosen(list(paths)))
        if wanted:
            lower = self._lowers[0]
            commits.commit(
                lower.layer,
                self._backend.view,
                wanted,
                self._known,
                lower.path,
                owners=self._backend.owners,
                apart=self._backend.apart,
                taker=self._backend.copier,
            )
            if self._upper is not None:
                self._describe(self._upper)
        return wanted

    def export_oci(self, file: Name) -> None:
        """Write the changes as a layer of an OCI image, compressed if the name ends in .gz, .xz or .bz2."""
        self._check()
        oci.export(self._backend.view, self._backend.lower, self.diff(), file)

    def freeze(self) -> None:
        """Let nobody change the tree from now on; trees that stand on it need that."""
        self._check()
        self._check_idle("freeze")
        self._backend.freeze()
        self.frozen = True

    def _chosen(self, paths: Sequence[Name]) -> Changes:
        """Return the changes that are meant, and those below. Raises :class:`UsageError` for what is nowhere."""
        changes = self.diff()
        texts = [self._pattern(path) for path in paths]
        for text in texts:
            if not _GLOB & set(text) and not any(path == text or path.startswith(f"{text}/") for path in changes):
                view, lower = self._backend.view, self._backend.lower
                if text != "." and not view.find(text) and not lower.find(text):
                    raise UsageError(f"there is no {text!r}, neither in the tree nor in {self.place}")
        fits = matcher([*texts, *(f"{text}/**" for text in texts if text != ".")])
        return Changes((path, kind) for path, kind in changes.items() if fits(path))

    def _pattern(self, path: Name) -> str:
        return self._backend.view.inside(os.path.normpath(os.fspath(path)))

    def _with_parents(self, chosen: Changes) -> Changes:
        """Add the directories that are new, without which what is in them could not be made."""
        changes = self.diff()
        more = {}
        for path, kind in chosen.items():
            head = path.rpartition("/")[0]
            while head and kind != "deleted":
                if changes.get(head) in {"added", "modified"}:
                    more[head] = changes[head]
                head = head.rpartition("/")[0]
        return Changes(sorted({**chosen, **more}.items()))

    def _with_links(self, chosen: Changes) -> Changes:
        """Add the changed names that are of one file with a chosen one, now or in the original."""
        changes = self.diff()
        inodes = self._inodes(chosen)
        if not inodes:
            return chosen
        more = (path for path in changes if path not in chosen and inodes & self._inodes([path]))
        return Changes(sorted({**chosen, **{path: changes[path] for path in more}}.items()))

    def _inodes(self, paths: Iterable[str]) -> set[tuple[int, int]]:
        found = set()
        for path in paths:
            for view in (self._backend.view, self._backend.lower):
                stack = view.find("" if path == "." else path)
                info = stack[0].lstat("" if path == "." else path) if stack else None
                if info is not None and info.st_nlink > 1 and stat.S_ISREG(info.st_mode):
                    found.add((info.st_dev, info.st_ino))
        return found

    # The original.

    def check_original(self, *, most: int | None = MANY) -> bool:
        """Look whether the original was changed since the tree was made.

        Return False when it has more than ``most`` files to look at (None: look at all). Raises :class:`Damaged` that
        names what was changed.
        """
        for wire in self._wires:
            found = wire.look(most)
            if found is None:
                return False
            if found:
                raise Damaged(wire.name, found, self.backend)
        return True

    @property
    def watched(self) -> list[tuple[str, int]]:
        """The directories that :meth:`check_original` looks at, each with the ctime from which on changes count."""
        return [(wire.name, wire.since) for wire in self._wires]

    # Its end.

    def _check_changeable(self, what: str) -> None:
        self._check()
        if self.frozen:
            raise UsageError(f"{what}: other trees stand on this one, so it must not change")
        self._check_idle(what)

    def _check_idle(self, what: str) -> None:
        """Raise :class:`UsageError` if the tree is the root of a container, which has mounts all over it."""
        names = self._backend.roots.users()
        if names:
            raise UsageError(
                f"{what}: the tree is the root of container {', '.join(names)}, and cannot be taken from under it: "
                "close that before; diff, snapshot and export_oci work meanwhile"
            )

    def close(self) -> None:
        """Give the tree up, and its changes with it unless they are in an ``upper``. Idempotent."""
        if self.closed:
            return
        self.closed = True
        try:
            self._backend.close()
        finally:
            self._release()

    def _release(self) -> None:
        while self._kept:
            self._kept.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        """Show what it is of, and how."""
        if not hasattr(self, "_backend"):
            return f"<{type(self).__name__}>"
        return f"<{type(self).__name__} of {self.place}, {self.backend}{' (closed)' if self.closed else ''}>"


def _size(size: int | str | None) -> str | None:
    """Return a size as tmpfs(5) takes it. Raises :class:`UsageError`."""
    text = str(size) if size is not None else None
    if text is not None and not (text.rstrip("kKmMgG%").isdigit() and len(text) - len(text.rstrip("kKmMgG%")) <= 1):
        raise UsageError(f"size is a number of bytes, or one with k, M, G or %, such as '64M', not {size!r}")
    return text


def _absolute(place: Name) -> str:
    """Return where commands are to see a tree. Raises :class:`UsageError`."""
    text = os.path.normpath(place)
    if not text.startswith("/") or text == "/":
        raise UsageError(f"place is an absolute path, and not /, such as '/srv/app', not {os.fspath(place)!r}")
    return text


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name or "/" in name or "\0" in name or len(os.fsencode(name)) > _NAME_MAX:
        raise UsageError(f"the name of a snapshot is a word of at most {_NAME_MAX} bytes without a slash, not {name!r}")
