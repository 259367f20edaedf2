"""The end of a session: what was missing, what took longest; and options that cannot be."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.poor_container

UNAVAILABLE = """
    import pytest
    from pytest_poorcontainer import Unavailable

    def pytest_poor_container_host_ready(host):
        if host.name == "fast":
            raise Unavailable("turbo", "no turbo in this machine", "buy one")
        if host.name == "far":
            raise Unavailable("warp", "no warp")
"""
MISSING = """
    import pytest

    @pytest.mark.parametrize("n", range(3))
    @pytest.mark.poor_container(hosts=["fast", "other"])
    def test_fast(netns_pair, n): pass

    @pytest.mark.poor_container(hosts=["far", "other"])
    def test_far(netns_pair): pass

    def test_plain(): pytest.skip("for another reason")

    def test_pair(netns_pair): pass
"""


@pytest.mark.parametrize("args", [(), ("-n2",), ("-q",)])
@pytest.mark.parametrize(("flag", "word"), [("--poor-container", "skipped"), ("--poor-container-require", "failed")])
def test_what_was_missing_is_grouped(pytester, run, args, flag, word):
    """Feature, reason and remedy are told once, with the number of tests, the most frequent first."""
    pytester.makeconftest(UNAVAILABLE)
    pytester.makepyfile(MISSING)
    result = run(flag, *args)
    start = next(number for number, line in enumerate(result.outlines) if "what this machine cannot do" in line)
    assert result.outlines[start + 1 : start + 4] == [
        f"3 tests {word}: turbo: no turbo in this machine",
        "    what to do: buy one",
        f"1 test {word}: warp: no warp",
    ]
    assert "another reason" not in "".join(result.outlines[start:][:5])


def test_nothing_to_say_is_no_headline(pytester, run):
    """Without anything missing, kept or asked for, the summary has nothing of ours."""
    pytester.makepyfile("def test_pair(netns_pair): pass")
    result = run("--poor-container")
    assert [line for line in result.outlines if "poor-container: " in line] == ["poor-container: on (command line)"]


@pytest.mark.parametrize("args", [(), ("-n2",)])
def test_the_slowest_set_ups_when_asked_for(pytester, run, args):
    """Labs, hosts and hooks with their times and tests, slowest first, also those of xdist's workers."""
    pytester.makeconftest("import time\ndef pytest_poor_container_host_ready(host): time.sleep(0.02)")
    pytester.makepyfile("def test_pair(netns_pair): pass\ndef test_other(netns_pair): pass")
    result = run("--poor-container", "--poor-container-durations=0", *args)
    start = next(number for number, line in enumerate(result.outlines) if "slowest set-ups" in line)
    lines = [re.fullmatch(r" *([\d.]+) ms  (.*)  \S+::(\w+)", line) for line in result.outlines[start + 1 :]]
    found = [(float(line[1]), line[2], line[3]) for line in lines if line]
    assert sorted(what for _, what, _ in found if what != "lab") == ["hooks for a, b"] * 2 + ["hosts a, b"] * 2
    assert 1 <= len([what for _, what, _ in found if what == "lab"]) <= 2
    assert [seconds for seconds, _, _ in found] == sorted((seconds for seconds, _, _ in found), reverse=True)
    assert {test for _, _, test in found} == {"test_pair", "test_other"}
    assert all(seconds >= 40 for seconds, what, _ in found if "hooks" in what)


def test_services_are_timed_until_they_are_ready(pytester, run):
    """Each service counts once, for the test that started it, however long it lives."""
    pytester.makepyfile(
        """
        import pytest, re

        @pytest.fixture(scope="module")
        def site(netns_factory):
            with netns_factory(hosts=["left", "right"]) as pair:
                pair.a.start(["sh", "-c", "sleep 0.1; echo up; sleep 100"], ready=re.compile("up"), name="slow")
                yield pair

        @pytest.mark.parametrize("n", range(3))
        def test_site(site, n): pass
        """,
    )
    result = run("--poor-container", "--poor-container-durations=0")
    (line,) = (line for line in result.outlines if "slow on left ready" in line)
    assert float(line.split()[0]) >= 100


