"""The peers of the benchmarks: ``peers.py NAME`` builds two joined namespaces with it for each line on standard input.

Each answers with one line of JSON, in microseconds: ``setup``, ``connect`` (a first TCP connect from one
to the other, with sockets of this process), ``cycle`` (both) and ``down``. Only what a peer needs is
imported, so that any interpreter that has it can run it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLONE_NEWNET = 0x40000000
PORT = 8000
SERVER_IP = "10.0.0.2"
CLIENT_IP = "10.0.0.1"
LIBC = ctypes.CDLL(None, use_errno=True)
COUNTER = itertools.count()

Ends = tuple[str, str]
"""Where the two namespaces are: paths for setns."""


def check(result: int, what: str) -> None:
    """Raise what errno says when a call of libc failed."""
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


def setns(namespace: int) -> None:
    """Enter a network namespace (os.setns exists only from Python 3.12 on)."""
    check(LIBC.setns(namespace, CLONE_NEWNET), "setns")


def socket_in(path: str, home: int) -> socket.socket:
    """Return a TCP socket of the network namespace at ``path``."""
    namespace = os.open(path, os.O_RDONLY)
    try:
        setns(namespace)
        return socket.socket()
    finally:
        setns(home)
        os.close(namespace)


def connect(ends: Ends, home: int) -> None:
    """Connect the first end to the second, and close both sockets."""
    with socket_in(ends[1], home) as server, socket_in(ends[0], home) as client:
        server.bind((SERVER_IP, PORT))
        server.listen()
        client.settimeout(30)
        client.connect((SERVER_IP, PORT))


@contextlib.contextmanager
def pyroute2_anonymous(home: int) -> Iterator[Ends]:
    """pyroute2 for netlink; namespaces without a name, held by file descriptors."""
    from pyroute2 import IPRoute

    spaces, routes = [], []
    for _ in range(2):
        check(LIBC.unshare(CLONE_NEWNET), "unshare")
        spaces.append(os.open("/proc/self/ns/net", os.O_RDONLY))
        routes.append(IPRoute())
    setns(home)
    routes[0].link("add", ifname="eth0", kind="veth", peer={"ifname": "eth0", "net_ns_fd": spaces[1]})
    for route, address in zip(routes, (CLIENT_IP, SERVER_IP), strict=True):
        configure(route, address)
    yield f"/proc/self/fd/{spaces[0]}", f"/proc/self/fd/{spaces[1]}"
    for route, space in zip(routes, spaces, strict=True):
        route.close()
        os.close(space)


def configure(route: Any, address: str) -> None:
    """Give eth0 its address and set it up."""
    index = route.link_lookup(ifname="eth0")[0]
    route.addr("add", index=index, address=address, prefixlen=24)
    route.link("set", index=index, state="up")


@contextlib.contextmanager
def pyroute2_documented(home: int) -> Iterator[Ends]:
    """pyroute2 as its documentation does it: netns.create and IPRoute(netns=name)."""
    from pyroute2 import IPRoute, netns

    names = [f"bench{os.getpid()}-{next(COUNTER)}" for _ in range(2)]
    for name in names:
        netns.create(name)
    try:
        with IPRoute(netns=names[0]) as client, IPRoute(netns=names[1]) as server:
            client.link("add", ifname="eth0", kind="veth", peer={"ifname": "eth0", "net_ns_fd": names[1]})
            configure(client, CLIENT_IP)
            configure(server, SERVER_IP)
            yield f"/run/netns/{names[0]}", f"/run/netns/{names[1]}"
    finally:
        for name in names:
            netns.remove(name)


@contextlib.contextmanager
def ip_netns(home: int) -> Iterator[Ends]:
    """``ip netns`` of iproute2, one process a step (nine)."""
    first, second = (f"bench{os.getpid()}-{next(COUNTER)}" for _ in range(2))
    steps = [f"ip netns add {first}", f"ip netns add {second}"]
    steps += [f"ip -n {first} link add eth0 type veth peer name eth0 netns {second}"]
    for name, address in ((first, CLIENT_IP), (second, SERVER_IP)):
        steps += [f"ip -n {name} addr add {address}/24 dev eth0", f"ip -n {name} link set lo up"]
        steps += [f"ip -n {name} link set eth0 up"]
    try:
        for step in steps:
            subprocess.run(step.split(), check=True)
        yield f"/run/netns/{first}", f"/run/netns/{second}"
    finally:
        for name in (first, second):
            subprocess.run(["ip", "netns", "del", name], check=True)


@contextlib.contextmanager
def mininet(home: int) -> Iterator[Ends]:
    """mininet: two hosts and a link between them, no switch and no controller."""
    from mininet.net import Mininet

    net = Mininet(controller=None)
    first, second = net.addHost("h1", ip=f"{CLIENT_IP}/24"), net.addHost("h2", ip=f"{SERVER_IP}/24")
    net.addLink(first, second)
    net.start()
    yield f"/proc/{first.pid}/ns/net", f"/proc/{second.pid}/ns/net"
    net.stop()


@contextlib.contextmanager
def munet(home: int) -> Iterator[Ends]:
    """munet: BaseMunet with two hosts and a link."""
    from munet.base import BaseMunet

    with tempfile.TemporaryDirectory(prefix="bench-") as rundir:
        net = BaseMunet(name=f"bench{next(COUNTER)}", pid=False, rundir=rundir)
        first, second = net.add_host("h1"), net.add_host("h2")
        net.add_link(first, second, "eth0", "eth0")
        for host, address in ((first, CLIENT_IP), (second, SERVER_IP)):
            host.cmd_raises(f"ip addr add {address}/24 dev eth0")
        yield f"/proc/{first.pid}/ns/net", f"/proc/{second.pid}/ns/net"
        asyncio.run(net.async_delete())


PEERS: dict[str, Callable[[int], contextlib.AbstractContextManager[Ends]]] = {
    "pyroute2_anonymous": pyroute2_anonymous,
    "pyroute2_documented": pyroute2_documented,
    "ip_netns": ip_netns,
    "mininet": mininet,
    "munet": munet,
}


def one_round(peer: Callable[[int], contextlib.AbstractContextManager[Ends]], home: int) -> dict[str, float]:
    """Build, connect, take down, and return how long each took."""
    start = time.perf_counter_ns()
    with peer(home) as ends:
        ready = time.perf_counter_ns()
        connect(ends, home)
        connected = time.perf_counter_ns()
    gone = time.perf_counter_ns()
    return {
        "setup": (ready - start) / 1e3,
        "connect": (connected - ready) / 1e3,
        "cycle": (connected - start) / 1e3,
        "down": (gone - connected) / 1e3,
    }


def main() -> None:
    """Answer line after line until there are no more; a peer that cannot work says why, once."""
    peer = PEERS[sys.argv[1]]
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # mininet and munet print; the answers keep a file of their own
    for _ in sys.stdin:
        try:
            figures: dict[str, Any] = one_round(peer, home)
        except ImportError:
            figures = {"missing": "not installed"}
        print(json.dumps(figures), file=answers, flush=True)


if __name__ == "__main__":
    main()
