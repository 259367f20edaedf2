"""What one run asks for: how often a handle is set up, what is done when a command is not known, who waits for whom."""

import shutil
import time

import pytest

from pytest_poorcontainer.mirror.sources.base import FAR, USUAL
from pytest_poorcontainer.mirror.sources.transfers import Transfers
from pytest_poorcontainer.mirror.testing import web


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


@pytest.mark.skipif(shutil.which("rsync") is None, reason="needs rsync: sudo apt-get install rsync")
@pytest.mark.parametrize("through", ["", "rsync --config={base}/rsyncd.conf --daemon"])
def test_rsync_waits_for_no_acknowledgements(make_place, tmp_path, monkeypatch, through):
    """Its connections send at once what they have to say, unless a program of the admin's connects."""
    calls = tmp_path / "calls"
    program = tmp_path / "rsync"
    program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\nexec {shutil.which("rsync")} "$@"\n')
    program.chmod(0o755)
    with make_place("rsync") as served:
        if through:
            monkeypatch.setenv("RSYNC_CONNECT_PROG", through.format(base=served.base))
        served.put("d/one")
        assert served.sync(rsync=str(program)).state == "ok"
        assert served.tree() == served.tree(served.source)
    said = calls.read_text().splitlines()
    assert len(said) == 3  # its version, the dry run, and the files
    assert sum("--sockopts=TCP_NODELAY" in line for line in said) == (0 if through else 2)


@pytest.mark.parametrize(
    ("kind", "delay", "options", "most"),
    [
        ("nginx", 0.02, {"connections": 0}, FAR),
        ("nginx", 0, {"connections": 0}, USUAL),
        ("nginx", 0.02, {"connections": 3}, 3),
        ("nginx", 0.02, {"connections": 0, "bandwidth": 1 << 30}, USUAL),
        ("ftp", 0.02, {"connections": 0}, USUAL),
    ],
)
def test_a_server_that_is_far_away_gets_more_connections(make_place, monkeypatch, kind, delay, options, most):
    """Where nobody has said how many, and it speaks HTTP: its answers are waited for, and little else is done."""
    with make_place(kind) as served:
        answer = web._Handler._answer
        monkeypatch.setattr(web._Handler, "_answer", lambda self, **how: time.sleep(delay) or answer(self, **how))
        seen = []
        begin = Transfers._begin

        def begun(self, slot, request):
            begin(self, slot, request)
            seen.append(len(self._slots) - len(self._free))

        monkeypatch.setattr(Transfers, "_begin", begun)
        for number in range(150):
            served.put(f"d{number % 3}/f{number}")
        assert served.sync(**options).state == "ok"
        assert served.tree() == served.tree(served.source)
        assert max(seen) == most


def test_a_busy_server_gets_no_more_connections(make_place, monkeypatch):
    """However far away it is: it has said how many are enough."""
    with make_place("nginx") as served:
        answer = web._Handler._answer
        monkeypatch.setattr(web._Handler, "_answer", lambda self, **how: time.sleep(0.02) or answer(self, **how))
        served.faults({"kind": "busy", "most": 7})
        for number in range(150):
            served.put(f"d{number % 20}/f{number}")
        assert served.sync(connections=0, retries=5, backoff=0.05).state == "ok"
        assert "from now on" in served.log()
        assert "away" not in served.log()
