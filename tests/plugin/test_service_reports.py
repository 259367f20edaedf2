"""Services in reports: their states, the lines that came while the test ran, their logs as files and live."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pytest_poorcontainer.container import kept

pytestmark = pytest.mark.poor_container

# A service that says what is written into a file: its log can be led from a test.
ECHO = """
    import pytest, time

    def echo(host, name="echo"):
        host.run(["touch", f"/tmp/{name}"], check=True)
        service = host.start(["tail", "-n+1", "-f", f"/tmp/{name}"], name=name)
        say(host, service, "hello")
        return service

    def say(host, service, text):
        host.run(["sh", "-c", f"echo {text} >>/tmp/{service.name}"], check=True)
        service.wait_log(text)
"""
MODULE = (
    ECHO
    + """
    @pytest.fixture(scope="SCOPE")
    def site(netns_factory):
        with netns_factory(hosts=["left", "right"]) as pair:
            pair.service = echo(pair.a)
            yield pair

    class TestSite:
        def test_first(self, site):
            say(site.a, site.service, "first")
            assert False

        def test_passes(self, site):
            say(site.a, site.service, "between")

        def test_second(self, site):
            say(site.a, site.service, "second")
            assert False

        def test_silent(self, site): assert False
"""
)


def log_of(result: pytest.RunResult, name: str) -> list[list[str]]:
    """Return the lines of each section with a log of this service."""
    found: list[list[str]] = []
    inside = False
    for line in result.outlines:
        if re.match(r"[-=_]{3,}", line):
            inside = re.match(rf"-+ poor-container: log of {name} on \w+ ", line) is not None
            found += [[]] if inside else []
        elif inside:
            found[-1].append(line)
    return found


@pytest.mark.parametrize("scope", ["module", "class", "session"])
@pytest.mark.parametrize("args", [(), ("-n1",)])
def test_lines_are_credited_to_the_test_that_ran(pytester, run, scope, args):
    """Of a service that outlives its test a report has the lines of this test alone, and how many came before."""
    pytester.makepyfile(MODULE.replace("SCOPE", scope))
    result = run("--poor-container", *args)
    result.assert_outcomes(passed=1, failed=3)
    assert log_of(result, "echo") == [
        ["hello", "first"],
        ["(3 earlier lines came before this test)", "second"],
        ["(4 earlier lines came before this test, and none while it ran)"],
    ]
    result.stdout.fnmatch_lines(["*- poor-container: services -*", "left: echo: running"])


def test_an_attempt_has_its_own_lines(pytester, run):
    """A repetition by pytest-rerunfailures is a test of its own to a service that was there before."""
    pytester.makepyfile(
        MODULE.replace("SCOPE", "module").partition("class TestSite")[0]
        + """
    tries = []

    def test_fails(site):
        tries.append(1)
        say(site.a, site.service, f"try-{len(tries)}")
        assert False
    """
    )
    result = run("--poor-container", "--reruns=2", "-rR", plugins=("rerunfailures",))
    assert log_of(result, "echo")[-1] == ["(3 earlier lines came before this test)", "try-3"]


def test_states_of_services_and_sockets(pytester, run):
    """Ended services are told from living ones; open sockets stand in the report of their host."""
    pytester.makepyfile(
        """
        import sys

        def test_fails(netns_pair):
            a, b = netns_pair
            a.start([sys.executable, "-m", "http.server", "80"], ready=80, name="web")
            b.start(["sh", "-c", "echo bye; exit 3"], name="brief").process.wait()
            b.start(["sleep", "100"]).stop()
            assert False
        """,
    )
    result = run("--poor-container")
    result.stdout.fnmatch_lines(
        ["*- poor-container: services -*", "a: web: ready", "b: brief: exited 3", "b: sleep: stopped"]
    )
    result.stdout.fnmatch_lines(["*- poor-container: open sockets -*", "a: tcp LISTEN 0.0.0.0:80"])
    assert log_of(result, "brief") == [["bye"]]


@pytest.mark.parametrize("block", [True, False])
def test_a_service_that_fails_to_start_in_a_fixture(pytester, run, block):
    """The report of the set-up has its last lines, also when the fixture's own block has closed the host."""
    made = "with netns_factory() as pair:" if block else "pair = netns_factory()\n            if True:"
    pytester.makepyfile(
        f"""
        import pytest

        @pytest.fixture
        def site(netns_factory):
            {made}
                pair.a.start(["sh", "-c", "echo no luck; exit 4"], ready=80, name="server")
                yield pair

        def test_setup(site): pass
        """,
    )
    result = run("--poor-container")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*ServiceDied*", "*- poor-container: services -*", "a: server: exited 4"])
    assert log_of(result, "server") == [["no luck"]]


