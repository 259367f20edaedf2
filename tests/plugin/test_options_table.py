"""docs/options.md tells what the code does, row by row."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from pytest_poorcontainer import hookspecs
from pytest_poorcontainer.fixtures import _gate, _marker, _options
from pytest_poorcontainer.machine import LEVELS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "options.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("| \n").split("|")] for line in TEXT.splitlines() if line.startswith("|")]


def test_each_flag_has_its_row():
    """Flag, ini key, environment variable and default of the table are those of the code, no more and no fewer."""
    rows = [tuple(row[:4]) for row in ROWS if row[0].startswith("`--")]
    assert rows[: len(_options.SWITCHES)] == [
        (
            f"`{flag}`",
            f"`{_options.INI} = {value}`",
            f"`{_options.ENVIRONMENT}={value}`",
            "yes" if value == _options.DEFAULT else "",
        )
        for flag, value, _ in _options.SWITCHES
    ]
    assert {value for _, value, _ in _options.SWITCHES} == set(_options.MODES)
    assert rows[len(_options.SWITCHES) :] == [
        (
            f"`{option.flag}{'=' * bool(option.metavar)}{option.metavar}`",
            f"`{option.ini}`",
            f"`{option.environment}`",
            f"`{option.default}`" if option.default else "",
        )
        for option in _options.OPTIONS
    ]
    assert sorted(option.field for option in _options.OPTIONS) == sorted(_options.Chosen.__slots__)


def test_each_variable_that_the_code_reads_is_listed():
    """Every ``POOR_CONTAINER...`` in the package stands in the document, and the document names no other."""
    name = re.compile(r"\bPOOR_CONTAINER(?:_[A-Z]+)*\b")
    sources = (ROOT / "pytest_poorcontainer").rglob("*.py")
    assert set(name.findall(TEXT)) == {found for path in sources for found in name.findall(path.read_text())}


def test_each_key_of_the_marker_has_its_row():
    """Keys and levels of the marker, and the names of the fixtures, are those of the code."""
    rows = [row[0].strip("`") for row in ROWS if row[0].strip("`") in _marker.KEYS]
    assert rows == list(_marker.KEYS)
    level = next(row for row in ROWS if row[0] == "`level`")
    assert tuple(re.findall(r"`(\w+)`", level[1])) == LEVELS
    ours = re.compile("netns_|network|chroot_|unshared_|tcp_|mirror_|poor_mirror|cow_dir|prepared")
    named = {word for word in re.findall(r"`(\w+)`", TEXT) if ours.match(word)}
    assert named == _gate.FIXTURES


def test_each_hook_has_its_row():
    """Names and arguments of the hooks are those of their specifications."""
    rows = [row[0].strip("`") for row in ROWS if row[0].startswith("`pytest_")]
    assert rows == [
        f"{name}({', '.join(inspect.signature(getattr(hookspecs, name)).parameters)})" for name in hookspecs.__all__
    ]


def test_the_gated_fixtures_are_those_of_the_plugin():
    """A fixture that the plugin defines and gating does not know would run when off."""
    from pytest_poorcontainer import plugin

    assert set(plugin.__all__) == _gate.FIXTURES
