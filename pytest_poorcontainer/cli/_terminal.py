"""Whether a person sits at the terminal that a console command was started in."""

from __future__ import annotations

import os

__all__ = ["environment", "is_interactive"]

_IN, _OUT = 0, 1


def is_interactive() -> bool:
    """Return whether a person types what we read and sees what we print.

    Not in ``poor-container run CMD | less``, where less reads what is typed; nor as a shell's background job, which
    would be stopped for touching the terminal (termios(3), SIGTTOU).
    """
    if not (os.isatty(_IN) and os.isatty(_OUT)):
        return False
    try:
        return os.tcgetpgrp(_IN) == os.getpgrp()
    except OSError:
        return True  # it is no shell's: there are no background jobs


def environment() -> dict[str, str]:
    """Name the kind of terminal, without which no program draws on it."""
    return {"TERM": os.environ["TERM"]} if "TERM" in os.environ else {}
