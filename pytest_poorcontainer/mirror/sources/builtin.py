"""Our own sources, as a plugin: each is loaded when its URL is met."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING

from pytest_poorcontainer.plugins import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_poorcontainer.mirror.sources.base import Opener, Options, Source

__all__ = ["poor_container_mirror_sources"]

_HOMES = {"http": "http", "https": "http", "ftp": "ftp", "ftps": "ftp", "rsync": "rsync", "file": "files"}


def _open(home: str, url: str, options: Options) -> Source:
    found: Source = importlib.import_module(f"pytest_poorcontainer.mirror.sources.{home}").open_url(url, options)
    return found


@hookimpl(trylast=True)  # what is told last counts: nobody takes our schemes away
def poor_container_mirror_sources() -> Mapping[str, Opener]:
    """Return all that this package has. A `command` of the admin's is none: it is told by its key, not by a URL."""
    return {scheme: functools.partial(_open, home) for scheme, home in _HOMES.items()}
