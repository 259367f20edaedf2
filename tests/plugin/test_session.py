"""Begin and end of a session: whose lab it is, and what happens when another plugin breaks the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_poorcontainer import Network
from pytest_poorcontainer.lab import Lab


@pytest.mark.poor_container
def test_the_lab_ends_with_the_session(pytester, run):
    """When the last plugin is told that the session is over, the lab's process is gone."""
    pytester.makeconftest(
        """
        import os, pytest
        labs = set()

        def pytest_poor_container_host_ready(host):
            from pytest_poorcontainer.lab import Lab
            labs.add(Lab.current().pid)

        def alive():
            # A zombie is dead: this machine's init has not looked at it yet.
            return [pid for pid in labs if os.path.exists(f"/proc/{pid}/exe")]

        def pytest_runtest_teardown():
            print("LABS", len(labs), len(alive()))

        @pytest.hookimpl(trylast=True)
        def pytest_unconfigure():
            print("LABS AT THE END", len(labs), len(alive()))
        """,
    )
    pytester.makepyfile("def test_one(netns_pair): pass\ndef test_two(netns_pair): pass")
    result = run("--poor-container", "-s", subprocess=True)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*LABS 1 1", "*LABS 1 1", "LABS AT THE END 1 0"])


@pytest.mark.poor_container
def test_a_session_inside_another_leaves_the_outer_lab_alone(pytester, run):
    """A test that runs pytest in its own process keeps its hosts."""
    pytester.makepyfile("def test_plain(): pass")
    with Network() as network:
        pair = network.pair()
        lab = Lab.current()
        run("--poor-container").assert_outcomes(passed=1)
        assert Lab.current() is lab
        assert pair.a.run(["hostname"], capture_output=True).stdout == b"a\n"
    assert Path("/proc", str(lab.pid)).exists()


def test_a_plugin_that_breaks_the_start_is_the_only_one_named(pytester, run):
    """When pytest stops before we were configured, our own clean-up does not stumble over it."""
    pytester.makeconftest("import pytest\ndef pytest_configure(): raise pytest.UsageError('not today')")
    result = run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: not today"])
    assert "KeyError" not in result.stderr.str() + result.stdout.str()
