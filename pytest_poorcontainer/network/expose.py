"""A port of a host for clients outside: an address of the test's own network that leads to it."""

from __future__ import annotations

import threading
import weakref
from _socket import AF_INET, AF_INET6, SOCK_STREAM, inet_pton, socket
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.lab import forks
from pytest_poorcontainer.network.entering import entered

if TYPE_CHECKING:
    from pytest_poorcontainer.network.host import Host

__all__ = ["expose"]

_LARGEST_PORT = 0xFFFF
_LOCALHOST = ("127.0.0.1", "::1")
_BACKLOG = 4096  # what net.core.somaxconn allows since Linux 5.4; connections that wait for the proxy to have room

_exposed: weakref.WeakKeyDictionary[Host, dict[int, tuple[str, int]]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def expose(host: Host, port: int) -> tuple[str, int]:
    """Return ``("127.0.0.1", number)`` in the test's own network, which leads to this TCP port of the host.

    Asked again for the same port of the same host, it returns the same address. It is there until the host is closed.
    Raises :class:`UsageError` for what is no port, :class:`PoorContainerError` for a closed host, :class:`LabError`.
    """
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= _LARGEST_PORT:
        raise UsageError(f"a port is a number from 1 to {_LARGEST_PORT}, not {port!r}")
    host._handle.check()  # noqa: SLF001 - ours
    with _lock:
        ports = _exposed.setdefault(host, {})
        if port not in ports:
            ports[port] = _start(host, port)
        return ports[port]


def _start(host: Host, port: int) -> tuple[str, int]:
    """Have a proxy listen at a free port; the host's process is then the only one that holds its socket."""
    handle = host._handle  # noqa: SLF001 - ours
    listener = _home_socket(handle.lab.pid, host.name)
    forks.guard(listener.fileno())
    try:
        listener.bind((_LOCALHOST[0], 0))
        listener.listen(_BACKLOG)
        handle.agent.expose(listener.fileno(), port, [_packed(text) for text in (*_LOCALHOST, *host.addresses)])
        name, number = listener.getsockname()
    finally:
        forks.expose(listener.fileno())
        listener.close()
    return name, number


def _packed(address: str) -> bytes:
    return inet_pton(AF_INET6 if ":" in address else AF_INET, address)


def _home_socket(lab: int, name: str) -> socket:
    """Return a TCP socket of the test's own network, which this thread has left in a ``with host.entered()``.

    The lab is in that network; who may enter another one may also look at the lab's.
    """
    home = Path(f"/proc/{lab}/ns/net")
    try:
        elsewhere = not home.samefile("/proc/thread-self/ns/net")
    except OSError:
        elsewhere = False
    if not elsewhere:
        return socket(AF_INET, SOCK_STREAM)
    with home.open("rb") as there, entered(there.fileno(), name):
        return socket(AF_INET, SOCK_STREAM)
