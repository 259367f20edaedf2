"""The wire against a cable without one: streams, floods, latency; and how exactly it does what it is asked for."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stats import Section, Table, Target, paragraph, percentile, spread
from subjects import build_directory

from pytest_poorcontainer import Network, WireOverflow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_poorcontainer.network import Host, HostPair
    from pytest_poorcontainer.network.link import Link

__all__ = ["wire"]

HERE = Path(__file__).parent
PLAIN = ("172.31.255.1", "172.31.255.2")
PORT = "5001"
EVERY_300_US = 3333
FLOOD, FLOOD_OFFERED = 200_000, 205_000


def _program() -> str:
    target = build_directory() / "wire_traffic"
    subprocess.run(["cc", "-O2", "-static", "-o", target, HERE / "wire_traffic.c"], check=True)
    return str(target)


class Packets(NamedTuple):
    """UDP packets that arrived, how many were sent a second, in all and in the slowest half second, and ages in us."""

    arrived: int
    sent: float
    slowest: float
    median: float
    p99: float


class Bench:
    """A pair, and beside its link a plain veth pair between the same hosts."""

    def __init__(self, pair: HostPair, program: str) -> None:
        """Add the plain pair: what the kernel can do without us."""
        self.pair = pair
        self.program = program
        fd = pair.b._handle.agent.netns()
        try:
            with pair.a.iproute() as kernel:
                kernel.link("add", ifname="plain0", kind="veth", peer={"ifname": "plain1", "net_ns_fd": fd})
        finally:
            os.close(fd)
        for host, name, address in zip(pair, ("plain0", "plain1"), PLAIN, strict=True):
            host.run(["ip", "addr", "add", f"{address}/24", "dev", name], check=True)
            host.run(["ip", "link", "set", name, "up"], check=True)

    def address(self, *, plain: bool) -> str:
        """Return where b is, over the plain pair or over the link."""
        return PLAIN[1] if plain else self.pair.b.ip

    def _run(self, host: Host, *arguments: str) -> list[float]:
        done = host.run([self.program, *arguments], capture_output=True, text=True, check=True)
        return [float(word) for word in done.stdout.split()]

    @contextlib.contextmanager
    def _serving(self, *arguments: str) -> Iterator[Any]:
        with self.pair.b.popen([self.program, *arguments], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                yield process.stdout
            finally:
                process.kill()

    def stream(self, seconds: float, *, plain: bool = False) -> float:
        """Return Gbit/s of one TCP connection, as the receiver sees them."""
        with self._serving("sink", PORT) as output:
            self._run(self.pair.a, "stream", self.address(plain=plain), PORT, str(seconds))
            size, took = map(float, output.readline().split())
        return size * 8 / took / 1e9

    def packets(self, count: int, rate: int, size: int = 64, *, plain: bool = False) -> Packets:
        """Send so many UDP packets at a rate, and see what arrives of them."""
        with self._serving("count", PORT) as output:
            address = self.address(plain=plain)
            sent, took, slowest = self._run(self.pair.a, "flood", address, PORT, str(count), str(rate), str(size))
            received, _, _, median, p99 = map(float, output.readline().split())
        return Packets(int(received), sent / took, slowest, median, p99)


@contextlib.contextmanager
def _pinned(link: Link, where: set[int] | None) -> Iterator[None]:
    """Keep the wire on some processors. What the hosts run inherits from pytest's own."""
    if where is None:
        yield
        return
    pidfd = link._impairments.carrier._pidfd if link._impairments and link._impairments.carrier else None  # type: ignore[attr-defined]
    before = os.sched_getaffinity(0)
    if pidfd is not None:
        lines = Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines()
        os.sched_setaffinity(next(int(line.split()[1]) for line in lines if line.startswith("Pid:")), where)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _streams(bench: Bench, rounds: int, section: Section) -> None:
    seconds = 1.0
    kinds: dict[str, dict[str, Any] | None] = {
        "a plain veth pair": None,
        "our link, no wire": {},
        "wire, no fault": {"loss": 0},
        "wire, 0.1 % loss": {"loss": "0.1%"},
        "wire, 1 % loss": {"loss": "1%"},
    }
    found: dict[str, list[float]] = {name: [] for name in kinds}
    lost = ""
    for round_ in range(rounds):
        for name, what in kinds.items():
            if not what:
                found[name].append(bench.stream(seconds, plain=what is None))
                continue
            with bench.pair.link.impair(**what, seed=round_) as impaired:
                found[name].append(bench.stream(seconds))
                one = impaired.counts[1]
            lost = f"{one.lost} of {one.packets}" if name == "wire, 0.1 % loss" else lost
    table = Table(("one TCP stream", "Gbit/s", "p10", "p90", "of plain"))
    base = percentile(found["a plain veth pair"], 0.5)
    for name, values in found.items():
        table.rows.append([name, *spread(values), percentile(values, 0.5) / base])
    for name in ("wire, no fault", "wire, 0.1 % loss"):
        section.targets.append(
            Target(f"a plain veth pair's TCP ÷ that of a {name}", base / percentile(found[name], 0.5), 2.0)
        )
    section.parts += [
        paragraph(
            f"""One connection for {seconds:.0f} s, in turns, {rounds} rounds; congestion control as the machine has it
            ({Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()}). Loss is per packet: {lost} in
            the last round at 0.1 %."""
        ),
        table,
    ]


