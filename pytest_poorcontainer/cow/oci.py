"""Changes as a layer of an OCI image (image-spec, layer.md): a tar with whiteouts as files ``.wh.NAME``."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import tarfile
from typing import IO, TYPE_CHECKING, Any, cast

from pytest_poorcontainer.cow import overlayfs
from pytest_poorcontainer.cow.changes import DELETED, METADATA, Changes
from pytest_poorcontainer.errors import UsageError

if TYPE_CHECKING:
    from pytest_poorcontainer.cow.layer import Layer
    from pytest_poorcontainer.cow.view import View

__all__ = ["export"]

_WHITEOUT = ".wh."
_NAME_MAX = 255


def export(view: View, lower: View, changes: Changes, file: str | os.PathLike[str]) -> None:
    """Write the changes of a view as a layer; with a name that ends in .gz (.tgz, .xz, .bz2) compressed.

    Raises :class:`UsageError` for a name that a layer cannot hold (one that begins with ``.wh.``, or the deletion of
    one too long for that), and OSError; then the file is not made.
    """
    for path, kind in changes.items():
        _check(path, kind)
    name = os.fspath(file)
    part = f"{name}.part"
    try:
        with (
            _opened(part, os.path.splitext(name)[1]) as out,
            tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            _write(tar, view, lower, changes)
        os.replace(part, name)
    except BaseException:
        if os.path.exists(part):
            os.unlink(part)
        raise


def _opened(path: str, suffix: str) -> IO[Any]:
    """Open a file for writing, through what compresses it."""
    if suffix in {".gz", ".tgz"}:
        return cast("IO[Any]", gzip.open(path, "wb"))
    if suffix == ".xz":
        return lzma.open(path, "wb")
    return bz2.open(path, "wb") if suffix == ".bz2" else open(path, "wb")


def _check(path: str, kind: str) -> None:
    name = path.rpartition("/")[2]
    if name.startswith(_WHITEOUT):
        raise UsageError(
            f"cannot export {path!r}: in a layer a name that begins with .wh. says that another one is gone"
        )
    if kind == DELETED and len(os.fsencode(name)) + len(_WHITEOUT) > _NAME_MAX:
        raise UsageError(
            f"cannot export the deletion of {path!r}: with .wh. before it the name is longer than 255 bytes"
        )


def _write(tar: tarfile.TarFile, view: View, lower: View, changes: Changes) -> None:
    parents: set[str] = set()
    links: dict[tuple[int, int], str] = {}
    for path, kind in changes.items():
        head, slash, name = path.rpartition("/")
        if kind == DELETED:
            if changes.get(head) != DELETED and view.find(head) and stat.S_ISDIR(view.lstat(head).st_mode):
                _parents(tar, view, changes, path, parents)
                tar.addfile(tarfile.TarInfo(f"{head}{slash}{_WHITEOUT}{name}"))
            continue
        _parents(tar, view, changes, path, parents)
        if path != "." and kind != METADATA and lower.find(path) and _kind(view, path) != _kind(lower, path):
            tar.addfile(tarfile.TarInfo(f"{head}{slash}{_WHITEOUT}{name}"))
        _add(tar, view, path, links)


def _kind(view: View, path: str) -> int:
    return stat.S_IFMT(view.lstat(path).st_mode)


def _parents(tar: tarfile.TarFile, view: View, changes: Changes, path: str, done: set[str]) -> None:
    """Add the directories above a path that are not among the changes, with the modes that they have."""
    parts = path.split("/")[:-1]
    for number in range(1, len(parts) + 1):
        directory = "/".join(parts[:number])
        if directory not in done and directory not in changes:
            done.add(directory)
            _add(tar, view, directory, {})


def _add(tar: tarfile.TarFile, view: View, path: str, links: dict[tuple[int, int], str]) -> None:
    name = "" if path == "." else path
    layer = view.stack(name)[0]
    info = layer.lstat(name)
    if stat.S_ISSOCK(info.st_mode):
        return  # tar(5) has none, and nobody listens on a copy
    member = tarfile.TarInfo(path)
    member.mode, member.uid, member.gid = stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid
    member.mtime = info.st_mtime_ns // 10**9
    member.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in _xattrs(layer, name).items()}
    key = info.st_dev, info.st_ino
    if stat.S_ISREG(info.st_mode):
        if info.st_nlink > 1 and key in links:
            member.type, member.linkname = tarfile.LNKTYPE, links[key]
            tar.addfile(member)
            return
        links[key] = path
        member.size = info.st_size
        with os.fdopen(layer.open(name), "rb") as content:
            tar.addfile(member, content)
        return
    if stat.S_ISDIR(info.st_mode):
        member.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(info.st_mode):
        member.type, member.linkname = tarfile.SYMTYPE, layer.readlink(name)
    elif stat.S_ISFIFO(info.st_mode):
        member.type = tarfile.FIFOTYPE
    else:
        member.type = tarfile.CHRTYPE if stat.S_ISCHR(info.st_mode) else tarfile.BLKTYPE
        member.devmajor, member.devminor = os.major(info.st_rdev), os.minor(info.st_rdev)
    tar.addfile(member)


def _xattrs(layer: Layer, path: str) -> dict[str, str]:
    """Return the extended attributes that are the file's own, as tar(1) writes them."""
    with layer.place(path) as place:
        try:
            names = os.listxattr(place, follow_symlinks=False)
        except OSError:
            return {}
        return {
            name: os.getxattr(place, name, follow_symlinks=False).decode("utf-8", "surrogateescape")
            for name in names
            if not overlayfs.is_own(name)
        }