def test_durations_are_bounded_by_number_and_time(pytester, run):
    """N of them at most, and none below ``--durations-min``."""
    pytester.makeconftest("def pytest_poor_container_host_ready(host): pass")  # the third of what takes time
    pytester.makepyfile("def test_pair(netns_pair): pass")
    result = run("--poor-container", "--poor-container-durations=2")
    assert len([line for line in result.outlines if " ms  " in line]) == 2
    result = run("--poor-container", "--poor-container-durations=0", "--durations-min=1000")
    assert not [line for line in result.outlines if " ms  " in line]
    result.stdout.fnmatch_lines(["(3 of less than 1000 s hidden, see --durations-min)"])


@pytest.mark.parametrize(
    ("args", "environment", "ini", "message"),
    [
        (("--poor-container-keep=some",), {}, "", "--poor-container-keep: 'some' is none of no, failed, all"),
        ((), {"POOR_CONTAINER_KEEP": "yes"}, "", "environment variable POOR_CONTAINER_KEEP: 'yes' is none of *"),
        ((), {}, "poor_container_keep = 1", "ini key poor_container_keep: '1' is none of no, failed, all"),
        (("--poor-container-durations=many",), {}, "", "--poor-container-durations: 'many' is not a number of lines *"),
        (("--poor-container-durations=-1",), {}, "", "--poor-container-durations: '-1' is not a number of lines *"),
        (
            (),
            {"POOR_CONTAINER_PAUSE": "maybe"},
            "",
            "environment variable POOR_CONTAINER_PAUSE: 'maybe' is none of 1, *",
        ),
        (("--poor-container-report=taken",), {}, "", "--poor-container-report: '*/taken' is there and no directory; *"),
    ],
)
def test_a_value_that_cannot_be_is_a_usage_error(pytester, run, monkeypatch, args, environment, ini, message):
    """The message names the place, the value and what would do, and no test runs."""
    pytester.makepyfile("def test_a(): pass")
    (pytester.path / "taken").write_text("")
    pytester.makeini(f"[pytest]\n{ini}\n")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = run(*args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {message}"])


@pytest.mark.parametrize(
    ("args", "environment", "ini", "shown"),
    [
        ((), {}, "", 0),
        ((), {}, "poor_container_durations = 1", 1),
        ((), {"POOR_CONTAINER_DURATIONS": "2"}, "poor_container_durations = 1", 2),
        ((), {"POOR_CONTAINER_DURATIONS": ""}, "poor_container_durations = 1", 1),
        (("--poor-container-durations=3",), {"POOR_CONTAINER_DURATIONS": "2"}, "", 3),
    ],
)
@pytest.mark.parametrize("workers", [(), ("-n1",)])
def test_flag_beats_environment_beats_ini_here_too(pytester, run, monkeypatch, args, environment, ini, shown, workers):
    """The options follow the order of the switch, and cross to xdist's workers."""
    pytester.makeconftest("def pytest_poor_container_host_ready(host): pass")  # the third of what takes time
    pytester.makepyfile("def test_pair(netns_pair): pass")
    pytester.makeini(f"[pytest]\npoor_container = on\n{ini}\n")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = run(*args, *workers)
    assert len([line for line in result.outlines if " ms  " in line]) == shown


def test_options_do_nothing_when_off(pytester, run):
    """Off, the options are checked and nothing else: no file, no section."""
    pytester.makepyfile("def test_pair(netns_pair): pass\ndef test_fails(): assert False")
    result = run("--poor-container-report=out", "--poor-container-keep=all", "--poor-container-durations=0")
    result.assert_outcomes(skipped=1, failed=1)
    assert not (pytester.path / "out").exists()
    result.stdout.no_fnmatch_line("*poor-container: files*")
