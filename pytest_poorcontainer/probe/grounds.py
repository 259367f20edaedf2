"""Hosts of ours as the place where probes start: their sockets, their names, their neighbours."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.network import Host
from pytest_poorcontainer.probe.ask import Ground, checked_port

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["HostGround", "ground_of", "target_of"]


class HostGround(Ground):
    """A host. ``known`` are other hosts of ours whose addresses get their names."""

    ours = True

    def __init__(self, host: Host, known: Iterable[Host] = ()) -> None:
        """Start probes in this host."""
        super().__init__()
        self.host = host
        self.name = host.name
        self.open = host.socket
        nodes = tuple(dict.fromkeys((host, *host.others, *known)))
        self.nodes = nodes
        self._owners = {address: one for one in nodes for address in one.addresses}

    def owner(self, address: str) -> tuple[str, object]:
        """Return name and host of who owns an address; of a host that was not told of, the name alone."""
        host = self._owners.get(address)
        if host is not None:
            return host.name, host
        return self.host.name_of(address) or "", None

    def resolve(self, name: str, version: int | None) -> list[str]:
        """Return the addresses of a name as this host knows it. Raises :class:`UsageError`."""
        found = [one for one in self.host.resolve(name) if version in (None, _version(one))]
        if not found:
            wanted = f" to an IPv{version} address" if version else ""
            raise UsageError(f"{self.host.name} cannot resolve {name!r}{wanted}: it is none of the hosts it knows")
        return found


def _version(address: str) -> int:
    return 6 if ":" in address else 4


def ground_of(source: Host | None, known: Iterable[Host] = ()) -> Ground:
    """Return where probes start: a host, or this machine for None. Raises :class:`UsageError` for anything else."""
    if source is None:
        return Ground()
    if not isinstance(source, Host):
        raise UsageError(f"a probe starts from a host of ours, or from this machine (None), not from {source!r}")
    return HostGround(source, known)


def target_of(ground: Ground, target: object, port: object, kind: str, version: int | None) -> tuple[str, int | None]:
    """Return the address and port that a target means. Raises :class:`UsageError`.

    ``target`` is a host, a name, or an address; ``port`` is for TCP and UDP.
    """
    if isinstance(target, Host) and not ground.ours:
        raise UsageError(
            f"this machine has no cable to {target.name}: probe from a host of its network, or a port that "
            f"{target.name}.expose() gives"
        )
    number = None if kind == "icmp" and port is None else checked_port(port)
    if isinstance(target, Host):
        found = [one for one in target.addresses if version in (None, _version(one))]
        if not found:
            raise UsageError(f"{target.name} has no IPv{version} address: it has {', '.join(target.addresses)}")
        return found[0], number
    if not isinstance(target, str) or not target:
        raise UsageError(f"a target is a host of ours, a name or an IP address, not {target!r}")
    bare = target.partition("%")[0]
    for family, one in ((socket.AF_INET, 4), (socket.AF_INET6, 6)):
        try:
            socket.inet_pton(family, bare)
        except (OSError, ValueError):
            continue
        if version not in (None, one):
            raise UsageError(f"{target} is an IPv{one} address, and IPv{version} was asked for")
        return target, number
    return ground.resolve(target, version)[0], number
