"""Networks for probes, made from a table: who is joined to whom, the shortest routes, and what each node does besides.

Every node is a host of the lab. Its addresses are 10.9.N.1 or .2 and fd09:0:0:N::1 or ::2, where N is the link's place
in the table and the first node of a link has 1.
"""

from __future__ import annotations

import os
import time
from collections import deque

from pytest_poorcontainer import Container, Host

__all__ = ["Topology"]

SYSCTLS = """
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter
echo 0 >/proc/sys/net/ipv4/conf/default/rp_filter
echo 1 >/proc/sys/net/ipv4/fib_multipath_hash_policy
echo 1 >/proc/sys/net/ipv6/fib_multipath_hash_policy
"""
UNLIMITED = """
echo 0 >/proc/sys/net/ipv4/icmp_ratelimit
echo 0 >/proc/sys/net/ipv6/icmp/ratelimit
echo 0 >/proc/sys/net/ipv4/icmp_ratemask
echo >/proc/sys/net/ipv6/icmp/ratemask
"""
"""Both limits: the one for each receiver, and the one of a namespace (icmp_msgs_burst), which only the masks lift."""


class Named:
    """The addresses of a node, as a host has them."""

    def __init__(self):
        self.four, self.six = [], []

    @property
    def ip(self):
        """The first IPv4 address."""
        return self.four[0]

    @property
    def ip6(self):
        """The first IPv6 address."""
        return self.six[0]

    def all(self):
        """Return all of them, IPv4 first."""
        return [*self.four, *self.six]


class Topology:
    """Makes the nodes of ``links`` (pairs of names); ``nodes`` has them by name.

    ``setup`` are shell commands by the node's name, ``limited`` nodes keep the kernel's limits on ICMP errors.
    """

    def __init__(self, links, setup=None, limited=(), mtus=None):
        self.links = [tuple(link) for link in links]
        names = list(dict.fromkeys(name for link in self.links for name in link))
        self.named = {name: Named() for name in names}
        self.nodes, self._containers, self._interfaces = {}, [], {name: [] for name in names}
        try:
            for name in names:
                container = Container(name)
                self._containers.append(container)
                self.nodes[name] = Host(container._handle, self.named[name], self.named)
            self._wire(mtus or {})
            for name in names:
                self._prepare(name, unlimited=name not in limited)
            for name, command in (setup or {}).items():
                self.sh(name, command)
        except BaseException:
            self.close()
            raise

    def sh(self, name, command):
        """Run shell commands in a node; they must succeed."""
        done = self.nodes[name].run(["sh", "-ec", command], capture_output=True, text=True)
        assert done.returncode == 0, f"{name}: {command}: {done.stderr}"
        return done.stdout

    def _wire(self, mtus):
        spaces = {name: node._handle.agent.netns() for name, node in self.nodes.items()}
        try:
            for number, (a, b) in enumerate(self.links, 1):
                far, near = f"e{number}", f"e{number}"
                fd = spaces[b]
                mtu = mtus.get(f"{a}-{b}", 1500)
                argv = ["ip", "link", "add", near, "mtu", str(mtu), "type", "veth", "peer", "name", far]
                argv += ["mtu", str(mtu), "netns", f"/proc/self/fd/{fd}"]
                done = self.nodes[a].run(argv, pass_fds=[fd], capture_output=True, text=True)
                assert done.returncode == 0, f"{argv}: {done.stderr}"
                for end, name in enumerate((a, b), 1):
                    self._interfaces[name].append((number, end))
                    self.named[name].four.append(f"10.9.{number}.{end}")
                    self.named[name].six.append(f"fd09:0:0:{number:x}::{end}")
        finally:
            for fd in spaces.values():
                os.close(fd)

    def _prepare(self, name, *, unlimited):
        lines = []
        for number, end in self._interfaces[name]:
            lines.append(f"addr add 10.9.{number}.{end}/24 dev e{number}")
            lines.append(f"addr add fd09:0:0:{number:x}::{end}/64 dev e{number} nodad")
            lines.append(f"link set e{number} up")
        batch = "\n".join([*lines, *self._routes(name)])
        done = self.nodes[name].run(["ip", "-batch", "-"], input=batch, capture_output=True, text=True)
        assert done.returncode == 0, f"{name}: {done.stderr}\n{batch}"
        self.sh(name, SYSCTLS + (UNLIMITED if unlimited else ""))

    def _routes(self, name):
        """Return ip(8)'s lines for routes to all links that are not this node's own, all shortest ways."""
        distance = self._distances(name)
        own = {number for number, _ in self._interfaces[name]}
        for number, (a, b) in enumerate(self.links, 1):
            if number in own:
                continue
            goal = min((a, b), key=lambda end: distance[end])
            hops = self._first_hops(name, goal, distance)
            for version, subnet in ((4, f"10.9.{number}.0/24"), (6, f"fd09:0:0:{number:x}::/64")):
                ways = [
                    f"via 10.9.{link}.{end} dev e{link}"
                    if version == 4
                    else f"via fd09:0:0:{link:x}::{end} dev e{link}"
                    for link, end in hops
                ]
                several = " ".join(f"nexthop {way}" for way in ways)
                yield f"route replace {subnet} {ways[0] if len(ways) == 1 else several}"

    def _neighbours(self, name):
        for number, (a, b) in enumerate(self.links, 1):
            if name == a:
                yield b, number, 2
            elif name == b:
                yield a, number, 1

    def _distances(self, start):
        found, queue = {start: 0}, deque([start])
        while queue:
            name = queue.popleft()
            for other, _, _ in self._neighbours(name):
                if other not in found:
                    found[other] = found[name] + 1
                    queue.append(other)
        return found

    def _first_hops(self, name, goal, _distance):
        """Return the links, and the far ends on them, by which the shortest ways to ``goal`` begin."""
        back = self._distances(goal)
        return [(link, end) for other, link, end in self._neighbours(name) if back[other] == back[name] - 1]

    def ready(self):
        """Return when every interface is operationally up: a first packet would wait a second else."""
        for name in self.nodes:
            for _ in range(200):
                states = self.sh(name, "ip -o link | grep -v ' lo:' | sed 's/.*state \\([A-Z]*\\).*/\\1/'").split()
                if all(state == "UP" for state in states):
                    break
                time.sleep(0.01)
            else:
                raise AssertionError(f"{name}: an interface is not up: {states}")
        return self

    def close(self):
        """End the nodes."""
        for container in self._containers:
            container.close()

    def __enter__(self):
        return self.ready()

    def __exit__(self, *_):
        self.close()
