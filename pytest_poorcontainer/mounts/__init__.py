"""What a container sees of files can change while it runs: mounts of its own, and faults of its disks."""

from __future__ import annotations

from pytest_poorcontainer.mounts.entry import MountEntry
from pytest_poorcontainer.mounts.kinds import KINDS, check
from pytest_poorcontainer.mounts.mounts import Mounts
from pytest_poorcontainer.mounts.undo import Undo

__all__ = ["KINDS", "MountEntry", "Mounts", "Undo", "check"]
