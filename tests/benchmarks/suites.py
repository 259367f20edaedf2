"""Whole pytest runs: many workers at once, the plugin switched off, and runs that are killed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

from stats import Section, Table, Target, paragraph, percentile, spread
from subjects import PATIENCE, REPOSITORY, rest

__all__ = ["nothing_left", "plugin_off", "xdist"]

PAIR_TESTS = """
import pytest

@pytest.mark.parametrize("number", range({count}))
def test_replica_reaches_primary(netns_pair, number):
    primary, replica = netns_pair
    with primary.listen((primary.ip, 8000)) as server, replica.connect((primary.ip, 8000)):
        assert server.accept()[1][0] == replica.ip
    assert primary.run(["hostname"], capture_output=True, text=True).stdout == primary.name + "\\n"
"""


def xdist(*, quick: bool, **_: object) -> Section:
    """Run a suite of pairs on eight xdist workers at once."""
    count, runs = (40, 1) if quick else (200, 5)
    section = Section("xdist", "Eight xdist workers at once")
    failures, seconds, tests = 0, [], 0
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        Path(directory, "test_pairs.py").write_text(PAIR_TESTS.format(count=count))
        report = Path(directory, "report.xml")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            "8",
            "--poor-container-require",
            "-p",
            "no:cacheprovider",
        ]
        for _ in range(runs):
            start = time.monotonic()
            done = subprocess.run(
                [*command, f"--junitxml={report}"], cwd=directory, capture_output=True, text=True, check=False
            )
            seconds.append(time.monotonic() - start)
            result = ET.parse(report).getroot().find("testsuite")
            counts = {
                key: int(result.get(key, "0")) if result is not None else count
                for key in ("tests", "failures", "errors", "skipped")
            }
            tests += counts["tests"]
            failures += max(
                counts["failures"] + counts["errors"] + counts["skipped"] + count - counts["tests"],
                int(done.returncode != 0),
            )
    section.targets.append(Target(f"failures of {runs * count} tests", failures, 0))
    section.parts.append(
        paragraph(
            f"""{runs} runs of {count} tests on 8 workers ({os.cpu_count()} cores), each with a pair of its own, a
            connect and a command: {tests} tests reported, {percentile(seconds, 0.5):.1f} s a run (median)."""
        )
    )
    return section


def plugin_off(*, quick: bool, **_: object) -> Section:
    """Measure what the plugin costs ``pytest --co`` where it is switched off, in paired runs."""
    rounds = 8 if quick else 60
    ways = ways_to_collect()
    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        Path(directory, "test_one.py").write_text("def test_one():\n    pass\n")
        Path(directory, f"{EMPTY}.py").write_text('"""Nothing."""\n')
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "POOR_CONTAINER"))
        }
        # Compiled once, as in daily use, but not into the checkout.
        environment |= {
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": f"{directory}/cache",
            "PYTHONHASHSEED": "0",
            "PYTHONPATH": directory,
        }
        patience = PATIENCE
        for number in range(-1, rounds):
            for way in random.sample(list(ways), len(ways)):
                patience = rest(0.02, patience)
                figures = timed(ways[way].argv, directory, environment | ways[way].environment)
                if number >= 0:
                    taken[way].append(figures)
        loaded = loaded_modules(directory)
    section = Section("plugin-off", "The plugin loaded but off: pytest --co")
    header = ("", "runs", "wall ms: median", "p10", "p90", "CPU ms: median", "more than", "wall ms", "CPU ms")
    table = Table(header)
    for way, figures in taken.items():
        peer = ways[way].peer
        gaps = [[one[kind] - other[kind] for one, other in zip(figures, taken[peer], strict=True)] for kind in (0, 1)]
        walls, cpus = zip(*figures, strict=True)
        more = [percentile(gap, 0.5) for gap in gaps]
        table.rows.append([way, rounds, *spread(walls), percentile(cpus, 0.5), peer, *more])
        if ways[way].is_ours:
            section.targets.append(Target(f"{way}, more than {peer}: wall", more[0], 5.0, "ms"))
    section.targets.append(Target("of scapy, pyroute2, asyncio in sys.modules", len(loaded), 0))
    section.parts += [
        paragraph(
            f"""One test in an empty directory, bytecode cached, all ways in turns in shuffled order. What one way takes
            more than another is the median of the differences within a turn; an empty plugin against itself shows how
            far that strays. The first four load no other plugin (`PYTEST_DISABLE_PLUGIN_AUTOLOAD`): nobody else has
            imported anything. They name theirs with `-p`, for which pytest reads the metadata of all that is installed;
            so the peer is a plugin that is an empty file. The last two have all plugins that are installed here, as
            in daily use, the peer with `-p no:poor-container`. Loaded by the plugin alone:
            {", ".join(loaded) or "none of scapy, pyroute2, asyncio"}."""
        ),
        table,
    ]
    return section


EMPTY = "empty_plugin"


class Way(NamedTuple):
    """A way to start pytest."""

    argv: list[str]
    environment: dict[str, str]
    peer: str
    """The way that it is compared with."""
    is_ours: bool = False


def ways_to_collect() -> dict[str, Way]:
    """Return the ways in which pytest is started, by their names in the table."""
    base = [sys.executable, "-m", "pytest", "--co", "-q", "-p", "no:cacheprovider"]
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    empty = [*base, "-p", EMPTY]
    return {
        "no plugin": Way(base, alone, "an empty plugin"),
        "an empty plugin": Way(empty, alone, "an empty plugin"),
        "an empty plugin, again": Way(empty, alone, "an empty plugin"),
        "ours, off": Way([*base, "-p", "pytest_poorcontainer.plugin"], alone, "an empty plugin", is_ours=True),
        "other plugins": Way([*base, "-p", "no:poor-container"], {}, "other plugins"),
        "other plugins and ours, off": Way(base, {}, "other plugins", is_ours=True),
    }


def timed(argv: list[str], directory: str, environment: dict[str, str]) -> tuple[float, float]:
    """Run a command; return wall and CPU time in milliseconds. Raises when it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(
        argv, cwd=directory, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = (time.perf_counter() - start) * 1e3
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, argv)
    return wall, (usage.ru_utime + usage.ru_stime) * 1e3


