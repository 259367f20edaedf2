"""The plan that comes of a listing and of what lies there: in one go for what is as it was, else name by name."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_poorcontainer.mirror.config import Mirror
from pytest_poorcontainer.mirror.entries import DIRECTORY, FILE, LINK, Entry, Listing
from pytest_poorcontainer.mirror.planner import Planner
from pytest_poorcontainer.mirror.profiles import DATA, PROFILES
from pytest_poorcontainer.mirror.tree import Tree

NAMES = ("a", "b", "c.deb", "d", "Packages", "SHA256SUMS", "sub")
WHEN = 1_704_067_200.0


def planned(path, listing, mirror, top):
    """Return the plan for one directory, as what JSON can hold."""
    with Tree(top) as tree:
        planner = Planner(tree, mirror.rules(), mirror.layout())
        below = planner.found(path, listing)
        return below, planner.plan.dump()


def one_by_one(path, listing, mirror, top):
    """Return the same, with each name asked about."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Planner, "_unchanged", lambda *_: set())
        return planned(path, listing, mirror, top)


ENTRIES = st.builds(
    Entry,
    st.sampled_from(NAMES),
    st.sampled_from([FILE, FILE, FILE, DIRECTORY, LINK]),
    st.sampled_from([3, 3, 3, 4, None]),
    st.sampled_from([WHEN, WHEN, WHEN + 0.5, WHEN + 60, None]),
    st.sampled_from([1.0, 60.0]),
    st.sampled_from([0, 2]),
    st.just("a"),
    local=st.booleans(),
)
THERE = st.dictionaries(
    st.sampled_from((*NAMES, "gone")), st.sampled_from(["same", "same", "same", "longer", "later", "directory", "link"])
)


def lay(directory, there):
    """Put what is drawn into an empty directory."""
    for name, kind in there.items():
        place = directory / name
        if kind == "directory":
            place.mkdir()
        elif kind == "link":
            place.symlink_to("a")
        else:
            place.write_bytes(b"abcd" if kind == "longer" else b"abc")
            os.utime(place, (WHEN, WHEN + (1000 if kind == "later" else 0)))


@given(
    st.lists(ENTRIES, max_size=8),
    THERE,
    st.sampled_from(["", "pool"]),
    st.sampled_from(["plain", "debian"]),
    st.sampled_from([(), ("*.deb",)]),
)
@settings(max_examples=300, deadline=None)
def test_what_is_as_it_was_gives_the_same_plan_in_one_go(tmp_path_factory, entries, there, path, profile, exclude):
    """Twice the same name, checksum files, links, directories in the way, times that are not exact."""
    top = tmp_path_factory.mktemp("tree")
    (top / path).mkdir(exist_ok=True)
    lay(top / path, there)
    mirror = Mirror("x", profile=profile, exclude=exclude)
    at_once = planned(path, Listing(entries=list(entries)), mirror, top)
    assert at_once == one_by_one(path, Listing(entries=list(entries)), mirror, top)


def test_unchanged_files_are_counted_with_what_they_hold(tmp_path):
    """Files, bytes, the newest time, and how many lie below the directory at the top."""
    (tmp_path / "pool").mkdir()
    lay(tmp_path / "pool", {"a": "same", "b": "same", "d": "longer"})
    listing = Listing(entries=[Entry("a", FILE, 3, WHEN), Entry("b", FILE, 3, WHEN), Entry("d", FILE, 3, WHEN)])
    _, plan = planned("pool", listing, Mirror("x"), tmp_path)
    assert plan["listed"] == {"files": 3, "bytes": 9, "directories": 1}
    assert plan["local"] == {"files": 3, "bytes": 10, "others": 0}
    assert plan["tops"] == {"pool": 3}
    assert [want["path"] for want in plan["fetches"]] == ["pool/d"]
    assert plan["newest"] == WHEN


def test_a_directory_without_changes_is_read_once(tmp_path, monkeypatch):
    """No name in it is looked up beside that, and a directory that is not there, or is a link, is planned."""
    for name in ("pool", "elsewhere"):
        (tmp_path / name).mkdir()
        lay(tmp_path / name, {"a": "same", "b": "same"})
    (tmp_path / "link").symlink_to("elsewhere")
    looked = []
    look = Tree.look
    monkeypatch.setattr(Tree, "look", lambda self, path: looked.append(path) or look(self, path))
    listing = Listing(entries=[Entry("a", FILE, 3, WHEN), Entry("b", FILE, 3, WHEN)])
    plans = {path: planned(path, listing, Mirror("x"), tmp_path)[1] for path in ("pool", "new", "link")}
    assert looked == ["new", "link"]
    assert {path: (plan["directories"], len(plan["fetches"]), plan["displaced"]) for path, plan in plans.items()} == {
        "pool": ([], 0, []),
        "new": (["new"], 2, []),
        "link": (["link"], 2, ["link"]),
    }


def test_nothing_is_looked_for_in_a_directory_that_is_not_there(tmp_path, monkeypatch):
    """Neither while a new tree is planned, but for its top, nor while its directories are made."""
    asked = []
    resolve = Tree._resolve
    monkeypatch.setattr(Tree, "_resolve", lambda self, path: asked.append(path) or resolve(self, path))
    with Tree(tmp_path) as tree:
        planner = Planner(tree, Mirror("x").rules(), Mirror("x").layout())
        for path in ("a", "a/b", "a/b/c"):
            planner.found(path, Listing(entries=[Entry("f", FILE, 3, WHEN)]))
        assert planner.plan.directories == ["a", "a/b", "a/b/c"]
        assert len(planner.plan.fetches) == 3
        assert asked == ["a"]
        asked.clear()
        for path in planner.plan.directories:
            tree.make(path)
        assert asked == ["a", "a/b", "a/b/c"]
    assert (tmp_path / "a/b/c").is_dir()


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_what_is_ours_in_a_source_means_no_update(profile):
    """A mirror of a mirror: the first one's manifest is no sign that it is being updated, nor an index."""
    for name in (".poor-mirror", ".poor-mirror.manifest"):
        assert not profile.is_updating(name)
        assert profile.stage(name) == DATA
