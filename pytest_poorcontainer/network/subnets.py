"""Subnets, and who has which address in them. Text and bytes by hand where it is often: ipaddress is slow to load."""

from __future__ import annotations

import dataclasses
from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.network.addresses import has_ipv6

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Place", "Subnet", "address_text", "packed"]

_SUBNETS = 0xFFFF
_BASE6 = 0xFD70_6F6F_7263 << 80  # RFC 4193, as in addresses.py
_BITS4, _BITS6 = 32, 128
_POINT_TO_POINT = 31  # RFC 3021


def address_text(address: bytes) -> str:
    """Return an address as people write it."""
    return inet_ntop(AF_INET if len(address) == 4 else AF_INET6, address)  # noqa: PLR2004 - bytes of an IPv4 address


def packed(text: str) -> bytes:
    """Return the 4 or 16 bytes of an address. Raises :class:`UsageError`."""
    try:
        return inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    except (OSError, TypeError):
        raise UsageError(f"{text!r} is no IP address: expected one like 192.0.2.7 or 2001:db8::7") from None


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one interface is: its addresses as bytes (``ip6`` b"" without IPv6) and its Ethernet address."""

    ip: bytes
    prefix: int
    ip6: bytes
    prefix6: int
    mac: bytes

    def all(self) -> list[str]:
        """Return the addresses as text, IPv4 first."""
        return [address_text(one) for one in (self.ip, self.ip6) if one]


class Subnet:
    """One IPv4 subnet and the IPv6 one beside it; hands out addresses, each once."""

    def __init__(self, number: int, given: str | None = None, given6: str | None = None) -> None:
        """Be subnet ``number`` of the lab: 10.x.y.0/24 and fd70:6f6f:7263:N::/64, unless others are given.

        Raises :class:`UsageError` for what is no subnet.
        """
        self.number = (number - 1) % _SUBNETS + 1
        self.base, self.prefix = 10 << 24 | self.number << 8, 24
        self.base6, self.prefix6 = _BASE6 | self.number << 64, 64
        self.chosen = given is not None or given6 is not None
        if given is not None:
            self.base, self.prefix = _parsed(given, 4)
        if given6 is not None:
            self.base6, self.prefix6 = _parsed(given6, 6)
        self._next = 1
        self._macs = 0
        self._taken: dict[bytes, str] = {}

    @property
    def room(self) -> int:
        """How many addresses it has for hosts (RFC 3021: a /31 has two)."""
        size = 1 << (_BITS4 - self.prefix)
        return size if self.prefix >= _POINT_TO_POINT else size - 2

    @property
    def packed(self) -> bytes:
        """The IPv4 subnet's address."""
        return self.base.to_bytes(4, "big")

    @property
    def packed6(self) -> bytes:
        """The IPv6 subnet's address, b"" without IPv6."""
        return self.base6.to_bytes(16, "big") if has_ipv6() else b""

    def place(self, name: str, wanted: Sequence[str] = (), *, six: bool = True) -> Place:
        """Return free addresses for an interface of host ``name``, or those that are ``wanted``; IPv6 if ``six``.

        Raises :class:`UsageError` when one is taken, or is not of the subnet, or there are no more.
        """
        ip, ip6 = b"", b""
        for text in wanted:
            one = packed(text)
            if (len(one) == 4 and ip) or (len(one) == 16 and ip6):  # noqa: PLR2004 - bytes of the two families
                raise UsageError(f"{name} is given two addresses of one family in one subnet: {', '.join(wanted)}")
            self._check(name, one)
            ip, ip6 = (one, ip6) if len(one) == 4 else (ip, one)  # noqa: PLR2004
        if not ip:
            ip = self._free(name)
        if not ip6 and six and has_ipv6():
            host = int.from_bytes(ip, "big") - self.base
            ip6 = (self.base6 + host).to_bytes(16, "big")
            self._check(name, ip6)
        self._taken.update({one: name for one in (ip, ip6) if one})
        self._macs += 1
        mac = bytes((2, self._macs >> 8, 10, self.number >> 8, self.number & 255, self._macs & 255))
        return Place(ip, self.prefix, ip6, self.prefix6, mac)

    def release(self, place: Place) -> None:
        """Take back addresses that were handed out."""
        for one in (place.ip, place.ip6):
            self._taken.pop(one, None)
        self._next = 1

    def _check(self, name: str, one: bytes) -> None:
        family4 = len(one) == 4  # noqa: PLR2004
        base, bits = (self.base, _BITS4 - self.prefix) if family4 else (self.base6, _BITS6 - self.prefix6)
        value = int.from_bytes(one, "big")
        if value >> bits != base >> bits:
            raise UsageError(f"{name} cannot have {address_text(one)}: it is not in {self.text(4 if family4 else 6)}")
        if family4 and self.prefix < _POINT_TO_POINT and value - base in (0, (1 << bits) - 1):
            raise UsageError(
                f"{name} cannot have {address_text(one)}: the first and the last of {self.text(4)} are no host's"
            )
        if one in self._taken:
            raise UsageError(f"{name} cannot have {address_text(one)}: {self._taken[one]} has it")

    def _free(self, name: str) -> bytes:
        first = 0 if self.prefix >= _POINT_TO_POINT else 1
        while self._next - 1 < self.room:
            one = (self.base + first + self._next - 1).to_bytes(4, "big")
            self._next += 1
            if one not in self._taken:
                return one
        raise UsageError(f"{name} gets no address: all {self.room} of {self.text(4)} are taken; give a larger subnet=")

    def text(self, version: int) -> str:
        """Return it as people write it, "10.0.7.0/24"."""
        if version == 4:  # noqa: PLR2004
            return f"{address_text(self.packed)}/{self.prefix}"
        return f"{inet_ntop(AF_INET6, self.base6.to_bytes(16, 'big'))}/{self.prefix6}"

    def overlaps(self, other: Subnet) -> str:
        """Return which of the two subnets overlap, as text, or ""."""
        bits = _BITS4 - min(self.prefix, other.prefix)
        if self.base >> bits == other.base >> bits:
            return f"{self.text(4)} and {other.text(4)}"
        bits = _BITS6 - min(self.prefix6, other.prefix6)
        if self.base6 >> bits == other.base6 >> bits:
            return f"{self.text(6)} and {other.text(6)}"
        return ""


def _parsed(text: str, version: int) -> tuple[int, int]:
    import ipaddress  # noqa: PLC0415 - only for subnets that somebody chose

    kind = ipaddress.IPv4Network if version == 4 else ipaddress.IPv6Network  # noqa: PLR2004
    example = "192.0.2.0/24" if version == 4 else "2001:db8::/64"  # noqa: PLR2004
    if not isinstance(text, str):
        raise UsageError(f"{text!r} is no IPv{version} subnet: expected one like {example}")
    try:
        network = kind(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no IPv{version} subnet ({error}): expected one like {example}") from None
    if network.is_loopback or network.is_multicast or (version == 6 and network.is_link_local):  # noqa: PLR2004
        raise UsageError(f"no host can have an address of {text} by which others reach it: expected one like {example}")
    return int(network.network_address), network.prefixlen
