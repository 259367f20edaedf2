"""A host that forwards, and that may translate addresses on the way."""

from __future__ import annotations

import itertools
import socket
import struct
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.network.host import Host

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_poorcontainer.network import nft
    from pytest_poorcontainer.network.link import Link
    from pytest_poorcontainer.network.topology import Node, Port, Switch

__all__ = ["Router"]

_numbers = itertools.count(1)
_SRCNAT, _DSTNAT, _FILTER = 100, -100, 0  # NF_IP_PRI_* of linux/netfilter_ipv4.h
_OFFSETS = {4: (16, 4), 16: (24, 16)}  # where the receiver stands in the IP header, by the length of an address


class Router(Host):
    """A host that forwards packets between its cables.

    It answers every probe: the kernel's limits on ICMP errors are off, unless ``sysctls=`` sets them.
    """

    _node: Node
    _reroute: Callable[[], None]

    def _routes_by(self, node: Node, reroute: Callable[[], None]) -> None:
        """Learn what it is in its topology, and who computes the routes again when it hides something."""
        self._node = node
        self._reroute = reroute

    def masquerade(self, out: Link | Switch | None = None) -> None:
        """Hide what is behind it: what leaves by ``out`` has the router's address, of both families.

        ``out`` is one of its cables, or a switch that it is joined to (default: the cable that it was given last). Who
        is outside has no route to the inside any more, and comes in by :meth:`forward_port` and as an answer only.
        Raises :class:`UsageError` for what is none of its cables, :class:`Unavailable` without nf_tables' nat.
        """
        from pytest_poorcontainer.network import nft  # noqa: PLC0415 - few routers translate

        port = self._outside(out)
        if port.segment in self._node.outside:
            return
        table = self._table()
        try:
            table.chain("post", "nat", nft.POSTROUTING, _SRCNAT)
            table.rule("post", nft.goes_out(port.name), nft.masquerade())
            table.chain("through", "filter", nft.FORWARD, _FILTER)
            for known in (True, False):
                table.rule("through", nft.comes_in(port.name), nft.status(established=known), nft.verdict(accept=True))
            table.rule("through", nft.comes_in(port.name), nft.verdict(accept=False))
            table.commit()
        finally:
            table.close()
        self._node.outside.add(port.segment)
        self._reroute()

    def forward_port(
        self,
        port: int,
        to: Host,
        to_port: int | None = None,
        *,
        protocol: str = "tcp",
        out: Link | Switch | None = None,
    ) -> None:
        """Lead who comes from outside to this port of the router to a host behind it (``to_port``, else the same).

        Raises as :meth:`masquerade` does, and :class:`UsageError` for what is no port and no host of the network.
        """
        from pytest_poorcontainer.network import nft  # noqa: PLC0415 - few routers translate
        from pytest_poorcontainer.network.ways import checked_port, protocol_number  # noqa: PLC0415 - as above

        self._handle.check()
        if to is not self and to not in self.others:
            raise UsageError(f"forward_port() leads to a host of this network that lives, network[name], not to {to!r}")
        number, port = protocol_number(protocol), checked_port(port)
        inner = checked_port(port if to_port is None else to_port)
        outside = self._outside(out).place
        targets = {len(one): one for one in reversed(_packed(to))}
        table = self._table()
        try:
            table.chain("pre", "nat", nft.PREROUTING, _DSTNAT)
            for address in (outside.ip, outside.ip6):
                if not address or len(address) not in targets:
                    continue
                offset, size = _OFFSETS[len(address)]
                table.rule(
                    "pre",
                    nft.of_family(4 if size == 4 else 6),  # noqa: PLR2004 - bytes of an IPv4 address
                    nft.payload(1, offset, size),
                    nft.equal(address),
                    nft.meta(nft.META_L4PROTO),
                    nft.equal(bytes((number,))),
                    nft.payload(2, 2, 2),
                    nft.equal(struct.pack(">H", port)),
                    nft.dnat(targets[size], inner),
                )
            table.commit()
        finally:
            table.close()

    def _outside(self, out: Link | Switch | None) -> Port:
        ports = self._node.ports
        if out is None and ports:
            return ports[-1]
        for link, port in zip(self.cables, ports, strict=True):
            if out is link or out in link.cable.ends:
                return port
        joined = ", ".join(map(str, self.cables)) or "none"
        raise UsageError(
            f"out= is a cable of {self.name}, or a switch that it is joined to, not {out!r}; it has {joined}"
        )

    def _table(self) -> nft.Ruleset:
        from pytest_poorcontainer.network import nft  # noqa: PLC0415 - few routers translate

        fd = self.socket_fd(socket.AF_NETLINK, socket.SOCK_RAW, nft.NETFILTER)
        return nft.Ruleset(fd, nft.INET, f"poor_container_{next(_numbers)}", self.name)


def _packed(host: Host) -> list[bytes]:
    from pytest_poorcontainer.network.subnets import packed  # noqa: PLC0415 - few routers translate

    return [packed(text) for text in host.addresses]
