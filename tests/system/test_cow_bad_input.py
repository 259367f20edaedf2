"""What trees cannot be made of, and what is hard to have in one; on each backend."""
# ruff: noqa: F811 - a test's argument is the fixture of that name

import os
import sys
from pathlib import Path

import pytest
from cow_trees import backend, described, make, shell, source, tree  # noqa: F401 - fixtures

from pytest_poorcontainer import CowTree, Damaged, LabError, PoorContainerError, UsageError


def test_a_source_that_is_not_there_or_no_directory(backend, tmp_path):
    """The message names the path, the cause and what is wanted."""
    with pytest.raises(LabError, match=r"/nothing: ENOENT .*name a directory that exists"):
        CowTree(tmp_path / "nothing", backend=backend)
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match=r"/file: ENOTDIR .*a directory is needed"):
        CowTree(tmp_path / "file", backend=backend)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_source_that_cannot_be_read(backend, tmp_path):
    """Permission is missing at once, not at the first command."""
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(LabError, match=r"EACCES .*this user may not read it"):
        CowTree(tmp_path / "closed", backend=backend)


def test_upper_and_lower_in_one_another(backend, source, tmp_path):
    """Neither may be in the other; symbolic links are looked through."""
    (tmp_path / "link").symlink_to(source)
    for upper in (source, source / "changes", tmp_path / "link/changes"):
        with pytest.raises(UsageError, match="lies in its lower"):
            CowTree(source, backend=backend, upper=upper)
    with pytest.raises(UsageError, match="lies in upper"):
        CowTree(source, backend=backend, upper=tmp_path)
    assert not (source / "changes").exists()


