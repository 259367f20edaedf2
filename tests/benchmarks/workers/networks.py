"""Networks of many hosts: ``networks.py TASK N`` builds one for each line on standard input, and takes it down again.

Each answers with one line of JSON, in microseconds. ``lan`` and ``chain`` are ours, ``mininet`` and ``munet`` those of
the peers: N hosts with a link between any two neighbours. ``connects`` counts stalled first connects in N LANs of five
and chains of three; ``partition`` parts N hosts on a switch in halves and heals them.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

STALL = 0.5
COUNTER = itertools.count()


def clock() -> float:
    """Return microseconds."""
    return time.perf_counter_ns() / 1e3


def lan(count: int) -> dict[str, float]:
    """Hosts on one switch, of both address families, with names."""
    from pytest_poorcontainer import Network

    network = Network()
    begin = clock()
    nodes = network.lan(count)
    ready = clock()
    with nodes[0].listen(("", 80)):
        nodes[-1].connect((nodes[0].ip, 80)).close()
    connected = clock()
    network.close()
    return {"setup": ready - begin, "connect": connected - ready, "down": clock() - connected}


def chain(count: int) -> dict[str, float]:
    """Hosts in a row with a link between any two neighbours, all but the ends routers, with routes."""
    from pytest_poorcontainer import Network

    network = Network()
    begin = clock()
    hosts = network.chain(count - 2)
    ready = clock()
    with hosts.server.listen(("", 80)):
        hosts.client.connect((hosts.server.ip, 80)).close()
    connected = clock()
    network.close()
    return {"setup": ready - begin, "connect": connected - ready, "down": clock() - connected}


def mininet(count: int) -> dict[str, float]:
    """The same row of mininet's hosts; each has one IPv4 address, and no routes."""
    from mininet.net import Mininet

    begin = clock()
    net = Mininet(controller=None)
    hosts = [net.addHost(f"h{number}") for number in range(count)]
    for first, second in itertools.pairwise(hosts):
        net.addLink(first, second)
    net.start()
    ready = clock()
    net.stop()
    return {"setup": ready - begin, "down": clock() - ready}


def munet(count: int) -> dict[str, float]:
    """The same row of munet's hosts; an IPv4 address an end, and no routes."""
    from munet.base import BaseMunet

    begin = clock()
    with tempfile.TemporaryDirectory(prefix="bench-") as rundir:
        net = BaseMunet(name=f"bench{next(COUNTER)}", pid=False, rundir=rundir)
        hosts = [net.add_host(f"h{number}") for number in range(count)]
        for number, (first, second) in enumerate(itertools.pairwise(hosts)):
            net.add_link(first, second, f"right{number}", f"left{number}")
            first.cmd_raises(f"ip addr add 10.0.{number}.1/24 dev right{number}")
            second.cmd_raises(f"ip addr add 10.0.{number}.2/24 dev left{number}")
        ready = clock()
        asyncio.run(net.async_delete())
    return {"setup": ready - begin, "down": clock() - ready}


def connects(count: int) -> dict[str, float]:
    """First connects of fresh hosts: every host of a LAN to its neighbour, both ends of a chain, over both families."""
    from pytest_poorcontainer import Network

    done = stalled = 0
    for _ in range(count):
        with Network() as network:
            nodes, hosts = network.lan(5), network.chain(1)
            pairs = [*zip(nodes, [*nodes[1:], nodes[0]], strict=True), (hosts.client, hosts.server)]
            for client, server in pairs:
                for address in server.addresses[:2]:
                    with server.listen((address, 80)):
                        begin = time.perf_counter()
                        client.connect((address, 80)).close()
                        stalled += time.perf_counter() - begin > STALL
                        done += 1
    return {"connects": done, "stalls": stalled}


def partition(count: int) -> dict[str, float]:
    """A partition in halves and its end; each is in force when the call returns, the first proved by a canary."""
    from pytest_poorcontainer import Network

    with Network() as network:
        network.lan(count)
        network.partition.halves().end()
        begin = clock()
        fault = network.partition.halves()
        parted = clock()
        fault.end()
        return {"part": parted - begin, "heal": clock() - parted}


TASKS: dict[str, Callable[[int], dict[str, float]]] = {
    "lan": lan,
    "chain": chain,
    "mininet": mininet,
    "munet": munet,
    "connects": connects,
    "partition": partition,
}


def main() -> None:
    """Answer line after line until there are no more; a peer that cannot work says why, once."""
    task, count = TASKS[sys.argv[1]], int(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # mininet and munet print; the answers keep a file of their own
    for _ in sys.stdin:
        try:
            figures: dict[str, Any] = task(count)
        except ImportError:
            figures = {"missing": "not installed"}
        print(json.dumps(figures), file=answers, flush=True)


if __name__ == "__main__":
    main()
