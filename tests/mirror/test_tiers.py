"""What a mirror tells the mirrors below it, also when nothing is new or a run fails."""

import errno

import pytest

from pytest_poorcontainer.mirror.staging import Stage


@pytest.fixture
def tiers(make_place):
    """Return a mirror with a manifest, and a place that mirrors it."""
    with make_place("file") as first, make_place("file") as second:
        first.fill(3)
        assert first.sync(manifest=True).state == "ok"
        second.url = f"file://{first.dest}"
        yield first, second


def test_the_marker_goes_with_a_run_that_fails(make_place, monkeypatch):
    """A mirror below would wait for ever for the end of an update that has ended."""

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with make_place("file") as place:
        place.fill(3)
        with monkeypatch.context() as patch:
            patch.setattr(Stage, "publish", full)
            assert place.sync(trace="edge.example").status == 7
        assert not [path for path in place.tree() if path.startswith("Archive-Update")]


def test_an_unchanged_source_is_a_complete_run(tiers):
    """The trace tells when the mirror was last found to be complete, and what a killed run left is gone."""
    _, second = tiers
    assert second.sync(trace="edge.example").state == "ok"
    trace = second.dest / "project/trace/edge.example"
    trace.write_text("long ago")
    marker = second.dest / "Archive-Update-in-Progress-edge.example"
    marker.touch()
    result = second.sync(trace="edge.example")
    assert (result.state, result.unchanged) == ("ok", True)
    assert "Upstream-mirror" in trace.read_text()
    assert not marker.exists()
    trace.write_text("long ago")
    assert second.sync(trace="edge.example", dry=True).unchanged
    assert trace.read_text() == "long ago"


@pytest.mark.parametrize("key", [{"manifest": True}, {"trace": "edge.example"}, {"delete": False}])
def test_other_settings_are_no_unchanged_mirror(tiers, key):
    """What a setting asks for is done by the next run, though the source is the same."""
    _, second = tiers
    assert second.sync().state == "ok"
    assert second.sync().unchanged
    assert not second.sync(**key).unchanged
    assert second.sync(**key).unchanged
    if "manifest" in key:
        assert (second.dest / ".poor-mirror.manifest").exists()
