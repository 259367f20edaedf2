"""Which set-ups took longest, as lines."""

from __future__ import annotations

import pytest

from pytest_poorcontainer.report.durations import SetUp, slowest

SETUPS = [SetUp(0.0012, "hosts a, b", "test_a"), SetUp(0.007, "lab", "test_a"), SetUp(2.5, "db on a ready", "test_b")]


@pytest.mark.parametrize(
    ("count", "least", "whats"),
    [
        (0, 0.0, ["db on a ready", "lab", "hosts a, b"]),
        (2, 0.0, ["db on a ready", "lab"]),
        (0, 0.005, ["db on a ready", "lab", "(1 of less than 0.005 s hidden, see --durations-min)"]),
        (2, 5, ["(2 of less than 5 s hidden, see --durations-min)"]),
    ],
)
def test_slowest_first_and_bounded(count, least, whats):
    """So many as were asked for, slowest first; those that were too fast are counted."""
    lines = slowest(SETUPS, count, least)
    assert len(lines) == len(whats)
    assert all(what in line for line, what in zip(lines, whats, strict=True))


def test_a_line_has_time_thing_and_test():
    """Milliseconds, what it was, for which test."""
    assert slowest(SETUPS[:1], 0, 0) == ["    1.20 ms  hosts a, b  test_a"]
    assert slowest([], 0, 0) == []
