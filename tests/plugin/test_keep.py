"""``--poor-container-keep``, ``--poor-container-pause`` and ``--pdb``: hosts stay alive while a person looks."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from pytest_poorcontainer.container import kept

pytestmark = pytest.mark.poor_container

COMMAND = (sys.executable, "-m", "pytest", "-pno:cacheprovider", "-pno:randomly", "-pno:asyncio", "--poor-container")
TESTS = """
    import pytest

    @pytest.fixture(scope="module")
    def site(netns_factory):
        with netns_factory(hosts=["left", "right"]) as pair:
            yield pair

    @pytest.fixture
    def broken(netns_factory):
        with netns_factory(hosts=["early", "bird"]) as pair:
            raise RuntimeError("in the set-up")

    @pytest.fixture
    def late(netns_pair):
        yield
        raise RuntimeError("in the teardown")

    @pytest.mark.poor_container(hosts=["primary", "replica"])
    def test_call(netns_pair):
        netns_pair.a.run(["touch", "/run/mark"], check=True)
        assert False

    def test_setup(broken): pass

    @pytest.mark.poor_container(hosts=["x", "y"])
    def test_teardown(late): pass

    def test_site(site): assert False

    def test_passes(netns_pair): pass
"""


@pytest.fixture
def runtime(monkeypatch):
    """A runtime directory of the test's own; what is kept in it ends with the test."""
    # Short, because the path of a unix socket has at most 107 bytes (unix(7)), and pytester's are long.
    place = tempfile.mkdtemp(prefix="pc-")
    monkeypatch.setenv("POOR_CONTAINER_RUNTIME_DIR", f"{place}/run")
    yield Path(place, "run")
    kept.end(kept.kept())
    shutil.rmtree(place)


def names(result: pytest.RunResult) -> list[str]:
    """Return the names in the summary of what was kept."""
    lines = result.outlines[result.outlines.index(next(line for line in result.outlines if ": kept =" in line)) :]
    return [line.split()[2] for line in lines if line.startswith("poor-container enter ")]


def sockets(runtime: Path) -> list[Path]:
    """Return the sockets in the runtime directory."""
    return list(runtime.glob("*.sock"))


def alive(pid: str) -> bool:
    """Return whether the process is there and no zombie (proc_pid_stat(5)): those are the machine's init's matter."""
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("args", [(), ("-n2",)])
def test_failed_keeps_the_hosts_of_failed_tests(pytester, runtime, args):
    """After pytest they run, as they were at the failure, under the names that the summary shows; others are gone."""
    pytester.makepyfile(TESTS)
    result = pytester.run(*COMMAND, "--poor-container-keep=failed", *args)
    result.assert_outcomes(passed=2, failed=2, errors=2)
    found = {place.name: place for place in kept.kept()}
    assert sorted(names(result)) == sorted(found)
    hosts = sorted(place.host for place in found.values())
    assert hosts == sorted(["primary", "replica", "early", "bird", "x", "y", "left", "right"])
    primary = next(place for place in found.values() if place.host == "primary")
    assert primary.test.endswith("::test_call")
    assert kept.enter(primary, ["test", "-e", "/run/mark"]).wait() == 0
    result.stdout.fnmatch_lines(["*- poor-container: how to enter -*", f"poor-container enter {primary.name}"])
    kept.end(found.values())
    assert kept.kept() == []
    assert sockets(runtime) == []


def test_all_keeps_those_of_passed_tests_too(pytester, runtime):
    """``all`` keeps whatever was there."""
    pytester.makepyfile(TESTS)
    result = pytester.run(*COMMAND, "--poor-container-keep=all", "-k", "passes or call")
    result.assert_outcomes(passed=1, failed=1)
    assert sorted(place.host for place in kept.kept()) == ["a", "b", "primary", "replica"]


@pytest.mark.parametrize("args", [("--poor-container-keep=failed", "-k", "passes"), ()])
def test_without_a_reason_nothing_is_kept(pytester, runtime, args):
    """No failure, or no option: pytest leaves neither a host nor a socket."""
    pytester.makepyfile(TESTS)
    pytester.run(*COMMAND, *args)
    assert kept.kept() == []
    assert sockets(runtime) == []


