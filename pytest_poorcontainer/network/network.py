"""Networks: hosts, switches and routers, and the cables between them."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pytest_poorcontainer.container.settings import Settings
from pytest_poorcontainer.errors import PoorContainerError, UsageError, do_all
from pytest_poorcontainer.network.between import Between
from pytest_poorcontainer.network.building import FORWARDING, Plan, create, install_routes, rename, unwire, wire
from pytest_poorcontainer.network.fabric import fabric_of
from pytest_poorcontainer.network.faults import Faults
from pytest_poorcontainer.network.gateway import ports_of, serve
from pytest_poorcontainer.network.host import Host
from pytest_poorcontainer.network.link import Link
from pytest_poorcontainer.network.pairs import STOCK_MAX, HostPair, Pairs
from pytest_poorcontainer.network.partition import Partition
from pytest_poorcontainer.network.recording import await_recorder, retire
from pytest_poorcontainer.network.router import Router
from pytest_poorcontainer.network.topology import Switch, Topology
from pytest_poorcontainer.network.trunk import Trunk

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import NoReturn, TypeAlias

    from pytest_poorcontainer.container import Container
    from pytest_poorcontainer.lab import Lab
    from pytest_poorcontainer.network.routes import Route
    from pytest_poorcontainer.network.topology import Cable, Node

    End: TypeAlias = "Host | Switch | str"
    Sysctls: TypeAlias = "Mapping[str, int | str]"

__all__ = ["STOCK_MAX", "Chain", "HostPair", "Lan", "Network"]

_SYSCTL = re.compile(r"net(/[\w.:-]+)+", re.ASCII)


class Lan(list[Host]):
    """The hosts of a LAN, in their order, and the ``switch`` that joins them."""

    def __init__(self, hosts: Sequence[Host], switch: Switch) -> None:
        """Hold them."""
        super().__init__(hosts)
        self.switch = switch


class Chain(list[Host]):
    """``client``, ``routers`` and ``server``, in the order in which a packet passes them, and the ``links`` between."""

    def __init__(self, hosts: Sequence[Host], links: Sequence[Link]) -> None:
        """Hold them."""
        super().__init__(hosts)
        self.links = list(links)

    @property
    def client(self) -> Host:
        """The first."""
        return self[0]

    @property
    def server(self) -> Host:
        """The last."""
        return self[-1]

    @property
    def routers(self) -> list[Router]:
        """All between them."""
        return [host for host in self if isinstance(host, Router)]


class Network(Pairs):
    """Makes hosts, switches and routers joined by cables, and closes them. Safe to use from several threads at once.

    What it makes can be used when the call returns: interfaces pass frames, every host has routes to every other, and
    their names are in each other's /etc/hosts. Other arguments of what makes hosts are those of :class:`Container`.
    """

    def __init__(
        self,
        *,
        basetemp: Path | None = None,
        rootdir: Path | None = None,
        record: bool | int | str = True,
        routes: bool = True,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        """Make an empty network; the first host starts this process's lab.

        ``basetemp`` (read-write) and ``rootdir`` (read-only) are directories that the hosts see at the same paths. With
        ``record`` the newest frames of each host are kept, for who wants to know what went wrong (docs/capture.md):
        True, or how many bytes for each interface.
        Without ``routes`` hosts know only who is on their own cables: for tests of routing daemons. ``defaults`` are
        arguments of :class:`Container` for every host that is made without them.
        """
        super().__init__(basetemp=basetemp, rootdir=rootdir, record=record)
        self.compute_routes = routes
        """Whether hosts are given routes; may be set to False before there are any, when a daemon is to find them."""
        self._defaults = dict(defaults or {})
        self._topology = Topology(lambda: self._lab().new_link())
        self._hosts: dict[str, Host] = {}
        self._links: dict[Cable, Link] = {}
        self._routes: dict[Node, set[Route]] = {}
        self._faults: Faults | None = None
        self._carriers: list[Container] = []

    @property
    def hosts(self) -> list[Host]:
        """Its hosts, in the order in which they were made; not those of pairs."""
        return list(self._hosts.values())

    def _every_host(self) -> list[Host]:
        """Return its hosts and those of its pairs."""
        with self._lock:
            return [*self._hosts.values(), *(host for pair in self._pairs for host in pair)]

    @property
    def switches(self) -> list[Switch]:
        """Its switches."""
        return list(self._topology.switches.values())

    @property
    def links(self) -> list[Link]:
        """Its cables, in the order in which they were made; not those of pairs."""
        return list(dict.fromkeys(self._links.values()))

    @property
    def topology(self) -> Topology:
        """Who is joined to whom, as data."""
        return self._topology

    def __getitem__(self, name: str) -> Host:
        """Return the host of this name. Raises :class:`UsageError` when there is none."""
        return self.find(name)

    def find(self, host: Host | str) -> Host:
        """Return a host of this network, by its name or itself. Raises :class:`UsageError` when it is none."""
        name = host if isinstance(host, str) else getattr(host, "name", None)
        found = self._hosts.get(name) if isinstance(name, str) else None
        if found is None or (not isinstance(host, str) and found is not host):
            shown = repr(name) if isinstance(name, str) else repr(host)
            raise UsageError(
                f"there is no host {shown} in this network; its hosts are {', '.join(self._hosts) or 'none yet'}"
            )
        return found

    def host(self, name: str, *, sysctls: Sysctls | None = None, **container: Any) -> Host:
        """Return a new host, joined to nothing yet.

        ``sysctls`` are settings of its network, like ``{"net.ipv4.tcp_syn_retries": 2}``. Raises :class:`UsageError`
        for a name that is none or taken and for arguments that are none, :class:`LabError` with the step that failed.
        """
        return self.build(lambda plan: self.plan_host(plan, name, sysctls, container))[0]

    def router(self, name: str, *, sysctls: Sysctls | None = None, **container: Any) -> Router:
        """Return a new host that forwards between its cables, and answers every probe (no limit on ICMP errors)."""
        made = self.build(lambda plan: self.plan_host(plan, name, sysctls, container, forwards=True))[0]
        assert isinstance(made, Router)  # noqa: S101 - asked for above
        return made

    def switch(self, name: str | None = None, *, mtu: int = 1500) -> Switch:
        """Return a new switch; join hosts to it by :meth:`link`. It is one subnet, and one for each VLAN."""
        with self._lock:
            self._check_open()
            with self._topology.change():
                return self._topology.add_switch(name if name is not None else self._free_name("s"), mtu)

    def link(
        self,
        a: End,
        b: End,
        *,
        vlan: int = 0,
        vlans: Sequence[int] | None = None,
        mtu: int | None = None,
        subnet: str | None = None,
        subnet6: str | None = None,
        addresses: Mapping[str, Sequence[str]] | None = None,
    ) -> Link:
        """Join two hosts, a host and a switch, or two switches by a cable, and return it.

        A name that no host or switch has is a new host. A cable between two hosts is a subnet of its own, of private
        addresses unless ``subnet`` ("192.0.2.0/24") or ``subnet6`` says which; ``addresses`` gives hosts at its ends
        certain ones, by name. ``vlan`` is the VLAN of a switch that the cable belongs to (untagged), ``mtu`` in bytes.
        Between two switches ``vlans`` are those that cross (a trunk); without it, what is of no VLAN does, 0 in a list.

        Raises :class:`UsageError` for a loop of switches, for addresses that are taken or overlap, and for what cannot
        be joined; :class:`LabError` with the step that failed. Then everything is as it was.
        """

        def plan_link(plan: Plan) -> None:
            ends = self._end(plan, a), self._end(plan, b)
            first = self._topology.join(
                *ends, vlan=vlan, vlans=vlans, mtu=mtu, subnet=subnet, subnet6=subnet6, addresses=addresses
            )
            plan.cables += first.strands

        plan = Plan()
        self.build(plan_link, plan)
        return self._links[plan.cables[-1]]

    def lan(
        self,
        hosts: int | Sequence[str],
        *,
        switch: Switch | str | None = None,
        vlan: int = 0,
        mtu: int | None = None,
        subnet: str | None = None,
        subnet6: str | None = None,
        sysctls: Sysctls | None = None,
        **container: Any,
    ) -> Lan:
        """Return new hosts on one switch: so many, or of these names. ``lan(5)`` makes n1 to n5.

        ``switch`` is one that is there already, or the name of the new one. ``mtu`` is that of their cables, and of a
        new switch. The other arguments are as for :meth:`link` and :meth:`host`.
        """
        names = self.names_of(hosts)
        plan = Plan()

        def plan_lan(plan: Plan) -> None:
            if isinstance(switch, Switch):
                self._check_switch(switch)
                joined = switch
            else:
                joined = self._topology.add_switch(
                    switch if switch is not None else self._free_name("s"), 1500 if mtu is None else mtu
                )
            if subnet is not None or subnet6 is not None:
                self._topology.subnet_of(joined, vlan, subnet, subnet6)
            for name in names:
                node = self.plan_host(plan, name, sysctls, container)
                plan.cables.append(self._topology.join(node, joined, vlan=vlan, mtu=mtu))

        made = self.build(plan_lan, plan)
        used = plan.cables[0].ends[1]
        assert isinstance(used, Switch)  # noqa: S101 - joined above
        return Lan(made, used)

    def chain(self, routers: int, *, mtu: int | None = None, sysctls: Sysctls | None = None, **container: Any) -> Chain:
        """Return a client, so many routers in a row, and a server: ``client, *routers, server = network.chain(3)``.

        The names are "client", "r1" and so on, "server". Each cable is a subnet of its own.
        """
        if isinstance(routers, bool) or not isinstance(routers, int) or routers < 0:
            raise UsageError(f"chain() takes the number of routers, from 0 up, not {routers!r}")
        plan = Plan()

        def plan_chain(plan: Plan) -> None:
            last = self.plan_host(plan, "client", sysctls, container)
            for place in range(1, routers + 2):
                name, forwards = (f"r{place}", True) if place <= routers else ("server", False)
                node = self.plan_host(plan, name, sysctls, container, forwards=forwards)
                plan.cables.append(self._topology.join(last, node, mtu=mtu))
                last = node

        made = self.build(plan_chain, plan)
        return Chain(made, [self._links[cable] for cable in plan.cables])

    def between(self, a: Host | str, b: Host | str) -> Between:
        """Return the handle on the traffic between two hosts, wherever they stand. Raises :class:`UsageError`."""
        return Between(self.find(a), self.find(b))

    @property
    def partition(self) -> Partition:
        """Parts hosts from each other: ``network.partition(a, b)``, ``.halves()``, ``.ring()``, ``.bridge(n)``, ..."""
        return Partition(self.find, lambda: [one for one in self.hosts if one.cables and not isinstance(one, Router)])

    @property
    def faults(self) -> Faults:
        """Faults over time: ``network.faults.timeline([(0.5, link.cut), (2, link.heal)])``, ``.nemesis(seed=7)``."""
        if self._faults is None:
            self._faults = Faults(self)
        return self._faults

    def _check_open(self, what: str = "change") -> None:
        if self._closed:
            raise PoorContainerError(f"cannot {what} this network: it is closed")

    def _check_switch(self, switch: Switch) -> None:
        if self._topology.switches.get(switch.name) is not switch:
            raise UsageError(f"{switch!r} is no switch of this network")

    def _free_name(self, stem: str) -> str:
        taken = {name.lower() for name in (*self._topology.nodes, *self._topology.switches)}
        return next(name for name in (f"{stem}{n}" for n in itertools.count(1)) if name not in taken)

    def names_of(self, hosts: int | Sequence[str]) -> list[str]:
        """Return the names of the hosts of a LAN: those given, or so many free ones. Raises :class:`UsageError`."""
        if isinstance(hosts, int) and not isinstance(hosts, bool):
            if hosts < 1:
                raise UsageError(f"lan() takes a number of hosts from 1 up, or their names, not {hosts}")
            taken = {name.lower() for name in self._topology.nodes}
            free = (name for name in (f"n{n}" for n in itertools.count(1)) if name not in taken)
            return list(itertools.islice(free, hosts))
        if isinstance(hosts, (str, bytes)) or not isinstance(hosts, Sequence) or not hosts:
            raise UsageError(f"lan() takes a number of hosts, or a list of their names, not {hosts!r}")
        if not all(isinstance(name, str) for name in hosts):
            raise UsageError(f"lan() takes a number of hosts, or a list of their names, not {hosts!r}")
        return list(hosts)

    def plan_host(
        self, plan: Plan, name: str, sysctls: Sysctls | None, container: Mapping[str, Any], *, forwards: bool = False
    ) -> Node:
        """Add a host to the plan."""
        settings = _settings({**self._defaults, **container})
        lines = (FORWARDING if forwards else ()) + _setting_lines(sysctls)
        node = self._topology.add_node(name, forwards=forwards)
        plan.nodes.append((node, settings, lines))
        return node

    def _end(self, plan: Plan, end: End) -> Node | Switch:
        """Return what a cable is to be plugged into; a name that nobody has is a new host's."""
        if isinstance(end, Switch):
            self._check_switch(end)
            return end
        if isinstance(end, str):
            known = self._topology.nodes.get(end) or self._topology.switches.get(end)
            return known if known is not None else self.plan_host(plan, end, None, {})
        return self._topology.nodes[self.find(end).name]

    def build(self, fill: Callable[[Plan], object], plan: Plan | None = None) -> list[Host]:
        """Let the plan be filled, and build it. If a step fails, what was there before is as it was."""
        plan = Plan() if plan is None else plan
        made: list[Host] = []
        with self._lock:
            self._check_open()
            try:
                with self._topology.change():
                    fill(plan)
                    lab = self._lab()
                    made += create(lab, self._topology, plan, Host, Router)
                    if self._record:
                        await_recorder(lab)
                    before = list(self._hosts.values())
                    self._hosts.update({host.name: host for host in made})
                    for host, (node, _, _) in zip(made, plan.nodes, strict=True):
                        if isinstance(host, Router):
                            host._routes_by(node, self._reroute)  # noqa: SLF001 - ours
                    wire(lab, plan)
                    if plan.nodes or plan.cables:
                        rename(self._topology, before)
                    if self.compute_routes:
                        install_routes(self._topology, self._routes)
                    self._introduce()
            except BaseException:
                self._take_back(plan, made)
                raise
            for cable in plan.cables:
                self._add_link(lab, cable)
        if made:
            try:
                self._completed(made)
            except BaseException:
                made[0].close_with(*made[1:])
                raise
        return made

    def _introduce(self) -> None:
        """Let links that are impaired know who has come."""
        for link in self._links.values():
            link.introduce()

    def _completed(self, hosts: Sequence[Host]) -> None:
        """Do what is to be done with new hosts before they are handed over."""

    def link_of(self, cable: Cable) -> Link:
        """Return the link that a cable of the topology is."""
        return self._links[cable]

    def load(self, path: str | os.PathLike[str]) -> None:
        """Build what a TOML file says (docs/networks.md). Raises :class:`TopologyError` with file and line, OSError."""
        from pytest_poorcontainer.network.loading import load  # noqa: PLC0415 - few tests read files
        from pytest_poorcontainer.network.topology_file import read  # noqa: PLC0415 - as above

        load(self, read(path))

    def draw(self, form: Literal["ascii", "svg"] = "ascii") -> str:
        """Return a picture of it: lines of text, or an SVG document. Raises :class:`UsageError` for another form."""
        from pytest_poorcontainer.network.drawing import draw  # noqa: PLC0415 - few tests want a picture

        return draw(self, form)

    def _reroute(self) -> None:
        with self._lock:
            if self.compute_routes:
                install_routes(self._topology, self._routes)

    def gateway(self, to: End, ports: Sequence[int] | Mapping[int, int], *, name: str = "gateway") -> Host:
        """Return a new host, joined to a switch or a host, whose TCP ports lead to 127.0.0.1 of the machine.

        ``ports`` are the same on both sides, or a mapping of its ports to the machine's. Nothing else of the machine is
        in reach. Raises as :meth:`link` does, and :class:`UsageError` for what is no port.
        """
        pairs = ports_of(ports)
        self.host(name)
        self.link(name, to)
        host = self.find(name)
        self._carriers.append(serve(host, pairs))
        return host

    def _add_link(self, lab: Lab, cable: Cable) -> None:
        if cable in self._links:
            return
        names = (cable.ends[0].name, cable.ends[1].name)
        link = Link(lab, names, cable) if len(cable.strands) == 1 else Trunk(lab, names, cable.strands)
        self._links.update(dict.fromkeys(cable.strands, link))
        for port in cable.ports:
            if port is not None:
                host = self._hosts[port.node.name]
                host.cables.append(link)
                host.plugs = (*host.plugs, (port.plug, port.name))

    def _take_back(self, plan: Plan, made: Sequence[Host]) -> None:
        for host in made:
            self._hosts.pop(host.name, None)
        unwire(self._lab(), plan)
        if made:
            made[0].close_with(*made[1:])

    def close(self) -> None:
        """End all hosts with all that runs in them; return when every process is dead. Idempotent.

        Then raises :class:`WireOverflow` or :class:`WireDied` if a wire lost what it was not to lose; where there are
        several, the others are its contexts.
        """
        wrong = [] if self._faults is None else self._faults.close()
        with self._lock:
            links, hosts = self.links, [host for host in self._hosts.values() if not host.closed]
        wrong += [error for link in links if (error := link.end()) is not None]
        try:
            ending = [*hosts, *self._carriers]
            if ending:
                ending[0].close_with(*ending[1:])
        finally:
            retire(hosts)
            self._give_up_bridges()
            super().close()
        do_all(functools.partial(_throw, error) for error in reversed(wrong))

    def _give_up_bridges(self) -> None:
        """Let others have the bridges of our switches, but for those to which more is joined than hosts that end."""
        with self._lock:
            taken = {bridge for link in self.links if link.spliced for bridge in link.bridges()}
            for link in self.links:
                for end in link.cable.ends:
                    if isinstance(end, Switch):
                        alone = [one for vlan, one in end.bridges.items() if vlan not in end.together]
                        fabric_of(link.lab).take_over(bridge for bridge in alone if bridge not in taken)
                        end.bridges.clear()

    def __iter__(self) -> Iterator[Host]:
        """Return its hosts."""
        return iter(self.hosts)


