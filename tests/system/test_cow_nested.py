"""Trees of tests that run in a tree themselves, all of the backend preload: one net below all of them."""

import contextlib
import sys

import pytest

from pytest_poorcontainer import CowTree, Unavailable

INNER = """
import sys
from pytest_poorcontainer import CowTree

for place in sys.argv[1:]:
    with CowTree(place, backend="preload") as tree:
        assert "a net below it" in tree.trust, tree.trust
        script = "echo inner >>file; cat file; rm gone"
        done = tree.run(["sh", "-c", script], capture_output=True, text=True, check=True)
        print(done.stdout.split(), tree.diff())
    print(sorted(path.name for path in __import__("pathlib").Path(place).iterdir()))
"""


@contextlib.contextmanager
def tree_with_a_net(path):
    """Give a tree on preload that the net holds; skip the test where there is none."""
    try:
        outer = CowTree(path, backend="preload")
    except Unavailable as error:
        pytest.skip(str(error))
    with outer:
        if "a net below it" not in outer.trust:
            pytest.skip(outer.trust)
        yield outer


def test_a_test_in_a_tree_has_trees_of_its_own(tmp_path):
    """A program in a tree makes trees of its own directory and of another: each shows what it is on, and ends alone."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(f"{name}\n")
        (tmp_path / name / "gone").touch()
    with tree_with_a_net(tmp_path / "one") as outer:
        outer.run(["sh", "-c", "echo outer >>file"], check=True)
        argv = [sys.executable, "-c", INNER, tmp_path / "one", tmp_path / "two"]
        done = outer.run(list(map(str, argv)), capture_output=True, text=True, check=True)
        diff = "{'file': 'modified', 'gone': 'deleted'}"
        left = "['file', 'gone']"
        expected = [f"['one', 'outer', 'inner'] {diff}", left, f"['two', 'inner'] {diff}", left]
        assert done.stdout.splitlines() == expected
        assert outer.diff() == {"file": "modified"}
        assert outer.read_text("file") == "one\nouter\n"
    assert [(tmp_path / name / "file").read_text() for name in ("one", "two")] == ["one\n", "two\n"]


ABOVE = """
import sys
from pytest_poorcontainer import CowTree, Unavailable

place, other = sys.argv[1:]
try:
    CowTree(place, backend="preload")
except Unavailable as error:
    print("Invalid cross-device link" in str(error))
with CowTree(place, temporary=other, tripwire=False) as tree:
    print(tree.backend != "preload")
with CowTree(other, backend="preload") as tree:
    print("a net below it" in tree.trust, tree.run(["cat", "file"], capture_output=True, text=True).stdout.strip())
"""


def test_a_tree_that_the_net_does_not_take_in_is_refused(tmp_path):
    """One above the outer tree: it says why, "auto" takes another backend, and the trees after it have the net."""
    (tmp_path / "place/in").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    for directory in (tmp_path / "place/in", tmp_path / "other"):
        (directory / "file").write_text(f"{directory.name}\n")
    with tree_with_a_net(tmp_path / "place/in") as outer:
        argv = [sys.executable, "-c", ABOVE, str(tmp_path / "place"), str(tmp_path / "other")]
        done = outer.run(argv, capture_output=True, text=True)
        assert done.stderr == ""
        assert done.stdout.splitlines() == ["True", "True", "True other"]
