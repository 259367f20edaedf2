"""host.call() in whole pytest runs: coverage, the ways in which pytest loads test modules, xdist, time limits."""

import os
import sys

import coverage
import pytest

from pytest_poorcontainer import machine

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)
BASE = ("--poor-container-require", "-p", "no:cacheprovider", "-p", "no:randomly", "-W", "error")
MEASURED = """
def inside(n):
    if n > 1:
        return "big"
    return "small"


def never():
    return 1
"""
MEASURING = """
import measured


def by_value(n):
    if n == 3:
        return "three"
    return "other"


def test_big(netns_pair):
    assert netns_pair.a.call(measured.inside, 5) == "big"
    assert netns_pair.a.call(by_value, 3) == "three"


def test_small(netns_pair):
    assert netns_pair.b.call(measured.inside, 0) == "small"
    assert netns_pair.b.call(measured.inside, 0) == "small"
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Return a function that runs pytest on the files in pytester's directory."""
    for name in list(os.environ):
        if name.startswith(("COV_", "COVERAGE_", "PYTEST_")):
            monkeypatch.delenv(name)  # of the run that we are in
    monkeypatch.delenv("POOR_CONTAINER", raising=False)
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    return lambda *options: pytester.runpytest_subprocess(*BASE, *options, timeout=100)


def lines(pytester):
    """Return what coverage has recorded: the executed lines of both files."""
    data = coverage.CoverageData(str(pytester.path / ".coverage"))
    data.read()
    return {name: sorted(data.lines(str(pytester.path / name)) or ()) for name in ("measured.py", "test_measuring.py")}


@pytest.mark.parametrize("options", [(), ("--cov-branch",), ("-n", "2"), ("--cov-context=test",)], ids="-".join)
def test_lines_of_calls_are_covered(pytester, run, options):
    """pytest-cov reports the lines that ran in a call, of functions sent by name and by value."""
    pytester.makepyfile(measured=MEASURED, test_measuring=MEASURING)
    result = run("--cov=.", *options)
    result.assert_outcomes(passed=2)
    found = lines(pytester)
    assert found["measured.py"] == [1, 2, 3, 4, 7]
    assert {5, 6} <= set(found["test_measuring.py"])
    assert 7 not in found["test_measuring.py"]
    assert not [entry.name for entry in pytester.path.iterdir() if entry.name.startswith(".coverage.")]


def test_covered_lines_belong_to_their_test(pytester, run):
    """With --cov-context=test a line that ran in a call is credited to the test that called."""
    pytester.makepyfile(measured=MEASURED, test_measuring=MEASURING)
    run("--cov=.", "--cov-context=test").assert_outcomes(passed=2)
    data = coverage.CoverageData(str(pytester.path / ".coverage"))
    data.read()
    contexts = data.contexts_by_lineno(str(pytester.path / "measured.py"))
    assert contexts[3] == ["test_measuring.py::test_big|run"]
    assert contexts[4] == ["test_measuring.py::test_small|run"]


def test_coverage_under_the_coverage_command(pytester, run):
    """What ``coverage run -m pytest`` measures has the lines of calls too, in its one file."""
    pytester.makepyfile(measured=MEASURED, test_measuring=MEASURING)
    command = [
        sys.executable,
        "-m",
        "coverage",
        "run",
        "--source=.",
        "-m",
        "pytest",
        *BASE,
        "-p",
        "no:cov",
    ]
    assert pytester.run(*command, timeout=100).ret == 0
    assert {3, 4} <= set(lines(pytester)["measured.py"])


