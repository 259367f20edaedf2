"""Commits that must not lose what others have done, and that cannot be finished."""
# ruff: noqa: F811 - a test's argument is the fixture of that name

import socket

import pytest
from cow_trees import described, shell, source  # noqa: F401 - fixtures

from pytest_poorcontainer import CommitRefused, CowTree, Damaged


@pytest.fixture
def make(source, tmp_path):
    """Return a function that makes a tree of the source on the one backend that works everywhere."""
    made = []

    def make(upper=None, **options):
        made.append(CowTree(source, backend="copy", temporary=tmp_path, upper=upper, **options))
        return made[-1]

    yield make
    for tree in made:
        tree.close()


@pytest.mark.parametrize("again", [False, True], ids=["the same tree", "a later tree"])
def test_a_partial_commit_lets_no_other_change_be_lost(make, source, tmp_path, again):
    """With an upper: what somebody else changed before is refused later too, what this tree has committed is not."""
    tree = make(tmp_path / "changes", tripwire=False)
    shell(tree, "echo mine > VERSION; echo mine > data/one")
    (source / "VERSION").write_text("theirs")
    tree.commit(["data/one"])
    if again:
        tree.close()
        tree = make(tmp_path / "changes", tripwire=False)
    with pytest.raises(CommitRefused) as caught:
        tree.commit(["VERSION"])
    assert caught.value.paths == ["VERSION"]
    assert (source / "VERSION").read_text() == "theirs"
    shell(tree, "echo more >> data/one; chmod 700 data")
    assert set(tree.commit(["data"])) == {"data", "data/one"}
    shell(tree, "rm -r data")
    tree.commit(["data"])
    assert not (source / "data").exists()


def test_what_another_tree_has_committed_is_not_overwritten(make, source):
    """It is no damage to the original, but as new to this tree as what anybody else has done."""
    one, other = make(), make()
    shell(one, "echo one > VERSION")
    shell(other, "echo other > VERSION")
    one.commit()
    with pytest.raises(CommitRefused):
        other.commit()
    assert (source / "VERSION").read_text() == "one\n"
    assert other.check_original()


def test_a_commit_that_fails_is_no_damage(make, source):
    """What cannot be committed leaves nothing behind, and the tripwire knows who has been there; others it tells."""
    tree = make()
    shell(tree, "echo new > VERSION")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tree / "z.socket"))
    before = described(source)
    with pytest.raises(OSError, match="a socket cannot be committed"):
        tree.commit()
    assert described(source) == before
    assert tree.check_original()
    (source / "theirs").touch()
    with pytest.raises(OSError, match="a socket cannot be committed"):
        tree.commit(["z.socket"])
    with pytest.raises(Damaged) as caught:
        tree.check_original()
    assert caught.value.paths == [str(source), str(source / "theirs")]
