"""Tar archives, read strictly: what :mod:`tarfile` takes for the end when it does not understand it is an error here.

The formats are those of tarfile: ustar and pax (POSIX.1-2001, pax), GNU tar's, old ones.
"""

from __future__ import annotations

import contextlib
import tarfile
from typing import TYPE_CHECKING, BinaryIO, cast

from pytest_poorcontainer.rootfs.compressed import DAMAGED, decompressed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

__all__ = ["Archive", "Broken", "start_of_tar"]

_BLOCK = tarfile.BLOCKSIZE
_HEADERS_MAX = 1 << 20  # bytes of names and attributes of one file; tarfile reads them into memory
_TAIL_MAX = 1 << 26  # bytes after the end of the archive; GNU tar fills up to 10 KiB
_CHUNK = 1 << 20
_SIZE_MAX = 1 << 62
_EXTENDED = {
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}


class Broken(Exception):
    """An archive is not what it should be; the text says how."""


class _Member(tarfile.TarInfo):
    """A header that is whole, or an error. tarfile itself takes a damaged one in the middle for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Return the header in a block."""
        if len(buf) != _BLOCK:
            raise Broken("is truncated: it has no end mark" if not buf else "is truncated in a header")
        if not any(buf):
            return super().frombuf(buf, encoding, errors)  # the end mark
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            raise Broken(f"is damaged: {error}") from None
        if member.size < 0:
            raise Broken(f"is damaged: the size of {member.name!r} is negative")
        if member.type in _EXTENDED and member.size > _HEADERS_MAX:
            raise Broken(f"is damaged: it has a header of {member.size} bytes")
        return member


def start_of_tar(start: bytes) -> bool:
    """Return whether a file that begins with these 512 bytes is an archive that is not compressed."""
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return len(start) == _BLOCK and not any(start)  # an empty archive
    return True


class _Forward:
    """What tarfile reads an archive from: a stream that knows where it is, and can go forward only."""

    def __init__(self, stream: BinaryIO) -> None:
        """Begin where the stream is."""
        self._stream = stream
        self._at = 0

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self._at

    def read(self, size: int) -> bytes:
        """Return as many bytes, fewer at the end of the stream."""
        found = self._stream.read(size)
        self._at += len(found)
        if len(found) == size:
            return found
        chunks = [found]
        left = size - len(found)
        while left > 0 and (more := self._stream.read(left)):  # a stream of several frames gives one at a time
            self._at += len(more)
            left -= len(more)
            chunks.append(more)
        return b"".join(chunks)

    def seek(self, position: int) -> int:
        """Go forward to a position, at most to the end."""
        if position < self._at:
            raise Broken(f"is damaged: what follows byte {self._at} is said to be before it")
        while self._at < position and self.read(min(position - self._at, _CHUNK)):
            pass
        return self._at


class Archive:
    """A tar archive that is read once, from its beginning to its end; all methods raise :class:`Broken`."""

    def __init__(self, file: BinaryIO, start: bytes) -> None:
        """Begin with an open file, compressed or not, whose first bytes are ``start``; it stays the caller's.

        Raises :class:`Unavailable` when it is compressed in a way that this Python cannot read.
        """
        self._stream = _Forward(decompressed(file, start))
        with _explained():
            self._tar = tarfile.TarFile(
                fileobj=cast("BinaryIO", self._stream), tarinfo=_Member, encoding="utf-8", errors="surrogateescape"
            )

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        """Yield the files in their order; what follows the end mark is read too, since a check sum may be there."""
        while True:
            with _explained():
                member = self._tar.next()
            if member is None:
                break
            self._tar.members = []  # type: ignore[attr-defined]  # else all of them are kept in memory
            if not 0 <= member.size <= _SIZE_MAX:  # a pax header may say anything
                raise Broken(f"is damaged: the size of {member.name!r} is {member.size}")
            yield member
        end = self._stream.tell() + _TAIL_MAX
        with _explained():
            while self._stream.read(_CHUNK):
                if self._stream.tell() > end:
                    raise Broken(f"has more than {_TAIL_MAX} bytes behind its end")

    def content(self, member: tarfile.TarInfo) -> Iterator[tuple[int, bytes]]:
        """Yield the pieces of the content of the file that was yielded last, and where each begins; no holes."""
        # tarfile's reading would fill holes with zeros, of which a header of 512 bytes can ask for any number.
        pieces = [(0, member.size)] if member.sparse is None else cast("list[tuple[int, int]]", member.sparse)
        with _explained():
            self._stream.seek(member.offset_data)
        for begin, size in pieces:
            if not 0 <= begin <= begin + size <= member.size:
                raise Broken(f"is damaged: {member.name!r} has a part beyond its end")
            done = 0
            while done < size:
                with _explained():
                    piece = self._stream.read(min(size - done, _CHUNK))
                if not piece:
                    raise Broken(f"is truncated in {member.name!r}")
                yield begin + done, piece
                done += len(piece)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Make one error of the many that damaged data leads to, in tarfile and in what decompresses."""
    try:
        yield
    except Broken:
        raise
    except DAMAGED as error:
        raise Broken(f"is truncated or damaged: {error}") from None
    except OSError as error:
        if error.errno is not None:
            raise  # the disk's
        raise Broken(f"is damaged: {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # tarfile lets ValueError, OverflowError, AttributeError and more of them through
        raise Broken(f"is damaged: {type(error).__name__}: {error}") from error
