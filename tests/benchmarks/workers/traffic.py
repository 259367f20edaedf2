"""A worker of the benchmarks of recorder and captures: ``traffic.py TASK on|off FLOOD``, a round for every line.

``on`` and ``off`` say whether frames are recorded; FLOOD is the compiled ``flood.c``, in a directory of its own.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pytest_poorcontainer import Network
from pytest_poorcontainer.lab import Lab
from pytest_poorcontainer.traffic.recorder import Recorder

SECONDS = 0.25
HOSTS = 50
STORED = 10
IDLE = 4.0
Figures = dict[str, Any]
TCPDUMP = shutil.which("tcpdump", path="/usr/sbin:/usr/bin")


class Worker:
    """What the tasks share: whether to record, the network, a pair that lives through all rounds."""

    def __init__(self, on: bool, flood: Path) -> None:
        """Make the network; the lab starts with the first pair."""
        self.on = on
        self.flood = str(flood)
        self.network = Network(basetemp=flood.parent, record=on)
        self.pair = self.network.pair("a", "b")

    def stream(self, kind: str) -> Figures:
        """Send as fast as it goes from one host to the other; what was sent a second, and how much arrived."""
        a, b = self.pair
        words = (b.ip, "7000", str(SECONDS))
        receiver = b.popen([self.flood, kind, "receive", *words], stdout=subprocess.PIPE, text=True)
        receiver.stdout.readline()
        sent = a.run([self.flood, kind, "send", *words], capture_output=True, text=True, check=True).stdout
        got, _ = receiver.communicate()
        lost = Recorder.of(Lab.current()).read([a.plugs[0][0]]).lost if self.on else 0
        return {"sent": float(sent), "arrived": float(got) / SECONDS, "lost": lost}

    def pooled(self) -> Figures:
        """Take a pair that was built ahead: ms a host."""
        self.network.prefetch()
        time.sleep(0.05)
        began = time.perf_counter()
        pair = self.network.pair()
        taken = time.perf_counter() - began
        pair.close()
        return {"ms": taken * 1e3 / 2}

    def many(self) -> Figures:
        """Make a LAN of 50 hosts on demand: ms in all."""
        with Network(basetemp=Path(self.flood).parent, record=self.on) as network:
            began = time.perf_counter()
            network.lan(HOSTS)
            return {"ms": (time.perf_counter() - began) * 1e3}

    def idle(self) -> Figures:
        """Do nothing for some seconds: how often the recorder woke up, a second."""
        process = Path("/proc", str(self._pid()))
        before = _switches(process)
        time.sleep(IDLE)
        return {"wakeups": (_switches(process) - before) / IDLE}

    def memory(self) -> Figures:
        """Fill the stores of ten hosts: MiB of the recorder beside its ring."""
        pairs = [self.network.pair() for _ in range(STORED // 2)]
        for a, b in pairs:
            for one, other in ((a, b), (b, a)):
                one.run([self.flood, "udp", "send", other.ip, "9", "0.4"], check=True, capture_output=True)
        status = Path("/proc", str(self._pid()), "status").read_text()
        kib = {line.split(":")[0]: int(line.split()[1]) for line in status.splitlines() if line.startswith("Rss")}
        read = time.perf_counter()
        recorder = Recorder.of(Lab.current())
        frames = recorder.read([index for pair in pairs for host in pair for index, _ in host.plugs])
        read = time.perf_counter() - read
        for pair in pairs:
            pair.close()
        recorder.sweep()
        return {"mib": kib["RssAnon"] / 1024, "read": read * 1e3, "frames": len(frames.frames), "lost": frames.lost}

    def capture(self) -> Figures:
        """Capture one datagram: ms from before the capture until it is counted; with tcpdump, if it is there."""
        a, b = self.pair
        began = time.perf_counter()
        with b.capture("udp port 7") as packets:
            _send(a, b.ip)
        assert packets.count() == 1
        figures = {"ms": (time.perf_counter() - began) * 1e3}
        if TCPDUMP is not None:
            began = time.perf_counter()
            argv = [TCPDUMP, "--immediate-mode", "-i", "eth0", "-U", "-w", "/tmp/x", "-c", "1", "udp port 7"]
            process = b.popen(argv, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
            process.stderr.readline()
            _send(a, b.ip)
            process.communicate()
            figures["tcpdump"] = (time.perf_counter() - began) * 1e3
        return figures

    def _pid(self) -> int:
        lab = Lab.current().pid
        for path in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                text = path.read_text()
                if text.startswith("Name:\tpcrecorder\n") and f"\nPPid:\t{lab}\n" in text:
                    return int(path.parent.name)
        raise RuntimeError("there is no recorder")


def _send(sender: Any, address: str) -> None:
    with sender.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", (address, 7))


def _switches(process: Path) -> int:
    """Return how often a process has slept and was woken."""
    lines = (process / "status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary"))


def main() -> None:
    """Answer each line with the figures of one round."""
    task, on, flood = sys.argv[1:]
    worker = Worker(on == "on", Path(flood))
    tasks = {
        "tcp": lambda: worker.stream("tcp"),
        "udp": lambda: worker.stream("udp"),
        "pooled": worker.pooled,
        "many": worker.many,
        "idle": worker.idle,
        "memory": worker.memory,
        "capture": worker.capture,
    }
    for _ in sys.stdin:
        print(json.dumps(tasks[task]()), flush=True)
    worker.network.close()


if __name__ == "__main__":
    main()
