"""A host at which chosen ports lead to the machine's loopback: to a service that runs outside of all networks."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from pytest_poorcontainer.container import Container
from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.lab import forks
from pytest_poorcontainer.network.ways import checked_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_poorcontainer.network.host import Host

__all__ = ["ports_of", "serve"]

_BACKLOG = 4096
_LOCALHOST = (socket.inet_pton(socket.AF_INET, "127.0.0.1"), socket.inet_pton(socket.AF_INET6, "::1"))


def ports_of(ports: Sequence[int] | Mapping[int, int]) -> dict[int, int]:
    """Return which port of the gateway is which one of the machine. Raises :class:`UsageError`."""
    if isinstance(ports, (str, bytes, int)):
        raise UsageError(f"gateway() takes a list of ports, or a mapping of its ports to the machine's, not {ports!r}")
    pairs = ports if hasattr(ports, "items") else {port: port for port in ports}
    checked = {checked_port(own): checked_port(outer) for own, outer in pairs.items()}
    if not checked:
        raise UsageError("a gateway needs at least one port")
    return checked


def serve(host: Host, ports: Mapping[int, int]) -> Container:
    """Have these TCP ports of a host lead to the machine's loopback, by a container in the machine's network.

    Returns that container: it is to be closed with the host.
    """
    carrier = Container(host.name, network="host")
    try:
        for own, outer in ports.items():
            listener = host.socket(socket.AF_INET6 if host.addresses[1:] else socket.AF_INET)
            with listener:
                forks.guard(listener.fileno())
                try:
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    listener.bind(("", own))
                    listener.listen(_BACKLOG)
                    carrier._handle.agent.expose(listener.fileno(), outer, _LOCALHOST)  # noqa: SLF001 - ours
                finally:
                    forks.expose(listener.fileno())
    except BaseException:
        carrier.close()
        raise
    return carrier
