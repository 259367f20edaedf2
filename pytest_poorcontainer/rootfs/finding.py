"""Which root file system an argument means."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_poorcontainer import plugins
from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.rootfs.source import Rootfs

if TYPE_CHECKING:
    from pytest_poorcontainer.rootfs.source import Source

__all__ = ["find"]

_SPECIFICATIONS = "pytest_poorcontainer.rootfs.hookspecs"
# The order of asking is the reverse (pluggy(LIFO)); what one knows, no other does.
_OURS = tuple(f"pytest_poorcontainer.rootfs.{name}" for name in ("programs", "tarball", "directory", "host"))


def find(source: Source | None, *, readonly: bool = False) -> Rootfs:
    """Return the root file system that ``source`` means.

    None or "host" is the machine's, a path a directory's or a tarball's, a list of strings programs and what they
    need; else a plugin knows. A :class:`Rootfs` is itself. With ``readonly`` a container can change nothing but what is
    its own (/tmp, /run, /dev/shm). It looks at the source, and builds nothing yet. Raises :class:`UsageError` for what
    is none of these, or is not readable.
    """
    if isinstance(source, Rootfs):
        return source.as_readonly() if readonly else source
    hook = plugins.declare(_SPECIFICATIONS, _OURS).hook
    found = hook.poor_container_rootfs(source=source, readonly=readonly)
    if found is None:
        plugins.load()
        found = hook.poor_container_rootfs(source=source, readonly=readonly)
    if found is None:
        raise _unknown(source)
    if not isinstance(found, Rootfs):
        raise UsageError(f"rootfs={source!r}: a plugin returned {found!r}, which is no Rootfs")
    return found


def _unknown(source: object) -> UsageError:
    others = plugins.names()
    asked = f" (the plugins {', '.join(others)} do not know it either)" if others else ""
    if isinstance(source, (str, os.PathLike)):
        return UsageError(
            f"rootfs={os.fspath(source)!r}: there is no such directory or tarball{asked}, seen from {Path.cwd()}"
        )
    return UsageError(
        f"rootfs={source!r} is neither 'host', nor the path of a directory or a tarball, nor a list of programs "
        f"such as ['/bin/sh', 'python3']{asked}"
    )
