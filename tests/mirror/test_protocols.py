"""What every protocol has to do: a mirror that equals its source, and nothing to do the second time."""

import os

import pytest
from places import FTP, HTTP

pytestmark = pytest.mark.parametrize("served", [*HTTP, *FTP, "file", "rsync"], indirect=True)


def times(place, top):
    """Return the time of each file below a directory."""
    return {
        path: int((top / path).stat().st_mtime)
        for path, content in place.tree(top).items()
        if isinstance(content, bytes)
    }


def test_a_mirror_equals_its_source(served):
    """Names, contents and times are the source's, also for names that are hard to write."""
    served.fill()
    for name in (
        " space first",
        "hash#1",
        "why?",
        "100%",
        "a%3Fb",
        "a&b",
        "quote'",
        'two"',
        "caf\udce9",
        "größe",
        "a;b=c",
    ):
        served.put(f"odd/{name}")
    result = served.sync()
    assert (result.state, result.reason) == ("ok", "")
    assert served.tree() == served.tree(served.source)
    assert times(served, served.dest) == times(served, served.source)
    assert result.added == result.files == 36


@pytest.mark.parametrize("control", [False, True])
def test_names_that_mean_something_elsewhere(served, control):
    """To a shell, to rsync, to a terminal, in a URL, in another case, as long as may be: here they are names."""
    served.fill(3)
    odd = ["n" * 255, "ü" * 127, "-rf", "--delete", "*", "?", "[a]", "{b}", "$(id)", "`id`", ";ls", "a|b", "~", "~root",
           " ", "trail ", "." + "x" * 200, "CON", "a\\b", "\\#123", "%2e%2e", "%00", "'\"<>&", "e\u0301", "é", "\u202e",
           ".~tmp~", "x.~partial", "README"]  # fmt: skip
    odd += ["a\tb", "\x01\x1b[31m"] * control
    for name in odd:
        served.put(f"odd/{name}", b"in " + os.fsencode(name))
    result = served.sync()
    if control and served.kind in FTP:
        assert (result.state, len(served.tree())) == ("partial", len(served.tree(served.source)) - 2)
        assert "\x1b" not in result.reason + served.log()
        return
    assert (result.state, result.reason) == ("ok", "")
    assert served.tree() == served.tree(served.source)
    (served.source / "odd/README").rename(served.source / "odd/readme")
    result = served.sync()
    assert (result.state, result.added, result.deleted) == ("ok", 1, 1)
    assert served.tree() == served.tree(served.source)
    assert "\x1b" not in served.log()


def test_nothing_is_fetched_twice(served):
    """A second run finds nothing to do, at the precision that the listing has."""
    served.fill()
    served.put("large", os.urandom(1_536_000))
    assert served.sync().state == "ok"
    result = served.sync()
    assert (result.state, result.added, result.changed, result.deleted) == ("ok", 0, 0, 0)
    assert result.fetched == 0


def test_changes_follow(served):
    """What is new, changed or gone at the source becomes so in the mirror."""
    served.fill()
    assert served.sync().state == "ok"
    served.put("d0/f0.bin", b"another", age=10)
    served.put("new/one", b"new", age=5)
    (served.source / "d1/f1.bin").unlink()
    result = served.sync()
    assert (result.state, result.added, result.changed, result.deleted) == ("ok", 1, 1, 1)
    assert served.tree() == served.tree(served.source)


def test_a_file_may_become_a_directory_and_back(served):
    """Whatever the kind of a name was, it becomes what the source has."""
    served.fill(5)
    served.put("thing", b"a file")
    served.put("other/inside", b"in a directory")
    assert served.sync().state == "ok"
    (served.source / "thing").unlink()
    served.put("thing/now/deep", b"a directory")
    (served.source / "other/inside").unlink()
    (served.source / "other").rmdir()
    served.put("other", b"a file now")
    assert served.sync().state == "ok"
    assert served.tree() == served.tree(served.source)
    assert not list((served.dest / ".poor-mirror/tmp").iterdir())


def test_what_is_excluded_is_neither_fetched_nor_deleted(served):
    """Patterns are rsync's; what they exclude stays in the mirror if it is there."""
    served.fill(10)
    served.put("keep.tmp", b"x")
    served.put("nightly/a/b", b"x")
    assert served.sync(exclude=["*.tmp", "/nightly/"]).state == "ok"
    assert not {path for path in served.tree() if path.startswith(("keep", "nightly"))}
    (served.dest / "mine.tmp").write_text("mine")
    assert served.sync(exclude=["*.tmp", "/nightly/"]).state == "ok"
    assert (served.dest / "mine.tmp").read_text() == "mine"
    assert served.sync(exclude=["*.tmp", "/nightly/"], delete_excluded=True).state == "ok"
    assert not (served.dest / "mine.tmp").exists()


def test_an_empty_source_is_held(served):
    """A source that is suddenly empty deletes nothing, until a person has said so."""
    served.fill()
    assert served.sync().state == "ok"
    before = served.tree()
    for path in sorted(served.source.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    result = served.sync()
    assert (result.state, result.status) == ("held", 4)
    assert "all 25 files would be deleted" in result.reason
    assert served.tree() == before
    assert served.sync().state == "held"
    assert served.sync(force=True).state == "ok"
    assert served.tree() == {}


def test_the_age_of_the_content_is_exact(served):
    """It is the newest file's, to the second, whatever the listing has, after this run and after the next."""
    served.put("old", age=5000)
    newest = int(served.put("new", age=100).stat().st_mtime)
    for _ in range(2):
        assert int(served.sync().newest) == newest
