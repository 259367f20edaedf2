"""What a forked child of pytest must not have: a line to the lab.

A test may fork without exec (``os.fork``, ``multiprocessing``) and the child may outlive pytest. Close-on-exec does not
help there. Were the child to keep our descriptors, it could hold the lab alive, and its messages would mix with ours.
So in the child each of them becomes /dev/null: the number stays taken, and an object that closes it later closes
nothing of anybody else's.
"""

from __future__ import annotations

import os

__all__ = ["expose", "generation", "guard"]

_ours: set[int] = set()
_generation = 0


def generation() -> int:
    """Return a number that is another one in a forked child."""
    return _generation


def guard(fd: int) -> None:
    """Take the descriptor away from children forked from now on."""
    _ours.add(fd)


def expose(fd: int) -> None:
    """Forget the descriptor. To be called before it is closed: its number may be somebody else's right after."""
    _ours.discard(fd)


def _in_child() -> None:
    global _generation  # noqa: PLW0603 - the one fact about this process
    _generation += 1
    if not _ours:
        return
    try:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        # No /dev/null to be had: then the numbers become free, which is the lesser evil of the two.
        for fd in _ours:
            os.close(fd)
    else:
        for fd in _ours:
            os.dup2(null, fd, inheritable=False)
        os.close(null)
    _ours.clear()


os.register_at_fork(after_in_child=_in_child)