def _throw(error: Exception) -> NoReturn:
    raise error


def _settings(container: Mapping[str, Any]) -> Settings:
    try:
        return Settings.of(**container)
    except TypeError:
        import inspect  # noqa: PLC0415 - only after a mistake

        known = [name for name in inspect.signature(Settings.of).parameters if name != "network"]
        wrong = sorted(set(container) - set(known))
        if not wrong:
            raise
        raise UsageError(f"a host has no {wrong[0]}=; what it can have: {', '.join(known)}, sysctls") from None


def _setting_lines(sysctls: Sysctls | None) -> tuple[str, ...]:
    """Return sysctls as the lab takes them. Raises :class:`UsageError` for one that is not of the network."""
    if not isinstance(sysctls, (Mapping, type(None))):
        raise UsageError(f"sysctls= is a mapping such as {{'net.ipv4.tcp_syn_retries': 2}}, not {sysctls!r}")
    lines = []
    for name, value in (sysctls or {}).items():
        slashed = "" if not isinstance(name, str) else name if "/" in name else name.replace(".", "/")
        # Nothing that leads up again: /proc/sys/vm is the machine's.
        if not _SYSCTL.fullmatch(slashed) or {"..", "."} & set(slashed.split("/")):
            raise UsageError(f"sysctls= are those below net, such as net.ipv4.tcp_syn_retries, not {name!r}")
        if not isinstance(value, (int, str)) or not str(value).isprintable():
            raise UsageError(f"sysctls= has a number or a text of one line for {name}, not {value!r}")
        lines.append(f"{slashed[4:]}={int(value) if isinstance(value, bool) else value}")
    return tuple(lines)