def _floods(bench: Bench, quick: bool, section: Section) -> None:
    table = Table(("UDP, 64 bytes", "sent/s", "in the slowest half second", "sent", "arrived", "no room in the wire"))
    count = 200_000 if quick else 600_000
    # Somewhat more is offered than what is promised: a sender that keeps to a rate is never above it.
    for rate in (FLOOD_OFFERED, 220_000):
        with contextlib.suppress(WireOverflow), bench.pair.link.impair(loss=0) as impaired:
            found = bench.packets(count, rate)
            counts = impaired.counts[1]
            dropped = counts.overflow + counts.refused
        shown = (f"{found.sent:.0f}", f"{found.slowest:.0f}", count, found.arrived, dropped)
        table.rows.append([f"wire, {rate} asked for", *shown])
        if rate == FLOOD_OFFERED:
            short = max(0.0, FLOOD - found.slowest)
            section.targets += [
                Target("packets that nobody asked to lose, at 200,000 UDP packets/s and more", dropped, 0),
                Target(
                    "what is missing to 200,000 packets/s that are sent, in the slowest half second", short, 0, "/s"
                ),
            ]
    section.parts.append(table)


@contextlib.contextmanager
def _awake() -> Iterator[None]:
    """Keep the processors from halting between packets, by programs that run when nobody else wants to (SCHED_IDLE)."""
    spin = "import os\nos.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True: pass"
    with contextlib.ExitStack() as stack:
        for number in os.sched_getaffinity(0):
            spinner = subprocess.Popen([sys.executable, "-c", spin])
            stack.callback(spinner.wait)
            stack.callback(spinner.kill)
            os.sched_setaffinity(spinner.pid, {number})
        yield


def _latency(bench: Bench, quick: bool, section: Section) -> None:
    table = Table(("one way, a packet each 300 us", "median us", "p99 us", "added us"))
    _latencies(bench, quick, section, table)
    with _awake():
        _latencies(bench, quick, section, table, ", processors kept awake")
    section.parts += [
        paragraph(
            f"""Each in {3 if quick else 9} runs, in turns: the medians of their medians and p99s. Between two packets
            an idle processor halts; under a hypervisor that costs each of the programs that a packet wakes tens of
            microseconds, before it runs and by what is not in its caches any more. So each row is there once more with
            processors that are kept from halting by programs of the class SCHED_IDLE, which give way at once."""
        ),
        table,
    ]


def _latencies(bench: Bench, quick: bool, section: Section, table: Table, how: str = "") -> None:
    count, rounds = (1000, 3) if quick else (4000, 9)
    for placed, where, limit in (("unpinned", None, 30.0), ("all on one processor", {0}, 10.0)):
        name = placed + how
        everywhere = os.sched_getaffinity(0)
        found: tuple[list[Packets], list[Packets]] = ([], [])
        if where is not None:
            os.sched_setaffinity(0, where)
        try:
            for _ in range(rounds):
                found[0].append(bench.packets(count, EVERY_300_US))
                with bench.pair.link.impair(loss=0), _pinned(bench.pair.link, where):
                    found[1].append(bench.packets(count, EVERY_300_US))
        finally:
            os.sched_setaffinity(0, everywhere)
        base, wired = (percentile((one.median for one in some), 0.5) for some in found)
        base99, wired99 = (percentile((one.p99 for one in some), 0.5) for some in found)
        table.rows.append([f"our link, {name}", base, base99, ""])
        table.rows.append([f"wire, {name}", wired, wired99, wired - base])
        section.targets.append(Target(f"added by a wire one way, {name}: median", wired - base, limit, "us"))


