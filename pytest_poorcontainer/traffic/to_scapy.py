"""Frames as scapy packets. scapy is GPL-2.0-only, and takes 0.3 s to load: this is for who asks for its packets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_poorcontainer.traffic.frames import Frame

__all__ = ["dissected"]


def dissected(frame: Frame) -> Any:
    """Return the frame as ``scapy.layers.l2.Ether``, with its time in seconds and its length on the wire."""
    import scapy.layers.dns  # noqa: PLC0415 - tells scapy what is behind those ports
    import scapy.layers.inet6  # noqa: F401, PLC0415 - and that ether type
    from scapy.layers.l2 import Ether  # noqa: PLC0415

    packet = Ether(frame.data)
    packet.time = frame.time / 1e9
    packet.wirelen = frame.length
    return packet
