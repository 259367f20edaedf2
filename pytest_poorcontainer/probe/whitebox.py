"""A probe in a network of ours: all hosts on the way are looked into, so that the place of a drop is certain.

One more probe is sent while packet sockets watch in every host. Where it came in and did not go out, it was dropped;
nf_tables' trace of a last probe tells the rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pytest_poorcontainer.network import Host
from pytest_poorcontainer.probe.engine import floor
from pytest_poorcontainer.probe.flow import Tcp
from pytest_poorcontainer.probe.neighbours import missing_neighbours
from pytest_poorcontainer.probe.ruling import Ruling
from pytest_poorcontainer.probe.sightings import Sighting, Watch
from pytest_poorcontainer.probe.verdict import Verdict, loop_of
from pytest_poorcontainer.probe.way_out import has_route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_poorcontainer.probe.ask import Ground
    from pytest_poorcontainer.probe.blackbox import BlackBox
    from pytest_poorcontainer.probe.facts import Facts

__all__ = ["Insight", "insight_of", "look"]

_BRIEF = 0.006  # seconds of silence after which one looks closer; what is found then is no mere silence
_TRACE = 0.02  # seconds to wait for the events of a trace, which come with the packet


class Insight(NamedTuple):
    """Where a probe, or the answer to it (``what``), ended: in ``host``, or ``on_cable`` behind it.

    It is ``proven`` where more than silence says so: a rule's verdict, a route that is missing, a cable that is cut.

    ``code`` is "host" where that host looks for the target in vain, "net" where it has no route to it. ``passed`` are
    the hosts in which the probe was seen, in order, without its source.
    """

    host: Host
    what: str
    rule: str
    why: str
    seen: list[str]
    proven: bool = False
    on_cable: bool = False
    code: str = ""
    passed: tuple[Host, ...] = ()


def insight_of(box: BlackBox, ground: Ground) -> tuple[Verdict, Insight | None]:
    """Probe; where nothing answers, or somebody of ours rejects, look into the hosts for the place and the rule."""
    if box.knock(_BRIEF):
        return _answered(box, ground)
    hosts = [host for host in ground.nodes if isinstance(host, Host)]
    found = look(box, hosts, _BRIEF)
    if not box.tracer.ended and (found is None or not found.proven):
        # Only silence speaks for it: a cable may be slow, others may have kept us from the processor.
        if not box.rounds() and loop_of(box.track.facts, box.target) is None:
            found = look(box, hosts, 2 * floor())
        if found is None or (found.on_cable and not found.proven):
            box.late()
    if box.tracer.ended:
        return _answered(box, ground)
    facts = box.track.facts
    if found is None or loop_of(facts, box.target) is not None:
        return box.silent(), None
    ttl, address = _place(found.host, facts, box)
    return Verdict("unreachable" if found.code else "filtered", found.code, ttl, address, found.why), found


def _answered(box: BlackBox, ground: Ground) -> tuple[Verdict, Insight | None]:
    verdict = box.answered()
    place = ground.owner(verdict.address)[1] if verdict.state in ("rejected", "unreachable") else None
    if isinstance(place, Host):
        rule = _rule_in(box, place, (box.track.flow.ports[0], box.port), "probe")
        if rule:
            return verdict, Insight(place, "probe", rule, rule, [], proven=True)
    return verdict, None


def _place(host: Host, facts: Facts, box: BlackBox) -> tuple[int, str]:
    """Return distance and address of a host, as the hops show them if they do."""
    if box.target in host.addresses:
        return 0, box.target
    for ttl, seen in sorted(facts.hops.items()):
        if seen[0].address in host.addresses:
            return ttl, seen[0].address
    version6 = ":" in box.target
    return facts.furthest + 1, next((one for one in host.addresses if (":" in one) == version6), "")


def look(box: BlackBox, hosts: Sequence[Host], quiet: float) -> Insight | None:
    """Find out where the probes of a black box end, None when these hosts do not show it.

    ``quiet`` is for how many seconds nothing must move before that counts as the end.
    """
    track = box.fresh()
    flow = track.flow
    if not isinstance(flow, Tcp):
        return None
    with Watch(hosts, flow) as watch:
        steps = watch.observe(lambda: box.engine.send(track), quiet, lambda: box.engine.pump(0) and box.tracer.ended)
    source = next((host for host in hosts if host.name == box.ground.name), None)
    if box.tracer.ended or source is None or (steps and steps[-1].what == "answer" and steps[-1].host is source):
        return None  # it was answered after all
    if not steps:
        rule = _rule_in(box, source, flow.ports, "probe")
        why = rule or f"the SYN did not leave {source.name}: look at its firewall, routes and neighbours"
        return Insight(source, "probe", rule, why, [], proven=bool(rule))
    found = _end_of(steps, box, flow)
    passed = dict.fromkeys(one.host for one in steps if one.what == "probe" and one.host is not source)
    return found._replace(passed=tuple(passed))


def _end_of(steps: Sequence[Sighting], box: BlackBox, flow: Tcp) -> Insight:
    """Return what the last sighting means."""
    last = steps[-1]
    told = [str(one) for one in steps]
    what = "the SYN" if last.what == "probe" else "the answer"
    if last.out:
        broken = _broken(last)
        why = f"{what} left {last.host.name} by {last.interface}, and was not seen to arrive anywhere{broken}"
        return Insight(last.host, last.what, "", why, told, proven=bool(broken), on_cable=True)
    rule = _rule_in(box, last.host, _ports_there(last, flow), last.what)
    if rule:
        return Insight(last.host, last.what, rule, rule, told, proven=True)
    return _without_rule(last, what, box, told)


def _broken(last: Sighting) -> str:
    """Return what is known of the cable at an interface of a host, if something is wrong with it."""
    number = last.interface.removeprefix("eth")
    cables = last.host.cables
    if not number.isdigit() or int(number) >= len(cables) or cables[int(number)].state == "up":
        return ""
    return f"; the cable {cables[int(number)]} is {cables[int(number)].state}"


def _ports_there(last: Sighting, flow: Tcp) -> tuple[int, int]:
    """Return the ports by which to recognise another probe there; 0 for one that was translated on the way."""
    client, server = last.ports if last.what == "probe" else last.ports[::-1]
    client = client if client == flow.ports[0] else 0
    return (client, server) if last.what == "probe" else (server, client)


def _rule_in(box: BlackBox, host: Host, ports: tuple[int, int], what: str) -> str:
    """Return which rule of a host drops or rejects a probe, or the answer to it; "" when none does."""
    track = box.fresh()
    mine = track.flow.ports[0]
    ours = 0 if what == "probe" else 1
    ports = (mine, ports[1]) if not ours and ports[0] else (ports[0], mine) if ours and ports[1] else ports
    with Ruling(host, ports) as ruling:
        rule = ruling.find(lambda: box.engine.send(track), max(_TRACE, floor()))
    return rule if what == "probe" or not rule else f"the answer is {rule}"


def _without_rule(last: Sighting, what: str, box: BlackBox, told: list[str]) -> Insight:
    """Return what can be said where no rule of nf_tables dropped it."""
    host = last.host
    lost = missing_neighbours(host)
    where = f"{what} came into {host.name} by {last.interface} and did not go on"
    if box.target in lost and last.what == "probe":
        why = f"{host.name} asks for {box.target} on its cable, and nobody answers: there is no such host"
        return Insight(host, last.what, "", why, told, code="host")
    if last.what == "probe" and not has_route(host.socket, box.track.flow.target) and last.ports[1] == box.port:
        why = f"{host.name} has no route to {box.target}"
        return Insight(host, last.what, "", why, told, proven=True, code="net")
    if lost:
        why = f"{where}; {host.name} asks for {', '.join(sorted(lost))} on its cables, and nobody answers"
    else:
        why = f"{where}; no nftables rule dropped it: look at its routes, rp_filter, tc and XDP programs"
    return Insight(host, last.what, "", why, told)
