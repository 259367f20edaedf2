"""How all mirrors are, as one value: what the page, the JSON, the metrics and ``poor-mirror status`` show."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.mirror.history import History
from pytest_poorcontainer.mirror.home import Home, read_json
from pytest_poorcontainer.mirror.rules import OURS
from pytest_poorcontainer.mirror.sources.curl import without_credentials

if TYPE_CHECKING:
    from pytest_poorcontainer.mirror.config import Config, Mirror

__all__ = ["WORDS", "fresh", "overview"]

WORDS = {
    "ok": "up to date",
    "late": "late",
    "partial": "partial",
    "held": "held",
    "failed": "failing",
    "running": "running",
    "none": "never run",
}
"""The states that the page shows, in words. "late" is ok, but longer ago than `late` (or two intervals)."""

_RUNS = 30


def overview(config: Config) -> dict[str, Any]:
    """Return it: a line, the disk, and a dictionary for each mirror."""
    history = History(config.state / "history.sqlite3")
    mirrors = [_mirror(mirror, history) for mirror in config.mirrors.values()]
    counts = {state: sum(one["shown"] == state for one in mirrors) for state in WORDS}
    disk = _disk(config)
    days = history.days_until_full()
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


def fresh(config: Config) -> int:
    """Return a number that changes whenever the overview may have changed."""
    found = []
    for path in [config.state / "history.sqlite3", *(m.work / OURS / "status.json" for m in config.mirrors.values())]:
        try:
            stat = os.stat(path)  # noqa: PTH116 - called for each request
            found.append((stat.st_mtime_ns, stat.st_size))
        except OSError:  # noqa: PERF203 - a file for each mirror
            found.append((0, 0))
    return hash(tuple(found))


def _disk(config: Config) -> dict[str, int]:
    for mirror in config.mirrors.values():
        try:
            found = os.statvfs(mirror.dest)
        except OSError:
            continue
        return {"free": found.f_bavail * found.f_frsize, "total": found.f_blocks * found.f_frsize}
    return {"free": 0, "total": 0}


def _mirror(mirror: Mirror, history: History) -> dict[str, Any]:
    now = time.time()
    runs = history.runs(mirror.name, _RUNS)
    last = runs[-1] if runs else None
    good = history.last(mirror.name, "ok")
    running = _running(mirror)
    state = last["state"] if last else "none"
    interval = mirror.interval
    late = mirror.late or 2 * interval
    shown = "running" if running else state
    if shown == "ok" and last is not None and now - last["ended"] > late:
        shown = "late"
    newest = max((run["newest"] or 0 for run in reversed(runs) if run["newest"]), default=0)
    held = Home.held(mirror.work) if state == "held" else None
    return {
        "name": mirror.name,
        "state": state,
        "shown": shown,
        "word": WORDS[shown],
        "reason": last["reason"] if last else "",
        "source": without_credentials(mirror.source),
        "protocol": (last["protocol"] if last else "") or mirror.source.partition(":")[0],
        "age": now - newest if newest else None,
        "newest": newest or None,
        "run_age": now - last["ended"] if last else None,
        "last_attempt": last["ended"] if last else None,
        "last_started": last["started"] if last else None,
        "last_success": good["ended"] if good else None,
        "success_age": now - good["ended"] if good else None,
        "next_run": last["ended"] + interval if last else None,
        "interval": interval,
        "files": (good or last or {}).get("files", 0),
        "bytes": (good or last or {}).get("bytes", 0),
        "delta": {key: last[key] for key in ("added", "changed", "deleted", "fetched")} if last else None,
        "running": running,
        "held": {"summary": held[0].summary(), "reasons": held[1]["reasons"], "since": held[1]["since"]}
        if held
        else None,
        "facts": read_json(mirror.work / OURS / "state.json").get("memory", {}),
        "runs": runs,
    }


def _running(mirror: Mirror) -> dict[str, Any] | None:
    """Return how far the run of a mirror is; None when none is under way. The lock tells, not the file."""
    if not Home.locked_by(mirror.work):
        return None
    return read_json(mirror.work / OURS / "status.json") or {"phase": "start"}
