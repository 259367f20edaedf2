"""What a container sees as ``/``: the machine, a directory, a tarball, a list of programs, or what a plugin knows.

``source`` (the base class, and what a lab has of each) <- ``host``, ``directory``, ``tarball``, ``programs`` (the
sources) <- ``finding`` (which of them is meant). Each source is a plugin, like those of others
(:mod:`pytest_poorcontainer.rootfs.hookspecs`).
"""

from __future__ import annotations

from pytest_poorcontainer.rootfs.finding import find
from pytest_poorcontainer.rootfs.source import Rootfs, Source

__all__ = ["Rootfs", "Source", "find"]
