"""Where a run may write, who may run, and what is left when it is killed."""

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from descriptors import descriptor_count

from pytest_poorcontainer.mirror import tree as trees
from pytest_poorcontainer.mirror.errors import BadDestination
from pytest_poorcontainer.mirror.home import Home, check_place
from pytest_poorcontainer.mirror.tree import Tree

PROGRAM = [sys.executable, "-m", "pytest_poorcontainer.cli.poor_mirror"]
OVER_ALL = ["nginx", "ftp", "file", "rsync"]


@pytest.mark.parametrize("path", ["/", "~", "/proc", "/dev/shm"])
def test_places_that_cannot_be_meant(path):
    """The root, a home, and the root of a mounted file system are refused (row 12)."""
    with pytest.raises(BadDestination, match="name a directory below it"):
        check_place(Path(path).expanduser())


def test_a_directory_with_files_has_to_be_adopted(make_place):
    """What was not made by us is not touched, unless somebody says so (row 12)."""
    with make_place("file") as place:
        place.put("new")
        place.dest.mkdir()
        (place.dest / "mine").write_text("mine")
        (place.dest / "too").write_text("mine")
        result = place.sync()
        assert (result.state, result.status) == ("failed", 8)
        assert "--adopt" in result.reason
        assert {path.name for path in place.dest.iterdir()} == {"mine", "too"}
        assert place.sync(adopt=True).state == "held"  # all that is there would be deleted
        assert (place.dest / "mine").exists()


def test_storage_that_is_gone(make_place):
    """An empty directory where earlier runs have filled one is not filled anew (row 33)."""
    with make_place("file") as place:
        place.fill(3)
        assert place.sync().state == "ok"
        place.dest.rename(place.base / "elsewhere")
        result = place.sync()
        assert (result.state, result.status) == ("failed", 8)
        assert "is its disk mounted" in result.reason
        assert place.sync(adopt=True).state == "ok"


def test_another_device(make_place):
    """A destination that has changed its device is refused (row 33)."""
    with make_place("file") as place:
        place.fill(3)
        assert place.sync().state == "ok"
        marker = place.dest / ".poor-mirror/mirror.json"
        marker.write_text(json.dumps({**json.loads(marker.read_text()), "device": 1}))
        assert place.sync().status == 8


def test_a_mirror_in_a_mirror(make_place):
    """The outer one would delete the inner one (row 12)."""
    with make_place("file") as place:
        place.fill(3)
        assert place.sync().state == "ok"
        result = place.sync(dest=place.dest / "d1/inner")
        assert (result.state, result.status) == ("failed", 8)
        assert "which would delete it" in result.reason


@pytest.mark.parametrize("way", ["into itself", "onto itself", "out of itself"])
def test_a_source_and_its_own_mirror(make_place, way):
    """A tree is not copied into itself, unless what is copied leaves that out."""
    with make_place("file") as place:
        place.fill(3)
        inner = place.source / "d1/inner"
        inner.mkdir(parents=True)
        dest = {"into itself": inner, "onto itself": place.source, "out of itself": place.base}[way]
        result = place.sync(dest=dest, adopt=True)
        assert (result.state, result.status) == ("failed", 2)
        assert "in one another" in result.reason
        if way == "into itself":
            assert place.sync(dest=dest, adopt=True, exclude=["/d1/"]).state == "ok"
            assert not (inner / "d1").exists()


def test_a_second_run_is_told_who_is_at_work(make_place):
    """The lock names its owner; it is gone with the process, whatever ended that (row 35)."""
    with make_place("file") as place:
        place.fill(3)
        with Home(place.dest, name="m", source=""):
            result = place.sync()
            assert (result.state, result.status) == ("locked", 5)
            assert f"process {os.getpid()} on" in result.reason
            assert Home.locked_by(place.dest) == os.getpid()
        assert Home.locked_by(place.dest) == 0
        assert place.sync().state == "ok"


def test_who_asks_for_the_lock_is_no_run(make_place):
    """The page holds the lock for a moment to see whether it is free: a run that begins then is not refused."""
    with make_place("file") as place:
        place.fill(3)
        assert place.sync().state == "ok"
        with (place.dest / ".poor-mirror/lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            threading.Timer(0.05, fcntl.flock, (lock, fcntl.LOCK_UN)).start()
            assert place.sync().state == "ok"


def test_our_own_directory_may_be_no_link(make_place, tmp_path):
    """A link in the place of .poor-mirror is refused: who set it could lead us anywhere."""
    (tmp_path / "other").mkdir()
    with make_place("file") as place:
        place.fill(3)
        place.dest.mkdir()
        (place.dest / ".poor-mirror").symlink_to(tmp_path / "other")
        assert place.sync().status == 8
        assert not list((tmp_path / "other").iterdir())


@pytest.fixture(params=["openat2", "by hand"])
def top(request, tmp_path, monkeypatch):
    """Return a tree with links that lead out and in."""
    (tmp_path / "top/sub").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "top/link").symlink_to("../outside")
    (tmp_path / "top/inside").symlink_to("sub")
    with Tree(str(tmp_path / "top")) as found:
        if request.param == "by hand":
            found._openat2 = False
        yield found


@pytest.mark.parametrize("path", ["link", "inside", "..", "sub/../..", "../outside", "link/x", "sub/.."])
def test_no_path_leaves_the_tree(top, path):
    """Neither dots nor links lead out, with openat2 and without (rows 13, 14)."""
    with pytest.raises(OSError, match=r"\["):
        top.make(path)
    with pytest.raises(OSError, match=r"\["):
        top.directory(path)
    assert top.scan("link") == {}


