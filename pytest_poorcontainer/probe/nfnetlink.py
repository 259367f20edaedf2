"""Netlink messages to nf_tables: a table that marks one connection for tracing, and the events of the trace.

The table belongs to the socket (NFT_TABLE_F_OWNER, Linux 5.12): the kernel removes it when the socket is closed, also
when this process is killed. Numbers are those of linux/netfilter/nfnetlink.h and linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["INET", "Event", "attributes", "chain_request", "events", "hook_of", "refusal", "removal", "tracing_table"]

NETLINK_NETFILTER = 12
GROUP_TRACE = 9  # NFNLGRP_NFTRACE
INET = 1  # NFPROTO_INET
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting", "ingress", "egress")
_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEW_TABLE, _DELETE_TABLE, _NEW_CHAIN, _GET_CHAIN, _NEW_RULE, _TRACE = 0, 2, 3, 4, 6, 17
_REQUEST, _ACK, _CREATE = 1, 4, 0x400
_OWNER = 2  # NFT_TABLE_F_OWNER
_BEFORE_ALL = -450 & 0xFFFFFFFF  # before connection tracking and "raw"
_ERROR = 2
_HEADER = struct.Struct("=IHHII")
_GENERIC = struct.Struct("!BBH")
_L4PROTO, _NFTRACE = 16, 12  # NFT_META_*
_TRANSPORT = 2  # NFT_PAYLOAD_TRANSPORT_HEADER
_NESTED = 0x8000
_DROP = 0
_POLICY, _RULE = 1, 3  # NFT_TRACETYPE_*


class Event(NamedTuple):
    """One step of a traced packet. ``handle`` is the rule's, 0 for a policy; ``dropped`` whether it ended there."""

    family: str
    table: str
    chain: str
    handle: int
    dropped: bool
    policy: bool


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("!I", value))


def _nest(kind: int, *parts: bytes) -> bytes:
    return _attribute(kind | _NESTED, b"".join(parts))


def _message(kind: int, family: int, body: bytes, *, flags: int, resource: int = 0, sequence: int = 0) -> bytes:
    body = _GENERIC.pack(family, 0, resource) + body
    return _HEADER.pack(_HEADER.size + len(body), kind, flags | _REQUEST, sequence, 0) + body


def _expression(name: str, *parts: bytes) -> bytes:
    return _nest(1, _text(1, name), _nest(2, *parts))


def _compare(value: bytes) -> bytes:
    return _expression("cmp", _number(1, 1), _number(2, 0), _nest(3, _attribute(1, value)))


def _rule(offset: int, ports: bytes) -> bytes:
    """Return the expressions of ``meta l4proto tcp @th,OFFSET,LENGTH PORTS meta nftrace set 1``."""
    return b"".join(
        (
            _expression("meta", _number(2, _L4PROTO), _number(1, 1)),
            _compare(b"\x06"),
            _expression("payload", _number(1, 1), _number(2, _TRANSPORT), _number(3, offset), _number(4, len(ports))),
            _compare(ports),
            _expression("immediate", _number(1, 1), _nest(2, _attribute(1, b"\x01"))),
            _expression("meta", _number(2, _NFTRACE), _number(3, 1)),
        )
    )


def tracing_table(name: str, ports: tuple[int, int]) -> tuple[bytes, int]:
    """Return a batch that makes a table which traces segments between these ports, and how many acknowledgements come.

    A port of 0 stands for any; one of the two must be given.
    """
    offset = 0 if ports[0] else 2
    packed = b"".join(struct.pack("!H", port) for port in ports if port)
    kind = _SUBSYSTEM << 8
    parts = [_message(_BATCH_BEGIN, 0, b"", flags=0, resource=_SUBSYSTEM)]
    wanted = [(_NEW_TABLE, _text(1, name) + _number(2, _OWNER))]
    for hook, chain in ((0, "prerouting"), (3, "output")):
        place = _nest(4, _number(1, hook), _number(2, _BEFORE_ALL))
        wanted.append((_NEW_CHAIN, _text(1, name) + _text(3, chain) + place + _text(7, "filter")))
        wanted.append((_NEW_RULE, _text(1, name) + _text(2, chain) + _nest(4, _rule(offset, packed))))
    for number, (what, body) in enumerate(wanted, 1):
        parts.append(_message(kind | what, INET, body, flags=_ACK | _CREATE, sequence=number))
    parts.append(_message(_BATCH_END, 0, b"", flags=0, resource=_SUBSYSTEM))
    return b"".join(parts), len(wanted)


