"""Runs of pytest that are killed leave nothing on the machine."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_poorcontainer import machine

ROUNDS = 20
SCRIPT = Path(__file__).with_name("nothing_left.py")


@pytest.mark.timeout(300)
def test_twenty_killed_runs_leave_nothing():
    """Half a second after a killed pytest, worker, controller, lab or init there is nothing left of the run."""
    ready = machine.fixtures_ready()["netns_pair"]
    if not ready.works:
        pytest.skip(f"{ready.reason}; {ready.remedy}")
    done = subprocess.run(
        [sys.executable, SCRIPT, "-N", str(ROUNDS), "--json"], capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr
    result = json.loads(done.stdout)
    assert result["failures"] == [], f"seed {result['seed']}"
    assert result["total"]["rounds"] == ROUNDS
    assert done.returncode == 0


def test_what_is_left_is_found(tmp_path):
    """The script would see a process, a namespace and a directory that were left: the instrument works."""
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        from leftovers import Traces, handles_work
    finally:
        sys.path.pop(0)
    (tmp_path / "tmp").mkdir()
    traces = Traces(tmp_path, "left-behind-")
    assert not traces.left()
    script = "echo ready; while :; do read -r _ || exit; done"
    argv = ["unshare", "--user", "--map-root-user", "--uts", "sh", "-c", script, "left-behind-1x"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdout.readline() != b"ready\n":
            pytest.skip("no user namespaces here")
        (tmp_path / "tmp" / "lab").mkdir()
        left = traces.left()
        process.stdin.close()
    assert len(left.processes) == 1
    assert len(left.namespaces) == (2 if handles_work() else 0)
    assert left.directories == [str(tmp_path / "tmp" / "lab")]
    (tmp_path / "tmp" / "lab").rmdir()
    end = time.monotonic() + 10
    while traces.left() and time.monotonic() < end:  # the kernel frees namespaces a little later
        time.sleep(0.05)
    assert not traces.left()
