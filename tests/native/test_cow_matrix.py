"""Every operation that libpccow has to know, one by one: as on a plain copy, and nothing of it reaches the original."""

import subprocess
from pathlib import Path

import pytest
from cow_case import HERE, Case, compiled, copy, fill, run

SOURCES = sorted((HERE / "cow_ops").glob("*.c"))
NAMES = [
    line[3 : line.index(")")] for path in SOURCES for line in path.read_text().splitlines() if line.startswith("OP(")
]


@pytest.fixture(scope="module")
def ops(tmp_path_factory):
    """Return the compiled operations."""
    return compiled(tmp_path_factory.mktemp("ops") / "cow_ops", SOURCES)


@pytest.fixture(scope="module")
def pattern(tmp_path_factory):
    """Return a filled directory, to be copied for each test."""
    return fill(tmp_path_factory.mktemp("pattern") / "tree")


def test_the_program_has_all_operations(ops):
    """The tests below are the operations of the compiled program, none left out."""
    assert sorted(run((ops, "list")).stdout.split()) == sorted(NAMES)
    assert len(NAMES) > 150


def outcome(done, root):
    """Return what a program has said, without the place where its tree lies."""
    return done.returncode, done.stdout.replace(str(root), "TREE"), done.stderr.replace(str(root), "TREE")


@pytest.mark.parametrize("name", NAMES)
def test_an_operation_is_as_on_a_plain_copy(name, ops, pattern, tmp_path):
    """Result, errno and the tree as a later process sees it are a plain copy's; no inode of the lower has changed."""
    plain = copy(pattern, tmp_path / "plain")  # of the same length as "lower": some operations write their own path
    case = Case.of(copy(pattern, tmp_path / "lower"), tmp_path / "beside")
    expected = outcome(run((ops, "run", name), cwd=plain), plain)
    assert outcome(case.run(ops, "run", name), case.lower) == expected
    assert case.damage() == []
    assert case.run(ops, "view").stdout == run((ops, "view"), cwd=plain).stdout
    left = [path.name for path in (case.work / "tmp").iterdir()]
    assert left == []


def test_the_view_of_an_untouched_tree_is_the_lower(ops, pattern, tmp_path):
    """Before anything has changed, all that can be seen is the lower's, and upper is empty."""
    case = Case.of(copy(pattern, tmp_path / "t"), tmp_path / "beside")
    assert case.run(ops, "view").stdout == run((ops, "view"), cwd=pattern).stdout
    assert list(case.upper.iterdir()) == []


def test_a_configuration_that_cannot_be_used_stops_the_program(tmp_path):
    """Without its configuration no program runs: it would work on the original."""
    case = Case.of(fill(tmp_path / "t"), tmp_path / "beside")
    for text in (b"", b"version=2\0", b"version=1\0tree=relative\0", case.config.read_bytes()[:-1]):
        case.config.write_bytes(text)
        done = case.run("touch", "a.txt")
        assert done.returncode == 126
        assert "libpccow: cannot use the configuration" in done.stderr
    case.config.unlink()
    assert case.run("touch", "a.txt").returncode == 126
    assert case.damage() == []


def test_a_static_program_is_refused_without_the_net(tmp_path):
    """A static program would go past the library, so exec of it fails, and the log names it."""
    source = tmp_path / "static.c"
    source.write_text("int main(void) { return 0; }\n")
    try:
        program = compiled(tmp_path / "static", [source], "-static")
    except subprocess.CalledProcessError:
        pytest.skip("no static C library: apt install libc6-dev")
    case = Case.of(fill(tmp_path / "t"), tmp_path / "beside")
    assert run((program,)).returncode == 0
    done = case.run("sh", "-c", f"exec {program}")
    assert done.returncode == 126
    assert "static program" in Path(tmp_path / "beside" / "refused").read_text()
