"""Our own hooks: when they are called, with what, and what happens when they raise."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.poor_container


def test_hosts_first_then_their_network_then_the_test(pytester, run):
    """Each host is announced, then what the fixture hands over, for ``netns_pair`` and ``netns_factory`` alike."""
    pytester.makeconftest(
        """
        def pytest_poor_container_host_ready(host):
            host.run(["touch", "/run/prepared"], check=True)
            print("HOST", host.name)

        def pytest_poor_container_network_ready(network):
            print("NETWORK", *[host.name for host in network], network.link is not None)
        """,
    )
    pytester.makepyfile(
        """
        def test_pair(netns_pair):
            netns_pair.b.run(["test", "-e", "/run/prepared"], check=True)
            print("TEST")

        def test_factory(netns_factory):
            netns_factory(hosts=["c", "d"])
        """,
    )
    result = run("--poor-container", "-s", "-v")
    result.assert_outcomes(passed=2)
    said = " ".join(result.outlines)
    words = [word for word in said.split() if word.isupper() or len(word) == 1]
    assert "HOST a HOST b NETWORK a b TEST" in " ".join(words)
    assert "HOST c HOST d NETWORK c d" in " ".join(words)


@pytest.mark.parametrize(("hook", "made"), [("host_ready(host)", 1), ("network_ready(network)", 2)])
def test_a_hook_that_raises_ends_the_set_up_and_the_hosts(pytester, run, hook, made):
    """The exception is the error of the set-up, and no process of the new hosts is left."""
    pytester.makeconftest(
        f"""
        import os, pytest
        pids = []

        @pytest.hookimpl(tryfirst=True)
        def pytest_poor_container_host_ready(host):
            pids.append(host.pid)

        class Raising:
            def pytest_poor_container_{hook}:
                raise RuntimeError("the hook does not like it")

        def pytest_configure(config):
            config.pluginmanager.register(Raising())

        def pytest_unconfigure():
            print("LEFT", [pid for pid in pids if os.path.exists(f"/proc/{{pid}}")], "OF", len(pids))
        """,
    )
    pytester.makepyfile("def test_pair(netns_pair): print('TEST RAN')")
    result = run("--poor-container", "-s")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*RuntimeError: the hook does not like it", f"LEFT [[][]] OF {made}"])
    result.stdout.no_fnmatch_line("*TEST RAN*")


@pytest.mark.parametrize("args", [(), ("-n1",)])
def test_a_failure_shows_its_hosts(pytester, run, args):
    """The report has a section with name, level and addresses of each open host, also across xdist."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.poor_container(hosts=["primary", "replica"])
        def test_fails(netns_pair):
            with open("addresses", "w") as file:
                file.write("\\n".join([netns_pair.a.ip, netns_pair.a.ip6]))
            assert False
        """,
    )
    result = run("--poor-container", *args)
    result.assert_outcomes(failed=1)
    ip, ip6 = (pytester.path / "addresses").read_text().split()
    result.stdout.fnmatch_lines(
        ["*- poor-container: hosts -*", f"primary: namespaces; {ip}, {ip6}", "replica: namespaces; *"]
    )


def test_passed_tests_and_tests_without_containers_have_no_section(pytester, run):
    """Providers are asked only when a test that needs containers has failed."""
    pytester.makeconftest("def pytest_poor_container_report_sections(item): return [('asked', item.name)]")
    pytester.makepyfile(
        """
        def test_passes(netns_pair): print("shown by -rP")
        def test_other_fails(): assert False
        def test_fails(netns_pair): assert False
        """,
    )
    result = run("--poor-container", "-rA")
    result.assert_outcomes(passed=1, failed=2)
    assert len([line for line in result.outlines if "asked" in line]) == 1
    result.stdout.fnmatch_lines(["*- asked -*", "test_fails"])


def test_a_set_up_that_fails_shows_its_hosts(pytester, run):
    """The report of a set-up that failed later has the hosts that were open by then."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def late(netns_pair):
            raise RuntimeError("too late")

        @pytest.mark.poor_container(hosts=["early", "bird"])
        def test_setup(late): pass
        """,
    )
    result = run("--poor-container")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*too late*", "*- poor-container: hosts -*", "early: *", "bird: *"])


def test_a_section_that_raises_does_not_hide_the_failure(pytester, run):
    """The traceback of the provider becomes a section; the test's own failure is still reported."""
    pytester.makeconftest("def pytest_poor_container_report_sections(item): raise KeyError('no such thing')")
    pytester.makepyfile("def test_fails(netns_pair): assert 1 == 2, 'the reason'")
    result = run("--poor-container")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*the reason*", "*- poor-container: a report section failed -*", "KeyError: 'no such thing'"]
    )


@pytest.mark.parametrize("answer", ["('title', 'text')", "'mine'", "{'mine': 'x'}", "[('mine', None)]", "7"])
def test_a_wrong_answer_does_not_hide_the_failure(pytester, run, answer):
    """What is no list of pairs of texts becomes a section that says so; the failure stays a failure."""
    pytester.makeconftest(f"def pytest_poor_container_report_sections(item): return {answer}")
    pytester.makepyfile("def test_fails(netns_pair): assert 1 == 2, 'the reason'")
    result = run("--poor-container")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*the reason*", "*a report section failed*", "TypeError: *"])


def test_text_that_cannot_be_sent_does_not_end_a_worker(pytester, run):
    """A name that is no UTF-8 comes escaped through pytest-xdist, which cannot carry it as it is."""
    pytester.makeconftest(r"def pytest_poor_container_report_sections(item): return [('mine', 'n\udcff')]")
    pytester.makepyfile("def test_fails(netns_pair): assert 1 == 2, 'the reason'")
    result = run("--poor-container", "-n", "1", plugins=("xdist",))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*n\\udcff*"])
