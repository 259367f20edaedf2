"""Files of topology: what is read, and mistakes that are named with file and line. The mistakes are in a data file."""

import json
from pathlib import Path

import pytest

from pytest_poorcontainer.network.toml_lines import line_of, lines_of_keys
from pytest_poorcontainer.network.topology_file import TopologyError, read

FILES = Path(__file__).with_name("topologies")
MISTAKES = json.loads((FILES / "mistakes.json").read_text())


def test_a_good_file_is_read():
    """Hosts, routers, switches and links, with what each is to be."""
    found = read(FILES / "good.toml")
    assert list(found.switches) == ["left", "right"]
    assert list(found.routers) == ["r1", "r2"]
    assert found.hosts["server"]["start"][0]["ready"] == 80
    assert [link["ends"] for link in found.links] == [["r1", "left"], ["r1", "r2"], ["r2", "right"]]
    assert found.routes


@pytest.mark.parametrize(
    ("right", "wrong", "line", "message"), MISTAKES, ids=[wrong[:40] for _, wrong, _, _ in MISTAKES]
)
def test_a_mistake_is_named_with_file_and_line(tmp_path, right, wrong, line, message):
    """A key that is none, a value of another type, a name that nobody has or that two have."""
    text = (FILES / "good.toml").read_text()
    assert text.count(right) == 1
    place = tmp_path / "bad.toml"
    place.write_text(text.replace(right, wrong))
    with pytest.raises(TopologyError) as caught:
        read(place)
    assert str(caught.value).startswith(f"{place}:{line}: ")
    assert message in str(caught.value)


def test_an_empty_file_is_no_topology(tmp_path):
    """A network without hosts is a mistake of who wrote it."""
    (tmp_path / "empty.toml").write_text("routes = false\n")
    with pytest.raises(TopologyError, match=r"empty.toml:1: there is no host in it"):
        read(tmp_path / "empty.toml")


def test_a_file_that_is_no_text_is_named_with_its_line(tmp_path):
    """As an editor that writes Latin-1 leaves it."""
    (tmp_path / "latin.toml").write_bytes("[hosts.a]\n# für\n".encode("latin-1"))
    with pytest.raises(TopologyError, match=r"latin.toml:2: this is no TOML: it is not UTF-8 \(invalid start byte\)"):
        read(tmp_path / "latin.toml")


def test_lines_of_keys_are_found_however_they_are_written():
    """Quoted and dotted keys, nested tables, comments, and elements of arrays of tables by their number."""
    text = '# a comment\n["a b".c] # x\nd.e = 1\n[[l]]\n[[l]]\n"k" = [\n 1]\n[l.sub]\nz = 1\n'
    lines = lines_of_keys(text)
    assert line_of(lines, ("a b", "c", "d", "e")) == 3
    assert line_of(lines, ("l", 1, "k", 0)) == 6
    assert line_of(lines, ("l", 1, "sub", "z")) == 9
    assert line_of(lines, ("l", 0)) == 4
    assert line_of(lines, ("nothing",)) == 1
