"""What readers of snapshots see when runs do not get to their end."""

import pytest

from pytest_poorcontainer.mirror import snapshots


class KilledError(Exception):
    """Stands for the end of the process."""


def test_the_next_run_shows_what_a_killed_one_has_brought(make_place, monkeypatch):
    """A run that ended before it could switch leaves nothing to fetch, and a state that nobody sees yet."""
    with make_place("file") as place:
        place.fill(3)
        assert place.sync(snapshots=2).state == "ok"
        first = place.dest.resolve()
        place.put("new", b"x")

        def killed(*_, **__):
            raise KilledError

        with monkeypatch.context() as patch:
            patch.setattr(snapshots, "switch", killed)
            with pytest.raises(KilledError):
                place.sync(snapshots=2)
        assert place.dest.resolve() == first
        assert place.sync(snapshots=2).state == "ok"
        assert place.tree() == place.tree(place.source)
        second = place.dest.resolve()
        assert place.sync(snapshots=2).state == "ok"
        assert place.dest.resolve() == second
