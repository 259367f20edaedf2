"""What an admin wants at a glance beside the states: disks, a feed of changes, badges, what to look at first."""

import shutil
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree as Xml

import browser
import pytest

from pytest_poorcontainer.mirror.config import load
from pytest_poorcontainer.mirror.history import History
from pytest_poorcontainer.mirror.overview import overview
from pytest_poorcontainer.mirror.page import render

ATOM = "{http://www.w3.org/2005/Atom}"
LONG = "long-" * 19 + "name"
DAY = 86400


def run_of(name, state="ok", reason="", ago=100.0, **more):
    """Return a run as the history has it."""
    ended = time.time() - ago
    return {"name": name, "started": ended - 3, "ended": ended, "state": state, "status": 0, "reason": reason,
            "files": 7, "bytes": 7000, "newest": ended - 3600, "protocol": "http", **more}  # fmt: skip


@pytest.fixture
def elsewhere(tmp_path):
    """Return a directory on another file system than the test's."""
    if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip(
            "needs two file systems, and /dev/shm is on that of the test's directory: choose another --basetemp"
        )
    with tempfile.TemporaryDirectory(dir="/dev/shm") as found:
        yield Path(found)


def configured(tmp_path, **destinations):
    """Return a configuration with these mirrors: name and destination."""
    tables = "".join(
        f'[mirror."{name}"]\nsource = "http://h.example/"\ndest = "{dest}"\n' for name, dest in destinations.items()
    )
    path = tmp_path / "mirrors.toml"
    path.write_text(f'[site]\nstate = "{tmp_path}/state"\n{tables}')
    return load(path)


