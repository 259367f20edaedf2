"""A container with a network stack: sockets in it are ordinary sockets of the test's own process."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket as stdlib  # the class below has a method of that name
import time
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.container import Container
from pytest_poorcontainer.errors import Unavailable, UsageError
from pytest_poorcontainer.network.entering import entered
from pytest_poorcontainer.network.sockets import sockets_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from pytest_poorcontainer.lab.handle import Handle
    from pytest_poorcontainer.network.addresses import Addressed
    from pytest_poorcontainer.network.link import Link
    from pytest_poorcontainer.traffic.capture import Capture

__all__ = ["Host"]

INTERFACE = "eth0"
LINK_INDEX = 100  # LINK_HOST_INDEX of preload/lab/link.h
_LARGEST_PORT = 0xFFFF
_LOCALHOST = ("127.0.0.1", "::1")


class Host(Container):
    """A host: what a container can do, and a network of its own with the interface ``eth0``.

    ``ip`` and ``ip6`` are its addresses as text, ``addresses`` both of them; in its /etc/hosts, and here wherever an
    address is taken, the names of the hosts joined to it stand for theirs.
    """

    plugs: tuple[tuple[int, str], ...] = ()
    """For each link: the index of its plug in the lab's fabric, and the name of the interface that it leads to."""

    def __init__(self, handle: Handle, addresses: Addressed, named: Mapping[str, Addressed]) -> None:  # noqa: D107 - made by Network
        self._attach(handle)
        self._addresses = addresses
        self._named = named
        self.cables: list[Link] = []
        """The cables at its interfaces eth0, eth1, ..., in that order."""

    @property
    def cable(self) -> Link:
        """Its one cable: ``host.cable.unplug()``. Raises :class:`UsageError` when it has none, or several."""
        if len(self.cables) != 1:
            which = f"it has {len(self.cables)}: {', '.join(map(str, self.cables))}" if self.cables else "it has none"
            raise UsageError(
                f"{self.name}.cable is for a host with one cable, {which}; {self.name}.cables is all of them"
            )
        return self.cables[0]

    @property
    def others(self) -> list[Host]:
        """The other hosts of its network that live; none for a host of a pair, which is told of addresses alone."""
        hosts = (getattr(named, "host", None) for named in self._named.values())
        return [host for host in hosts if host is not None and host is not self and not host.closed]

    @property
    def ip(self) -> str:
        """The IPv4 address, like "10.0.1.1"; no two hosts that live in a lab at one time have the same."""
        return self._addresses.ip

    @property
    def ip6(self) -> str:
        """The IPv6 address, usable at once (no duplicate address detection). :class:`Unavailable` without IPv6."""
        if not self._addresses.ip6:
            raise Unavailable(
                "ipv6", "this kernel has no IPv6 (there is no /proc/net/if_inet6)", "boot without ipv6.disable=1"
            )
        return self._addresses.ip6

    @property
    def addresses(self) -> list[str]:
        """The addresses of both families, IPv4 first."""
        return self._addresses.all()

    def socket(self, family: int = stdlib.AF_INET, type: int = stdlib.SOCK_STREAM, proto: int = 0) -> stdlib.socket:  # noqa: A002 - socket.socket's name
        """Return an ordinary socket of the test's process that belongs to this host's network.

        Raises OSError as socket(2) does.
        """
        fd = self.socket_fd(family, type, proto)
        try:
            return stdlib.socket(family, type, proto, fd)
        except BaseException:
            os.close(fd)
            raise

    def socket_fd(self, family: int, type: int, proto: int = 0) -> int:  # noqa: A002
        """Return the bare descriptor of a socket in this host; who asks closes it."""
        self._handle.check()
        return self._handle.agent.socket(family, type, proto)

    def connect(self, address: tuple[str, int], timeout: float | None = 5) -> stdlib.socket:
        """Return a TCP connection from this host to ``(name or address, port)``.

        As ``socket.create_connection`` it tries a name's addresses one after the other, within ``timeout`` seconds in
        all (None: as long as the kernel does), and leaves the timeout set on the socket. Raises TimeoutError,
        ConnectionRefusedError and the like, :class:`UsageError` for a name that is none of the joined hosts'.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        first: OSError | None = None
        for family, target in self._targets(address):
            connection = self.socket(family)
            try:
                connection.settimeout(None if deadline is None else max(deadline - time.monotonic(), 0.001))
                connection.connect(target)
                connection.settimeout(timeout)
            except OSError as error:
                connection.close()
                first = first or error
                if isinstance(error, TimeoutError):
                    break
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        assert first is not None  # noqa: S101 - a name has at least one address
        try:
            raise first
        finally:
            first = None  # the traceback holds this frame

    def listen(self, address: tuple[str, int], backlog: int = 128) -> stdlib.socket:
        """Return a listening TCP socket of this host on ``(name or address, port)``; "" is every IPv4 address.

        Port 0 lets the kernel choose one. Raises OSError as bind(2) does, :class:`UsageError` as :meth:`connect`.
        """
        family, target = self._targets(address, lowest=0)[0]
        server = self.socket(family)
        try:
            server.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_REUSEADDR, 1)
            server.bind(target)
            server.listen(backlog)
        except BaseException:
            server.close()
            raise
        return server

    def expose(self, port: int) -> tuple[str, int]:
        """Return ``("127.0.0.1", number)`` in the test's own network, which leads to this TCP port of the host.

        For clients outside of the hosts: a C library, a browser, a person. It **bypasses cables and faults**:
        cut or unplugged, the port still answers, nothing shows in a capture, and the server sees a client at an address
        of its own host. Each connection tries 127.0.0.1, ::1 and the host's addresses in turn, so the server may start
        later; until it does, connections are reset. Everybody on this machine may connect.

        The same port has the same address each time, until the host is closed; then it refuses. Raises
        :class:`UsageError` for what is no port, :class:`PoorContainerError` for a closed host, :class:`LabError`.
        """
        from pytest_poorcontainer.network.expose import expose  # noqa: PLC0415 - few tests need it

        return expose(self, port)

    def sockets(self) -> AbstractContextManager[Host]:
        """Make ``socket.socket`` and name lookups in this thread this host's, until the block ends.

        So client libraries written in Python live in the host, without root too. What makes its sockets in C (libpq,
        libcurl) does not: use :meth:`entered`, or run it with :meth:`run`. Unix sockets stay the test's own.
        """
        self._handle.check()
        return sockets_of(self)

    def capture(self, filter: str = "", *, interface: str | None = None, limit: int | str = "64M") -> Capture:  # noqa: A002 - tcpdump's word
        """Return a capture for a block: ``with host.capture("tcp port 80") as packets:``.

        ``packets`` is a sequence of scapy packets (dissected when asked for), with ``count()``, ``expect()``,
        ``ladder()`` and ``write()``; see :class:`~pytest_poorcontainer.traffic.capture.Packets`. What is sent before
        the block is left is in it. ``filter`` is what tcpdump takes (docs/capture.md), in which hosts have their names;
        ``interface`` the name of one (else all but lo), "any" for lo too; ``limit`` bounds its memory, in bytes.

        Raises :class:`UsageError` for what is no filter, no interface; :class:`LabError` when it cannot begin.
        """
        from pytest_poorcontainer.network.capturing import capture  # noqa: PLC0415 - few tests need it

        return capture(self, filter, interface, limit)

    @contextlib.contextmanager
    def entered(self) -> Iterator[Host]:
        """Move this thread into the host's network namespace, until the block ends; nothing but the network changes.

        Raises :class:`Unavailable` where the process may not (without root), and names what works there.
        """
        self._handle.check()
        fd = self._handle.agent.netns()
        try:
            with entered(fd, self.name):
                yield self
        finally:
            os.close(fd)

    def iproute(self) -> Any:
        """Return a ``pyroute2.IPRoute`` of this host, for what is rare or large: queueing disciplines, dumps, tunnels.

        It is pinned to a socket of the host, so another thread cannot take it to another namespace. Close it.
        """
        from pyroute2 import IPRoute  # noqa: PLC0415 - its import takes 0.2 s

        netlink = self.socket(stdlib.AF_NETLINK, stdlib.SOCK_DGRAM, stdlib.NETLINK_ROUTE)
        try:
            netlink.bind((0, 0))
            return IPRoute(use_socket=netlink)
        except BaseException:
            netlink.close()
            raise

    def resolve(self, name: str) -> list[str]:
        """Return the addresses that a name, or an address as text, has in this host; none for an unknown name."""
        if name in self._named:
            return self._named[name].all()
        if name == "localhost":
            return list(_LOCALHOST)
        try:
            return [str(ipaddress.ip_address(name.partition("%")[0])) and name]
        except ValueError:
            return []

    def name_of(self, text: str) -> str | None:
        """Return the name of the joined host that has this name or address; None when there is none."""
        if text in self._named:
            return text
        if text in ("localhost", *_LOCALHOST):
            return "localhost"
        return next((name for name, addresses in self._named.items() if text in addresses.all()), None)

    def names_of_addresses(self) -> dict[str, str]:
        """Return the names of the joined hosts, and of this one, by their addresses."""
        return {address: name for name, addresses in self._named.items() for address in addresses.all()}

    def _targets(self, address: tuple[str, int], lowest: int = 1) -> list[tuple[stdlib.AddressFamily, tuple[Any, ...]]]:
        """Check an address and return what to bind or connect to."""
        try:
            name, port = address
        except (TypeError, ValueError):
            raise UsageError(f"expected an address as (name or IP address, port), got {address!r}") from None
        if not isinstance(port, int) or isinstance(port, bool) or not lowest <= port <= _LARGEST_PORT:
            raise UsageError(f"a port is a number from {lowest} to {_LARGEST_PORT}, not {port!r}")
        if not isinstance(name, str):
            raise UsageError(f"a host is named by a str, a name or an IP address, not {name!r}")
        if name == "":
            return [(stdlib.AF_INET, ("0.0.0.0" if lowest == 0 else "127.0.0.1", port))]  # noqa: S104 - inside the host
        with contextlib.suppress(OSError):  # the common case, in a thirtieth of the time that ipaddress takes
            stdlib.inet_pton(stdlib.AF_INET, name)
            return [(stdlib.AF_INET, (name, port))]
        found = self.resolve(name)
        if not found:
            known = ", ".join([*self._named, "localhost"])
            raise UsageError(f"{name!r} is neither an IP address nor a name that {self.name} knows: {known}")
        return [self._target(text, port) for text in found]

    def _target(self, text: str, port: int) -> tuple[stdlib.AddressFamily, tuple[Any, ...]]:
        bare, _, scope = text.partition("%")
        if ipaddress.ip_address(bare).version == 4:  # noqa: PLR2004
            return stdlib.AF_INET, (bare, port)
        # A link-local address needs an interface (RFC 4007); a host has the one.
        index = 0
        if ipaddress.ip_address(bare).is_link_local:
            index = int(scope) if scope.isdigit() else LINK_INDEX
        return stdlib.AF_INET6, (bare, port, 0, index)