def _delays(bench: Bench, quick: bool, section: Section) -> None:
    table = Table(("delay", "asked ms", "median ms", "p99 ms"))
    count = 300 if quick else 3000
    base = bench.packets(count, 1000).median
    for precise, limit in ((False, 0.1), (True, 0.05)):
        worst = 0.0
        for asked in (1.0, 5.0, 20.0):
            with bench.pair.link.impair(delay=asked / 1000, precise=precise):
                found = bench.packets(count, 1000)
            table.rows.append(["precise=True" if precise else "", asked, found.median / 1000, found.p99 / 1000])
            worst = max(worst, abs((found.median - base) / 1000 - asked))
        section.targets.append(
            Target(f"delay{', precise' if precise else ''}: median off, less the link's own", worst, limit, "ms")
        )
    section.targets.append(Target("delay: p99 off", max(row[3] - row[1] for row in table.rows), 1.0, "ms"))  # type: ignore[operator]
    section.parts.append(table)


def _rates(bench: Bench, quick: bool, section: Section) -> None:
    table = Table(("rate", "goodput", "of the ideal 0.956"))
    off = 0.0
    for text, rate in (("10mbit", 1e7), ("100mbit", 1e8), ("1gbit", 1e9)):
        with bench.pair.link.impair(rate=text):
            goodput = bench.stream(1.0 if quick else 5.0) * 1e9
        share = goodput / rate / (1448 / 1514)
        table.rows.append([text, goodput / rate, share])
        off = max(off, abs(1 - share) * 100)
    section.targets.append(Target("rate: goodput off the ideal", off, 2.0, "%"))
    section.parts.append(table)


def _numbers(pair: HostPair, count: int) -> list[int]:
    with (
        pair.b.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
        pair.a.socket(socket.AF_INET, socket.SOCK_DGRAM) as source,
    ):
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sink.bind((pair.b.ip, 0))
        source.connect(sink.getsockname())
        sink.settimeout(0.3)
        found = []
        # The first one alone: the kernel keeps few packets until a hardware address is known.
        for start, end in itertools.pairwise((0, *range(1, count, 100), count)):
            for number in range(start, end):
                source.send(struct.pack("!I", number))
            sink.settimeout(0.3 if end == count else 0.02)
            with contextlib.suppress(TimeoutError):
                while True:
                    found.append(struct.unpack("!I", sink.recv(16))[0])
    return found


def _fates(network: Network, quick: bool, section: Section) -> None:
    count = 2000 if quick else 20_000
    outside, seen = 0, []
    sigma = (count * 0.01 * 0.99) ** 0.5
    with network.pair() as pair:
        for seed in range(5):
            with pair.link.impair(loss="1%", seed=seed) as impaired:
                _numbers(pair, count)
                outside += abs(impaired.counts[1].lost - count * 0.01) > 3 * sigma
    for _ in range(2 if quick else 10):
        with network.pair() as pair, pair.link.impair(loss="1%", seed=7):
            seen.append(_numbers(pair, 2000))
    section.targets.append(Target("seeds of 5 whose loss of 1 % is outside of 3 sigma", outside, 0))
    section.targets.append(
        Target("runs with a seed that differ from the first", sum(one != seen[0] for one in seen), 0)
    )


def _time(action: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = action()
    return (time.perf_counter() - start) * 1000, result


def _switching(bench: Bench, quick: bool, section: Section) -> None:
    on, off, change = [], [], []
    for _ in range(5 if quick else 30):
        took, impaired = _time(lambda: bench.pair.link.impair(delay="1ms"))
        on.append(took)
        change.append(_time(lambda impaired=impaired: impaired.change(delay="2ms"))[0])  # type: ignore[misc]
        off.append(_time(impaired.end)[0])
    table = Table(("on a live link", "median ms", "p10", "p90"))
    for name, values in (("impair()", on), ("change()", change), ("its end", off)):
        table.rows.append([name, *spread(values)])
    section.parts.append(table)


def wire(*, quick: bool, **_: object) -> Section:
    """Measure the wire."""
    section = Section("wire", "The wire: impaired links")
    program = _program()
    with Network(basetemp=build_directory()) as network:
        with network.pair() as pair:
            bench = Bench(pair, program)
            _streams(bench, 2 if quick else 12, section)
            for part in (_floods, _latency, _delays, _rates, _switching):
                part(bench, quick, section)
        _fates(network, quick, section)
    return section
