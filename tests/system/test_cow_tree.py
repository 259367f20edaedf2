"""Copy-on-write trees on each backend: the same commands, the same words, the same results."""
# ruff: noqa: F811 - a test's argument is the fixture of that name

import contextlib
import os
import stat
import subprocess
import sys
import tarfile
import time
import uuid
from pathlib import Path

import pytest
from cow_trees import CONTENT, backend, described, links_stay_whole, make, shell, source, tree  # noqa: F401 - fixtures

from pytest_poorcontainer import CommitRefused, Container, CowTree, UsageError
from pytest_poorcontainer.cow import commit as commits


def test_commands_change_the_tree_and_not_the_original(tree, source):
    """A script of the directory's own runs in it; the difference says what it did, and the original knows nothing."""
    before = described(source)
    assert tree.run(["./upgrade.sh"], capture_output=True, text=True, check=True).stdout == "done\n"
    assert tree.diff() == {"VERSION": "modified", "old.db": "deleted", "new.db": "added"}
    tree.assert_only_changed("VERSION", "*.db")
    assert described(source) == before


def test_a_failed_expectation_shows_the_difference(tree):
    """What nobody expected is named, with the lines that differ."""
    tree.run(["./upgrade.sh"], capture_output=True, check=True)
    with pytest.raises(AssertionError) as caught:
        tree.assert_only_changed("*.db")
    assert "1 path of" in str(caught.value)
    for line in ("modified VERSION", "-1", "-3", "2"):
        assert line in str(caught.value)
    with pytest.raises(AssertionError, match="3 paths"):
        tree.assert_unchanged()


def test_reading_is_the_same_everywhere(tree, source):
    """open, read_text, iterdir, walk, stat, exists show the tree, links followed in it, whatever the backend."""
    shell(tree, "echo new > VERSION; rm -r data; mkdir made; echo x > made/x")
    assert tree.read_text("VERSION") == tree.read_text(source / "VERSION") == "new\n"
    assert tree.read_text("absolute") == "new\n"  # whose target is in the original, by its absolute path
    assert tree.read_bytes("made/x") == b"x\n"
    assert [str(path) for path in tree.iterdir("made")] == ["made/x"]
    assert "data" not in {str(path) for path in tree.walk()}
    assert tree.is_dir("made")
    assert tree.is_file("absolute")
    assert not tree.exists("data/one")
    assert stat.S_ISLNK(tree.stat("absolute", follow_symlinks=False).st_mode)
    assert tree.readlink("absolute") == str(source / "VERSION")
    with pytest.raises(FileNotFoundError):
        tree.open("data/one")
    with pytest.raises(FileNotFoundError, match="not in the tree"):
        tree.read_text("/etc/hostname")


def test_a_path_for_this_process_and_its_children(tree, source, backend):
    """os.fspath(tree) is a path that never means the original; where there can be none, the error names the ways."""
    if backend == "preload":
        with pytest.raises(TypeError, match=r"tree\.open.*backend='copy'"):
            os.fspath(tree)
        return
    (tree / "VERSION").write_text("by path")
    assert (source / "VERSION").read_text() == CONTENT["VERSION"]
    script = "import sys; print(open(sys.argv[1] + '/VERSION').read())"
    told = subprocess.run([sys.executable, "-c", script, tree], capture_output=True, text=True, check=True)
    assert told.stdout == "by path\n"
    tree.write_text("absolute", "through a link")
    assert tree.read_text("VERSION") == "through a link"
    assert (source / "VERSION").read_text() == CONTENT["VERSION"]
    path = os.fspath(tree)
    tree.reset()
    assert os.fspath(tree) == path
    assert (tree / "VERSION").read_text() == CONTENT["VERSION"]


def test_the_environment_leads_into_the_tree(tree):
    """A subprocess with env=tree.env finds it under $POOR_CONTAINER_TREE."""
    script = 'echo changed > "$POOR_CONTAINER_TREE/VERSION"'
    subprocess.run(["sh", "-c", script], env=tree.env, check=True)
    assert tree.read_text("VERSION") == "changed\n"
    assert tree.diff() == {"VERSION": "modified"}


