"""The marker: what is accepted, what each mistake says, whom it fails, and how markers add up."""

from __future__ import annotations

import inspect

import pytest

from pytest_poorcontainer.fixtures import _gate, _marker
from pytest_poorcontainer.machine import LEVELS

KEYS = (
    "; the keys are hosts, topology, name, level, rootfs, readonly, memory, pids, cpu, capabilities, rlimits, "
    "network, mounts"
)
LEVEL_LIST = "; the levels are namespaces, mounts, chroot, ptrace, preload"
MISTAKES = [
    ("hots=['a', 'b']", "hots=: no such key, did you mean 'hosts'?" + KEYS),
    ("xyzzy=1", "xyzzy=: no such key" + KEYS),
    ("topology=7", "topology=: expected the path of a TOML file, absolute or from the rootdir, not 7"),
    ("'a', 'b'", "takes keyword arguments only (hosts, topology, name, level, *), not 'a'"),
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
    ("name='a b'", "name=: 'a b' is no host name*"),
    ("rootfs=3", "rootfs=: expected 'host', the path of a directory or a tarball, a list of programs, *, not 3"),
    ("rootfs=[]", "rootfs=: expected 'host', *, not [[][]]"),
    ("rootfs=['sh', 1]", "rootfs=: expected 'host', *, not [[]'sh', 1[]]"),
    ("rootfs=''", "rootfs=: expected 'host', *, not ''"),
    ("readonly='no'", "readonly=: expected True or False, not 'no'"),
    ("readonly=True", "readonly=True is for rootfs=: *"),
    ("memory='64X'", "memory=: *'64X'*"),
    ("pids=0", "pids=: *0*"),
    ("cpu='2'", "cpu=: *'2'*"),
    ("memory=None", "memory=: expected a value, not None"),
    ("capabilities=['sys_admin']", "capabilities=: a container cannot have the capability 'sys_admin'; *"),
    ("rlimits={'nofiles': 1}", "rlimits=: rlimits: there is no resource 'nofiles'; *"),
    ("network='other'", "network=: network is one of 'none', 'host', not 'other'"),
    ("network='host'", "network='host' is for chroot_env and unshared_mounts: a host of netns_pair has *"),
    ("mounts={}", "mounts=: expected a list of mounts *, not {}"),
    ("mounts=[3]", "mounts=: mount 1: expected a table *, not 3"),
    ("mounts=[{'target': '/a'}]", "mounts=: mount 1: kind is missing; the kinds are bind, *"),
    ("mounts=[{'kind': 'nfs', 'target': '/a'}]", "mounts=: mount 1: 'nfs' is no kind of mount; the kinds are bind, *"),
    ("mounts=[{'kind': 'tmpfs', 'target': 'a'}]", "mounts=: mount 1: target is the absolute path *, not 'a'*"),
    ("mounts=[{'kind': 'tmpfs', 'target': '/a', 'size': '1Q'}]", "mounts=: mount 1: size is a number of bytes*'1Q'*"),
    (
        "mounts=[{'kind': 'tmpfs', 'target': '/a', 'inodes': 0}]",
        "mounts=: mount 1: inodes is a number from 1 up, not 0",
    ),
    (
        "mounts=[{'kind': 'tmpfs', 'target': '/a', 'sise': 1}]",
        "mounts=: mount 1: tmpfs has no 'sise', did you mean 'size'?; it has target, size, *",
    ),
    ("mounts=[{'kind': 'bind', 'target': '/a'}]", "mounts=: mount 1: source is missing: *"),
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
    result.stdout.fnmatch_lines(["poor_container marker* test_marked*: " + message])
    result.stdout.no_fnmatch_line("*COSTLY WAS BUILT*")
    result.stdout.no_fnmatch_line("*Traceback*")


def test_all_mistakes_of_a_test_are_told_at_once(pytester, run):
    """Mistakes in the markers of function, class and module come together, each with its place."""
    pytester.makepyfile(
        test_it="""
        import pytest
        pytestmark = pytest.mark.poor_container(topology=1)

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
            "poor_container marker of test_it.py: topology=: expected the path of a TOML file*",
            "poor_container marker of TestClass: levle=: no such key, did you mean 'level'?*",
            "poor_container marker of test_marked: hosts=: expected two host names, not 0*",
        ],
    )


def test_a_mistake_does_not_stop_collection_or_an_off_run(pytester, run):
    """``--collect-only`` lists such a test, and off skips it like any other."""
    pytester.makepyfile("import pytest\n@pytest.mark.poor_container(hots=[])\ndef test_marked(): pass")
    assert run("--poor-container", "--collect-only").ret == pytest.ExitCode.OK
    run().assert_outcomes(skipped=1)


def merged(pytester: pytest.Pytester, source: str) -> list[tuple[object, object]]:
    """Return the hosts and the level that the markers of each test in ``source`` add up to."""
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")  # else that plugin warns
    found = [_marker.merge(item) for item in pytester.getitems(source)]
    return [(each.hosts, each.level) for each in found]


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
    """Without a marker everything is left to the fixture."""
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    (item,) = pytester.getitems("def test_a(): pass")
    assert set(_marker.merge(item)) == {None}


def test_the_factories_take_what_the_marker_takes():
    """Marker keys, fields of the settings, arguments of the factories and the line of ``--markers`` agree."""
    from pytest_poorcontainer.fixtures import _factory, _network

    kinds = (
        _factory.NetnsFactory,
        _network.NetworkFactory,
        _factory.ChrootEnvFactory,
        _factory.UnsharedMountsFactory,
    )
    pair, whole, *single = (set(inspect.signature(kind.__call__).parameters) - {"self"} for kind in kinds)
    assert list(_marker.KEYS) == list(_marker.Marked._fields)
    assert pair == set(_marker.KEYS) - {"name", "network", "topology"}
    assert whole == set(_marker.KEYS) - {"name", "network", "hosts"}
    assert single == [set(_marker.KEYS) - {"hosts", "topology"}] * 2
    for word in (*_marker.KEYS, *LEVELS):
        assert word in _gate.MARKER_LINE


def test_the_keys_of_a_container_are_its_arguments():
    """Every argument of ``Container`` but its name and the text of a file is a key of the marker."""
    from pytest_poorcontainer import Container

    arguments = set(inspect.signature(Container).parameters) - {"name", "hosts_text"}
    assert set(_marker.CONTAINER_KEYS) == arguments
