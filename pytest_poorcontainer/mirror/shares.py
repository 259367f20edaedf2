"""What of the bandwidth for all runs is one run's at this moment: the daemon says so in a file, and runs look at it.

HTTP and FTP sources follow it while they fetch. rsync has its limit from its start to its end, so that each of its runs
has a fixed part, and the others divide the rest.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from pytest_poorcontainer.mirror.sources.finding import scheme_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pytest_poorcontainer.mirror.config import Config, Mirror

__all__ = ["Share", "follows", "publish", "share_file"]

_EVERY = 1.0  # seconds between two looks at the file
_FOLLOWING = {"http", "https", "ftp", "ftps"}


def follows(mirror: Mirror) -> bool:
    """Whether the source of a mirror can have another limit while it fetches."""
    return not mirror.command and scheme_of(mirror.source) in _FOLLOWING


def share_file(config: Config) -> Path:
    """Return where the daemon says it."""
    return config.state / "share"


def publish(config: Config, running: Iterable[Mirror]) -> None:
    """Say what each run that follows has now. Where nothing can be written, each keeps its fixed part."""
    mirrors = [mirror for mirror in running if not mirror.command]
    following = sum(map(follows, mirrors))
    fixed = (len(mirrors) - following) * (config.bandwidth // config.at_once())
    share = max(1, (config.bandwidth - fixed) // max(1, following))
    path = share_file(config)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name("share.new")
        new.write_text(f"{share}\n", encoding="ascii")
        new.replace(path)


class Share:
    """What of ``most`` (bytes/s) is ours, by the daemon's file; ``fixed`` while that tells nothing."""

    def __init__(self, path: Path, fixed: int, most: int) -> None:
        """Look at this file."""
        self._path, self._most, self._looked = path, most, 0.0
        self._now = fixed

    def now(self) -> int:
        """Return it; the file is looked at once in a while."""
        clock = time.monotonic()
        if clock - self._looked >= _EVERY or not self._looked:
            self._looked = clock
            with contextlib.suppress(OSError, ValueError):
                self._now = max(1, min(self._most, int(self._path.read_text(encoding="ascii"))))
        return self._now
