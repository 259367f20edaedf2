"""From what was seen to what it means: the state of a port, where it was decided, and what was odd on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pytest_poorcontainer.probe.codes import code_of
from pytest_poorcontainer.probe.facts import distance_of
from pytest_poorcontainer.probe.packet import ACK, ECE, RST, SYN, flags_text

if TYPE_CHECKING:
    from pytest_poorcontainer.probe.facts import Facts, Seen

__all__ = ["STATES", "Finding", "Verdict", "findings", "is_forged", "judge", "loop_of"]

STATES = ("open", "closed", "filtered", "rejected", "unreachable", "loop", "reached")
_FULL_TTL = 64


class Finding(NamedTuple):
    """Something odd: ``what`` in a word or two, the hop ``ttl`` from which on it shows (0: the end), and ``text``."""

    what: str
    ttl: int
    text: str

    def __str__(self) -> str:
        """Return the sentence."""
        return self.text


class Verdict(NamedTuple):
    """``at`` is the distance of whoever decided (0: the target itself), ``address`` its address if it is known."""

    state: str
    code: str = ""
    at: int = 0
    address: str = ""
    why: str = ""
    sure: bool = True


def loop_of(facts: Facts, target: str) -> tuple[int, list[str]] | None:
    """Return where a loop begins (a TTL) and the addresses that it consists of; None when there is none.

    One address twice in a row is not one (a router that forwards what it should have dropped looks like that), nor is
    the target's address, from which all routers behind a translation answer.
    """
    hops = sorted(facts.hops.items())
    path = {ttl: seen[0].address for ttl, seen in hops if ttl < _FULL_TTL and seen[0].address != target}
    places: dict[str, list[int]] = {}
    for ttl, address in path.items():
        places.setdefault(address, []).append(ttl)
    for address, ttls in sorted(places.items(), key=lambda item: item[1]):
        if len(ttls) > 2 or ttls[-1] - ttls[0] > 1:  # noqa: PLR2004
            between = [path[ttl] for ttl in range(ttls[0], ttls[1]) if ttl in path]
            return ttls[0], list(dict.fromkeys([address, *between]))
    return None


def is_forged(facts: Facts) -> bool:
    """Whether a reset comes from nearer than the target can be: as far away as a router that forwards to it.

    The router at the reset's distance let probes of this flow expire, so it is no target. Where the way back is shorter
    than the way there this can be wrong, so it is but a reason to look again.
    """
    end, guess = facts.end, facts.guess()
    return (
        end is not None
        and guess is not None
        and end.kind == "tcp"
        and bool(end.flags & RST)
        and 0 < guess <= facts.furthest
    )


def judge(facts: Facts, version: int, flags: int, target: str) -> Verdict:
    """Return the verdict of a flow; ``flags`` are the probes' TCP flags, 0 for UDP and ICMP."""
    end = facts.end
    if end is not None:
        return _of_end(end, facts, version, flags, target)
    loop = loop_of(facts, target)
    if loop is not None:
        at, addresses = loop
        return Verdict("loop", "", at, addresses[0], f"packets go round between {' and '.join(addresses)}")
    last = facts.furthest
    if not last:
        return Verdict("filtered", "", 0, "", "nothing answers, no router either", sure=False)
    seen = facts.hops[last][0]
    why = f"the last hop that answers is {last} ({seen.address}): it, what lies behind it, or the target drops this"
    if flags and not flags & (SYN | ACK | RST):
        why += "; an open port does not answer such flags either (RFC 9293 3.10.7.2)"
    return Verdict("filtered", "", last, seen.address, why, sure=False)


def _of_end(end: Seen, facts: Facts, version: int, flags: int, target: str) -> Verdict:
    if end.kind == "tcp":
        if end.flags & RST:
            if flags and not flags & SYN and flags & ACK:
                return Verdict("reached", "", 0, end.address, "a reset answers: the packet reached the target")
            return Verdict("closed", "", 0, end.address, "a reset answers")
        if end.flags & (SYN | ACK) == SYN | ACK:
            return Verdict("open", "", 0, end.address, "a SYN+ACK answers")
        return Verdict("open", "", 0, end.address, f"a segment with {flags_text(end.flags)} answers")
    if end.kind == "echo":
        return Verdict("reached", "", 0, end.address, "an echo reply answers")
    if end.kind == "udp":
        return Verdict("open", "", 0, end.address, "a datagram answers")
    code = code_of(version, end.code)
    if end.kind != "unreachable":
        return Verdict("rejected", end.kind, _where(end, facts), end.address, f"ICMP {end.kind} from {end.address}")
    if not flags and code.name == "port" and end.address == target:
        return Verdict("reached", code.name, 0, end.address, "port unreachable, from the target itself")
    at = 0 if end.address == target else _where(end, facts)
    return Verdict(code.state, code.name, at, end.address, f"{end.address} says: {code.meaning} ({code.mark})")


