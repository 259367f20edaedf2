"""Which root file system an argument means, and that a lab builds each of them once."""

import gc
import os
import threading
from pathlib import Path

import pytest
from descriptors import descriptor_count

from pytest_poorcontainer.errors import LabError, UsageError
from pytest_poorcontainer.rootfs import Rootfs, find, holdings


class Lab:
    """Stands for a lab: counts what it is asked for, and gives it directories."""

    def __init__(self, directory):
        self.directory, self.added, self.dropped = directory, [], []

    def add_rootfs(self, path, binds=(), *, readonly=False):
        """Return the next number, and a descriptor as the lab does."""
        self.added.append((path, tuple(binds), readonly))
        return len(self.added), os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY) if path is None else -1

    def drop_rootfs(self, number):
        """Note it."""
        self.dropped.append(number)


class Filled(Rootfs):
    """A source that fills a directory."""

    def __init__(self, identity=None, error=None, **options):
        super().__init__(identity, **options)
        self.error, self.filled = error, 0

    def binds(self):
        """One directory."""
        return [("/usr/share", "/usr/share")]

    def fill(self, dir_fd):
        """Count, and use the descriptor."""
        self.filled += 1
        assert not list(Path(f"/proc/self/fd/{dir_fd}").iterdir())
        if self.error:
            raise self.error


@pytest.fixture
def lab(tmp_path):
    """A lab that is none."""
    (tmp_path / "tree").mkdir()
    return Lab(tmp_path / "tree")


def test_nothing_and_host_are_the_machine(lab):
    """None and "host" mean the machine, which every lab has under the number 0."""
    for source in (None, "host"):
        assert find(source).is_host
        assert find(source).description == "host"
        assert find(source).number(lab) == 0
    assert find(None) == find("host")
    with pytest.raises(UsageError, match="readonly=True is for rootfs="):
        find("host", readonly=True)


def test_a_path_is_a_directory(tmp_path):
    """A str or a Path of a directory means it, by its path without links."""
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    assert find(str(real)) == find(real) == find(tmp_path / "link")
    assert find(tmp_path / "link").description == f"directory {real}"
    assert not find(real).is_host
    assert find(real) != find(tmp_path)


def test_a_relative_path_is_seen_from_here(tmp_path, monkeypatch):
    """A relative path means what it does when it is named, whatever the working directory is later."""
    (tmp_path / "root").mkdir()
    monkeypatch.chdir(tmp_path)
    found = find("root")
    monkeypatch.chdir("/")
    assert found.directory() == str(tmp_path / "root")


def test_readonly_is_part_of_what_it_is(tmp_path):
    """The same directory is another thing when nothing can be changed in it."""
    assert find(tmp_path, readonly=True) != find(tmp_path)
    assert find(find(tmp_path), readonly=True) == find(tmp_path, readonly=True)
    assert hash(find(tmp_path)) == hash(find(tmp_path))
    assert "readonly" in repr(find(tmp_path, readonly=True))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("/no/such/place", r"rootfs='/no/such/place': there is no such directory or tarball"),
        ("", r"there is no such directory or tarball"),
        ("/etc/passwd/x", r"there is no such directory or tarball"),
        ("/etc/passwd", r"is a file, but no tarball.*a list of programs is written as a list"),
        ("/dev/null", r"neither a directory nor a regular file"),
        ("/", r"is the machine's own"),
        ("/x" * 3000, r"File name too long"),
        ("a\0b", r"embedded null"),
        (7, r"rootfs=7 is neither 'host', nor the path of a directory or a tarball, nor a list"),
        (b"/tmp", r"rootfs=b'/tmp' is neither"),
    ],
)
def test_what_is_nothing_is_refused(source, said):
    """A wrong source is a UsageError that says what was expected."""
    with pytest.raises(UsageError, match=said):
        find(source)


def test_a_directory_that_vanishes(tmp_path, lab):
    """A directory that is removed, or becomes a file, is an error that names it when containers are asked for."""
    place = tmp_path / "root"
    place.mkdir()
    found = find(place)
    assert found.number(lab) == 1
    place.rmdir()
    with pytest.raises(LabError, match=r"root: ENOENT .* was there when it was named"):
        found.number(lab)
    place.touch()
    with pytest.raises(LabError, match="what has removed it"):
        found.number(lab)


