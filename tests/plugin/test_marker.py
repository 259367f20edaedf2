"""The marker: what is accepted, what each mistake says, whom it fails, and how markers add up."""

from __future__ import annotations

import inspect

import pytest

from pytest_poorcontainer.fixtures import _gate, _marker
from pytest_poorcontainer.machine import LEVELS

KEYS = "; the keys are hosts, level"
LEVEL_LIST = "; the levels are namespaces, mounts, chroot, ptrace, preload"
MISTAKES = [
    ("hots=['a', 'b']", "hots=: no such key, did you mean 'hosts'?" + KEYS),
    ("xyzzy=1", "xyzzy=: no such key" + KEYS),
    ("memory='64M'", "memory=: not in this version" + KEYS),
    ("rootfs='x'", "rootfs=: not in this version*"),
    ("topology='x'", "topology=: not in this version*"),
    ("pids=1", "pids=: not in this version*"),
    ("cpu=1", "cpu=: not in this version*"),
    ("'a', 'b'", "takes keyword arguments only (hosts, level), not 'a'"),
    ("hosts='ab'", "hosts=: expected a list of two host names, not 'ab'"),
    ("hosts=None", "hosts=: expected a list of two host names, not None"),
    ("hosts=['a']", "hosts=: expected two host names, not 1: *"),
    ("hosts=['a', 'b', 'c']", "hosts=: expected two host names, not 3: *"),
    ("hosts=['a', 'A']", "hosts=: two hosts of one name: 'a'"),
    ("hosts=['a', 1]", "hosts=: a container's name is a str, not int: 1"),
    ("hosts=['a', '']", "hosts=: '' is no host name*"),
    ("hosts=['a', 'b_c']", "hosts=: 'b_c' is no host name*"),
    ("hosts=['a', '-b']", "hosts=: '-b' is no host name*"),
    ("hosts=['a', 'b.']", "hosts=: 'b.' is no host name*"),
    ("hosts=['a', 'b\\n']", "hosts=: 'b\\n' is no host name*"),
    ("hosts=['a', 'b' * 64]", "hosts=: *is no host name*"),
    ("hosts=['a', 'b.' * 32 + 'c']", "hosts=: *is no host name*"),
    ("level='namespace'", "level=: 'namespace' is no level, did you mean 'namespaces'?" + LEVEL_LIST),
    ("level=3", "level=: 3 is no level" + LEVEL_LIST),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_a_mistake_is_named_and_fails_its_own_test_only(pytester, run, arguments, message):
    """The error names place, key and the nearest right one; no fixture of the test is built, other tests run."""
    pytester.makepyfile(
        f"""
        import pytest

        @pytest.fixture
        def costly():
            print("COSTLY WAS BUILT")

        @pytest.mark.poor_container({arguments})
        def test_marked(costly, netns_pair): raise RuntimeError

        @pytest.mark.poor_container(hosts=["a", "b"], level="preload")
        def test_other(): pass
        """,
    )
    result = run("--poor-container", "-s")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["poor_container marker of test_marked: " + message])
    result.stdout.no_fnmatch_line("*COSTLY WAS BUILT*")
    result.stdout.no_fnmatch_line("*Traceback*")


def test_all_mistakes_of_a_test_are_told_at_once(pytester, run):
    """Mistakes in the markers of function, class and module come together, each with its place."""
    pytester.makepyfile(
        test_it="""
        import pytest
        pytestmark = pytest.mark.poor_container(cpu=1)

        @pytest.mark.poor_container(levle="mounts")
        class TestClass:
            @pytest.mark.poor_container(hosts=[])
            def test_marked(self): pass
        """,
    )
    result = run("--poor-container")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "poor_container marker of test_it.py: cpu=: not in this version*",
            "poor_container marker of TestClass: levle=: no such key, did you mean 'level'?*",
            "poor_container marker of test_marked: hosts=: expected two host names, not 0*",
        ],
    )


def test_a_mistake_does_not_stop_collection_or_an_off_run(pytester, run):
    """``--collect-only`` lists such a test, and off skips it like any other."""
    pytester.makepyfile("import pytest\n@pytest.mark.poor_container(hots=[])\ndef test_marked(): pass")
    assert run("--poor-container", "--collect-only").ret == pytest.ExitCode.OK
    run().assert_outcomes(skipped=1)


def merged(pytester: pytest.Pytester, source: str) -> list[_marker.Settings]:
    """Return what the markers of each test in ``source`` add up to."""
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")  # else that plugin warns
    return [_marker.merge(item) for item in pytester.getitems(source)]


def test_markers_add_up_by_key_and_the_closest_wins(pytester):
    """The function's key beats the class's, which beats the module's; keys nobody repeats stay."""
    source = """
        import pytest
        pytestmark = pytest.mark.poor_container(hosts=["m", "n"], level="chroot")

        @pytest.mark.poor_container(hosts=["c", "d"])
        class TestClass:
            def test_class_wins(self): pass
            @pytest.mark.poor_container(hosts=["f", "g"], level="mounts")
            def test_function_wins(self): pass

        def test_module(): pass
    """
    assert merged(pytester, source) == [(["c", "d"], "chroot"), (["f", "g"], "mounts"), (["m", "n"], "chroot")]


def test_a_derived_class_and_a_param_count_as_closer(pytester):
    """A class's own marker beats its base class's, a ``pytest.param`` mark beats its function's."""
    source = """
        import pytest

        @pytest.mark.poor_container(hosts=["a", "b"], level="chroot")
        class Base:
            def test_method(self): pass

        @pytest.mark.poor_container(hosts=["c", "d"])
        class TestDerived(Base): pass

        @pytest.mark.poor_container(hosts=["a", "b"], level="mounts")
        @pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.poor_container(hosts=["p", "q"])), 2])
        def test_param(n): pass
    """
    assert merged(pytester, source) == [(["c", "d"], "chroot"), (["p", "q"], "mounts"), (["a", "b"], "mounts")]


def test_nothing_marked_is_nothing_set(pytester):
    """Without a marker hosts and level are left to the fixture."""
    assert merged(pytester, "def test_a(): pass") == [(None, None)]


def test_the_factory_takes_what_the_marker_takes():
    """Marker keys, fields of the settings, arguments of ``netns_factory`` and the line of ``--markers`` agree."""
    from pytest_poorcontainer.fixtures._factory import NetnsFactory

    arguments = list(inspect.signature(NetnsFactory.__call__).parameters)[1:]
    assert list(_marker.KEYS) == arguments == list(_marker.Settings._fields)
    for word in (*_marker.KEYS, *LEVELS):
        assert word in _gate.MARKER_LINE
    assert not set(_marker.LATER) & set(_marker.KEYS)
