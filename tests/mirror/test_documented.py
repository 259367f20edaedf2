"""docs/mirror.md against the code: keys, faults, sources, and the example, which runs as it stands there."""

import dataclasses
import re
from pathlib import Path

import pytest

from pytest_poorcontainer.mirror.config import Mirror, load
from pytest_poorcontainer.mirror.profiles import PROFILES
from pytest_poorcontainer.mirror.testing.faults import KINDS

PAGE = (Path(__file__).resolve().parents[2] / "docs/mirror.md").read_text(encoding="utf-8")


def test_every_key_has_its_row():
    """The table has all keys of a mirror, and no others."""
    table = PAGE.partition("| key of")[2].partition("\n\n")[0]
    named = {word for row in table.splitlines()[2:] for word in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == {field.name for field in dataclasses.fields(Mirror)} - {"name", "state", "where"}


def test_profiles_and_faults_are_named():
    """So are the profiles and what a test's source can do wrong."""
    row = next(line for line in PAGE.splitlines() if line.startswith("| `profile`"))
    assert set(PROFILES) <= set(re.findall(r"`(\w+)`", row))
    text = " ".join(PAGE.partition("makes it misbehave")[2].partition("`times`")[0].split())
    assert not [kind for kind in KINDS if not re.search(rf"\b{kind}\b", text)]


def test_the_configuration_can_be_read(tmp_path):
    """The example of a configuration is one."""
    text = next(block for block in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL))
    path = tmp_path / "mirrors.toml"
    path.write_text(text.replace("/srv", str(tmp_path)))
    assert set(load(path).mirrors) == {"debian", "apache"}


@pytest.mark.poor_container(level="namespaces")
def test_the_example_passes(pytester):
    """The test of the page, in an empty project."""
    pytester.makepyfile(next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)))
    pytester.runpytest_subprocess("--poor-container-require", "-p", "no:randomly").assert_outcomes(passed=1)
