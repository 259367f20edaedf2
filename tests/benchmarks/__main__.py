"""The benchmarks of pytest-poorcontainer: ``make bench``, or ``python -m tests.benchmarks``, writes docs/benchmarks.md.

Every figure is a ratio against a peer measured in the same run, round by round in shuffled
order, because milliseconds differ from machine to machine and from minute to minute.
With ``--only`` the other sections of the page stay as they are.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))

import ahead
import calls
import containers
import cow_library
import cow_net
import cow_trees
import mirrors
import networks
import pairs
import probes
import recorder
import reports
import roots
import services
import suites
import wire
from stats import paragraph
from subjects import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable

    from stats import Section

PAGE = REPOSITORY / "docs" / "benchmarks.md"
MARK = re.compile(r"^<!-- (\S+) -->\n", re.MULTILINE)
BENCHMARKS: dict[str, Callable[..., Section]] = {
    "fresh": pairs.fresh,
    "prefetch": ahead.prefetch,
    "peers": pairs.peers,
    "teardown": containers.teardown,
    "memory": containers.memory,
    "run": containers.run,
    "stalls": pairs.stalls,
    "churn": pairs.churn,
    "limited": pairs.limited,
    "rootfs": roots.rootfs,
    "rootfs-prefetch": roots.ahead_of_tests,
    "call": calls.call,
    "lans": networks.lans,
    "rows": networks.rows,
    "first-connects": networks.first_connects,
    "partitions": networks.partitions,
    "reports": reports.reports,
    "recorder": recorder.recorder,
    "failure-report": recorder.evidence,
    "capture": recorder.captures,
    "ready": services.ready,
    "many-services": services.many_services,
    "large-log": services.large_log,
    "wire": wire.wire,
    "probe-open": probes.probe_open,
    "probe-filtered": probes.probe_filtered,
    "probe-ways": probes.probe_ways,
    "cow-calls": cow_library.calls,
    "cow-git": cow_library.git_status,
    "cow-net": cow_net.cow_net,
    "cow-setup": cow_trees.setup,
    "cow-changes": cow_trees.changes,
    "cow-prepared": cow_trees.prepared,
    "xdist": suites.xdist,
    "plugin-off": suites.plugin_off,
    "mirror-small": mirrors.small,
    "mirror-large": mirrors.large,
    "mirror-delay": mirrors.with_delay,
    "mirror-memory": mirrors.memory,
    "mirror-page": mirrors.page,
    "mirror-kills": mirrors.kills,
    "nothing-left": suites.nothing_left,
}
APART = {"nothing-left", "mirror-kills"}
"""What takes too long for ``make bench`` (20 minutes in all) and is run by its name."""


def machine() -> str:
    """Return one sentence about the machine: what the figures depend on, no names or paths."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    memory = int(lines[0].split()[1]) / 2**20
    user = "root" if os.geteuid() == 0 else "an ordinary user"
    return (
        f"Linux {platform.release()} ({platform.machine()}), {os.cpu_count()} cores, {memory:.0f} GiB of memory, "
        f"{platform.python_implementation()} {platform.python_version()}, {' '.join(platform.libc_ver())}, as {user}"
    )


def page(sections: dict[str, str]) -> str:
    """Return the whole page from its sections, in the order of ``BENCHMARKS``."""
    about = paragraph(
        """Written by `make bench` (one section: `make bench ARGS='--only fresh'`; `nothing-left` runs only by its
        name); do not edit. Compare ratios, not milliseconds: both sides of a ratio were measured in one run, in turns.
        p10 and p90 are the spread of single rounds."""
    )
    head = f"# Benchmarks\n\n{about}\n\n{paragraph(machine())}.\n"
    return head + "".join(f"\n<!-- {name} -->\n{sections[name]}\n" for name in BENCHMARKS if name in sections)


def earlier() -> dict[str, str]:
    """Return the sections of the page as it is."""
    if not PAGE.exists():
        return {}
    parts = MARK.split(PAGE.read_text())
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(prog="tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, to see that all of it works; writes no page")
    parser.add_argument(
        "--only", action="append", choices=BENCHMARKS, metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}"
    )
    parser.add_argument(
        "--python", action="append", default=[], help="another interpreter to look for peers (mininet, munet) in"
    )
    return parser.parse_args()


def main() -> int:
    """Run the benchmarks, print each section, write the page; 1 when a target was missed."""
    options = arguments()
    names = options.only or [name for name in BENCHMARKS if name not in APART]
    sections = earlier()
    missed = 0
    for name in names:
        start = time.monotonic()
        section = BENCHMARKS[name](quick=options.quick, pythons=[sys.executable, "/usr/bin/python3", *options.python])
        sections[name] = section.markdown(f"make bench ARGS='--only {name}'")
        missed += sum(not target.reached for target in section.targets)
        print(f"{sections[name]}\n\n({name}: {time.monotonic() - start:.0f} s)\n", flush=True)
        if not options.quick:
            PAGE.parent.mkdir(exist_ok=True)
            PAGE.write_text(page(sections))
    print(f"{missed} targets missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
