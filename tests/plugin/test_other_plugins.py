"""With other plugins and pytest's own modes: every one of them with real hosts."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.poor_container

CONNECT = """
    import pytest

    def use(pair):
        with pair.a.listen((pair.a.ip, 80)) as server, pair.b.connect((pair.a.name, 80)):
            with server.accept()[0]:
                pass

    @pytest.fixture(scope="module")
    def site(netns_factory):
        with netns_factory(hosts=["left", "right"]) as pair:
            yield pair

    @pytest.mark.parametrize("n", range(4))
    def test_pair(netns_pair, n): use(netns_pair)

    def test_site(site): use(site)
"""


@pytest.mark.parametrize("dist", ["load", "worksteal", "loadfile"])
def test_xdist(pytester, run, dist):
    """Each worker has a lab of its own, however the tests are dealt out."""
    pytester.makepyfile(CONNECT)
    run("--poor-container", "-n2", f"--dist={dist}").assert_outcomes(passed=5)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_randomly(pytester, run, seed):
    """Nothing depends on the order of the tests."""
    pytester.makepyfile(CONNECT)
    run("--poor-container", f"--randomly-seed={seed}", plugins=("randomly",)).assert_outcomes(passed=5)


def test_asyncio(pytester, run):
    """A coroutine test may use the hosts' sockets with its own event loop."""
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\nasyncio_mode = auto\n")
    pytester.makepyfile(
        """
        import asyncio

        async def test_streams(netns_pair):
            async def answer(reader, writer):
                writer.write(await reader.readline())
                writer.close()
                await writer.wait_closed()

            listening = netns_pair.a.listen((netns_pair.a.ip, 80))
            async with await asyncio.start_server(answer, sock=listening):
                reader, writer = await asyncio.open_connection(sock=netns_pair.b.connect((netns_pair.a.ip, 80)))
                writer.write(b"hello\\n")
                assert await reader.readline() == b"hello\\n"
                writer.close()
                await writer.wait_closed()
            assert netns_pair.a.run(["true"]).returncode == 0
        """,
    )
    run("--poor-container", "-Werror", plugins=("asyncio",)).assert_outcomes(passed=1)


def test_rerunfailures(pytester, run):
    """Every attempt gets a pair of its own."""
    pytester.makepyfile(
        """
        pids = set()

        def test_third_time_lucky(netns_pair):
            pids.add(netns_pair.a.pid)
            assert len(pids) == 3
        """,
    )
    result = run("--poor-container", "--reruns=2", plugins=("rerunfailures",))
    assert result.parseoutcomes() == {"passed": 1, "rerun": 2}


HANGS = """
    import time

    def test_hangs(netns_pair):
        with open("pids", "w") as file:
            file.write(f"{netns_pair.a.pid} {netns_pair.b.pid}")
        netns_pair.a.run(["sleep", "1000"])

    def test_next(netns_pair): pass
"""


def test_timeout_by_signal(pytester, run):
    """A test that waits for a command of a host is interrupted, and the next one runs."""
    pytester.makepyfile(HANGS)
    result = run("--poor-container", "--timeout=1", "--timeout-method=signal", plugins=("timeout",))
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*Timeout*", "*- poor-container: hosts -*"])


def test_timeout_by_thread(pytester, run):
    """That method ends pytest on the spot; the hosts go with it, and under it tests pass like anywhere."""
    pytester.makepyfile(CONNECT)
    run("--poor-container", "--timeout=60", "--timeout-method=thread", plugins=("timeout",)).assert_outcomes(passed=5)
    pytester.makepyfile(HANGS)
    args = ("--poor-container", "--timeout=1", "--timeout-method=thread", "-k", "hangs")
    result = run(*args, plugins=("timeout",), subprocess=True)
    assert result.ret != pytest.ExitCode.OK
    _gone(pytester)


def _gone(pytester: pytest.Pytester) -> None:
    """Check that the processes named in the file ``pids`` end within 0.5 s."""
    pids = (pytester.path / "pids").read_text().split()
    until = time.monotonic() + 0.5
    while (left := [pid for pid in pids if Path("/proc", pid).exists()]) and time.monotonic() < until:
        time.sleep(0.005)
    assert len(pids) == 2
    assert not left


