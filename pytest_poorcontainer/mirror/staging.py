"""Where files arrive: each in a temporary file beside the tree, and under its name only when it is whole.

A rename within one file system is atomic (rename(2)): a reader sees the old file or the new one, and being killed
leaves nothing worse than a temporary file. Those of large files carry a hash of path, size and time in their names, so
that the next run can go on with one, if the source still has that very file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from typing import TYPE_CHECKING, Any, Protocol

from pytest_poorcontainer.mirror.errors import BadDestination, NoSpace
from pytest_poorcontainer.mirror.plan import INDEX, Want, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_poorcontainer.mirror.tree import Tree

__all__ = ["LARGE", "Failure", "Incoming", "Receiver", "Stage"]

LARGE = 1 << 20
"""From this size on (bytes) a file is written as it comes, and can be resumed."""

_VECTOR = 1024  # IOV_MAX
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_VALIDATOR = 512  # bytes of an ETag or a date


class Failure(Exception):
    """Why a file did not come whole. ``kind`` is "gone", "cut", "size", "checksum" or "refused"."""

    def __init__(self, kind: str, reason: str) -> None:
        """Keep both apart."""
        super().__init__(reason)
        self.kind = kind


class Receiver(Protocol):
    """What a source delivers to."""

    def incoming(self, want: Want) -> Incoming:
        """Return what takes the bytes of a file."""

    def arrived(self, incoming: Incoming, mtime: float | None) -> None:
        """Take a file that is complete as far as the source can tell; raises :class:`Failure`."""

    def unchanged(self, want: Want) -> None:
        """Note that a file that was asked about is the one that we have."""

    def failed(self, want: Want, failure: Failure) -> None:
        """Note that a file did not come."""


class Incoming:
    """One file on its way. Small ones stay in memory until they are whole; large ones are written as they come."""

    __slots__ = ("_chunks", "_fd", "_stage", "_waiting", "name", "size", "want")

    def __init__(self, stage: Stage, want: Want) -> None:
        """Begin with nothing."""
        self.want = want
        self.size = 0
        self.name = ""
        self._stage = stage
        self._chunks: list[bytes] = []
        self._waiting = 0
        self._fd = -1

    def data(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes, in pieces that are worth a call of the kernel each. Raises OSError."""
        count = len(chunk)
        self.size += count
        self._stage.bytes += count
        if self._fd >= 0 and not self._waiting:
            _write(self._fd, (chunk,))
            return
        self._chunks.append(bytes(chunk))
        self._waiting += count
        if self._waiting >= LARGE:
            self._flush()

    def _flush(self) -> None:
        """Write what is in memory."""
        if self._fd < 0:
            self._fd = self._stage.create(self)
        chunks, self._chunks, self._waiting = self._chunks, [], 0
        for start in range(0, len(chunks), _VECTOR):
            _write(self._fd, chunks[start : start + _VECTOR])

    def resume(self) -> tuple[int, str]:
        """Open what an earlier run has left of this file; return (bytes that are there, the server's validator)."""
        if self.want.size is None or self.want.size < LARGE:
            return 0, ""
        self._fd, self.size, validator = self._stage.reopen(self)
        return self.size, validator

    def validator(self, text: str) -> None:
        """Remember what tells whether the rest is of the same file: an ETag or a date."""
        self._flush()
        with contextlib.suppress(OSError):  # a file system without extended attributes: no resuming then
            os.setxattr(self._fd, "user.poor_mirror", text.encode()[:_VALIDATOR])

    def descriptor(self) -> int:
        """Return the descriptor of the temporary file, for who writes to it by other means and counts ``size``."""
        if self._fd < 0:
            self._fd = self._stage.create(self)
        return self._fd

    def restart(self) -> None:
        """Forget all bytes: the server sends the file from its beginning."""
        self.size = self._waiting = 0
        self._chunks.clear()
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)

    def close(self, *, keep: bool) -> None:
        """Give up on this file for now; ``keep`` what is there for another attempt."""
        try:
            if keep and self._fd >= 0:
                self._flush()
        finally:
            self._chunks.clear()
            self._waiting = 0
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
                if not keep:
                    self._stage.drop(self.name)

    def digest(self, algorithm: str) -> str:
        """Return the checksum of all bytes as hexadecimal digits."""
        import hashlib  # noqa: PLC0415 - only where checksums are published

        found = hashlib.new(algorithm, usedforsecurity=False)
        if self._fd < 0:
            for chunk in self._chunks:
                found.update(chunk)
            return found.hexdigest()
        self._flush()
        place = 0
        while chunk := os.pread(self._fd, LARGE, place):
            found.update(chunk)
            place += len(chunk)
        return found.hexdigest()

    def settle(self, mtime: float | None) -> str:
        """Write what is still in memory, set mode and time, and return the name of the temporary file."""
        self._flush()
        self._stage.admit(self._fd, executable=self.want.executable)
        if mtime is not None:
            when = int(mtime * 1e9) if mtime != int(mtime) else int(mtime) * 10**9
            os.utime(self._fd, ns=(when, when))
        os.close(self._fd)
        self._fd = -1
        return self.name


