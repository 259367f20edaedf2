"""Networks with faults in eight workers of pytest-xdist at a time: none disturbs another, and nothing is left."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest
from killed_run import CONFTEST
from leftovers import Traces

from pytest_poorcontainer import machine, native

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["network"].works, reason=machine.fixtures_ready()["network"].reason
)

WORKERS, TESTS, HOSTS = 8, 32, 5
LIMIT = 240.0  # seconds

INNER = f"""
import json
import os
import time

import pytest

WORD = os.environ["NOTHING_LEFT_WORD"]
DIRECTORY = os.environ["NOTHING_LEFT"]


def hear(client, server):
    client.connect((server.ip, 80), timeout=30).close()


def silence(client, server):
    with pytest.raises(TimeoutError):
        client.connect((server.ip, 80), timeout=0.3)


@pytest.mark.parametrize("number", range({TESTS}))
def test_it(network, number):
    nodes = network.lan({HOSTS})
    assert [node.name for node in nodes] == ["n1", "n2", "n3", "n4", "n5"]
    nodes[4].start(["sh", "-c", f"sleep 600; : {{WORD}}"])
    servers = [node.listen(("", 80)) for node in nodes]
    with network.partition(nodes[:2], nodes[2:]), network.between(nodes[2], nodes[3]).impair(delay="20ms", seed=number):
        hear(nodes[0], nodes[1])
        silence(nodes[1], nodes[2])
        began = time.monotonic()
        hear(nodes[2], nodes[3])
        assert time.monotonic() - began >= 0.04
        assert nodes[2].cable.medium == "wire"
    for node in nodes[1:]:
        hear(nodes[0], node)
    with nodes[0].cable.cut():
        silence(nodes[0], nodes[1])
    hear(nodes[0], nodes[1])
    assert all(link.medium == "veth" for link in network.links)
    for server in servers:
        server.close()
    told = {{"worker": os.environ["PYTEST_XDIST_WORKER"], "pids": [node.pid for node in nodes]}}
    with open(f"{{DIRECTORY}}/told", "a") as file:
        file.write(json.dumps(told) + "\\n")
"""


def test_eight_workers_have_networks_with_faults_and_leave_nothing():
    """All tests pass, each worker had some, and no process, namespace, mount or directory of any of them is left."""
    with tempfile.TemporaryDirectory(prefix="at-once-", dir="/tmp") as place:
        directory = Path(place)
        (directory / "tmp").mkdir()
        (directory / "run").mkdir()
        (directory / "words").touch()
        (directory / "run" / "conftest.py").write_text(CONFTEST)
        (directory / "run" / "test_inner.py").write_text(INNER)
        traces = Traces(directory, f"word-{uuid.uuid4().hex}-")
        environment = {
            **os.environ,
            "NOTHING_LEFT": place,
            "NOTHING_LEFT_NATIVE": str(Path(native.program("pclab")).parent),
            "NOTHING_LEFT_WORD": traces.word,
            "TMPDIR": str(directory / "tmp"),
        }
        # Its own basetemp is what pytest leaves there by design.
        options = [
            "-p",
            "no:cacheprovider",
            "--poor-container",
            "--tb=short",
            f"-n{WORKERS}",
            f"--basetemp={place}/base",
        ]
        with (directory / "output").open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "pytest", *options, "test_inner.py"],
                cwd=directory / "run",
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                labs = watched(process, traces)
            finally:
                process.kill()
                process.wait()
        said = (directory / "output").read_text()
        assert re.search(rf"^=+ {TESTS} passed(, \d+ warnings?)? in ", said, re.MULTILINE), said
        assert process.returncode == 0
        told = [json.loads(line) for line in (directory / "told").read_text().splitlines()]
        assert len({one["worker"] for one in told}) == WORKERS
        assert len(told) == TESTS
        assert len(labs) == WORKERS
        assert traces.seen > WORKERS
        left = traces.left()
        assert not left, left
        assert not [pid for one in told for pid in one["pids"] if ours(pid, directory)]


def watched(process, traces):
    """Wait for the end of a run, and note its namespaces meanwhile; return the labs that were seen."""
    labs = set()
    deadline = time.monotonic() + LIMIT
    while process.poll() is None:
        assert time.monotonic() < deadline, f"pytest has not ended within {LIMIT:g} s"
        labs.update(found.pid for found in traces.processes() if found.role == "lab")
        time.sleep(0.2)
    return labs


def ours(pid, directory):
    """Return whether a process of this number is one of the run's: numbers are used again."""
    try:
        return str(Path(f"/proc/{pid}/exe").readlink()).startswith(str(directory))
    except OSError:
        return False
