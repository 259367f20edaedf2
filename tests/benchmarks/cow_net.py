"""What a path call costs that the net below libc serves, against none and against proot."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from stats import Section, Table, Target, paragraph, percentile, spread
from subjects import Subject, build_directory, interleave

from pytest_poorcontainer import native

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["cow_net"]

CALLS = {
    "stat": "stat",
    "open": "open + close",
    "access": "access of a missing name",
    "read": "read, which no filter asks about",
}
LIMIT = 15.0
"""Microseconds that a notified call may cost more than a plain one."""


@cache
def program() -> Path:
    """Return the compiled program, static: no library can be preloaded into it."""
    target = build_directory() / "net"
    source = Path(__file__).with_suffix("").with_name("net.c")
    subprocess.run(["cc", "-O2", "-static", "-Wall", "-Wextra", "-Werror", "-o", target, source], check=True)
    return target


def tree() -> Path:
    """Make a tree of one file; return the path of its configuration."""
    base = build_directory() / "net-tree"
    for name in ("lower", "upper", "work"):
        (base / name).mkdir(parents=True, exist_ok=True)
    (base / "lower" / "file").write_text("text")
    lines = ["version=1", "net=1", f"tree={base / 'lower'}", f"upper={base / 'upper'}", f"work={base / 'work'}"]
    (base / "config").write_bytes(b"".join(os.fsencode(line) + b"\0" for line in [*lines, f"lower={base / 'lower'}"]))
    return base


def cow_net(*, quick: bool, **_: object) -> Section:
    """Measure bare system calls: plain, below the net in a tree, under proot."""
    rounds = 10 if quick else 100
    base = tree()

    def subject(name: str, argv: Sequence[str]) -> Subject:
        return Subject(name, ["env", "-C", str(base / "lower"), *argv, str(program())])

    plain = subject("plain", [])
    net = subject("the net", [native.program("pccow"), "--net", "required", "--config", str(base / "config"), "--"])
    proot = subject("proot", ["proot"])
    subjects = [plain, net, proot]
    interleave(subjects, rounds)
    section = Section("cow-net", "Copy-on-write: the net below libc")
    table = Table(("call", "subject", "rounds", "median µs", "p10", "p90", "more than plain"))
    for key, what in CALLS.items():
        floor = percentile(plain.figures(key), 0.5)
        for one in subjects:
            if one.missing:
                table.rows.append([what, one.name, 0, "-", "-", "-", one.missing])
                continue
            figures = spread(one.figures(key))
            table.rows.append([what, one.name, len(one.rounds), *figures, figures[0] - floor])
        if key != "read" and not net.missing:
            more = percentile(net.figures(key), 0.5) - floor
            section.targets.append(Target(f"{what}, more than plain", more, LIMIT, "µs"))
        if key != "read" and not net.missing and not proot.missing:
            ratio = percentile(net.figures(key), 0.5) / percentile(proot.figures(key), 0.5)
            section.targets.append(Target(f"{what}, the net's share of proot's time", ratio, 1.0))
    section.parts += [
        paragraph(
            """A static program makes bare system calls in a copy-on-write tree, so that each of them goes to the
            supervisor by seccomp's user notification, is resolved there, and comes back with its answer. Programs with
            a dynamic C library make almost none of these calls: libpccow resolves them in the process. All in shuffled
            order, 300 calls a round."""
        ),
        table,
    ]
    return section
