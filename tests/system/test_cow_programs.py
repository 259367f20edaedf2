"""Real programs in a tree: what they leave there is what they leave in a plain copy, and the original is as it was."""
# ruff: noqa: F811 - a test's argument is the fixture of that name

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cow_trees import backend, described, make  # noqa: F401 - fixtures

SCRIPTS = sorted((Path(__file__).parent / "cow_programs").glob("*.sh"))


def fill(directory):
    """Make the original."""
    (directory / "d/sub").mkdir(parents=True)
    for name in ("a", "d/x", "d/y", "d/sub/z"):
        (directory / name).write_text(f"one {name}\n" * 20)
        os.utime(directory / name, (1_000_000_000, 1_000_000_000))


def installed(need):
    """Return whether a program is there, or a module of this Python."""
    _, colon, name = need.rpartition(":")
    return importlib.util.find_spec(name) is not None if colon else shutil.which(need) is not None


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_program_does_the_same_in_a_tree(make, tmp_path, script, backend):
    """The same files, modes and contents, the same output and status as on a plain copy."""
    text = script.read_text()
    missing = [need for need in text.splitlines()[0].split()[2:] if not installed(need)]
    if missing:
        pytest.skip(f"not installed here: {', '.join(missing)}")
    source, plain, changes = tmp_path / "source", tmp_path / "plain", tmp_path / "changes"
    fill(source)
    before = described(source)
    options = {"capture_output": True, "text": True, "timeout": 100}
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LANG": "C.UTF-8", "PYTHON": sys.executable}
    argv = ["sh", "-ec", f"umask 022\n{text}"]
    # At the path that the tree will have, which programs write into files: a clone's origin, a console script's Python.
    where = changes / "upper" if backend == "copy" else source
    original = source.rename(tmp_path / "original")
    shutil.copytree(original, where)
    expected = subprocess.run(argv, cwd=where, env=environment, stdin=subprocess.DEVNULL, check=False, **options)
    where.rename(plain)
    original.rename(source)
    if backend == "copy":
        changes.rmdir()
    tree = make(source, upper=changes)
    done = tree.run(argv, env=environment, **options)
    assert (done.returncode, done.stdout, done.stderr) == (expected.returncode, expected.stdout, expected.stderr)
    assert expected.returncode == 0
    if backend == "preload":
        assert tree.refused == []
    changed = {path for path, kind in described(plain).items() if before.get(path) != kind}
    gone = set(before) - set(described(plain))
    assert set(tree.diff()) == changed | gone
    for path in changed:
        if (plain / path).is_file() and not (plain / path).is_symlink():
            assert tree.read_bytes(path) == (plain / path).read_bytes(), path
    assert described(source) == before