def test_each_file_system_has_its_own_forecast(tmp_path, elsewhere):
    """What fills one disk does not make another look full, and the first to be full is named first."""
    config = configured(tmp_path, one=tmp_path / "one", two=elsewhere / "two", three=elsewhere / "three/below")
    here, there = tmp_path.stat().st_dev, elsewhere.stat().st_dev
    assert all(disk["days"] is None for disk in overview(config)["disks"])
    history = History(config.state / "history.sqlite3")
    free = shutil.disk_usage(elsewhere).free
    for number in range(5):  # written in turns, as mirrors on two disks do
        ago = (5 - number) * DAY
        history.add(run_of("one", ago=ago, device=here, free=10**12 * (number + 1), total=10**14))
        history.add(run_of("two", ago=ago + 1, device=there, free=10 * free - number * free // 10, total=20 * free))
    found = overview(config)
    assert [disk["mirrors"] for disk in found["disks"]] == [["two", "three"], ["one"]]
    assert found["disks"][0]["mount"] == "/dev/shm"
    assert found["disks"][0]["days"] == pytest.approx(10, rel=0.1)
    assert found["disks"][1]["days"] is None
    assert "of /dev/shm free; full in about 10 days" in found["line"]
    page = render.page(found).decode()
    assert page.count("<li>") == 2
    assert b'poor_mirror_disk_free_bytes{mount="/dev/shm"} ' in render.metrics(found)


def test_a_run_notes_its_file_system(make_place):
    """The one that the destination is on, whatever else was mirrored to elsewhere."""
    with make_place("file") as place:
        place.fill(3)
        result = place.sync()
        assert result.device == place.dest.stat().st_dev
        assert result.total == shutil.disk_usage(place.dest).total
        assert place.sync(command=["true"]).device == result.device


def test_measurements_are_kept_for_each_file_system(tmp_path, monkeypatch):
    """A disk that is looked at often pushes no other one's out."""
    monkeypatch.setattr("pytest_poorcontainer.mirror.history._KEPT_SPACE", 3)
    history = History(tmp_path / "history.sqlite3")
    history.add(run_of("rare", ago=9 * DAY, device=1, free=900, total=1000))
    history.add(run_of("rare", ago=8 * DAY, device=1, free=800, total=1000))
    for number in range(10):
        history.add(run_of("often", ago=100 - number, device=2, free=500, total=1000))
    assert history.filling() == {1: pytest.approx(100 / DAY, rel=0.01)}


def test_a_run_is_written_in_one_transaction(tmp_path):
    """With what is free on its disk, and the first with the tables: the file's own counter of changes tells."""
    history = History(tmp_path / "history.sqlite3")
    counts = []
    for ago in (30, 20, 10):
        history.add(run_of("one", ago=ago, device=1, free=500, total=1000))
        counts.append(int.from_bytes(history.stamp(), "big"))
    assert counts == [1, 2, 3]
    assert len(history.runs("one")) == 3


def test_the_feed_has_the_changes_of_state(tmp_path):
    """Valid Atom, the newest first, only where a state is another than before, with ids that stay."""
    config = configured(tmp_path, one=tmp_path / "one", two=tmp_path / "two")
    history = History(config.state / "history.sqlite3")
    for ago, state, reason in (
        (500, "ok", ""),
        (400, "ok", ""),
        (300, "failed", "<b>&\x1b\udce9\ud800"),
        (200, "ok", ""),
    ):
        history.add(run_of("one", state, reason.encode("utf-8", "backslashreplace").decode(), ago=ago))
    history.add(run_of("two", "held", "too many", ago=250))
    first, second = (Xml.fromstring(render.feed(overview(config))) for _ in range(2))
    entries = first.findall(f"{ATOM}entry")
    assert [one.find(f"{ATOM}title").text for one in entries] == [
        "one: ok (was failed)", "two: held", "one: failed (was ok)", "one: ok",
    ]  # fmt: skip
    assert entries[2].find(f"{ATOM}summary").text.startswith("<b>&\\x1b")
    assert len({one.find(f"{ATOM}id").text for one in entries}) == 4
    ids = [[one.text for one in feed.iter(f"{ATOM}id")] for feed in (first, second)]
    assert ids[0] == ids[1]
    assert first.find(f"{ATOM}updated").text == entries[0].find(f"{ATOM}updated").text


def test_an_empty_feed_is_one(tmp_path):
    """Nothing has run yet: no entry, and all that a reader needs."""
    found = Xml.fromstring(render.feed(overview(configured(tmp_path, one=tmp_path / "one"))))
    assert {each.tag for each in found} >= {f"{ATOM}{name}" for name in ("id", "title", "updated", "author")}
    assert not found.findall(f"{ATOM}entry")


@pytest.mark.parametrize(
    ("state", "word"), [("ok", "up to date"), ("failed", "failing"), ("held", "held"), ("", "never run")]
)
def test_a_badge_says_it_in_words(tmp_path, state, word):
    """Each mirror has an SVG, without a script or anything from elsewhere; of a mirror that is not there is none."""
    config = configured(tmp_path, one=tmp_path / "one")
    if state:
        History(config.state / "history.sqlite3").add(run_of("one", state))
    parts = render.files(config)
    found = Xml.fromstring(parts["one.svg"])
    assert [each.text for each in found.iter("{http://www.w3.org/2000/svg}text")] == ["one", word]
    assert found.get("aria-label") == f"one: {word}"
    assert not [each for each in found.iter() if each.tag.endswith("script") or "style" in each.attrib]
    assert render.part(config, overview(config), "two.svg") is None
    assert render.part(config, overview(config), "one.png") is None


def test_what_needs_somebody_is_named_first(tmp_path):
    """Above the table, with links: it may be the fiftieth of sixty."""
    config = configured(tmp_path, one=tmp_path / "one", two=tmp_path / "two")
    assert b"To be looked at" not in render.page(overview(config))
    History(config.state / "history.sqlite3").add(run_of("two", "failed", "broken"))
    text = render.page(overview(config)).decode()
    assert 'To be looked at: <a href="two.html">two</a> (failing)' in text
    assert "tried " in text


@pytest.mark.skipif(
    browser.CHROMIUM is None, reason="needs a browser: sudo apt-get install --no-install-recommends chromium"
)
def test_long_names_on_a_phone(tmp_path):
    """Neither a long name nor a long reason makes a page wider than the screen, nor hides the state."""
    config = configured(tmp_path, **{LONG: tmp_path / "one", "two": tmp_path / "two"})
    config.page = tmp_path / "www"
    history = History(config.state / "history.sqlite3")
    history.add(run_of(LONG, "failed", "x" * 2000))
    render.write(config)
    with browser.page(tmp_path) as page:
        for name in ("index", LONG, "two"):
            for width in (360, 1200):
                page.open(f"file://{config.page}/{name}.html")
                page.screenshot(tmp_path / "picture.png", width)
                assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (name, width)
                assert page.evaluate("document.querySelector('.badge').getBoundingClientRect().right") <= width
