"""Renders the overview of all mirrors: pages, a fragment, JSON (also tunasync's), and metrics."""

from __future__ import annotations

import functools
import itertools
import json
import os
import time
import uuid
from importlib import resources
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.mirror.errors import MirrorError
from pytest_poorcontainer.mirror.home import Home
from pytest_poorcontainer.mirror.overview import overview
from pytest_poorcontainer.mirror.page.drawing import badge, chart, spark
from pytest_poorcontainer.mirror.plan import printable
from pytest_poorcontainer.mirror.units import human_bytes, human_days, human_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from pytest_poorcontainer.mirror.config import Config

__all__ = ["POLICY", "files", "jobs", "metrics", "page", "part", "progress", "share", "write"]

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'"
)
"""The content security policy: nothing from elsewhere, nothing inline."""

_RUNS = 30
_LOG = 200
_HELD = 500
_CHANGES = 100
_KIND = {"late": "success", "ok": "success", "partial": "failed", "held": "paused", "failed": "failed", "none": "none"}


def share(running: Mapping[str, Any]) -> float:
    """Return how much of a run is done, 0..1."""
    total = running.get("total_bytes") or 0
    return min(1.0, running.get("bytes", 0) / total) if total else 0.0


def progress(running: Mapping[str, Any]) -> str:
    """Return how far a run is, in words."""
    if not running.get("total_files"):  # nothing is known yet, and of a program of the admin's nothing ever
        return str(running.get("phase", "start"))
    eta = running.get("eta")
    left = f", {human_seconds(eta)} left" if eta is not None else ""
    return (
        f"{running.get('phase', 'start')}: {running.get('files', 0)} of {running.get('total_files', 0)} files, "
        f"{human_bytes(running.get('bytes', 0))} of {human_bytes(running.get('total_bytes', 0))}, "
        f"{human_bytes(running.get('rate', 0))}/s{left}"
    )


def _date(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds)) if seconds else "-"


@functools.lru_cache(maxsize=1)
def _environment() -> Any:
    """Return jinja2's environment; raises :class:`MirrorError` with the line that installs it."""
    try:
        import jinja2  # noqa: PLC0415 - an extra
        import markupsafe  # noqa: PLC0415 - comes with it
    except ImportError as error:
        raise MirrorError(
            f"cannot draw the status page ({error}): pip install 'pytest-poorcontainer[mirror]'"
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pytest_poorcontainer.mirror.page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        auto_reload=False,
    )
    environment.filters.update(
        duration=human_seconds,
        size=human_bytes,
        date=_date,
        stamp=lambda seconds: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)),
        days=human_days,
        delta=lambda delta: f"+{delta['added'] or 0} ~{delta['changed'] or 0} -{delta['deleted'] or 0}",
        plain=printable,
        share=share,
        progress=progress,
        spark=lambda runs: markupsafe.Markup(spark(runs)),  # noqa: S704 - our own markup, its words escaped
        chart=lambda runs, what: markupsafe.Markup(chart(runs, what)),  # noqa: S704 - as above
    )
    return environment


def page(all_of_it: Mapping[str, Any], *, live: bool = False, fragment: bool = False) -> bytes:
    """Return the page of all mirrors, or the fragment of it for another page."""
    template = _environment().get_template("fragment.html" if fragment else "index.html")
    return bytes(
        template.render(all=all_of_it, live=live, policy=POLICY, runs=_RUNS).encode("utf-8", "backslashreplace")
    )


def _mirror_page(all_of_it: Mapping[str, Any], mirror: Mapping[str, Any], dest: Path) -> bytes:
    lines, log = [], ""
    if mirror["held"] and mirror["held"]["reasons"]:  # else it cannot be read
        held = Home.held(dest)
        lines = list(itertools.islice(held[0].lines(), _HELD)) if held else []
    path = Home.last_log(dest)
    if path is not None:
        log = "\n".join(path.read_text(encoding="utf-8", errors="backslashreplace").splitlines()[-_LOG:])
    text = (
        _environment()
        .get_template("mirror.html")
        .render(all=all_of_it, mirror=mirror, held_lines=lines, log=log, policy=POLICY)
    )
    return bytes(text.encode("utf-8", "backslashreplace"))


def jobs(all_of_it: Mapping[str, Any]) -> bytes:
    """Return the mirrors as tunasync's ``GET /jobs`` does."""
    found = []
    for mirror in all_of_it["mirrors"]:
        status = "syncing" if mirror["running"] else _KIND.get(mirror["shown"], "failed")
        one = {"name": mirror["name"], "is_master": True, "status": status}
        for key, value in (
            ("last_update", mirror["last_success"]),
            ("last_started", mirror["last_started"]),
            ("last_ended", mirror["last_attempt"]),
            ("next_schedule", mirror["next_run"]),
        ):
            one[key] = time.strftime("%Y-%m-%d %H:%M:%S +0000", time.gmtime(value or 0))
            one[f"{key}_ts"] = int(value or 0)
        found.append({**one, "upstream": mirror["source"], "size": human_bytes(mirror["bytes"])})
    return json.dumps(found).encode()


