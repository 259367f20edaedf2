"""``file://`` and plain paths: a tree on this machine, copied in the kernel, as reflinks where it can."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pytest_poorcontainer.mirror.entries import LINK, Entry, Listing
from pytest_poorcontainer.mirror.errors import BadConfig, SourceError
from pytest_poorcontainer.mirror.plan import printable
from pytest_poorcontainer.mirror.staging import LARGE, Failure
from pytest_poorcontainer.mirror.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_poorcontainer.mirror.plan import Want
    from pytest_poorcontainer.mirror.planner import Planner
    from pytest_poorcontainer.mirror.rules import Rules
    from pytest_poorcontainer.mirror.sources.base import Options, Source
    from pytest_poorcontainer.mirror.staging import Incoming, Stage

__all__ = ["FileSource", "open_url"]

_FICLONE = 0x40049409  # ioctl_ficlone(2)
_CHUNK = 8 << 20
_NOT_THERE = {
    errno.EXDEV,
    errno.EINVAL,
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.ENOSYS,
    errno.EPERM,
    errno.ETXTBSY,
    errno.EBADF,
}


def open_url(url: str, options: Options) -> Source:
    """Return the source of a file:// URL or a path; raises :class:`BadConfig`."""
    if url.startswith("file://"):
        parts = urlsplit(url)
        if parts.netloc not in {"", "localhost"}:
            raise BadConfig(f'the source "{url}" names a host: write file:///PATH')
        return FileSource(unquote(parts.path, errors="surrogateescape"), options)
    return FileSource(url, options)


def _belongs(below: Path, top: Path, rules: Rules) -> bool:
    """Whether a directory of the source belongs to what is copied: none of those above it is excluded."""
    parts = below.relative_to(top).parts
    return all(rules.wanted("/".join(parts[: count + 1]), is_directory=True) for count in range(len(parts)))


class FileSource:
    """A directory. It is read with the same care as it is written to: no link is followed."""

    protocol = "file"

    def __init__(self, path: str, options: Options) -> None:
        """Name the directory; raises nothing yet."""
        self.path = path
        self.url = f"file://{printable(str(Path(path).absolute()))}"
        self._options = options
        self._tree: Tree | None = None
        self._reflinks = True

    def close(self) -> None:
        """Close all descriptors. Idempotent."""
        if self._tree is not None:
            self._tree.close()
            self._tree = None

    def _opened(self) -> Tree:
        if self._tree is None:
            try:
                self._tree = Tree(self.path)
            except OSError as error:
                raise SourceError(
                    f"cannot open the source {printable(self.path)}: {error.strerror}; is it a directory that we may "
                    "read, and is its disk mounted?"
                ) from error
        return self._tree

    def survey(self, planner: Planner, tree: Tree, rules: Rules) -> None:
        """List all of it. Raises :class:`BadConfig` when one of source and destination would be copied into itself."""
        ours, theirs = Path(os.path.realpath(tree.path)), Path(os.path.realpath(self.path))
        if ours == theirs or ours in theirs.parents or (theirs in ours.parents and _belongs(ours, theirs, rules)):
            raise BadConfig(
                f"the source {theirs} and the destination {ours} are in one another: name a destination elsewhere"
            )
        paths = [""]
        while paths:
            path = paths.pop()
            try:
                listing = self._listing(path)
            except OSError as error:
                if not path:
                    raise SourceError(
                        f"cannot list {printable(self.path)}: {error.strerror}; may we read it?"
                    ) from error
                planner.failed(path, error.strerror or "")
            else:
                paths += planner.found(path, listing)

    def _listing(self, path: str) -> Listing:
        source = self._opened()
        source.directory(path)  # scan takes a directory that is not there for an empty one
        listing = Listing(dialect="file")
        for name, local in source.scan(path).items():
            target = source.target(f"{path}/{name}" if path else name) if local.kind == LINK else ""
            if local.kind != "?":
                size = local.size if local.kind == "f" else None
                listing.add(Entry(name, local.kind, size, local.mtime, 0.0, target=target, executable=local.executable))
        return listing

    def relist(self, directories: Iterable[str]) -> Mapping[str, Listing | None]:
        """List these directories once more."""
        found: dict[str, Listing | None] = {}
        for path in directories:
            try:
                found[path] = self._listing(path)
            except OSError:  # noqa: PERF203 - a directory costs more
                found[path] = None
        return found

    def fetch(self, wants: Iterable[Want], stage: Stage) -> None:
        """Copy these files."""
        for want in wants:
            try:
                try:
                    fd = self._opened().open(want.path)
                except OSError as error:
                    gone = error.errno in {errno.ENOENT, errno.ENOTDIR}
                    raise Failure("gone" if gone else "refused", error.strerror or "") from error
                try:
                    self._copy(fd, want, stage)
                finally:
                    os.close(fd)
            except Failure as failure:
                self._options.log(f"{printable(want.path)}: {failure}")
                stage.failed(want, failure)
            self._options.tick()

    def _copy(self, fd: int, want: Want, stage: Stage) -> None:
        incoming = stage.incoming(want)
        before = os.fstat(fd)
        if not self._cloned(fd, before.st_size, stage, incoming):
            while chunk := os.read(fd, _CHUNK):
                incoming.data(chunk)
        after = os.fstat(fd)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            incoming.close(keep=False)
            raise Failure("size", "it changed while it was copied")
        stage.arrived(incoming, want.mtime)

    def _cloned(self, fd: int, size: int, stage: Stage, incoming: Incoming) -> bool:
        """Have the kernel copy the file; whether it could."""
        if size < LARGE:
            return False
        out = incoming.descriptor()
        if self._reflinks:
            try:
                fcntl.ioctl(out, _FICLONE, fd)
            except OSError as error:
                self._reflinks = False
                if error.errno not in _NOT_THERE:
                    raise
            else:
                incoming.size = size
                stage.received(size)
                return True
        try:
            while count := os.copy_file_range(fd, out, _CHUNK):
                incoming.size += count
                stage.received(count)
        except OSError as error:
            if error.errno not in _NOT_THERE or incoming.size:
                raise
            return False
        return True

    def read(self, path: str, most: int, known: str = "") -> tuple[bytes | None, str]:
        """Return a small file, if its size and time are not the known ones."""
        fd = self._opened().open(path)
        try:
            found = os.fstat(fd)
            validator = f"{found.st_mtime_ns} {found.st_size}"
            return (None if validator == known else os.read(fd, most)), validator
        finally:
            os.close(fd)
