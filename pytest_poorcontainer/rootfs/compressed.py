"""Compressed files as streams, told apart by their first bytes and not by their names."""

from __future__ import annotations

import bz2
import gzip
import importlib
import importlib.util
import lzma
import zlib
from typing import TYPE_CHECKING, BinaryIO, cast

from pytest_poorcontainer.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DAMAGED", "decompressed", "kind"]

DAMAGED = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)
"""What reading a damaged or truncated stream raises; bz2 raises OSError without an errno."""

# RFC 1952, bzip2's and the xz file format's magic, RFC 8878.
_MAGIC = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"))
_ZSTD = ("compression.zstd", "backports.zstd", "zstandard")


def kind(start: bytes) -> str:
    """Return how a file is compressed that begins with these bytes; "" when it is not."""
    return next((name for magic, name in _MAGIC if start.startswith(magic)), "")


def decompressed(file: BinaryIO, start: bytes) -> BinaryIO:
    """Return the content of an open file that begins with these bytes. The file stays the caller's.

    Raises :class:`Unavailable` for zstd where this Python cannot read it; reading raises one of :data:`DAMAGED`.
    """
    name = kind(start)
    if name == "gzip":
        return cast("BinaryIO", gzip.GzipFile(fileobj=file))
    if name == "bzip2":
        return cast("BinaryIO", bz2.BZ2File(file))
    if name == "xz":
        return cast("BinaryIO", lzma.LZMAFile(file))
    return _zstd()(file) if name == "zstd" else file


def _zstd() -> Callable[[BinaryIO], BinaryIO]:
    for name in _ZSTD:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        if name == "zstandard":
            reader = module.ZstdDecompressor().stream_reader
            return lambda file: cast("BinaryIO", reader(file, read_across_frames=True, closefd=False))
        return cast("Callable[[BinaryIO], BinaryIO]", module.ZstdFile)
    raise Unavailable(
        "zstd",
        "Python reads it from 3.14 on, and neither zstandard nor backports.zstd is installed",
        "pip install zstandard, or compress the tarball with gzip or xz",
    )
