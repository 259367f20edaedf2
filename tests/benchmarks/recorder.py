"""What it costs that frames are always recorded, and what a report and a capture cost."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

from reports import measured
from stats import Section, Table, Target, paragraph, percentile, spread
from subjects import REPOSITORY, Subject, build_directory, interleave, worker_environment

__all__ = ["captures", "evidence", "recorder"]

TCP_SHARE, FLOOD_SHARE = 0.05, 0.25
HOST_MS, LAN_MS, REPORT_MS = 0.2, 25.0, 300.0
WAKEUPS = 20.0
RING_WAKEUPS = 10.0  # RING_RETIRE_MS of preload/recorder/ring.h: the kernel's own timer
HOSTS = 10
STORE_MIB = 1.0
OWN_MIB = 2.0
TESTS = """
import pytest

FLOOD = __file__.replace("test_it.py", "flood")

@pytest.mark.parametrize("number", range({rounds}))
def test_plain(number):
    assert number < 0

@pytest.mark.parametrize("number", range({rounds}))
def test_hosts(netns_factory, number):
    pairs = [netns_factory(hosts=["a%d" % n, "b%d" % n]) for n in range(5)]
    for pair in pairs:
        for one, other in (pair, tuple(pair)[::-1]):
            with other.listen((other.ip, 80)) as server, one.connect((other.ip, 80)) as client:
                with server.accept()[0] as accepted:
                    client.sendall(b"x" * 100000)
            one.run([FLOOD, "udp", "send", other.ip, "9", "0.15"], check=True, capture_output=True)
    assert number < 0
"""


@cache
def flood() -> Path:
    """Return the compiled flood.c, in a directory that hosts see."""
    directory = build_directory() / "flood"
    directory.mkdir(exist_ok=True)
    source = Path(__file__).with_name("flood.c")
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", directory / "flood", source], check=True)
    return directory / "flood"


def worker(task: str, mode: str) -> Subject:
    """Return a worker that records or does not."""
    script = REPOSITORY / "tests" / "benchmarks" / "workers" / "traffic.py"
    argv = [sys.executable, str(script), task, mode, str(flood())]
    return Subject(f"{task}, {mode}", argv, environment=worker_environment())


def compared(task: str, rounds: int) -> tuple[Subject, Subject]:
    """Do rounds with and without recording, in turns; return the two."""
    on, off = worker(task, "on"), worker(task, "off")
    interleave([on, off], rounds)
    return on, off


def recorder(*, quick: bool, **_: object) -> Section:
    """Measure what recording costs the traffic and the making of hosts."""
    section = Section("recorder", "The recorder, always on")
    table = Table(("what", "rounds", "off", "on", "on / off"))
    for task, key, what, limit in (
        ("tcp", "sent", "TCP stream: share of the rate that is lost", TCP_SHARE),
        ("udp", "sent", "UDP flood, smallest frames: share of the rate that is lost", FLOOD_SHARE),
    ):
        on, off = compared(task, 4 if quick else 100)
        rates = [percentile(each.figures(key), 0.5) for each in (off, on)]
        ratio = rates[1] / rates[0]
        scale, unit = (8e-9, "Gbit/s") if task == "tcp" else (1e-3, "kpps")
        table.rows.append([f"{task}, {unit}", len(on.rounds), rates[0] * scale, rates[1] * scale, ratio])
        section.targets.append(Target(what, 1 - ratio, limit))
        section.targets.append(Target(f"{task}: frames that the recorder has lost", sum(on.figures("lost")), 0))
    for task, what, limit, rounds in (
        ("pooled", "a host from the pool: ms more", HOST_MS, 100),
        ("many", "lan(50) on demand: ms more", LAN_MS, 20),
    ):
        on, off = compared(task, 3 if quick else rounds)
        times = [percentile(each.figures("ms"), 0.5) for each in (off, on)]
        table.rows.append([f"{what.removesuffix(' more')}", len(on.rounds), *times, times[1] / times[0]])
        section.targets.append(Target(what, times[1] - times[0], limit, "ms"))
    idle, full = worker("idle", "on"), worker("memory", "on")
    interleave([idle], 1 if quick else 5)
    interleave([full], 1 if quick else 5)
    wakeups = percentile(idle.figures("wakeups"), 0.5) + RING_WAKEUPS
    mib = percentile(full.figures("mib"), 1.0)
    section.targets += [
        Target("idle: wake-ups a second, the kernel's timer included", wakeups, WAKEUPS),
        Target(f"memory with {HOSTS} full stores", mib, HOSTS * STORE_MIB + OWN_MIB, "MiB"),
    ]
    read = Table(("reading what is stored", "frames", "ms"))
    read.rows.append(
        [f"{HOSTS} full stores", percentile(full.figures("frames"), 0.5), percentile(full.figures("read"), 0.5)]
    )
    section.parts += [
        paragraph(
            """Two hosts and their cable, with (on) and without (off) recording, in turns, each in a process of its
            own; one sends for a quarter of a second as fast as it can. The rate is the sender's. Two processors serve
            sender, receiver and recorder, which is the hardest case for it."""
        ),
        table,
        read,
    ]
    return section


def evidence(*, quick: bool, **_: object) -> Section:
    """Measure the report of a failed test with ten hosts whose stores are full."""
    rounds = 3 if quick else 25
    section = Section("failure-report", "The report of a failed test with 10 hosts")
    table = Table(("a failed test", "rounds", "report ms", "p10", "p90", "sections of ours"))
    for how, args in (("", ()), (", files too", ("--poor-container-report=out",))):
        found = measured(rounds, args, TESTS, bring=flood())
        row = spread([taken for taken, _ in found["test_hosts"]])
        sections = max((count for _, count in found["test_hosts"]), default=0)
        label = f"{HOSTS} hosts, full stores{how}"
        table.rows.append([label, len(found["test_hosts"]), *row, sections])
        section.targets.append(Target(f"{label}: median", row[0], REPORT_MS, "ms"))
        section.targets.append(
            Target(f"{label}: reports without conversations", sum(count < 3 for _, count in found["test_hosts"]), 0)
        )
    section.parts += [
        paragraph(
            """Each host has sent a flood that filled its store, so that some 100,000 frames are read, sorted and looked
            at. Files are all of a report's, with the frames as pcapng and the page."""
        ),
        table,
    ]
    return section


def captures(*, quick: bool, **_: object) -> Section:
    """Measure a capture of one packet, against tcpdump in the same host."""
    section = Section("capture", "A capture of one packet")
    subject = worker("capture", "on")
    interleave([subject], 5 if quick else 100)
    table = Table(("way", "rounds", "ms", "p10", "p90"))
    ours = subject.figures("ms")
    table.rows.append(["host.capture()", len(ours), *spread(ours)])
    theirs = [float(one["tcpdump"]) for one in subject.rounds if "tcpdump" in one]
    if theirs:
        table.rows.append(["tcpdump -c 1 in the host", len(theirs), *spread(theirs)])
        ratio = percentile(ours, 0.5) / percentile(theirs, 0.5)
        section.targets.append(Target("host.capture() / tcpdump", ratio, 0.2))
    section.parts += [
        paragraph(
            """From before the capture until its one packet is counted. tcpdump is started with the same filter and
            --immediate-mode, waited for until it listens, sent the packet, and waited for until it has written it and
            ended."""
        ),
        table,
    ]
    return section
