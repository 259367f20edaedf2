"""The state that all programs of a ``preload`` tree have mapped (struct cow_state, preload/cow/resolver/internal.h)."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["below_a_net", "tell"]

_MAGIC = b"pccow 1\n"
_WORD = struct.Struct("=I")
_GENERATION, _FILTER_OFF, _RENAMED, _EPOCH = 8, 12, 28, 56
_INODES = 4096 + 8 * (1 << 16)
_INODE = struct.Struct("=IiQQQQQ")
_COUNT = 1 << 18
_QUIET = _INODES + _COUNT * _INODE.size + 256 * 32
_QUIET_SIZE = 8 * (1 << 14)
_LOWER = 3  # an inode of the lower, some names of which are gone from the view
_CHUNK = 256  # entries
_PRCTL, _PING = 0x70634377, 0  # preload/common/cow_cookie.h


def below_a_net() -> bool:
    """Return whether a pccow's net is below this process already (a prctl that only its filter knows)."""
    zero = ctypes.c_ulong(0)
    return bool(ctypes.CDLL(None).prctl(_PRCTL, ctypes.c_ulong(_PING), zero, zero, zero) == 1)


def tell(fd: int, hidden: Callable[[], Mapping[tuple[int, int], int | None]]) -> None:
    """Let programs forget what they know of the tree: somebody else has changed it, or its lower.

    ``hidden`` returns how many names of an inode of the lower (device, number) the view does not show; None: what is
    known of it holds. It is asked only when a program has removed one of several names of a file.
    """
    if os.pread(fd, len(_MAGIC), 0) != _MAGIC:
        return  # nobody has used it yet
    if _word(fd, _RENAMED):
        counts = hidden()
        for at, inode in _of_the_lower(fd):
            count = counts.get(inode, 0)
            if count is not None:
                os.pwrite(fd, struct.pack("=i", -count), at + 4)
    epoch = _WORD.pack((_word(fd, _EPOCH) + 1) & 0xFFFFFFFF or 1)
    os.pwrite(fd, epoch, _EPOCH)
    os.pwrite(fd, bytes(_QUIET_SIZE), _QUIET)  # all of an epoch that is over
    os.pwrite(fd, epoch, _FILTER_OFF)  # a number of its own: who fills the filter just now does not switch it on
    os.pwrite(fd, _WORD.pack((_word(fd, _GENERATION) + 1) & 0xFFFFFFFF), _GENERATION)


def _word(fd: int, at: int) -> int:
    found: int = _WORD.unpack(os.pread(fd, _WORD.size, at))[0]
    return found


def _of_the_lower(fd: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield where the entry of each inode of the lower is. Most of the table is a hole, which is passed over."""
    end = _INODES + _COUNT * _INODE.size
    at = _INODES
    while at < end:
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return  # nothing but a hole (lseek(2))
        if data >= end:
            return
        at = max(at, data - (data - _INODES) % _INODE.size)
        chunk = os.pread(fd, min(_CHUNK * _INODE.size, end - at), at)
        for i in range(0, len(chunk) - _INODE.size + 1, _INODE.size):
            used, _, device, number, *_ = _INODE.unpack_from(chunk, i)
            if used == _LOWER:
                yield at + i, (device, number)
        at += len(chunk)