def loaded_modules(directory: str) -> list[str]:
    """Return which of the heavy modules a run with our plugin alone, switched off, has loaded."""
    code = """if True:
        import sys, pytest
        pytest.main(["--co", "-q", "-p", "no:cacheprovider", "-p", "pytest_poorcontainer.plugin"])
        heavy = [name for name in ("scapy", "pyroute2", "asyncio") if name in sys.modules]
        print(*heavy, sep=",", file=sys.stderr)
    """
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=directory, env=environment, capture_output=True, text=True, check=True
    )
    return [name for name in done.stderr.strip().split(",") if name]


def nothing_left(*, quick: bool, **_: object) -> Section:
    """Kill pytest, workers, controllers, labs and inits, and count what is left."""
    rounds = 40 if quick else 500
    script = REPOSITORY / "tests" / "system" / "nothing_left.py"
    done = subprocess.run(
        [sys.executable, script, "-N", str(rounds), "--json"], capture_output=True, text=True, check=False
    )
    if not done.stdout.startswith("{"):
        raise RuntimeError(f"nothing_left.py ended with status {done.returncode}: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    section = Section("nothing-left", "Nothing left: killed runs")
    total = result["total"]
    section.targets = [
        Target(f"{what} left, of {total['rounds']} rounds", total[what], 0)
        for what in ("processes", "namespaces", "mounts", "directories", "hung", "wrong")
    ]
    table = Table(
        (
            "how the run ended",
            "victim",
            "moment",
            "rounds",
            "processes",
            "namespaces",
            "mounts",
            "directories",
            "hung",
            "wrong end",
        )
    )
    for row in result["rows"]:
        table.rows.append(
            [
                row[key]
                for key in (
                    "variant",
                    "victim",
                    "moment",
                    "rounds",
                    "processes",
                    "namespaces",
                    "mounts",
                    "directories",
                    "hung",
                    "wrong",
                )
            ]
        )
    section.parts += [paragraph(result["text"]), table]
    return section
