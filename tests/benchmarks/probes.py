"""What probes cost against the tools that people have: open, filtered, silent and distant ports, and several ways."""

from __future__ import annotations

import compileall
import os
import random
import resource
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stats import Section, Table, Target, paragraph, percentile, spread

import pytest_poorcontainer
from pytest_poorcontainer import Network, TcpProbe

sys.path.insert(0, str(Path(__file__).parents[1] / "scenarios"))
from topology import Topology

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["probe_filtered", "probe_open", "probe_ways"]

HOPS = 10
OPEN, FILTERED = 80, 83
COMMAND = [str(Path(sys.executable).with_name("poor-tcptraceroute"))]
RULE = """
add table inet fw
add chain inet fw ways { type filter hook forward priority 0; }
add rule inet fw ways tcp dport 83 drop
"""
MUTE = """
add table inet mute
add chain inet mute outgoing { type filter hook output priority 0; }
add rule inet mute outgoing icmp type time-exceeded drop
"""
# Each with the options that let it end soonest; with their defaults a filtered port takes them up to 216 s.
PEERS: dict[str, list[str]] = {
    line.partition(": ")[0]: shlex.split(line.partition(": ")[2])
    for line in """\
tcptraceroute -q1: tcptraceroute -n -q1 -w1 -m12 {ip} {port}
traceroute -T -q1 -w1 -N30: traceroute -n -T -q1 -w1 -N30 -O info -p {port} {ip}
mtr --tcp -c1 -i0.1 -G0.5 -Z1: mtr -n -r --tcp -P {port} -c1 -i0.1 -G0.5 -Z1 {ip}
lft: lft -n -d {port} {ip}
nmap --traceroute: nmap -n -Pn --traceroute -p{port} {ip}
scamper -q1 -w1: scamper -p1000 -c 'trace -P TCP -d {port} -q 1 -w 1' -i {ip}
""".splitlines()
}
SLOWEST = {"tcptraceroute -q1", "scamper -q1 -w1"}
"""Whose filtered port takes so long that fewer rounds must do."""


def _peer(host: Any, argv: list[str], ip: str, port: int) -> float | None:
    """Return the seconds that a peer takes, None when it is not installed."""
    program = shutil.which(argv[0], path="/usr/bin:/usr/sbin:/bin:/sbin")
    if program is None:
        return None
    words = [word.format(ip=ip, port=port) for word in argv[1:]]
    began = time.perf_counter()
    done = host.run([program, *words], capture_output=True, timeout=120)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{program} {words}: {done.stderr!r}")
    return time.perf_counter() - began


def _name_a_server(host: Any) -> None:
    """Write a name server into a host's /etc/resolv.conf: without one scamper does not start."""
    host.run(["sh", "-c", "echo nameserver 127.0.0.1 >/etc/resolv.conf"], check=True)


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _rows(table: Table, figures: dict[str, list[float]]) -> None:
    for name, values in figures.items():
        if not values:
            table.rows.append([name, 0, "-", "-", "-"])
            continue
        table.rows.append([name, len(values), *(value * 1e3 for value in spread(values))])


def _median(values: list[float]) -> float:
    return percentile(values, 0.5)


def _rounds(jobs: dict[str, tuple[int, Callable[[], float | None]]]) -> dict[str, list[float]]:
    """Run every job so often, in shuffled order, and return its figures."""
    order = [name for name, (count, _) in jobs.items() for _ in range(count)]
    random.shuffle(order)
    figures: dict[str, list[float]] = {name: [] for name in jobs}
    for name in order:
        value = jobs[name][1]()
        if value is not None:
            figures[name].append(value)
    return figures


def probe_open(*, quick: bool, **_: object) -> Section:
    """Measure probes of an open port at ten hops, near, 50 ms away, and behind a silent hop; count their packets."""
    ours, peers = (5, 1) if quick else (100, 5)
    with Network() as network:
        chain = network.chain(HOPS)
        client, server = chain.client, chain.server
        _name_a_server(client)
        with server.listen((server.ip, OPEN)):
            probe = TcpProbe()
            near: dict[str, Any] = {
                "ours, in process": (ours, lambda: _timed(lambda: probe(client, (server, OPEN)))),
                "ours, in process, unprivileged": (
                    ours,
                    lambda: _timed(lambda: probe(client, (server, OPEN), mode="unprivileged")),
                ),
                "poor-tcptraceroute -q1": (
                    ours,
                    lambda: _timed(
                        lambda: client.run([*COMMAND, "-n", "-q1", server.ip, str(OPEN)], capture_output=True)
                    ),
                ),
            }
            for name, argv in PEERS.items():
                near[name] = (peers, lambda argv=argv: _peer(client, argv, server.ip, OPEN))
            figures = _rounds(near)
            sent = max(probe(client, (server, OPEN)).sent for _ in range(20))
            silent = _silent(chain, probe, ours)
            distant = _distant(chain, probe, ours)
            wrong = sum(not probe(client, (server, OPEN)).open for _ in range(20))
    section = Section("probe-open", "Probes of an open port")
    cpu = _start_up(5 if quick else 20)
    section.targets += [
        Target("open port at 10 hops, in process: median", _median(figures["ours, in process"]) * 1e3, 3, "ms"),
        Target("the same 50 ms away: median", _median(distant) * 1e3, 60, "ms"),
        Target("the same with a silent hop: median", _median(silent) * 1e3, 30, "ms"),
        Target("packets sent (SYN and one echo request)", sent, 13),
        Target("poor-tcptraceroute's own start, CPU: median", cpu, 40, "ms"),
        Target("wrong verdicts of 20 in a row", wrong, 0),
    ]
    table = Table(("open port, 10 hops", "rounds", "median ms", "p10", "p90"))
    _rows(table, {**figures, "ours, 50 ms away": distant, "ours, a silent hop": silent})
    section.parts += [
        paragraph(
            """A client, ten routers and a server of `Network.chain`. Peers are Debian's, with one probe per hop and
            the options that let them end soonest; their figures are whole processes in the client, as is that of
            `poor-tcptraceroute`. "In process" is what a test waits for."""
        ),
        table,
    ]
    return section