def test_a_directory_that_is_swapped_for_a_link(top, tmp_path):
    """Writing goes on in the directory that was opened, and never through the link that took its place."""
    top.make("deep/er")
    (tmp_path / "top/deep").rename(tmp_path / "moved")
    (tmp_path / "top/deep").symlink_to(tmp_path / "outside")
    (tmp_path / "file").write_text("x")
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    top.rename(fd, "file", "deep/er/file")
    os.close(fd)
    assert not list((tmp_path / "outside").iterdir())
    assert (tmp_path / "moved/er/file").exists()


def test_a_kernel_without_openat2(tmp_path, monkeypatch):
    """Where a sandbox refuses the call, the way is taken step by step."""
    monkeypatch.setattr(trees, "_OPENAT2", 100000)
    (tmp_path / "a/b").mkdir(parents=True)
    with Tree(str(tmp_path)) as top:
        assert os.fstat(top.directory("a/b")).st_ino == (tmp_path / "a/b").stat().st_ino


def test_descriptors_do_not_pile_up(tmp_path):
    """A thousand directories are visited with a bounded number of descriptors, and none is left."""
    for number in range(1000):
        (tmp_path / f"d{number}").mkdir()
    before = descriptor_count()
    with Tree(str(tmp_path)) as top:
        for number in range(1000):
            top.scan(f"d{number}")
        assert descriptor_count() < before + 140
    assert descriptor_count() == before


def command(place, *words, **options):
    """Return the command line that keeps a place's mirror, without a configuration."""
    settings = {"retries": 1, "backoff": 0.01, "idle": 2, **options}
    return [
        *PROGRAM,
        "copy",
        place.url,
        str(place.dest),
        "--quiet",
        *(f"--set={key}={value}" for key, value in settings.items()),
        *words,
    ]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("served", OVER_ALL, indirect=True)
def test_killed_at_any_moment(served):
    """After kill -9 every published file is whole, old or new, and the next run ends equal to the source."""
    rounds = int(os.environ.get("POOR_MIRROR_KILLS", "6"))
    contents = {}

    def change(generation):
        for number in range(40):
            data = bytes([generation, number]) * (20_000 if number else 900_000)
            served.put(f"d{number % 4}/f{number}", data, age=100_000 - generation * 100)
            contents.setdefault(f"d{number % 4}/f{number}", set()).add(data)

    change(0)
    began = time.monotonic()
    subprocess.run(command(served), check=True, capture_output=True)
    took = time.monotonic() - began
    chance = random.Random(served.kind)
    for generation in range(1, rounds + 1):
        change(generation % 250)
        with subprocess.Popen(command(served), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(chance.uniform(0.1, max(0.3, took)))
            process.send_signal(signal.SIGKILL)
        torn = [path for path, data in served.tree().items() if data is not None and data not in contents[path]]
        assert not torn
        assert len([data for data in served.tree().values() if data is not None]) == 40
    subprocess.run(command(served), check=True, capture_output=True)
    assert served.tree() == served.tree(served.source)
    assert not list((served.dest / ".poor-mirror/tmp").iterdir())


@pytest.mark.parametrize("served", ["nginx", "ftp"], indirect=True)
def test_ended_by_sigterm(served):
    """SIGTERM ends a run within a moment: status 130, nothing half published, and the result in the history."""
    served.put("f", b"old", age=5000)
    subprocess.run(command(served), check=True, capture_output=True)
    served.put("f", b"n" * 3_000_000, age=5)
    served.faults({"kind": "slow", "path": "f", "rate": 500_000})
    with subprocess.Popen(command(served), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        status = served.dest / ".poor-mirror/status.json"
        deadline = time.monotonic() + 20
        while json.loads(status.read_text()).get("bytes", 0) < 100_000:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.terminate()
        assert "interrupted" in process.communicate(timeout=20)[1]
        assert process.returncode == 130
    assert served.tree()["f"] == b"old"


@pytest.mark.parametrize("served", OVER_ALL, indirect=True)
def test_readers_see_old_or_new_files(served):
    """While files are replaced, a reader finds each one, whole (row 6)."""
    for number in range(6):
        served.put(f"f{number}", b"a" * 2_000_000, age=5000)
    assert served.sync().state == "ok"
    ending, seen = threading.Event(), {"old": 0, "new": 0, "torn": 0, "missing": 0}

    def read():
        while not ending.is_set():
            for number in range(6):
                try:
                    data = (served.dest / f"f{number}").read_bytes()
                except FileNotFoundError:
                    seen["missing"] += 1
                    continue
                whole = len(data) == 2_000_000 and data in (b"a" * 2_000_000, b"b" * 2_000_000)
                seen["torn" if not whole else "old" if data[:1] == b"a" else "new"] += 1

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(6):
            served.put(f"f{number}", b"b" * 2_000_000, age=5)
        assert served.sync().state == "ok"
    finally:
        ending.set()
        reader.join()
    assert (seen["torn"], seen["missing"]) == (0, 0)
    assert seen["old"] + seen["new"] > 0


def test_the_lock_is_the_kernels(make_place):
    """A lock file that a killed run has left behind locks nothing."""
    with make_place("file") as place:
        place.fill(2)
        assert place.sync().state == "ok"
        lock = place.dest / ".poor-mirror/lock"
        lock.write_text("1 somewhere\n")
        assert place.sync().state == "ok"
        with lock.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            assert place.sync().status == 5
