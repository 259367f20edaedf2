"""What services cost: the wait until one is ready, many of them, and a log that is very large."""

from __future__ import annotations

import os
import random
import re
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from stats import Section, Table, Target, paragraph, percentile, spread

from pytest_poorcontainer import Container

__all__ = ["large_log", "many_services", "ready"]

SERVER = """
import http.server, sys, time
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler)
print("listening", time.clock_gettime(time.CLOCK_MONOTONIC), flush=True)
server.serve_forever()
"""
PORT = 8000
SUBJECTS = ("ready=8000", "ready=re.compile('listening')", "ready=function")
PEERS = {
    "a connect every 0.1 s (as in pytest-docker's README)": 0.1,
    "a connect every 1 s (testcontainers for Python)": 1.0,
}


def ready(*, quick: bool, **_: object) -> Section:
    """Measure the time until a Python HTTP server is ready against the server's own time to listen."""
    rounds = 5 if quick else 100
    slow = 1 if quick else 5
    ratios: dict[str, list[float]] = {name: [] for name in (*SUBJECTS, *PEERS)}
    own: list[float] = []
    with Container("box", network="host") as box:
        jobs = [name for name in SUBJECTS for _ in range(rounds)] + [name for name in PEERS for _ in range(slow)]
        random.shuffle(jobs)
        for name in jobs:
            ratio, seconds = _round(box, name)
            ratios[name].append(ratio)
            own.append(seconds)
    section = Section("ready", "Waiting until a service is ready")
    table = Table(("the wait", "rounds", "median ratio", "p10", "p90"))
    for name, values in ratios.items():
        table.rows.append([name, len(values), *spread(values)])
    section.targets.append(Target("HTTP server ready, ÷ its own time to listen: median", table.rows[0][2], 1.1))  # type: ignore[arg-type]
    section.parts += [
        paragraph(
            f"""A Python HTTP server notes the time when it listens ({percentile(own, 0.5) * 1e3:.0f} ms after it was
            asked for, median); the ratio is the time after which `start` returned, or the first connect succeeded,
            to that. The peers' rows are their waiting loops around a `subprocess.Popen`, without what their
            containers cost."""
        ),
        table,
    ]
    return section


def _round(box: Container, name: str) -> tuple[float, float]:
    """Start the server once; return the ratio, and the server's own seconds."""
    port = _free_port()
    argv = [sys.executable, "-c", SERVER, str(port)]
    waits: dict[str, Any] = {
        SUBJECTS[0]: port,
        SUBJECTS[1]: re.compile("listening"),
        SUBJECTS[2]: lambda: _connects(port),
    }
    began = time.clock_gettime(time.CLOCK_MONOTONIC)
    if name in waits:
        with box.start(argv, ready=waits[name], name="server") as service:
            done = time.clock_gettime(time.CLOCK_MONOTONIC)
            text = service.wait_log(r"listening (\S+)\n")[1]
    else:
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            while not _connects(port):
                time.sleep(PEERS[name])
            done = time.clock_gettime(time.CLOCK_MONOTONIC)
            text = process.stdout.readline().split()[1] if process.stdout else ""
            process.kill()
    listened = float(text) - began
    return (done - began) / listened, listened


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def many_services(*, quick: bool, **_: object) -> Section:
    """Start and stop services one after the other in one container; count descriptors and processes."""
    count = 50 if quick else 200
    seconds: list[float] = []
    with Container("box") as box:
        box.start(["true"]).stop()
        box.start(["sh", "-c", "echo up; exec sleep 1000"], ready=re.compile("up")).stop()
        before = _descriptors()
        for _ in range(count):
            start = time.perf_counter()
            box.start(["sh", "-c", "echo up; exec sleep 1000"], ready=re.compile("up")).stop()
            seconds.append(time.perf_counter() - start)
        grown = _descriptors() - before
        names = box.run(["sh", "-c", "cat /proc/[0-9]*/comm"], capture_output=True, text=True).stdout.split()
        left = sum(name == "sleep" for name in names)
        idle = [box.start(["sleep", "1000"]) for _ in range(count)]
        start = time.perf_counter()
        box.close()
        closing = time.perf_counter() - start
        del idle
    section = Section("many-services", "Many services in one container")
    section.targets += [
        Target(f"descriptors more after {count} services", grown, 0),
        Target(f"processes left by {count} services", left, 0),
    ]
    median, low, high = (value * 1e3 for value in spread(seconds))
    section.parts.append(
        paragraph(
            f"""{count} services, each a shell that prints a line (for which is waited), becomes `sleep`, and is
            stopped by SIGTERM: {median:.2f} ms each (median; p10 {low:.2f}, p90 {high:.2f}). Closing a container in
            which {count} more run: {closing * 1e3:.1f} ms."""
        )
    )
    return section


def large_log(*, quick: bool, **_: object) -> Section:
    """Have a service print a large log, wait for its last line, and measure the memory that it took."""
    mebibytes = 64 if quick else 1024
    code = f"""
import os, time
block = (b"x" * 1023 + b"\\\\n") * 1024
for _ in range({mebibytes}):
    os.write(1, block)
os.write(1, b"the end\\\\n")
time.sleep(1000)
""".replace("\\\\", "\\")
    with Container("box") as box:
        service = box.start([sys.executable, "-c", code])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        service.wait_log("the end", timeout=600)
        waited = time.perf_counter() - start
        text = service.log
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        wrong = int(service.log_tail(2).splitlines()[-1] != "the end") + int(not text.endswith("x\nthe end\n"))
        on_disk = os.fstat(service.log_of_runs.fd).st_blocks * 512 / 2**20
    section = Section("large-log", "A large log")
    section.targets += [
        Target(f"memory for a log of {mebibytes} MiB, searched and read", grown, 128, "MiB"),
        Target("last lines that are wrong", wrong, 0),
    ]
    section.parts.append(
        paragraph(
            f"""A service prints {mebibytes} MiB in lines of 1 KiB. To find what it prints last takes {waited:.1f} s,
            the writing included; the peak of memory grows by {grown:.0f} MiB, and the log takes {on_disk:.0f} MiB on
            its file system afterwards."""
        )
    )
    return section


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
