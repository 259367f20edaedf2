"""What a mirror tells the mirrors below it: when it was complete, and that it is being updated.

As Debian's mirrors do (ftpsync(1)): ``project/trace/NAME`` has the time of the last complete run on its first line, and
``Archive-Update-in-Progress-NAME`` stands at the top while a run publishes.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_poorcontainer.mirror.home import Home

__all__ = ["begin", "end", "own_names", "stamp"]


def own_names(trace: str) -> frozenset[str]:
    """Return the paths that a trace makes: the source has none of them, and they are not to be deleted."""
    return frozenset(
        {f"project/trace/{trace}", f"Archive-Update-in-Progress-{trace}", "project", "project/trace"} if trace else ()
    )


def begin(home: Home, trace: str) -> None:
    """Say that the mirror is being updated."""
    if trace:
        _write(home, f"Archive-Update-in-Progress-{trace}", "")


def end(home: Home, trace: str) -> None:
    """Say that it is not being updated any more."""
    if trace:
        home.tree.remove(f"Archive-Update-in-Progress-{trace}")


def stamp(home: Home, trace: str, source: str) -> None:
    """Write when the mirror was complete."""
    if trace:
        when = time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime())
        _write(
            home, f"project/trace/{trace}", f"{when}\nUsed ftpsync version: poor-mirror\nUpstream-mirror: {source}\n"
        )


def _write(home: Home, path: str, text: str) -> None:
    name = "trace.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, 0o644, dir_fd=home.temporary), "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
        file.write(text)
        os.fchmod(file.fileno(), 0o644)
    home.tree.rename(home.temporary, name, path)
