"""The report of a failed test: which hosts it shows, in which state, whatever failed and wherever it ran."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest

pytestmark = pytest.mark.poor_container

HOSTS = "*- poor-container: hosts -*"


def sections(result: pytest.RunResult) -> dict[str, list[str]]:
    """Return the lines of our sections by their titles; of several with one title the last."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in result.outlines:
        title = re.fullmatch(r"-+ (poor-container: .*) -+", line)
        if title:
            lines = found[title[1]] = []
        elif re.match(r"[-=_]{3,}", line):
            lines = []
        else:
            lines.append(line)
    return found


@pytest.mark.parametrize(
    ("act", "state"),
    [("", "up"), ("netns_pair.link.cut()", "cut"), ("netns_pair.link.unplug()", "unplugged")],
)
@pytest.mark.parametrize("args", [(), ("-n1",)])
def test_links_are_shown_as_they_were(pytester, run, act, state, args):
    """The section of the links has the state at the failure, also across xdist."""
    pytester.makepyfile(f"def test_fails(netns_pair):\n    {act or 'pass'}\n    assert False")
    result = run("--poor-container", *args)
    assert sections(result)["poor-container: links"] == [f"a -- b: {state}"]


def test_a_fixture_that_fails_inside_the_block_of_its_hosts(pytester, run):
    """Hosts that the failing fixture itself closed on its way out are shown as they were before."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def site(netns_factory):
            with netns_factory(hosts=["left", "right"]) as pair:
                pair.link.cut()
                server = pair.a.listen((pair.a.ip, 4711))
                with server:
                    raise RuntimeError("no luck")
                yield pair

        def test_setup(site): pass
        """,
    )
    result = run("--poor-container")
    result.assert_outcomes(errors=1)
    found = sections(result)
    assert [line.split(":")[0] for line in found["poor-container: hosts"]] == ["left", "right"]
    assert found["poor-container: links"] == ["left -- right: cut"]
    result.stdout.fnmatch_lines(["E *RuntimeError: no luck"])


def test_hosts_that_the_test_closed_by_its_block(pytester, run):
    """An assertion inside ``with netns_factory()`` is reported with the hosts as they were when it failed."""
    pytester.makepyfile(
        """
        def test_fails(netns_factory):
            with netns_factory(hosts=["left", "right"]) as pair:
                with pair.link.unplug():
                    assert False
        """,
    )
    found = sections(run("--poor-container"))
    assert [line.split(":")[0] for line in found["poor-container: hosts"]] == ["left", "right"]


def test_hosts_that_the_test_closed_before_it_failed(pytester, run):
    """What was closed on purpose is shown, without what nobody can know any more; of very many the last eight."""
    pytester.makepyfile(
        """
        def test_fails(netns_factory):
            for number in range(10):
                with netns_factory(hosts=[f"left{number}", f"right{number}"]) as pair:
                    pair.a.start(["sh", "-c", f"echo bye {number}; sleep 100"], name="server").wait_log("bye")
            assert False
        """,
    )
    result = run("--poor-container")
    found = sections(result)
    hosts = [line.split(":")[0] for line in found["poor-container: hosts"] if not line.startswith(" ")]
    assert hosts == [f"{side}{number}" for number in range(2, 10) for side in ("left", "right")]
    assert "    not known: its sockets: the test had closed it" in found["poor-container: hosts"]
    assert found["poor-container: services"] == [f"left{number}: server: running" for number in range(2, 10)]
    assert found["poor-container: log of server on left9 (running)"] == ["bye 9"]


def test_a_set_up_hook_that_raises_has_its_hosts_in_the_report(pytester, run):
    """A pair whose announcing failed is closed, and shown."""
    pytester.makeconftest("def pytest_poor_container_network_ready(network): raise RuntimeError('not today')")
    pytester.makepyfile("def test_pair(netns_pair): pass")
    result = run("--poor-container")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([HOSTS, "a: namespaces; *", "b: namespaces; *"])


def test_a_teardown_that_fails_shows_the_hosts_that_it_closed(pytester, run):
    """By the time of that report the pair is gone; what was seen before stands in it, and what was not is named."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def late(netns_pair):
            yield
            netns_pair.link.cut()
            raise RuntimeError("at the end")

        def test_teardown(late): pass
        """,
    )
    result = run("--poor-container")
    result.assert_outcomes(passed=1, errors=1)
    found = sections(result)
    assert found["poor-container: links"] == ["a -- b: cut"]
    assert "    not known: its sockets: it was closed before the teardown failed" in found["poor-container: hosts"]


