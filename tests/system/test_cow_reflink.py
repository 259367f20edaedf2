"""Trees that share their content with the original, on file systems that can: xfs and btrfs."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_poorcontainer import CowTree, Unavailable
from pytest_poorcontainer.cow.choosing import known
from pytest_poorcontainer.lab import Lab

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a file system of one's own takes root")
SIZE = 30 << 20


@pytest.fixture(params=["xfs", "btrfs"])
def place(request, tmp_path):
    """Return a new file system with an original in it: a large file, some small ones, names of one file."""
    if shutil.which(f"mkfs.{request.param}") is None:
        pytest.skip(f"mkfs.{request.param} is not installed: apt install xfsprogs btrfs-progs")
    image, place = tmp_path / "image", tmp_path / "place"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run([f"mkfs.{request.param}", "-q", image], check=True, capture_output=True)
    mounted = subprocess.run(["mount", "-o", "loop", image, place], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"{request.param} cannot be mounted here: {mounted.stderr.strip()}")
    Lab.close_current()  # which does not see the mount where the machine's are private
    try:
        (place / "source/d").mkdir(parents=True)
        (place / "source/large").write_bytes(os.urandom(SIZE))
        (place / "source/d/small").write_text("small\n")
        (place / "source/old").write_text("old\n")
        (place / "source/first").write_text("first\n")
        (place / "source/second").hardlink_to(place / "source/first")
        os.sync()
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def extents(path):
    """Return where a file's data lie on its disk: pairs of first and last block (filefrag(8), by FIEMAP)."""
    os.sync()
    told = subprocess.run(["filefrag", "-v", path], check=True, capture_output=True, text=True).stdout.splitlines()
    found = []
    for line in told:
        if line.strip()[:1].isdigit():
            first, last = (int(word) for word in line.split(":")[2].split(".."))
            if found and found[-1][1] + 1 == first:  # one that is shared in part is told in parts
                first = found.pop()[0]
            found.append((first, last))
    return found


def test_content_is_shared_until_it_is_changed(place):
    """A copy's data lie where the original's lie; a write moves what it writes, and the original's stay."""
    source = place / "source/large"
    before = extents(source)
    free = shutil.disk_usage(place).free
    with CowTree(place / "source", backend="reflink", temporary=place) as tree:
        assert before
        assert extents(tree / "large") == before
        assert free - shutil.disk_usage(place).free < SIZE // 3
        tree.run(["sh", "-c", "head -c 1000000 /dev/zero | dd of=large conv=notrunc status=none"], check=True)
        assert extents(tree / "large") != before
        assert extents(source) == before
        assert tree.diff() == {"large": "modified"}
        tree.check_original()


def test_changes_are_told_kept_taken_back_and_committed(place):
    """diff, reset, snapshot, restore and commit do what they do with a copy, hard links included."""
    script = "echo more >> d/small; rm old; echo n > new; echo x >> first; head -c 100 /dev/zero >> large"
    changes = {"d/small": "modified", "old": "deleted", "new": "added", "first": "modified", "second": "modified"}
    changes["large"] = "modified"
    with CowTree(place / "source", backend="reflink", temporary=place) as tree:
        tree.run(["sh", "-c", script], check=True)
        assert tree.diff() == changes
        assert tree.read_text("second") == "first\nx\n"
        tree.snapshot("changed")
        tree.reset("old", "large")
        assert set(tree.diff()) == set(changes) - {"old", "large"}
        assert extents(tree / "large") == extents(place / "source/large")
        tree.reset()
        assert tree.diff() == {}
        tree.restore("changed")
        assert tree.diff() == changes
        tree.commit()
        assert tree.diff() == {}
    assert sorted(path.name for path in (place / "source").iterdir()) == ["d", "first", "large", "new", "second"]
    assert (place / "source/large").stat().st_size == SIZE + 100
    assert (place / "source/second").read_text() == "first\nx\n"
    assert (place / "source/second").samefile(place / "source/first")


def test_where_content_cannot_be_shared_the_reason_says_so(place, tmp_path):
    """From one file system to another, and on one that cannot: named, and with what would help."""
    with pytest.raises(Unavailable, match=r"another file system than the original.*upper="):
        CowTree(place / "source", backend="reflink", temporary=tmp_path)
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/file").write_text("x")
    if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("the temporary directory is a tmpfs itself")
    shm = Path("/dev/shm") / f"poor-container-{os.getpid()}"
    shutil.copytree(tmp_path / "plain", shm / "plain")
    try:
        with pytest.raises(Unavailable, match="cow backend reflink does not work here"):
            CowTree(shm / "plain", backend="reflink", temporary=shm)
    finally:
        shutil.rmtree(shm)


def test_auto_says_why_it_is_this_one(place, tmp_path, monkeypatch):
    """Of the four each is taken when those before it do not work, and the reason names what stood in their way."""
    order = ["overlay", "preload", "reflink", "copy"]
    assert list(known()) == order
    for number, name in enumerate(order):
        with CowTree(place / "source", temporary=place) as tree:
            assert tree.backend == name
            assert tree.reason.startswith("the first that works here" if not number else "not overlay: switched off")
            assert all(f"not {before}: switched off" in tree.reason for before in order[:number])
            assert tree.trust

        def refuse(self, request, name=name):
            raise Unavailable(f"cow backend {name}", "switched off", "")

        monkeypatch.setattr(known()[name], "__init__", refuse)
