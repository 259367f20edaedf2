"""The history of all runs, in SQLite."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.mirror.errors import MirrorError, NoSpace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
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
CREATE INDEX IF NOT EXISTS runs_of ON runs (name);
CREATE TABLE IF NOT EXISTS space (device INTEGER, at REAL, free INTEGER, total INTEGER, PRIMARY KEY (device, at));
"""
_KEPT_SPACE = 2000  # measurements of each file system
_HOUR = 3600.0
_HEADER, _COUNTER = 100, slice(24, 28)
_OF_ONE = f"SELECT {_COLUMNS} FROM runs WHERE name = ? ORDER BY id DESC"  # noqa: S608 - our own names
_GOOD = f"SELECT {_COLUMNS} FROM runs WHERE name = ? AND state = 'ok' ORDER BY id DESC LIMIT 1"  # noqa: S608 - as above


class History:
    """Runs by mirror, newest last. Each call opens the file anew: several processes write to it."""

    def __init__(self, path: Path) -> None:
        """Name the file; it is made with the first run."""
        self.path = path

    @contextmanager
    def _open(self, *, to_write: bool = False) -> Iterator[sqlite3.Connection]:
        try:
            if to_write:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=10, isolation_level=None)
            try:
                if to_write:  # all at once: each transaction waits for the disk four times
                    connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA}")
                connection.row_factory = sqlite3.Row
                yield connection
                if to_write:
                    connection.execute("COMMIT")
            finally:
                connection.close()
        except (OSError, sqlite3.Error) as error:
            if "disk is full" in str(error):  # SQLITE_FULL; before Python 3.11 the text alone tells
                raise NoSpace(f"cannot write the history {self.path}: {error}; free some space") from error
            may = "may we write there?" if to_write else "is it ours, and whole? Move it away to begin anew"
            raise MirrorError(f"cannot open the history {self.path}: {error}; {may}") from error

    def stamp(self) -> bytes:
        """Return what differs after each change: SQLite counts them in the header of the file (fileformat2 1.3.8)."""
        try:
            with self.path.open("rb") as file:
                return file.read(_HEADER)[_COUNTER]
        except (FileNotFoundError, NotADirectoryError):
            return b""
        except OSError as error:
            raise MirrorError(f"cannot read the history {self.path}: {error.strerror}; may we read it?") from error

    def add(self, run: dict[str, Any]) -> None:
        """Add a run: the columns of the table by name, and "free" and "total" bytes of the file system "device"."""
        columns = [name.strip() for name in _COLUMNS.split(",")]
        values = [run.get(name, 0) for name in columns]
        marks = ", ".join("?" for _ in columns)
        with self._open(to_write=True) as database:
            database.execute(f"INSERT INTO runs ({_COLUMNS}) VALUES ({marks})", values)  # noqa: S608 - our own names
            if run.get("total"):
                device = run.get("device", 0)
                space = (device, run["ended"], run["free"], run["total"])
                database.execute("INSERT OR REPLACE INTO space VALUES (?, ?, ?, ?)", space)
                database.execute(
                    "DELETE FROM space WHERE device = ?1 AND at < "
                    "(SELECT at FROM space WHERE device = ?1 ORDER BY at DESC LIMIT 1 OFFSET ?2)",
                    (device, _KEPT_SPACE),
                )

    def runs(self, name: str, most: int = 30) -> list[dict[str, Any]]:
        """Return the last runs of a mirror, the newest last."""
        return self.recent([name], most)[name][0]

    def recent(self, names: Iterable[str], most: int = 30) -> dict[str, tuple[list[dict[str, Any]], dict[str, Any]]]:
        """Return (the last runs, the newest last; the last one that was ok, empty if none was) of each mirror."""
        if not self.stamp():
            return {name: ([], {}) for name in names}
        found = {}
        with self._open() as database:
            for name in names:
                runs = [dict(row) for row in database.execute(f"{_OF_ONE} LIMIT ?", (name, most))][::-1]
                good = next((run for run in reversed(runs) if run["state"] == "ok"), None)
                if good is None and len(runs) == most:
                    row = database.execute(_GOOD, (name,)).fetchone()
                    good = dict(row) if row else None
                found[name] = (runs, good or {})
        return found

    def last(self, name: str) -> dict[str, Any] | None:
        """Return the newest run of a mirror."""
        return next(iter(self.runs(name, 1)), None)

    def filling(self) -> dict[int, float]:
        """Return how fast each file system fills (bytes/s, negative: it empties), by its st_dev.

        Of one that was not looked at over an hour there is nothing to tell.
        """
        if not self.stamp():
            return {}
        points: dict[int, list[tuple[float, float]]] = {}
        with self._open() as database:
            for row in database.execute("SELECT device, at, free FROM space ORDER BY at"):
                points.setdefault(row["device"], []).append((row["at"], row["free"]))
        return {device: _slope(one) for device, one in points.items() if one[-1][0] - one[0][0] >= _HOUR}


def _slope(points: list[tuple[float, float]]) -> float:
    """Return how fast what is free becomes less, by least squares."""
    mean_at = sum(at for at, _ in points) / len(points)
    mean_free = sum(free for _, free in points) / len(points)
    spread = sum((at - mean_at) ** 2 for at, _ in points)
    return -sum((at - mean_at) * (free - mean_free) for at, free in points) / spread