def test_only_the_last_lines_and_nothing_that_paints_the_terminal(pytester, run):
    """Of a long log the end is shown; escape sequences, garbage and unfinished lines are spelled out."""
    pytester.makepyfile(
        r"""
        def test_fails(netns_pair):
            script = r"seq 1000; printf '\033[2J\377\000end'"
            netns_pair.a.start(["sh", "-c", script], name="noise").process.wait()
            assert False
        """,
    )
    result = run("--poor-container")
    (lines,) = log_of(result, "noise")
    assert len(lines) == 20
    assert lines[-2] == "1000"
    assert lines[-1].endswith("end")
    assert not re.search(r"[\x00-\x08\x1b]", "".join(lines))


def test_whole_logs_are_files(pytester, run):
    """Below ``--poor-container-report`` each service has its whole log, and the sockets their list."""
    pytester.makepyfile(
        test_it="""
        import sys

        def test_fails(netns_pair):
            netns_pair.a.start([sys.executable, "-m", "http.server", "80"], ready=80, name="web")
            for _ in range(2):
                netns_pair.b.start(["seq", "1000"]).process.wait()
            assert False
        """,
    )
    run("--poor-container", "--poor-container-report=out").assert_outcomes(failed=1)
    place = pytester.path / "out" / "test_it.py.test_fails" / "1-call"
    logs = sorted(path.name for path in (place / "logs").iterdir())
    assert len(logs) == 3
    assert logs[0] == "01-a.web.log"
    assert (place / "logs" / logs[1]).read_text().split() == [str(number) for number in range(1, 1001)]
    assert "a: tcp LISTEN 0.0.0.0:80\n" in (place / "sockets.txt").read_text()
    assert (place / "services.txt").read_text().startswith("a: web: ready\n")


LIVE = (
    ECHO
    + """
    def test_says(netns_pair, caplog):
        service = echo(netns_pair.a)
        until = time.monotonic() + 5
        while WAIT and "hello" not in caplog.messages and time.monotonic() < until:
            time.sleep(0.001)
        print("THREADS", [thread.name for thread in __import__("threading").enumerate()][1:])
"""
)


@pytest.mark.parametrize("args", [("-olog_cli=true",), ("--log-cli-level=INFO",), ("--log-level=INFO", "-rP")])
def test_lines_are_logged_when_somebody_wants_them(pytester, run, args):
    """With ``log_cli``, or with a level that lets INFO through, each line is a record of the service's own logger."""
    pytester.makepyfile(LIVE.replace("WAIT", "True"))
    result = run("--poor-container", *args)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*INFO*poor_container.a.echo:*hello*"])


def test_nobody_asks_nothing_is_paid(pytester, run):
    """Without a wish for live lines there is no thread, and caplog has none of them."""
    pytester.makepyfile(LIVE.replace("WAIT", "False"))
    result = run("--poor-container", "-s", subprocess=True)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*THREADS [[][]]"])


def test_the_level_of_the_logger_is_given_back(pytester, run):
    """After a session with ``log_cli`` the logger of services is as it was."""
    pytester.makepyfile("def test_plain(): pass")
    logger = logging.getLogger("poor_container")
    before = logger.level
    run("--poor-container", "-olog_cli=true").assert_outcomes(passed=1)
    assert logger.level == before


def test_what_is_kept_runs_on(pytester, monkeypatch):
    """A kept host's services answer when pytest has ended."""
    pytester.makepyfile(
        """
        import sys

        def test_fails(netns_pair):
            netns_pair.a.start([sys.executable, "-m", "http.server", "80"], ready=80, name="web")
            assert False
        """,
    )
    with tempfile.TemporaryDirectory(prefix="pc-") as place:
        monkeypatch.setenv("POOR_CONTAINER_RUNTIME_DIR", f"{place}/run")
        args = ("-pno:cacheprovider", "-pno:asyncio", "--poor-container", "--poor-container-keep=failed")
        try:
            pytester.run(sys.executable, "-m", "pytest", *args).assert_outcomes(failed=1)
            (host,) = (each for each in kept.kept() if each.host == "a")
            fetch = f"import urllib.request as u; print(u.urlopen('http://{host.addresses[0]}').status)"
            answer = kept.enter(host, [sys.executable, "-c", fetch], stdout=subprocess.PIPE, text=True)
            assert answer.communicate(timeout=20)[0] == "200\n"
        finally:
            kept.end(kept.kept())
            assert not list(Path(place).rglob("*.sock"))
