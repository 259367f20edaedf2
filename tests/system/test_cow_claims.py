"""Where a tree does not protect, as docs/copy-on-write.md says: the original is reached, and the tripwire tells."""
# ruff: noqa: F811 - a test's argument is the fixture of that name

import os
import subprocess

import pytest
from cow_trees import backend, source  # noqa: F401 - fixtures

from pytest_poorcontainer import CowTree, Damaged, Unavailable


@pytest.fixture
def tree(backend, source, tmp_path):
    """Return a tree of the source, which a test may reach."""
    try:
        with CowTree(source, backend=backend, temporary=tmp_path) as made:
            yield made
    except Unavailable as error:
        pytest.skip(str(error))


def test_an_absolute_link_leads_out_of_the_path_alone(tree, source, backend):
    """By os.fspath(tree) it is the original's; tree.open() and, but for copies, the tree's programs stay inside."""
    tree.run(["sh", "-c", "echo tree > VERSION"], check=True)
    assert tree.read_text("absolute") == "tree\n"
    done = tree.run(["cat", "absolute"], capture_output=True, text=True)
    assert done.stdout == ("1\n2\n3\n" if backend == "copy" else "tree\n")
    assert tree.check_original()
    if backend == "preload":
        with pytest.raises(TypeError, match="has no path"):
            os.fspath(tree)
        return
    assert (tree / "absolute").read_text() == "1\n2\n3\n"
    (tree / "absolute").write_text("damage\n")
    assert (source / "VERSION").read_text() == "damage\n"
    with pytest.raises(Damaged, match="VERSION"):
        tree.check_original()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize("backend", ["preload"], indirect=True)
def test_a_bind_mount_of_the_original_is_not_recognised(tree, source, tmp_path):
    """On preload who writes by that other path changes the original, which the tripwire names."""
    other = tmp_path / "other"
    other.mkdir()
    subprocess.run(["mount", "--bind", source, other], check=True)
    try:
        tree.run(["sh", "-c", f"echo damage > {other}/VERSION"], check=True)
    finally:
        subprocess.run(["umount", other], check=True)
    assert (source / "VERSION").read_text() == "damage\n"
    assert tree.diff() == {}
    with pytest.raises(Damaged, match="VERSION"):
        tree.check_original()