def removal(name: str) -> bytes:
    """Return a batch that removes a table; it is acknowledged once."""
    kind = _SUBSYSTEM << 8 | _DELETE_TABLE
    return b"".join(
        (
            _message(_BATCH_BEGIN, 0, b"", flags=0, resource=_SUBSYSTEM),
            _message(kind, INET, _text(1, name), flags=_ACK, sequence=1),
            _message(_BATCH_END, 0, b"", flags=0, resource=_SUBSYSTEM),
        )
    )


def chain_request(family: str, table: str, chain: str) -> bytes:
    """Return the request for what a chain is; :func:`hook_of` reads the answer."""
    number = next((number for number, name in _FAMILIES.items() if name == family), INET)
    return _message(_SUBSYSTEM << 8 | _GET_CHAIN, number, _text(1, table) + _text(3, chain), flags=0, sequence=99)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and value of netlink attributes (netlink(7)); what is malformed ends them."""
    place = 0
    while place + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, place)
        if length < 4 or place + length > len(data):  # noqa: PLR2004 - the header itself
            return
        yield kind & 0x3FFF, data[place + 4 : place + length]
        place += (length + 3) & ~3


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and body of the netlink messages of a datagram."""
    place = 0
    while place + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, place)
        if length < _HEADER.size or place + length > len(data):
            return
        yield kind, data[place + _HEADER.size : place + length]
        place += (length + 3) & ~3


def refusal(data: bytes) -> tuple[int, int]:
    """Return how many requests of a datagram's acknowledgements succeeded, and the first error number (0: none)."""
    good = 0
    for kind, body in messages(data):
        if kind == _ERROR and len(body) >= 4:  # noqa: PLR2004
            (number,) = struct.unpack_from("=i", body)
            if number:
                return good, -number
            good += 1
    return good, 0


def events(data: bytes) -> Iterator[Event]:
    """Yield the steps of a trace that a datagram has."""
    for kind, body in messages(data):
        if kind != _SUBSYSTEM << 8 | _TRACE or len(body) < _GENERIC.size:
            continue
        found = dict(attributes(body[_GENERIC.size :]))
        family = _FAMILIES.get(body[0], str(body[0]))
        what = int.from_bytes(found.get(4, b"")[:4], "big")
        if what == _POLICY:
            dropped = found.get(16, b"\1") == struct.pack("!I", _DROP)
        else:
            verdict = dict(attributes(found.get(5, b""))).get(1)
            dropped = verdict == struct.pack("!I", _DROP)
        handle = int.from_bytes(found.get(3, b""), "big") if what == _RULE else 0
        yield Event(family, _name(found.get(1)), _name(found.get(2)), handle, dropped, what == _POLICY)


def hook_of(data: bytes) -> str:
    """Return the hook of a base chain from the answer to :func:`chain_request`, "" for any other chain."""
    for kind, body in messages(data):
        if kind == _SUBSYSTEM << 8 | _NEW_CHAIN:
            for attribute, value in attributes(body[_GENERIC.size :]):
                if attribute == 4:  # noqa: PLR2004 - NFTA_CHAIN_HOOK
                    number = int.from_bytes(dict(attributes(value)).get(1, b"\xff"), "big")
                    return _HOOKS[number] if number < len(_HOOKS) else ""
    return ""


def _name(value: bytes | None) -> str:
    return "" if value is None else os.fsdecode(value.rstrip(b"\0"))
