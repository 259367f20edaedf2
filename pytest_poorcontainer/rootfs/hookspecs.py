"""The hook of root file systems. Mark yours with ``pytest_poorcontainer.plugins.hookimpl``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_poorcontainer.plugins import hookspec

if TYPE_CHECKING:
    from pytest_poorcontainer.rootfs.source import Rootfs

__all__ = ["poor_container_rootfs"]


@hookspec(firstresult=True)
def poor_container_rootfs(source: object, readonly: bool) -> Rootfs | None:
    """Return the root file system that ``rootfs=source`` means; None when it is none of yours.

    Called while arguments are checked, and it must be quick then: look, and do not build. A ``source`` that is yours
    but wrong raises :class:`~pytest_poorcontainer.UsageError`. Ours are asked first: a path that exists is a path.
    """
