"""Which addresses the ends of a link get: private, and each subnet used once in a lab."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Addressed", "Addresses", "has_ipv6", "hosts_text"]

_SUBNETS = 0xFFFF  # of 10.0.0.0/8, a /24 each; after as many links they begin again
_IP4_PREFIX = 24
_IP6_PREFIX = 64
_IP6_BASE = "fd70:6f6f:7263"  # RFC 4193, a locally assigned prefix

# Text and bytes are made by hand: the ipaddress module would take as long as the kernel takes for an address.


@functools.lru_cache(maxsize=1)
def has_ipv6() -> bool:
    """Return whether this kernel has IPv6 at all (proc(5), /proc/net/if_inet6)."""
    return Path("/proc/net/if_inet6").exists()


class Addressed(Protocol):
    """What has addresses: one end of a link, or all interfaces of a host."""

    @property
    def ip(self) -> str:
        """The IPv4 address, the first of several."""

    @property
    def ip6(self) -> str:
        """The IPv6 address, the first of several; "" on a machine without."""

    def all(self) -> list[str]:
        """Return all addresses."""


@dataclass(frozen=True)
class Addresses:
    """What one end of a link is called: ``end`` 0 or 1 of the ``subnet`` that is its own."""

    subnet: int
    end: int

    @classmethod
    def of(cls, link: int, end: int) -> Addresses:
        """Return the addresses of end 0 or 1 of link number ``link``: 10.x.y.1 and .2, and an IPv6 pair beside it."""
        return cls((link - 1) % _SUBNETS + 1, end)

    @property
    def ip(self) -> str:
        """The IPv4 address."""
        return f"10.{self.subnet >> 8}.{self.subnet & 255}.{self.end + 1}"

    @property
    def ip6(self) -> str:
        """The IPv6 address, "" on a machine without."""
        return f"{_IP6_BASE}:{self.subnet:x}::{self.end + 1}" if has_ipv6() else ""

    def packed_ip(self) -> bytes:
        """Return the IPv4 address and its prefix length as the lab takes them."""
        return bytes((10, self.subnet >> 8, self.subnet & 255, self.end + 1, _IP4_PREFIX))

    def packed_ip6(self) -> bytes:
        """Return the IPv6 address and its prefix length as the lab takes them, b"" without one."""
        if not has_ipv6():
            return b""
        network = bytes.fromhex(_IP6_BASE.replace(":", "")) + self.subnet.to_bytes(2, "big")
        return network + bytes(7) + bytes((self.end + 1, _IP6_PREFIX))

    def packed_mac(self) -> bytes:
        """Return the six bytes of the Ethernet address, a locally administered one."""
        return bytes((2, 0, 10, self.subnet >> 8, self.subnet & 255, self.end + 1))

    def all(self) -> list[str]:
        """Return the addresses of both families, IPv4 first."""
        return [self.ip, self.ip6] if has_ipv6() else [self.ip]


def hosts_text(named: Mapping[str, Addressed]) -> str:
    """Return the text of /etc/hosts (hosts(5)) for hosts that know each other."""
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    lines += [f"{address}\t{name}" for name, addresses in named.items() for address in addresses.all()]
    return "\n".join(lines) + "\n"
