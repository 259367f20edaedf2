"""Mirrors: poor-mirror against lftp, rclone, wget and rsync, from nginx, pure-ftpd and rsyncd, all in hosts of ours."""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stats import Section, Table, Target, paragraph
from subjects import REPOSITORY

from pytest_poorcontainer import Network

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


__all__ = ["kills", "large", "memory", "page", "small", "with_delay"]

OURS = [sys.executable, "-m", "pytest_poorcontainer.cli.poor_mirror"]
RUNNER = """
import json, os, resource, sys, time
start = time.perf_counter()
quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)
_, status, usage = os.wait4(pid, 0)
wall = time.perf_counter() - start
print(json.dumps([os.waitstatus_to_exitcode(status), wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))
"""
FILES, DIRECTORIES = 10_000, 500
GIB = 1 << 30


class Stand:
    """Two hosts: ``origin`` serves the directory ``source`` by HTTP, FTP and rsync; ``edge`` copies into ``work``."""

    def __init__(self, net: Network, directory: Path) -> None:
        """Build the hosts and start the servers."""
        self.directory = directory
        self.source = directory / "source"
        self.work = directory / "work"
        self.source.mkdir()
        self.work.mkdir()
        directory.chmod(0o755)
        self.origin, self.edge = net.pair("origin", "edge")
        for host in (self.origin, self.edge):
            host.mounts.bind(directory, directory)
            host.mounts.bind(REPOSITORY, REPOSITORY, readonly=True)
        self.ip = self.origin.ip
        self._nginx()
        self._rsyncd()
        self.ftp = self._pure_ftpd()

    def _nginx(self) -> None:
        path = self.directory / "nginx.conf"
        path.write_text(
            f"user root; daemon off; pid {self.directory}/nginx.pid; error_log {self.directory}/nginx.log; "
            "events {}\n"
            f"http {{ access_log off; sendfile on; keepalive_requests 1000000; server {{ listen {self.ip}:80; "
            f"root {self.source}; autoindex on; }} }}\n"
        )
        self.origin.start(["nginx", "-c", str(path)], ready=80)

    def _rsyncd(self) -> None:
        path = self.directory / "rsyncd.conf"
        path.write_text(
            f"port = 873\nuse chroot = no\nreverse lookup = no\n[m]\npath = {self.source}\nuid = 0\ngid = 0\n"
        )
        self.origin.start(["rsync", "--daemon", "--no-detach", f"--config={path}"], ready=873)

    def _pure_ftpd(self) -> bool:
        program = pure_ftpd(self.directory)
        if program is None:
            return False
        self.origin.run(["mkdir", "-p", "/srv/ftp"], check=True)
        self.origin.mounts.bind(self.source, "/srv/ftp", readonly=True)
        limits = ["-c", "100", "-C", "100", "-L", "1000000:20"]
        # It wants to drop capabilities of which a container has not all; that it may not costs nothing here.
        shim = self.directory / "shim.so"
        code = b"int cap_set_proc(void *caps) { (void)caps; return 0; }"
        subprocess.run(["cc", "-shared", "-fPIC", "-xc", "-", "-o", shim], input=code, check=True)
        argv = [program, "-S", f"{self.ip},21", "-e", "-H", *limits]
        self.origin.start(argv, ready=21, name="pure-ftpd", env={"LD_PRELOAD": str(shim)})
        return True

    def measure(self, argv: Sequence[str], dest: Path) -> tuple[float, float, float]:
        """Run a copying program in the edge; return (seconds, CPU seconds, MiB), NaN where it failed."""
        whole = [shutil.which(argv[0]) or argv[0], *argv[1:]]
        done = self.edge.run([sys.executable, "-c", RUNNER, *whole], capture_output=True, text=True, cwd=str(self.work))
        code, wall, cpu, size = json.loads(done.stdout)
        if code != 0 or not dest.exists():
            print(f"{argv[0]} ended with {code}: {done.stderr[-300:]}", file=sys.stderr)
            return float("nan"), float("nan"), float("nan")
        return wall, cpu, size


