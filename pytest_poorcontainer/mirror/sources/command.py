"""A program of the admin's that does the copying, under tunasync's contract.

It runs in the destination, finds its orders in ``TUNASYNC_*`` variables, and says by its exit status how it went. It
writes into the tree itself, so there is no plan, no guard and no order of stages; the lock, the marker, the time limit,
the log and the history are as for every mirror. An exit status of 0 with nothing in the tree is no success.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pytest_poorcontainer.mirror.entries import FILE
from pytest_poorcontainer.mirror.errors import MirrorError
from pytest_poorcontainer.mirror.rules import OURS
from pytest_poorcontainer.mirror.sources.curl import without_credentials
from pytest_poorcontainer.mirror.sources.program import Program

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_poorcontainer.mirror.config import Mirror
    from pytest_poorcontainer.mirror.home import Home
    from pytest_poorcontainer.mirror.progress import Progress
    from pytest_poorcontainer.mirror.sync import Result

__all__ = ["run_command"]


def run_command(
    mirror: Mirror, home: Home, result: Result, tick: Callable[[], None], progress: Progress, log: Callable[[str], None]
) -> None:
    """Run the program of a mirror, and look at what it has left. Raises :class:`MirrorError`."""
    result.protocol = "command"
    environment = {
        **os.environ,
        "TUNASYNC_MIRROR_NAME": mirror.name,
        "TUNASYNC_WORKING_DIR": str(mirror.dest),
        "TUNASYNC_UPSTREAM_URL": mirror.source,
        "TUNASYNC_LOG_DIR": str(home.ours / "logs"),
        "TUNASYNC_LOG_FILE": str(home.last_log(mirror.dest) or ""),
    }
    log(f"running {mirror.command[0]} for {without_credentials(mirror.source)}")
    progress.enter("fetch")
    program = Program(mirror.command, environment, tick, cwd=str(mirror.dest))
    for line in program.lines():
        log(line.decode("utf-8", "backslashreplace"))
    for text in program.errors.splitlines():
        log(text)
    if program.status:
        last = program.errors.strip().splitlines()[-1:] or [""]
        raise MirrorError(f"{mirror.command[0]} ended with {program.status}{f': {last[0][:300]}' if last[0] else ''}")
    for path, local in home.tree.walk():
        if local.kind == FILE and path.split("/")[0] != OURS:
            result.files += 1
            result.bytes += local.size
            result.newest = max(result.newest, local.mtime)
    if not result.files:
        raise MirrorError(
            f"{mirror.command[0]} ended with 0, but there is no file in {mirror.dest}: nothing was copied"
        )