@pytest.mark.parametrize("mode", ["prepend", "append", "importlib"])
def test_modules_of_every_import_mode(pytester, run, mode):
    """Functions and classes of test modules, conftest files and helpers can be called however pytest imports them."""
    for name, number in (("one", 1), ("two", 2)):
        directory = pytester.mkpydir(name)
        (directory / "helper.py").write_text(
            f"NUMBER = {number}\nclass Oops(Exception): ...\ndef answer(): return NUMBER\n"
        )
        (directory / "conftest.py").write_text(f"def of_conftest(): return {number}0\n")
        (directory / "test_it.py").write_text(
            f"""
import pytest
from . import conftest
from .helper import Oops, answer

NUMBER = {number}00

class Mine(Oops):
    pass

def raises():
    raise Mine(answer())

def test_all(netns_pair):
    a = netns_pair.a
    assert a.call(answer) == {number}
    assert a.call(conftest.of_conftest) == {number}0
    assert a.call(lambda: NUMBER + answer()) == {number}0{number}
    with pytest.raises(Mine) as raised:
        a.call(raises)
    assert type(raised.value) is Mine and raised.value.args == ({number},)
    oops = a.call(lambda: Oops("made there"))
    assert type(oops) is Oops
"""
        )
    result = run(f"--import-mode={mode}")
    result.assert_outcomes(passed=2)


def test_helpers_of_the_same_name_are_not_mixed_up(pytester, run):
    """A helper module is never taken for another of its name that happens to come first on the path inside."""
    for name in ("one", "two"):
        directory = pytester.mkdir(name)
        (directory / "common.py").write_text(f"def where(): return {name!r}\n")
        (directory / f"test_{name}.py").write_text(
            """
import common

def test_where(netns_pair):
    assert netns_pair.a.call(common.where) == common.where() == "one"
"""
        )
    run().assert_outcomes(passed=2)


@pytest.mark.parametrize("capture", ["fd", "sys", "no", "tee-sys"])
def test_output_of_a_failed_test_is_shown_under_every_capture(pytester, run, capture):
    """What a call printed stands in pytest's output, whatever pytest's way of capturing."""
    pytester.makepyfile(
        """
import os

def talk():
    print("printed inside")
    os.system("echo from a program")

def test_it(netns_pair):
    netns_pair.a.call(talk)
    assert False
"""
    )
    result = run(f"--capture={capture}")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*printed inside*"])
    result.stdout.fnmatch_lines(["*from a program*"])


def test_the_report_of_a_failed_call(pytester, run):
    """The failure shows the traceback of the container, and the test's own line."""
    pytester.makepyfile(
        """
def boom():
    raise LookupError("not here")

def test_it(netns_pair):
    netns_pair.a.call(boom)
"""
    )
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*In container a:*",
            "*test_the_report*in boom*",
            "*raise LookupError*",
            ">*netns_pair.a.call(boom)",
            "*LookupError: not here",
        ]
    )


@pytest.mark.parametrize("method", ["signal", "thread"])
def test_a_time_limit_ends_the_call(pytester, run, method):
    """pytest-timeout strikes a test that waits for a call; with its signal method the next test goes on."""
    pytester.makepyfile(
        """
import time
import pytest

@pytest.mark.timeout(1)
def test_hangs(netns_pair):
    netns_pair.a.call(time.sleep, 60)

def test_next(netns_pair):
    assert netns_pair.a.call(len, "abc") == 3
"""
    )
    result = run(f"--timeout-method={method}")
    if method == "signal":
        result.assert_outcomes(passed=1, failed=1)
        result.stdout.fnmatch_lines(["*Timeout*"])
    else:
        assert result.ret == 1
        assert "Timeout" in result.stdout.str() + result.stderr.str()


def test_skips_and_failures_inside_are_the_tests(pytester, run):
    """pytest.skip() and pytest.fail() in a called function skip and fail the test."""
    pytester.makepyfile(
        """
import pytest

def test_skip(netns_pair):
    netns_pair.a.call(lambda: pytest.skip("not today"))

def test_fail(netns_pair):
    netns_pair.a.call(lambda: pytest.fail("not at all"))
"""
    )
    result = run("-rs")
    result.assert_outcomes(skipped=1, failed=1)
    result.stdout.fnmatch_lines(["*not today*"])