def test_a_module_fixture_does_not_end_what_is_kept_and_a_test_does(pytester, runtime):
    """The end of a fixture leaves kept hosts alone; what a test closes itself is closed."""
    pytester.makepyfile(
        """
        import pytest

        def test_closes(netns_pair):
            netns_pair.close()
            assert netns_pair.closed
            assert False

        def test_drops(netns_factory):
            pair = netns_factory(hosts=["left", "right"])
            with pytest.raises(KeyError):
                with pair:
                    raise KeyError("wanted")
            assert False
        """,
    )
    result = pytester.run(*COMMAND, "--poor-container-keep=failed")
    result.assert_outcomes(failed=2)
    assert sorted(place.host for place in kept.kept()) == ["left", "right"]


def test_each_failed_attempt_keeps_its_own_pair(pytester, runtime):
    """Under pytest-rerunfailures the pairs of failed attempts live on, beside the fresh one of the last."""
    pytester.makepyfile(
        """
        tries = []

        def test_third_time_lucky(netns_pair):
            netns_pair.a.run(["touch", f"/run/try-{len(tries)}"], check=True)
            tries.append(1)
            assert len(tries) == 3
        """,
    )
    result = pytester.run(*COMMAND, "--poor-container-keep=failed", "--reruns=2")
    assert result.parseoutcomes() == {"passed": 1, "rerun": 2}
    found = [place for place in kept.kept() if place.host == "a"]
    assert len(found) == 2
    marks = [kept.enter(place, ["ls", "/run"], stdout=subprocess.PIPE, text=True).communicate()[0] for place in found]
    assert sorted(re.findall(r"try-\d", " ".join(marks))) == ["try-0", "try-1"]


def test_a_run_in_which_all_fails_keeps_a_bounded_number(pytester, runtime):
    """Beyond 20 pairs the hosts are closed as ever, and the summary says how many."""
    pytester.makepyfile("import pytest\n@pytest.mark.parametrize('n', range(22))\ndef test_f(netns_pair, n): assert 0")
    result = pytester.run(*COMMAND, "--poor-container-keep=failed", "-q")
    assert len(kept.kept()) == 40
    assert len([line for line in result.outlines if line.startswith("poor-container enter")]) == 2 * 40
    result.stdout.fnmatch_lines(
        [
            "not kept: 20 pairs and containers are kept already",
            "2 more were closed: 20 pairs and containers of a process *",
        ]
    )


