"""From a URL to its source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_poorcontainer import plugins
from pytest_poorcontainer.mirror.errors import BadConfig

if TYPE_CHECKING:
    from pluggy import PluginManager

    from pytest_poorcontainer.mirror.sources.base import Options, Source

__all__ = ["manager", "open_source"]

_SPECIFICATIONS = "pytest_poorcontainer.mirror.hookspecs"
_OURS = ("pytest_poorcontainer.mirror.sources.builtin",)


def manager() -> PluginManager:
    """Return the manager with our sources registered."""
    return plugins.declare(_SPECIFICATIONS, _OURS)


def open_source(url: str, options: Options) -> Source:
    """Return the source of a URL; raises :class:`BadConfig` when nobody knows it."""
    hook = manager().hook
    source: Source | None = hook.poor_container_mirror_source(url=url, options=options)
    if source is None:
        plugins.load()
        source = hook.poor_container_mirror_source(url=url, options=options)
    if source is None:
        known = "http, https, ftp, ftps, rsync, file, HOST:PATH (rsync over ssh)"
        others = f", and what these plugins add: {', '.join(plugins.names())}" if plugins.names() else ""
        scheme = url.partition("://")[0] if "://" in url else url
        raise BadConfig(f'cannot read the source "{scheme}": there are {known}{others}')
    return source
