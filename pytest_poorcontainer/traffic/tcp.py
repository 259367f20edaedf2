"""One side of a TCP connection, as its frames show it: what it sends again, and what is odd about that (RFC 9293)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_poorcontainer.traffic.conversations import Step

__all__ = ["Side"]

_HALF = 1 << 31
_RANGE = 1 << 32
_REMEMBERED = 256


def _before(one: int, other: int) -> bool:
    """Return whether a sequence number comes before another (they wrap, RFC 1982)."""
    return 0 < (other - one) % _RANGE < _HALF


class Side:
    """What one side has sent so far."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._highest: int | None = None
        self._repeated: list[Step] = []
        self._finished = False
        self.sent_syn = False

    def sends(self, step: Step, other: Side) -> tuple[str, bool]:
        """Take a packet of this side in; return what is odd about it, and whether it is plain data or its receipt."""
        packet = step.packet
        self._excuse(step, other)
        if "RST" in packet.flags:
            if other.sent_syn and self._highest is None:
                return "RST: refused", False
            return "RST", False
        if packet.truncated:
            return "", False
        start = packet.sequence
        end = (start + packet.payload + ("SYN" in packet.flags) + ("FIN" in packet.flags)) % _RANGE
        self.sent_syn = self.sent_syn or "SYN" in packet.flags
        highest = self._highest
        if highest is None or _before(highest, end):
            self._highest = end
        if highest is not None and end != start and not _before(highest, end):
            asks = packet.payload <= 1 and not {"SYN", "FIN"} & set(packet.flags.split(","))
            if asks and (start + 1) % _RANGE == highest:
                return "", True  # a keep-alive asks with what was received already
            self._repeated = [*self._repeated[-_REMEMBERED:], step]
            return "retransmission", False
        if packet.window == 0 and "SYN" not in packet.flags:
            return "window 0: it takes no more", False
        return "", packet.flags in ("ACK", "PSH,ACK", "ACK,PSH")

    def _excuse(self, step: Step, other: Side) -> None:
        """Take the word back from repetitions which this packet calls needless (RFC 2883)."""
        sacks = step.packet.sacks
        if not sacks:
            return
        left, right = sacks[0]
        below = not _before(step.packet.acknowledgment, right)
        within = len(sacks) > 1 and not _before(left, sacks[1][0]) and not _before(sacks[1][1], right)
        if not (below or within):
            return
        for repeated in other._repeated:
            start = repeated.packet.sequence
            end = (start + repeated.packet.payload) % _RANGE
            if not _before(start, left) and not _before(right, end):
                repeated.odd, repeated.plain = "", True
