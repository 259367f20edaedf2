"""The ladder: what kind of isolation this machine gives. docs/levels.md says what each rung is worth."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_poorcontainer.machine.needs import CONTAINER_NEEDS, first_missing
from pytest_poorcontainer.machine.probing import features

__all__ = ["BUILT", "LEVELS", "Level", "level"]

# From the top: the rung's name, and the features it stands on.
_NEEDS: dict[str, tuple[str, ...]] = {
    "namespaces": CONTAINER_NEEDS,
    "mounts": ("mountns", "mount_setattr"),
    "chroot": ("chroot",),
    "ptrace": ("ptrace", "proot"),
    "preload": ("preload",),
}
LEVELS = tuple(_NEEDS)
BUILT = ("namespaces",)
"""The levels on which containers can be made as yet; the others are only detected."""


@dataclass(frozen=True)
class Level:
    """A rung of the ladder that a machine reaches.

    ``name`` is one of ``LEVELS``, or "" for none. ``reason`` says why it is not the one above ("" at the top), and
    ``built`` whether containers can be made on it.
    """

    name: str
    reason: str
    built: bool


def level() -> Level:
    """Return the highest level that this machine reaches."""
    found = features()
    reason = ""
    for name, needs in _NEEDS.items():
        missing = first_missing(needs, found)
        if missing is None:
            return Level(name, reason, name in BUILT)
        reason = f"not {name}, for want of {missing.name}: {missing.reason}"
    return Level("", reason, built=False)
