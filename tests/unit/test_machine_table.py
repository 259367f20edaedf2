"""The diagnosis as text."""

import pytest

from pytest_poorcontainer.machine.table import render

LONG = "cannot mount overlay with userxattr: EPERM (Operation not permitted), because overlay needs Linux 5.11 " * 2


def a_row(works=True, reason="", remedy="", detail="", **more):
    """Return one row of the diagnosis."""
    return {"works": works, "reason": reason, "remedy": remedy, "detail": detail, **more}


@pytest.fixture
def diagnosis():
    """Return a diagnosis with a bit of everything."""
    return {
        "kernel": "6.1.0-test",
        "architecture": "x86_64",
        "uid": 1000,
        "user": "somebody",
        "engine": "Podman",
        "privilege": "userns",
        "level": {"name": "mounts", "reason": f"not namespaces, for want of overlay: {LONG}", "built": False},
        "ready": False,
        "fixtures": {
            "netns_pair": a_row(False, f"overlay: {LONG}", "run as root", "a, b", needs=["a", "b"]),
            "cow_dir": a_row(False, f"overlay: {LONG}", "run as root", "a", needs=["a"]),
            "tcp_probe": a_row(detail="a", needs=["a"]),
        },
        "features": {
            "userns": a_row(purpose="containers without root"),
            "overlay": a_row(False, LONG, "run as root", purpose="writable /etc"),
            "veth": a_row(False, f"somebody needs a user namespace for it: {LONG}", "run as root", purpose="cables"),
            "landlock": a_row(detail="ABI 7", purpose="files kept"),
        },
    }


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(diagnosis, width):
    """Every line fits into the width, at any width from 40 up."""
    assert max(map(len, render(diagnosis, width).splitlines())) <= width


def test_a_terminal_narrower_than_words_is_not_followed(diagnosis):
    """Below 40 columns the text stays at 40, where a table can still be read."""
    assert render(diagnosis, 3) == render(diagnosis, 40)


def test_the_first_lines_say_kernel_user_and_level(diagnosis):
    """Kernel, user and level come first, and the level says why it is not the one above."""
    kernel, who, level = render(diagnosis, 2000).splitlines()[:3]
    assert kernel.startswith("kernel: Linux 6.1.0-test on x86_64")
    assert "Podman" in kernel
    assert who.startswith("who: somebody (uid 1000)")
    assert level.startswith("level: mounts; not namespaces, for want of overlay: cannot mount overlay")
    assert "skipped" in level


def test_a_reason_is_told_once(diagnosis):
    """A row whose reason, or the end of whose reason, was told before refers to that row."""
    lines = render(diagnosis, 2000).splitlines()
    assert [line.split() for line in lines if line.startswith("cow_dir")] == [["cow_dir", "no", "as", "netns_pair"]]
    veth = next(line for line in lines if line.startswith("veth"))
    assert veth.endswith("needs a user namespace for it: as overlay")
    assert sum("remedy: run as root" in line for line in lines) == 2  # once a table


def test_colour_changes_nothing_but_escapes(diagnosis):
    """Coloured text without its escape sequences is the plain text."""
    import re

    coloured = render(diagnosis, 60, colour=True)
    assert "\x1b[31mno\x1b[0m" in coloured
    assert re.sub(r"\x1b\[[0-9]*m", "", coloured) == render(diagnosis, 60)


def test_working_features_say_what_they_are_good_for(diagnosis):
    """A working feature shows its purpose and what else is known; a working fixture needs no words."""
    lines = render(diagnosis, 100).splitlines()
    assert "landlock  yes  files kept, ABI 7" in lines
    assert "tcp_probe   yes" in lines
