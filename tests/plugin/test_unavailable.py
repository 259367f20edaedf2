"""A machine that cannot do what a test needs: a skip with reason and remedy, or a failure under ``require``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from pytest_poorcontainer import machine

pytestmark = pytest.mark.poor_container

NO_NETNS = "netns_pair does not work here: *cannot make a network namespace*user.max_[*]_namespaces*"
TESTS = """
    import pytest

    def test_plain(): pass

    def test_pair(netns_pair): raise RuntimeError("ran")

    def test_factory(netns_factory):
        netns_factory()
        raise RuntimeError("ran")

    @pytest.fixture(scope="module")
    def site(netns_factory):
        return netns_factory()

    def test_site(site): raise RuntimeError("ran")

    @pytest.mark.poor_container(level="namespaces")
    def test_level(): raise RuntimeError("ran")
"""


@pytest.fixture
def run_without_networks(pytester):
    """Run pytest where not a single network namespace may be made.

    A user namespace of its own has limits of its own (user_namespaces(7), /proc/sys/user).
    """
    if not machine.features()["userns"].works:
        pytest.skip("needs a user namespace to lower the limit in")
    command = shlex.join([sys.executable, "-m", "pytest", "-pno:cacheprovider", "-pno:randomly", "-pno:asyncio"])
    lowered = f'echo 0 >/proc/sys/user/max_net_namespaces && exec {command} "$@"'

    def run(*args):
        return pytester.run("unshare", "--user", "--map-root-user", "sh", "-c", lowered, "sh", *args)

    return run


def test_on_skips_with_reason_and_remedy(pytester, run_without_networks):
    """Under ``on`` the skip says what does not work here and why; nothing of it is counted as "off"."""
    pytester.makepyfile(TESTS)
    result = run_without_networks("--poor-container", "-rs")
    result.assert_outcomes(passed=1, skipped=4)
    result.stdout.fnmatch_lines(["SKIPPED*" + NO_NETNS])
    result.stdout.fnmatch_lines(["SKIPPED*level namespaces does not work here: *cannot make a network namespace*"])
    result.stdout.no_fnmatch_line("*because it is off*")


@pytest.mark.parametrize("args", [(), ("-n1",)])
def test_require_fails_instead(pytester, run_without_networks, args):
    """Under ``require`` the same tests fail with the same words, and the run is not green."""
    pytester.makepyfile(TESTS)
    result = run_without_networks("--poor-container-require", *args)
    result.assert_outcomes(passed=1, failed=1, errors=3)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["poor-container is required (*), but " + NO_NETNS],
    )


@pytest.mark.parametrize(("flag", "outcome"), [("--poor-container", "skipped"), ("--poor-container-require", "errors")])
def test_a_hook_may_find_something_missing(pytester, run, flag, outcome):
    """A hook that asks for one more feature decides for the test as a fixture does."""
    pytester.makeconftest(
        """
        from pytest_poorcontainer.errors import Unavailable

        def pytest_poor_container_host_ready(host):
            raise Unavailable("turbo", "no turbo in this machine", "buy one")
        """,
    )
    pytester.makepyfile("def test_pair(netns_pair): raise RuntimeError('ran')")
    result = run(flag, "-rA")
    result.assert_outcomes(**{outcome: 1})
    result.stdout.fnmatch_lines(["*turbo does not work here: no turbo in this machine; buy one"])


@pytest.mark.parametrize("flag", ["--poor-container", "--poor-container-require"])
def test_a_failure_that_the_machine_does_not_explain_is_no_skip(pytester, run, monkeypatch, flag):
    """A step that fails although the machine can do it is an error with the step's name, whatever the mode."""
    monkeypatch.setenv("POOR_CONTAINER_FAIL_STEP", "3")
    pytester.makepyfile("def test_pair(netns_pair): raise RuntimeError('ran')")
    result = run(flag, subprocess=True)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["E *LabError: cannot *EIO*"])


def test_a_missing_program_says_how_to_get_it(pytester, run, monkeypatch):
    """An installation without the compiled program is an error that says so, not a skip."""
    empty = Path(pytester.mkdir("empty"))
    monkeypatch.setenv("POOR_CONTAINER_NATIVE", str(empty))
    pytester.makepyfile("def test_pair(netns_pair): raise RuntimeError('ran')")
    result = run("--poor-container", subprocess=True)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"E *cannot find the compiled program pclab in {empty}*"])
