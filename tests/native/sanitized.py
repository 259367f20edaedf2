"""Programs with AddressSanitizer and UndefinedBehaviorSanitizer, built once for all tests and workers."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_poorcontainer import native

__all__ = ["plain_or_sanitized"]

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "build" / "sanitize"
"""Where ``make sanitize`` has them too."""


def plain_or_sanitized(kind: str, name: str) -> str:
    """Return the path of a program: the one that everybody uses, or one with sanitizers. Skips without make."""
    if kind == "plain":
        return native.program(name)
    if shutil.which("make") is None:
        pytest.skip("make is not installed: apt-get install make")
    PLACE.mkdir(parents=True, exist_ok=True)
    made = ["make", "-s", "-C", ROOT / "preload", "SAN=1", f"OUT={PLACE}", PLACE / name]
    with (PLACE / ".lock").open("w") as lock:  # make does not know of other workers
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(made, check=True, capture_output=True)
    return str(PLACE / name)
