"""``--poor-container-report=DIR``: what is written, where, and what happens when it cannot be."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pytest_poorcontainer.lab import Lab

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.poor_container

FAILS = """
    import pytest

    @pytest.mark.parametrize("what", ["../../x y", "plain"])
    def test_fails(netns_pair, what):
        netns_pair.link.cut()
        assert False, "the reason"

    def test_passes(netns_pair): pass
"""


def tree(top: Path) -> list[str]:
    """Return the files below ``top``, by their paths relative to it."""
    return sorted(str(path.relative_to(top)) for path in top.rglob("*") if path.is_file())


@pytest.mark.parametrize("args", [(), ("-n2",)])
def test_a_failed_test_leaves_files(pytester, run, args):
    """Below DIR each failed test has a directory of its own with a safe name; passed ones have none."""
    pytester.makepyfile(test_it=FAILS)
    result = run("--poor-container", "--poor-container-report=out", *args)
    result.assert_outcomes(passed=1, failed=2)
    files = tree(pytester.path / "out")
    tests = sorted({name.split("/")[0] for name in files} - {"index.html"})
    assert len(tests) == 2
    assert all(name.startswith("test_it.py.test_fails_") for name in tests), tests
    wanted = ["failure.txt", "hosts.txt", "links.txt", "test.txt"]
    assert set(wanted) <= {name.split("/", 2)[2] for name in files if "/" in name}
    assert {name.split("/")[1] for name in files if "/" in name} == {"1-call"}
    place = pytester.path / "out" / tests[0] / "1-call"
    assert (place / "links.txt").read_text() == "a -- b: cut\n"
    assert "the reason" in (place / "failure.txt").read_text()
    assert "test_it.py::test_fails[" in (place / "test.txt").read_text()
    result.stdout.fnmatch_lines(
        ["*- poor-container: files -*", str(pytester.path / "out" / "*"), "poor-container: 2 reports written to *"]
    )


def test_with_keep_all_passed_tests_have_files_too(pytester, run):
    """``keep=all`` asks for everything, so the files of passed tests are written as well."""
    pytester.makepyfile(test_it=FAILS)
    assert Lab.current().alive()
    # The lab of this process is not the inner session's: nothing is kept, and the reports of the failed tests say so.
    result = run("--poor-container", "--poor-container-report=out", "--poor-container-keep=all")
    result.assert_outcomes(passed=1, failed=2)
    assert (pytester.path / "out" / "test_it.py.test_passes" / "1-call" / "hosts.txt").exists()
    result.stdout.fnmatch_lines(["not kept: this session runs inside a process that has a lab already*"])


def test_each_attempt_has_its_directory(pytester, run):
    """Attempts of pytest-rerunfailures do not overwrite each other's files."""
    pytester.makepyfile(test_it="def test_fails(netns_pair): assert False")
    run("--poor-container", "--poor-container-report=out", "--reruns=1", plugins=("rerunfailures",))
    place = pytester.path / "out" / "test_it.py.test_fails"
    assert sorted(path.name for path in place.iterdir()) == ["1-call", "2-call"]
    first, second = ((place / name / "hosts.txt").read_text() for name in ("1-call", "2-call"))
    assert first != second, "the attempts had fresh hosts, with addresses of their own"


def test_a_directory_that_cannot_be_written_does_not_hide_the_failure(pytester, run):
    """The section says what failed and what to do; the test's own failure is reported as ever."""
    pytester.makepyfile(test_it="def test_fails(netns_pair): assert False, 'the reason'")
    (pytester.path / "file").write_text("in the way")
    result = run("--poor-container", "--poor-container-report=file/out")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*the reason*", "the files of this report could not be written: Not a directory (*file/out*); name another *"]
    )
    result.stdout.no_fnmatch_line("*written to*")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission_does_not_hide_the_failure(pytester, run):
    """A directory of somebody else's is an answer in the report."""
    pytester.makepyfile(test_it="def test_fails(netns_pair): assert False, 'the reason'")
    (pytester.path / "out").mkdir(mode=0o500)
    result = run("--poor-container", "--poor-container-report=out")
    result.stdout.fnmatch_lines(["*the reason*", "*could not be written: Permission denied (*"])


def test_the_ini_key_is_relative_to_its_file(pytester, run):
    """A directory in the ini file lies beside it, wherever pytest was called."""
    pytester.makeini("[pytest]\npoor_container = on\npoor_container_report = out\n")
    below = pytester.mkdir("below")
    (below / "test_it.py").write_text("def test_fails(netns_pair): assert False")
    os.chdir(below)
    run("test_it.py").assert_outcomes(failed=1)
    assert (pytester.path / "out").is_dir()
    assert not (below / "out").exists()
