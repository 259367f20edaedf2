"""Readiness by a socket: a port, or a path, on which the service itself listens."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import posixpath
import re
import stat
from typing import TYPE_CHECKING

from pytest_poorcontainer.container.service_tree import command_of, descendants, holds
from pytest_poorcontainer.container.sockets import SocketTable
from pytest_poorcontainer.errors import PoorContainerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Self

    from pytest_poorcontainer.container.service_tree import Tree
    from pytest_poorcontainer.container.sockets import SocketInfo
    from pytest_poorcontainer.lab.handle import Handle

__all__ = ["PathReady", "PortReady", "SocketView", "port_of"]

_LARGEST_PORT = 0xFFFF
_FORM = re.compile(r"(?:(?P<protocol>tcp|udp):)?(?:(?P<address>\[[^\]]*\]|[^:\[\]]*):)?(?P<port>\d+)", re.ASCII)
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to
_LOCALHOST = ("127.0.0.1", "::1")
_MAPPED = "::ffff:"
_LINKS = 40  # as many as the kernel follows (path_resolution(7))
_SHOWN = 12


class SocketView:
    """The sockets of a service's container, and whose they are. Close it."""

    def __init__(self, handle: Handle, name: str, others: Callable[[], Iterable[tuple[str, Tree]]]) -> None:
        """``others``: the living services of the container, names and trees, this one among them perhaps."""
        self.table = SocketTable(handle)
        self.name = name
        self.tree: Tree | None = None
        self._handle = handle
        self._others = others

    def is_own(self, info: SocketInfo) -> bool:
        """Return whether the socket is the service's; also when there is no finding out."""
        if self.tree is None:
            return True
        pids = self.tree.pids()
        found = holds(pids, info.inode) if pids else None
        if found is None:
            # Not ours to see (hidepid in /proc, a program that is setuid): then it is, unless we know better.
            return not any(holds(tree.pids(), info.inode) for _, tree in self._others() if tree is not self.tree)
        return found != 0

    def holder(self, info: SocketInfo) -> str:
        """Return who has the socket, for a message."""
        for name, tree in self._others():
            pid = holds(tree.pids(), info.inode)
            if pid:
                whose = "this service" if name == self.name else f"service {name}"
                return f"{whose}, pid {pid}: {command_of(pid)}"
        with contextlib.suppress(PoorContainerError):
            pid = holds(descendants(self._handle.pid()), info.inode)
            if pid:
                return f"pid {pid} of {self._handle.name}: {command_of(pid)}"
        if holds([os.getpid()], info.inode):
            return "the test's own process, by a socket that it has of this host"
        return "a process that is not in this container, or nobody who can be found"

    def listeners(self) -> list[SocketInfo]:
        """Return what listens in the container: ports, then paths."""
        found = self.table.all()
        return [info for info in found if info.state == "LISTEN" or (info.protocol == "udp" and not info.remote)]

    def seen(self) -> str:
        """Return what does listen, for a message."""
        found = self.listeners()
        if not found:
            return f"nothing listens in {self._handle.name}"
        lines = [f"{info.protocol} {info.local} ({self.holder(info)})" for info in found[:_SHOWN]]
        more = len(found) - len(lines)
        return "what listens there: " + "; ".join(lines) + (f"; and {more} more" if more else "")

    def close(self) -> None:
        """Close the table."""
        self.table.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PortReady:
    """Ready when the service listens on a port (UDP: has bound it), on one address or whichever."""

    def __init__(self, protocol: str, address: str, port: int) -> None:
        """``address`` "" is any; "localhost" either family's."""
        self.protocol, self.address, self.port = protocol, address, port

    def __str__(self) -> str:
        """Return it as it can be written."""
        address = f"[{self.address}]" if ":" in self.address else self.address
        return ":".join(part for part in (self.protocol, address, str(self.port)) if part)

    def _found(self, view: SocketView) -> list[SocketInfo]:
        found = view.table.inet(self.protocol, self.port, listening=True)
        return [info for info in found if self._covers(info.address)]

    def _covers(self, address: str) -> bool:
        bare = address.removeprefix(_MAPPED) if "." in address else address
        if not self.address or bare in (self.address, "::"):
            return True
        if self.address == "localhost":
            return bare in _LOCALHOST or bare in _EVERYWHERE
        return bare in _EVERYWHERE and ":" not in self.address

    def holds(self, view: SocketView) -> bool:
        """Return whether the service listens."""
        return any(view.is_own(info) for info in self._found(view))

    def taken(self, view: SocketView) -> str:
        """Return who has the port before the service is started, "" when nobody has what would be in its way."""
        for info in self._found(view):
            if info.address in _EVERYWHERE or info.address == self.address:
                return _taken(view, info)
        return ""

    def neighbours(self, view: SocketView) -> list[str]:
        """Return who has the port on any address, once the service has died: that may be why."""
        return [_taken(view, info) for info in view.table.inet(self.protocol, self.port, listening=True)]


