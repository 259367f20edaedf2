"""Which addresses the ends of a link get: private, and each subnet used once in a lab."""

from __future__ import annotations

import functools
import ipaddress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Addresses", "has_ipv6", "hosts_text"]

_SUBNETS = 0xFFFF  # of 10.0.0.0/8, a /24 each; after as many links they begin again
_IP4_PREFIX = 24
_IP6_PREFIX = 64
_IP6_BASE = int(ipaddress.IPv6Address("fd70:6f6f:7263::"))  # RFC 4193, a locally assigned prefix


@functools.lru_cache(maxsize=1)
def has_ipv6() -> bool:
    """Return whether this kernel has IPv6 at all (proc(5), /proc/net/if_inet6)."""
    return Path("/proc/net/if_inet6").exists()


@dataclass(frozen=True)
class Addresses:
    """What one end of a link is called: ``ip``, ``ip6`` ("" without IPv6) and ``mac`` as text."""

    ip: str
    ip6: str
    mac: str

    @classmethod
    def of(cls, link: int, end: int) -> Addresses:
        """Return the addresses of end 0 or 1 of link number ``link``: 10.x.y.1 and .2, and an IPv6 pair beside it."""
        subnet = (link - 1) % _SUBNETS + 1
        high, low = divmod(subnet, 256)
        ip6 = str(ipaddress.IPv6Address(_IP6_BASE | subnet << 64 | end + 1)) if has_ipv6() else ""
        return cls(f"10.{high}.{low}.{end + 1}", ip6, f"02:00:0a:{high:02x}:{low:02x}:{end + 1:02x}")

    def packed_ip(self) -> bytes:
        """Return the IPv4 address and its prefix length as the lab takes them."""
        return ipaddress.IPv4Address(self.ip).packed + bytes([_IP4_PREFIX])

    def packed_ip6(self) -> bytes:
        """Return the IPv6 address and its prefix length as the lab takes them, b"" without one."""
        return ipaddress.IPv6Address(self.ip6).packed + bytes([_IP6_PREFIX]) if self.ip6 else b""

    def packed_mac(self) -> bytes:
        """Return the six bytes of the Ethernet address."""
        return bytes.fromhex(self.mac.replace(":", ""))

    def all(self) -> list[str]:
        """Return the addresses of both families, IPv4 first."""
        return [self.ip, self.ip6] if self.ip6 else [self.ip]


def hosts_text(named: dict[str, Addresses]) -> str:
    """Return the text of /etc/hosts (hosts(5)) for hosts that know each other."""
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    lines += [f"{address}\t{name}" for name, addresses in named.items() for address in addresses.all()]
    return "\n".join(lines) + "\n"
