"""Destinations that are not as they should be: not ours to read, switched half-way, with a clock that goes back."""

import json
import os
import subprocess
import sys
import time

import pytest

from pytest_poorcontainer.mirror.home import Home

PROGRAM = [sys.executable, "-m", "pytest_poorcontainer.cli.poor_mirror"]
WITHOUT_POWER = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] * (os.geteuid() == 0)
KILLED = """
import os, sys
from pathlib import Path
from pytest_poorcontainer.mirror import snapshots
from pytest_poorcontainer.mirror.config import Mirror
from pytest_poorcontainer.mirror.sync import Run

step, source, dest, state = int(sys.argv[1]), *sys.argv[2:]
left = [step]

def counted(real):
    def call(*args, **options):
        left[0] -= 1
        if left[0] < 0:
            os._exit(9)
        return real(*args, **options)
    return call

def switch(mirror, real=snapshots.switch):
    os.link = counted(os.link)
    for name in ("rename", "symlink_to", "unlink", "mkdir"):
        setattr(Path, name, counted(getattr(Path, name)))
    return real(mirror)

snapshots.switch = switch
result = Run(Mirror(name="m", source=source, dest=Path(dest), state=Path(state), snapshots=1)).go()
sys.exit(result.status)
"""


def configured(place, **keys):
    """Write a configuration with this mirror, and return its path."""
    path = place.base / "mirrors.toml"
    lines = [f"{key} = {json.dumps(value if isinstance(value, int) else str(value))}\n" for key, value in keys.items()]
    path.write_text(f'[site]\nstate = "{place.state}"\n[mirror.m]\nsource = "{place.url}"\n{"".join(lines)}')
    return path


@pytest.mark.parametrize("snapshots", [0, 1])
def test_a_place_that_may_not_be_looked_into(make_place, snapshots):
    """A directory above that is closed to us is one sentence and a status, also with snapshots."""
    with make_place("file") as place:
        place.put("f")
        closed = place.base / "closed"
        closed.mkdir(mode=0)
        argv = [*WITHOUT_POWER, *PROGRAM, "--config", configured(place, dest=closed / "x", snapshots=snapshots), "sync"]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
            assert (done.returncode, done.stderr.count("\n")) == (8, 1), done.stderr
            assert "Permission denied" in done.stderr
        finally:
            closed.chmod(0o700)


def test_a_file_of_ours_that_is_somebody_elses(make_place):
    """Of what cannot be written to the name is told, not only the mirror's."""
    with make_place("file") as place:
        place.put("f")
        assert place.sync().state == "ok"
        lock = place.dest / ".poor-mirror/lock"
        lock.unlink()
        lock.mkdir()
        result = place.sync()
        assert (result.state, result.status) == ("failed", 8)
        assert str(lock) in result.reason


def test_killed_at_each_step_of_a_switch(make_place):
    """Readers see one whole state or the other, the next run ends well, and nothing that was begun is left."""
    with make_place("file") as place:
        place.fill(3)
        assert place.sync(snapshots=1).state == "ok"
        before = place.tree()
        seen = set()
        for step in range(40):
            place.put("d0/new", b"%d" % step, age=100 - step)
            after = {**place.tree(place.source)}
            argv = [sys.executable, "-c", KILLED, str(step), place.url, place.dest, place.state]
            status = subprocess.run(argv, check=False, timeout=60).returncode
            assert place.tree() in (before, after), step
            seen.add(place.tree() == after)
            if status == 0:
                break
            assert status == 9
            assert place.sync(snapshots=1).state == "ok"
            before = place.tree()
            assert before == after
            beside = {path.name for path in (place.dest.parent / ".dest.snapshots").iterdir()}
            assert not [name for name in beside if name.startswith(".")]
        assert status == 0
        assert step > 8
        assert seen == {False, True}


def test_a_clock_that_goes_back(make_place, monkeypatch):
    """The log that is shown is the last run's, new ones are not taken for the oldest, and snapshots are switched."""
    real = time.time_ns
    with make_place("file") as place:
        for number in range(14):
            ahead = 10**9 * 86400 * 400 * (number < 3)
            monkeypatch.setattr(time, "time_ns", lambda ahead=ahead: real() + ahead)
            place.put("f", b"%d" % number, age=100 - number)
            assert place.sync(snapshots=2).state == "ok"
            assert place.tree() == {"f": b"%d" % number}
            work = place.mirror(snapshots=2).work
            log = Home.last_log(work)
            assert log.stat().st_mtime_ns == max(one.stat().st_mtime_ns for one in log.parent.iterdir()), number
        logs = sorted(one.name[:4] for one in log.parent.iterdir())
        assert len(logs) == 10
        assert len(set(logs)) == 1
        found = list(place.dest.resolve().parent.glob("snapshot-*"))
        assert len(found) <= 3


@pytest.mark.parametrize("content", [b"", b"no database " * 400, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_history_that_is_damaged(make_place, content):
    """A run says so, and what to do; moved away, it begins anew. The mirror stays as it is."""
    with make_place("file") as place:
        place.fill(3)
        assert place.sync().state == "ok"
        path = place.state / "history.sqlite3"
        path.write_bytes(content)
        argv = [*PROGRAM, "--config", configured(place, dest=place.dest), "sync"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        if content:
            assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
            assert "Move it away to begin anew" in done.stderr
            path.unlink()
            done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        assert place.tree() == place.tree(place.source)
