"""The shell that a person gets in a container."""

from __future__ import annotations

import pwd
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_poorcontainer.container.kept import Kept

__all__ = ["prompt", "shells"]

_NO_SHELLS = ("nologin", "false", "sync", "halt", "shutdown")  # of users whom nobody is to log in as


def shells(user: str | None) -> list[list[str]]:
    """Return what to try: the user's login shell as the machine's passwd(5) has it, and the one that is always there.

    A container sees the machine's files, so they are mostly the same; who changed them has /bin/sh.
    """
    try:
        entry = pwd.getpwuid(int(user)) if user and user.isdecimal() else pwd.getpwnam(user or "root")
        shell = entry.pw_shell
    except (KeyError, OverflowError):
        shell = ""
    usable = shell.startswith("/") and Path(shell).name not in _NO_SHELLS
    return [[shell], ["/bin/sh"]] if usable and shell != "/bin/sh" else [["/bin/sh"]]


def prompt(place: Kept, user: str | None) -> dict[str, str]:
    """Return a prompt that says where one is, for shells that have none of their own (bash has one on most systems)."""
    mark = "#" if user in (None, "root", "0") else "$"
    return {"PS1": f"{place.host}:$PWD{mark} "}
