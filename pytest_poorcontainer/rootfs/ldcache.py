"""The cache that ldconfig(8) writes for glibc's dynamic loader: where the library of a name is.

Source: sysdeps/generic/dl-cache.h of glibc, ``struct cache_file_new``. The old format may stand before the new one
(until glibc 2.32).
"""

from __future__ import annotations

import struct

__all__ = ["PATH", "parse"]

PATH = "/etc/ld.so.cache"

_OLD, _NEW = b"ld.so-1.7.0", b"glibc-ld.so.cache1.1"
_OLD_HEADER, _OLD_ENTRY = 16, 12
_HEADER = struct.Struct("20sII20x")
_ENTRY = struct.Struct("iIIIQ")


def parse(data: bytes) -> dict[str, tuple[str, ...]]:
    """Return the paths of each library's name, in the order of the cache.

    Of a name there are as many as there are machines and glibc-hwcaps directories that have it: which of them fits only
    their headers tell. A cache of another format, or a damaged one, is as good as none: the loader ignores it as well.
    """
    if data.startswith(_OLD):
        (count,) = struct.unpack_from("I", data, 12) if len(data) >= _OLD_HEADER else (0,)
        data = data[-(-(_OLD_HEADER + count * _OLD_ENTRY) // 8) * 8 :]
    if len(data) < _HEADER.size:
        return {}
    magic, count, _ = _HEADER.unpack_from(data)
    if magic != _NEW or _HEADER.size + count * _ENTRY.size > len(data):
        return {}
    found: dict[str, list[str]] = {}
    entries = memoryview(data)[_HEADER.size : _HEADER.size + count * _ENTRY.size]
    for _, key, value, _, _ in _ENTRY.iter_unpack(entries):
        name, path = _text(data, key), _text(data, value)
        if name and path.startswith("/"):
            found.setdefault(name, []).append(path)
    return {name: tuple(paths) for name, paths in found.items()}


def _text(data: bytes, offset: int) -> str:
    end = data.find(b"\0", offset)
    return data[offset:end].decode("utf-8", "surrogateescape") if 0 <= offset < end else ""
