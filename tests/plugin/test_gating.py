"""Off, on, require: which tests run, which are skipped, and what the last line says."""

from __future__ import annotations

import pytest

from pytest_poorcontainer.fixtures import _gate

OFF = "skipped because it is off; --poor-container runs them"
MIXED = """
    import pytest

    @pytest.fixture(scope="session")
    def costly():
        print("COSTLY WAS BUILT")

    @pytest.fixture
    def through(netns_pair):
        return netns_pair

    def test_plain(): pass
    def test_direct(costly, netns_pair): pass
    def test_through(costly, through): pass
    def test_factory(costly, netns_factory): pass
    @pytest.mark.poor_container
    def test_marked(costly): print("MARKED RAN")
    @pytest.mark.usefixtures("netns_pair")
    class TestClass:
        def test_method(self, costly): pass
"""


def test_off_is_the_default_and_skips_what_needs_containers(pytester, run):
    """Without a flag, tests that use a fixture of ours, directly or not, or the marker, are skipped, the others run."""
    pytester.makepyfile(MIXED)
    result = run()
    result.assert_outcomes(passed=1, skipped=5)


def test_off_builds_no_other_fixture(pytester, run):
    """The decision falls before any fixture that the skipped test also asks for is set up."""
    pytester.makepyfile(MIXED)
    result = run("-s")
    result.assert_outcomes(passed=1, skipped=5)
    result.stdout.no_fnmatch_line("*COSTLY WAS BUILT*")


@pytest.mark.parametrize("args", [(), ("-q",), ("-qq",), ("-v",), ("-ra",), ("-n2",), ("-n2", "-q")])
def test_one_last_line_tells_how_many_and_which_flag(pytester, run, args):
    """The line comes once, after every summary, at each verbosity and also when xdist's workers did the skipping."""
    pytester.makepyfile(MIXED)
    result = run(*args)
    lines = [line for line in result.outlines if line.strip()]
    ours = [number for number, line in enumerate(lines) if "poor-container: " in line and "--poor-container" in line]
    assert len(ours) == 1
    assert lines[ours[0]] == f"poor-container: 5 tests were {OFF}"
    assert len(lines) - ours[0] <= 2, "only pytest's own count may follow"


def test_the_line_counts_one_in_the_singular(pytester, run):
    """One test is "1 test was"."""
    pytester.makepyfile("def test_pair(netns_pair): pass")
    run("-q").stdout.fnmatch_lines(["poor-container: 1 test was skipped because it is off; --poor-container runs them"])


