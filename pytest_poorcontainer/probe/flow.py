"""Flows: how each probe of a trace is marked, and how an answer finds the probe that it belongs to.

All probes of a flow look alike to routers that balance load (constant addresses, ports, and for TCP one initial
sequence number: with several, those that reach the end would disturb the half-open connection there). Which probe an
answer means is told by marks that live in different places: for TCP the IP identification and the timestamp value,
which a SYN+ACK echoes. Boxes on the way rewrite such things; matching is tolerant, and what did not come back as it was
sent is a :class:`Change`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from pytest_poorcontainer.probe import packet
from pytest_poorcontainer.probe.packet import ACK, CWR, ECE, RST, SYN

if TYPE_CHECKING:
    from pytest_poorcontainer.probe.parse import Quote, Reply, Segment

__all__ = ["Change", "Echo", "Flow", "Match", "Tcp", "Udp", "random_number"]

FULL_TTL = 64
_TCP, _UDP, _ICMP, _ICMP6 = 6, 17, 1, 58
_PROBES = 0x4000  # per flow; more than any trace sends
_WRAP = 1 << 32
_ECT0 = 2  # RFC 3168 5
_MSS4, _MSS6 = 1460, 1440


class Change(NamedTuple):
    """Something that was not as it had been sent: ``what`` it is, what was ``sent`` and what was ``seen``."""

    what: str
    sent: int | bytes | None
    seen: int | bytes | None


class Match(NamedTuple):
    """An answer belongs to this flow: to this ``probe``, or None when no mark survived that could tell which one."""

    probe: int | None
    changes: tuple[Change, ...] = ()


def random_number(bits: int) -> int:
    """Return a random number of so many bits."""
    return int.from_bytes(os.urandom((bits + 7) >> 3), "big") & ((1 << bits) - 1)


class Flow:
    """One flow from ``source`` to ``target`` (packed addresses). ``tos`` is what every probe carries."""

    protocol = 0
    kind = ""

    def __init__(self, source: bytes, target: bytes, ports: tuple[int, int], *, tos: int = 0) -> None:
        """Choose the numbers that mark the probes at random, so that nobody guesses them."""
        self.source = source
        self.target = target
        self.ports = ports
        self.tos = tos
        self.version = 4 if len(source) == 4 else 6  # noqa: PLR2004
        self._ident = random_number(16)
        self._label = random_number(20)

    def is_like(self, other: Flow) -> bool:
        """Whether the target cannot tell it from another flow, but for its source port."""
        mine, theirs = (getattr(flow, "flags", 0) for flow in (self, other))
        return self.kind == other.kind and self.ports[1] == other.ports[1] and mine == theirs

    def ident(self, index: int) -> int:
        """Return the IP identification of a probe; never 0, which the kernel would replace."""
        return (self._ident + index) % 0xFFFF + 1

    def _by_ident(self, quote: Quote) -> int | None:
        index = (quote.ident - 1 - self._ident) % 0xFFFF
        known = self.version == 4 and quote.ident and quote.sound_header  # noqa: PLR2004
        return index if known and index < _PROBES else None

    @staticmethod
    def _agreed(first: int | None, second: int | None, sent: int) -> int | None:
        """Return the probe that two marks name, None when they name two that were both sent."""
        if first is None or second is None or first == second:
            return second if first is None else first
        if first < sent and second < sent:
            return None
        return first if first < sent else second

    def packet(self, index: int, ttl: int, payload: int = 0) -> bytes:
        """Return probe ``index`` with this TTL, ``payload`` bytes longer than it need be."""
        body = self._body(index, payload)
        return packet.ip(
            self.source, self.target, self.protocol, ttl, body, ident=self.ident(index), tos=self.tos, flow=self._label
        )

    def _body(self, index: int, payload: int) -> bytes:
        raise NotImplementedError

    def match(self, reply: Reply, sent: int) -> Match | None:
        """Return what the reply belongs to, if it is this flow's; ``sent`` probes were sent so far."""
        found = self._error(reply.quote, sent) if reply.quote is not None else self._answer(reply)
        if found is None or found.probe is None or found.probe < sent:
            return found
        return None  # of a probe that was never sent: a lie, or somebody else's

    def _error(self, quote: Quote, sent: int) -> Match | None:
        """Match an ICMP error: enough of the quote must be ours, by whatever survived."""
        if quote.protocol != self.protocol:
            return None
        index, strong = self._marks(quote, sent)
        ports = (quote.source_port, quote.target_port) == self._ports_in_quote()
        near = ports and quote.target == self.target
        if not (near or (ports and strong) or strong > 1):
            return None
        compared: tuple[tuple[str, int | bytes | None, int | bytes | None], ...] = (
            ("source address", self.source, quote.source),
            ("target address", self.target, quote.target),
            ("source port", self.ports[0], quote.source_port),
            ("target port", self.ports[1], quote.target_port),
            ("dscp", self.tos >> 2, quote.tos >> 2),
            ("ecn", self.tos & 3, quote.tos & 3),
            *self._changed(quote, index),
        )
        return Match(index, tuple(Change(*one) for one in compared if one[1] != one[2]))

    def _ports_in_quote(self) -> tuple[int, int]:
        return self.ports

    def _marks(self, quote: Quote, sent: int) -> tuple[int | None, int]:
        """Return which probe the quote is of, if that can be told, and how many strong marks say that it is ours."""
        raise NotImplementedError

    def _changed(self, quote: Quote, index: int | None) -> list[tuple[str, int | None, int | None]]:
        if self.version == 4 and index is not None:  # noqa: PLR2004
            return [("id", self.ident(index), quote.ident)]
        return []

    def _answer(self, reply: Reply) -> Match | None:
        """Match what is no ICMP error."""
        raise NotImplementedError


