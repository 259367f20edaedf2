"""Hosts' interfaces that cut segments to size themselves, for as long as faults have to see single packets."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import socket
import struct
import threading
import weakref
from typing import TYPE_CHECKING, NamedTuple

from pytest_poorcontainer.errors import LabError
from pytest_poorcontainer.network.greeting import lives

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_poorcontainer.network.link import Link
    from pytest_poorcontainer.network.topology import Port

__all__ = ["segmenting_off"]

_SIOCETHTOOL = 0x8946
_IFREQ = struct.Struct("@16sP16x")
# linux/ethtool.h. The numbers of features differ from kernel to kernel, their names do not.
_GSTRINGS, _GSSET_INFO, _GFEATURES, _SFEATURES = 0x1B, 0x37, 0x3A, 0x3B
_SS_FEATURES, _NAME_SIZE = 4, 32
_SET_INFO, _STRINGS, _SIZED, _STATE = (struct.Struct(form) for form in ("=IIQI", "=III", "=II", "=IIII"))
_WORD = 32  # bits
_SEGMENTING = frozenset(
    (
        b"tx-tcp-segmentation",
        b"tx-tcp-ecn-segmentation",
        b"tx-tcp-accecn-segmentation",
        b"tx-tcp-mangleid-segmentation",
        b"tx-tcp6-segmentation",
        b"tx-udp-segmentation",
    )
)


class _Held(NamedTuple):
    """How many blocks want it off at an interface, and what was on before the first: features in words of bits."""

    blocks: int
    before: tuple[int, ...]


_held: weakref.WeakKeyDictionary[Port, _Held] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


@contextlib.contextmanager
def segmenting_off(links: Iterable[Link]) -> Iterator[None]:
    """Switch segmentation offload of TCP and UDP off at all interfaces whose packets pass these links.

    Where several blocks want it, what was on before the first is on again after the last, in whatever order they end.
    Raises :class:`LabError` when the kernel refuses it.
    """
    ports = dict.fromkeys(port for link in links for segment in link.cable.segments() for port in segment.ports)
    with contextlib.ExitStack() as stack:
        for port in ports:
            with _lock:
                held = _held.get(port) or _Held(0, _switch_off(port))
                _held[port] = held._replace(blocks=held.blocks + 1)
            stack.callback(_release, port)
        yield


def _release(port: Port) -> None:
    with _lock:
        held = _held.pop(port)
        if held.blocks > 1:
            _held[port] = held._replace(blocks=held.blocks - 1)
        else:
            _set(port, held.before, held.before)


def _switch_off(port: Port) -> tuple[int, ...]:
    """Return what was on; nothing where host or interface are gone."""
    reply = _ethtool(port, _SET_INFO.pack(_GSSET_INFO, 0, 1 << _SS_FEATURES, 0))
    if reply is None:
        return ()
    count = _SET_INFO.unpack(reply)[3]
    names = _ethtool(port, _STRINGS.pack(_GSTRINGS, _SS_FEATURES, count) + bytes(_NAME_SIZE * count))
    words = -(-count // _WORD)
    state = _ethtool(port, _SIZED.pack(_GFEATURES, words) + bytes(_STATE.size * words))
    if names is None or state is None:
        return ()
    ours = [0] * words
    for place in range(count):
        start = _STRINGS.size + _NAME_SIZE * place
        if names[start : start + _NAME_SIZE].rstrip(b"\0") in _SEGMENTING:
            ours[place // _WORD] |= 1 << place % _WORD
    active = [one[2] for one in _STATE.iter_unpack(state[_SIZED.size :])]
    before = tuple(one & two for one, two in zip(ours, active, strict=True))
    _set(port, before, (0,) * words)
    return before


def _set(port: Port, which: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Let those features be as wanted. Raises :class:`LabError` when they are not then."""
    if any(which):
        pairs = b"".join(struct.pack("=II", *pair) for pair in zip(which, wanted, strict=True))
        _ethtool(port, _SIZED.pack(_SFEATURES, len(which)) + pairs)


def _ethtool(port: Port, command: bytes) -> bytes | None:
    """Do one thing to a host's interface, and return the answer; None where host or interface are gone."""
    host = port.node.host
    if host is None or not lives(host):
        return None
    buffer = ctypes.create_string_buffer(command, len(command))
    request = bytearray(_IFREQ.pack(port.name.encode(), ctypes.addressof(buffer)))
    step, of = "switch segmentation offload of", f"{port.name} of {port.node.name}"
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            refused = fcntl.ioctl(sock, _SIOCETHTOOL, request)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise LabError(step, of, error.errno or 0) from None
            return None
    if refused:  # ETHTOOL_F_...: some are not as they were to be
        raise LabError(step, of, 0, f"the kernel did not do it (ETHTOOL_SFEATURES returned {refused})")
    return buffer.raw
