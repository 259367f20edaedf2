"""Commands that are another user's, on trees whose commands run on the machine."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from cow_trees import BACKENDS

from pytest_poorcontainer import CowTree, UsageError, native
from pytest_poorcontainer.cow.copying import remove_directory
from pytest_poorcontainer.errors import Unavailable

ROOT = os.geteuid() == 0
NOBODY = 65534
as_root = pytest.mark.skipif(not ROOT, reason="only root can become another user")
SET = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


@pytest.fixture
def place():
    """Return a directory that every user may enter, as pytest's own is not."""
    directory = Path(tempfile.mkdtemp(prefix="cow-user-"))
    directory.chmod(0o755)
    yield directory
    remove_directory(str(directory))


@pytest.fixture
def source(place):
    """Return an original of root's in which another user may change some things."""
    app = place / "app"
    (app / "open").mkdir(parents=True)
    for name, mode in (("shared", 0o666), ("ours", 0o644), ("secret", 0o600), ("other", 0o666)):
        (app / name).write_text(f"{name}\n")
        (app / name).chmod(mode)
    (app / "open").chmod(0o1777)
    app.chmod(0o755)
    return app


def may_read(path):
    """Whether the other user may: this package can lie where it may not."""
    return subprocess.run([*SET, "test", "-r", path], check=False).returncode == 0


@pytest.fixture
def tree(source, place):
    """Return a tree on preload, whose changes lie where the other user may get to."""
    if not ROOT:
        pytest.skip("only root can become another user")
    if not all(map(may_read, (native.program("pccow"), native.program("libpccow.so")))):
        pytest.skip("the other user may not read this package")
    try:
        with CowTree(source, backend="preload", temporary=place) as made:
            yield made
            made.check_original(most=None)
    except Unavailable as error:
        pytest.skip(str(error))


SCRIPT = "echo more >> shared; cat shared; echo n > open/new; cat secret; echo x >> ours; echo x > new; id -un; id -Gn"
CHANGES = {"open/new": "added", "shared": "modified"}


def check(done):
    """What the original allows was done, and the rest was refused."""
    assert done.stdout.split() == ["shared", "more", "nobody", "nogroup"]
    for name in ("secret", "ours", "new"):
        assert f"{name}: Permission denied" in done.stderr


def test_a_user_may_what_the_original_allows(tree, source):
    """As on the original itself: by modes and owners, with the user's groups and none of root's."""
    check(tree.run(["sh", "-c", SCRIPT], user="nobody", capture_output=True, text=True))
    assert tree.diff() == CHANGES
    assert tree.refused == []
    assert (source / "shared").read_text() == "shared\n"
    assert (
        tree.run(["sh", "-c", "echo r >> ours; cat shared"], capture_output=True, text=True).stdout == "shared\nmore\n"
    )
    tree.reset("shared")
    with tree.popen(["cat", "shared", "ours"], user=NOBODY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.read() == "shared\nours\nr\n"


def test_a_commit_leaves_the_owner(tree, source):
    """A copy that the user has made is the user's only for that; a new file is."""
    tree.run(["sh", "-c", "echo more >> shared; echo n > open/new"], user=NOBODY, check=True)
    tree.commit()
    assert (source / "shared").read_text() == "shared\nmore\n"
    owners = {name: (source / name).stat().st_uid for name in ("", "shared", "open", "open/new")}
    assert owners == {"": 0, "shared": 0, "open": 0, "open/new": NOBODY}
    assert (source / "shared").stat().st_mode & 0o7777 == 0o666
    assert tree.diff() == {}


def test_a_static_program_of_a_user(tree):
    """The net below libc has the user's rights as well."""
    busybox = Path("/bin/busybox")
    if not busybox.exists():
        pytest.skip("no busybox: apt install busybox-static")
    done = tree.run([busybox, "sh", "-c", SCRIPT.partition("id -un")[0]], user=NOBODY, capture_output=True, text=True)
    assert done.stdout == "shared\nmore\n"
    assert done.stderr.lower().count("permission denied") == 3
    assert tree.diff() == CHANGES


def test_a_program_that_becomes_the_user(tree):
    """Once the tree is the user's too, so it is for who gets there by setpriv."""
    tree.run(["true"], user=NOBODY, check=True)
    done = tree.run([*SET, "sh", "-c", SCRIPT], capture_output=True, text=True)
    assert done.stdout.split() == ["shared", "more", "nobody", "nogroup"]
    assert tree.diff() == CHANGES


def test_a_program_that_becomes_a_user_who_has_no_access(tree):
    """It is not started, and says what would help; nothing is changed anywhere."""
    done = tree.run([*SET, "sh", "-c", "echo x >> shared"], capture_output=True, text=True)
    assert done.returncode == 126
    assert "not this user's to reach (tree.run(..., user=)" in done.stderr
    assert tree.diff() == {}


def test_one_user_beside_root(tree):
    """A second one could not write what the first has made."""
    tree.run(["true"], user=NOBODY, check=True)
    with pytest.raises(UsageError, match=r"those of user 65534 already.*backend='overlay'"):
        tree.run(["true"], user=12345)


@as_root
def test_a_user_who_cannot_reach_the_changes(source, tmp_path, place):
    """Pytest's temporary directory is root's: the error names what is in the way, and upper= is the way out."""
    tmp_path.chmod(0o700)
    with CowTree(source, backend="preload", temporary=tmp_path) as tree:
        with pytest.raises(UsageError, match=f"may not reach {tmp_path}.*give upper="):
            tree.run(["true"], user=NOBODY)
        assert tree.run(["cat", "ours"], capture_output=True, text=True).stdout == "ours\n"
    if not may_read(native.program("pccow")):
        pytest.skip("the other user may not read this package")
    with CowTree(source, backend="preload", upper=place / "changes") as tree:
        tree.run(["sh", "-c", "echo more >> shared"], user=NOBODY, check=True)
        assert tree.diff() == {"shared": "modified"}


@as_root
@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "preload"])
def test_groups_are_the_user_s(source, place, backend):
    """On every backend a command of a user's has that user's groups."""
    try:
        tree = CowTree(source, backend=backend, temporary=place)
    except Unavailable as error:
        pytest.skip(str(error))
    with tree:
        done = tree.run(["sh", "-c", "id -un; id -Gn"], user="nobody", capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["nobody", "nogroup"]


@pytest.mark.parametrize("backend", ["copy", "preload"])
def test_users_that_cannot_be(source, tmp_path, backend):
    """A name that nobody has, and for an ordinary user anybody else, is told at once."""
    with CowTree(source, backend=backend, temporary=tmp_path) as tree:
        with pytest.raises(UsageError, match="no such user"):
            tree.run(["true"], user="poor-container-nobody")
        assert tree.run(["true"], user=os.geteuid()).returncode == 0
        if not ROOT:
            with pytest.raises(UsageError, match=r"only root.*backend='overlay'"):
                tree.run(["true"], user="root")
