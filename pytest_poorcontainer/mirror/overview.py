"""How all mirrors are, as one value: what the page, the JSON, the metrics and ``poor-mirror status`` show."""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.mirror.config import host_of
from pytest_poorcontainer.mirror.errors import MirrorError
from pytest_poorcontainer.mirror.history import History
from pytest_poorcontainer.mirror.home import Home, read_json
from pytest_poorcontainer.mirror.rules import OURS
from pytest_poorcontainer.mirror.sources.curl import without_credentials
from pytest_poorcontainer.mirror.units import human_days, human_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

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
_DAY = 86400.0


def overview(config: Config) -> dict[str, Any]:
    """Return it: a line, a dictionary for each file system, and one for each mirror."""
    path = config.state / "history.sqlite3"
    history, filling = _history(path, tuple(config.mirrors), History(path).stamp())
    mirrors = [_mirror(mirror, *history[name]) for name, mirror in config.mirrors.items()]
    counts = {state: sum(one["shown"] == state for one in mirrors) for state in WORDS}
    disks = _disks(config, filling)
    said = ", ".join(f"{count} {WORDS[state]}" for state, count in counts.items() if count) or "no mirrors"
    return {
        "version": 1,
        "title": config.title,
        "id": _identity(config.state),
        "written": time.time(),
        "line": f"{said}{_space(disks)}",
        "counts": counts,
        "disks": disks,
        "mirrors": mirrors,
    }


@functools.lru_cache(maxsize=1)
def _history(path: Path, names: tuple[str, ...], stamp: bytes) -> tuple[dict[str, Any], dict[int, float]]:  # noqa: ARG001 - a key
    """Return the runs of all mirrors, and how fast the disks fill; read anew when the history has changed."""
    history = History(path)
    return history.recent(names, _RUNS), history.filling()


def watch(config: Config) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return (a number that changes with history and with what runs, how far each run is)."""
    told = {name: one for name, mirror in config.mirrors.items() if (one := _running(mirror)) is not None}
    runs = tuple((name, one.get("pid")) for name, one in told.items())
    return hash((History(config.state / "history.sqlite3").stamp(), runs)), told


@functools.lru_cache(maxsize=4)
def _identity(state: Path) -> str:
    """Return what tells this site from others, as a URN that stays: RFC 4287 wants one for a feed."""
    import uuid  # noqa: PLC0415 - once for each process that draws

    return uuid.uuid5(uuid.NAMESPACE_URL, f"poor-mirror://{os.uname().nodename}{state.absolute()}").urn


def _disks(config: Config, filling: Mapping[int, float]) -> list[dict[str, Any]]:
    """Return each file system that a destination is on, the one that is full first at the top."""
    found: dict[int, dict[str, Any]] = {}
    for mirror in config.mirrors.values():
        place = mirror.work
        while (device := _device(place)) is None and place != place.parent:
            place = place.parent
        if device is None:
            continue
        if device not in found:
            try:
                space = os.statvfs(place)
            except OSError:  # it has gone meanwhile
                continue
            free, total = space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize
            speed = filling.get(device, 0.0)
            days = free / speed / _DAY if speed > 0 else None
            found[device] = {"mount": str(_mount(place)), "free": free, "total": total, "days": days, "mirrors": []}
        found[device]["mirrors"].append(mirror.name)
    disks = [one for one in found.values() if one["total"]]
    return sorted(disks, key=lambda one: (one["days"] is None, one["days"] or one["free"] / one["total"]))


def _device(path: Path) -> int | None:
    """Return the file system of a path by its st_dev; None where there is nothing."""
    try:
        return path.stat().st_dev
    except OSError:
        return None


def _mount(path: Path) -> Path:
    """Return where the file system of a path begins."""
    real = Path(os.path.realpath(path))
    device = _device(real)
    return next((one for one in (real, *real.parents) if one == one.parent or _device(one.parent) != device), real)


def _space(disks: list[dict[str, Any]]) -> str:
    """Return in words how it stands with the disk that needs somebody first."""
    if not disks:
        return ""
    first = disks[0]
    name = "the disk" if len(disks) == 1 else first["mount"]
    full = f"; full in about {human_days(first['days'])}" if first["days"] is not None else ""
    return f"; {first['free'] / first['total']:.0%} of {name} free{full}"


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
