"""From the description in a file to a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.network.building import Plan
from pytest_poorcontainer.network.router import Router

if TYPE_CHECKING:
    from pytest_poorcontainer.network.host import Host
    from pytest_poorcontainer.network.network import Network
    from pytest_poorcontainer.network.topology_file import Description

__all__ = ["load"]

_NOT_CONTAINER = ("sysctls", "start", "switch", "masquerade", "forward")


def load(network: Network, found: Description) -> None:
    """Build what a file says, in one go, then start its services.

    Raises :class:`TopologyError`, and what building and starting raise, with where it stands in the file. A service
    that does not start leaves the network as it is, for who wants to look at it.
    """
    if not found.routes:
        network.compute_routes = False
    plan = Plan()
    impaired: list[tuple[int, int, dict[str, Any]]] = []
    with found.at():
        network.build(lambda plan: _fill(network, found, plan, impaired), plan)
    for name, table in found.routers.items():
        router = network.find(name)
        assert isinstance(router, Router)  # noqa: S101 - planned as one
        _translate(network, found, router, table)
    for number, cable, said in impaired:
        with found.at("links", number, "impair"):
            network.link_of(plan.cables[cable]).impair(**said)
    for kind, tables in (("hosts", found.hosts), ("routers", found.routers)):
        for name, table in tables.items():
            for number, one in enumerate(table.get("start", ())):
                with found.at(kind, name, "start", number):
                    _start(network.find(name), one)


def _fill(network: Network, found: Description, plan: Plan, impaired: list[tuple[int, int, dict[str, Any]]]) -> None:
    for name, table in found.switches.items():
        _plan_switch(network, found, name, table)
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
    for number, table in enumerate(found.links):
        with found.at("links", number):
            a, b = (topology.nodes.get(end) or topology.switches[end] for end in table["ends"])
            given = {key: table[key] for key in ("vlan", "mtu", "subnet", "subnet6", "addresses") if key in table}
            plan.cables.append(topology.join(a, b, **given))
            if "impair" in table:
                impaired.append((number, len(plan.cables) - 1, table["impair"]))


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
