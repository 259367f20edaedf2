"""What a trace has seen, whichever way it looked: the answers of routers by TTL, and those of the end of the path."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["EXCEEDED", "INITIAL_TTLS", "Facts", "Seen", "distance_of"]

EXCEEDED = "exceeded"
INITIAL_TTLS = (32, 64, 128, 255)
"""What systems send their packets with."""


def distance_of(ttl: int) -> int:
    """Return how many hops a packet has come that arrives with this TTL, 1 from a neighbour: a guess, mostly right."""
    return next(initial for initial in INITIAL_TTLS if ttl <= initial) - ttl + 1


class Seen(NamedTuple):
    """One answer.

    ``ttl`` is that of the probe it answers (None: no mark survived), ``kind`` "exceeded", "unreachable", "tcp", "udp",
    "echo", "too-big"; ``rtt`` in seconds (None when the probe is not known), ``reply_ttl`` 0 when it is not known.
    ``changes`` are (what, sent, seen) of what was rewritten on the way.
    """

    ttl: int | None
    address: str
    kind: str
    rtt: float | None
    reply_ttl: int = 0
    code: int = 0
    flags: int = 0
    tos: int = 0
    mtu: int = 0
    changes: tuple[tuple[str, object, object], ...] = ()
    labels: tuple[int, ...] = ()
    mss: int = 0

    @property
    def final(self) -> bool:
        """Whether this ends the path: the target's own answer, or an error other than "time exceeded"."""
        return self.kind not in (EXCEEDED, "too-big", "quench")


class Facts:
    """All that was seen of one flow. ``sent`` maps each TTL to the number of probes sent with it."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self.sent: dict[int, int] = {}
        self.hops: dict[int, list[Seen]] = {}
        self.ends: list[Seen] = []
        self.strays: list[Seen] = []
        self.too_big: list[Seen] = []

    def add(self, seen: Seen) -> None:
        """Take an answer in."""
        if seen.kind == "too-big":
            self.too_big.append(seen)
        elif seen.final:
            self.ends.append(seen)
        elif seen.kind == EXCEEDED:
            if seen.ttl is None:
                self.strays.append(seen)
            else:
                self.hops.setdefault(seen.ttl, []).append(seen)

    @property
    def end(self) -> Seen | None:
        """The answer that counts: a SYN+ACK if there was one, else the first that ends the path."""
        syn_ack = 0x12
        for seen in self.ends:
            if seen.kind == "tcp" and seen.flags & syn_ack == syn_ack:
                return seen
        return self.ends[0] if self.ends else None

    @property
    def furthest(self) -> int:
        """The highest TTL at which a router said that it exceeded, of those that looked for routers; 0 for none."""
        return max((ttl for ttl in self.hops if ttl < 64), default=0)  # noqa: PLR2004 - the TTL of whole probes

    def ended_at(self) -> int | None:
        """Return the least TTL with which a probe reached the end, None when none is known."""
        return min((seen.ttl for seen in self.ends if seen.ttl is not None and seen.ttl < 64), default=None)  # noqa: PLR2004

    def guess(self) -> int | None:
        """Return the distance of the end by what is left of its TTL, None when nothing came from there."""
        end = self.end
        return distance_of(end.reply_ttl) if end is not None and end.reply_ttl else None