class PathReady:
    """Ready when the service listens on a unix socket (a datagram socket: has bound it)."""

    def __init__(self, path: str) -> None:
        """``path`` is absolute, in the container; symbolic links on the way are followed there."""
        self.path = posixpath.normpath(path)

    def __str__(self) -> str:
        """Return the path."""
        return self.path

    def holds(self, view: SocketView) -> bool:
        """Return whether the service listens."""
        found = [info for info in view.table.unix() if info.state in ("LISTEN", "UNCONNECTED") and info.file]
        named = [info for info in found if posixpath.normpath(info.local) == self.path]
        if not named and found and view.tree is not None:
            # Bound by another name of the same file: relative, or by way of a symbolic link (/var/run).
            # Not by way of the watcher, whose root an ordinary user may not look into (ptrace(2), access mode checks).
            inodes = {_socket_inode(f"/proc/{pid}/root", self.path) for pid in view.tree.pids()[:1]}
            named = [info for info in found if info.file in inodes]
        return any(view.is_own(info) for info in named)

    def taken(self, view: SocketView) -> str:
        """Return who listens on the path before the service is started, "" when nobody does."""
        for info in view.table.unix():
            if info.state == "LISTEN" and info.file and posixpath.normpath(info.local) == self.path:
                return _taken(view, info)
        return ""


def _taken(view: SocketView, info: SocketInfo) -> str:
    return f"{info.protocol} {info.local} is taken by {view.holder(info)}"


def port_of(text: str) -> PortReady | None:
    """Return what a text like "80", "udp:53", "127.0.0.1:80" or "tcp:[::1]:80" asks for; None for another form.

    Raises :class:`UsageError` for a port out of range, or an address that is none.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    address, port = (match["address"] or "").strip("[]"), int(match["port"])
    if not 1 <= port <= _LARGEST_PORT:
        raise UsageError(f"ready={text!r}: a port is a number from 1 to {_LARGEST_PORT}")
    if address in ("*", *_EVERYWHERE):
        address = ""
    if address and address != "localhost":
        try:
            address = str(ipaddress.ip_address(address))
        except ValueError:
            raise UsageError(
                f"ready={text!r}: {address!r} is no IP address; expected a port of this host, such as 80, 'udp:53', "
                "'127.0.0.1:80' or '[::1]:80'"
            ) from None
    return PortReady(match["protocol"] or "tcp", address, port)


def _socket_inode(root: str, path: str) -> int:
    """Return the inode of a socket's file in the container, 0 when there is none.

    Link by link, since the kernel would follow an absolute one from our root: /var/run would be the machine's /run.
    """
    done, left, links = "", [part for part in path.split("/") if part], 0
    try:
        while left:
            part = left.pop(0)
            if part == "..":
                done = posixpath.dirname(done)
                continue
            state = os.lstat(f"{root}{done}/{part}")
            if not stat.S_ISLNK(state.st_mode):
                done = f"{done}/{part}"
                continue
            links += 1
            target = os.readlink(f"{root}{done}/{part}")  # noqa: PTH115 - below another root
            if links > _LINKS:
                return 0
            done = "" if target.startswith("/") else done
            left = [step for step in target.split("/") if step not in ("", ".")] + left
        state = os.lstat(f"{root}{done}")
    except OSError:
        return 0
    return state.st_ino if stat.S_ISSOCK(state.st_mode) else 0
