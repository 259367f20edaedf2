"""What the guard counts: also all that goes with a directory that becomes a file, and links."""

import shutil

import pytest

over = pytest.mark.parametrize("served", ["file", "nginx", "ftp", "rsync"], indirect=True)


def become_a_file(served, files=20):
    """Mirror a directory, which then is a file at the source."""
    for number in range(files):
        served.put(f"pool/f{number:02}", b"x")
    served.put("other/a", b"x")
    assert served.sync().state == "ok"
    shutil.rmtree(served.source / "pool")
    served.put("pool", b"a file now")


@over
def test_a_directory_that_becomes_a_file_is_held(served):
    """All that would go with the directory counts as deleted."""
    become_a_file(served)
    before = served.tree()
    result = served.sync()
    assert result.state == "held", result.reason
    assert served.tree() == before
    assert served.sync(force=True).state == "ok"
    assert served.tree() == served.tree(served.source)


@over
def test_what_is_never_to_be_deleted_stays_under_a_file(served):
    """Without deletions the directory stays, the run is partial, and a file still becomes a directory."""
    served.put("thing", b"a file")
    become_a_file(served, 3)
    (served.source / "thing").unlink()
    served.put("thing/inside", b"x")
    result = served.sync(delete=False)
    assert (result.state, result.deleted) == ("partial", 1)
    assert "pool: a directory here" in result.reason
    assert {"pool/f00", "pool/f01", "pool/f02", "thing/inside"} <= served.tree().keys()


@over
def test_what_is_excluded_stays_under_a_file(served):
    """A file that patterns protect keeps its directory."""
    become_a_file(served, 3)
    (served.dest / "pool/mine.keep").write_text("mine")
    result = served.sync(exclude=["*.keep"])
    assert result.state == "partial"
    assert (served.dest / "pool/mine.keep").read_text() == "mine"


@pytest.mark.parametrize("served", ["nginx", "ftp"], indirect=True)
def test_a_file_beside_what_cannot_be_listed(served):
    """Nobody knows what became of a directory beside one that cannot be listed, so nothing in it goes."""
    become_a_file(served)
    served.faults({"kind": "error", "path": "other", "status": 500, "code": 550})
    result = served.sync()
    assert result.state == "partial", result.reason
    assert "pool/f00" in served.tree()
    served.faults()
    assert served.sync().state == "held"


@pytest.mark.parametrize("served", ["file", "ftp", "rsync"], indirect=True)
def test_links_are_present_as_they_are_deleted(served):
    """A few links of many are a small share; nearly all of them are not."""
    served.put("d/file", b"x")
    for number in range(30):
        (served.source / f"d/l{number}").symlink_to("file")
    assert served.sync().state == "ok"
    for number in range(11):
        (served.source / f"d/l{number}").unlink()
    assert served.sync().state == "ok"
    for number in range(11, 24):
        (served.source / f"d/l{number}").unlink()
    result = served.sync()
    assert result.state == "held"
    assert "13 of 20 files" in result.reason
