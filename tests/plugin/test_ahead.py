"""Pairs that are built ahead for the tests to come: how many, under which names, and when not."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.poor_container

COUNTS = """
    import pytest

    @pytest.mark.parametrize(("number", "expected"), enumerate({expected}))
    def test_counted(netns_factory, netns_pair, number, expected):
        assert netns_factory.prefetched == expected
        assert netns_pair.a.run(["hostname"], capture_output=True, text=True).stdout == "a\\n"
"""


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), [2, 2, 1, 0]),
        (("--poor-container-prefetch=1",), [1, 1, 1, 0]),
        (("--poor-container-prefetch=0",), [0, 0, 0, 0]),
        (("-o", "poor_container_prefetch=0"), [0, 0, 0, 0]),
    ],
)
def test_as_many_are_built_as_are_going_to_be_wanted(pytester, run, flags, expected):
    """While a test runs there are pairs for the next ones, no more than asked for, and at the end none."""
    pytester.makepyfile(COUNTS.format(expected=expected))
    run("--poor-container", *flags).assert_outcomes(passed=4)


def test_only_tests_that_will_get_a_pair_count(pytester, run):
    """Nothing is built for tests without the fixture, for skipped ones, or for those whose marker is wrong."""
    pytester.makepyfile(
        """
        import pytest

        def test_first(netns_factory, netns_pair):
            assert netns_factory.prefetched == 0

        def test_without(): pass

        @pytest.mark.skip(reason="so")
        def test_skipped(netns_pair): pass

        @pytest.mark.poor_container(hostz=[])
        def test_mistaken(netns_pair): pass
        """,
    )
    run("--poor-container").assert_outcomes(passed=2, skipped=1, errors=1)


def test_the_next_test_finds_its_own_names(pytester, run):
    """A pair is built under the names that the marker of its test gives, whatever the ones before were called."""
    pytester.makepyfile(
        """
        import pytest

        seen = []

        @pytest.mark.parametrize(
            "names",
            [pytest.param(names, marks=pytest.mark.poor_container(hosts=list(names))) for names in ("ab", "cd", "ef")],
        )
        def test_names(netns_pair, names):
            for host, name in zip(netns_pair, names):
                assert host.name == name
                assert host.run(["hostname"], capture_output=True, text=True).stdout == name + "\\n"
                assert host.pid not in seen
                seen.append(host.pid)
        """,
    )
    run("--poor-container").assert_outcomes(passed=3)


def test_workers_build_ahead_too(pytester, run):
    """Under pytest-xdist each worker builds for the one test that it knows to come."""
    pytester.makepyfile(
        """
        import pytest

        counts = []

        @pytest.mark.parametrize("number", range(12))
        def test_some(netns_factory, netns_pair, number):
            counts.append(netns_factory.prefetched)
            assert counts[-1] <= 1
            if len(counts) == 4:
                assert 1 in counts
        """,
    )
    run("--poor-container", "-n", "2", plugins=("xdist",)).assert_outcomes(passed=12)


def test_nothing_of_it_is_left(pytester, run):
    """A run that stops at its first failure ends what it had built ahead."""
    pytester.makepyfile(
        """
        import pathlib, pytest
        from pytest_poorcontainer.lab.client import Lab

        @pytest.mark.parametrize("number", range(5))
        def test_some(netns_factory, netns_pair, number):
            assert netns_factory.prefetched == 2
            pathlib.Path("lab").write_text(str(Lab.current().pid))
            assert number == 0
        """,
    )
    run("--poor-container", "-x", subprocess=True).assert_outcomes(passed=1, failed=1)
    lab = int((pytester.path / "lab").read_text())
    with pytest.raises((FileNotFoundError, ProcessLookupError)):
        Path(f"/proc/{lab}/exe").readlink()


def test_nothing_is_built_at_the_cost_of_somebody_elses_lab(pytester, run):
    """A test that has a lab of other directories keeps it, whatever the next test wants."""
    pytester.makepyfile(
        """
        import pytest
        from pytest_poorcontainer.lab import Lab

        @pytest.fixture
        def own():
            Lab.close_current()
            yield Lab.current()
            Lab.close_current()

        def test_first(netns_pair): pass

        def test_own(own):
            assert own.alive()

        def test_last(netns_pair): pass
        """,
    )
    run("--poor-container").assert_outcomes(passed=3)
