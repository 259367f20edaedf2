"""The table of ``poor-container ps``, and the shell that ``enter`` starts."""

from pathlib import Path

import pytest

from pytest_poorcontainer.cli._kept_table import age, render
from pytest_poorcontainer.cli._shell import prompt, shells
from pytest_poorcontainer.container.kept import Kept


def make(**changes):
    """Return a container that is kept."""
    known = {
        "name": "primary-4711",
        "host": "primary",
        "lab": 4711,
        "id": 1,
        "test": "failover_test.py::TestFailover::test_replica_takes_over[cut-ipv6]",
        "created": 1000.0,
        "addresses": ("10.0.1.1", "fd00::1"),
        "services": (("redis", "ready"), ("sentinel", "exited 3")),
        "level": "namespaces",
        "peer": "replica",
        "detached": True,
        "socket": Path("/run/4711.sock"),
    }
    return Kept(**(known | changes))


def test_the_table_without_a_limit_has_everything():
    """In a pipe nothing is shortened, and no line ends in blanks."""
    short = make(name="a-1", test="test_it", addresses=(), services=(), lab=1)
    assert render([short], 1065.0, None) == (
        "NAME  TEST     AGE  ADDRESSES  SERVICES  LAB\na-1   test_it  1m   -          -         1\n"
    )
    title, long, _ = render([make(), short], 1065.0, None).splitlines()
    assert long == (
        "primary-4711  failover_test.py::TestFailover::test_replica_takes_over[cut-ipv6]  1m   10.0.1.1 fd00::1"
        "  redis (ready), sentinel (exited 3)  4711"
    )
    assert title.index("LAB") == long.index("4711", 20)


@pytest.mark.parametrize("width", [140, 120, 100, 80])
def test_a_terminals_width_is_kept(width):
    """No line is wider than the terminal; ids of tests give way first, in their middle, and names never."""
    lines = render([make(), make(name="b-4711")], 1065.0, width).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) == 3
    assert lines[1].startswith("primary-4711  fail")
    assert "…" in lines[1]
    assert "ipv6]" in lines[1]
    assert lines[1].endswith("4711")


def test_a_very_narrow_terminal_loses_no_name():
    """Where it cannot fit the lines are as short as can be, and names, ages and pids whole."""
    line = render([make()], 1065.0, 20).splitlines()[1]
    assert line.startswith("primary-4711  ")
    assert line.endswith("  4711")


def test_what_would_steer_the_terminal_is_not_printed():
    """An id of a test may hold escape sequences and line ends: neither reaches the terminal."""
    text = render([make(test="test_it[\x1b[2J\n\t\u202e]")], 1065.0, None)
    assert text.count("\n") == 2
    assert "test_it[?[2J???]" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (86399, "23h"), (200000, "2d")],
)
def test_ages_have_one_unit(seconds, text):
    """An age is a number of the largest unit that fits; a clock that was set back makes no negative one."""
    assert age(seconds) == text


def test_the_shell_is_one_for_people():
    """A user without a login shell, or one that is not known, gets /bin/sh, and so does a number."""
    for user in ("nobody", "no-such-user", "4294967294", "99999999999999999999"):
        assert shells(user) == [["/bin/sh"]]
    assert shells(None)[-1] == ["/bin/sh"] == shells("0")[-1]
    assert all(Path(*shell).is_absolute() for shell in shells(None))


@pytest.mark.parametrize(("user", "text"), [(None, "primary:$PWD# "), ("0", "primary:$PWD# "), ("x", "primary:$PWD$ ")])
def test_the_prompt_says_where_one_is(user, text):
    """The prompt names the host, and by its last letter whether one is root."""
    assert prompt(make(), user) == {"PS1": text}
