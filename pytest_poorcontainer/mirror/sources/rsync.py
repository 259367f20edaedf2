"""``rsync://`` and rsync over ssh, by the rsync program: planned by its dry run, delivered into a directory of ours.

rsync itself never writes into the published tree: what it brings is published as all other files are. Versions before
3.4.0 have holes that a hostile server can use (CVE-2024-12084 to 12088, 12747); distributions have mended theirs.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pytest_poorcontainer.mirror.entries import DIRECTORY, FILE, LINK, Entry, Listing, why_refused
from pytest_poorcontainer.mirror.errors import BadConfig, MirrorError, NoSpace, NotAllowed, SourceError, Unreachable
from pytest_poorcontainer.mirror.listings.dates import seconds
from pytest_poorcontainer.mirror.plan import Want, printable
from pytest_poorcontainer.mirror.rules import OURS
from pytest_poorcontainer.mirror.sources.base import check_family, check_netrc
from pytest_poorcontainer.mirror.sources.program import Program
from pytest_poorcontainer.mirror.staging import Failure
from pytest_poorcontainer.mirror.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_poorcontainer.mirror.planner import Planner
    from pytest_poorcontainer.mirror.rules import Rules
    from pytest_poorcontainer.mirror.sources.base import Options, Source
    from pytest_poorcontainer.mirror.staging import Stage

__all__ = ["RsyncSource", "open_url"]

_NEWEST_HOLE = (3, 4, 0)
_FORMAT = "%i %l %M %B %n%L"
_LINE = re.compile(
    rb"(?P<what>\S{9,11}) +(?P<size>\d+) (?P<time>\d{4}/\d\d/\d\d-\d\d:\d\d:\d\d) (?P<mode>\S{9}) (?P<name>.+)"
)
_LISTED = re.compile(
    rb"(?P<mode>[-dlcbps]\S{9}) +(?P<size>[\d,]+) (?P<time>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) (?P<name>.+)"
)
_PLAIN = re.compile(r"(?:[A-Za-z0-9_~][A-Za-z0-9._~+-]{0,254}/)*[A-Za-z0-9_~][A-Za-z0-9._~+-]{0,254}")
"""Paths of which no component can be refused, as most are."""
_DELETING = re.compile(rb"\*deleting +(?:\d+ \S+ \S{9} )?(?P<name>.+)")
_MANY = 100
_PARTIAL = {23, 24, 25}
_REFUSALS = ("auth failed", "Permission denied (", "Host key verification failed")
_BOILERPLATE = re.compile(r"rsync error: .*|rsync: connection unexpectedly closed .*|@+|\s*")
_FULL = re.compile(r"(?!.*\[sender\]).*(?:No space left on device|Disk quota exceeded)", re.MULTILINE)
_LOST = {10, 12, 30, 35, 255}
_ENDINGS = {
    5: "the server has no such module, or does not let us in",
    10: "the connection failed",
    12: "the connection ended in the middle",
    30: "nothing came for too long",
    35: "no connection within the time allowed",
    255: "ssh has failed",
}


def open_url(url: str, options: Options) -> Source:
    """Return the source of a URL; raises :class:`~pytest_poorcontainer.mirror.errors.BadConfig`."""
    return RsyncSource(url, options)


class RsyncSource:
    """A tree that an rsync daemon, or rsync at the other end of ssh, offers."""

    protocol = "rsync"

    def __init__(self, url: str, options: Options) -> None:
        """Check the URL and the program; raises :class:`BadConfig`, :class:`MirrorError`."""
        self._options = options
        self._environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
        if options.proxy:
            self._environment["RSYNC_PROXY"] = _proxy(options.proxy)
        password = options.password
        if url.startswith("rsync://"):
            parts = urlsplit(url)
            user = options.user or unquote(parts.username or "")
            password = password or unquote(parts.password or "")
            host = parts.netloc.rpartition("@")[2]
            check_family(parts.hostname or "", options.ip)
            if options.netrc and not user:
                user, password = _from_netrc(check_netrc(options.netrc), parts.hostname or "")
            if not host or not parts.path.strip("/"):
                raise BadConfig('the source needs a host and a module: write "rsync://HOST/MODULE/"')
            self.url = f"rsync://{host}{parts.path}"
            self._source = f"rsync://{user + '@' if user else ''}{host}{parts.path}"
        else:
            self.url = self._source = url
        if self._source.startswith("-"):
            raise BadConfig(f'the source "{self._source}" begins with a dash')
        self._source = self._source if self._source.endswith("/") else self._source + "/"
        if password:
            self._environment["RSYNC_PASSWORD"] = password
        self._program = _usable(options)
        self._destination = ""
        self._rules: list[str] = []
        self._everything = self._brought = False
        self._problem = ""

    @property
    def _incoming(self) -> Path:
        return Path(self._destination, OURS, "incoming")

    def close(self) -> None:
        """Remove what has come and was not wanted; what a lost connection has left is for the next run. Idempotent."""
        if self._brought:
            shutil.rmtree(self._incoming, ignore_errors=True)

    def _base(self) -> list[str]:
        options = self._options
        argv = [self._program, "--no-motd", "-8", f"--timeout={max(1, round(options.idle))}"]
        if self._source.startswith("rsync://"):
            argv.append(f"--contimeout={max(1, round(options.connect))}")
            if "RSYNC_CONNECT_PROG" not in self._environment:  # else it is no socket of TCP's
                # Arguments go out piece by piece: each would wait until the last is acknowledged, 40 ms at times.
                argv.append("--sockopts=TCP_NODELAY")
        if options.ssh:
            argv += ["-e", options.ssh]
        if options.ip:
            argv.append(f"-{options.ip}")
        if options.bandwidth:
            argv.append(f"--bwlimit={max(1, options.bandwidth // 1024)}")
        return argv

    def _run(self, argv: list[str], data: bytes | None = None) -> Program:
        return Program(argv, self._environment, self._options.tick, data)

    def _check(self, program: Program, what: str) -> str:
        """Return what is wrong but not the end of it; raises :class:`SourceError` and its kin for what is."""
        code, said = program.status, _telling(program.errors)
        if code == 0:
            return ""
        if full := _FULL.search(program.errors):
            raise NoSpace(f"cannot write what rsync brings: {printable(full[0][:300])}; free some space")
        if code in _PARTIAL:
            return printable(program.errors.strip().splitlines()[0][:300]) if said else f"rsync ended with {code}"
        reason = f"{what} {self.url}: {_ENDINGS.get(code, f'rsync ended with {code}')}{f' ({said})' if said else ''}"
        if "bad response from proxy" in program.errors and " 407 " in program.errors:
            raise NotAllowed(
                f"cannot {what} {self.url}: the proxy answers 407; look at the user and password in `proxy`"
            )
        if any(text in program.errors for text in _REFUSALS):
            raise NotAllowed(f"cannot {reason}; look at user, password and keys")
        if code in _LOST or "max connections" in program.errors:  # another one will leave
            raise Unreachable(f"cannot {reason}; is the address right, and is the server up?")
        raise SourceError(f"cannot {reason}; are module and path right?")

    def survey(self, planner: Planner, tree: Tree, rules: Rules) -> None:
        """Have rsync compare, in a dry run."""
        self._destination = tree.path
        self._rules = rules.for_rsync()
        argv = [*self._base(), "-nrlt", "--omit-dir-times", "--delete", "--stats", "--no-h", f"--out-format={_FORMAT}"]
        argv += ["--delete-excluded"] * self._options.delete_excluded
        argv += [*rules.for_rsync(), "--", self._source, f"{tree.path}/"]
        for attempt in range(self._options.retries + 1):
            program = self._run(argv)
            reader = _Dry(planner, tree)
            for line in program.lines():
                reader.take(line)
            try:
                problem = self._check(program, "list")
            except Unreachable:
                if attempt == self._options.retries:
                    raise
                program.pause(self._options.backoff * 2**attempt)
                continue
            break
        reader.end(self._options.memory)
        plan = planner.plan
        self._everything = len(plan.fetches) > _MANY and len(plan.fetches) > plan.listed["files"] / 2
        self._brought = False
        if "change_dir" in problem and not plan.listed["files"]:
            raise SourceError(f"cannot list {self.url}: {problem}; is the path right?")
        if problem:
            plan.problems.append(problem)

    def relist(self, directories: Iterable[str]) -> Mapping[str, Listing | None]:
        """List these directories once more."""
        found: dict[str, Listing | None] = {}
        for directory in directories:
            source = self._source + (f"{directory}/" if directory else "")
            program = self._run([*self._base(), "--list-only", "--no-h", "-l", "--", source])
            listing = Listing(dialect="rsync")
            for line in program.lines():
                match = _LISTED.fullmatch(line)
                if match and match["name"] != b".":
                    listing.add(_entry(match))
            found[directory] = listing if program.status == 0 else None
        return found

    def fetch(self, wants: Iterable[Want], stage: Stage) -> None:
        """Have rsync bring these files into a directory of ours, and hand them to the stage."""
        wanted = list(wants)
        if not wanted:
            return
        self._incoming.mkdir(mode=0o700, exist_ok=True)
        argv = [*self._base(), "-t", "--partial-dir=.~partial", "--no-h", "--out-format=%l"]
        argv += [f"--compare-dest={self._destination}"]
        named = [*argv, "--files-from=-", "--from0", "--no-implied-dirs", "--", self._source, f"{self._incoming}/"]
        left = wanted
        if self._everything and not self._brought:
            # To name every file costs rsync more than to bring them: one pass for all stages, and filters as before.
            argv += ["-rm", "--omit-dir-times", *self._rules, "--", self._source, f"{self._incoming}/"]
            self._problem = self._bring(argv, None, wanted, stage)
            left = []
        elif self._everything:
            with Tree(str(self._incoming)) as there:
                left = [want for want in wanted if there.look(want.path) is None]
        if left:
            names = b"\0".join(os.fsencode(want.path) for want in left)
            self._problem = self._bring(named, names, wanted, stage)
        self._brought = True
        problem = self._problem
        self._deliver(wanted, stage, problem)

    def _bring(self, argv: list[str], names: bytes | None, wanted: list[Want], stage: Stage) -> str:
        """Run rsync until it has brought all; return what is wrong. Raises what :meth:`_check` raises."""
        for attempt in range(self._options.retries + 1):
            program = self._run(argv, names)
            for line in program.lines():
                stage.received(int(line) if line.isdigit() else 0)
            try:
                return self._check(program, "read")
            except Unreachable:
                if attempt == self._options.retries:
                    self._deliver(wanted, stage, None)
                    raise
                program.pause(self._options.backoff * 2**attempt)
        return ""

    def _deliver(self, wanted: list[Want], stage: Stage, problem: str | None) -> None:
        """Hand what has come to the stage; ``problem`` is why the rest has not, None when that is told otherwise."""
        with Tree(str(self._incoming)) as there:
            for want in wanted:
                directory, _, name = want.path.rpartition("/")
                try:
                    if not self._adopted(there, directory, name, want, stage) and problem is not None:
                        raise Failure("gone", problem or "the source has it no more")  # noqa: TRY301 - as what adopt raises
                except Failure as failure:
                    self._options.log(f"{printable(want.path)}: {failure}")
                    stage.failed(want, failure)

    def _adopted(self, there: Tree, directory: str, name: str, want: Want, stage: Stage) -> bool:
        """Whether the file has come, and the stage has taken it."""
        try:
            fd = there.directory(directory)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                return False
            raise
        return stage.adopt(fd, name, want)

    def read(self, path: str, most: int, known: str = "") -> tuple[bytes | None, str]:  # noqa: ARG002 - a source's
        """Tell that rsync's own comparison is as cheap as reading a manifest."""
        raise FileNotFoundError(path)


