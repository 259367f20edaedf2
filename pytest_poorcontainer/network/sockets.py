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

_INTERNET = frozenset({socket.AF_INET, socket.AF_INET6})

_active = threading.local()
_guard = threading.Lock()
_users = 0
_originals: dict[tuple[Any, str], Any] = {}


def _host() -> Host | None:
    stack = getattr(_active, "stack", None)
    return stack[-1] if stack else None


def _init(self: socket.socket, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:  # noqa: A002 - socket.socket's signature
    host = _host()
    real_family = socket.AF_INET if family == -1 else family
    if host is None or fileno is not None or real_family not in _SWITCHED:
        _originals[socket.socket, "__init__"](self, family, type, proto, fileno)
        return
    real_type = socket.SOCK_STREAM if type == -1 else type
    fd = host.socket_fd(real_family, real_type, 0 if proto == -1 else proto)
    try:
        _originals[socket.socket, "__init__"](self, real_family, real_type, 0 if proto == -1 else proto, fd)
    except BaseException:
        os.close(fd)
        raise


def _getaddrinfo(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:  # noqa: A002 - socket.getaddrinfo's signature
    inside = _host()
    name = host.decode("idna") if isinstance(host, bytes) else host
    if inside is None or not name:
        return _originals[socket, "getaddrinfo"](host, port, family, type, proto, flags)
    found: list[Any] = []
    for address in inside.resolve(name):
        # An address of the other family than the one that is asked for is no answer, and no error either.
        with contextlib.suppress(socket.gaierror):
            found += _originals[socket, "getaddrinfo"](
                address, port, family, type, proto, flags | socket.AI_NUMERICHOST
            )
    if not found:
        # Never the machine's resolver: in the host the name does not exist.
        raise socket.gaierror(socket.EAI_NONAME, f"{name!r} is no name of the hosts joined to {inside.name}")
    return found


def _gethostbyname(name: str) -> str:
    return str(_getaddrinfo(name, 0, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])


def _gethostbyaddr(name: str) -> tuple[str, list[str], list[str]]:
    inside = _host()
    if inside is None:
        return _originals[socket, "gethostbyaddr"](name)  # type: ignore[no-any-return]
    called = inside.name_of(name)
    if called is None:
        raise socket.herror(1, f"{name!r} is none of the hosts joined to {inside.name}")  # 1: HOST_NOT_FOUND
    return called, [], inside.resolve(called)


def _translated(method: str) -> Callable[..., Any]:
    """Return bind or connect that knows the hosts' names, which C code would ask the machine's resolver for."""

    def call(self: socket.socket, address: Any) -> Any:
        if _host() is not None and self.family in _INTERNET and isinstance(address, tuple) and address[0]:
            found = _getaddrinfo(address[0], 0, self.family, socket.SOCK_STREAM)
            address = (found[0][4][0], *address[1:])
        return getattr(super(socket.socket, self), method)(address)

    return call


# What is replaced while any thread is in a block, and by what.
_REPLACED: dict[tuple[Any, str], Callable[..., Any]] = {
    (socket.socket, "__init__"): _init,
    (socket.socket, "bind"): _translated("bind"),
    (socket.socket, "connect"): _translated("connect"),
    (socket.socket, "connect_ex"): _translated("connect_ex"),
    (socket, "getaddrinfo"): _getaddrinfo,
    (socket, "gethostbyname"): _gethostbyname,
    (socket, "gethostbyaddr"): _gethostbyaddr,
}


def _install() -> None:
    global _users  # noqa: PLW0603 - the module is what is patched
    with _guard:
        _users += 1
        if _users > 1:
            return
        for (owner, name), replacement in _REPLACED.items():
            _originals[owner, name] = vars(owner).get(name)  # None: it was inherited
            setattr(owner, name, replacement)


def _remove() -> None:
    global _users  # noqa: PLW0603
    with _guard:
        _users -= 1
        if _users:
            return
        for (owner, name), original in _originals.items():
            if original is None:
                delattr(owner, name)
            else:
                setattr(owner, name, original)


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
