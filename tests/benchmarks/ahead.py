"""What a test waits for what is built ahead, in whole pytest runs, against runs in which nothing is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from stats import Section, Table, Target, paragraph, percentile, spread
from subjects import PATIENCE, rest

__all__ = ["measured", "prefetch", "table"]

SUITE = """
import json, time
import pytest

BURN = 0.005
figures = {key: [] for key in ("empty", "wait", "used", "down", "both")}

@pytest.fixture
def empty():
    yield

@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef):
    start = time.perf_counter_ns()
    result = yield
    if fixturedef.argname == "empty":
        figures["empty"].append((time.perf_counter_ns() - start) / 1e6)
    if fixturedef.argname == "FIXTURE":
        value, waited = result, time.perf_counter_ns() - start
        close = value.close

        def timed():
            begun = time.perf_counter_ns()
            close()
            down = time.perf_counter_ns() - begun
            for key, value in (("wait", waited), ("down", down), ("both", waited + down)):
                figures[key].append(value / 1e6)

        value.close = timed
    return result

def pytest_sessionfinish():
    with open("figures.json", "w") as file:
        json.dump(figures, file)
"""

TESTS = """
import time
import pytest
from conftest import BURN, figures

@pytest.mark.parametrize("number", range({count}))
def test_that_computes(empty, netns_pair, number):
    primary, replica = netns_pair
    start = time.perf_counter_ns()
    server = primary.listen((primary.ip, 8000))
    client = replica.connect((primary.ip, 8000), timeout=30)
    figures["used"].append((time.perf_counter_ns() - start) / 1e6)
    client.close()
    server.close()
    end = time.perf_counter() + BURN
    while time.perf_counter() < end:
        pass
"""
FIRST = 3
"""So many tests of a run do not count: the first starts the lab, and what follows it could not be asked for before."""


def prefetch(*, quick: bool, **_: object) -> Section:
    """Measure what a test waits for ``netns_pair`` when pairs are built ahead."""
    taken = measured("netns_pair", TESTS, quick=quick)
    ours = taken["built ahead"]
    section = Section("prefetch", "What a test waits for its pair, when pairs are built ahead")
    section.targets = [
        Target("waiting for the fixture: median", percentile(ours["wait"], 0.5), 0.1, "ms"),
        Target("waiting for the fixture: p90", percentile(ours["wait"], 0.9), 0.3, "ms"),
        Target("from request to first TCP connect: median", percentile(ours["used"], 0.5), 0.6, "ms"),
    ]
    section.parts += [
        paragraph(
            f"""Whole runs of pytest each way, in turns, {os.cpu_count()} cores. Each test takes `netns_pair`,
            connects once, and computes for 5 ms. Wait: how much longer the set-up of `netns_pair` takes than that of an
            empty fixture ({percentile(ours["empty"], 0.5) * 1000:.0f} us, pytest's own). To first connect: the wait,
            and in the test two sockets and a connect, without what pytest does between them. Teardown:
            `HostPair.close`, which the next pair's building may delay; so wait and teardown are also shown together."""
        ),
        table(taken, "to first connect"),
    ]
    return section


def measured(fixture: str, tests: str, *, quick: bool) -> dict[str, dict[str, list[float]]]:
    """Run a suite of tests with a fixture of ours built ahead and not, in turns; return milliseconds of each way.

    "wait" is beyond what an empty fixture takes, "used" the wait and what the tests noted, "both" wait and teardown.
    """
    count, runs = (60, 1) if quick else (200, 5)
    ways = {"built ahead": "2", "not": "0"}
    keys = ("empty", "wait", "used", "down", "both")
    taken: dict[str, dict[str, list[float]]] = {way: {key: [] for key in keys} for way in ways}
    patience = PATIENCE
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        Path(directory, "conftest.py").write_text(SUITE.replace("FIXTURE", fixture))
        Path(directory, "test_ahead.py").write_text(tests.format(count=count))
        for _ in range(runs):
            for way, number in ways.items():
                patience = rest(0.5, patience)
                for key, values in one_run(directory, number).items():
                    taken[way][key] += values[FIRST:]
    for figures in taken.values():
        floor = percentile(figures["empty"], 0.5)
        figures["wait"] = [value - floor for value in figures["wait"]]
        figures["both"] = [value - floor for value in figures["both"]]
        figures["used"] = [sum(both) for both in zip(figures["wait"], figures["used"], strict=False)]
    return taken


def table(taken: dict[str, dict[str, list[float]]], used: str) -> Table:
    """Return the table of both ways; ``used`` says what the tests have noted."""
    waits = ("wait ms: median", "p10", "p90")
    made = Table(("", "tests", *waits, used, "teardown", "p90", "wait + teardown", "p90"))
    for way, figures in taken.items():
        connect, down, both = (percentile(figures[key], 0.5) for key in ("used", "down", "both"))
        late = [percentile(figures[key], 0.9) for key in ("down", "both")]
        row = [way, len(figures["wait"]), *spread(figures["wait"]), connect, down, late[0], both, late[1]]
        made.rows.append(row)
    return made


def one_run(directory: str, number: str) -> dict[str, list[float]]:
    """Run the suite once; return its figures in milliseconds. Raises when a test fails."""
    command = [sys.executable, "-m", "pytest", "-q", "--poor-container-require", f"--poor-container-prefetch={number}"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("POOR_CONTAINER_")}
    subprocess.run(
        [*command, "-p", "no:cacheprovider", "-p", "no:randomly"],
        cwd=directory,
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    figures: dict[str, list[float]] = json.loads(Path(directory, "figures.json").read_text())
    return figures
