"""``socket.socket`` as a host's socket, in one thread, for a while."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_poorcontainer.network.host import Host

__all__ = ["sockets_of"]

# Families that belong to a network namespace. AF_UNIX stays ours: event loops talk to themselves through it.
_SWITCHED = frozenset({socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET})

_active = threading.local()
_guard = threading.Lock()
_users = 0
_original_init: Callable[..., None] = socket.socket.__init__
_original_getaddrinfo = socket.getaddrinfo


def _host() -> Host | None:
    stack = getattr(_active, "stack", None)
    return stack[-1] if stack else None


def _init(self: socket.socket, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:  # noqa: A002 - socket.socket's signature
    host = _host()
    real_family = socket.AF_INET if family == -1 else family
    if host is None or fileno is not None or real_family not in _SWITCHED:
        _original_init(self, family, type, proto, fileno)
        return
    real_type = socket.SOCK_STREAM if type == -1 else type
    fd = host.socket_fd(real_family, real_type, 0 if proto == -1 else proto)
    try:
        _original_init(self, real_family, real_type, 0 if proto == -1 else proto, fd)
    except BaseException:
        os.close(fd)
        raise


def _getaddrinfo(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:  # noqa: A002, PLR0913 - socket.getaddrinfo's signature
    inside = _host()
    name = host.decode("idna") if isinstance(host, bytes) else host
    if inside is None or not name:
        return _original_getaddrinfo(host, port, family, type, proto, flags)
    found: list[Any] = []
    for address in inside.resolve(name):
        # An address of the other family than the one that is asked for is no answer, and no error either.
        with contextlib.suppress(socket.gaierror):
            found += _original_getaddrinfo(address, port, family, type, proto, flags | socket.AI_NUMERICHOST)
    if not found:
        # Never the machine's resolver: in the host the name does not exist.
        raise socket.gaierror(socket.EAI_NONAME, f"{name!r} is no name of the hosts joined to {inside.name}")
    return found


def _install() -> None:
    global _users, _original_init, _original_getaddrinfo  # noqa: PLW0603 - the module is what is patched
    with _guard:
        _users += 1
        if _users == 1:
            _original_init, _original_getaddrinfo = socket.socket.__init__, socket.getaddrinfo
            setattr(socket.socket, "__init__", _init)  # noqa: B010 - mypy rightly dislikes the plain form
            setattr(socket, "getaddrinfo", _getaddrinfo)  # noqa: B010


def _remove() -> None:
    global _users  # noqa: PLW0603
    with _guard:
        _users -= 1
        if _users == 0:
            setattr(socket.socket, "__init__", _original_init)  # noqa: B010
            setattr(socket, "getaddrinfo", _original_getaddrinfo)  # noqa: B010


@contextlib.contextmanager
def sockets_of(host: Host) -> Iterator[Host]:
    """Make ``socket.socket`` and name lookups in this thread the host's, until the block ends; blocks nest.

    Other threads are not concerned. Code that makes sockets in C (libpq, libcurl) does not come by here.
    """
    if not hasattr(_active, "stack"):
        _active.stack = []
    _install()
    _active.stack.append(host)
    try:
        yield host
    finally:
        _active.stack.pop()
        _remove()
