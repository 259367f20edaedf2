"""The rtnetlink messages that networks are made of (rtnetlink(7), linux/rtnetlink.h, linux/pkt_sched.h)."""

from __future__ import annotations

import functools
import struct

from pytest_poorcontainer.network.netlink import CREATE, EXCL, REPLACE, Request, attribute, nest, number, text

__all__ = [
    "NEWLINK",
    "NEWROUTE",
    "OPERSTATE",
    "add_address",
    "add_bridge",
    "add_route",
    "clsact",
    "delete_link",
    "delete_route",
    "drop_filter",
    "keep_filter",
    "master",
    "redirect",
    "set_up",
    "state",
    "stop_redirect",
    "tell_neighbour",
    "undrop",
    "unkeep",
    "veth",
    "way_to",
]

NEWLINK, NEWROUTE = 16, 24
_DELLINK, _GETLINK, _SETLINK, _NEWADDR, _DELROUTE, _GETROUTE, _NEWNEIGH = 17, 18, 19, 20, 25, 26, 28
_NEWQDISC, _NEWTFILTER, _DELTFILTER = 36, 44, 45

_IFINFO = struct.Struct("=BBHiII")
_IFADDR = struct.Struct("=BBBBi")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=BBHiHBB")
_TC = struct.Struct("=BBHiIII")
_MIRRED = struct.Struct("=IIiiiiI")
_INSTRUCTION = struct.Struct("=HBBI")

_IFF_UP = 1
_INET, _INET6 = 2, 10
_ADDRESS, _IFNAME, _MTU, MASTER, OPERSTATE, _LINKINFO = 1, 3, 4, 10, 16, 18
_NET_NS_PID, _NUM_TX_QUEUES, _NUM_RX_QUEUES = 19, 31, 32
_INFO_KIND, _INFO_DATA, _VETH_PEER, _MCAST_SNOOPING = 1, 2, 1, 23
_EXT_MASK, _SKIP_STATS = 29, 8
_NODAD = 2
_DST, _OIF, _GATEWAY = 1, 4, 5
_MAIN, _OURS = 254, 152  # 152: the protocol number of the routes that we make, for `ip route show proto 152`
_STALE = 4

_CLSACT, _CLSACT_HANDLE = 0xFFFFFFF1, 0xFFFF0000
_HOOKS = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
_DROP_PRIORITY, _KEEP_PRIORITY, _REDIRECT_PRIORITY = 1, 2, 10  # the last is REDIRECT_PRIORITY of preload/lab/link.c
_ALL = 0x0300  # ETH_P_ALL in network order
_KIND, _OPTIONS = 1, 2
_BPF_ACT, _BPF_OPS_LEN, _BPF_OPS, _BPF_FLAGS = 1, 4, 5, 8
_DIRECT = 1
_STOLEN, _EGRESS_REDIRECT = 4, 1
_YES = _INSTRUCTION.pack(0x06, 0, 0, 0xFFFFFFFF)  # BPF_RET: matches everything
_ENOENT, _ESRCH, _EEXIST, _ENODEV, _EINVAL = 2, 3, 17, 19, 22
_ENODEV = 19  # of a plug that is gone with its host: nothing passes there


def _info(index: int, flags: int = 0, change: int = 0) -> bytes:
    return _IFINFO.pack(0, 0, 0, index, flags, change)


def veth(
    plug: int,
    *,
    name: str,
    index: int,
    mac: bytes,
    mtu: int,
    pid: int | None,
    bridge: int | None = None,
    of: str = "",
) -> Request:
    """Make a plug in the fabric, and its peer in the network namespace of process ``pid`` (None: in the fabric too)."""
    size = number(_MTU, mtu) + number(_NUM_TX_QUEUES, 1) + number(_NUM_RX_QUEUES, 1)
    peer = _info(index) + text(_IFNAME, name) + attribute(_ADDRESS, mac) + size
    if pid is not None:
        peer += number(_NET_NS_PID, pid)
    kind = nest(_LINKINFO, text(_INFO_KIND, "veth"), nest(_INFO_DATA, attribute(_VETH_PEER, peer)))
    body = _info(plug) + text(_IFNAME, f"p{plug}") + size + kind
    if bridge is not None:
        body += number(MASTER, bridge)
    return Request(NEWLINK, CREATE | EXCL, body, "create the veth of", of)


