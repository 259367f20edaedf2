"""The hooks of mirrors. Mark yours with ``pytest_poorcontainer.plugins.hookimpl``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_poorcontainer.plugins import hookspec

if TYPE_CHECKING:
    from pytest_poorcontainer.mirror.sources.base import Options, Source

__all__ = ["poor_container_mirror_notify", "poor_container_mirror_source"]


@hookspec(firstresult=True)
def poor_container_mirror_source(url: str, options: Options) -> Source | None:
    """Return the source that a URL means; None when it is none of yours. Ours are asked first.

    A URL that is yours but wrong raises :class:`~pytest_poorcontainer.mirror.errors.BadConfig`. Nothing is connected
    to.
    """


@hookspec
def poor_container_mirror_notify(name: str, state: str, previous: str, reason: str) -> None:
    """Called when a run ends in another state than the one before; ``state`` is "ok", "partial", "held" or "failed".

    An exception is logged, and changes nothing about the run.
    """
