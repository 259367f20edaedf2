"""Tar archives into a tree: what may be in one, and what becomes of it."""

from __future__ import annotations

import math
import os
import tarfile
from typing import TYPE_CHECKING

from pytest_poorcontainer.rootfs.archive import Broken
from pytest_poorcontainer.rootfs.tree import parts

if TYPE_CHECKING:
    from pytest_poorcontainer.rootfs.archive import Archive
    from pytest_poorcontainer.rootfs.tree import Tree

__all__ = ["unpack"]

_TIME_MAX = 1 << 34  # seconds; what comes after is a mistake, and some file systems refuse it
_ID_MAX = (1 << 32) - 2
_BESIDE = {tarfile.CHRTYPE, tarfile.BLKTYPE}  # containers have a /dev of their own, and no other device works in them


def unpack(archive: Archive, tree: Tree) -> None:
    """Make in the tree what is in the archive. Device nodes are left out.

    Raises :class:`Broken` for an archive that is damaged or has a name or a link that leads out of it, and
    :class:`OSError`, whose ``filename`` is the name in the archive.
    """
    for member in archive:
        if member.type in _BESIDE:
            continue
        try:
            _make(archive, member, tree)
        except OSError as error:
            error.filename = member.name
            error.filename2 = None
            raise


def _make(archive: Archive, member: tarfile.TarInfo, tree: Tree) -> None:
    name = b"/".join(_parts(member, member.name, "name"))
    uid, gid = _id(member.uid), _id(member.gid)
    if member.isdir():
        tree.directory(name, member.mode, uid, gid, _nanoseconds(member.mtime))
    elif not name:
        raise Broken(f"has a file that is called {member.name!r}, like the root directory")
    elif member.issym():
        tree.symlink(name, _target(member, name), uid, gid)
    elif member.islnk():
        target = b"/".join(_parts(member, member.linkname, "hard link"))
        try:
            tree.link(name, target)
        except (FileNotFoundError, NotADirectoryError):
            raise Broken(
                f"has a hard link {member.name!r} to {member.linkname!r}, which does not stand before it"
            ) from None
    elif member.isfifo():
        tree.fifo(name, member.mode, uid, gid)
    elif member.isreg():
        _file(archive, member, tree, name, uid, gid)
    else:
        raise Broken(f"has {member.name!r}, which is of the unknown type {member.type!r}")


def _file(archive: Archive, member: tarfile.TarInfo, tree: Tree, name: bytes, uid: int, gid: int) -> None:
    fd = tree.file(name, member.mode, uid, gid)
    try:
        for offset, piece in archive.content(member):
            done = 0
            while done < len(piece):
                done += os.pwrite(fd, memoryview(piece)[done:], offset + done)
        if member.sparse is not None:
            os.ftruncate(fd, member.size)
        time = _nanoseconds(member.mtime)
        os.utime(fd, ns=(time, time))
    finally:
        os.close(fd)


def _parts(member: tarfile.TarInfo, name: str, what: str) -> list[bytes]:
    try:
        return parts(_bytes(name))
    except ValueError as error:
        of = "" if name is member.name else f" of {member.name!r}"
        raise Broken(f"climbs out: the {what} {name!r}{of} is refused, since {error}") from None


def _bytes(name: str) -> bytes:
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise Broken(f"has a name that no file can have: {name!r}") from None


def _target(member: tarfile.TarInfo, name: bytes) -> bytes:
    """Return what a symbolic link says. It may be absolute, which means the tree's root; it may not climb above it."""
    target = _bytes(member.linkname)
    if not target or b"\0" in target:
        raise Broken(f"has a symbolic link {member.name!r} that says {member.linkname!r}")
    depth = 0 if target.startswith(b"/") else name.count(b"/")
    for part in target.split(b"/"):
        depth += -1 if part == b".." else part not in {b"", b"."}
        if depth < 0:
            raise Broken(f"climbs out: the symbolic link {member.name!r} to {member.linkname!r} is refused")
    return target


def _id(number: int) -> int:
    return number if isinstance(number, int) and 0 <= number <= _ID_MAX else 0


def _nanoseconds(time: float) -> int:
    """Return a time as utime(2) takes it; pax headers can say "nan"."""
    return int(min(max(time, 0), _TIME_MAX) * 1_000_000_000) if math.isfinite(time) else 0