def _label(text: str) -> str:
    """Return a label's value as Prometheus' text format has it."""
    return printable(text).replace("\\", "\\\\").replace('"', '\\"')


def metrics(all_of_it: Mapping[str, Any]) -> bytes:
    """Return the figures for Prometheus, in its text format."""
    rows = {
        "poor_mirror_state": ("1 for the state that a mirror is in", "shown"),
        "poor_mirror_content_age_seconds": ("Age of the newest of its content", "age"),
        "poor_mirror_success_age_seconds": ("Time since its last complete run", "success_age"),
        "poor_mirror_files": ("Files that it holds", "files"),
        "poor_mirror_bytes": ("Bytes that it holds", "bytes"),
    }
    lines = []
    for name, (text, key) in rows.items():
        lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
        for mirror in all_of_it["mirrors"]:
            value, state = mirror[key], ""
            if key == "shown":
                value, state = 1, f',state="{mirror[key]}"'
            if value is not None:
                lines.append(f'{name}{{mirror="{mirror["name"]}"{state}}} {value}')
    for name, text, key in (
        ("poor_mirror_disk_free_bytes", "What is free on a file system of mirrors", "free"),
        ("poor_mirror_disk_bytes", "How large it is", "total"),
    ):
        lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
        lines += [f'{name}{{mount="{_label(disk["mount"])}"}} {disk[key]}' for disk in all_of_it["disks"]]
    return ("\n".join(lines) + "\n").encode()


def feed(all_of_it: Mapping[str, Any]) -> bytes:
    """Return the changes of state among the runs that are shown, the newest first, as Atom (RFC 4287)."""
    changes = []
    for mirror in all_of_it["mirrors"]:
        for before, run in itertools.pairwise([{"state": ""}, *mirror["runs"]]):
            if run["state"] != before["state"]:
                name = mirror["name"]
                key = uuid.uuid5(uuid.NAMESPACE_URL, f"{all_of_it['id']}/{name}/{run['started']}")
                changes.append({"name": name, "run": run, "before": before["state"], "id": key.urn})
    changes.sort(key=lambda one: one["run"]["ended"], reverse=True)
    text = _environment().get_template("feed.atom").render(all=all_of_it, changes=changes[:_CHANGES])
    return bytes(text.encode())


def asset(name: str) -> bytes:
    """Return the style sheet or the script."""
    return resources.files("pytest_poorcontainer.mirror.page").joinpath("templates").joinpath(name).read_bytes()


_FIGURES: dict[str, Callable[[Mapping[str, Any]], bytes]] = {
    "status.json": lambda found: json.dumps(found).encode(),
    "jobs": jobs,
    "metrics": metrics,
    "feed.atom": feed,
}
_OWN = ("html", "svg")
"""What each mirror has of its own: a page and a badge."""
_FIXED = ("index.html", "fragment.html", "style.css", "live.js", *_FIGURES)


def part(config: Config, found: Mapping[str, Any], name: str, *, live: bool = False) -> bytes | None:
    """Return one part of the page by its file name, drawn from the overview ``found``; None for what is no part."""
    if name in {"index.html", "fragment.html"}:
        return page(found, live=live, fragment=name == "fragment.html")
    if name in {"style.css", "live.js"}:
        return asset(name)
    if name in _FIGURES:
        return _FIGURES[name](found)
    stem, _, kind = name.rpartition(".")
    mirror = next((one for one in found["mirrors"] if one["name"] == stem), None)
    if mirror is None or kind not in _OWN:
        return None
    if kind == "svg":
        return badge(mirror["name"], mirror["word"], mirror["shown"]).encode()
    return _mirror_page(found, mirror, config.mirrors[mirror["name"]].work)


def files(config: Config, only: Collection[str] | None = None) -> dict[str, bytes]:
    """Return everything that the page consists of, by file name; of the mirrors' own parts ``only`` these."""
    found = overview(config)
    names = [*_FIXED, *(f"{name}.{kind}" for name in (config.mirrors if only is None else only) for kind in _OWN)]
    return {name: content for name in names if (content := part(config, found, name)) is not None}


def write(config: Config, only: Collection[str] | None = None) -> None:
    """Write the page as files, each one atomically: all, or what a change of ``only`` these mirrors has changed.

    Raises :class:`MirrorError`.
    """
    directory = config.page or config.state / "page"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if only is not None:  # the others' pages are as they were, if there are any
            only = {*only, *(name for name in config.mirrors if not (directory / f"{name}.html").exists())}
        for name, content in files(config, only).items():
            new = directory / f".{name}.{os.getpid()}.new"
            new.write_bytes(content)
            new.chmod(0o644)
            new.replace(directory / name)
    except OSError as error:
        raise MirrorError(
            f"cannot write the status page to {directory}: {error.strerror}; may we write there?"
        ) from error
