"""What a dry run leaves: nothing at all."""

import os
from pathlib import Path

import pytest

from pytest_poorcontainer.mirror.home import Home


def snapshot(top):
    """Return all below a directory, with what is in it and when it was changed."""
    found = {}
    for directory, names, files in os.walk(top):
        for name in [".", *names, *files]:
            path = os.path.join(directory, name)  # noqa: PTH118 - as os.walk gives them
            content = Path(path).read_bytes() if name in files else b""
            found[path] = (os.lstat(path).st_mtime_ns, content)
    return found


@pytest.mark.parametrize("served", ["file", "nginx", "ftp", "rsync"], indirect=True)
def test_a_dry_run_writes_nothing(served):
    """Neither where nothing is yet, nor into a mirror: no directory, mark, log, lock, state or history."""
    served.fill(3)
    before = snapshot(served.base)
    result = served.sync(dry=True, dest=served.base / "deep/er/dest")
    assert (result.state, len(result.plan.fetches)) == ("ok", 3)
    assert snapshot(served.base) == before
    assert served.sync().state == "ok"
    served.put("more")
    before = snapshot(served.base)
    assert len(served.sync(dry=True).plan.fetches) == 1
    assert snapshot(served.base) == before


def test_a_dry_run_adopts_nothing(make_place):
    """The plan for a stranger's directory is shown, and the directory stays a stranger's."""
    with make_place("file") as place:
        place.fill(3)
        place.dest.mkdir()
        (place.dest / "mine").write_text("mine")
        before = snapshot(place.base)
        assert place.sync(dry=True, adopt=True).plan.deletions
        assert snapshot(place.base) == before
        assert place.sync().status == 8


def test_a_command_cannot_be_planned(make_place):
    """One sentence and a status of its own; the program is not run."""
    with make_place("file") as place:
        result = place.sync(dry=True, command=["/bin/sh", "-c", f"touch {place.base}/ran"])
        assert (result.state, result.status) == ("failed", 10)
        assert "cannot be planned" in result.reason
        assert not (place.base / "ran").exists()


def test_no_plan_while_a_run_is_at_work(make_place):
    """It would be of a tree that changes; who is at work is said."""
    with make_place("file") as place:
        place.fill(3)
        with Home(place.dest, name="m", source=""):
            result = place.sync(dry=True)
        assert result.status == 5
        assert f"process {os.getpid()} on" in result.reason
