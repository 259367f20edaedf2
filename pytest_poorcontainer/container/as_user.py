"""Another user for commands on the machine: as containers have it, with that user's groups and no others."""

from __future__ import annotations

import grp
import os
import pwd
from typing import Any, NamedTuple

from pytest_poorcontainer.errors import UsageError

__all__ = ["Identity", "identity"]


class Identity(NamedTuple):
    """Who a command is: ``name`` as it was asked for, and the numbers."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    def options(self) -> dict[str, Any]:
        """Return the arguments for ``subprocess``."""
        return {"user": self.uid, "group": self.gid, "extra_groups": list(self.groups)}


def identity(user: str | int) -> Identity:
    """Return who a user is, by name or number; a number that nobody has is its own group, as in containers.

    Raises :class:`UsageError` for a name that is not known, and when this process may not become another user.
    """
    numeric = isinstance(user, int) or user.isdecimal()
    try:
        entry = pwd.getpwuid(int(user)) if numeric else pwd.getpwnam(str(user))
    except KeyError:
        if not numeric:
            raise UsageError(f"user={user!r}: this machine has no such user") from None
        found = Identity(str(user), int(user), int(user), (int(user),))
    else:
        groups = {entry.pw_gid, *(each.gr_gid for each in grp.getgrall() if entry.pw_name in each.gr_mem)}
        found = Identity(str(user), entry.pw_uid, entry.pw_gid, tuple(sorted(groups)))
    if os.geteuid() not in (0, found.uid):
        raise UsageError(
            f"user={user!r}: on the machine only root can run a command as another user: take backend='overlay', "
            "whose commands run in a container"
        )
    return found