def test_a_timeout_ends_what_the_command_started(tree):
    """Also what it left in the background, and at once."""
    seconds = f"1000.{uuid.uuid4().int % 10**12}"
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        tree.run(["sh", "-c", f"sleep {seconds} & sleep {seconds}"], timeout=1)
    assert time.monotonic() - began < 20
    deadline = time.monotonic() + 5
    while running(seconds) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert running(seconds) == []


def running(word):
    """Return the processes that have a word in their command line."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if word.encode() in (directory / "cmdline").read_bytes():
                found.append(directory.name)
    return found


def test_reset_takes_back_what_is_named(tree, source, links_stay_whole):
    """Paths, patterns, directories with what is below them; at last all of it."""
    before = described(source)
    shell(
        tree, "./upgrade.sh; rm -r data; mkdir data; echo 3 > data/three; echo more >> first; chmod 600 sub/deep/file"
    )
    changes = tree.diff()
    assert changes["first"] == "modified"
    assert ("second" in changes) == links_stay_whole
    tree.reset("old.db")
    assert tree.read_text("old.db") == "old"
    tree.reset("data")
    assert not {path for path in tree.diff() if path.startswith("data")}
    assert [path.name for path in tree.iterdir("data")] == ["one", "two"]
    tree.reset("first")
    assert tree.read_text("second") == "linked"
    assert not links_stay_whole or tree.stat("first").st_ino == tree.stat("second").st_ino
    tree.reset("new.*", "sub")
    assert tree.diff() == {"VERSION": "modified"}
    with pytest.raises(UsageError, match="no 'nowhere'"):
        tree.reset("nowhere")
    tree.reset("data/one")  # unchanged: nothing to do
    tree.reset()
    assert tree.diff() == {}
    assert described(source) == before


def test_a_path_in_a_directory_that_was_replaced_is_taken_back(tree):
    """The file is there again, and the others of its directory are still gone."""
    shell(tree, "rm -r data; mkdir data; echo 3 > data/three")
    tree.reset("data/one")
    assert tree.diff() == {"data/three": "added", "data/two": "deleted"}
    assert tree.read_text("data/one") == "1"
    shell(tree, "rm -r data")
    tree.reset("data/two")
    assert tree.diff() == {"data/one": "deleted"}


def test_snapshots_come_back(tree, links_stay_whole):
    """Changes are kept under names, and made again from these, as often as one likes."""
    shell(tree, "./upgrade.sh; rm -r data; echo more >> first; ln new.db again.db")
    after = tree.diff()
    tree.snapshot("after")
    tree.reset()
    tree.snapshot("before")
    shell(tree, "echo 9 > VERSION; mkdir data/more")
    tree.restore("after")
    assert tree.diff() == after
    assert tree.read_text("second") == ("linkedmore\n" if links_stay_whole else "linked")
    assert tree.stat("new.db").st_ino == tree.stat("again.db").st_ino
    shell(tree, "echo x > x")
    tree.restore("before")
    assert tree.diff() == {}
    with pytest.raises(UsageError, match="no snapshot 'other'"):
        tree.restore("other")
    with pytest.raises(UsageError, match="the name of a snapshot"):
        tree.snapshot("a/b")


def test_commit_makes_changes_the_originals_own(tree, source):
    """All that is named, with the directories that it needs, and nothing else; the tripwire knows of it."""
    shell(
        tree, "./upgrade.sh; mkdir -p a/b; echo c > a/b/c; echo d > a/d; rm -r data; chmod 700 sub; echo l > l; ln l m"
    )
    done = tree.commit(["VERSION", "a/b/c", "data", "l", "m"])
    assert done["a/b/c"] == "added"
    assert (source / "VERSION").read_text() == "2\n"
    assert (source / "a/b/c").read_text() == "c\n"
    assert not (source / "a/d").exists()
    assert not (source / "data").exists()
    assert (source / "l").samefile(source / "m")
    assert tree.diff() == {"old.db": "deleted", "new.db": "added", "a/d": "added", "sub": "metadata"}
    assert tree.check_original()
    shell(tree, "echo 3 > VERSION")
    tree.commit()
    assert tree.diff() == {}
    assert (source / "VERSION").read_text() == "3\n"
    assert stat.S_IMODE((source / "sub").stat().st_mode) == 0o700
    assert not (source / commits.NAME).exists()
    assert tree.check_original()


def test_commit_is_refused_when_the_original_has_changed(make, source):
    """Nothing is done, and the paths that have changed since are named; others can be committed."""
    tree = make(source, tripwire=False)
    shell(tree, "echo mine > VERSION; rm old.db; echo mine > new.db; rm -r data")
    (source / "VERSION").write_text("theirs")
    (source / "new.db").write_text("theirs")
    (source / "data/three").write_text("theirs")
    with pytest.raises(CommitRefused) as caught:
        tree.commit()
    assert caught.value.paths == ["VERSION", "data", "data/three", "new.db"]
    assert (source / "old.db").exists()
    tree.commit(["old.db"])
    assert not (source / "old.db").exists()
    assert (source / "VERSION").read_text() == "theirs"


def test_a_layer_for_images(tree, tmp_path):
    """Added and modified files with their parents, whiteouts for what is gone, hard links as such."""
    shell(
        tree, "./upgrade.sh; rm -r data; mkdir data; echo 3 > data/three; ln new.db again.db; rm -r sub; echo f > sub"
    )
    tree.export_oci(tmp_path / "layer.tar")
    with tarfile.open(tmp_path / "layer.tar") as tar:
        members = {member.name: member for member in tar}
    names = {"VERSION", ".wh.old.db", "again.db", "new.db", "data", "data/.wh.one", "data/.wh.two", "data/three"}
    assert set(members) == {*names, "sub", ".wh.sub"}
    assert members["new.db"].linkname == "again.db"
    tree.export_oci(tmp_path / "layer.tar.gz")
    assert (tmp_path / "layer.tar.gz").read_bytes()[:2] == b"\x1f\x8b"
    shell(tree, "echo x > .wh.x")
    with pytest.raises(UsageError, match=r"\.wh\."):
        tree.export_oci(tmp_path / "other.tar")
    assert not (tmp_path / "other.tar").exists()


def test_several_trees_of_one_original(make, source):
    """Each has its own changes."""
    one, other = make(source), make(source)
    shell(one, "echo one > VERSION")
    shell(other, "rm VERSION")
    assert one.diff() == {"VERSION": "modified"}
    assert other.diff() == {"VERSION": "deleted"}


def test_one_command_may_use_several_trees(make, source, tmp_path, backend):
    """A container has two of them, of different originals, and what is copied from one to the other stays in that."""
    if backend == "preload":
        pytest.skip("a container has the tree mounted, which takes a backend with a path")
    (tmp_path / "other").mkdir()
    one, other = make(source), make(tmp_path / "other")
    with Container("c") as container:
        container.mount(one, "/srv/one")
        container.mount(other, "/srv/other")
        container.run(["sh", "-c", "mv /srv/one/VERSION /srv/other/"], check=True)
    assert one.diff() == {"VERSION": "deleted"}
    assert other.diff() == {"VERSION": "added"}


def test_a_tree_on_a_tree(make, source):
    """The upper one sees the lower one's changes and has its own; the lower one stays as it is from then on."""
    base = make(source)
    shell(base, "./upgrade.sh; rm -r data")
    changes = base.diff()
    second = make(base)
    shell(second, "echo 3 > VERSION; mkdir data; echo n > data/n; echo o > old.db; rm new.db")
    assert second.diff() == {
        "VERSION": "modified",
        "data": "added",
        "data/n": "added",
        "new.db": "deleted",
        "old.db": "added",
    }
    third = make(second)
    assert shell(third, "cat VERSION data/n old.db; rm -r data; ls").split()[:3] == ["3", "n", "o"]
    assert third.diff() == {"data": "deleted", "data/n": "deleted"}
    assert base.diff() == changes
    with pytest.raises(UsageError, match="other trees stand on this one"):
        base.reset()
    with pytest.raises(UsageError, match="stands on another tree"):
        second.commit()