def test_a_killed_pytest_keeps_nothing(pytester, runtime):
    """Hosts live on when pytest says so at its end, not when somebody kills it before."""
    pytester.makepyfile(
        """
        import os, signal

        def test_fails(netns_pair):
            with open("pids", "w") as file:
                print(*(host.pid for host in netns_pair), file=file)
            assert False

        def test_dies(netns_pair):
            os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    pytester.run(*COMMAND, "--poor-container-keep=failed")
    pids = (pytester.path / "pids").read_text().split()
    until = time.monotonic() + 2
    while (left := [pid for pid in pids if alive(pid)]) and time.monotonic() < until:
        time.sleep(0.005)
    assert (len(pids), left) == (2, [])
    assert kept.kept() == []


def test_no_place_to_publish_is_told(pytester, monkeypatch):
    """When nobody could find the hosts they are not kept; report and summary say why, and the failure is reported."""
    (pytester.path / "file").write_text("in the way")
    monkeypatch.setenv("POOR_CONTAINER_RUNTIME_DIR", str(pytester.path / "file"))
    pytester.makepyfile("def test_fails(netns_pair): assert False, 'the reason'")
    result = pytester.run(*COMMAND, "--poor-container-keep=failed")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*the reason*", "not kept: *Error: *", "*= poor-container: trouble =*", "nothing could *"]
    )


@pytest.mark.parametrize("stop", ["assert False", "breakpoint()"])
def test_the_debugger_names_a_way_into_each_host(pytester, runtime, stop):
    """Before the prompt there is one command per host, which works while the prompt is there, and not afterwards."""
    pytester.makepyfile(f"def test_stops(netns_pair):\n    {stop}\n    pass")
    typed = (
        b"import subprocess, sys\n"
        b"from pytest_poorcontainer.container import kept\n"
        b"print('NOW', sorted(place.host for place in kept.kept()))\n"
        b"c\n"
    )
    result = pytester.run(*COMMAND, "--pdb", stdin=typed)
    ways = [line for line in result.outlines if re.fullmatch(r"poor-container enter [ab]-\d+", line)]
    assert len(ways) == 2
    result.stdout.fnmatch_lines(["*NOW ?'a', 'b'?"])
    assert kept.kept() == []
    assert sockets(runtime) == []


def test_the_debugger_after_a_set_up_that_failed(pytester, runtime):
    """Hosts whose own fixture failed live as long as the prompt, although their block has ended."""
    pytester.makepyfile(TESTS)
    typed = b"from pytest_poorcontainer.container import kept\nprint('NOW', len(kept.kept()))\nc\n"
    result = pytester.run(*COMMAND, "--pdb", "-k", "test_setup", stdin=typed)
    result.stdout.fnmatch_lines(["poor-container enter early-*", "poor-container enter bird-*", "*NOW 2"])
    assert kept.kept() == []


def test_the_debugger_after_a_teardown_that_failed(pytester, runtime):
    """The hosts live until that prompt is left, although their fixtures are through."""
    pytester.makepyfile(TESTS)
    typed = b"from pytest_poorcontainer.container import kept\nprint('NOW', len(kept.kept()))\nc\n"
    result = pytester.run(*COMMAND, "--pdb", "-k", "test_teardown", stdin=typed)
    result.stdout.fnmatch_lines(["poor-container enter x-*", "poor-container enter y-*", "*NOW 2"])
    assert kept.kept() == []


def test_an_interrupted_run_keeps_what_had_failed(pytester, runtime):
    """After Ctrl-C, in the middle of another test, the hosts of failed tests live on and no others do."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture(scope="module")
        def site(netns_factory):
            with netns_factory(hosts=["left", "right"]) as pair:
                yield pair

        def test_fails(site, netns_pair): assert False

        def test_interrupted(netns_pair, site): raise KeyboardInterrupt
        """,
    )
    result = pytester.run(*COMMAND, "--poor-container-keep=failed")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert sorted(place.host for place in kept.kept()) == ["a", "b", "left", "right"]


def at_a_terminal(command, until, answer, timeout=30.0):
    """Run a command at a terminal of its own; call ``answer`` when ``until`` is read, type what it returns.

    Returns all that was written on the terminal.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(command[0], command)
    said, asked, deadline = b"", 0, time.monotonic() + timeout
    try:
        while time.monotonic() < deadline:
            try:
                piece = os.read(terminal, 65536)
            except OSError:  # EIO: the other end was closed, and Linux says so in this way
                break
            if not piece:
                break
            said += piece
            if said.count(until) > asked:
                asked += 1
                os.write(terminal, answer())
    finally:
        os.close(terminal)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGHUP)
        os.waitpid(pid, 0)
    return said.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("capture", ["fd", "sys", "no"])
def test_pause_waits_for_enter_with_the_hosts_alive(pytester, runtime, capture):
    """After each failure, in set-up or call, the hosts can be entered until somebody presses Enter; then they end."""
    pytester.makepyfile(TESTS)
    seen = []

    def answer():
        seen.append(sorted(place.host for place in kept.kept()))
        return b"\n"

    args = ("--poor-container-pause", f"--capture={capture}", "-k", "call or test_setup")
    said = at_a_terminal([*COMMAND, *args], b"Enter goes on.", answer)
    assert seen == [["primary", "replica"], ["bird", "early"]]
    assert "::test_call has failed (call): AssertionError" in said.replace("assert False", "AssertionError")
    assert "1 failed" in said
    assert "1 error" in said
    assert kept.kept() == []
    assert sockets(runtime) == []


def test_pause_is_no_time_of_the_test(pytester, runtime):
    """pytest-timeout's clock does not run while somebody looks."""
    pytester.makepyfile(TESTS)

    def answer():
        time.sleep(1.5)
        return b"\n"

    args = ("--poor-container-pause", "--timeout=1", "-k", "call")
    said = at_a_terminal([*COMMAND, *args], b"Enter goes on.", answer)
    assert "1 failed" in said
    assert "Timeout" not in said


@pytest.mark.parametrize(("args", "why"), [((), "there is no terminal (/dev/tty: *"), (("-n1",), "a worker of *")])
def test_pause_without_a_terminal_goes_on(pytester, args, why):
    """Where nobody can press Enter the run does not wait; the report of the failure says so."""
    pytester.makepyfile("def test_fails(netns_pair): assert False")
    # A session of its own has no controlling terminal (setsid(2)).
    result = pytester.run("setsid", "--wait", *COMMAND, "--poor-container-pause", *args)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*- poor-container: pause -*", f"did not wait: {why}"])