@pytest.mark.parametrize("arg", ["-Werror", "-ofaulthandler_timeout=30", "--strict-markers", "--strict-config"])
def test_strictness(pytester, run, arg):
    """No warning comes from us, no ini key or marker is unknown, and a second thread in pytest is no matter."""
    pytester.makeini("[pytest]\npoor_container = on\n")
    marked = "import pytest\n@pytest.mark.poor_container(hosts=['x', 'y'])\ndef test_m(netns_pair): pass"
    pytester.makepyfile(CONNECT, test_marked=marked)
    run(arg, subprocess=True).assert_outcomes(passed=6)


def test_no_warning_comes_from_a_report(pytester, run):
    """With warnings as errors a failure is that failure, whatever was asked for beside it."""
    pytester.makepyfile(
        """
        def test_fails(netns_pair):
            netns_pair.a.start(["sleep", "100"])
            assert False, "the reason"
        """,
    )
    args = ("--poor-container-report=out", "--poor-container-durations=0", "-olog_cli=true")
    result = run("--poor-container", "-Werror", *args, subprocess=True)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*the reason*", "*- poor-container: services -*", "*1 failed in *"])
    result.stdout.no_fnmatch_line("*Warning*")


def test_strict_mode(pytester, run):
    """The ``strict`` of pytest 9 finds nothing to complain about."""
    if int(pytest.__version__.split(".")[0]) < 9:
        pytest.skip("the ini key came with pytest 9")
    pytester.makeini("[pytest]\nstrict = true\npoor_container = on\n")
    pytester.makepyfile(CONNECT)
    run().assert_outcomes(passed=5)


def test_without_the_plugin(pytester, run):
    """With ``-p no:poor-container`` our fixtures and flags are unknown, and the rest works."""
    pytester.makepyfile("def test_plain(): pass\ndef test_pair(netns_pair): pass")
    result = run("-pno:poor-container")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*fixture 'netns_pair' not found"])
    assert run("-pno:poor-container", "--poor-container").ret == pytest.ExitCode.USAGE_ERROR


def test_pdb_stops_while_the_hosts_live(pytester):
    """At the debugger's prompt after a failure the hosts still answer; they end when it is left."""
    pytester.makepyfile(
        """
        def test_fails(netns_pair):
            with open("pids", "w") as file:
                file.write(f"{netns_pair.a.pid} {netns_pair.b.pid}")
            assert False
        """,
    )
    typed = b"print('hosts', netns_pair.b.run(['hostname'], capture_output=True).stdout)\nq\n"
    command = (sys.executable, "-m", "pytest", "--poor-container", "--pdb", "-pno:cacheprovider", "-pno:asyncio")
    result = pytester.run(*command, stdin=typed)
    result.stdout.fnmatch_lines(["*hosts b'b\\n'"])
    _gone(pytester)


def test_setup_plan_builds_nothing(pytester, run):
    """``--setup-plan`` shows the fixtures by name and starts no host."""
    pytester.makeconftest("def pytest_poor_container_host_ready(host): print('BUILT')")
    pytester.makepyfile("def test_pair(netns_pair): pass")
    result = run("--poor-container", "--setup-plan", "-s")
    result.stdout.fnmatch_lines(["*SETUP    S netns_factory*", "*SETUP    F netns_pair*"])
    result.stdout.no_fnmatch_line("*BUILT*")


def test_unittest_and_doctest_items_are_no_trouble(pytester, run):
    """Items without fixtures of their own are left alone; a TestCase may use ours by ``usefixtures``."""
    pytester.makepyfile(
        '''
        """
        >>> 1 + 1
        2
        """
        import unittest, pytest

        @pytest.mark.usefixtures("netns_pair")
        class TestIt(unittest.TestCase):
            def test_method(self): pass
        ''',
    )
    run("--doctest-modules", "--poor-container").assert_outcomes(passed=2)
    run("--doctest-modules").assert_outcomes(passed=1, skipped=1)