def test_other_skips_are_not_ours(pytester, run):
    """A skip for another reason is not counted, and without any of ours there is no line at all."""
    pytester.makepyfile("import pytest\ndef test_skipped(): pytest.skip('poor me')")
    result = run("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.no_fnmatch_line("*poor-container*")


@pytest.mark.parametrize("name", sorted(_gate.FIXTURES))
def test_getfixturevalue_is_gated_too(pytester, run, name):
    """A fixture that collection could not see skips its test when off, and is counted."""
    pytester.makepyfile(f"def test_dynamic(request): request.getfixturevalue({name!r}); raise RuntimeError")
    result = run("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["poor-container: 1 test was skipped*"])


def test_marker_added_by_a_conftest_at_collection_counts(pytester, run):
    """A conftest that marks tests at collection is heard, although it was loaded after us."""
    pytester.makeconftest(
        """
        import pytest
        def pytest_collection_modifyitems(items):
            for item in items:
                item.add_marker(pytest.mark.poor_container)
        """,
    )
    pytester.makepyfile("def test_a(): raise RuntimeError")
    run().assert_outcomes(skipped=1)


@pytest.mark.parametrize(
    ("args", "environment", "ini", "expected"),
    [
        ((), None, None, "off"),
        ((), None, "on", "on (ini key poor_container)"),
        ((), None, "require", "require (ini key poor_container)"),
        ((), "on", None, "on (environment variable POOR_CONTAINER)"),
        ((), "", "on", "on (ini key poor_container)"),
        ((), "off", "on", "off"),
        ((), "require", "off", "require (environment variable POOR_CONTAINER)"),
        (("--poor-container",), "off", "off", "on (command line)"),
        (("--poor-container-require",), "off", "on", "require (command line)"),
        (("--no-poor-container",), "on", "require", "off"),
        (("--poor-container", "--no-poor-container"), None, None, "off"),
        (("--no-poor-container", "--poor-container"), None, None, "on (command line)"),
        (("--poor-container-require", "--poor-container"), None, None, "require (command line)"),
        (("--poor-container-require", "--no-poor-container"), None, None, "off"),
        (("-o", "poor_container=on"), None, "off", "on (ini key poor_container)"),
    ],
)
def test_flag_beats_environment_beats_ini(pytester, run, monkeypatch, args, environment, ini, expected):
    """The header names the mode and who set it; off has no header, and then the marked test is skipped."""
    pytester.makepyfile(MIXED)
    if environment is not None:
        monkeypatch.setenv("POOR_CONTAINER", environment)
    if ini is not None:
        pytester.makeini(f"[pytest]\npoor_container = {ini}\n")
    result = run(*args, "-k", "plain or marked")
    if expected == "off":
        result.assert_outcomes(passed=1, skipped=1)
        assert not [line for line in result.outlines if line.startswith("poor-container: o")]
    else:
        result.assert_outcomes(passed=2)
        assert [line for line in result.outlines if "poor-container" in line] == [f"poor-container: {expected}"]


@pytest.mark.parametrize(
    ("where", "name"), [("env", "environment variable POOR_CONTAINER"), ("ini", "ini key poor_container")]
)
def test_a_value_that_is_none_of_the_three_is_a_usage_error(pytester, run, monkeypatch, where, name):
    """The message names the place, the value and the right ones, and no test runs."""
    pytester.makepyfile("def test_a(): pass")
    if where == "env":
        monkeypatch.setenv("POOR_CONTAINER", "yes")
    else:
        pytester.makeini("[pytest]\npoor_container = yes\n")
    result = run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {name}: 'yes' is none of off, on, require"])


def test_workers_do_what_the_controller_decided(pytester, run, monkeypatch):
    """A worker whose environment says otherwise (as on another machine) still follows the controller."""
    pytester.makeconftest(
        """
        import os
        def pytest_configure_node(node):
            node.gateway.remote_exec("import os; os.environ['POOR_CONTAINER'] = 'off'").waitclose()
        """,
    )
    pytester.makepyfile(
        """
        import os, pytest
        @pytest.mark.poor_container
        def test_marked(): assert os.environ["POOR_CONTAINER"] == "off"
        """,
    )
    monkeypatch.setenv("POOR_CONTAINER", "on")
    run("-n1").assert_outcomes(passed=1)


def test_pytest_lists_marker_flags_and_fixtures(pytester, run):
    """``--markers``, ``--help`` and ``--fixtures -v`` tell a newcomer what there is, with examples."""
    marker = run("--markers").stdout.str()
    assert "@pytest.mark.poor_container(hosts=[name, name], topology=file, level=name, " in marker
    listing = run("--help").stdout.str()
    assert "--poor-container-require" in listing
    assert "poor_container (string):" in listing
    fixtures = run("--fixtures", "-v").stdout.str()
    for name, example in (
        ("netns_pair", "primary, replica = netns_pair"),
        ("netns_factory", "with netns_factory(hosts="),
        ("network", "nodes = network.lan(5)"),
        ("network_factory", "with network_factory(memory="),
        ("chroot_env", 'chroot_env.write("/etc/app.conf"'),
        ("chroot_env_factory", "with chroot_env_factory(rootfs="),
        ("unshared_mounts", 'unshared_mounts.tmpfs("/var/lib/app"'),
        ("unshared_mounts_factory", "unshared_mounts_factory(name="),
    ):
        assert example in fixtures[fixtures.index(f"\n{name}") :]