def _write(fd: int, chunks: Sequence[bytes | memoryview]) -> None:
    """Write all of these; a short write (the disk is nearly full) goes on with the rest."""
    written = os.writev(fd, chunks)
    if written == (len(chunks[0]) if len(chunks) == 1 else sum(map(len, chunks))):
        return
    left = memoryview(b"".join(chunks))[written:]
    while left:
        left = left[os.write(fd, left) :]


class Stage:
    """The temporary directory of one run, and what becomes of the files in it."""

    def __init__(self, tree: Tree, fd: int, dates: Callable[[str], bool] = lambda _: True) -> None:
        """``fd`` is the temporary directory, on the file system of the tree.

        ``dates`` says of a path whether its time tells how old the content is; ``newest`` is the latest of those times.
        """
        self.dates = dates
        self.newest = 0.0
        self._tree = tree
        self._fd = fd
        self._count = 0
        self._plain = False
        self._prefix = f"{os.getpid()}.{time.monotonic_ns() % 10**12}"
        self.files = 0
        self.bytes = 0
        self.published = 0
        self.same = 0
        self.waiting: dict[str, tuple[str, Want, int]] = {}
        self.failures: list[tuple[Want, Failure]] = []
        self.checksums: dict[str, tuple[str, str]] = {}
        self.displaced: set[str] = set()

    def incoming(self, want: Want) -> Incoming:
        """Return what takes the bytes of a file."""
        return Incoming(self, want)

    def received(self, count: int) -> None:
        """Count bytes."""
        self.bytes += count

    def create(self, incoming: Incoming) -> int:
        """Create the temporary file; return its descriptor."""
        want = incoming.want
        if want.size is not None and want.size >= LARGE:
            incoming.name = _resumable(want)
        else:
            self._count += 1
            incoming.name = f"{self._prefix}.{self._count}"
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(incoming.name, flags, 0o644, dir_fd=self._fd)

    def admit(self, fd: int, *, executable: bool) -> None:
        """Give a file the mode that readers need, unless the umask leaves it to every new file anyway."""
        if executable or not self._plain:
            os.fchmod(fd, 0o755 if executable else 0o644)
        if not executable and not self._plain:
            name = f"{self._prefix}.mode"
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=self._fd))
            self._plain = os.stat(name, dir_fd=self._fd).st_mode & 0o777 == 0o644  # noqa: PLR2004 - a mode
            os.unlink(name, dir_fd=self._fd)

    def reopen(self, incoming: Incoming) -> tuple[int, int, str]:
        """Open what there is of a file; return (descriptor, bytes, validator), a descriptor of -1 when nothing is."""
        incoming.name = _resumable(incoming.want)
        try:
            fd = os.open(incoming.name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
        except FileNotFoundError:
            return -1, 0, ""
        size = os.fstat(fd).st_size
        try:
            validator = os.getxattr(fd, "user.poor_mirror").decode("ascii", "replace")
        except OSError:
            validator = ""
        if size and (incoming.want.size is None or size < incoming.want.size):
            os.lseek(fd, size, os.SEEK_SET)
            return fd, size, validator
        os.ftruncate(fd, 0)
        return fd, 0, ""

    def drop(self, name: str) -> None:
        """Remove a temporary file."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)

    def arrived(self, incoming: Incoming, mtime: float | None) -> None:
        """Check a file and publish it, or keep it for :meth:`publish` when it is an index.

        Raises :class:`Failure` when size or checksum are wrong, :class:`NoSpace`.
        """
        want = incoming.want
        if want.size is not None and abs(incoming.size - want.size) > want.slack:
            reason = f"{incoming.size} bytes came, but the listing says {want.size}"
            incoming.close(keep=False)
            raise Failure("size", reason)
        expected = self.checksums.get(want.path) if self.checksums else None
        if expected is not None and incoming.digest(expected[0]) != expected[1]:
            incoming.close(keep=False)
            raise Failure("checksum", f"its {expected[0]} is not the published one")
        try:
            when = _best_time(want, mtime)
            if when is not None and when > self.newest and self.dates(want.path):
                self.newest = when
            name = incoming.settle(when)
            self.files += 1
            self.take(name, want, incoming.size)
        except OSError as error:
            incoming.close(keep=False)
            raise disk_error(error, want.path) from error

    def adopt(self, fd: int, name: str, want: Want) -> bool:
        """Take over a file that another program has put into the directory ``fd``; whether there is one.

        Raises as :meth:`arrived`.
        """
        try:
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(found.st_mode):
            return False
        size = found.st_size
        if want.size is not None and size != want.size:
            raise Failure("size", f"{size} bytes came, but the listing says {want.size}")
        expected = self.checksums.get(want.path) if self.checksums else None
        mode = 0o755 if want.executable else 0o644
        late = want.mtime is not None and int(found.st_mtime) != int(want.mtime)
        if expected is not None or late or found.st_mode & 0o7777 != mode:
            self._finish(fd, name, mode, want.mtime if late else None, expected)
        self.files += 1
        if want.stage == INDEX:
            self._count += 1
            own = f"{self._prefix}.{self._count}"
            os.rename(name, own, src_dir_fd=fd, dst_dir_fd=self._fd)
            self.waiting[want.path] = (own, want, size)
        else:
            self._publish(name, want.path, fd)
        return True

    def _finish(self, fd: int, name: str, mode: int, mtime: float | None, expected: tuple[str, str] | None) -> None:
        """Check the content of a file, and set its mode and time. Raises :class:`Failure`."""
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        try:
            if expected is not None:
                import hashlib  # noqa: PLC0415 - as in Incoming.digest

                with open(file, "rb", closefd=False) as content:
                    found = hashlib.file_digest(content, expected[0]) if hasattr(hashlib, "file_digest") else None
                    content.seek(0)
                    digits = found.hexdigest() if found else hashlib.new(expected[0], content.read()).hexdigest()
                if digits != expected[1]:
                    raise Failure("checksum", f"its {expected[0]} is not the published one")
            os.fchmod(file, mode)
            if mtime is not None:
                os.utime(file, (mtime, mtime))
        finally:
            os.close(file)

    def take(self, name: str, want: Want, size: int) -> None:
        """Publish a complete temporary file, or keep it for later if it is an index."""
        if want.stage == INDEX:
            self.waiting[want.path] = (name, want, size)
        else:
            self._publish(name, want.path)

    def _publish(self, name: str, path: str, fd: int = -1) -> None:
        if path in self.displaced:
            self.displaced.discard(path)
            self._displace(path)
        self._tree.rename(self._fd if fd < 0 else fd, name, path)
        self.published += 1

    def _displace(self, path: str) -> None:
        """Move a directory (or what is in the way of one) aside; the end of the run removes it."""
        with contextlib.suppress(FileNotFoundError):
            self._tree.displace(path, self._fd, f"old.{self._prefix}.{len(self.displaced)}")

    def directory(self, path: str) -> None:
        """Make a directory of the tree."""
        if path in self.displaced:
            self.displaced.discard(path)
            self._displace(path)
        self._tree.make(path)

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link under a temporary name, and move it to its place."""
        self._count += 1
        name = f"{self._prefix}.{self._count}"
        os.symlink(target, name, dir_fd=self._fd)
        self._publish(name, path)

    def publish(self) -> None:
        """Give the indexes their names, one directly after the other; those that vouch for others last."""
        for path in sorted(self.waiting, key=lambda one: (one.rpartition("/")[2] in {"Release", "InRelease"}, one)):
            self._publish(self.waiting.pop(path)[0], path)

    def unchanged(self, want: Want) -> None:  # noqa: ARG002 - a receiver's
        """Count a file that need not come, after all."""
        self.same += 1

    def failed(self, want: Want, failure: Failure) -> None:
        """Remember a file that did not come."""
        self.failures.append((want, failure))

    def read_waiting(self, path: str) -> bytes | None:
        """Return the content of an index that has come and is not published yet."""
        waiting = self.waiting.get(path)
        if waiting is None:
            return None
        fd = os.open(waiting[0], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
        with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor
            return file.read()

    def clean(self, keep: set[str] | None = None) -> None:
        """Remove what is in the temporary directory, except for these names."""
        _empty(self._fd, keep or set())

    def resumable(self) -> set[str]:
        """Return the names of partial files that another run can go on with."""
        return {_resumable(want) for want, _ in self.failures if want.size is not None and want.size >= LARGE}


def _empty(fd: int, keep: set[str]) -> None:
    """Remove all below a directory, by descriptors."""
    with os.scandir(fd) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries if entry.name not in keep]
    for name, is_directory in found:
        with contextlib.suppress(FileNotFoundError):
            if not is_directory:
                os.unlink(name, dir_fd=fd)
                continue
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            try:
                _empty(below, set())
            finally:
                os.close(below)
            os.rmdir(name, dir_fd=fd)


def _resumable(want: Want) -> str:
    import hashlib  # noqa: PLC0415 - for large files

    text = f"{want.size} {want.mtime} ".encode() + os.fsencode(want.path)
    return "part." + hashlib.sha256(text).hexdigest()[:32]


def _best_time(want: Want, told: float | None) -> float | None:
    """Return the time to give a file: the server's exact one, unless that contradicts an exact listing.

    The next run compares with the listing, so a listing to the second has the last word.
    """
    if told is None or told < 0:
        return want.mtime
    if want.mtime is None or want.ask is not None or want.precision > 1:
        return told
    return told if want.mtime <= told < want.mtime + want.precision else want.mtime


def disk_error(error: OSError, path: str) -> Exception:
    """Return the error to raise for one of the destination's, ``path`` if the error knows none that readers know.

    :class:`NoSpace` if the disk is full, :class:`BadDestination` if another one is mounted in the tree.
    """
    if error.errno == errno.EXDEV:
        return BadDestination(
            f"cannot publish {printable(path)}: it belongs on another file system than the top of the mirror, and "
            "rename(2) stays on one: have the whole mirror on one, or make what is mounted in it a mirror of its own"
        )
    if error.errno in _FULL:
        return NoSpace(
            f"cannot write {printable(path)}: {error.strerror}; free some space, or take something out of the mirror"
        )
    return error


def count_free(fd: int, reserve: int, wanted: int, files: int) -> dict[str, Any]:
    """Return free and total bytes; raises :class:`NoSpace` when ``wanted`` bytes would leave less than ``reserve``."""
    found = os.fstatvfs(fd)
    free = found.f_bavail * found.f_frsize
    if wanted and free - reserve < wanted:
        raise NoSpace(
            f"the plan needs {wanted} bytes, and {free} are free, of which {reserve} are kept in reserve; free some "
            "space, or lower `reserve`"
        )
    if files and found.f_files and found.f_favail < files:
        raise NoSpace(
            f"the plan needs {files} new files, and the file system has room for {found.f_favail}; remove some"
        )
    return {"free": free, "total": found.f_blocks * found.f_frsize}
