"""What this machine can do, why not, and what to do about it.

Every feature is found out by doing the thing in a child process (``preload/probe``, run once per process), never by
reading a version or the return code of a single call: on Ubuntu 24.04 a user namespace can be made, and only the
first mount in it fails.
"""

from __future__ import annotations

from pytest_poorcontainer.machine.levels import LEVELS, Level, level
from pytest_poorcontainer.machine.needs import CONTAINER_NEEDS, FIXTURE_NEEDS, fixtures_ready, require
from pytest_poorcontainer.machine.probing import Feature, features, privilege

__all__ = [
    "CONTAINER_NEEDS",
    "FIXTURE_NEEDS",
    "LEVELS",
    "Feature",
    "Level",
    "features",
    "fixtures_ready",
    "level",
    "privilege",
    "require",
]
