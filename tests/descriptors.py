"""Which descriptors this process has open, for tests that look whether some are left."""

from __future__ import annotations

import gc
import os

__all__ = ["descriptor_count", "descriptors", "open_now"]


def open_now() -> set[int]:
    """Return their numbers, without that of the list itself, which is whatever was free."""
    listed = os.listdir("/proc/self/fd")  # noqa: PTH208 - names, not paths
    return {int(name) for name in listed if os.path.lexists(f"/proc/self/fd/{name}")}


def descriptors() -> list[int]:
    """Return their numbers, in order, when what earlier tests of this process have dropped is collected."""
    gc.collect()
    return sorted(open_now())


def descriptor_count() -> int:
    """Return how many they are."""
    return len(descriptors())