def _telling(errors: str) -> str:
    """Return the line that says most of what a program has said: the last one that is not said at every failure."""
    lines = errors.strip().splitlines()
    telling = [line for line in lines if not _BOILERPLATE.fullmatch(line)] or lines or [""]
    return printable(telling[-1][:300])


class _Dry:
    """Reads what a dry run says, and writes the plan."""

    def __init__(self, planner: Planner, tree: Tree) -> None:
        self._planner = planner
        self._plan = planner.plan
        self._plan.sums = None
        self._tree = tree
        self._totals: dict[str, int] = {}
        self._incomplete: set[str] = set()

    def take(self, line: bytes) -> None:
        """Take one line."""
        deleting = _DELETING.fullmatch(line)
        if deleting:
            self._delete(_name(deleting["name"]))
            return
        found = _LINE.fullmatch(line)
        if found:
            self._change(found)
            return
        totals = re.match(
            rb"(Number of files|Total file size): ([\d,.]+)(?:.*\breg: ([\d,.]+))?(?:.*\blink: ([\d,.]+))?", line
        )
        if totals:
            number = totals[2] if totals[1] == b"Total file size" else totals[3] or b"0"
            self._totals[totals[1].decode()] = int(re.sub(rb"[,.]", b"", number))
            self._totals["links"] = max(self._totals.get("links", 0), int(re.sub(rb"[,.]", b"", totals[4] or b"0")))

    def _delete(self, name: str) -> None:
        path = name.rstrip("/")
        local = self._tree.look(path)
        if local is not None:
            self._planner.vanished(path, local)

    def _change(self, found: re.Match[bytes]) -> None:
        what = found["what"].decode("ascii", "replace")
        kind = {"f": FILE, "d": DIRECTORY, "L": LINK}.get(what[1:2], "")
        name = _name(found["name"])
        path, _, target = name.partition(" -> ") if kind == LINK else (name.rstrip("/"), "", "")
        if not kind or path in {"", "."} or what[0] == ".":
            return
        refused = "" if _PLAIN.fullmatch(path) else next((why for why in map(why_refused, path.split("/")) if why), "")
        if refused:
            self._plan.problems.append(f"refused the name {path!a}: {refused}")
            self._incomplete.add(path.rpartition("/")[0])
            return
        stamp = _seconds(found["time"].decode("ascii", "replace").replace("-", "/").replace(":", "/"))
        self._planner.differs(
            path,
            Entry(
                path.rpartition("/")[2],
                kind,
                int(found["size"]) if kind == FILE else None,
                stamp,
                target=target,
                executable=found["mode"][2:3] in {b"x", b"s"},
            ),
        )

    def end(self, memory: dict[str, Any]) -> None:
        """Fill in what only the totals tell."""
        plan = self._plan
        self._spare()
        plan.listed["files"] = self._totals.get("Number of files", 0)
        plan.listed["bytes"] = self._totals.get("Total file size", 0)
        new = sum(not want.changed for want in plan.fetches)
        gone = sum(one.kind == FILE for one in plan.deletions)
        plan.local["files"] = max(gone, plan.listed["files"] - new + gone)
        others = sum(one.kind not in {FILE, DIRECTORY} for one in plan.deletions)
        plan.local["others"] = max(others, self._totals.get("links", 0) - len(plan.links) + others)
        for top in {one.path.partition("/")[0] for one in plan.deletions if "/" in one.path}:
            plan.tops[top] = sum(local.kind != DIRECTORY for _, local in self._tree.walk(top))
        plan.newest = max(plan.newest, memory.get("newest", 0.0))
        memory["newest"] = plan.newest

    def _spare(self) -> None:
        """Drop the deletions in directories of which a name was refused, and all below what they would delete."""
        if not self._incomplete:
            return
        spared: set[str] = set()
        for one in sorted(self._plan.deletions, key=lambda one: one.path.count("/")):  # what is above comes first
            if one.where in self._incomplete or one.where in spared:
                spared.add(one.path)
        self._plan.deletions = [one for one in self._plan.deletions if one.path not in spared]


