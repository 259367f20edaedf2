"""Commits that must not lose what others have done, and that cannot be finished."""
# ruff: noqa: F811 - a test's argument is the fixture of that name

import errno
import socket

import pytest
from cow_trees import described, shell, source  # noqa: F401 - fixtures

from pytest_poorcontainer import CommitRefused, CowTree, Damaged
from pytest_poorcontainer.cow import commit as commits
from pytest_poorcontainer.cow import permission
from pytest_poorcontainer.errors import LabError


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


def by_mode(self, directory, what):
    """Whether the owner may: what root is not asked."""
    return self._lower.lstat(directory).st_mode >> 6 & what == what


@pytest.mark.parametrize("step", range(9))
def test_directories_that_their_owner_has_closed_are_open_for_the_moment(make, source, monkeypatch, step):
    """Killed after each step of the commit: they have their modes again when it is finished, or were never opened."""

    class Killed(BaseException):
        pass

    monkeypatch.setattr(permission._Look, "_may", by_mode)
    for name in ("data", "sub/deep", "sub"):
        (source / name).chmod(0o555)
    before = described(source)
    tree = make(tripwire=False)
    shell(tree, "chmod 755 data sub/deep; rm data/one; echo new > data/new; rm sub/deep/file; echo f > first")
    shell(tree, "chmod 555 data; chmod 700 sub/deep; echo v > VERSION; mkdir made; echo m > made/m; chmod 500 made")
    expected, left = described(tree), [step]

    def perhaps_killed(real):
        def call(*arguments):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return real(*arguments)

        return call

    with monkeypatch.context() as patched:
        for module, name in ((commits, "_rename"), (commits, "remove"), (commits, "_give_back"), (commits, "_promise")):
            patched.setattr(module, name, perhaps_killed(getattr(module, name)))
        with pytest.raises(Killed):
            tree.commit()
    assert left == [-1] or step == 0
    CowTree(source, backend="copy", temporary=source.parent).close()
    assert not (source / commits.NAME).exists()
    assert described(source) == (expected if step > 0 else before)


def test_a_commit_that_cannot_be_finished_says_so(make, source, monkeypatch):
    """Then, and by every later tree until it can: which original, why, and what to do."""
    tree = make(tripwire=False)
    shell(tree, "echo new > VERSION; echo f > first")

    def fails(*_):
        raise PermissionError(errno.EPERM, "no")

    with monkeypatch.context() as patched:
        patched.setattr(commits, "_rename", fails)
        for use in (tree.commit, make):
            with pytest.raises(LabError, match=r"cannot finish the commit that was interrupted in .*: EPERM") as caught:
                use()
            assert f"rm -r {source}/{commits.NAME}" in str(caught.value)
            assert (source / "VERSION").read_text() == "1\n2\n3\n"
    make()
    assert (source / "VERSION").read_text() == "new\n"
    assert not (source / commits.NAME).exists()
