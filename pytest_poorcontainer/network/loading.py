"""From the description in a file to a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.network.building import Plan
from pytest_poorcontainer.network.router import Router

if TYPE_CHECKING:
    from pytest_poorcontainer.network.host import Host
    from pytest_poorcontainer.network.network import Network
    from pytest_poorcontainer.network.topology import Cable
    from pytest_poorcontainer.network.topology_file import Description

    Impaired = list[tuple[int, Cable, dict[str, Any]]]

__all__ = ["build", "load", "start"]

_OF_LINKS = ("vlan", "vlans", "mtu", "subnet", "subnet6", "addresses")
_NOT_CONTAINER = ("sysctls", "start", "switch", "masquerade", "forward")


def load(network: Network, found: Description) -> None:
    """Build what a file says, in one go, then start its services. Raises as :func:`build` and :func:`start` do."""
    build(network, found)
    start(network, found)


def build(network: Network, found: Description) -> None:
    """Build what a file says, without services.

    Raises :class:`TopologyError`, and what building raises, with where it stands in the file.
    """
    if not found.routes:
        network.compute_routes = False
    plan = Plan()
    impaired: Impaired = []
    with found.at():
        network.build(lambda plan: _fill(network, found, plan, impaired), plan)
    for name, table in found.routers.items():
        router = network.find(name)
        assert isinstance(router, Router)  # noqa: S101 - planned as one
        _translate(network, found, router, table)
    for number, cable, said in impaired:
        with found.at("links", number, "impair"):
            network.link_of(cable).impair(**said)


def start(network: Network, found: Description) -> None:
    """Start the services of what was built. Raises :class:`TopologyError`, and what ``Host.start()`` raises.

    One that does not start leaves the network as it is, for who wants to look at it.
    """
    for kind, tables in (("hosts", found.hosts), ("routers", found.routers)):
        for name, table in tables.items():
            for number, one in enumerate(table.get("start", ())):
                with found.at(kind, name, "start", number):
                    _start(network.find(name), one)


def _fill(network: Network, found: Description, plan: Plan, impaired: Impaired) -> None:
    for name, table in found.switches.items():
        _plan_switch(network, found, name, table)
    # Before there are hosts on them: what is joined is one subnet.
    between = {number for number, table in enumerate(found.links) if set(table["ends"]) <= set(found.switches)}
    for number in sorted(between):
        _plan_link(network, found, plan, number, impaired)
    for kind, tables in (("hosts", found.hosts), ("routers", found.routers)):
        for name, table in tables.items():
            with found.at(kind, name):
                _plan_host(network, plan, name, table, forwards=kind == "routers")
    topology = network.topology
    for name, table in found.switches.items():
        with found.at("switches", name, "hosts"):
            for host in network.names_of(table["hosts"]) if "hosts" in table else ():
                if host not in topology.nodes:
                    network.plan_host(plan, host, None, {})
                plan.cables.append(topology.join(topology.nodes[host], topology.switches[name]))
    for number in sorted(set(range(len(found.links))) - between):
        _plan_link(network, found, plan, number, impaired)


def _plan_link(network: Network, found: Description, plan: Plan, number: int, impaired: Impaired) -> None:
    table, topology = found.links[number], network.topology
    with found.at("links", number):
        a, b = (topology.nodes.get(end) or topology.switches[end] for end in table["ends"])
        given = {key: table[key] for key in _OF_LINKS if key in table}
        plan.cables += topology.join(a, b, **given).strands
        if "impair" in table:
            impaired.append((number, plan.cables[-1], table["impair"]))


def _plan_switch(network: Network, found: Description, name: str, table: dict[str, Any]) -> None:
    with found.at("switches", name):
        switch = network.topology.add_switch(name, table.get("mtu", 1500))
    chosen = next((key for key in ("subnet", "subnet6") if key in table), None)
    if chosen is not None:
        with found.at("switches", name, chosen):
            network.topology.subnet_of(switch, 0, table.get("subnet"), table.get("subnet6"))


def _plan_host(network: Network, plan: Plan, name: str, table: dict[str, Any], *, forwards: bool) -> None:
    container = {key: value for key, value in table.items() if key not in _NOT_CONTAINER}
    network.plan_host(plan, name, table.get("sysctls"), container, forwards=forwards)
    if table.get("switch"):
        topology = network.topology
        plan.cables.append(topology.join(topology.nodes[name], topology.switches[table["switch"]]))


def _translate(network: Network, found: Description, router: Router, table: dict[str, Any]) -> None:
    outside = table.get("masquerade")
    out = None
    with found.at("routers", router.name, "masquerade"):
        if isinstance(outside, str):
            ends = network.topology.switches.get(outside)
            out = ends if ends is not None else network.between(router, outside).link
        if outside:
            router.masquerade(out)
    for number, one in enumerate(table.get("forward", ())):
        with found.at("routers", router.name, "forward", number):
            router.forward_port(
                one["port"], network.find(one["to"]), one.get("to_port"), protocol=one.get("protocol", "tcp"), out=out
            )


def _start(host: Host, service: dict[str, Any]) -> None:
    try:
        host.start(**service)
    except OSError as error:  # of what is no program, as subprocess has them
        raise UsageError(f"cannot run {error.filename or service['argv']!r}: {error.strerror}") from error
