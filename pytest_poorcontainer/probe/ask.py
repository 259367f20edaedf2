"""What is asked of a probe, and from where it starts."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.probe.packet import SYN, flags_of
from pytest_poorcontainer.probe.trace import Limits
from pytest_poorcontainer.probe.wire import open_here

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_poorcontainer.probe.wire import Opener

__all__ = ["MODES", "Ask", "Ground", "checked_port", "is_address", "service_port"]

MODES = ("auto", "raw", "unprivileged", "white-box")
KINDS = ("tcp", "udp", "icmp")
_CONFIDENCES = (0.0, 0.95, 0.99)
_LARGEST_PORT = 0xFFFF
_GET_INDEX = 0x8933  # SIOCGIFINDEX, netdevice(7)
_ALL_FLAGS = 255
_LONGEST = 3600
_LARGEST_TTL = 63  # one less than the TTL of the probe that is to arrive
_RANGES = {
    "first_ttl": (1, _LARGEST_TTL),
    "max_ttl": (1, _LARGEST_TTL),
    "queries": (1, 100),
    "tos": (0, 255),
    "source_port": (0, _LARGEST_PORT),
    "length": (0, _LARGEST_PORT),
}


class Ask(NamedTuple):
    """The options of a probe; :meth:`checked` looks at them."""

    kind: str = "tcp"
    flags: int = SYN
    limits: Limits = Limits()
    tos: int = 0
    ecn: bool = False
    source: str = ""
    source_port: int = 0
    device: str = ""
    mode: str = "auto"
    patience: float = 3.3
    diagnose: bool = True
    length: int = 0
    mda: float = 0.0
    pmtu: bool = False

    @classmethod
    def of(  # the arguments of tcp_probe()
        cls,
        *,
        kind: str = "tcp",
        flags: str | int = "syn",
        first_ttl: int = 1,
        max_ttl: int = 30,
        queries: int = 1,
        wait: float = 0.0,
        patience: float = 3.3,
        tos: int = 0,
        ecn: bool = False,
        source_address: str = "",
        source_port: int = 0,
        interface: str = "",
        mode: str = "auto",
        diagnose: bool = True,
        length: int = 0,
        mda: bool | float = False,
        pmtu: bool = False,
    ) -> Ask:
        """Check arguments and return them as one value. Raises :class:`UsageError` that names the wrong one."""
        mda = 0.95 if mda is True else float(mda)
        _check_words(kind, mode, mda, pmtu=pmtu)
        flags = _checked_flags(flags)
        numbers = {"first_ttl": first_ttl, "max_ttl": max_ttl, "queries": queries, "tos": tos}
        _check_numbers({**numbers, "source_port": source_port, "length": length})
        if first_ttl > max_ttl:
            raise UsageError(f"the first TTL, {first_ttl}, is beyond the last, {max_ttl}")
        _check_times({"wait": wait, "patience": patience})
        limits = Limits(first_ttl, max_ttl, queries, wait)
        return cls(
            kind,
            flags,
            limits,
            tos,
            ecn,
            source_address,
            source_port,
            interface,
            mode,
            patience,
            diagnose,
            length,
            mda,
            pmtu,
        )


def _check_words(kind: str, mode: str, mda: float, *, pmtu: bool) -> None:
    if kind not in KINDS:
        raise UsageError(f"kind is one of {', '.join(KINDS)}, not {kind!r}")
    if mode not in MODES:
        raise UsageError(f"mode is one of {', '.join(MODES)}, not {mode!r}")
    if mda not in _CONFIDENCES:
        raise UsageError(f"mda is a confidence of 0.95 or 0.99, or True for 0.95, not {mda!r}")
    if (mda or pmtu) and mode == "unprivileged":
        raise UsageError("mda and pmtu need raw sockets: they do not work in mode 'unprivileged'")


def _check_times(times: Mapping[str, object]) -> None:
    for name, seconds in times.items():
        if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 <= seconds <= _LONGEST:
            raise UsageError(f"{name} is a time from 0 to {_LONGEST} seconds, not {seconds!r}")


def _checked_flags(flags: str | int) -> int:
    if isinstance(flags, int) and not isinstance(flags, bool) and 0 <= flags <= _ALL_FLAGS:
        return flags
    if not isinstance(flags, str):
        raise UsageError(f"flags are names like 'syn,ack' or a number from 0 to {_ALL_FLAGS}, not {flags!r}")
    try:
        return flags_of(flags)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _check_numbers(numbers: Mapping[str, object]) -> None:
    for name, number in numbers.items():
        lowest, highest = _RANGES[name]
        if not isinstance(number, int) or isinstance(number, bool) or not lowest <= number <= highest:
            raise UsageError(f"{name} is a number from {lowest} to {highest}, not {number!r}")


class Ground:
    """Where probes start. This one is the machine itself; a host's is made by ``grounds``.

    ``open`` makes sockets there, ``nodes`` are the hosts of ours that a packet may pass, for white-box traces.
    """

    name = ""
    ours = False

    def __init__(self) -> None:
        """Open sockets in this process's own network."""
        self.open: Opener = open_here
        self.nodes: Sequence[object] = ()

    def interface(self, name: str) -> int:
        """Return the index of an interface here. Raises :class:`UsageError` when there is none of this name."""
        import fcntl  # noqa: PLC0415 - link-local addresses are rare

        request = struct.pack("16si20x", name.encode(errors="surrogateescape")[:15], 0)  # struct ifreq
        with self.open(socket.AF_INET, socket.SOCK_DGRAM, 0) as sock:
            try:
                answer = fcntl.ioctl(sock, _GET_INDEX, request)
            except OSError:
                where = self.name or "this machine"
                raise UsageError(f"{where} has no interface {name!r}; `ip link` lists them") from None
        return int(struct.unpack("16xi20x", answer)[0])

    def owner(self, address: str) -> tuple[str, object]:
        """Return the name of whoever owns an address and the host itself, ("", None) when it is not known."""
        del address
        return "", None

    def resolve(self, name: str, version: int | None) -> list[str]:
        """Return the addresses of a name, as this machine's resolver gives them. Raises :class:`UsageError`."""
        family = {None: 0, 4: socket.AF_INET, 6: socket.AF_INET6}[version]
        if is_address(name, version):
            return [name]
        try:
            # As bytes where that will do: for a str Python loads its tables of international names.
            asked = name.encode() if name.isascii() else name
            found = socket.getaddrinfo(asked, None, family, socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            wanted = f" to an IPv{version} address" if version else ""
            raise UsageError(f"this machine's resolver cannot resolve {name!r}{wanted}: {why}") from None
        return list(dict.fromkeys(str(one[4][0]) for one in found))


def is_address(name: str, version: int | None) -> bool:
    """Whether a name is an address, of this family if one is given; an IPv6 address may name its interface."""
    for family, one in ((socket.AF_INET, 4), (socket.AF_INET6, 6)):
        if version in (None, one):
            try:
                socket.inet_pton(family, name.partition("%")[0] if one == 6 else name)  # noqa: PLR2004
            except (OSError, ValueError):
                continue
            return True
    return False


def service_port(name: str, kind: str) -> int:
    """Return the port of a service by its name (services(5)). Raises :class:`UsageError`."""
    try:
        return socket.getservbyname(name, kind)
    except OSError:
        raise UsageError(f"{name!r} is neither a port nor a {kind} service that /etc/services knows") from None


def checked_port(port: object) -> int:
    """Return a port of TCP or UDP. Raises :class:`UsageError`."""
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= _LARGEST_PORT:
        raise UsageError(f"a port is a number from 1 to {_LARGEST_PORT}, not {port!r}")
    return port