def test_a_report_shows_the_hosts_of_its_own_test(pytester, run):
    """A pair of a wider fixture stands in the reports of the tests that use it, and in no other."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture(scope="module")
        def site(netns_factory):
            with netns_factory(hosts=["left", "right"]) as pair:
                yield pair

        def test_site(site): assert False
        def test_pair(netns_pair): assert False
        def test_both(site, netns_pair): assert False
        def test_dynamic(request): assert request.getfixturevalue("site") is None
        """,
    )
    result = run("--poor-container", "-rA")
    hosts = [line.split(":")[0] for line in result.outlines if "namespaces;" in line]
    assert hosts == ["left", "right", "a", "b", "left", "right", "a", "b", "left", "right"]


def test_each_attempt_shows_its_own_pair(pytester, run):
    """Under pytest-rerunfailures every attempt has fresh hosts, and its report tells of them and of no others."""
    pytester.makeconftest(
        """
        import json

        def pytest_runtest_logreport(report):
            if report.when == "call":
                with open("seen", "a") as file:
                    own = [text for title, text in report.sections if title == "poor-container: hosts"]
                    print(json.dumps([report.outcome, own, report.user_properties]), file=file)
        """,
    )
    pytester.makepyfile(
        """
        import json

        def test_fails(netns_pair):
            with open("made", "a") as file:
                print(json.dumps([[host.ip, host.pid] for host in netns_pair]), file=file)
            assert False
        """,
    )
    result = run("--poor-container", "--reruns=2", plugins=("rerunfailures",))
    assert result.parseoutcomes() == {"failed": 1, "rerun": 2}
    made = [json.loads(line) for line in (pytester.path / "made").read_text().splitlines()]
    seen = [json.loads(line) for line in (pytester.path / "seen").read_text().splitlines()]
    assert len({tuple(host) for pair in made for host in pair}) == 6, "hosts came back"
    assert [outcome for outcome, _, _ in seen] == ["rerun", "rerun", "failed"]
    for pair, (_, (text,), properties) in zip(made, seen, strict=True):
        assert re.findall(r"10\.\d+\.\d+\.\d+", text) == [ip for ip, _ in pair]
        assert [re.findall(r"10\.\d+\.\d+\.\d+", value) for _, value in properties] == [[ip for ip, _ in pair]]


def test_the_hosts_stand_in_the_xml_too(pytester, run):
    """JUnit's XML has the hosts of a failed test as a property, those of the last attempt."""
    pytester.makepyfile("def test_fails(netns_pair): assert False")
    run("--poor-container", "--junit-xml=out.xml")
    case = ElementTree.parse(pytester.path / "out.xml").find(".//testcase")
    (found,) = case.iter("property")
    assert found.get("name") == "poor_container_hosts"
    assert re.fullmatch(r"a 10\S+ fd\S+; b 10\S+ fd\S+", found.get("value"))


def test_an_expected_failure_has_no_sections(pytester, run):
    """What was expected to fail is no failure: nothing is looked at."""
    pytester.makeconftest(
        "def pytest_runtest_logreport(report): print('SECTIONS', [t for t, _ in report.sections if 'poor' in t])"
    )
    pytester.makepyfile("import pytest\n@pytest.mark.xfail\ndef test_fails(netns_pair): assert False")
    result = run("--poor-container", "-s")
    result.assert_outcomes(xfailed=1)
    assert [line for line in result.outlines if "SECTIONS" in line and "[]" not in line] == []
    result.stdout.fnmatch_lines(["*SECTIONS*"])


def test_a_dead_lab_does_not_break_the_report(pytester, run):
    """When the lab was killed under the test, its failure is reported, with what is still known of the hosts."""
    pytester.makepyfile(
        """
        import os, signal, time
        from pytest_poorcontainer.lab import Lab

        def test_fails(netns_pair):
            lab = Lab.current()
            os.kill(lab.pid, signal.SIGKILL)
            while lab.alive():  # its containers may have answered until then
                time.sleep(0.001)
            assert 1 == 2, "the reason"

        def test_next(netns_pair): pass
        """,
    )
    result = run("--poor-container", "-pno:randomly", subprocess=True)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*the reason*", HOSTS, "a: namespaces; *", "*not known: its sockets: *"])