def test_containers_see_a_tree_where_they_want(tree, backend):
    """Two containers share one tree; after a reset both see the original's content again."""
    if backend == "preload":
        pytest.skip("a container has the tree mounted, which takes a backend with a path")
    with Container("a") as first, Container("b") as second:
        first.mount(tree, "/srv/app")
        second.mount(tree, "/opt/other")
        first.run(["sh", "-c", "echo by-a > /srv/app/VERSION"], check=True)
        assert second.run(["cat", "/opt/other/VERSION"], capture_output=True, text=True).stdout == "by-a\n"
        tree.reset()
        told = second.run(["cat", "/opt/other/VERSION"], capture_output=True, text=True)
        assert told.stdout == CONTENT["VERSION"]


def test_a_tree_is_unmounted_again(tree, backend):
    """At the end of a block, or by unmount(); a reset in between mounts it anew, and one afterwards does not."""
    if backend == "preload":
        pytest.skip("a container has the tree mounted, which takes a backend with a path")
    with Container("c") as container:
        with container.mount(tree, "/srv/app") as mount:
            container.run(["sh", "-c", "echo changed > /srv/app/VERSION"], check=True)
            tree.reset()
            assert container.read("/srv/app/VERSION") == CONTENT["VERSION"]
            assert [entry.target for entry in container.mounts.table() if entry.ours] == ["/srv/app"]
            assert not mount.done
        assert mount.done
        mount.undo()
        tree.reset()
        assert not container.exists("/srv/app/VERSION")
        assert not any(entry.ours for entry in container.mounts.table())
        again = container.mount(tree, "/srv/app")
        container.mounts.unmount("/srv/app")
        assert not container.exists("/srv/app/VERSION")
        again.undo()
        last = container.mount(tree, "/srv/app")
        with pytest.raises(UsageError, match="absolute"):
            container.mount(tree, "srv")
    last.undo()  # gone with its container
    tree.reset()


