"""This thread inside a host's network namespace, where the process has the privilege."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import LabError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["entered"]

_CLONE_NEWNET = 0x40000000  # sched.h
_OWN = "/proc/thread-self/ns/net"


def _setns(fd: int) -> None:
    """Call setns(2); ``os.setns`` is there since Python 3.12."""
    if hasattr(os, "setns"):
        os.setns(fd, _CLONE_NEWNET)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _is_inside(fd: int) -> bool:
    """Whether this thread's network namespace is the one that ``fd`` stands for."""
    inside = Path(_OWN).stat()
    wanted = os.fstat(fd)
    return (inside.st_dev, inside.st_ino) == (wanted.st_dev, wanted.st_ino)


@contextlib.contextmanager
def entered(fd: int, name: str) -> Iterator[None]:
    """Move this thread into the network namespace of descriptor ``fd``, and back at the end of the block.

    Raises :class:`Unavailable` without CAP_SYS_ADMIN over both namespaces (setns(2)), :class:`LabError` when the
    thread is not where it should be: a test must not speak to the wrong network without noticing.
    """
    thread = threading.get_ident()
    home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            _setns(fd)
        except PermissionError:
            raise Unavailable(
                f"{name}.entered()",
                "this process may not enter a network namespace (setns(2) needs CAP_SYS_ADMIN in it and here)",
                f"use `with {name}.sockets():` for Python's sockets, or {name}.socket() and {name}.run()",
            ) from None
        if not _is_inside(fd):
            raise LabError("enter the network namespace of", name, 0, "setns succeeded, yet the thread is elsewhere")
        try:
            yield
        finally:
            if threading.get_ident() != thread:
                raise LabError("leave the network namespace of", name, 0, "the block ended in another thread")
            _setns(home)
            if not _is_inside(home):
                raise LabError(
                    "leave the network namespace of", name, 0, "setns succeeded, yet the thread is elsewhere"
                )
    finally:
        os.close(home)
