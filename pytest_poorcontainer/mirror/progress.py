"""How far a run is: counted as bytes come, told at most once in a while."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Progress"]


@dataclass
class Progress:
    """The state of a run while it runs. ``rate`` is in bytes/s over the run, ``eta`` in seconds, None while unknown."""

    tell: Callable[[dict[str, Any]], None] = lambda _: None
    every: float = 0.2
    phase: str = "start"
    files: int = 0
    bytes: int = 0
    total_files: int = 0
    total_bytes: int = 0
    listed: int = 0
    started: float = field(default_factory=time.time)
    _told: float = 0.0
    _fetching: float = 0.0

    def enter(self, phase: str) -> None:
        """Begin "list", "fetch", "publish", "delete" or "end"."""
        self.phase = phase
        if phase == "fetch" and not self._fetching:
            self._fetching = time.monotonic()
        self.tick(now=True)

    def tick(self, *, now: bool = False) -> None:
        """Tell how it stands, unless that was told a moment ago."""
        clock = time.monotonic()
        if now or clock - self._told >= self.every:
            self._told = clock
            self.tell(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        spent = time.monotonic() - self._fetching if self._fetching else 0.0
        rate = self.bytes / spent if spent > 0 else 0.0
        left = self.total_bytes - self.bytes
        return {
            "phase": self.phase,
            "files": self.files,
            "bytes": self.bytes,
            "total_files": self.total_files,
            "total_bytes": self.total_bytes,
            "listed": self.listed,
            "rate": round(rate),
            "eta": round(left / rate) if rate and left > 0 else None,
            "started": self.started,
        }
