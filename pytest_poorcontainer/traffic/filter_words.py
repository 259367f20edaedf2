"""The words of a filter, and what they mean: pcap-filter(7)."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.traffic import bpf
from pytest_poorcontainer.traffic.bpf import Instruction
from pytest_poorcontainer.traffic.filter_code import (
    ARP,
    IP4,
    IP6,
    NETWORK,
    And,
    Condition,
    Not,
    Or,
    Test,
    any_of,
    at_transport,
    ether_type,
    every,
    field,
    port_test,
    transport,
    unfragmented,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Unknown", "understood"]

_TOKEN = re.compile(r"\s*(?:(&&|\|\||!=|<=|>=|<<|>>|[()\[\]!=<>&|:+*/^])|([A-Za-z0-9_.:/-]+))")
_NUMBERS = {
    "tcp": 6,
    "udp": 17,
    "icmp": 1,
    "icmp6": 58,
    "sctp": 132,
    "igmp": 2,
    "ospf": 89,
    "vrrp": 112,
    "esp": 50,
    "ah": 51,
    "gre": 47,
}
_TRANSPORTS = ("tcp", "udp", "sctp")
_NETWORKS = {"ip": IP4, "ip6": IP6, "arp": ARP}
_CONSTANTS = {
    "tcpflags": 13,
    "tcp-fin": 1,
    "tcp-syn": 2,
    "tcp-rst": 4,
    "tcp-push": 8,
    "tcp-ack": 16,
    "tcp-urg": 32,
    "icmptype": 0,
    "icmpcode": 1,
    "icmp6type": 0,
    "icmp6code": 1,
    "icmp-echoreply": 0,
    "icmp-unreach": 3,
    "icmp-redirect": 5,
    "icmp-echo": 8,
    "icmp-timxceed": 11,
}
_COMPARISONS = {"=": bpf.JEQ, "==": bpf.JEQ, "!=": bpf.JEQ, ">": bpf.JGT, ">=": bpf.JGE, "<": bpf.JGE, "<=": bpf.JGT}
_NEGATED = ("!=", "<", "<=")
_SOURCE, _TARGET = "src", "dst"
_PLACES = {IP4: (NETWORK + 12, NETWORK + 16), ARP: (NETWORK + 14, NETWORK + 24), IP6: (NETWORK + 8, NETWORK + 24)}
_LARGEST_PORT = 0xFFFF
_MAC = re.compile(r"(?:[0-9A-Fa-f]{1,2}:){5}[0-9A-Fa-f]{1,2}")


class Unknown(Exception):
    """The filter has a word that is not known here; tcpdump may know it."""


def understood(text: str, resolve: Callable[[str], Sequence[str]]) -> Condition | None:
    """Return what a filter means, None for an empty one.

    Raises :class:`Unknown` for words that are not known here, :class:`UsageError` for a number that cannot be.
    """
    if not text.strip():
        return None
    reader = _Reader(text, resolve)
    condition = reader.alternatives()
    if reader.next is not None:
        raise Unknown(f"did not expect {reader.next!r}")
    return condition


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    text = text.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise Unknown(f"did not expect {text[at:].strip()[:20]!r}")
        tokens.append(found[1] or found[2])
        at = found.end()
    return tokens


class _Reader:
    """Reads from left to right; ``and`` and ``or`` have the same rank, as in pcap-filter(7)."""

    def __init__(self, text: str, resolve: Callable[[str], Sequence[str]]) -> None:
        self._words = _tokens(text)
        self._at = 0
        self._resolve = resolve
        self._last: tuple[str, str, str] | None = None  # protocol, direction, kind: of a value that stands alone

    @property
    def next(self) -> str | None:
        return self._words[self._at] if self._at < len(self._words) else None

    def take(self) -> str:
        word = self.next
        if word is None:
            raise Unknown("something is missing at its end")
        self._at += 1
        return word

    def taken(self, *words: str) -> str | None:
        return self.take() if self.next in words else None

    def expect(self, word: str) -> None:
        found = self.take()
        if found != word:
            raise Unknown(f"expected {word!r}, not {found!r}")

    def alternatives(self) -> Condition:
        condition = self.negation()
        while True:
            word = self.taken("and", "&&", "or", "||")
            if word is None:
                return condition
            other = self.negation()
            condition = And(condition, other) if word in ("and", "&&") else Or(condition, other)

    def negation(self) -> Condition:
        if self.taken("not", "!"):
            return Not(self.negation())
        if self.taken("("):
            condition = self.alternatives()
            self.expect(")")
            return condition
        return self.primitive()

    def primitive(self) -> Condition:
        if self._last is not None and self._stands_alone():
            return self.about(*self._last, self.take())
        protocol = self.taken(*_NETWORKS, *_NUMBERS, "ether") or ""
        if self.next == "[":
            return self.comparison(protocol)
        direction = self.taken(_SOURCE, _TARGET) or ""
        kind = (
            self.taken("host", "net", "port", "portrange", "proto", "broadcast", "multicast", "less", "greater") or ""
        )
        if not direction and not kind:
            if protocol and protocol != "ether":
                return _protocol(protocol)
            raise Unknown(f"the word {self.take()!r}" if self.next else "something is missing at its end")
        if kind in ("broadcast", "multicast"):
            if protocol not in ("", "ether") or direction:
                raise Unknown(f"{protocol or direction} before {kind}")
            return _everybody() if kind == "broadcast" else field(0, 1, 1, mask=1)
        if kind not in ("proto", "less", "greater"):
            self._last = (protocol, direction, kind or "host")
        return self.about(protocol, direction, kind or "host", self.take())

    def _stands_alone(self) -> bool:
        word = self.next or ""
        return word[:1].isdigit() or (":" in word and word != ":")

    def about(self, protocol: str, direction: str, kind: str, value: str) -> Condition:
        if kind == "host" and protocol == "ether":
            return _hardware(direction, value)
        if kind == "host":
            return self._host(protocol, direction, value)
        if kind == "net":
            return _addresses(protocol, direction, [_network(value)])
        if kind in ("port", "portrange"):
            return _ports(protocol, direction, kind, value)
        number = _NUMBERS.get(value) if kind == "proto" else None
        number = _number(value) if number is None else number
        if kind == "proto":
            families = {"ip": (IP4,), "ip6": (IP6,), "": (IP4, IP6)}.get(protocol)
            if families is None or direction:
                raise Unknown(f"{protocol or direction} before proto")
            return transport(number, families=families)
        at_least = Test((Instruction(bpf.LD | bpf.LEN),), bpf.JGE, number)
        return at_least if kind == "greater" else Not(Test(at_least.loads, bpf.JGT, number))

    def _host(self, protocol: str, direction: str, value: str) -> Condition:
        try:
            wanted = [ipaddress.ip_network(value)]
        except ValueError:
            wanted = [ipaddress.ip_network(address) for address in self._resolve(value)]
        if not wanted:
            raise Unknown(f"{value!r} is neither an address nor the name of a host")
        return _addresses(protocol, direction, wanted)

    def comparison(self, protocol: str) -> Condition:
        """Read what follows ``tcp`` in ``tcp[13] & 2 != 0``."""
        self.expect("[")
        offset, size = self._constant(), 1
        if ":" in offset:
            offset, _, behind = offset.partition(":")
            size = _number(behind)
        elif self.taken(":"):
            size = _number(self.take())
        self.expect("]")
        if size not in (1, 2, 4):
            raise Unknown(f"a field of {size} bytes")
        more = []
        while self.taken("&"):
            more.append(Instruction(bpf.ALU | bpf.AND, k=self._value()))
        sign = self.take()
        if sign == "=" and self.taken("="):
            sign = "=="
        if sign not in _COMPARISONS:
            raise Unknown(f"expected a comparison, not {sign!r}")
        return _compared(protocol, _number(offset), size, tuple(more), sign, self._value())

    def _constant(self) -> str:
        word = self.take()
        return str(_CONSTANTS.get(word, word))

    def _value(self) -> int:
        if not self.taken("("):
            return _number(self._constant())
        value = self._value()
        while self.taken("|"):
            value |= self._value()
        self.expect(")")
        return value


def _number(word: str) -> int:
    try:
        value = int(word, 0)
    except ValueError:
        raise Unknown(f"expected a number, not {word!r}") from None
    if not 0 <= value <= 0xFFFFFFFF:  # noqa: PLR2004 - 32 bits
        raise UsageError(f"{word} in a filter is no number of 32 bits")
    return value


def _protocol(name: str) -> Condition:
    if name in _NETWORKS:
        return ether_type(_NETWORKS[name])
    families = {"icmp": (IP4,), "icmp6": (IP6,)}.get(name, (IP4, IP6))
    return transport(_NUMBERS[name], families=families)


def _everybody() -> Condition:
    return And(field(0, 4, 0xFFFFFFFF), field(4, 2, 0xFFFF))


def _hardware(direction: str, value: str) -> Condition:
    if not _MAC.fullmatch(value):
        raise Unknown(f"{value!r} is no hardware address")
    mac = bytes(int(part, 16) for part in value.split(":"))
    sides = [place for name, place in ((_TARGET, 0), (_SOURCE, 6)) if direction in ("", name)]
    high, low = int.from_bytes(mac[:4], "big"), int.from_bytes(mac[4:], "big")
    return any_of(*(And(field(place, 4, high), field(place + 4, 2, low)) for place in sides))


def _network(value: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(value)
    except ValueError as error:
        raise UsageError(f"{value!r} in a filter is no network: {error}") from None


def _addresses(
    protocol: str, direction: str, wanted: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> Condition:
    if protocol not in ("", *_NETWORKS):
        raise Unknown(f"{protocol} before an address")
    sides = [side for side, name in enumerate((_SOURCE, _TARGET)) if direction in ("", name)]
    tests: list[Condition] = []
    for network in wanted:
        for family in (IP4, ARP) if network.version == 4 else (IP6,):  # noqa: PLR2004
            if protocol in ("", next(name for name, number in _NETWORKS.items() if number == family)):
                places = [_PLACES[family][side] for side in sides]
                tests.append(And(ether_type(family), any_of(*(_in_network(place, network) for place in places))))
    if not tests:
        raise UsageError(f"no address of {protocol} in a filter: {', '.join(map(str, wanted))}")
    return any_of(*tests)


def _in_network(at: int, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> Condition:
    tests = []
    address, mask = network.network_address.packed, network.netmask.packed
    for place in range(0, len(address), 4):
        part = int.from_bytes(mask[place : place + 4], "big")
        if part:
            value = int.from_bytes(address[place : place + 4], "big")
            tests.append(field(at + place, 4, value, None if part == 0xFFFFFFFF else part))  # noqa: PLR2004
    # 0.0.0.0/0 is any address there is
    return every(*tests) if tests else Test((Instruction(bpf.LD | bpf.LEN),), bpf.JGE, 0)


def _ports(protocol: str, direction: str, kind: str, value: str) -> Condition:
    first, _, last = value.partition("-")
    lowest, highest = _number(first), _number(last or first)
    if (kind == "portrange") != bool(last) or not lowest <= highest <= _LARGEST_PORT:
        raise UsageError(
            f"{kind} {value} in a filter: expected a number up to {_LARGEST_PORT}, or two with - (portrange)"
        )
    if protocol not in ("", *_TRANSPORTS):
        raise Unknown(f"{protocol} before a port")
    numbers = tuple(_NUMBERS[name] for name in ((protocol,) if protocol else _TRANSPORTS))
    sides = tuple(place for name, place in ((_SOURCE, 0), (_TARGET, 2)) if direction in ("", name))
    return port_test(numbers, sides, lowest, highest)


def _compared(protocol: str, offset: int, size: int, more: tuple[Instruction, ...], sign: str, value: int) -> Condition:
    def test(loads: tuple[Instruction, ...]) -> Condition:
        compared = Test(loads + more, _COMPARISONS[sign], value)
        return Not(compared) if sign in _NEGATED else compared

    if protocol == "ether":
        return test((_load(offset, size),))
    if protocol in _NETWORKS:
        return And(ether_type(_NETWORKS[protocol]), test((_load(NETWORK + offset, size),)))
    if protocol not in _NUMBERS:
        raise Unknown("expected a protocol before [")
    families = {"icmp": (IP4,), "icmp6": (IP6,)}.get(protocol, (IP4, IP6))
    return any_of(
        *(
            every(
                transport(_NUMBERS[protocol], families=(family,)),
                *unfragmented(family),
                test(at_transport(family, offset, size)),
            )
            for family in families
        )
    )


def _load(at: int, size: int) -> Instruction:
    return Instruction(bpf.LD | {1: bpf.BYTE, 2: bpf.HALF, 4: bpf.WORD}[size] | bpf.ABS, k=at)