def _silent(chain: Any, probe: TcpProbe, rounds: int) -> list[float]:
    router = chain.routers[3]
    router.run(["nft", "-f", "-"], input=MUTE, text=True, check=True)
    try:
        return [_timed(lambda: probe(chain.client, (chain.server, OPEN))) for _ in range(rounds)]
    finally:
        router.run(["nft", "delete", "table", "inet", "mute"], check=True)


def _distant(chain: Any, probe: TcpProbe, rounds: int) -> list[float]:
    """Return the times where the last cable delays packets by 25 ms each way."""
    with chain.links[-1].impair(delay="25ms"):
        return [_timed(lambda: probe(chain.client, (chain.server, OPEN))) for _ in range(rounds)]


def _start_up(rounds: int) -> float:
    """Return the CPU time of the whole command with a trace of one hop, in milliseconds."""
    figures = []
    program = COMMAND[0]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    compileall.compile_dir(str(Path(pytest_poorcontainer.__file__).parent), quiet=2)  # as pip does
    for _ in range(rounds):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([program, "-n", "-q1", "127.0.0.1", "9"], env=environment, capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        figures.append((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3)
    return _median(figures)


def probe_filtered(*, quick: bool, **_: object) -> Section:
    """Measure probes of a port that a router on the way drops: until there is a verdict, and what it names."""
    ours, peers = (3, 1) if quick else (100, 5)
    with Network() as network:
        chain = network.chain(HOPS)
        client, server = chain.client, chain.server
        _name_a_server(client)
        chain.routers[5].run(["nft", "-f", "-"], input=RULE, text=True, check=True)
        probe = TcpProbe()
        named = 0

        def inside() -> float:
            nonlocal named
            began = time.perf_counter()
            found = probe(client, (server, FILTERED))
            named += "tcp dport 83 drop" in found.rule and found.at == chain.routers[5]
            return time.perf_counter() - began

        jobs: dict[str, Any] = {
            "ours, white-box: the rule named": (ours, inside),
            "ours, black-box": (ours, lambda: _timed(lambda: probe(client, (server, FILTERED), mode="raw"))),
            "ours, unprivileged": (
                max(ours // 5, 1),
                lambda: _timed(lambda: probe(client, (server, FILTERED), mode="unprivileged")),
            ),
        }
        for name, argv in PEERS.items():
            count = 1 if name in SLOWEST and quick else peers
            jobs[name] = (count, lambda argv=argv: _peer(client, argv, server.ip, FILTERED))
        figures = _rounds(jobs)
    section = Section("probe-filtered", "Probes of a filtered port")
    white, black = (figures[name] for name in list(jobs)[:2])
    section.targets += [
        Target("filtered, in our own network, rule named: median", _median(white) * 1e3, 50, "ms"),
        Target("rules not named", len(white) - named, 0),
        Target("filtered, black box, verdict and last hop: median", _median(black) * 1e3, 350, "ms"),
    ]
    table = Table(("dropped by hop 6 of 10", "rounds", "median ms", "p10", "p90"))
    _rows(table, figures)
    section.parts += [
        paragraph(
            """The port is dropped in the sixth router's forward chain. None of the peers names the hop that drops;
            nmap alone says "filtered", with a path that it has traced by another protocol."""
        ),
        table,
    ]
    return section


EVEN = [("c", "r1"), ("r1", "a"), ("r1", "b"), ("a", "a2"), ("b", "b2"), ("a2", "r2"), ("b2", "r2"), ("r2", "s")]
UNEVEN = [("c", "r1"), ("r1", "a"), ("r1", "b"), ("a", "a2"), ("a2", "r2"), ("b", "r2"), ("r2", "s")]
WAYS = "ip route replace 10.9.7.0/24 nexthop via 10.9.2.2 nexthop via 10.9.3.2"


def probe_ways(*, quick: bool, **_: object) -> Section:
    """Measure how long it takes to find all ways of a diamond, and count links that are missing or false."""
    rounds = 5 if quick else 50
    section = Section("probe-ways", "All ways of a target")
    table = Table(("diamond", "rounds", "median ms", "p10", "p90", "links missing", "links false"))
    for name, links, setup in (("even", EVEN, {}), ("uneven", UNEVEN, {"r1": WAYS})):
        true = {(a, b) for a, b in links if a != "c"}
        missing = false = 0
        seconds = []
        with Topology(links, setup) as topology:
            probe = TcpProbe()
            probe.know(*topology.nodes.values())
            for _ in range(rounds):
                began = time.perf_counter()
                found = probe(topology.nodes["c"], (topology.nodes["s"], OPEN), mda=True)
                seconds.append(time.perf_counter() - began)
                links_found = set(found.graph.named())
                missing += len(true - links_found)
                false += len(links_found - true)
        table.rows.append([name, rounds, *(value * 1e3 for value in spread(seconds)), missing, false])
        section.targets += [
            Target(f"{name} diamond, all ways: median", _median(seconds) * 1e3, 200, "ms"),
            Target(f"{name} diamond, links missing", missing, 0),
            Target(f"{name} diamond, links false", false, 0),
        ]
    section.parts.append(table)
    return section