def pure_ftpd(directory: Path) -> str | None:
    """Return the path of pure-ftpd: installed, or unpacked, since Debian's cannot be installed beside vsftpd."""
    found = shutil.which("pure-ftpd", path="/usr/sbin:/usr/bin")
    if found is not None or shutil.which("apt-get") is None:
        return found
    place = directory / "pure-ftpd"
    place.mkdir()
    subprocess.run(["apt-get", "download", "-qq", "pure-ftpd"], cwd=place, capture_output=True, check=False)
    for package in place.glob("pure-ftpd_*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, place], check=True)
        return str(place / "usr/sbin/pure-ftpd")
    return None


@contextlib.contextmanager
def stand() -> Iterator[Stand]:
    """Build the hosts, with their files in memory where there is room."""
    compileall.compile_dir(str(REPOSITORY / "pytest_poorcontainer"), quiet=2)  # as pip does; the hosts cannot write it
    free = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").exists() else 0
    place = "/dev/shm" if free > 4 * GIB else None
    with tempfile.TemporaryDirectory(prefix="bench-mirrors-", dir=place) as directory, Network() as net:
        yield Stand(net, Path(directory))


def fill(top: Path) -> None:
    """Write the small tree: median 2 KB."""
    chance = random.Random(1)
    for number in range(DIRECTORIES):
        place = top / f"d{number % 20}" / f"s{number}"
        place.mkdir(parents=True)
        for file in range(FILES // DIRECTORIES):
            (place / f"f{file}.dat").write_bytes(chance.randbytes(int(chance.lognormvariate(7.6, 1))))


def differences(source: Path, dest: Path) -> int:
    """Return how many lines diff has to say, but for what is ours."""
    argv = ["diff", "-rq", "-x", ".poor-mirror*", "-x", "index.html*", "-x", ".listing", source, dest]
    return len(subprocess.run(argv, capture_output=True, check=False).stdout.splitlines())


def subjects(ip: str, *, ftp: bool, http: str = "") -> dict[str, Any]:
    """Return the programs by name: a function of the destination that returns the command line."""
    web = http or f"http://{ip}/"
    lftp = "set net:timeout 20; set mirror:parallel-transfer-count 8; set ftp:use-mlsd true; set xfer:clobber true;"
    rclone = ["rclone", "sync", "--config", "/dev/null", "--transfers", "8", "--checkers", "8", "-q"]
    found: dict[str, Any] = {
        "poor-mirror, http": lambda dest: [*OURS, "copy", web, dest, "--quiet"],
        "rclone, http": lambda dest: [*rclone, "--http-url", web, ":http:", dest],
        "lftp, http": lambda dest: ["lftp", "-c", f"{lftp} open {web}; mirror -e -P8 . {dest}"],
        "wget, http": lambda dest: ["wget", "-q", "-m", "-nH", "-P", dest, web],
    }
    if http:
        return found
    if ftp:
        address = ["--ftp-host", ip, "--ftp-user", "anonymous", "--ftp-pass", obscured()]
        found |= {
            "poor-mirror, ftp": lambda dest: [*OURS, "copy", f"ftp://{ip}/", dest, "--quiet"],
            "lftp, ftp": lambda dest: ["lftp", "-c", f"{lftp} open ftp://{ip}/; mirror -e -P8 / {dest}"],
            "rclone, ftp": lambda dest: [*rclone, *address, ":ftp:", dest],
        }
    module = f"rsync://{ip}/m/"
    found |= {
        "poor-mirror, rsync": lambda dest: [*OURS, "copy", module, dest, "--quiet"],
        "rsync": lambda dest: ["rsync", "-rlt", "--delete", module, f"{dest}/"],
        "rsync --delay-updates": lambda dest: ["rsync", "-rlt", "--delete", "--delay-updates", module, f"{dest}/"],
    }
    return found


def obscured() -> str:
    """Return a password as rclone wants it."""
    if shutil.which("rclone") is None:
        return ""
    return subprocess.run(["rclone", "obscure", "x"], capture_output=True, text=True, check=True).stdout.strip()


def installed(argv: Sequence[str]) -> bool:
    return shutil.which(argv[0]) is not None


def rounds_of(
    there: Stand, programs: Mapping[str, Any], rounds: int
) -> tuple[dict[str, list[tuple[float, float, float]]], dict[str, list[tuple[float, float, float]]], dict[str, int]]:
    """Run all in shuffled order; return the first runs, the second runs (nothing to do), and the differences left."""
    first: dict[str, list[tuple[float, float, float]]] = {name: [] for name in programs}
    again: dict[str, list[tuple[float, float, float]]] = {name: [] for name in programs}
    wrong: dict[str, int] = {}
    for number in range(rounds):
        for name in random.sample(list(programs), len(programs)):
            dest = there.work / re.sub(r"\W+", "-", name)
            argv = programs[name](str(dest))
            first[name].append(there.measure(argv, dest))
            again[name].append(there.measure(argv, dest))
            if number == 0:
                wrong[name] = differences(there.source, dest) if dest.exists() else -1
            shutil.rmtree(dest, ignore_errors=True)
    return first, again, wrong


def middle(found: Sequence[tuple[float, float, float]], which: int = 0) -> float:
    """Return the median of seconds, CPU seconds or MiB."""
    return statistics.median(one[which] for one in found) if found else float("nan")


def small(*, quick: bool, **_: object) -> Section:
    """Compare first and second copies of 10,000 small files, over each protocol."""
    section = Section("mirror-small", "Mirrors: 10,000 small files in 500 directories")
    with stand() as there:
        fill(there.source)
        programs = {name: one for name, one in subjects(there.ip, ftp=there.ftp).items() if installed(one("x"))}
        first, again, wrong = rounds_of(there, programs, 1 if quick else 5)
        manifest, plain = with_manifest(there, 2 if quick else 7)
    table = Table(("program", "first s", "CPU s", "MiB", "again s", "CPU s", "differences"))
    for name in programs:
        row = [
            middle(first[name]),
            middle(first[name], 1),
            middle(first[name], 2),
            middle(again[name]),
            middle(again[name], 1),
        ]
        table.rows.append([name, *row, wrong[name]])
    table.rows.append(["poor-mirror, http, from a manifest", "", "", "", manifest, "", ""])
    for what, ours, peer, runs, limit in (
        ("first copy over HTTP: as rclone's", "poor-mirror, http", "rclone, http", first, 0.6),
        ("first copy over HTTP: as rsync's", "poor-mirror, http", "rsync", first, 2.0),
        ("first copy over FTP: as lftp's", "poor-mirror, ftp", "lftp, ftp", first, 0.8),
        ("first copy over rsync: as rsync --delay-updates'", "poor-mirror, rsync", "rsync --delay-updates", first, 1.5),
        ("nothing to do, over HTTP: as lftp's", "poor-mirror, http", "lftp, http", again, 0.5),
        ("nothing to do, over FTP: as lftp's", "poor-mirror, ftp", "lftp, ftp", again, 0.5),
        (
            "nothing to do, over rsync: as rsync --delay-updates'",
            "poor-mirror, rsync",
            "rsync --delay-updates",
            again,
            2.0,
        ),
    ):
        if ours in runs and peer in runs:
            section.targets.append(Target(what, middle(runs[ours]) / middle(runs[peer]), limit, "times"))
    section.targets.append(Target("nothing to do, by a manifest: as rsync's", manifest / plain, 1.2, "times"))
    most = max(middle(first[name], 2) for name in programs if name.startswith("poor"))
    section.targets.append(Target("memory of ours", most, 80, "MiB"))
    section.targets.append(
        Target("differences after ours", sum(wrong[name] for name in programs if name.startswith("poor")), 0)
    )
    section.parts += [
        paragraph(
            """Servers and programs are in two hosts joined by a cable: nginx, pure-ftpd, rsyncd. lftp and rclone copy
            with eight connections, and lftp lists by MLSD. Medians; "again" is a second run, which finds nothing to do.
            Interpreter start is part of ours. Differences are the lines that diff -r has to say after the first run."""
        ),
        table,
    ]
    return section


def with_manifest(there: Stand, rounds: int) -> tuple[float, float]:
    """Return the seconds of a run that the source's manifest says is for nothing, and of rsync's on the same tree."""
    tier = there.work / "tier"
    subprocess.run(
        [*OURS, "copy", str(there.source), tier, "--quiet", "--set=manifest=true"], check=True, capture_output=True
    )
    shutil.copy(tier / ".poor-mirror.manifest", there.source)
    ours, theirs = there.work / "by-manifest", there.work / "by-rsync"
    copy = [*OURS, "copy", f"http://{there.ip}/", str(ours), "--quiet"]
    plain = ["rsync", "-rlt", "--delete", f"rsync://{there.ip}/m/", f"{theirs}/"]
    there.measure(copy, ours)
    there.measure(plain, theirs)
    found = [(there.measure(copy, ours)[0], there.measure(plain, theirs)[0]) for _ in range(rounds)]
    (there.source / ".poor-mirror.manifest").unlink()
    for path in (tier, ours, theirs):
        shutil.rmtree(path)
    return statistics.median(one for one, _ in found), statistics.median(one for _, one in found)


def large(*, quick: bool, **_: object) -> Section:
    """Compare the rates of one large file."""
    section = Section("mirror-large", "Mirrors: one file of a gibibyte")
    size = GIB // 8 if quick else GIB
    with stand() as there:
        with (there.source / "large").open("wb") as file:
            chunk = os.urandom(1 << 20)
            for _number in range(size >> 20):
                file.write(chunk)
        programs = {name: one for name, one in subjects(there.ip, ftp=there.ftp).items() if installed(one("x"))}
        first, _, wrong = rounds_of(there, programs, 1 if quick else 7)
    table = Table(("program", "seconds", "MiB/s", "CPU s", "MiB of memory", "differences"))
    for name in programs:
        took = middle(first[name])
        rate = (size >> 20) / took
        table.rows.append([name, took, rate, middle(first[name], 1), middle(first[name], 2), wrong[name]])
    for protocol in ("http", "ftp", "rsync"):
        ours = f"poor-mirror, {protocol}"
        others = [middle(first[name]) for name in programs if protocol in name and not name.startswith("poor")]
        if ours in programs and others:
            fastest = min(one for one in others if one == one)  # noqa: PLR0124 - no NaN
            section.targets.append(
                Target(f"{protocol}: time of the fastest peer", middle(first[ours]) / fastest, 1.11, "times")
            )
    section.parts += [paragraph("Medians; the files are in memory. 1.11 times the time is 90 % of the rate."), table]
    return section


DELAY = """
import asyncio, sys
host, port, to_host, to_port, delay = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), float(sys.argv[5])

async def one_way(reader, writer):
    loop, queue = asyncio.get_running_loop(), asyncio.Queue()
    async def late():
        while (item := await queue.get()) is not None:
            await asyncio.sleep(max(0, item[0] - loop.time()))
            writer.write(item[1])
            await writer.drain()
        writer.close()
    task = asyncio.create_task(late())
    while data := await reader.read(1 << 18):
        queue.put_nowait((loop.time() + delay, data))
    queue.put_nowait(None)
    await task

async def serve(reader, writer):
    try:
        await asyncio.sleep(2 * delay)
        there = await asyncio.open_connection(to_host, to_port)
        await asyncio.gather(one_way(reader, there[1]), one_way(there[0], writer))
    except OSError:
        writer.close()

async def main():
    await (await asyncio.start_server(serve, host, port)).serve_forever()

asyncio.run(main())
"""


def with_delay(*, quick: bool, **_: object) -> Section:
    """Compare over a path with 20 ms there and back."""
    section = Section("mirror-delay", "Mirrors: small files with 20 ms of delay")
    with stand() as there:
        fill(there.source)
        for number in range(100, DIRECTORIES):  # 2,000 files are enough here
            shutil.rmtree(there.source / f"d{number % 20}" / f"s{number}")
        relay = [sys.executable, "-c", DELAY, there.edge.ip, "8080", there.ip, "80", "0.01"]
        there.edge.start(relay, ready=8080, name="delay")
        programs = subjects(there.ip, ftp=False, http=f"http://{there.edge.ip}:8080/")
        programs = {name: one for name, one in programs.items() if installed(one("x")) and not name.startswith("wget")}
        first, again, wrong = rounds_of(there, programs, 1 if quick else 3)
    table = Table(("program", "first s", "again s", "differences"))
    for name in programs:
        table.rows.append([name, middle(first[name]), middle(again[name]), wrong[name]])
        if not name.startswith("poor"):
            for what, runs in (("first copy", first), ("nothing to do", again)):
                ratio = middle(runs["poor-mirror, http"]) / middle(runs[name])
                section.targets.append(Target(f"{what}: as {name.partition(',')[0]}'s", ratio, 1.0, "times"))
    section.parts += [
        paragraph(
            """2,000 files over HTTP through a relay that holds each way back for 10 ms, and a connection for 20 more.
            Eight connections each, but for rclone while it lists, when it asks for sizes over up to 72, and for ours as
            soon as it has found out how far away the server is: then it has sixteen."""
        ),
        table,
    ]
    return section


MILLION = """
import resource, sys, tempfile
from pytest_poorcontainer.mirror.entries import FILE, DIRECTORY, Entry, Listing
from pytest_poorcontainer.mirror.planner import Planner
from pytest_poorcontainer.mirror.profiles import find
from pytest_poorcontainer.mirror.rules import Rules
from pytest_poorcontainer.mirror.tree import Tree
with tempfile.TemporaryDirectory() as top, Tree(top) as tree:
    planner = Planner(tree, Rules(), find("plain"))
    planner.found("", Listing([Entry(f"d{n}", DIRECTORY) for n in range(1000)]))
    for n in range(1000):
        planner.found(f"d{n}", Listing([Entry(f"file-{n}-{m}.deb", FILE, n * m, 1.7e9 + n + m) for m in range(1000)]))
    assert len(planner.plan.fetches) == 1_000_000
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def memory(**_: object) -> Section:
    """Measure the memory of a plan to fetch a million files."""
    section = Section("mirror-memory", "Mirrors: a million files")
    done = subprocess.run([sys.executable, "-c", MILLION], capture_output=True, text=True, check=True)
    section.targets.append(Target("memory of a plan to fetch a million files", float(done.stdout), 400, "MiB"))
    section.parts.append(
        paragraph("Peak resident memory of a process that plans a first copy of 1,000 directories of 1,000 files.")
    )
    return section


VISITOR = """
import http.client, sys, time
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
count, start = int(sys.argv[2]), time.perf_counter()
for _ in range(count):
    connection.request("GET", "/")
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200
print(count / (time.perf_counter() - start))
"""


def page(*, quick: bool, **_: object) -> Section:
    """Measure the status page with 60 mirrors, and what a visitor costs a run."""
    section = Section("mirror-page", "Mirrors: the status page")
    with tempfile.TemporaryDirectory(prefix="bench-page-") as directory:
        top = Path(directory)
        source = top / "source"
        source.mkdir()
        fill(source)
        tables = "".join(f'[mirror.m{number}]\nsource = "{source}"\ninterval = "1d"\n' for number in range(60))
        (top / "mirrors.toml").write_text(f'[defaults]\nroot = "{top}/root"\n[site]\njobs = 0\n{tables}')
        for number in range(60):
            (top / "root" / f"m{number}").mkdir(parents=True)
        rate, times = served(top, source, quick=quick)
    section.targets += [
        Target("milliseconds per request, the client's part included", 1000 / rate, 1.0, "ms"),
        Target("a run while the page is looked at: as without", times[1] / times[0], 1.05, "times"),
    ]
    section.parts += [
        paragraph(
            f"""{rate:.0f} requests per second from one client over one connection, with 60 mirrors. The run copies
            10,000 files on this machine; meanwhile the page is served, and one browser follows its events and asks for
            it once a second."""
        )
    ]
    return section


def served(top: Path, source: Path, *, quick: bool) -> tuple[float, tuple[float, float]]:
    """Return requests per second, and the seconds of a run (without, with) a visitor."""
    serve = (
        "import sys, pathlib; from pytest_poorcontainer.mirror.config import load; "
        "from pytest_poorcontainer.mirror.page.served import PageServer; "
        f"s = PageServer(load(pathlib.Path('{top}/mirrors.toml')), ('127.0.0.1', 0)); "
        "print(s.server_port, flush=True); s.serve_politely()"
    )
    times: dict[bool, list[float]] = {False: [], True: []}
    with subprocess.Popen([sys.executable, "-c", serve], stdout=subprocess.PIPE, text=True) as process:
        try:
            port = process.stdout.readline().strip() if process.stdout else ""
            argv = [sys.executable, "-c", VISITOR, port, "500" if quick else "5000"]
            rate = float(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
            for _round in range(2 if quick else 20):
                for looked_at in random.sample([False, True], 2):
                    times[looked_at].append(run_beside(top, source, port if looked_at else ""))
        finally:
            process.kill()
    return rate, (statistics.median(times[False]), statistics.median(times[True]))


def run_beside(top: Path, source: Path, port: str) -> float:
    """Return the seconds of a first copy; with a port, while somebody looks at the page there."""
    visit = (
        "import sys, threading, time, urllib.request as u; url = f'http://127.0.0.1:{sys.argv[1]}/'; "
        "threading.Thread(target=lambda: [None for _ in u.urlopen(url + 'events')], daemon=True).start(); "
        "exec('while True:\\n u.urlopen(url).read(); time.sleep(1)')"
    )
    visitor = subprocess.Popen([sys.executable, "-c", visit, port]) if port else None
    try:
        time.sleep(0.5)  # the same rest before either: a processor that was idle begins more slowly
        start = time.perf_counter()
        subprocess.run([*OURS, "copy", source, top / "copy", "--quiet"], check=True, capture_output=True)
        return time.perf_counter() - start
    finally:
        if visitor is not None:
            visitor.kill()
            visitor.wait()
        shutil.rmtree(top / "copy", ignore_errors=True)


def kills(*, quick: bool, **_: object) -> Section:
    """Kill runs at random moments, over each protocol."""
    section = Section("mirror-kills", "Mirrors: killed at random moments")
    count = 10 if quick else 200
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-o", "timeout=3600", "--timeout=3600"]
    argv += ["tests/mirror/test_safety.py", "-k", "killed_at_any_moment"]
    environment = {**os.environ, "POOR_MIRROR_KILLS": str(count)}
    done = subprocess.run(argv, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    failed = int(next(iter(re.findall(r"(\d+) failed", done.stdout)), 0 if done.returncode == 0 else 1))
    section.targets.append(Target("protocols with a torn file, or a run that did not recover", failed, 0))
    section.parts.append(
        paragraph(
            f"{count} times SIGKILL at a random moment of a run, over each of nginx' pages, FTP, files and rsync."
        )
    )
    return section
