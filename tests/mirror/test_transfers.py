"""The requests of one run: how often a handle is set up for them, and what is done when a command is not known."""

import pytest

from pytest_poorcontainer.mirror.sources.transfers import Transfers


@pytest.mark.parametrize("served", ["nginx", "ftp", "ftp-list"], indirect=True)
def test_a_handle_is_set_up_once_for_all_that_is_alike(served, monkeypatch):
    """Forty directories and eighty files over two connections: once per connection for either, not for each of them."""
    for number in range(40):
        served.put(f"d{number}/one")
        served.put(f"d{number}/two")
    set_up = []
    prepare = Transfers._prepare
    monkeypatch.setattr(Transfers, "_prepare", lambda self, slot: set_up.append(slot) or prepare(self, slot))
    assert served.sync(connections=2).state == "ok"
    assert served.tree() == served.tree(served.source)
    assert len(set_up) < 12
    set_up.clear()
    assert served.sync(connections=2).state == "ok"
    assert len(set_up) < 6


def test_a_command_is_given_up_once(make_place):
    """Several directories on their way when the server knows MLSD no more: LIST is next, with its hidden files."""
    with make_place("ftp") as served:
        for number in range(8):
            served.put(f"d{number}/.one")
        served.faults(*({"kind": "error", "path": f"d{number}", "code": 502, "times": 1} for number in range(8)))
        assert served.sync(connections=8).state == "ok"
        assert served.tree() == served.tree(served.source)
        assert [line.partition("Z ")[2] for line in served.log().splitlines() if "knows no" in line] == [
            "the server knows no MLSD: LIST -a from now on"
        ]