def _where(end: Seen, facts: Facts) -> int:
    """Return the distance of a router that ended the path with an ICMP error."""
    for ttl, seen in sorted(facts.hops.items()):
        if any(one.address == end.address for one in seen):
            return ttl
    # It may use another address here. Behind the last that let a probe expire, or that one itself: the TTL tells.
    ended = facts.ended_at()
    back = distance_of(end.reply_ttl) if end.reply_ttl else 0
    if back and back == facts.furthest:
        return back
    return max(min(ended or back or 1, facts.furthest + 1), 1)


def findings(facts: Facts, target: str, tos: int, *, ecn: bool = False) -> list[Finding]:
    """Return what was rewritten or odd, in the order of the way."""
    found: list[Finding] = []
    for what, (ttl, sent, seen) in _first_changes(facts).items():
        found.append(Finding(what, ttl, _sentence(what, ttl, sent, seen)))
    virtual = [ttl for ttl, seen in sorted(facts.hops.items()) if ttl < _FULL_TTL and seen[0].address == target]
    if virtual:
        text = (
            f"from hop {virtual[0]} on routers answer with the target's own address: the target is translated (DNAT) "
            f"at hop {max(virtual[0] - 1, 1)}"
        )
        found.append(Finding("dnat", virtual[0], text))
    found += _at_end(facts, tos, ecn=ecn)
    return sorted(found, key=lambda one: one.ttl or 255)


def _first_changes(facts: Facts) -> dict[str, tuple[int, object, object]]:
    """Return for each thing that was changed the first TTL that shows it, what was sent and what was seen."""
    first: dict[str, tuple[int, object, object]] = {}
    shown = [seen for ttl in sorted(facts.hops) for seen in facts.hops[ttl]] + facts.ends
    for seen in shown:
        for what, sent, saw in seen.changes:
            ttl = seen.ttl if seen.ttl is not None and seen.ttl < _FULL_TTL else 0
            first.setdefault(what, (ttl, sent, saw))
    return first


def _sentence(what: str, ttl: int, sent: object, seen: object) -> str:
    where = f"from hop {ttl} on" if ttl else "at the end"
    if what == "timestamps":
        return f"{where} the TCP timestamps are rewritten or missing"
    if what == "sequence":
        return f"{where} the TCP sequence number is rewritten"
    if what == "id":
        return f"{where} the IP identification is rewritten to {seen}"
    return f"{where} the {what} is {_shown(what, seen)} instead of {_shown(what, sent)}"


def _shown(what: str, value: object) -> str:
    if isinstance(value, bytes):
        import socket  # noqa: PLC0415 - only for a text

        return socket.inet_ntop(socket.AF_INET if len(value) == 4 else socket.AF_INET6, value)  # noqa: PLR2004
    if what == "flags" and isinstance(value, int):
        return flags_text(value)
    if what == "ecn" and isinstance(value, int):
        return ("not-ECT", "ECT(1)", "ECT(0)", "CE")[value & 3]
    return "missing" if value is None else str(value)


def _at_end(facts: Facts, tos: int, *, ecn: bool) -> list[Finding]:
    end = facts.end
    if end is None:
        return []
    found = []
    kinds = {bool(seen.flags & RST) for seen in facts.ends if seen.kind == "tcp" and seen.flags & (RST | SYN)}
    if len(kinds) > 1 and end.flags & SYN:
        found.append(Finding("reset", 0, "a reset came as well as a SYN+ACK"))
    back = [seen for seen in facts.hops.get(facts.furthest, []) if seen.reply_ttl]
    if back and end.reply_ttl and end.kind == "tcp":
        there, home = facts.furthest, distance_of(back[0].reply_ttl)
        if there != home:
            found.append(
                Finding("asymmetric", facts.furthest, f"hop {there} is {there} hops away, and {home} on the way back")
            )
    if ecn and end.kind == "tcp" and end.flags & SYN and not end.flags & ECE:
        found.append(Finding("no ecn", 0, "the target does not take up ECN"))
    if tos >> 2 and end.kind == "tcp" and end.tos >> 2 not in (0, tos >> 2):
        found.append(Finding("dscp back", 0, f"the answer has DSCP {end.tos >> 2}"))
    return found
