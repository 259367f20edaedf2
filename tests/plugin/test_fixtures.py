"""``netns_pair`` and ``netns_factory`` on real hosts: what a test gets, and that it is gone afterwards."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.poor_container

ISSUE = """
    import pytest

    @pytest.mark.poor_container(hosts=["primary", "replica"])
    def test_replica_reaches_primary(netns_pair):
        primary, replica = netns_pair
        server = primary.listen((primary.ip, 80))
        with replica.connect((primary.name, 80)) as sock:
            assert server.accept()[1][0] == replica.ip
        with netns_pair.link.cut(), pytest.raises(TimeoutError):
            replica.connect((primary.ip, 80), timeout=0.2)
        assert primary.run(["hostname"], capture_output=True, text=True).stdout == "primary\\n"
"""


def test_the_example_of_the_readme_passes(pytester, run):
    """Two named hosts, a connection over the cable, a cut, a command: the first test anybody writes."""
    pytester.makepyfile(ISSUE)
    # A process of its own: it leaves a socket to the garbage collector, which is an error only where we test ourselves.
    run("--poor-container", subprocess=True).assert_outcomes(passed=1)


def test_names_default_to_a_and_b_and_come_from_the_closest_marker(pytester, run):
    """Without a marker the hosts are "a" and "b"; with markers the merged names hold."""
    pytester.makepyfile(
        """
        import pytest

        def test_default(netns_pair):
            assert [host.name for host in netns_pair] == ["a", "b"]

        @pytest.mark.poor_container(hosts=["x", "y"], level="namespaces")
        class TestClass:
            def test_class(self, netns_pair):
                assert [host.name for host in netns_pair] == ["x", "y"]

            @pytest.mark.poor_container(hosts=["p", "q"])
            def test_dynamic(self, request):
                assert [host.name for host in request.getfixturevalue("netns_pair")] == ["p", "q"]
        """,
    )
    run("--poor-container").assert_outcomes(passed=3)


@pytest.mark.parametrize("end", ["pass", "raise RuntimeError", "pytest.skip('so')", "netns_pair.close()"])
def test_a_pair_is_closed_however_its_test_ends(pytester, run, end):
    """After the test its processes are gone, whether it passed, failed, was skipped, or had closed the pair itself."""
    pytester.makepyfile(
        f"""
        import os, pytest
        pids = []

        def test_first(netns_pair):
            pids.extend(host.pid for host in netns_pair)
            assert all(os.path.exists(f"/proc/{{pid}}") for pid in pids)
            {end}

        def test_second():
            assert len(pids) == 2
            assert not [pid for pid in pids if os.path.exists(f"/proc/{{pid}}")]
        """,
    )
    result = run("--poor-container")
    outcomes = result.parseoutcomes()
    assert outcomes.get("passed", 0) == (2 if end in ("pass", "netns_pair.close()") else 1)
    assert "errors" not in outcomes


def test_each_test_gets_new_hosts(pytester, run):
    """Neither processes nor files of one test are seen by the next, although the names are the same."""
    pytester.makepyfile(
        """
        import pytest
        pids = set()

        @pytest.mark.parametrize("n", range(3))
        def test_pair(netns_pair, n):
            host = netns_pair.a
            assert host.run(["test", "-e", "/var/mark"]).returncode == 1
            host.run(["touch", "/var/mark"], check=True)
            pids.add(host.pid)
            assert len(pids) == n + 1
        """,
    )
    run("--poor-container").assert_outcomes(passed=3)


def test_the_factory_serves_wider_scopes_and_several_pairs(pytester, run):
    """A module fixture keeps a pair over several tests, beside the pairs of the tests themselves."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture(scope="module")
        def site(netns_factory):
            with netns_factory(hosts=["left", "right"]) as pair:
                yield pair

        seen = []

        def test_first(site):
            seen.append(site.a.pid)
            assert [host.name for host in site] == ["left", "right"]

        def test_second(site, netns_pair, netns_factory):
            third = netns_factory()
            hosts = [*site, *netns_pair, *third]
            assert seen == [site.a.pid]
            assert len({host.pid for host in hosts}) == len({host.ip for host in hosts}) == 6
            for pair in (site, netns_pair, third):
                with pair.a.listen((pair.a.ip, 80)), pair.b.connect((pair.a.ip, 80)):
                    pass
        """,
    )
    run("--poor-container").assert_outcomes(passed=2)


def test_the_factory_closes_at_the_end_what_is_still_open(pytester, run):
    """A pair that nobody closed lives as long as the session, and no longer."""
    pytester.makeconftest(
        """
        import os, pytest

        pids = []

        @pytest.fixture(scope="session", autouse=True)
        def outer():
            yield  # torn down after the factory, which is asked for later
            print("LEFT", [pid for pid in pids if os.path.exists(f"/proc/{pid}")], len(pids))
        """,
    )
    pytester.makepyfile(
        """
        import os
        from conftest import pids

        def test_make(netns_factory):
            pids.extend(host.pid for host in netns_factory())

        def test_still_there():
            assert all(os.path.exists(f"/proc/{pid}") for pid in pids)
        """,
    )
    result = run("--poor-container", "-s")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*LEFT [[][]] 2"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("hosts=['a']", "netns_factory: hosts=: expected two host names, not 1*"),
        ("hosts=['a', 'a']", "netns_factory: hosts=: two hosts of one name: 'a'"),
        ("level='mount'", "netns_factory: level=: 'mount' is no level, did you mean 'mounts'?*"),
    ],
)
def test_the_factory_names_bad_arguments(pytester, run, arguments, message):
    """What the marker would not accept is a UsageError, said in the same words."""
    pytester.makepyfile(
        f"""
        import pytest
        from pytest_poorcontainer import UsageError

        def test_bad(netns_factory):
            with pytest.raises(UsageError) as caught:
                netns_factory({arguments})
            print(caught.value)
        """,
    )
    result = run("--poor-container", "-s")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*" + message])


def test_temporary_files_and_the_project_are_where_they_are_outside(pytester, run):
    """A host sees ``tmp_path`` at the same path, writable, and the project's directory read-only."""
    pytester.makepyfile(
        """
        def test_paths(netns_pair, tmp_path, request):
            host = netns_pair.a
            (tmp_path / "in").write_text("from outside")
            host.run(["sh", "-c", "cat in > out"], cwd=tmp_path, check=True)
            assert (tmp_path / "out").read_text() == "from outside"
            project = request.config.rootpath
            assert host.run(["test", "-e", project / "conftest.py"]).returncode == 0
            assert host.run(["touch", project / "new"], capture_output=True).returncode != 0
        """,
    )
    pytester.makeconftest("")
    # The inner project must not lie in the inner basetemp, which is writable.
    run("--poor-container", f"--basetemp={pytester.path.parent / 'inner'}").assert_outcomes(passed=1)


def test_when_the_lab_dies_one_test_fails_and_the_next_gets_a_fresh_one(pytester, run):
    """The death of the lab is an error where it happens, not in every test after it."""
    pytester.makepyfile(
        """
        import os, signal, time, pytest
        from pytest_poorcontainer.lab.client import Lab
        from pytest_poorcontainer import LabDied

        def test_before(netns_pair): pass

        def test_death(netns_pair):
            lab = Lab.current()
            os.kill(lab.pid, signal.SIGKILL)
            while lab.alive():  # its containers may have answered until then
                time.sleep(0.001)
            with pytest.raises(LabDied):
                netns_pair.a.run(["true"])

        def test_after(netns_pair):
            netns_pair.a.run(["true"], check=True)
        """,
    )
    result = run("--poor-container", subprocess=True)
    assert result.parseoutcomes() == {"passed": 3}
