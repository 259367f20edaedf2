"""One probe from beginning to end: which mode, whom it asks, and the result that comes of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import Unavailable
from pytest_poorcontainer.probe.blackbox import BlackBox
from pytest_poorcontainer.probe.codes import code_of
from pytest_poorcontainer.probe.hop import Hop, Hops
from pytest_poorcontainer.probe.local import NO_ROUTE, source_of
from pytest_poorcontainer.probe.result import Place, ProbeResult
from pytest_poorcontainer.probe.verdict import Verdict, findings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_poorcontainer.network import Host
    from pytest_poorcontainer.probe.ask import Ask, Ground
    from pytest_poorcontainer.probe.facts import Facts
    from pytest_poorcontainer.probe.memory import Memory
    from pytest_poorcontainer.probe.multipath import Graph
    from pytest_poorcontainer.probe.pmtu import PathMtu
    from pytest_poorcontainer.probe.whitebox import Insight

__all__ = ["probe"]


def probe(ground: Ground, ask: Ask, target: str, port: int | None, memory: Memory | None = None) -> ProbeResult:
    """Probe an address from ``ground``, and return what was found out.

    Raises :class:`UsageError` for what cannot be asked, :class:`Unavailable` for a mode without its privilege.
    """
    began = time.perf_counter()
    bare, _, zone = target.partition("%")
    scope = int(zone) if zone.isdigit() else ground.interface(zone) if zone else 0
    try:
        source = source_of(ground.open, bare, port or 0, scope, ask.source)
    except OSError as error:
        if error.errno not in NO_ROUTE:
            raise
        return _no_route(ground, ask, bare, port, error)
    try:
        box = BlackBox(ground, ask, source, bare, port or 0, scope)
    except PermissionError:
        remedy = "run it as root, or let it choose the mode"
        raise Unavailable(f"probing in mode {ask.mode}", "this process has no CAP_NET_RAW", remedy) from None
    with box:
        return _through(box, ground, ask, source, began, memory)


def _through(box: BlackBox, ground: Ground, ask: Ask, source: str, began: float, memory: Memory | None) -> ProbeResult:
    verdict, insight = _looked_into(box, ground, ask)
    facts = box.track.facts
    hops = hops_of(ground, facts, verdict, box.version, ask.limits.first)
    if insight is not None:
        _complete(hops, insight.passed, box.version)
    odd = findings(facts, box.target, box.track.flow.tos, ecn=ask.ecn)
    if memory is not None:
        odd += memory.learn(source, box.target, hops)
    candidates = _candidates(ground, box, verdict)
    at = place_of(ground, verdict, box.target)
    if insight is not None:
        at = Place(verdict.at, verdict.address, insight.host.name, insight.host)
    end = facts.end
    graph, mtu = _more(box, ground, ask)
    return ProbeResult(
        protocol=ask.kind,
        source=source,
        target=box.target,
        target_name=ground.owner(box.target)[0],
        port=box.port or None,
        state=verdict.state,
        code=verdict.code,
        why=verdict.why,
        at=at,
        candidates=[at] if insight is not None and at is not None else candidates,
        sure=verdict.sure,
        rule=insight.rule if insight is not None else "",
        seen_in=insight.seen if insight is not None else [],
        hops=hops,
        distance=len(hops) + ask.limits.first if verdict.state in ("open", "closed", "reached") else None,
        rtts=[seen.rtt for seen in facts.ends if seen.rtt is not None],
        findings=odd,
        evidence=box.diagnosis.lines() if box.diagnosis is not None and verdict.state == "filtered" else [],
        mode="white-box" if insight is not None else box.mode,
        sent=box.count(),
        asked=box.asked,
        seconds=time.perf_counter() - began,
        graph=graph,
        mtu=mtu,
        exchange=box.engine.exchange,
        final_mark=code_of(box.version, end.code).mark if end is not None and end.kind == "unreachable" else "",
    )


def _more(box: BlackBox, ground: Ground, ask: Ask) -> tuple[Graph | None, PathMtu | None]:
    """Return all ways and the path MTU, if they were asked for."""
    if not (ask.mda or ask.pmtu):
        return None, None
    if box.mode == "unprivileged":
        raise Unavailable("mda and pmtu", "this process has no CAP_NET_RAW", "run it as root")
    from pytest_poorcontainer.probe.multipath import discover  # noqa: PLC0415 - few ask for it
    from pytest_poorcontainer.probe.pmtu import measure  # noqa: PLC0415

    def name(address: str) -> str:
        return ground.owner(address)[0]

    graph = discover(box, ask.mda, name) if ask.mda else None
    return graph, measure(box, name) if ask.pmtu else None


def _looked_into(box: BlackBox, ground: Ground, ask: Ask) -> tuple[Verdict, Insight | None]:
    """Return the verdict, and what hosts of ours show about it, where the probe starts in one of them."""
    inside = ground.ours and box.mode == "raw" and ask.mode in ("auto", "white-box") and ask.kind == "tcp"
    if not inside:
        return box.run(), None
    from pytest_poorcontainer.probe.whitebox import insight_of  # noqa: PLC0415 - in networks of ours only

    return insight_of(box, ground)


def _complete(hops: Hops, passed: Sequence[Host], version: int) -> None:
    """Name the silent hops by the hosts in which the probe was seen."""
    first = hops[0].ttl if hops else 1
    for hop, host in zip(hops, passed[first - 1 :], strict=False):
        if hop.address is None:
            own = [one for one in host.addresses if (":" in one) == (version == 6)]  # noqa: PLR2004
            hop.address, hop.name, hop.host = (own[0] if own else None), host.name, host


def _candidates(ground: Ground, box: BlackBox, verdict: Verdict) -> list[Place]:
    """Return all the places where a silent probe may have been dropped."""
    if verdict.state != "filtered":
        return []
    places = [place_of(ground, verdict, box.target)]
    last = box.track.facts.furthest
    if verdict.at == 0 and last:
        seen = box.track.facts.hops[last][0]
        places.append(_place(ground, last, seen.address))
    elif box.diagnosis is not None and box.diagnosis.next_hop is not None:
        behind = _place(ground, *box.diagnosis.next_hop)
        places.append(behind if behind not in places else _place(ground, 0, box.source))
    return [place for place in places if place is not None]


def _place(ground: Ground, ttl: int, address: str) -> Place:
    return Place(ttl, address, *ground.owner(address))


def place_of(ground: Ground, verdict: Verdict, target: str) -> Place | None:
    """Return the place of a verdict, None when nothing is known of it."""
    if verdict.at == 0 and not verdict.address:
        return None
    return _place(ground, verdict.at, verdict.address or target)


def hops_of(ground: Ground, facts: Facts, verdict: Verdict, version: int, first: int) -> Hops:
    """Return the routers up to where the path ends."""
    end = facts.end
    if verdict.state in ("open", "closed", "reached"):
        last = max(facts.ended_at() or 0, facts.guess() or 0, facts.furthest + 1) - 1
        if facts.ended_at() is not None:
            last = max(facts.ended_at() or 0, facts.furthest + 1) - 1
    elif verdict.state in ("rejected", "unreachable") and verdict.at:
        last = verdict.at
    elif verdict.state == "loop":
        last = max(facts.furthest, verdict.at)
    else:
        last = facts.furthest
    hops = Hops()
    for ttl in range(first, last + 1):
        seen = facts.hops.get(ttl, [])
        mark = ""
        if ttl == verdict.at and end is not None and end.kind == "unreachable":
            seen = seen or [end]
            mark = code_of(version, end.code).mark
        name, host = ground.owner(seen[0].address) if seen else ("", None)
        hops.append(Hop(ttl, seen, name, host, mark))
    return hops


def _no_route(ground: Ground, ask: Ask, target: str, port: int | None, error: OSError) -> ProbeResult:
    where = ground.name or "this machine"
    return ProbeResult(
        protocol=ask.kind,
        source=where,
        target=target,
        target_name=ground.owner(target)[0],
        port=port,
        state="unreachable",
        code="net",
        why=f"{where} has no route to {target} ({error.strerror})",
        at=Place(0, "", where),
        mode="raw",
        final_mark="!N",
    )
