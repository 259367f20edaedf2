"""Checksums that archives publish: SHA256SUMS and the like, and the lists in apt's Release files."""

from __future__ import annotations

import os
import posixpath
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["NAMES", "parse", "published"]

NAMES = (
    "SHA512SUMS",
    "SHA256SUMS",
    "SHA1SUMS",
    "MD5SUMS",
    "sha512sum.txt",
    "sha256sum.txt",
    "sha256sums.txt",
    "md5sum.txt",
    "Release",
    "InRelease",
)
"""The files that are looked into, the strongest last in what counts (a later one overrides none)."""

_BY_DIGITS = {128: "sha512", 64: "sha256", 40: "sha1", 32: "md5"}
_ORDER = {"sha512": 3, "sha256": 2, "sha1": 1, "md5": 0}
_PLAIN = re.compile(rb"([0-9a-fA-F]{32,128})[ \t]+\*?(?:\./)?([^\r\n]+)")
_BSD = re.compile(rb"[A-Z0-9-]+ \(([^\r\n]+)\) = ([0-9a-fA-F]{32,128})")
_RELEASE = re.compile(rb" +([0-9a-fA-F]{32,128}) +\d+ +([^\r\n]+)")
_LARGEST = 64 << 20
_DEEPEST = 6


def parse(data: bytes) -> dict[str, tuple[str, str]]:
    """Return (algorithm, digits) of each path that a checksum file names, relative to the file's directory."""
    found: dict[str, tuple[str, str]] = {}
    for line in data[:_LARGEST].split(b"\n"):
        plain = _PLAIN.match(line) or _RELEASE.match(line)
        bsd = None if plain else _BSD.match(line)
        if plain:
            digits, name = plain[1], plain[2]
        elif bsd:
            name, digits = bsd[1], bsd[2]
        else:
            continue
        algorithm = _BY_DIGITS.get(len(digits))
        path = os.fsdecode(name.rstrip(b"\r "))
        if algorithm is None or path.startswith(("/", "../")) or "/../" in path:
            continue
        if path not in found or _ORDER[algorithm] > _ORDER[found[path][0]]:
            found[path] = (algorithm, digits.decode("ascii").lower())
    return found


def published(
    paths: set[str], read: Callable[[str], bytes | None], there: set[str]
) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield (path, (algorithm, digits)) for those of ``paths`` that a checksum file beside or above them names.

    ``read`` returns the content of a file of the mirror, None when there is none; ``there`` are the checksum files that
    the source has. Release files stand above what they name, the others beside it.
    """
    by_directory: dict[str, list[str]] = {}
    for path in paths:
        by_directory.setdefault(posixpath.dirname(path), []).append(path)
    known: dict[str, dict[str, tuple[str, str]]] = {}
    for directory, names in by_directory.items():
        for base, file in _candidates(directory):
            if file not in there:
                continue
            if file not in known:
                known[file] = parse(read(file) or b"")
            for path in names:
                inner = path[len(base) + 1 :] if base else path
                if path != file and inner in known[file]:
                    yield path, known[file][inner]


def _candidates(directory: str) -> Iterator[tuple[str, str]]:
    """Yield (directory, path) of the files that may name what is in a directory, the strongest first."""
    above = directory
    for level in range(_DEEPEST):
        for name in NAMES if level == 0 else NAMES[-2:]:
            yield above, posixpath.join(above, name)
        if not above:
            return
        above = posixpath.dirname(above)