class Tcp(Flow):
    """TCP segments with these ``flags``, usually SYN alone. ``ecn`` makes SYNs ask for ECN (RFC 3168 6.1.1)."""

    protocol = _TCP
    kind = "tcp"

    def __init__(  # noqa: D107 - as Flow's
        self, source: bytes, target: bytes, ports: tuple[int, int], *, tos: int = 0, flags: int = SYN, ecn: bool = False
    ) -> None:
        super().__init__(source, target, ports, tos=tos | _ECT0 if ecn else tos)
        self.flags = flags | ECE | CWR if ecn and flags == SYN else flags
        self.sequence = random_number(32)
        self._stamp = random_number(31) + 1
        self._acknowledged = random_number(32) if flags & ACK else 0
        self.mss = _MSS4 if self.version == 4 else _MSS6  # noqa: PLR2004
        self.spread = (
            False  # whether each probe has a sequence number of its own: only where no connection is half open
        )

    def _body(self, index: int, payload: int) -> bytes:
        options = packet.timestamp_option((self._stamp + index) % _WRAP)
        if self.flags & SYN:
            options = packet.mss_option(self.mss) + options
        acknowledged = (self._acknowledged + index) % _WRAP if self.flags & ACK else 0
        return packet.tcp(
            self.source,
            self.target,
            self.ports,
            self._sequence_of(index),
            acknowledged,
            self.flags,
            options,
            bytes(payload),
        )

    def _sequence_of(self, index: int) -> int:
        return (self.sequence + (index if self.spread else 0)) % _WRAP

    def _by_stamp(self, stamp: int | None) -> int | None:
        if stamp is None:
            return None
        index = (stamp - self._stamp) % _WRAP
        return index if index < _PROBES else None

    def _marks(self, quote: Quote, sent: int) -> tuple[int | None, int]:
        stamp = self._by_stamp(quote.tsval) if quote.sound_segment else None
        ident = self._by_ident(quote)
        ours = quote.number is not None and (quote.number - self.sequence) % _WRAP < _PROBES
        strong = (stamp is not None) + (ident is not None) + ours
        return self._agreed(stamp, ident, sent), strong

    def _changed(self, quote: Quote, index: int | None) -> list[tuple[str, int | None, int | None]]:
        changed = super()._changed(quote, index)
        if quote.number is not None and not (self.spread and (quote.number - self.sequence) % _WRAP < _PROBES):
            changed.append(("sequence", self.sequence, quote.number))
        if quote.flags is not None:
            changed.append(("flags", self.flags, quote.flags))
            changed.append(("timestamps", 1, int(self._by_stamp(quote.tsval) is not None)))
            if self.flags & SYN:
                changed.append(("mss", self.mss, quote.mss))
        return changed

    def _answer(self, reply: Reply) -> Match | None:
        segment = reply.segment
        if segment is None or (segment.target_port, segment.source_port) != self.ports:
            return None
        index = self._echoed(segment)
        known = index is not None or self._acknowledges(segment)
        if reply.source != self.target and not known:
            return None
        changes = []
        if reply.source != self.target:
            changes.append(Change("answering address", self.target, reply.source))
        if not known:
            expected, seen = self._expected(segment)
            changes.append(Change("sequence", expected, seen))
        return Match(index, tuple(changes))

    def recognise(self, segment: Segment) -> str:
        """Return "probe" for a segment that is one of ours, "answer" for one that answers, seen anywhere on the way.

        Addresses and ports may be translated there, so the marks decide.
        """
        if self._by_stamp(segment.tsval) is not None or (
            (segment.source_port, segment.target_port) == self.ports and segment.sequence == self.sequence
        ):
            return "probe"
        back = (segment.target_port, segment.source_port) == self.ports
        if self._by_stamp(segment.tsecr) is not None or (back and self._acknowledges(segment)):
            return "answer" if not segment.flags & RST or back else ""
        return ""

    def _echoed(self, segment: Segment) -> int | None:
        """Return the probe that a segment answers: by the echoed timestamp, or by numbers that are each probe's own."""
        if segment.tsecr:
            index = self._by_stamp(segment.tsecr)
            if index is not None:
                return index
        if segment.flags & RST and self.flags & ACK:
            index = (segment.sequence - self._acknowledged) % _WRAP
            return index if index < _PROBES else None
        if self.spread and segment.flags & ACK:
            index = (segment.acknowledged - 1 - self.sequence) % _WRAP
            return index if 0 < index < _PROBES else None
        return None

    def _acknowledges(self, segment: Segment) -> bool:
        expected, seen = self._expected(segment)
        return (seen - expected) % _WRAP < (_PROBES if self.spread else 2)

    def _expected(self, segment: Segment) -> tuple[int, int]:
        """Return the number that the segment should carry if it answers us, and that which it carries."""
        if segment.flags & ACK:
            return self.sequence, segment.acknowledged
        return self._acknowledged, segment.sequence


