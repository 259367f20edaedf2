"""How all mirrors are, as one value: what the page, the JSON, the metrics and ``poor-mirror status`` show."""

from __future__ import annotations

import functools
import os
import time
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.mirror.config import host_of
from pytest_poorcontainer.mirror.errors import MirrorError
from pytest_poorcontainer.mirror.history import History
from pytest_poorcontainer.mirror.home import Home, read_json
from pytest_poorcontainer.mirror.rules import OURS
from pytest_poorcontainer.mirror.sources.curl import without_credentials
from pytest_poorcontainer.mirror.units import human_seconds

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_poorcontainer.mirror.config import Config, Mirror

__all__ = ["WORDS", "overview", "watch"]

WORDS = {
    "ok": "up to date",
    "late": "late",
    "partial": "partial",
    "held": "held",
    "failed": "failing",
    "running": "running",
    "none": "never run",
}
"""The states that the page shows, in words. "late" is ok, but longer ago than `late` (or two intervals), or older
in its content than `max_age`."""

_RUNS = 30


def overview(config: Config) -> dict[str, Any]:
    """Return it: a line, the disk, and a dictionary for each mirror."""
    path = config.state / "history.sqlite3"
    history, days = _history(path, tuple(config.mirrors), History(path).stamp())
    mirrors = [_mirror(mirror, *history[name]) for name, mirror in config.mirrors.items()]
    counts = {state: sum(one["shown"] == state for one in mirrors) for state in WORDS}
    disk = _disk(config)
    said = ", ".join(f"{count} {WORDS[state]}" for state, count in counts.items() if count) or "no mirrors"
    full = f"; full in about {days:.0f} days" if days is not None else ""
    free = f"; {disk['free'] / disk['total']:.0%} of the disk free{full}" if disk["total"] else ""
    return {
        "version": 1,
        "title": config.title,
        "written": time.time(),
        "line": f"{said}{free}",
        "counts": counts,
        "disk": {**disk, "days": days},
        "mirrors": mirrors,
    }


@functools.lru_cache(maxsize=1)
def _history(path: Path, names: tuple[str, ...], stamp: bytes) -> tuple[dict[str, Any], float | None]:  # noqa: ARG001 - a key
    """Return the runs of all mirrors, and the days until the disk is full; read anew when the history has changed."""
    history = History(path)
    return history.recent(names, _RUNS), history.days_until_full()


def watch(config: Config) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return (a number that changes with history and with what runs, how far each run is)."""
    told = {name: one for name, mirror in config.mirrors.items() if (one := _running(mirror)) is not None}
    runs = tuple((name, one.get("pid")) for name, one in told.items())
    return hash((History(config.state / "history.sqlite3").stamp(), runs)), told


def _disk(config: Config) -> dict[str, int]:
    for mirror in config.mirrors.values():
        try:
            found = os.statvfs(mirror.dest)
        except OSError:
            continue
        return {"free": found.f_bavail * found.f_frsize, "total": found.f_blocks * found.f_frsize}
    return {"free": 0, "total": 0}


def _mirror(mirror: Mirror, runs: list[dict[str, Any]], good: dict[str, Any]) -> dict[str, Any]:
    now = time.time()
    last = runs[-1] if runs else None
    told = _running(mirror)
    state = last["state"] if last else "none"
    interval = mirror.interval
    newest = next((run["newest"] for run in reversed(runs) if run["newest"]), 0)
    facts = read_json(mirror.work / OURS / "state.json").get("memory")
    late = _late(mirror, last["ended"], newest) if last is not None and state == "ok" else ""
    shown = "running" if told else "late" if late else state
    return {
        "name": mirror.name,
        "state": state,
        "shown": shown,
        "word": WORDS[shown],
        "reason": late or (last["reason"] if last else ""),
        "source": without_credentials(mirror.source),
        "protocol": (last["protocol"] if last else "") or _protocol(mirror),
        "age": now - newest if newest else None,
        "newest": newest or None,
        "run_age": now - last["ended"] if last else None,
        "last_attempt": last["ended"] if last else None,
        "last_started": last["started"] if last else None,
        "last_success": good["ended"] if good else None,
        "success_age": now - good["ended"] if good else None,
        "next_run": last["ended"] + mirror.pause(state) if last else None,
        "interval": interval,
        "files": (good or last or {}).get("files", 0),
        "bytes": (good or last or {}).get("bytes", 0),
        "delta": {key: last[key] for key in ("added", "changed", "deleted", "fetched")} if last else None,
        "running": told,
        "held": _held(mirror.work, Home.held_since(mirror.work)) if state == "held" else None,
        "facts": facts if isinstance(facts, dict) else {},
        "runs": runs,
    }


def _protocol(mirror: Mirror) -> str:
    """Return by what a mirror will be copied that has not run yet."""
    if mirror.command:
        return "command"
    scheme, separator, _ = mirror.source.partition("://")
    return scheme if separator else "rsync" if host_of(mirror.source) else "file"


def _late(mirror: Mirror, ended: float, newest: float) -> str:
    """Return why a mirror is late although its last run was a good one: that is too long ago, or brought old things."""
    now, allowed = time.time(), mirror.late or 2 * mirror.interval
    if now - ended > allowed:
        return f"the last complete run was {human_seconds(now - ended)} ago, and {human_seconds(allowed)} are allowed"
    if mirror.max_age and newest and now - newest > mirror.max_age:
        return f"the content is {human_seconds(now - newest)} old, and {human_seconds(mirror.max_age)} are allowed"
    return ""


@functools.lru_cache(maxsize=64)
def _held(work: Path, since: int) -> dict[str, Any] | None:
    """Return what is shown of a held plan. That may be a long one: it is read once."""
    try:
        held = Home.held(work)
    except MirrorError as error:
        return {"summary": str(error), "reasons": [], "since": since / 1e9}
    if held is None:
        return None
    return {"summary": held[0].summary(), "reasons": held[1]["reasons"], "since": held[1]["since"]}


def _running(mirror: Mirror) -> dict[str, Any] | None:
    """Return how far the run of a mirror is; None when none is under way. The lock tells, not the file."""
    if not Home.locked_by(mirror.work):
        return None
    return read_json(mirror.work / OURS / "status.json") or {"phase": "start"}
