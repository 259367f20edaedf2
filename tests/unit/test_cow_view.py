"""Merged views and comparisons, on uppers that were made by hand: no kernel overlay, no library."""

import errno
import os
from pathlib import Path

import pytest

from pytest_poorcontainer.cow import overlayfs, tripwire
from pytest_poorcontainer.cow.changes import Changes, Comparison, matcher
from pytest_poorcontainer.cow.copying import Copier, remove
from pytest_poorcontainer.cow.layer import Layer
from pytest_poorcontainer.cow.tripwire import Tripwire, now_on
from pytest_poorcontainer.cow.upper import Upper
from pytest_poorcontainer.cow.view import View


def fill(directory, **files):
    """Make files below a directory; "__" in a name is a slash, None a directory."""
    for name, text in files.items():
        path = directory / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.mkdir(exist_ok=True)
        else:
            path.write_text(text)


class World:
    """A lower, a store with an upper in it, and what is made of both."""

    def __init__(self, base):
        self.base = base
        self.lower = base / "lower"
        self.up = base / "store" / "upper"
        self.lower.mkdir()
        self.up.mkdir(parents=True)
        (base / "store" / "work").mkdir()

    @property
    def upper(self):
        """Return the upper, opened anew."""
        return Upper(Layer.at(self.base / "store"), [Layer.at(self.lower)], str(self.lower))

    @property
    def view(self):
        """Return what both show."""
        return self.upper.view

    def changes(self):
        """Return what is different."""
        upper = self.upper
        return Comparison(upper.view, upper.lower).of_upper(upper.layer)

    def whiteout(self, path):
        """Let a name be gone."""
        overlayfs.make_whiteout(Layer.at(self.up), path)

    def opaque(self, path):
        """Let a directory hide what is below it."""
        overlayfs.make_opaque(Layer.at(self.up), path)

    def names(self, path=""):
        """Return the names in a directory of the view."""
        return list(self.view.listing(path))


@pytest.fixture
def world(tmp_path):
    """Return a lower with some files and an empty upper."""
    made = World(tmp_path)
    fill(made.lower, a="a", b="b", d__one="1", d__two="2", d__sub__deep="deep")
    try:
        made.whiteout("probe")
        made.opaque("")
    except OSError as error:
        pytest.skip(f"no whiteouts or user xattrs on {tmp_path}: {error.strerror}")
    (made.up / "probe").unlink()
    os.removexattr(made.up, overlayfs.OPAQUE)
    return made


def test_the_upper_lies_over_the_lower(world):
    """A name of the upper wins; whiteouts hide; the rest shows through, in the order of names."""
    fill(world.up, a="A", d__three="3", new="n")
    world.whiteout("b")
    assert world.names() == ["a", "d", "new"]
    assert world.names("d") == ["one", "sub", "three", "two"]
    with pytest.raises(FileNotFoundError):
        world.view.lstat("b")


def test_an_opaque_directory_hides_what_is_below(world):
    """Nothing of the lower's directory shows, not even deep in it."""
    fill(world.up, d__new="n")
    world.opaque("d")
    assert world.names("d") == ["new"]
    with pytest.raises(FileNotFoundError):
        world.view.lstat("d/sub/deep")


def test_a_file_over_a_directory_ends_the_path(world):
    """What was a directory below is no directory: ENOTDIR, as the kernel has it."""
    fill(world.up, d="a file now")
    with pytest.raises(NotADirectoryError):
        world.view.lstat("d/one")
    assert world.changes() == {
        "d": "modified",
        **{f"d/{name}": "deleted" for name in ("one", "two", "sub", "sub/deep")},
    }


def test_three_layers(tmp_path):
    """A whiteout or an opaque directory in the middle hides what is below it, and the top may have it again."""
    for layer in ("low", "middle", "top"):
        fill(tmp_path / layer, root="x")
    fill(tmp_path / "low", d__a="low", d__b="low", e__x="low")
    fill(tmp_path / "middle", d__c="middle", e=None)
    layers = [Layer.at(tmp_path / name) for name in ("top", "middle", "low")]
    overlayfs.make_whiteout(layers[1], "d/a")
    overlayfs.make_opaque(layers[1], "e")
    view = View(layers, "/place")
    assert list(view.listing("d")) == ["b", "c"]
    assert list(view.listing("e")) == []
    fill(tmp_path / "top", d__a="top")
    assert list(view.listing("d")) == ["a", "b", "c"]
    assert [path for path, _, _ in view.walk()] == ["d", "e", "root", "d/a", "d/b", "d/c"]


