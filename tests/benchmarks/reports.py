"""What the report of a failed test costs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from stats import Section, Table, Target, paragraph, spread
from subjects import worker_environment

__all__ = ["measured", "reports"]

LINES = 20_000
LIMIT = 100.0  # ms
CONFTEST = """
import json, time
import pytest

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    start = time.perf_counter()
    report = yield
    if call.when == "call":
        taken = time.perf_counter() - start
        sections = [title for title, _ in report.sections if title.startswith("poor-container: ")]
        with open("figures", "a") as file:
            print(json.dumps([item.name.partition("[")[0], taken * 1000, len(sections)]), file=file)
    return report
"""
TESTS = """
import pytest

SAYS = ["sh", "-c", "seq {lines}; exec sleep 1000"]

@pytest.mark.parametrize("number", range({rounds}))
def test_plain(number):
    assert number < 0

@pytest.fixture
def sockets():
    opened = []
    yield opened  # open at the failure, unlike those of a with statement in the test
    for each in opened:
        each.close()

@pytest.mark.parametrize("number", range({rounds}))
def test_hosts(netns_pair, sockets, number):
    for host in netns_pair:
        sockets.append(host.listen((host.ip, 80)))
        sockets.extend(other.connect((host.ip, 80)) for other in netns_pair)
        for service in [host.start(SAYS, name=name) for name in ("one", "two")]:
            service.wait_log("\\n{lines}\\n")
    assert number < 0
"""


def reports(*, quick: bool, **_: object) -> Section:
    """Measure how long pytest waits for the report of a failed test with 2 hosts and 4 services."""
    rounds = 10 if quick else 100
    section = Section("reports", "The report of a failed test")
    table = Table(("a failed test", "rounds", "report ms", "p10", "p90", "sections of ours"))
    for how, args in (("", ()), (", files too", ("--poor-container-report=out",))):
        for name, figures in measured(rounds, args).items():
            if how and name == "test_plain":
                continue
            label = "without hosts" if name == "test_plain" else f"2 hosts, 4 services, 10 sockets{how}"
            row = spread([taken for taken, _ in figures])
            table.rows.append([label, len(figures), *row, max((count for _, count in figures), default=0)])
            if name == "test_hosts":
                missing = sum(count < 8 for _, count in figures) + rounds - len(figures)
                section.targets += [
                    Target(f"{label}: p90", row[2], LIMIT, "ms"),
                    Target(f"{label}: reports in which a section is missing", missing, 0),
                ]
    section.parts += [
        paragraph(
            f"""From the end of the test's call until its report is made, in a pytest of its own, the traceback's
            formatting included (the first line of the table is that alone). Each service has said {LINES} lines. The
            files are hosts, links, services, sockets and four whole logs."""
        ),
        table,
    ]
    return section


def measured(
    rounds: int, args: tuple[str, ...], tests: str = TESTS, bring: Path | None = None
) -> dict[str, list[tuple[float, int]]]:
    """Run the tests; return (milliseconds, our sections) of each by its name. ``bring`` is a file beside them."""
    found: dict[str, list[tuple[float, int]]] = {"test_plain": [], "test_hosts": []}
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        Path(directory, "conftest.py").write_text(CONFTEST)
        Path(directory, "test_it.py").write_text(tests.format(lines=LINES, rounds=rounds))
        if bring is not None:
            shutil.copy(bring, directory)
        plugins = ("-pno:cacheprovider", "-pno:randomly", "-pno:asyncio")
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "--tb=short", "--poor-container-require", *plugins, *args],
            cwd=directory,
            env=worker_environment(),
            capture_output=True,
            check=False,
        )
        for line in Path(directory, "figures").read_text().splitlines():
            name, taken, sections = json.loads(line)
            found[name].append((taken, sections))
    return found
