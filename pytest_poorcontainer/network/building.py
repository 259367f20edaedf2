"""How what the topology says comes to be: containers in few requests, then their cables, then their routes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from pytest_poorcontainer.lab.spec import AT_ONCE
from pytest_poorcontainer.network import messages
from pytest_poorcontainer.network.addresses import hosts_text
from pytest_poorcontainer.network.fabric import await_up, fabric_of
from pytest_poorcontainer.network.greeting import netlinks_of
from pytest_poorcontainer.network.routes import routes
from pytest_poorcontainer.network.topology import Switch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_poorcontainer.container.settings import Settings
    from pytest_poorcontainer.lab import Lab
    from pytest_poorcontainer.lab.handle import Handle
    from pytest_poorcontainer.network.host import Host
    from pytest_poorcontainer.network.netlink import Request
    from pytest_poorcontainer.network.routes import Route
    from pytest_poorcontainer.network.topology import Cable, Node, Port, Topology

__all__ = ["FORWARDING", "Plan", "create", "install_routes", "rename", "unwire", "wire"]

_BRIDGES = 500_000_000  # indexes of bridges begin here, those of plugs are below

FORWARDING = (
    "ipv4/ip_forward=1",
    "-ipv6/conf/all/forwarding=1",
    # Error messages to everybody who asks: the kernel's limits are for the internet (icmp(7)).
    "ipv4/icmp_ratelimit=0",
    "ipv4/icmp_ratemask=0",
    "-ipv6/icmp/ratelimit=0",
    "-ipv6/icmp/ratemask=\n",
    "ipv4/conf/all/send_redirects=0",
    "ipv4/conf/default/send_redirects=0",
    # Where two routes lead, an answer may come by the other one.
    "ipv4/conf/all/rp_filter=0",
    "ipv4/conf/default/rp_filter=0",
)
"""The sysctls of a router."""


@dataclasses.dataclass
class Plan:
    """What is to be built in one go; the topology has it already."""

    nodes: list[tuple[Node, Settings, tuple[str, ...]]] = dataclasses.field(default_factory=list)
    cables: list[Cable] = dataclasses.field(default_factory=list)
    bridges: list[tuple[Switch, int]] = dataclasses.field(default_factory=list)
    """Those that it needs and that were not there before: of a switch, for a VLAN."""


def create(lab: Lab, topology: Topology, plan: Plan, kind: type[Host], router: type[Host]) -> list[Host]:
    """Make the hosts of a plan; return them in its order. Raises :class:`LabError`; then none of them is left."""
    text = hosts_text(topology.nodes)
    specs = [
        dataclasses.replace(settings.spec(lab, node.name, text), settings=sysctls)
        for node, settings, sysctls in plan.nodes
    ]
    handles: list[Handle] = []
    for start in range(0, len(specs), AT_ONCE):
        made = lab.create(specs[start : start + AT_ONCE])
        handles += made
        for handle, (_, settings, _) in zip(made, plan.nodes[start:], strict=False):
            settings.created([handle])
    hosts = []
    for handle, (node, _, _) in zip(handles, plan.nodes, strict=True):
        host = (router if node.forwards else kind)(handle, node, topology.nodes)
        node.is_made(host)
        hosts.append(host)
    return hosts


def rename(topology: Topology, hosts: Iterable[Host]) -> None:
    """Write the names and addresses of today into the /etc/hosts of hosts that were there before."""
    text = hosts_text(topology.nodes)
    for host in hosts:
        if not host.closed:
            host._handle.rename(host.name, text)  # noqa: SLF001 - ours


def wire(lab: Lab, plan: Plan) -> None:
    """Make cables; return when their ends can be used. Raises :class:`LabError` with the step that failed."""
    fabric = fabric_of(lab)
    requests: list[Request] = []
    plugs: list[int] = []
    ports: dict[Node, list[Port]] = {}
    for cable in plan.cables:
        requests += _bridges(lab, plan, cable)
        mine = _of_cable(cable)
        requests += mine
        plugs += [cable.plug(end) for end in _plugged(cable)]
        for port in cable.ports:
            if port is not None:
                ports.setdefault(port.node, []).append(port)
    fabric.send(requests)
    with netlinks_of(ports) as lent:
        for node, some in ports.items():
            lent[node].send(_attach(node, some))
        # After all of them: workers of the kernel finish the first ones' addresses in the meantime.
        for node, some in ports.items():
            addresses = [port.place.ip6 for port in some if port.place.ip6]
            await_up(lent[node], [port.index for port in some], node.name, addresses)
    fabric.await_up(plugs, "the plugs")


def unwire(lab: Lab, plan: Plan) -> None:
    """Remove from the fabric what could not be made as a whole; cables of hosts end with their hosts."""
    between = [cable for cable in plan.cables if all(isinstance(end, Switch) for end in cable.ends)]
    requests = [messages.delete_link(cable.plug(0), "switches") for cable in between]
    for switch, vlan in plan.bridges:
        requests.append(messages.delete_link(switch.bridges.pop(vlan), switch.name))
    if requests:
        fabric_of(lab).send(requests)


def _plugged(cable: Cable) -> list[int]:
    hosts = [end for end in (0, 1) if not isinstance(cable.ends[end], Switch)]
    return hosts or [0, 1]


def _bridges(lab: Lab, plan: Plan, cable: Cable) -> list[Request]:
    """Return what makes the bridges that this cable is the first to need."""
    requests = []
    for end in cable.ends:
        if isinstance(end, Switch) and cable.vlan not in end.bridges:
            spare = fabric_of(lab).bridge()
            end.bridges[cable.vlan] = _BRIDGES + lab.new_link() if spare is None else spare
            plan.bridges.append((end, cable.vlan))
            if spare is not None:
                continue
            # The largest: a bridge's own MTU is for what it sends itself, which is nothing.
            requests.append(messages.add_bridge(end.bridges[cable.vlan], 65535, end.name))
    return requests


def _of_cable(cable: Cable) -> list[Request]:
    """Return what makes the veths of a cable, joins their plugs and brings those up."""
    what = " -- ".join(end.name for end in cable.ends)
    ends = _plugged(cable)
    if isinstance(cable.ends[0], Switch) and isinstance(cable.ends[1], Switch):
        first, second = cable.plug(0), cable.plug(1)
        bridges = [end.bridges[cable.vlan] for end in cable.ends if isinstance(end, Switch)]
        mac = bytes((2, 1, *second.to_bytes(4, "big")))
        requests = [
            messages.veth(
                first, name=f"p{second}", index=second, mac=mac, mtu=cable.mtu, pid=None, bridge=bridges[0], of=what
            ),
            messages.master(second, bridges[1], what),
            *(messages.clsact(plug, what) for plug in (first, second)),
        ]
    else:
        requests = []
        for end in ends:
            port, other = cable.ports[end], cable.ends[1 - end]
            assert port is not None  # noqa: S101 - _plugged() names hosts only
            bridge = other.bridges[cable.vlan] if isinstance(other, Switch) else None
            host = port.node.host
            assert host is not None  # noqa: S101 - who builds holds it
            requests.append(
                messages.veth(
                    port.plug,
                    name=port.name,
                    index=port.index,
                    mac=port.place.mac,
                    mtu=cable.mtu,
                    pid=host.pid,
                    bridge=bridge,
                    of=port.node.name,
                )
            )
            requests.append(messages.clsact(port.plug, port.node.name))
        if len(ends) == 2:  # noqa: PLR2004 - two hosts
            requests += [messages.redirect(cable.plug(end), cable.plug(1 - end), what) for end in ends]
    return requests + [messages.set_up(cable.plug(end), what) for end in ends]


def _attach(node: Node, ports: Sequence[Port]) -> list[Request]:
    """Return what brings up the new interfaces of a host and gives them their addresses."""
    requests = [messages.set_up(1, node.name)]
    for port in ports:
        place = port.place
        requests.append(messages.set_up(port.index, node.name))
        requests.append(messages.add_address(port.index, place.ip, place.prefix, node.name))
        if place.ip6:
            requests.append(messages.add_address(port.index, place.ip6, place.prefix6, node.name))
    return requests


def install_routes(topology: Topology, have: dict[Node, set[Route]]) -> None:
    """Give every host the routes that it needs now, and take away those of ours that it does not need any more."""
    wanted = routes(topology.nodes.values(), topology.segments)
    changed = {node: new for node, new in wanted.items() if new != have.get(node, set())}
    with netlinks_of(changed) as lent:
        for node, netlink in lent.items():
            old, new = have.get(node, set()), changed[node]
            requests = [messages.add_route(*route, node.name) for route in sorted(new - old)]
            places = {(len(route.gateway), route.destination, route.prefix) for route in new}
            # One with another way to the same place was replaced by it.
            requests += [
                messages.delete_route(*route, node.name)
                for route in sorted(old - new)
                if (len(route.gateway), route.destination, route.prefix) not in places
            ]
            netlink.send(requests)
            have[node] = new