def add_bridge(index: int, mtu: int, of: str) -> Request:
    """Make a bridge that learns and floods and does nothing else, up from the start."""
    data = nest(_INFO_DATA, attribute(_MCAST_SNOOPING, b"\0"))
    body = _info(index, _IFF_UP, _IFF_UP) + text(_IFNAME, f"b{index}") + number(_MTU, mtu)
    body += nest(_LINKINFO, text(_INFO_KIND, "bridge"), data)
    return Request(NEWLINK, CREATE | EXCL, body, "create the bridge of", of)


def delete_link(index: int, of: str) -> Request:
    """Remove an interface, and a veth's other end."""
    return Request(_DELLINK, 0, _info(index), "remove an interface of", of, (_ENODEV,))


def master(index: int, bridge: int, of: str) -> Request:
    """Make an interface a bridge's port; with bridge 0 it is none any more."""
    return Request(_SETLINK, 0, _info(index) + number(MASTER, bridge), "make a port of a bridge for", of)


def set_up(index: int, of: str, *, up: bool = True) -> Request:
    """Set an interface up or down."""
    return Request(NEWLINK, 0, _info(index, _IFF_UP if up else 0, _IFF_UP), "bring up" if up else "take down", of)


def ports_of(bridge: int) -> Request:
    """Ask for the ports of a bridge. Kernels before 4.6 answer with all interfaces: look at who their MASTER is."""
    body = _info(0) + number(MASTER, bridge) + number(_EXT_MASK, _SKIP_STATS)
    return Request(_GETLINK, 0, body, "look for the ports of a bridge")


def state(index: int, of: str) -> Request:
    """Ask for an interface's state, which also makes the kernel bring it up to date."""
    return Request(_GETLINK, 0, _info(index) + number(_EXT_MASK, _SKIP_STATS), "read the state of", of)


def add_address(index: int, packed: bytes, prefix: int, of: str) -> Request:
    """Give an interface an address; an IPv6 one without duplicate address detection."""
    family, flags = (_INET, 0) if len(packed) == 4 else (_INET6, _NODAD)  # noqa: PLR2004 - bytes of an IPv4 address
    body = _IFADDR.pack(family, prefix, flags, 0, index) + attribute(2, packed) + attribute(1, packed)
    return Request(_NEWADDR, CREATE | EXCL, body, "give an address to", of)


def _route(packed: bytes, prefix: int, gateway: bytes, index: int) -> bytes:
    family = _INET if len(gateway) == 4 else _INET6  # noqa: PLR2004
    body = _ROUTE.pack(family, prefix, 0, 0, _MAIN, _OURS, 0, 1, 0)
    if prefix:
        body += attribute(_DST, packed)
    return body + attribute(_GATEWAY, gateway) + number(_OIF, index)


def add_route(packed: bytes, prefix: int, gateway: bytes, index: int, of: str) -> Request:
    """Add a route, or take the place of the one that is there."""
    return Request(NEWROUTE, CREATE | REPLACE, _route(packed, prefix, gateway, index), "add a route in", of)


def delete_route(packed: bytes, prefix: int, gateway: bytes, index: int, of: str) -> Request:
    """Remove a route of ours; that it is not there any more is fine."""
    return Request(_DELROUTE, 0, _route(packed, prefix, gateway, index), "remove a route in", of, (_ESRCH, _ENOENT))


def way_to(packed: bytes, of: str) -> Request:
    """Ask which way an IPv6 packet would go, without going it."""
    body = _ROUTE.pack(_INET6, 128, 0, 0, 0, 0, 0, 0, 0) + attribute(_DST, packed)
    return Request(_GETROUTE, 0, body, "look for the route to", of, (101,))  # ENETUNREACH: not yet