def test_changes_that_stay(make, source, tmp_path, backend):
    """With upper= another tree of the same original goes on where the first has ended; another original may not."""
    upper = tmp_path / "changes"
    with make(source, upper=upper) as tree:
        shell(tree, "./upgrade.sh")
        changes = tree.diff()
        tree.snapshot("s")
    with make(source, upper=upper) as tree:
        assert tree.diff() == changes
        tree.reset()
        tree.restore("s")
        assert tree.diff() == changes
        tree.commit()
        shell(tree, "echo again > VERSION")
        tree.commit()
    assert (source / "VERSION").read_text() == "again\n"
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(UsageError, match=f"has changes of {source}, not of {other}"):
        CowTree(other, backend=backend, upper=upper)


def test_an_original_that_is_read_only(make, source):
    """Modes without write permission protect nothing, so they are no hindrance either: it is the tree that changes."""
    (source / "VERSION").chmod(0o444)
    tree = make(source)
    shell(tree, "chmod 644 VERSION; echo 2 > VERSION")
    assert tree.diff() == {"VERSION": "modified"}


def test_special_files(make, tmp_path):
    """Fifos, symbolic links to nowhere, empty directories, holes and extended attributes are what they were."""
    source = tmp_path / "special"
    (source / "empty").mkdir(parents=True)
    os.mkfifo(source / "fifo")
    (source / "nowhere").symlink_to("does/not/exist")
    with (source / "sparse").open("wb") as file:
        file.truncate(1 << 26)
    os.setxattr(source / "sparse", "user.mark", b"1")
    tree = make(source)
    told = shell(tree, "test -p fifo; test -h nowhere; test -d empty; stat -c '%s' sparse; echo x >> sparse")
    assert told == f"{1 << 26}\n"
    assert tree.diff() == {"sparse": "modified"}
    assert tree.stat("sparse").st_blocks < 4096


# Commits that were interrupted.


@pytest.mark.parametrize("step", range(8))
def test_an_interrupted_commit_is_finished_or_undone(source, tmp_path, monkeypatch, step):
    """Killed after each of its renames and removals: the next tree on the original finds all of it done, or nothing."""

    class Killed(BaseException):
        pass

    before = described(source)
    tree = CowTree(source, backend="copy", temporary=tmp_path, tripwire=False)
    with tree:
        shell(tree, "echo new > VERSION; rm -r data; mkdir made; echo m > made/m; chmod 700 sub; echo f > first")
        expected = described(tree)
        left = [step]

        def perhaps_killed(real):
            def call(*arguments):
                if left[0] == 0:
                    raise Killed
                left[0] -= 1
                return real(*arguments)

            return call

        for name in ("_rename", "_directory", "remove", "_sync"):
            monkeypatch.setattr(commits, name, perhaps_killed(getattr(commits, name)))
        with pytest.raises(Killed):
            tree.commit()
        monkeypatch.undo()
    CowTree(source, backend="copy", temporary=tmp_path).close()
    assert not (source / commits.NAME).exists()
    now = described(source)
    assert now in (before, expected)
    assert now == (expected if step > 0 else before)