def test_a_directory_is_added_once_until_it_is_another(tmp_path, lab):
    """A lab is asked once for a directory, and again for another one of the same name."""
    place = tmp_path / "root"
    place.mkdir()
    first = find(place)
    assert first.number(lab) == find(place).number(lab) == 1
    place.rename(tmp_path / "old")
    place.mkdir()
    assert first.number(lab) == find(place).number(lab) == 2
    assert lab.added == [(str(place), (), False)] * 2


def test_it_is_filled_once(lab):
    """Equal root file systems are built once, with their directories of the machine; others and readonly ones anew."""
    one = Filled("a")
    assert [one.number(lab), one.number(lab), Filled("a").number(lab)] == [1, 1, 1]
    assert one.filled == 1
    assert Filled("b").number(lab) == 2
    assert Filled("a", readonly=True).number(lab) == 3
    assert lab.added[0] == (None, (("/usr/share", "/usr/share"),), False)
    assert lab.added[2][2]


def test_without_an_identity_it_is_itself_alone(lab):
    """Two that say nothing of what they are made of are never taken for each other."""
    one, other = Filled(), Filled()
    assert one != other
    assert [one.number(lab), other.number(lab), one.number(lab)] == [1, 2, 1]


def test_another_lab_builds_its_own(tmp_path, lab):
    """Numbers are a lab's."""
    one = Filled("a")
    second = Lab(lab.directory)
    assert one.number(lab) == one.number(second) == 1
    assert one.filled == 2


@pytest.mark.parametrize("error", [UsageError("wrong"), ZeroDivisionError(), KeyboardInterrupt()])
def test_what_fails_leaves_nothing(lab, error):
    """When it cannot be filled, the lab gives up the tree, the error comes through, and the next try is a new one."""
    one = Filled("a", error)
    before = descriptor_count()
    for count in (1, 2):
        with pytest.raises(type(error)):
            one.number(lab)
        assert lab.dropped == list(range(1, count + 1))
    one.error = None
    assert one.number(lab) == 3
    assert descriptor_count() == before


def test_no_memory_is_explained(lab):
    """A full tmpfs becomes an error that says where it lies."""
    with pytest.raises(LabError, match=r"cannot fill the root file system Filled: ENOSPC .* in memory"):
        Filled("a", OSError(28, "x")).number(lab)


def test_threads_build_it_once(lab):
    """Threads that ask for the same at once get the same number, and one of them builds it."""
    started, go = threading.Barrier(9), threading.Event()

    class Slow(Filled):
        def fill(self, dir_fd):
            go.wait(10)
            super().fill(dir_fd)

    ones = [Slow("a") for _ in range(8)]
    numbers = []

    def ask(one):
        started.wait(10)
        numbers.append(one.number(lab))

    threads = [threading.Thread(target=ask, args=(one,)) for one in ones]
    for thread in threads:
        thread.start()
    started.wait(10)
    go.set()
    for thread in threads:
        thread.join(10)
    assert numbers == [1] * 8
    assert sum(one.filled for one in ones) == 1


def test_what_nobody_uses_is_given_up(lab, monkeypatch):
    """Of those that nobody refers to a few are kept for the next test; one that is in use is never given up."""
    monkeypatch.setattr(holdings, "_IDLE_MAX", 2)
    monkeypatch.setattr(holdings, "_IDLE_BYTES_MAX", 1 << 60)
    used = Filled("used")
    assert used.number(lab) == 1
    for name in "abcd":
        Filled(name).number(lab)
        gc.collect()
    # When "d" was built it was in use, and so was the first: of "a", "b" and "c" two stay.
    assert lab.dropped == [2]
    assert used.number(lab) == 1
    assert Filled("d").number(lab) == 5
    assert Filled("a").number(lab) == 6


def test_large_ones_are_not_kept(lab, monkeypatch):
    """Those that nobody refers to are given up when they take much memory."""
    monkeypatch.setattr(holdings, "_IDLE_BYTES_MAX", -1)
    Filled("a").number(lab)
    gc.collect()
    Filled("b").number(lab)
    assert lab.dropped == [1]
