"""What ``poor-mirror`` prints: progress, results, tables."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.mirror.plan import printable
from pytest_poorcontainer.mirror.sources.curl import without_credentials
from pytest_poorcontainer.mirror.units import human_bytes, human_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_poorcontainer.mirror.sync import Result

__all__ = ["Shown", "public", "runs", "table"]

_BAR = 20


def public(source: str) -> str:
    """Return a source as anybody may see it."""
    return without_credentials(source)


class Shown:
    """One run on the terminal, or as lines of JSON."""

    def __init__(self, name: str, where: str = "", *, as_json: bool, quiet: bool) -> None:
        """A bar is drawn only where standard error is a terminal; ``where`` is what configures the run."""
        self._name, self._where = name, where
        self._json = as_json
        self._bar = not as_json and not quiet and sys.stderr.isatty()

    def progress(self, told: Mapping[str, Any]) -> None:
        """Show how far the run is."""
        if self._json:
            print(json.dumps({"event": "progress", "name": self._name, **told}), flush=True)
        elif self._bar:
            import shutil  # noqa: PLC0415 - for the bar

            total = told["total_bytes"]
            share = min(1.0, told["bytes"] / total) if total else 0.0
            bar = "#" * round(share * _BAR)
            eta = f", {human_seconds(told['eta'])} left" if told["eta"] is not None else ""
            text = (
                f"{self._name} [{bar:<{_BAR}}] {told['phase']} {told['files']}/{told['total_files']} files, "
                f"{human_bytes(told['bytes'])}, {human_bytes(told['rate'])}/s{eta}"
            )
            print(f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr, flush=True)

    def result(self, result: Result, *, with_plan: bool) -> None:
        """Show how it ended."""
        if self._bar:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        plan = result.plan if with_plan else None
        if self._json:
            shown = {"event": "result", **result.dump(), **({"plan": plan.dump()} if plan is not None else {})}
            print(json.dumps(shown), flush=True)
            return
        if plan is not None:
            for line in plan.lines():
                print(line)
            print(f"# {plan.summary()}")
        took = human_seconds(result.ended - result.started)
        what = (
            "nothing new"
            if result.state == "ok" and not (result.added or result.changed or result.deleted)
            else f"+{result.added} ~{result.changed} -{result.deleted} files, {human_bytes(result.fetched)}"
        )
        if plan is None or result.state != "ok":
            stream = sys.stdout if result.state == "ok" else sys.stderr
            reason = f": {printable(result.reason)}" if result.reason else ""
            reason += f" ({self._where})" if result.state == "failed" and self._where else ""
            print(f"{result.name}: {result.state} ({what}, {took}){reason}", file=stream)


def table(found: Mapping[str, Any]) -> None:
    """Print the overview."""
    print(f"{found['line']}")
    for mirror in found["mirrors"]:
        age = human_seconds(mirror["age"])
        print(
            f"{mirror['name']:20} {mirror['shown']:8} content {age:>8} old, "
            f"last run {human_seconds(mirror['run_age']):>8} ago, "
            f"{mirror['files']:>8} files {human_bytes(mirror['bytes']):>10}  {printable(mirror['reason'])[:200]}"
        )


def runs(found: Sequence[Mapping[str, Any]]) -> None:
    """Print a mirror's history, the newest last."""
    for run in found:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(run["ended"]))
        print(
            f"{when}Z {run['state']:8} +{run['added']} ~{run['changed']} -{run['deleted']} "
            f"{human_bytes(run['fetched']):>10} "
            f"{human_seconds(run['ended'] - run['started']):>7}  {printable(run['reason'])[:200]}"
        )