def test_an_upper_that_is_something_else(backend, source, tmp_path):
    """Somebody's files are not taken for changes."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter").touch()
    with pytest.raises(UsageError, match="no copy-on-write tree made it"):
        CowTree(source, backend=backend, upper=tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter"]


def places_for_no_upper(directory):
    """Make what is no place for changes; return each with what the message says of it."""
    (directory / "circle").symlink_to("circle")
    found = {
        directory / "circle": "ELOOP .*lead in a circle",
        directory / ("n" * 256): "ENAMETOOLONG .*at most 255 bytes",
        directory / "/".join(["d" * 200] * 25): "ENAMETOOLONG .*a path 4,095",
        Path("/proc/changes"): "ENOENT .*no directory can be made there",
        Path("/dev/full/changes"): "a directory is needed",
    }
    if os.geteuid() != 0:
        (directory / "closed").mkdir(mode=0o555)
        found |= {directory / "closed/changes": "EACCES .*may not read or write there"}
        found |= {Path("/root/changes"): "EACCES .*may not read or write there"}
    return found


def test_an_upper_that_cannot_be_made(backend, source, tmp_path):
    """The message has the original, the place of the changes, the cause and what to do; nothing is made."""
    for upper, words in places_for_no_upper(tmp_path).items():
        with pytest.raises(PoorContainerError, match=words) as caught:
            CowTree(source, backend=backend, upper=upper)
        assert str(upper) in str(caught.value)
        assert isinstance(caught.value, UsageError) or str(source) in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"app", "circle", "closed"}


def test_a_source_behind_links_in_a_circle_or_too_far(backend, tmp_path):
    """Said at once, with what would help."""
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(LabError, match=r"circle: ELOOP .*lead in a circle"):
        CowTree(tmp_path / "circle", backend=backend)
    with pytest.raises(LabError, match=r"ENAMETOOLONG .*give a relative one"):
        CowTree(tmp_path / "/".join(["d" * 200] * 25), backend=backend)


def test_a_backend_that_there_is_not(source):
    """The message has what there is, and the nearest."""
    with pytest.raises(
        UsageError, match=r"no backend 'overly'; did you mean 'overlay'\? the backends are auto, overlay"
    ):
        CowTree(source, backend="overly")


def test_names_of_255_bytes_and_names_that_are_not_utf_8(tree, make, tmp_path):
    """The longest names, and bytes that are no text, are changed, shown and taken back like others."""
    source = tmp_path / "names"
    source.mkdir()
    names = [b"n" * 255, b"caf\xe9", b"new\nline", b"-rf", b" "]
    for name in names:
        Path(os.fsdecode(os.fsencode(source) + b"/" + name)).write_text("x")
    tree = make(source)
    shell(tree, 'rm -- *n*; for i in *; do echo y > "$i"; done')
    changes = tree.diff()
    assert {os.fsencode(path) for path in changes} == set(names)
    assert changes[os.fsdecode(b"n" * 255)] == "deleted"
    assert changes[os.fsdecode(b"caf\xe9")] == "modified"
    tree.snapshot()
    tree.reset()
    assert tree.diff() == {}
    tree.restore()
    assert tree.diff() == changes


def test_paths_beyond_path_max(make, tmp_path, backend):
    """A file 6,000 bytes deep is compared, kept in a snapshot and taken back."""
    if backend == "preload":
        pytest.skip("a directory whose path is longer than PATH_MAX is refused there with ENAMETOOLONG")
    source = tmp_path / "deep"
    source.mkdir()
    tree = make(source)
    part = "d" * 200
    script = f"import os\nfor i in range(30): os.mkdir('{part}'); os.chdir('{part}')\nopen('file', 'w').write('x')"
    tree.run([sys.executable, "-c", script], check=True)
    deep = "/".join([part] * 30) + "/file"
    assert tree.diff()[deep] == "added"
    tree.snapshot()
    tree.reset()
    assert tree.diff() == {}
    tree.restore()
    assert tree.read_text(deep) == "x"


def test_symbolic_links_in_a_loop(make, tmp_path):
    """They are files like others; who follows one gets ELOOP."""
    source = tmp_path / "loop"
    source.mkdir()
    (source / "a").symlink_to("b")
    (source / "b").symlink_to("a")
    tree = make(source)
    shell(tree, "rm a; ln -s b a; echo x > file")
    assert tree.diff() == {"file": "added"}
    with pytest.raises(OSError, match="symbolic links"):
        tree.read_text("a")


@pytest.mark.parametrize("how", ["reset", "reset one", "restore", "commit"])
def test_a_directory_that_became_a_link_to_elsewhere(make, tmp_path, how):
    """What was below it is taken back, kept and committed without ever following the link."""
    source, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    for directory in (source / "d/sub", elsewhere / "sub"):
        directory.mkdir(parents=True)
        (directory.parent / "x").write_text(str(directory))
        (directory / "z").write_text(str(directory))
    before = described(elsewhere)
    tree = make(source)
    shell(tree, f"rm -r d; ln -s {elsewhere} d")
    assert tree.diff() == {"d": "modified", "d/sub": "deleted", "d/sub/z": "deleted", "d/x": "deleted"}
    if how == "reset":
        tree.reset()
        assert tree.read_text("d/sub/z") == str(source / "d/sub")
    elif how == "reset one":
        tree.reset("d/sub/z")
        assert tree.read_text("d/sub/z") == str(source / "d/sub")
        assert tree.diff() == {"d/x": "deleted"}
    elif how == "restore":
        tree.snapshot()
        tree.reset()
        tree.restore()
        assert tree.readlink("d") == str(elsewhere)
        tree.reset("d")
        assert tree.diff() == {}
    else:
        tree.commit()
        assert (source / "d").readlink() == elsewhere
        assert tree.diff() == {}
    assert described(elsewhere) == before


def test_no_permission_in_the_original(make, tmp_path, backend):
    """A file that may not be read cannot be copied up: the program is told, and nothing is half done."""
    if os.geteuid() == 0 or backend == "overlay":
        pytest.skip("root may read everything, also the root of a user namespace what is its user's")
    source = tmp_path / "closed"
    source.mkdir()
    (source / "file").write_text("secret")
    (source / "file").chmod(0)
    (source / "open").write_text("x")
    if backend == "copy":  # which cannot be made at all
        with pytest.raises(LabError, match=r"tree of \S+/closed, at file: EACCES .*; this user may not read"):
            make(source)
        return
    tree = make(source)
    done = tree.run(["sh", "-c", "echo y > open; cat file"], capture_output=True, text=True)
    assert "ermission denied" in done.stderr
    assert tree.diff() == {"open": "modified"}


def test_a_closed_tree_says_so(tree):
    """Every use of it afterwards is an error that tells why."""
    tree.close()
    tree.close()
    for use in (tree.diff, lambda: tree.run(["true"]), tree.reset, lambda: os.fspath(tree), tree.commit):
        with pytest.raises(PoorContainerError, match="is closed"):
            use()
    assert "(closed)" in repr(tree)


def test_damage_is_named(make, source):
    """Whoever changes the original behind the tree's back is found out, by the paths."""
    tree = make(source, tripwire=True)
    assert tree.check_original()
    (source / "data/one").write_text("damage")
    with pytest.raises(Damaged, match="data/one") as caught:
        tree.check_original()
    assert caught.value.paths == [str(source / "data/one")]
    tree.close()
