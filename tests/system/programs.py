"""What runs in a container, for tests that count it."""

import contextlib
from pathlib import Path

from pytest_poorcontainer.container.service_tree import descendants

OURS = ("pclab", "pc-init", "pc-watcher", "pc-expose")


def processes(container):
    """Return the names of the processes in a container that are not ours; one that has just ended is none."""
    names = []
    for pid in descendants(container.pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            names.append(Path(f"/proc/{pid}/comm").read_text().strip())
    return [name for name in names if name not in OURS]
