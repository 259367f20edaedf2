"""The history of all runs, in SQLite."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.mirror.errors import MirrorError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["History"]

_COLUMNS = (
    "name, started, ended, state, status, reason, added, changed, deleted, fetched, files, bytes, newest, protocol, "
    "rate, problems"
)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, started REAL NOT NULL, ended REAL NOT NULL, state TEXT NOT NULL,
    status INTEGER NOT NULL, reason TEXT NOT NULL, added INTEGER, changed INTEGER, deleted INTEGER, fetched INTEGER,
    files INTEGER, bytes INTEGER, newest REAL, protocol TEXT, rate REAL, problems INTEGER);
CREATE INDEX IF NOT EXISTS runs_name ON runs (name, ended);
CREATE TABLE IF NOT EXISTS disk (at REAL PRIMARY KEY, free INTEGER, total INTEGER);
"""
_KEPT_DISK = 2000


class History:
    """Runs by mirror, newest last. Each call opens the file anew: several processes write to it."""

    def __init__(self, path: Path) -> None:
        """Name the file; it is made with the first run."""
        self.path = path

    def _open(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=10, isolation_level=None)
            connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise MirrorError(f"cannot open the history {self.path}: {error}; may we write there?") from error
        connection.row_factory = sqlite3.Row
        return connection

    def add(self, run: dict[str, Any]) -> None:
        """Add a run: the columns of the table by name, and "free" and "total" bytes of the disk."""
        columns = [name.strip() for name in _COLUMNS.split(",")]
        values = [run.get(name, 0) for name in columns]
        marks = ", ".join("?" for _ in columns)
        with closing(self._open()) as database:
            database.execute(f"INSERT INTO runs ({_COLUMNS}) VALUES ({marks})", values)  # noqa: S608 - our own names
            if run.get("total"):
                database.execute(
                    "INSERT OR REPLACE INTO disk VALUES (?, ?, ?)", (run["ended"], run["free"], run["total"])
                )
                database.execute(
                    "DELETE FROM disk WHERE at < (SELECT at FROM disk ORDER BY at DESC LIMIT 1 OFFSET ?)", (_KEPT_DISK,)
                )

    def runs(self, name: str, most: int = 30) -> list[dict[str, Any]]:
        """Return the last runs of a mirror, the newest last."""
        if not self.path.exists():
            return []
        with closing(self._open()) as database:
            found = database.execute(
                f"SELECT {_COLUMNS} FROM runs WHERE name = ? ORDER BY id DESC LIMIT ?",  # noqa: S608 - as above
                (name, most),
            ).fetchall()
        return [dict(row) for row in reversed(found)]

    def last(self, name: str, *states: str) -> dict[str, Any] | None:
        """Return the newest run of a mirror, of those that ended in one of these states if any are named."""
        if not self.path.exists():
            return None
        condition = f" AND state IN ({', '.join('?' for _ in states)})" if states else ""
        with closing(self._open()) as database:
            row = database.execute(
                f"SELECT {_COLUMNS} FROM runs WHERE name = ?{condition} ORDER BY id DESC LIMIT 1",  # noqa: S608 - as above
                (name, *states),
            ).fetchone()
        return dict(row) if row else None

    def days_until_full(self) -> float | None:
        """Return how many days the disk will last if it goes on filling as it did; None when it does not fill."""
        if not self.path.exists():
            return None
        with closing(self._open()) as database:
            points = database.execute("SELECT at, free FROM disk ORDER BY at").fetchall()
        if len(points) < 2 or points[-1]["at"] - points[0]["at"] < 3600:  # noqa: PLR2004 - no trend in less than an hour
            return None
        mean_at = sum(point["at"] for point in points) / len(points)
        mean_free = sum(point["free"] for point in points) / len(points)
        spread = sum((point["at"] - mean_at) ** 2 for point in points)
        slope = sum((point["at"] - mean_at) * (point["free"] - mean_free) for point in points) / spread
        return points[-1]["free"] / -slope / 86400 if slope < 0 else None
