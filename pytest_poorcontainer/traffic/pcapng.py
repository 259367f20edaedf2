"""Frames as a pcapng file: draft-ietf-opsawg-pcapng, what Wireshark, tshark and capinfos read."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pytest_poorcontainer.traffic.frames import Frame

__all__ = ["Interface", "blocks"]

_SECTION, _INTERFACE, _PACKET, _STATISTICS = 0x0A0D0D0A, 1, 6, 5
_BYTE_ORDER = 0x1A2B3C4D
_ETHERNET = 1  # LINKTYPE_ETHERNET
_COMMENT, _APPLICATION, _NAME, _DESCRIPTION, _RESOLUTION, _FLAGS = 1, 4, 2, 3, 9, 2
_DROPPED = 5
_IN, _OUT = 1, 2
_ENHANCED: Final = struct.Struct("=IIIIIII")
_FLAG: Final = struct.Struct("=HHIHH")


class Interface(NamedTuple):
    """An interface of a host: its number in the frames, how the file calls it, the most bytes of a frame (0: all)."""

    number: int
    name: str
    description: str
    snaplen: int = 0


def blocks(
    interfaces: Sequence[Interface],
    frames: Iterable[Frame],
    *,
    comment: str = "",
    lost: Mapping[int, int] | None = None,
) -> Iterator[bytes]:
    """Yield the file in pieces. Frames of interfaces that are not among these are left out.

    ``lost`` says of how many frames of an interface, by its number, nothing is known.
    """
    options = _option(_APPLICATION, b"pytest-poorcontainer") + (_option(_COMMENT, _text(comment)) if comment else b"")
    yield _block(_SECTION, struct.pack("=IHHq", _BYTE_ORDER, 1, 0, -1) + options + _END)
    numbers: dict[int, int] = {}
    for number, interface in enumerate(interfaces):
        numbers[interface.number] = number
        options = _option(_NAME, _text(interface.name)) + _option(_DESCRIPTION, _text(interface.description))
        options += _option(_RESOLUTION, b"\x09")  # ns
        yield _block(_INTERFACE, struct.pack("=HHI", _ETHERNET, 0, interface.snaplen) + options + _END)
    newest = 0
    for frame in frames:
        number_of = numbers.get(frame.interface)
        if number_of is not None:
            newest = frame.time
            yield _packet(number_of, frame)
    for index, count in (lost or {}).items():
        if count and index in numbers:
            body = struct.pack("=III", numbers[index], newest >> 32, newest & 0xFFFFFFFF)
            yield _block(_STATISTICS, body + _option(_DROPPED, struct.pack("=Q", count)) + _END)


_END: Final = b"\0\0\0\0"


def _packet(number: int, frame: Frame) -> bytes:
    """Return an Enhanced Packet Block, with which way the frame went (epb_flags)."""
    captured = len(frame.data)
    padding = -captured % 4
    size = _ENHANCED.size + captured + padding + _FLAG.size + 4
    head = _ENHANCED.pack(
        _PACKET, size, number, frame.time >> 32, frame.time & 0xFFFFFFFF, captured, max(frame.length, captured)
    )
    flags = _FLAG.pack(_FLAGS, 4, _OUT if frame.out else _IN, 0, 0)
    return b"".join((head, frame.data, b"\0" * padding, flags, size.to_bytes(4, _ORDER)))


_ORDER: Final = "little" if struct.pack("=H", 1) == b"\x01\0" else "big"


def _block(kind: int, body: bytes) -> bytes:
    size = len(body) + 12
    return struct.pack("=II", kind, size) + body + struct.pack("=I", size)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("=HH", code, len(value)) + value + b"\0" * (-len(value) % 4)


def _text(text: str) -> bytes:
    """Return it as UTF-8, not longer than a reader must accept."""
    return text.encode("utf-8", "backslashreplace")[:4000].decode("utf-8", "ignore").encode()
