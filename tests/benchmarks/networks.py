"""What networks of many hosts cost, against other tools, and how quickly faults in them take effect."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pairs import interpreter
from stats import Section, Table, Target, paragraph, percentile, spread
from subjects import Subject, interleave, ordinary_python, worker_environment

__all__ = ["first_connects", "lans", "partitions", "rows"]

WORKER = str(Path(__file__).with_name("workers") / "networks.py")
IS_ROOT = os.geteuid() == 0
ROW = 8
"""Hosts of the row that all tools build."""


def _ours(task: str, count: int, *, rootless: bool = False) -> Subject:
    """Return a worker of ours."""
    python, environment, before = sys.executable, worker_environment(), []
    worker = WORKER
    if rootless:
        python, where = ordinary_python()
        environment = worker_environment(where, "/tmp")
        before = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        worker = str(Path(where) / "tests" / "benchmarks" / "workers" / "networks.py")
    name = f"{task} of {count}{', rootless' if rootless else ''}"
    return Subject(name, [*before, python, worker, task, str(count)], environment=environment)


def _each(subject: Subject, key: str, count: int) -> list[float]:
    """Return milliseconds for each host, of all rounds."""
    return [value / 1e3 / count for value in subject.figures(key)]


def lans(*, quick: bool, **_: object) -> Section:
    """Measure LANs of 10 to 200 hosts, their first connect and their end."""
    rounds = 2 if quick else 10
    sizes = (10, 50, 200)
    subjects = {count: _ours("lan", count) for count in sizes}
    everybody = [*subjects.values(), *([_ours("lan", 50, rootless=True)] if IS_ROOT else [])]
    interleave(everybody, rounds)
    table = Table(("", "rounds", "set-up, ms a host", "p10", "p90", "1st connect ms", "end, ms a host"))
    for subject in everybody:
        count = int(subject.name.split()[2].rstrip(","))
        if not subject.rounds:
            table.rows.append([subject.name, 0, *["-"] * 4, subject.missing])
            continue
        connect = percentile(subject.figures("connect"), 0.5) / 1e3
        down = percentile(_each(subject, "down", count), 0.5)
        table.rows.append([subject.name, len(subject.rounds), *spread(_each(subject, "setup", count)), connect, down])
    section = Section("lans", "Many hosts on one switch")
    middle, large = (percentile(_each(subjects[count], "setup", count), 0.5) for count in (50, 200))
    section.targets += [
        Target("a LAN of 50, each host", middle, 3.0, "ms"),
        Target("each host of 200, x each of 50", large / middle, 1.25),
        Target("the end of a LAN of 50, each host", percentile(_each(subjects[50], "down", 50), 0.5), 1.0, "ms"),
    ]
    section.parts += [
        paragraph(
            f"""{rounds} shuffled rounds. Each host has namespaces, a root file system and an init of its own, an
            interface of both address families, and everybody's names; the switch is a bridge. It is over when all can
            be used. The end is over when every process is dead."""
        ),
        table,
    ]
    return section


def rows(*, quick: bool, pythons: list[str], **_: object) -> Section:
    """Measure a row of hosts with links between neighbours, of ours and of other tools."""
    rounds = 2 if quick else 10
    mine = _ours("chain", ROW)
    peers = [
        Subject(name, [interpreter(name, pythons), WORKER, name, str(ROW)], every=every if not quick else 1)
        for name, every in (("mininet", 1), ("munet", 2))
    ]
    interleave([mine, *peers], rounds)
    base = percentile(mine.figures("setup"), 0.5)
    table = Table(("", "rounds", "set-up ms", "p10", "p90", "x ours", "end ms"))
    section = Section("rows", f"{ROW} hosts in a row, {ROW - 1} links")
    for subject in (mine, *peers):
        if not subject.rounds:
            table.rows.append([subject.name, 0, *["-"] * 4, subject.missing])
            continue
        setup = [value / 1e3 for value in spread(subject.figures("setup"))]
        down = percentile(subject.figures("down"), 0.5) / 1e3
        table.rows.append([subject.name, len(subject.rounds), *setup, setup[0] * 1e3 / base, down])
    for subject, least in zip(peers, (15, 100), strict=True):
        if subject.rounds:
            share = base / percentile(subject.figures("setup"), 0.5)
            section.targets.append(Target(f"ours, share of {subject.name}'s time", share, 1 / least))
    section.parts += [
        paragraph(
            f"""{rounds} shuffled rounds. Ours: a client, {ROW - 2} routers and a server with root file systems, names,
            addresses and routes of both families. mininet: hosts with a network and a mount namespace and a shell, one
            IPv4 address each, no switch, no routes. munet: BaseMunet with hosts (network, mount, uts, ipc namespaces),
            an IPv4 address an end, no routes."""
        ),
        table,
    ]
    return section


def first_connects(*, quick: bool, **_: object) -> Section:
    """Count first connects that stall, in LANs and chains."""
    worker = _ours("connects", 2 if quick else 9)
    rounds = 2 if quick else 10
    interleave([worker], rounds, pause=0)
    done, stalls = sum(worker.figures("connects")), sum(worker.figures("stalls"))
    section = Section("first-connects", "First connects in fresh networks")
    section.targets.append(Target("stalled first connects", stalls, 0))
    section.parts.append(
        paragraph(
            f"""{done:.0f} first connects over IPv4 and IPv6 between hosts that had never spoken, in LANs of five and
            over a router, right after the network was made: {stalls:.0f} took longer than 0.5 s."""
        )
    )
    return section


def partitions(*, quick: bool, **_: object) -> Section:
    """Measure how long a partition and its end take to be in force."""
    rounds = 3 if quick else 20
    sizes = (5, 50)
    subjects = {count: _ours("partition", count) for count in sizes}
    interleave(list(subjects.values()), rounds)
    table = Table(("hosts", "rounds", "parted after ms", "p10", "p90", "healed after ms", "p10", "p90"))
    section = Section("partitions", "A partition in halves, until it is in force and until it is over")
    for count, subject in subjects.items():
        figures = [[value / 1e3 for value in spread(subject.figures(key))] for key in ("part", "heal")]
        table.rows.append([count, len(subject.rounds), *figures[0], *figures[1]])
        for what, (median, _, _) in zip(("parted", "healed"), figures, strict=True):
            section.targets.append(Target(f"{count} hosts are {what}", median, 5.0, "ms"))
    section.parts += [
        paragraph(
            f"""{rounds} rounds each, on one switch. A partition is over when a datagram of our own has been seen not to
            arrive; healing when the kernel has taken the last filter away."""
        ),
        table,
    ]
    return section