class Udp(Flow):
    """UDP datagrams. The mark is the checksum, which every router quotes and none balances by."""

    protocol = _UDP
    kind = "udp"
    length = 24

    def _body(self, index: int, payload: int) -> bytes:
        return packet.udp_with_checksum(
            self.source, self.target, self.ports, self._check_of(index), self.length + payload
        )

    def _check_of(self, index: int) -> int:
        return (self._ident + index) % 0xFFFD + 1

    def _by_check(self, check: int | None) -> int | None:
        index = None if check is None else (check - 1 - self._ident) % 0xFFFD
        return index if index is not None and index < _PROBES else None

    def _marks(self, quote: Quote, sent: int) -> tuple[int | None, int]:
        check, ident = self._by_check(quote.check), self._by_ident(quote)
        return self._agreed(check, ident, sent), (check is not None) + (ident is not None)

    def _answer(self, reply: Reply) -> Match | None:
        if reply.kind == "udp" and reply.source == self.target and (reply.number, reply.ident) == self.ports:
            return Match(None)
        return None


class Echo(Flow):
    """ICMP echo requests; the mark is their sequence number."""

    kind = "icmp"

    def __init__(self, source: bytes, target: bytes, *, tos: int = 0) -> None:
        """Choose an identifier at random; requests have no ports."""
        super().__init__(source, target, (0, 0), tos=tos)
        self.protocol = _ICMP if self.version == 4 else _ICMP6  # noqa: PLR2004
        ident = random_number(16)
        self.ports = (ident, ident)

    def _body(self, index: int, payload: int) -> bytes:
        return packet.echo(self.source, self.target, self.ports[0], index & 0xFFFF, 32 + payload)

    def _marks(self, quote: Quote, sent: int) -> tuple[int | None, int]:
        ident = self._by_ident(quote)
        number = quote.number if quote.number is not None and quote.number < _PROBES else None
        return self._agreed(number, ident, sent), int(ident is not None)

    def _answer(self, reply: Reply) -> Match | None:
        if reply.kind == "echo" and reply.ident == self.ports[0] and reply.source == self.target:
            return Match(reply.number if reply.number < _PROBES else None)
        return None
