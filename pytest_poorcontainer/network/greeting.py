"""What hosts are told when a cable works again, so that nothing waits for a second."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pytest_poorcontainer.lab.protocol import Field, Op
from pytest_poorcontainer.network import messages
from pytest_poorcontainer.network.fabric import await_up, fabric_of
from pytest_poorcontainer.network.netlink import Netlink

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_poorcontainer.network.host import Host
    from pytest_poorcontainer.network.topology import Cable, Node

__all__ = ["await_ports", "greet", "lives", "netlinks_of"]

_AT_ONCE = 60  # descriptors in one answer of the lab's


@contextlib.contextmanager
def netlinks_of(nodes: Iterable[Node]) -> Iterator[dict[Node, Netlink]]:
    """Lend netlink sockets of hosts, those that are closed left out. Nobody else has them meanwhile."""
    hosts = [(node, host) for node in nodes if (host := node.host) is not None and lives(host)]
    if not hosts:
        yield {}
        return
    lab = hosts[0][1]._handle.lab  # noqa: SLF001 - ours
    with fabric_of(lab).lock, contextlib.ExitStack() as stack:
        lent: dict[Node, Netlink] = {}
        for start in range(0, len(hosts), _AT_ONCE):
            some = hosts[start : start + _AT_ONCE]
            ids = [(Field.ID, host._handle.id) for _, host in some]  # noqa: SLF001
            answer = lab.ask(Op.NETLINK, ids, "find the networks of hosts")
            fds, answer.fds = answer.fds, []
            made = [stack.enter_context(Netlink(fd)) for fd in fds]
            lent.update(zip((node for node, _ in some), made, strict=True))
        yield lent


def lives(host: Host) -> bool:
    """Return whether a host is neither closed nor dead."""
    return not host.closed and not host._handle.has_ended()  # noqa: SLF001 - ours


def await_ports(cable: Cable, *, up: bool) -> None:
    """Return when the hosts at a cable's ends see that it works; or, at once, when they see that it does not."""
    ports = [port for port in cable.ports if port is not None]
    with netlinks_of(port.node for port in ports) as lent:
        for port in ports:
            if port.node not in lent:
                continue
            if up:
                await_up(lent[port.node], [port.index], port.node.name)
            else:
                lent[port.node].send([messages.state(port.index, port.node.name)])


def greet(cable: Cable) -> None:
    """Tell hosts that ask for a neighbour beyond this cable its hardware address, and the other way round.

    A request that was lost on the way is repeated after a second only, and everything waits for it. Nothing is told to
    hosts that do not ask.
    """
    ends = [port for port in cable.ports if port is not None]
    if ends:
        others = {other: list(ends) for port in ends for other in port.segment.ports if other not in ends}
        told = {port: [other for other in port.segment.ports if other is not port] for port in ends} | others
    else:  # between two switches
        everybody = [port for segment in cable.segments() for port in segment.ports]
        told = {port: [other for other in everybody if other is not port] for port in everybody}
    with netlinks_of(dict.fromkeys(port.node for port in told)) as lent:
        for port, news in told.items():
            requests = [
                messages.tell_neighbour(port.index, address, other.place.mac, port.node.name)
                for other in news
                for address in (other.place.ip, other.place.ip6)
                if address
            ]
            if requests and port.node in lent:
                lent[port.node].send(requests)
