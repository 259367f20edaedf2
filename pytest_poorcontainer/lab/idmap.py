"""The ranges of subordinate user and group ids that newuidmap(1) lets this user map (subuid(5))."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

__all__ = ["arguments"]


def arguments() -> list[str]:
    """Return pclab's options for the id ranges: [] as root, or where this machine grants none.

    Inside, id 0 is this user, and 1 and up are the range's, so that a package's users exist ("postgres").
    """
    uid = os.geteuid()
    if uid == 0 or shutil.which("newuidmap") is None or shutil.which("newgidmap") is None:
        return []
    names = {str(uid), _user_name(uid)}
    uids, gids = _largest(Path("/etc/subuid"), names), _largest(Path("/etc/subgid"), names)
    if uids is None or gids is None:
        return []
    return [
        "--uid-map",
        f"0 {uid} 1 1 {uids[0]} {uids[1]}",
        "--gid-map",
        f"0 {os.getegid()} 1 1 {gids[0]} {gids[1]}",
    ]


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _largest(path: Path, names: set[str]) -> tuple[int, int] | None:
    """Return start and count of the largest range that the file has for one of the names."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    best: tuple[int, int] | None = None
    for line in lines:
        owner, _, rest = line.strip().partition(":")
        start, _, count = rest.partition(":")
        if not owner or owner not in names or not (start.isdecimal() and count.isdecimal()):
            continue  # somebody else's, or a comment
        if int(count) > (best[1] if best else 0):
            best = int(start), int(count)
    return best
