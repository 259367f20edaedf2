"""Which descriptors this process has open, for tests that look whether some are left."""

from __future__ import annotations

import gc
import os

__all__ = ["descriptor_count", "descriptors"]


def descriptors() -> list[int]:
    """Return their numbers, in order, when what earlier tests of this process have dropped is collected."""
    gc.collect()
    return sorted(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208 - names, not paths


def descriptor_count() -> int:
    """Return how many they are."""
    return len(descriptors())
