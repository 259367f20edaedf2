"""Results as tcptraceroute(1) prints them, line by line, for people and for programs that read its output."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_poorcontainer.probe.hop import Hop
    from pytest_poorcontainer.probe.result import ProbeResult

__all__ = ["EXIT", "exit_status", "header", "lines"]

EXIT = {"open": 0, "reached": 0, "closed": 1, "filtered": 2, "loop": 2, "rejected": 3, "unreachable": 3}
"""The exit status that each state has."""


def exit_status(result: ProbeResult) -> int:
    """Return the exit status of the command."""
    return EXIT[result.state]


def header(result: ProbeResult, name: str, last: int) -> str:
    """Return the line that says what is traced; ``name`` is what the target was called."""
    if result.port is None:
        return f"Tracing the path to {_both(name, result.target)} with ICMP, {last} hops max"
    kind = result.protocol
    try:
        service = f" ({socket.getservbyport(result.port, kind)})"
    except OSError:
        service = ""
    what = f"{kind.upper()} port {result.port}{service}"
    return f"Tracing the path to {_both(name, result.target)} on {what}, {last} hops max"


def lines(result: ProbeResult, names: Mapping[str, str], queries: int) -> Iterator[str]:
    """Yield a line for each hop, and one for the target."""
    for hop in result.hops:
        mark = "" if result.final_mark and hop.ttl == result.hops[-1].ttl else hop.mark
        yield f"{hop.ttl:2}  {_hop(hop, names, queries, mark)}"
    ttl = (result.hops[-1].ttl if result.hops else 0) + 1
    if result.reached:
        times = _times(result.rtts, queries)
        yield f"{ttl:2}  {_both(names.get(result.target, ''), result.target)} [{result.state}]  {times}".rstrip()
    elif result.final_mark and result.at is not None and result.at.address:
        marked = "  ".join(f"{rtt * 1000:.3f} ms {result.final_mark}" for rtt in result.rtts[:queries])
        address = result.at.address
        yield f"{ttl:2}  {_both(names.get(address, ''), address)}  {marked or result.final_mark}"
    elif result.state == "filtered" or result.code == "reset":
        yield f"{ttl:2}  {' '.join('*' * queries)}"


def _hop(hop: Hop, names: Mapping[str, str], queries: int, mark: str) -> str:
    if hop.address is None:
        stars = " ".join("*" * queries)
        return f"{stars} (rate limited)" if hop.limited else stars
    text = f"{_both(names.get(hop.address, ''), hop.address)}  {_times(hop.rtts, queries)}"
    labels = f"  [MPLS {','.join(map(str, hop.labels))}]" if hop.labels else ""
    return f"{text}{labels}{' ' if mark else ''}{mark}"


def _times(rtts: list[float], queries: int) -> str:
    shown = [f"{rtt * 1000:.3f} ms" for rtt in rtts[:queries]]
    return "  ".join([*shown, *["*"] * (queries - len(shown))])


def _both(name: str, address: str) -> str:
    return f"{name} ({address})" if name and name != address else address
