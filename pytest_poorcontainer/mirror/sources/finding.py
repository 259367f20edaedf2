"""From a URL to its source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_poorcontainer.mirror.errors import BadConfig
from pytest_poorcontainer.mirror.sources.base import Options
from pytest_poorcontainer.mirror.sources.builtin import open_own

if TYPE_CHECKING:
    from pluggy import PluginManager

    from pytest_poorcontainer.mirror.config import Mirror
    from pytest_poorcontainer.mirror.sources.base import Source

__all__ = ["manager", "open_source", "try_source"]

_SPECIFICATIONS = "pytest_poorcontainer.mirror.hookspecs"


def manager() -> PluginManager:
    """Return the manager of those who add sources and notifiers."""
    from pytest_poorcontainer import plugins  # noqa: PLC0415 - for what is not ours; it costs more than a source of ours

    return plugins.declare(_SPECIFICATIONS, ())


def try_source(mirror: Mirror) -> None:
    """Open the source of a mirror, which connects to nothing: what is missing on this machine is told now.

    Raises :class:`~pytest_poorcontainer.mirror.errors.MirrorError`.
    """
    if not mirror.command:
        open_source(mirror.source, Options.of(mirror)).close()


def open_source(url: str, options: Options) -> Source:
    """Return the source of a URL; raises :class:`BadConfig` when nobody knows it."""
    source: Source | None = open_own(url, options)
    if source is not None:
        return source
    from pytest_poorcontainer import plugins  # noqa: PLC0415 - as above

    hook = manager().hook
    source = hook.poor_container_mirror_source(url=url, options=options)
    if source is None:
        plugins.load()
        source = hook.poor_container_mirror_source(url=url, options=options)
    if source is None:
        known = "http, https, ftp, ftps, rsync, file, HOST:PATH (rsync over ssh)"
        others = f", and what these plugins add: {', '.join(plugins.names())}" if plugins.names() else ""
        scheme = url.partition("://")[0] if "://" in url else url
        raise BadConfig(f'cannot read the source "{scheme}": there are {known}{others}')
    return source
