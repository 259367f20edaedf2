"""The hook of copy-on-write trees. Mark yours with ``pytest_poorcontainer.plugins.hookimpl``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_poorcontainer.plugins import hookspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_poorcontainer.cow.backend import Backend

__all__ = ["poor_container_cow_backends"]


@hookspec
def poor_container_cow_backends() -> Sequence[type[Backend]]:
    """Return ways to have copy-on-write trees: subclasses of :class:`~pytest_poorcontainer.cow.backend.Backend`.

    Called once for each tree that is made, and it must be quick then. Ours are ``overlay`` (rank 10), ``preload`` (20),
    ``reflink`` (30) and ``copy`` (40).
    """
    raise NotImplementedError