def _entry(match: re.Match[bytes]) -> Entry:
    kind = {b"-": FILE, b"d": DIRECTORY, b"l": LINK}.get(match["mode"][:1], "?")
    name, _, target = _name(match["name"]).partition(" -> ") if kind == LINK else (_name(match["name"]), "", "")
    size = int(match["size"].replace(b",", b""))
    stamp = match["time"].decode().replace(" ", "/").replace(":", "/")
    return Entry(name, kind, size if kind == FILE else None, _seconds(stamp), target=target)


@functools.lru_cache(maxsize=4096)
def _seconds(text: str) -> float | None:
    return seconds(*(int(part) for part in text.split("/")))


def _name(raw: bytes) -> str:
    """Undo rsync's escapes: a backslash, a hash, and three octal digits."""
    if b"\\#" in raw:
        raw = re.sub(rb"\\#([0-7]{3})", lambda found: bytes([int(found[1], 8) & 255]), raw)
    return os.fsdecode(raw)


def _proxy(text: str) -> str:
    """Return a proxy as RSYNC_PROXY has it, [USER:PASSWORD@]HOST:PORT; raises :class:`BadConfig`."""
    scheme, separator, rest = text.partition("://")
    if separator and scheme.lower() != "http":
        raise BadConfig(f"rsync cannot use a proxy by {scheme}: it knows http, with the method CONNECT")
    return (rest if separator else text).rstrip("/")


