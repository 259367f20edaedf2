"""The fixture ``network`` and its factory: what a test gets, what it is told when it fails, and that all of it ends."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.poor_container


def test_a_network_is_a_tests_own_and_ends_with_it(pytester, run):
    """Each test has an empty one, and its hosts are dead when the next test begins."""
    pytester.makepyfile(
        """
        import os
        pids = []

        def test_first(network):
            nodes = network.lan(3)
            pids.extend(node.pid for node in nodes)
            with nodes[2].listen(("", 80)):
                nodes[0].connect(("n3", 80)).close()

        def test_second(network):
            assert network.hosts == []
            assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
        """,
    )
    run("--poor-container").assert_outcomes(passed=2)


def test_hosts_of_a_network_are_as_the_marker_says(pytester, run):
    """Limits and roots hold for every host, and may be said anew for one; a topology is a file of the rootdir."""
    pytester.path.joinpath("two.toml").write_text('[switches.s]\nhosts = ["a", "b"]\n')
    pytester.makepyfile(
        """
        import pytest

        def limit(host):
            return host.run(["sh", "-c", "ulimit -n"], capture_output=True, text=True).stdout.strip()

        @pytest.mark.poor_container(rlimits={"nofile": 77})
        def test_marker(network):
            assert limit(network.host("a")) == "77"
            assert limit(network.host("b", rlimits={"nofile": 78})) == "78"

        @pytest.mark.poor_container(topology="two.toml")
        def test_file(network):
            with network["b"].listen(("", 80)):
                network["a"].connect(("b", 80)).close()

        def test_factory(network_factory):
            with network_factory(topology="two.toml", rlimits={"nofile": 79}) as network:
                assert limit(network["a"]) == "79"
                assert len(network.links) == 2
        """,
    )
    run("--poor-container").assert_outcomes(passed=3)


def test_a_file_with_a_mistake_fails_its_own_test_with_file_and_line(pytester, run):
    """The others run, and nothing is left."""
    pytester.path.joinpath("bad.toml").write_text('[switches.s]\nhost = ["a", "b"]\n')
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.poor_container(topology="bad.toml")
        def test_bad(network):
            pass

        @pytest.mark.poor_container(topology="none.toml")
        def test_none(network):
            pass

        def test_good(network):
            network.lan(2)
        """,
    )
    result = run("--poor-container")
    result.assert_outcomes(passed=1, errors=2)
    result.stdout.fnmatch_lines(["*bad.toml:2: switches.s.host: no such key, did you mean 'hosts'?*"])
    result.stdout.fnmatch_lines(["*none.toml*"])


@pytest.mark.parametrize("how", ["marker", "factory", "load"])
def test_a_service_of_a_file_that_does_not_start_is_shown_with_its_network(pytester, run, how):
    """The message has file and line; the report has the hosts, the picture, the service that ended and its log."""
    pytester.path.joinpath("site.toml").write_text(
        """
        [switches.s]
        hosts = ["web"]
        [hosts.db]
        switch = "s"
        start = [
            { argv = ["sleep", "600"] },
            { argv = ["sh", "-c", "echo no disk >&2; exit 3"], ready = 5432 },
        ]
        """
    )
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.poor_container(topology="site.toml")
        def test_marker(network):
            pass

        def test_factory(network_factory):
            with network_factory(topology="site.toml"):
                pass

        def test_load(network):
            network.load("site.toml")
        """,
    )
    result = run("--poor-container", "-k", how)
    result.assert_outcomes(**({"errors": 1} if how == "marker" else {"failed": 1}), deselected=2)
    result.stdout.fnmatch_lines(
        [
            "E *ServiceDied: *site.toml:6: hosts.db.start[[]1]: service sh exited 3 while waiting for tcp:5432",
            "*poor-container: hosts*",
            "db: namespaces; 10.*",
            "web: namespaces; 10.*",
            "*poor-container: topology*",
            "[[]s] 10.*",
            "*poor-container: services*",
            "db: sleep: running",
            "db: sh: exited 3",
            "*poor-container: timeline*",
            "*db: sh started",
            "*poor-container: log of sh on db (exited 3)*",
            "no disk",
        ]
    )


def test_what_a_service_of_a_file_needs_is_there_when_it_starts(pytester, run):
    """Its host has been told to the hooks, and has what the marker mounts in it; the hook for networks comes last."""
    pytester.path.joinpath("site.toml").write_text(
        '[hosts.a]\nstart = [{ argv = ["sh", "-c", "cat /etc/word; grep -c /data /proc/mounts"] }]\n'
    )
    pytester.makeconftest(
        """
        told = []

        def pytest_poor_container_host_ready(host):
            host.write("/etc/word", "from the hook\\n")
            told.append(host.name)

        def pytest_poor_container_network_ready(network):
            told.append(len(network.hosts))
        """,
    )
    pytester.makepyfile(
        """
        import pytest
        from conftest import told

        @pytest.mark.poor_container(topology="site.toml", mounts=[{"kind": "tmpfs", "target": "/data"}])
        def test_it(network):
            network["a"].services[0].wait_log("from the hook\\n1\\n")
            assert told == ["a", 1]
        """,
    )
    run("--poor-container").assert_outcomes(passed=1)


def test_hooks_are_told_of_each_host_when_it_is_made(pytester, run):
    """A project's conftest treats hosts that a test adds as those of a pair; the network itself comes first, empty."""
    pytester.makeconftest(
        """
        told = []

        def pytest_poor_container_container_ready(container):
            container.write("/etc/motd", f"hello {container.name}")

        def pytest_poor_container_host_ready(host):
            told.append(host.name)

        def pytest_poor_container_network_ready(network):
            told.append(len(network.hosts))
        """,
    )
    pytester.makepyfile(
        """
        from conftest import told

        def test_it(network):
            a, b = network.lan(["a", "b"])
            assert a.read("/etc/motd") == "hello a"
            network.router("r")
            assert told == [0, "a", "b", "r"]
        """,
    )
    run("--poor-container").assert_outcomes(passed=1)


def test_a_failed_test_shows_its_network(pytester, run):
    """Hosts with their addresses, cables with their states."""
    pytester.makepyfile(
        """
        def test_it(network):
            chain = network.chain(1)
            chain.links[0].cut()
            assert 0
        """,
    )
    result = run("--poor-container")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["r1: namespaces; 10.*, 10.*", "*poor-container: links*", "client -- r1: cut"])


def test_a_network_is_skipped_when_off_and_required_when_required(pytester, run):
    """As with every fixture of ours."""
    pytester.makepyfile("def test_it(network): pass\n\ndef test_factory(network_factory): pass\n")
    run().assert_outcomes(skipped=2)
    run("--poor-container-require").assert_outcomes(passed=2)


def test_networks_of_a_wider_scope_live_as_long(pytester, run):
    """A module's network serves all its tests, and a mark of a host is the same in each."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture(scope="module")
        def cluster(network_factory):
            with network_factory() as network:
                yield network.lan(["n1", "n2"])

        def test_first(cluster):
            cluster[0].write("/etc/mark", "here")

        def test_second(cluster):
            assert cluster[0].read("/etc/mark") == "here"
        """,
    )
    run("--poor-container").assert_outcomes(passed=2)
