"""The same operations below the net: with the library above it, and by a static program, which the net serves alone."""
# ruff: noqa: F811 - a test's argument is the fixture of that name

import os
import re
import subprocess

import pytest
from cow_case import Case, compiled, config, copy, library_environment, run
from test_cow_matrix import NAMES, SOURCES, outcome, pattern  # noqa: F401 - a fixture

from pytest_poorcontainer import native

KNOWN = {
    # A directory that has gone from the view is still the process's current one for the kernel; only its paths fail.
    "chdir_removed": (r"getcwd\(.*\) != NULL: 0", r"getcwd\(.*\) != NULL: 1"),
    # Nor does it go along when its current directory, of the lower, is renamed: the copy in upper is another one.
    "rename_dir_cwd": (r'strcmp\(getcwd.*, "/moved"\): 0|cat f1: \[one|\]', r"strcmp\(getcwd.*: -\d+|cat f1: ENOENT"),
    # The kernel lets a signal interrupt a call that the supervisor has not taken up yet: EINTR, and nothing is done.
    "signals": (r"list dir:.*", r"list dir:( \./4 \.\./4 f1/8 f2/8| s\d+/8| sub/4)*|\./dir/s\d+ .* size 0 .*"),
}
"""What a static program sees otherwise than on a plain copy: the lines that it prints there, and those it prints here.

They are in docs/copy-on-write.md too. None of it reaches the original.
"""
pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Return the operations as a dynamic and as a static program."""
    where = tmp_path_factory.mktemp("ops")
    dynamic = compiled(where / "cow_ops", SOURCES)
    try:
        return {"dynamic": dynamic, "static": compiled(where / "cow_ops_static", SOURCES, "-static")}
    except subprocess.CalledProcessError:
        return {"dynamic": dynamic}


def below_the_net(case, program, name, *, library):
    """Run an operation below the net."""
    tree = {"mount": case.lower, "upper": case.upper, "work": case.work, "lower": case.lower}
    case.config.write_bytes(config(tree, net="1"))
    environment = {**library_environment(), "POOR_CONTAINER_COW": case.config} if library else {}
    view = [f"{key}={value}" for key, value in environment.items()]
    start = [native.program("pccow"), "--net", "required", "--config", case.config, "--", "env", *view]
    return run((*start, program, "run", name), cwd=case.lower, env=dict(os.environ), timeout=20)


def check(programs, pattern, tmp_path, kind, name):
    """Compare an operation below the net with a plain copy."""
    if kind not in programs:
        pytest.skip("no static C library: apt install libc6-dev")
    plain, case = copy(pattern, tmp_path / "plain"), Case.of(copy(pattern, tmp_path / "lower"), tmp_path / "beside")
    expected = outcome(run((programs["dynamic"], "run", name), cwd=plain), plain)
    try:
        done = below_the_net(case, programs[kind], name, library=kind == "dynamic")
    finally:
        assert case.damage() == []
    assert outcome(done, case.lower) == expected
    assert case.run(programs["dynamic"], "view").stdout == run((programs["dynamic"], "view"), cwd=plain).stdout


@pytest.mark.parametrize("name", NAMES)
def test_with_the_library_an_operation_is_as_on_a_plain_copy(programs, pattern, tmp_path, name):
    """Above the net the library does what it does without one."""
    check(programs, pattern, tmp_path, "dynamic", name)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in KNOWN])
def test_a_static_programs_operation_is_as_on_a_plain_copy(programs, pattern, tmp_path, name):
    """Every call of a program that no library can be loaded into is served by the net."""
    check(programs, pattern, tmp_path, "static", name)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_what_a_static_program_sees_otherwise(programs, pattern, tmp_path, name):
    """The three operations that differ below the net alone differ by these lines, and leave the lower as it was."""
    if "static" not in programs:
        pytest.skip("no static C library: apt install libc6-dev")
    plain, case = copy(pattern, tmp_path / "plain"), Case.of(copy(pattern, tmp_path / "lower"), tmp_path / "beside")
    expected = outcome(run((programs["dynamic"], "run", name), cwd=plain), plain)
    got = outcome(below_the_net(case, programs["static"], name, library=False), case.lower)
    assert case.damage() == []
    assert (got[0], got[2]) == (expected[0], expected[2])
    view, plain_view = (
        run((programs["dynamic"], "view"), cwd=where, env=env).stdout
        for where, env in ((case.lower, case.env), (plain, None))
    )
    plainly, here = (
        [*said.splitlines(), *seen.splitlines()] for said, seen in ((expected[1], plain_view), (got[1], view))
    )
    missing, more = ([line for line in one if line not in other] for one, other in ((plainly, here), (here, plainly)))
    assert more or name == "signals"  # which not every run's signals hit
    assert [line for line in missing if not re.fullmatch(KNOWN[name][0], line)] == []
    assert [line for line in more if not re.fullmatch(KNOWN[name][1], line)] == []
