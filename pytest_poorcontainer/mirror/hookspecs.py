"""The hooks of mirrors. Mark yours with ``pytest_poorcontainer.plugins.hookimpl``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_poorcontainer.plugins import hookspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_poorcontainer.mirror.sources.base import Opener

__all__ = ["poor_container_mirror_notify", "poor_container_mirror_sources"]


@hookspec
def poor_container_mirror_sources() -> Mapping[str, Opener]:
    """Return what opens your sources, by the scheme of their URLs in lower case: ``{"s3": open_bucket}``.

    Called as ``opener(url, options)``, it returns a :class:`~pytest_poorcontainer.mirror.sources.base.Source` and
    connects to nothing yet; a URL that is wrong raises :class:`~pytest_poorcontainer.mirror.errors.BadConfig`. Ours are
    http, https, ftp, ftps, rsync and file, and keep their schemes.
    """
    raise NotImplementedError


@hookspec
def poor_container_mirror_notify(name: str, state: str, previous: str, reason: str) -> None:
    """Called when a run ends in another state than the one before; ``state`` is "ok", "partial", "held" or "failed".

    An exception is logged, and changes nothing about the run.
    """
