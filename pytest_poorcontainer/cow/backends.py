"""Our own backends, as a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_poorcontainer.cow.duplicate import Copy, Reflink
from pytest_poorcontainer.cow.overlay import Overlay
from pytest_poorcontainer.cow.preload import Preload
from pytest_poorcontainer.plugins import hookimpl

if TYPE_CHECKING:
    from pytest_poorcontainer.cow.backend import Backend

__all__ = ["poor_container_cow_backends"]


@hookimpl
def poor_container_cow_backends() -> list[type[Backend]]:
    """Return all that this package has."""
    return [Overlay, Preload, Reflink, Copy]