def test_kinds_of_changes(world):
    """Content, mode, new names and gone names each have their word; a directory with changes in it has none."""
    fill(world.up, a="A", d__one="1", new__file="n", d__sub__deep="deep")
    (world.up / "d/one").chmod(0o600)
    (world.lower / "d/one").chmod(0o644)
    world.whiteout("b")
    assert world.changes() == {
        "a": "modified",
        "b": "deleted",
        "d/one": "metadata",
        "new": "added",
        "new/file": "added",
    }


def test_what_was_copied_up_and_not_changed_is_no_change(world):
    """The same content, mode and owner with another time: unchanged."""
    fill(world.up, a="a")
    os.utime(world.up / "a", (1, 1))
    assert world.changes() == {}


def test_a_whiteout_of_nothing_is_no_change(world):
    """As when a file was made and removed again over a name that the lower has had only for a while."""
    world.whiteout("never")
    assert world.changes() == {}


def test_symbolic_links_are_followed_inside(world):
    """Relative ones, absolute ones to the tree's place, through other links; what leads out says so."""
    fill(world.up, d__new="n")
    (world.up / "to-d").symlink_to("d")
    (world.up / "absolute").symlink_to(f"{world.lower}/to-d/new")
    (world.up / "out").symlink_to("/etc/hostname")
    view = world.view
    assert view.resolve("to-d/new") == "d/new"
    assert view.resolve("absolute") == "d/new"
    assert view.resolve(f"{world.lower}/to-d/../a") == "a"
    assert view.resolve("to-d/../to-d/sub") == "d/sub"
    assert view.resolve("out") == "/etc/hostname"
    assert view.resolve("out", follow=False) == "out"


def test_a_loop_of_links_is_an_error(world):
    """ELOOP, as from the kernel."""
    (world.up / "x").symlink_to("y")
    (world.up / "y").symlink_to("x")
    with pytest.raises(OSError, match="symbolic links") as caught:
        world.view.resolve("x/z")
    assert caught.value.errno == errno.ELOOP


def test_names_that_are_not_utf_8(world):
    """They come and go as Python writes them (surrogateescape)."""
    name = os.fsdecode(b"caf\xe9")
    fill(world.up, **{name: "x"})
    assert name in world.names()
    assert world.changes() == {name: "added"}
    assert Changes({name: "added"}).lines() == ["added    caf\\udce9"]


def test_paths_longer_than_path_max(world):
    """A path of 6,000 bytes is listed, compared, copied and removed."""
    part = "n" * 200
    deep = "/".join([part] * 30)
    layer = Layer.at(world.up)
    for number in range(1, 31):
        with layer.place("/".join([part] * number)) as place:
            Path(place).mkdir()
    os.close(layer.open(f"{deep}/file", os.O_WRONLY | os.O_CREAT))
    assert len(deep) > 4096
    assert world.changes()[f"{deep}/file"] == "added"
    (world.base / "copy").mkdir()
    target = Layer.at(world.base / "copy")
    Copier(target).tree(world.view)
    assert target.lstat(f"{deep}/file").st_size == 0
    remove(layer, part)
    remove(target, part)
    assert world.names() == ["a", "b", "d"]


def test_taking_back_each_kind(world):
    """Each path becomes what it is in the lower, by itself, and nothing else does."""
    fill(world.up, a="A", new__file="n")
    world.whiteout("b")
    world.whiteout("d")
    upper = world.upper
    for path in ("a", "b", "new"):
        upper.take_back(Changes({path: world.changes()[path]}))
        assert path not in world.changes()
    upper.take_back(Changes({"d/sub/deep": "deleted"}))
    assert world.changes() == {"d/one": "deleted", "d/two": "deleted"}
    assert Path(world.up, "d/sub/deep").read_text() == "deep"
    upper.take_back(world.changes())
    assert world.changes() == {}
    assert world.names("d") == ["one", "sub", "two"]


