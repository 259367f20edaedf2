"""Snapshot and switch: readers see one complete state of the mirror, and then the next one, all at once.

With ``snapshots = N`` the destination is a symbolic link. The run works on a tree beside it; when that is complete it
is copied as hard links, which takes no space, and the link is moved to the copy by rename(2). A file of a snapshot
never changes: a run replaces files, and writes into none.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from pytest_poorcontainer.mirror.errors import BadDestination
from pytest_poorcontainer.mirror.rules import OURS

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_poorcontainer.mirror.config import Mirror

__all__ = ["begin", "check", "switch"]

_PREFIX = "snapshot-"
_UNSHOWN = "unshown"


def check(mirror: Mirror) -> None:
    """Refuse a destination that is a directory already. Raises :class:`BadDestination`."""
    if mirror.snapshots and os.path.lexists(mirror.dest) and not os.path.islink(mirror.dest):  # noqa: PTH114 - as lexists
        raise BadDestination(
            f"{mirror.dest} is a directory, and with snapshots it has to become a link: move it to {mirror.work} first"
        )


def begin(mirror: Mirror) -> None:
    """Note, for the run after one that does not get to its end, that the working tree is not what readers see."""
    if mirror.snapshots:
        (mirror.work / OURS / _UNSHOWN).touch()


def switch(mirror: Mirror) -> str:
    """Make a snapshot of the working tree and let the destination lead to it; return its name, "" if nothing is new."""
    place, unshown = mirror.work.parent, mirror.work / OURS / _UNSHOWN
    if not unshown.exists() and mirror.dest.is_symlink() and mirror.dest.exists():
        return ""
    now = time.time_ns()
    name = f"{_PREFIX}{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now // 10**9))}-{now % 10**9:09d}"
    new = place / f".{name}.new"
    _link_tree(mirror.work, new)
    new.rename(place / name)
    link = place / f".link.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        link.unlink()
    link.symlink_to(os.path.relpath(place / name, mirror.dest.parent))
    link.rename(mirror.dest)
    unshown.unlink(missing_ok=True)
    _prune(place, mirror.snapshots, name)
    return name


def _link_tree(source: Path, target: Path) -> None:
    """Copy a tree as hard links, but for what is ours. Both are beneath a directory that is ours alone."""
    import shutil  # noqa: PLC0415 - most mirrors have no snapshots

    target.mkdir(mode=0o755)
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.name == OURS:
                continue
            if entry.is_dir(follow_symlinks=False):
                _link_tree(source / entry.name, target / entry.name)
            else:
                os.link(entry.path, target / entry.name, follow_symlinks=False)
    shutil.copystat(source, target)


def _prune(place: Path, keep: int, current: str) -> None:
    """Remove all but the newest ``keep`` snapshots, and what a killed run has left."""
    import shutil  # noqa: PLC0415 - as above

    found = sorted(path for path in place.iterdir() if path.name.startswith(_PREFIX))
    old = [path for path in found[: -max(1, keep)] if path.name != current]
    for path in [*old, *place.glob(f".{_PREFIX}*.new")]:
        shutil.rmtree(path, ignore_errors=True)
    for path in place.glob(".link.*"):
        path.unlink(missing_ok=True)
