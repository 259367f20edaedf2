"""What was seen of hosts, as text: what is shown, what is left out, what is spelled out."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pytest_poorcontainer.report.evidence import HostFacts, NetworkFacts, ServiceFacts
from pytest_poorcontainer.report.text import clean, hosts_text, sections, sockets_text


@dataclass
class Said:
    """A service as far as a report asks it: what it has said."""

    text: str

    @property
    def log(self) -> str:
        """All of it."""
        return self.text

    def log_tail(self, lines):
        """The end of it."""
        return "\n".join(self.text.splitlines()[-lines:])

    def log_between(self, start, end=None):
        """A part of it."""
        if self.text == "unreadable":
            raise OSError("gone")
        return self.text[start:end]


def host(name="a", **known):
    """Return what is known of a host, most of it made up."""
    facts = {
        "level": "namespaces",
        "level_reason": "",
        "addresses": ("10.0.0.1", "fd00::1"),
        "services": (),
        "sockets": (),
        "trouble": (),
        **known,
    }
    return HostFacts(name, **facts)


def shown(*services, **known):
    """Return the sections of one host by title."""
    return dict(sections([NetworkFacts((host(services=services, **known),), (("a -- b", "up"),))]))


def test_nothing_to_say_is_no_section():
    """Without hosts there is no section, and a host without services or sockets has none for them."""
    assert sections([]) == []
    assert list(shown()) == ["poor-container: hosts", "poor-container: links"]


def test_a_lower_level_is_explained():
    """On the highest level nothing is said about it; below it the reason is."""
    assert hosts_text([host(level_reason="as root")]) == "a: namespaces; 10.0.0.1, fd00::1"
    low = host(level="chroot", level_reason="mount is forbidden", trouble=("its sockets: \x1b[2J",))
    assert hosts_text([low]).splitlines() == [
        "a: chroot; 10.0.0.1, fd00::1",
        "    no higher level, because mount is forbidden",
        "    not known: its sockets: \\x1b[2J",
    ]


def test_lists_are_bounded():
    """Of very many hosts and sockets some are shown, and the rest is counted."""
    assert hosts_text([host(f"h{number}") for number in range(100)]).splitlines()[-1] == "... and 68 more hosts"
    crowded = host(sockets=tuple(f"tcp LISTEN 0.0.0.0:{port}" for port in range(1, 101)))
    assert sockets_text([crowded]).splitlines()[-1] == "a: ... and 60 more sockets"
    assert len(sockets_text([crowded], 1000).splitlines()) == 100


@pytest.mark.parametrize(
    ("mark", "text", "lines"),
    [
        (0, "one\ntwo\n", ["one", "two"]),
        (4, "one\ntwo\n", ["(1 earlier line came before this test)", "two"]),
        (8, "one\ntwo\n", ["(2 earlier lines came before this test, and none while it ran)"]),
        (4, "one\nunfinished", ["(1 earlier line came before this test)", "unfinished"]),
        (1, "unreadable", ["(cannot be read: OSError: gone)"]),
        (4, "one\nbell\x07 \x9b31m\r\n", ["(1 earlier line came before this test)", "bell\\x07 \\x9b31m"]),
        (4, "one\n" + "x" * 500, ["(1 earlier line came before this test)", "x" * 400 + "... (100 more characters)"]),
    ],
)
def test_lines_from_before_the_test_are_counted_and_not_shown(mark, text, lines):
    """The log's section has what came after the mark, safe to print."""
    found = shown(ServiceFacts("db", "running", mark, Said(text)))
    assert found["poor-container: services"] == "a: db: running"
    assert found["poor-container: log of db on a (running)"].split("\n") == lines


def test_a_silent_service_has_a_state_and_no_log():
    """There is no empty section."""
    assert list(shown(ServiceFacts("db", "exited 3", 0, Said(""))))[-1] == "poor-container: services"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tab\tand\nline", "tab\tand\nline"),
        ("a\r\nb\rc", "a\nb\\x0dc"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x00\x7f\x85\u2028\ud800", "\\x00\\x7f\\x85\\u2028\\ud800"),
        ("æ ✓ 漢", "æ ✓ 漢"),
    ],
)
def test_what_would_move_a_terminal_is_spelled_out(text, expected):
    """Control characters become escapes; letters of every script stay."""
    assert clean(text) == expected