def _from_netrc(path: str, host: str) -> tuple[str, str]:
    """Return (user, password) for a host, empty where the file has none; raises :class:`BadConfig`."""
    import netrc  # noqa: PLC0415 - for passwords in a file

    try:
        found = netrc.netrc(path).authenticators(host)
    except (netrc.NetrcParseError, UnicodeDecodeError) as error:
        raise BadConfig(f"cannot read the netrc {path}: {error}") from None
    return (found[0], found[2] or "") if found else ("", "")


def _usable(options: Options) -> str:
    """Return the path of rsync; raises :class:`MirrorError` when there is none, or one with known holes."""
    path = shutil.which(options.rsync)
    if path is None:
        raise MirrorError(f"cannot find {options.rsync}, which rsync sources need: sudo apt-get install rsync")
    said = subprocess.run([path, "--version"], capture_output=True, check=False, timeout=10).stdout.decode(
        "ascii", "replace"
    )
    found = re.search(r"version v?(\d+)\.(\d+)\.(\d+)", said)
    version = tuple(int(part) for part in found.groups()) if found else (0, 0, 0)
    if version < _NEWEST_HOLE and not options.old_rsync and not _mended_by_debian():
        shown = ".".join(map(str, version))
        raise MirrorError(
            f"{path} is rsync {shown}, which hostile servers can attack (CVE-2024-12085 and others): "
            "install 3.4.0 or newer, or say old_rsync = true if your distribution has mended it"
        )
    return path


def _mended_by_debian() -> bool:
    """Whether the package is one of Debian's with the mends of January 2025 or later."""
    dpkg = shutil.which("dpkg-query")
    if dpkg is None:
        return False
    asked = subprocess.run(
        [dpkg, "-W", "-f", "${Version}", "rsync"], capture_output=True, text=True, check=False, timeout=10
    )
    return bool(re.search(r"^3\.2\.(?:7-1\+deb12u[1-9]|3-4\+deb11u[2-9])", asked.stdout))
