"""Our own sources: told by the URL alone, so that only the one that is needed is loaded."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_poorcontainer.mirror.sources.base import Options, Source

__all__ = ["open_own"]

_HOMES = {"http": "http", "https": "http", "ftp": "ftp", "ftps": "ftp", "rsync": "rsync", "file": "files"}
_SSH = r"(?:[\w.-]+@)?(?:[\w.-]+|\[[0-9a-fA-F:.]+(?:%[\w.-]+)?\])::?[^:].*"


def open_own(url: str, options: Options) -> Source | None:
    """Take http, https, ftp, ftps, rsync, file, a path, and HOST:PATH, which means rsync over ssh; None for others."""
    scheme, separator, _ = url.partition("://")
    if separator:
        home = _HOMES.get(scheme.lower(), "")
    else:
        home = "files" if url.startswith(("/", "./", "../")) else "rsync" if re.fullmatch(_SSH, url, re.ASCII) else ""
    if not home:
        return None
    found: Source | None = importlib.import_module(f"pytest_poorcontainer.mirror.sources.{home}").open_url(url, options)
    return found
