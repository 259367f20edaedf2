"""What a container is to be, in the words of the lab."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_poorcontainer.lab import protocol
from pytest_poorcontainer.lab.protocol import Field, Network

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["AT_ONCE", "Spec", "creation"]

AT_ONCE = 30
"""How many containers may be in one request: CREATE_AT_ONCE of preload/lab/create.h."""

_CAPABILITIES = struct.Struct("=Q")
_RLIMIT = struct.Struct("=IQQ")


@dataclass(frozen=True)
class Spec:
    """What a container is to be. A host of a network has an interface too.

    ``ip4`` and ``ip6`` are the packed address and then one byte of prefix length, ``mac`` its six bytes. ``rootfs`` is
    a number from :meth:`Lab.add_rootfs`, 0 for the machine's; ``capabilities`` a bit mask of those of capabilities(7)
    that it keeps, of what containers have; ``rlimits`` are resource, soft and hard limit as setrlimit(2) takes them;
    ``settings`` are sysctls below net, like "ipv4/ip_forward=1", with a "-" in front where it may not be there.
    """

    name: str
    hosts: str
    network: Network = Network.OWN
    interface: str = ""
    mac: bytes = b""
    ip4: bytes = b""
    ip6: bytes = b""
    rootfs: int = 0
    capabilities: int | None = None
    rlimits: tuple[tuple[int, int, int], ...] = ()
    settings: tuple[str, ...] = ()

    def fields(self) -> Iterable[tuple[int, int | str | bytes]]:
        """Return the fields of a CREATE, the name first."""
        yield Field.NAME, self.name
        yield Field.HOSTS, self.hosts
        yield Field.NETWORK, self.network
        if self.interface:
            yield Field.INTERFACE, self.interface
        if self.mac:
            yield Field.MAC, self.mac
        if self.ip4:
            yield Field.IP4, self.ip4
        if self.ip6:
            yield Field.IP6, self.ip6
        if self.rootfs:
            yield Field.ROOTFS, self.rootfs
        if self.capabilities is not None:
            yield Field.CAPABILITIES, _CAPABILITIES.pack(self.capabilities)
        for limit in self.rlimits:
            yield Field.RLIMIT, _RLIMIT.pack(*limit)
        for setting in self.settings:
            yield Field.SETTING, setting


def creation(specs: Sequence[Spec], link: int | None) -> bytes:
    """Return the body of a CREATE."""
    fields = [field for spec in specs for field in spec.fields()]
    if link is not None:
        fields.append((Field.LINK, link))
    return protocol.pack(fields)
