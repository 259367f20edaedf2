"""A worker of the benchmarks: for each line on standard input it does its task once and answers with one line of JSON.

``ours.py TASK [ARGUMENT]``; run by ``tests/benchmarks``, as root or as an ordinary user.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import random
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer import Network
from pytest_poorcontainer.lab.client import Lab

if TYPE_CHECKING:
    from collections.abc import Callable

PORT = 8000
KIB = 1024
BASETEMP = Path(tempfile.mkdtemp(prefix="bench-"))
ROOTDIR = Path(tempfile.mkdtemp(prefix="bench-"))
Figures = dict[str, Any]


def network() -> Network:
    """Return a network as the fixture makes it for a test."""
    return Network(basetemp=BASETEMP, rootdir=ROOTDIR)


def fresh(family: str) -> Figures:
    """From asking for a pair until a first TCP connect has succeeded, and its teardown; all in microseconds.

    ``family`` is "" for IPv4 or "6".
    """
    start = time.perf_counter_ns()
    net = network()
    primary, replica = net.pair("primary", "replica")
    ready = time.perf_counter_ns()
    address = primary.ip6 if family else primary.ip
    server = primary.listen((address, PORT))
    client = replica.connect((address, PORT), timeout=30)
    connected = time.perf_counter_ns()
    client.close()
    server.close()
    closing = time.perf_counter_ns()
    net.close()
    gone = time.perf_counter_ns()
    return {
        "setup": (ready - start) / 1e3,
        "connect": (connected - ready) / 1e3,
        "cycle": (connected - start) / 1e3,
        "down": (gone - closing) / 1e3,
    }


def descendants(pid: int) -> list[int]:
    """Return ``pid`` and all processes below it (proc_pid_task(5), ``children``)."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            found += [int(child) for child in Path(f"/proc/{one}/task/{one}/children").read_text().split()]
    return found


def teardown(commands: str) -> Figures:
    """Close a pair in which ``commands`` commands run: microseconds, and how many processes live on when it returns."""
    net = network()
    pair = net.pair("primary", "replica")
    hosts = itertools.cycle(pair)
    running = [next(hosts).popen(["sleep", "1000"]) for _ in range(int(commands))]
    time.sleep(0.01)  # each command is in its sleep, not on its way there
    watched = [os.pidfd_open(pid) for host in pair for pid in descendants(host.pid)]
    if len(watched) < 2 + len(running):
        return {"missing": f"saw {len(watched)} processes of two hosts with {len(running)} commands"}
    start = time.perf_counter_ns()
    net.close()
    gone = time.perf_counter_ns()
    poll = select.poll()
    for pidfd in watched:
        poll.register(pidfd, select.POLLIN)
    alive = len(watched) - len(poll.poll(0))
    for pidfd in watched:
        os.close(pidfd)
    return {"down": (gone - start) / 1e3, "alive": alive, "processes": len(watched)}


class Runs:
    """``true`` by ``host.run`` and by ``subprocess.run``, from one process, in shuffled order; microseconds."""

    def __init__(self, heap: str) -> None:
        """Touch ``heap`` megabytes, as a large test process has."""
        self.heap = bytearray(int(heap) << 20)
        for offset in range(0, len(self.heap), 4096):
            self.heap[offset] = 1
        self.network = network()
        self.host = self.network.pair("primary", "replica").a

    def __call__(self, _: str) -> Figures:
        """Run each of the four once."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        ways: list[tuple[str, Callable[[], Any]]] = [
            ("peer", lambda: subprocess.run(["true"], stdin=subprocess.DEVNULL, check=True)),
            ("ours", lambda: self.host.run(["true"], check=True)),
            ("peer_capture", lambda: subprocess.run(["true"], stdin=subprocess.DEVNULL, check=True, **pipes)),
            ("ours_capture", lambda: self.host.run(["true"], check=True, capture_output=True)),
        ]
        random.shuffle(ways)
        figures = {}
        for name, run in ways:
            start = time.perf_counter_ns()
            run()
            figures[name] = (time.perf_counter_ns() - start) / 1e3
        return figures


class Held:
    """Pairs alive at once, for somebody else to measure: the first line makes one, the second ``count``."""

    def __init__(self, count: str) -> None:
        """Make nothing yet."""
        self.networks: list[Network] = []
        self.count = int(count)

    def __call__(self, _: str) -> Figures:
        """Return the pids of the hosts' inits."""
        net = network()
        pairs = [net.pair(f"a{number}", f"b{number}") for number in range(self.count if self.networks else 1)]
        self.networks.append(net)
        return {"pids": [host.pid for pair in pairs for host in pair]}


def census(_: str) -> Figures:
    """Return what may grow: our fds, all processes of the machine, our memory and the kernel's, in bytes."""
    status = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in status)
    return {
        "fds": len(list(Path("/proc/self/fd").iterdir())) - 1,
        "processes": sum(entry.name.isdigit() for entry in Path("/proc").iterdir()),
        "rss": int(fields["VmRSS"].split()[0]) * KIB,
        "lab": lab_memory(),
    }


def lab_memory() -> int:
    """Return the bytes of memory that our lab has resident (proc_pid_status(5))."""
    status = Path(f"/proc/{Lab.current(BASETEMP, ROOTDIR).pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * KIB for line in status if line.startswith("VmRSS:"))


def answer(task: Callable[[str], Figures], line: str, argument: str) -> Figures:
    """Do one line: ``census`` is a task of every worker."""
    return census(argument) if line == "census" else task(argument)


def main() -> None:
    """Answer line after line until there are no more."""
    name, argument = sys.argv[1], (sys.argv[2:] or [""])[0]
    tasks: dict[str, Callable[[str], Figures]] = {"fresh": fresh, "teardown": teardown}
    makers: dict[str, Callable[[str], Callable[[str], Figures]]] = {"run": Runs, "hold": Held}
    task = makers[name](argument) if name in makers else tasks[name]
    gc.collect()
    gc.freeze()
    try:
        for line in sys.stdin:
            print(json.dumps(answer(task, line.strip(), argument)), flush=True)
    finally:
        BASETEMP.rmdir()
        ROOTDIR.rmdir()


if __name__ == "__main__":
    main()
