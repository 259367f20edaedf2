"""Writing packets to a file as Wireshark and tcpdump read it (draft-ietf-opsawg-pcap)."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

__all__ = ["write"]

_MAGIC_NANOSECONDS = 0xA1B23C4D
_LINKTYPE_RAW = 101  # packets begin with their IP header
_LARGEST = 0x40000


def write(path: str | os.PathLike[str], exchange: Iterable[tuple[float, bytes]]) -> None:
    """Write packets (time in seconds, IP packet) in the order of their times. Raises OSError."""
    parts = [struct.pack("=IHHiIII", _MAGIC_NANOSECONDS, 2, 4, 0, 0, _LARGEST, _LINKTYPE_RAW)]
    for at, data in sorted(exchange, key=lambda packet: packet[0]):
        nanoseconds = round(at * 1e9)
        parts.append(struct.pack("=IIII", nanoseconds // 10**9, nanoseconds % 10**9, len(data), len(data)))
        parts.append(data)
    Path(path).write_bytes(b"".join(parts))
