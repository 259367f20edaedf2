"""Frames as the recorder hands them out (``preload/recorder/recorder.h``)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Frame", "unpacked", "unpacked_until"]

_RECORD: Final = struct.Struct("=QIIII")
_OUT, _GAP = 1, 2


class Frame(NamedTuple):
    """A frame on its way.

    ``time`` is the kernel's, in ns since 1970; ``interface`` the index of where it was seen; ``out`` whether the host
    has sent it; ``length`` how many bytes it had, of which ``data`` are the first.
    """

    time: int
    interface: int
    out: bool
    length: int
    data: bytes


def unpacked(data: bytes | memoryview, gaps: dict[int, int] | None = None) -> Iterator[Frame]:
    """Yield the frames of a run of records; what is cut short at the end is left out.

    ``gaps`` gets the time up to which nothing is known of what an interface has sent, for those of which it is so.
    """
    for _, frame in unpacked_until(data, gaps):
        yield frame


def unpacked_until(data: bytes | memoryview, gaps: dict[int, int] | None = None) -> Iterator[tuple[int, Frame]]:
    """Yield each frame with the place at which the next record begins."""
    at, end, header = 0, len(data), _RECORD.size
    while end - at >= header:
        time, interface, captured, length, way = _RECORD.unpack_from(data, at)
        start = at + header
        at = start + captured + (-captured % 8)
        if start + captured > end:
            return
        if way == _GAP:
            if gaps is not None:
                gaps[interface] = time
            continue
        yield at, Frame(time, interface, way == _OUT, length, bytes(data[start : start + captured]))