def test_snapshots_keep_all_that_an_upper_is(world):
    """Whiteouts, opaque directories, hard links, modes and holes come back as they were, again and again."""
    fill(world.up, a="A", d__x="x")
    world.opaque("d")
    world.whiteout("b")
    os.link(world.up / "a", world.up / "linked")
    with (world.up / "sparse").open("wb") as file:
        file.truncate(1 << 24)
    upper, before = world.upper, world.changes()
    upper.save("s")
    upper.clear()
    assert world.changes() == {}
    for _ in range(2):
        fill(world.up, later="l")
        upper.load("s")
        assert world.changes() == before
        assert (world.up / "a").samefile(world.up / "linked")
        assert (world.up / "sparse").stat().st_blocks < 64
    with pytest.raises(ValueError, match="no snapshot 'other'; there are: s"):
        upper.load("other")


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("*.db", "a.db", True),
        ("*.db", "a/b.db", False),
        ("**/*.db", "a/b.db", True),
        ("**/*.db", "b.db", True),
        ("data/**", "data", True),
        ("data/**", "data/x/y", True),
        ("data/**", "database", False),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("**", "x/y", True),
        ("[ab]?", "ax", True),
        ("[!ab]", "a", False),
        ("[a-c]", "b", True),
        ("a.c", "abc", False),
        ("a[", "a[", True),
        ("VERSION", "sub/VERSION", False),
        ("a*", "a\nb", True),
    ],
)
def test_patterns(pattern, path, fits):
    """One name at a time for * and ?, any number of names for **, and always the whole path."""
    assert matcher([pattern])(path) is fits


def test_text_for_people(world):
    """Lines of text files, sizes of binary ones, modes, link targets; control characters do no harm."""
    fill(world.up, a="a\nmore\n")
    (world.up / "b").write_bytes(b"\0\1\2")
    (world.up / "l").symlink_to("a")
    (world.up / "d").mkdir()
    (world.up / "d").chmod(0o700)
    (world.lower / "d").chmod(0o755)
    upper = world.upper
    text = "\n".join(Comparison(upper.view, upper.lower).text(world.changes()))
    for part in (
        "modified a",
        "  +more",
        "binary: 1 bytes -> 3 bytes",
        "symbolic link to a",
        "drwxr-xr-x -> drwx------",
    ):
        assert part in text


def test_the_tripwire_tells_before_from_after(tmp_path):
    """A hundred times: what was written just before is no damage, what is written just after is."""
    layer = Layer.at(tmp_path)
    for number in range(100):
        (tmp_path / "file").write_text(str(number))
        wire = Tripwire(layer, str(tmp_path), now_on(layer))
        assert wire.look() == []
        (tmp_path / "file").write_text("damage")
        assert wire.look() == [str(tmp_path / "file")]


def test_the_tripwire_in_a_directory_in_which_we_cannot_make_a_file(tmp_path, monkeypatch):
    """Then the machine's clock tells, and it is waited for: again before is no damage, and after is."""

    class NoFiles:
        def __getattr__(self, name):
            return getattr(os, name)

        def open(self, path, flags, *rest):
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise PermissionError(errno.EACCES, "no")
            return os.open(path, flags, *rest)

    monkeypatch.setattr(tripwire, "os", NoFiles())
    layer = Layer.at(tmp_path)
    for number in range(20):
        (tmp_path / "file").write_text(str(number))
        wire = Tripwire(layer, str(tmp_path), now_on(layer))
        assert wire.look() == []
        (tmp_path / "file").write_text("damage")
        assert wire.look() == [str(tmp_path / "file")]


@pytest.mark.parametrize("how", ["chmod", "link", "unlink", "utime", "rename", "xattr"])
def test_the_tripwire_sees_every_kind_of_damage(tmp_path, how):
    """Content is not all: modes, times that were set back, names and attributes leave a ctime too."""
    sub = tmp_path / "sub"
    fill(tmp_path, sub__file="x")
    layer = Layer.at(tmp_path)
    wire = Tripwire(layer, str(tmp_path), now_on(layer))
    file = sub / "file"
    {
        "chmod": lambda: file.chmod(0o600),
        "link": lambda: os.link(file, sub / "second"),
        "unlink": file.unlink,
        "utime": lambda: os.utime(file, (1, 1)),
        "rename": lambda: file.rename(tmp_path / "file"),
        "xattr": lambda: os.setxattr(file, "user.x", b"1"),
    }[how]()
    assert wire.look()


def test_the_tripwire_gives_up_at_too_many(tmp_path):
    """Above the limit it says that it did not look, rather than that all is well."""
    fill(tmp_path, **{f"f{number}": "" for number in range(20)})
    layer = Layer.at(tmp_path)
    wire = Tripwire(layer, str(tmp_path), now_on(layer))
    assert wire.look(10) is None
    assert wire.look(20) == []
