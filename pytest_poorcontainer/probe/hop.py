"""A hop of a path: a router that answered, or silence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_poorcontainer.probe.facts import Seen

__all__ = ["Hop", "Hops", "equals"]


def equals(address: str | None, name: str, owner: object, other: object) -> bool:
    """Whether something at ``address``, called ``name`` and owned by the host ``owner``, is what ``other`` means.

    ``other`` may be None (nobody answered), "*" (anybody or nobody), an address or a name, or an object with
    ``addresses``: a host.
    """
    if other is None or (address is None and not name):
        return other == "*" or (other is None and address is None)
    if isinstance(other, str):
        return other in (address, name or address, "*")
    if other is owner:
        return True
    addresses: Sequence[str] = getattr(other, "addresses", ())
    return address in addresses


class Hop:
    """One hop. It equals the host that owns its address, its address or name as text, and None if it was silent.

    ``ttl`` counts from 1, ``address`` is None for silence, ``rtt`` is in seconds and ``rtts`` all that were measured;
    ``name`` is the host's or what reverse DNS says (""), ``reply_ttl`` what was left of the answer's TTL, ``mark`` what
    traceroute would print ("!X"), ``labels`` are MPLS labels. ``limited`` says that the router is known to limit its
    answers and was silent because of that; ``known`` is the address from which it answered earlier.
    """

    __slots__ = ("address", "host", "known", "labels", "limited", "mark", "name", "reply_ttl", "rtts", "ttl")

    def __init__(
        self, ttl: int, seen: Sequence[Seen] = (), name: str = "", host: object = None, mark: str = ""
    ) -> None:
        """Make a hop of the answers to probes with this TTL."""
        self.ttl = ttl
        self.address: str | None = seen[0].address if seen else None
        self.rtts = [one.rtt for one in seen if one.rtt is not None]
        self.reply_ttl = seen[0].reply_ttl if seen else 0
        self.labels = seen[0].labels if seen else ()
        self.name = name
        self.host = host
        self.mark = mark
        self.limited = False
        self.known = ""

    @property
    def rtt(self) -> float | None:
        """The least round trip time, in seconds; None when there is none."""
        return min(self.rtts, default=None)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Hop):
            return self.address == other.address
        return equals(self.address, self.name, self.host, other)

    def __hash__(self) -> int:
        """Hash the address, since equal hops have equal ones."""
        return hash(self.address)

    def json(self) -> dict[str, Any]:
        """Return what is known of it, for JSON; times in milliseconds."""
        return {
            "ttl": self.ttl,
            "address": self.address,
            "name": self.name or None,
            "rtt_ms": None if self.rtt is None else round(self.rtt * 1000, 3),
            "rtts_ms": [round(one * 1000, 3) for one in self.rtts],
            "reply_ttl": self.reply_ttl or None,
            "mark": self.mark or None,
            "mpls": list(self.labels),
            "rate_limited": self.limited,
        }

    def __str__(self) -> str:
        """Return "r1 10.9.1.2 0.04 ms", or "*"."""
        if self.address is None:
            return f"* (rate limited, was {self.known})" if self.limited else "*"
        words = [self.name, self.address] if self.name and self.name != self.address else [self.address]
        if self.rtt is not None:
            words.append(f"{self.rtt * 1000:.2f} ms")
        return " ".join([*words, *([self.mark] if self.mark else [])])

    def __repr__(self) -> str:
        """Return the hop in brackets."""
        return f"<{self.ttl} {self}>"


class Hops(list[Hop]):
    """The routers on the way, in order; a list that compares with plain lists of hosts, addresses, names and None."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (list, tuple)):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    def __ne__(self, other: object) -> bool:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    __hash__ = None

    @property
    def addresses(self) -> list[str | None]:
        """Their addresses, None for silence."""
        return [hop.address for hop in self]
