"""From a URL to its source."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_poorcontainer import plugins
from pytest_poorcontainer.errors import PoorContainerError
from pytest_poorcontainer.mirror.errors import BadConfig
from pytest_poorcontainer.mirror.sources.base import Options

if TYPE_CHECKING:
    from pluggy import PluginManager

    from pytest_poorcontainer.mirror.config import Mirror
    from pytest_poorcontainer.mirror.sources.base import Opener, Source

__all__ = ["known", "manager", "open_source", "scheme_of", "try_source"]

_SPECIFICATIONS = "pytest_poorcontainer.mirror.hookspecs"
_OURS = ("pytest_poorcontainer.mirror.sources.builtin",)
_SSH = r"(?:[\w.-]+@)?(?:[\w.-]+|\[[0-9a-fA-F:.]+(?:%[\w.-]+)?\])::?[^:].*"


def manager() -> PluginManager:
    """Return the manager of those who add sources and notifiers."""
    return plugins.declare(_SPECIFICATIONS, _OURS)


def known() -> dict[str, Opener]:
    """Return what opens each scheme, those of other people's plugins that are loaded among them."""
    return {
        scheme: opener
        for openers in manager().hook.poor_container_mirror_sources()
        for scheme, opener in openers.items()
    }


def scheme_of(url: str) -> str:
    """Return the scheme of a URL; a path is "file", HOST:PATH "rsync" (over ssh), and anything else has none."""
    scheme, separator, _ = url.partition("://")
    if separator:
        return scheme.lower()
    if url.startswith(("/", "./", "../")):
        return "file"
    return "rsync" if re.fullmatch(_SSH, url, re.ASCII) else ""


def try_source(mirror: Mirror) -> None:
    """Open the source of a mirror, which connects to nothing: what is missing on this machine is told now.

    Raises :class:`~pytest_poorcontainer.mirror.errors.MirrorError`.
    """
    if not mirror.command:
        open_source(mirror.source, Options.of(mirror)).close()


def open_source(url: str, options: Options) -> Source:
    """Return the source of a URL; raises :class:`BadConfig` when nobody knows it.

    Plugins of installed distributions are loaded for a scheme that is none of ours: to look for them takes as long as a
    run without changes.
    """
    scheme = scheme_of(url)
    opener = known().get(scheme)
    if opener is None:
        try:
            plugins.load()
        except PoorContainerError as error:
            raise BadConfig(f'cannot read the source "{scheme or url}", nor ask a plugin for it: {error}') from error
        opener = known().get(scheme)
    if opener is None:
        schemes = ", ".join(sorted(known()))
        raise BadConfig(
            f'cannot read the source "{scheme or url}": there are {schemes} (as {scheme or "http"}://HOST/PATH/), '
            "a path, and HOST:PATH for rsync over ssh"
        )
    return opener(url, options)