def tell_neighbour(index: int, packed: bytes, mac: bytes, of: str) -> Request:
    """Tell the hardware address of a neighbour that is being asked for; of one that is not known, nothing.

    Nor to a host that has no such interface any more, or no IPv6 at it: it has switched that off, or its MTU is below
    1280 (EINVAL; net/ipv6/ndisc.c, ndisc_allow_add).
    """
    family = _INET if len(packed) == 4 else _INET6  # noqa: PLR2004
    body = _NEIGHBOUR.pack(family, 0, 0, index, _STALE, 0, 0) + attribute(1, packed) + attribute(2, mac)
    return Request(_NEWNEIGH, 0, body, "tell a hardware address to", of, (_ENOENT, _EINVAL, _ENODEV))


def clsact(plug: int, of: str) -> Request:
    """Give a plug the hooks for filters; on one that is up the kernel waits for a grace period."""
    body = _TC.pack(0, 0, 0, plug, _CLSACT_HANDLE, _CLSACT, 0) + text(_KIND, "clsact")
    return Request(_NEWQDISC, CREATE | EXCL, body, "add a clsact qdisc to the plug of", of)


def _filter(plug: int, hook: str, priority: int, handle: int = 1) -> bytes:
    return _TC.pack(0, 0, 0, plug, handle, _HOOKS[hook], priority << 16 | _ALL) + text(_KIND, "bpf")


def redirect(plug: int, other: int, of: str) -> Request:
    """Let everything that arrives at a plug go out of another one."""
    action = nest(
        1,
        text(_KIND, "mirred"),
        nest(0x8000 | _OPTIONS, attribute(2, _MIRRED.pack(0, 0, _STOLEN, 0, 0, _EGRESS_REDIRECT, other))),
    )
    options = nest(
        _OPTIONS, nest(_BPF_ACT, action), attribute(_BPF_OPS_LEN, struct.pack("=H", 1)), attribute(_BPF_OPS, _YES)
    )
    body = _filter(plug, "ingress", _REDIRECT_PRIORITY) + options
    return Request(_NEWTFILTER, CREATE | EXCL, body, "redirect the plug of", of, (_EEXIST,))


def stop_redirect(plug: int, of: str) -> Request:
    """Let what arrives at a plug go nowhere."""
    body = _filter(plug, "ingress", _REDIRECT_PRIORITY)
    return Request(_DELTFILTER, 0, body, "stop redirecting the plug of", of, (_ENOENT,))


def drop_filter(plug: int, hook: str, program: tuple[tuple[int, int, int, int], ...], of: str) -> Request:
    """Have a classic BPF program decide, at the ingress or egress of a plug, what is dropped; it replaces another."""
    body = _filter(plug, hook, _DROP_PRIORITY) + _direct(program)
    return Request(_NEWTFILTER, CREATE | REPLACE, body, "add a filter to the plug of", of, (_ENODEV,))


@functools.lru_cache(maxsize=64)
def _direct(program: tuple[tuple[int, int, int, int], ...]) -> bytes:
    code = b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)
    return nest(
        _OPTIONS,
        attribute(_BPF_OPS_LEN, struct.pack("=H", len(program))),
        attribute(_BPF_OPS, code),
        number(_BPF_FLAGS, _DIRECT),
    )


def keep_filter(plug: int, handle: int, program: tuple[tuple[int, int, int, int], ...], of: str) -> Request:
    """Have a program decide what arrives at a plug and is not redirected; there may be one for each handle."""
    body = _filter(plug, "ingress", _KEEP_PRIORITY, handle) + _direct(program)
    return Request(_NEWTFILTER, CREATE | EXCL, body, "add a filter to the plug of", of)


def unkeep(plug: int, handle: int, of: str) -> Request:
    """Take such a program away."""
    body = _filter(plug, "ingress", _KEEP_PRIORITY, handle)
    return Request(_DELTFILTER, 0, body, "remove a filter from the plug of", of, (_ENOENT, _ENODEV))


def undrop(plug: int, hook: str, of: str) -> Request:
    """Take such a program away."""
    body = _filter(plug, hook, _DROP_PRIORITY)
    return Request(_DELTFILTER, 0, body, "remove a filter from the plug of", of, (_ENOENT, _ENODEV))
