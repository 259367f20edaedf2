"""One run of one mirror: list, plan, guard, fetch, publish in the order of stages, delete last."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.mirror import manifest, snapshots, traces
from pytest_poorcontainer.mirror.carrying import Carrying
from pytest_poorcontainer.mirror.entries import LINK
from pytest_poorcontainer.mirror.errors import Held, Locked, MirrorError, NoPlan
from pytest_poorcontainer.mirror.history import History
from pytest_poorcontainer.mirror.home import Home, write_json
from pytest_poorcontainer.mirror.hooks import run_hook, tell_notifiers
from pytest_poorcontainer.mirror.plan import Plan
from pytest_poorcontainer.mirror.planner import Planner
from pytest_poorcontainer.mirror.progress import Progress
from pytest_poorcontainer.mirror.sources.base import Options
from pytest_poorcontainer.mirror.sources.curl import without_credentials
from pytest_poorcontainer.mirror.sources.finding import open_source
from pytest_poorcontainer.mirror.staging import Stage, count_free, disk_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_poorcontainer.mirror.config import Mirror
    from pytest_poorcontainer.mirror.sources.base import Source

__all__ = ["Result", "Run", "sync"]

_ROUNDS = 3
"""How often a run begins anew because the source has changed meanwhile."""


@dataclass
class Result:
    """How a run ended. ``state`` is "ok", "partial", "held", "locked" or "failed", ``status`` the exit status."""

    name: str
    state: str = "ok"
    status: int = 0
    reason: str = ""
    started: float = field(default_factory=time.time)
    ended: float = 0.0
    added: int = 0
    changed: int = 0
    deleted: int = 0
    fetched: int = 0
    files: int = 0
    bytes: int = 0
    newest: float = 0.0
    protocol: str = ""
    rate: float = 0.0
    problems: int = 0
    free: int = 0
    total: int = 0
    device: int = 0
    unchanged: bool = False
    plan: Plan | None = None

    def dump(self) -> dict[str, Any]:
        """Return all but the plan, for JSON and the history."""
        return {key: value for key, value in self.__dict__.items() if key != "plan"}

    def end(self, state: str, status: int, reason: str) -> None:
        """Note how it ended."""
        self.state, self.status, self.reason = state, status, reason


class Run:
    """A run, from the lock to the history."""

    def __init__(
        self,
        mirror: Mirror,
        *,
        dry: bool = False,
        force: bool = False,
        verify: bool = False,
        adopt: bool = False,
        tell: Callable[[dict[str, Any]], None] | None = None,
        share: Callable[[], int] = lambda: 0,
    ) -> None:
        """``dry`` stops after the plan, ``force`` lets this one plan pass the guard, ``verify`` believes no manifest.

        ``adopt`` takes a directory over that is not marked as ours; ``tell`` is called with the progress; ``share``
        tells what of the mirror's bandwidth is this run's at the moment (bytes/s, 0: all of it).
        """
        self.mirror = mirror
        self.result = Result(mirror.name)
        self.url = without_credentials(mirror.source)
        self.progress = Progress(self._tell)
        self._dry, self._force, self._verify, self._adopt = dry, force, verify, adopt
        self._listener = tell
        self._share = share
        self._history = History(mirror.state / "history.sqlite3")
        self._meant = False  # whether somebody has said that this plan may pass
        self._home: Home | None = None
        self._stage: Stage | None = None
        self._log_fd = -1
        self._deadline = time.monotonic() + mirror.timeout if mirror.timeout else None

    def go(self) -> Result:
        """Do it, and return how it ended. Raises nothing of a mirror's own errors."""
        inside = self.mirror.state.parent == self.mirror.dest  # a copy's history lies in what may be refused
        try:
            previous = self._history.last(self.mirror.name)
        except MirrorError:
            if not inside:
                raise
            previous = None
        try:
            snapshots.check(self.mirror)
            self._home = Home(
                self.mirror.work,
                name=self.mirror.name,
                source=self.url,
                adopt=self._adopt,
                had_files=bool(previous and previous["files"]),
                dry=self._dry,
            )
        except MirrorError as error:
            self.result.end(error.state, error.status, str(error))
            if not isinstance(error, Locked) and not inside:
                self._end(previous)
            return self.result
        try:
            self._guarded(self._home)
        finally:
            self.progress.phase = "end"
            try:
                self._end(previous)
            finally:
                if self._log_fd >= 0:
                    os.close(self._log_fd)
                self._home.close()
        return self.result

    def _guarded(self, home: Home) -> None:
        """Run, and make a result of every error that belongs to mirrors."""
        try:
            if not self._dry:
                self._log_fd = os.open(home.log_file(), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
                self._hook("pre")
            self._go(home)
        except MirrorError as error:
            self.result.end(error.state, error.status, str(error))
        except OSError as error:
            shown = disk_error(error, str(error.filename2 or error.filename or self.mirror.dest))
            status = shown.status if isinstance(shown, MirrorError) else 1
            self.result.end("failed", status, str(shown))
        except KeyboardInterrupt:
            self.result.end("failed", 130, "interrupted")
            raise
        except BaseException as error:
            self.result.end("failed", 1, f"a mistake in poor-mirror: {error!r}; please report it, with the traceback")
            raise
        finally:
            self.log(f"{self.result.state}: {self.result.reason or 'all well'}")

    def log(self, text: str) -> None:
        """Write a line to the log of this run; to standard error where that cannot be: no such place, a full disk.

        A dry run has no log: its plan says it all.
        """
        if self._dry:
            return
        line = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n"
        data = line.encode("utf-8", "backslashreplace")
        try:
            os.write(self._log_fd if self._log_fd >= 0 else 2, data)
        except OSError:
            os.write(2, data)

    def _tell(self, told: dict[str, Any]) -> None:
        if self._home is not None and not self._dry:
            write_json(self._home.ours / "status.json", {"pid": os.getpid(), "name": self.mirror.name, **told})
        if self._listener is not None:
            self._listener(told)

    def _tick(self) -> None:
        if self._stage is not None:
            self.progress.files, self.progress.bytes = self._stage.files, self._stage.bytes
        self.progress.tick()
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise MirrorError(f"it took longer than `timeout` allows ({self.mirror.timeout:g} s): the next run goes on")

    def _hook(self, name: str) -> None:
        command = self.mirror.hooks.get(name)
        if command:
            run_hook(name, command, self.mirror, self.url, self.result, self.log)

    def _go(self, home: Home) -> None:
        if self.mirror.command:
            if self._dry:
                raise NoPlan(f"{self.mirror.name} is copied by a command: what that will do cannot be planned; run it")
            from pytest_poorcontainer.mirror.sources.command import run_command  # noqa: PLC0415 - rarely

            self._disk(home, Plan(self.mirror.name, self.url))
            run_command(self.mirror, home, self.result, self._tick, self.progress, self.log)
            return
        saved = home.state()
        options = Options.of(self.mirror)
        options.memory = saved.setdefault("memory", {})
        options.log, options.tick, options.share = self.log, self._tick, self._share
        self.mirror.user, self.mirror.password = options.user, options.password
        source = open_source(self.mirror.source, options)
        try:
            self.result.protocol = source.protocol
            self.log(f"from {self.url} by {source.protocol}")
            self._with_source(home, source, saved)
        finally:
            source.close()
            if not self._dry:
                home.save(saved)

    def _with_source(self, home: Home, source: Source, saved: dict[str, Any]) -> None:
        fingerprint = self._fingerprint()
        found = manifest.ask(source, saved, fingerprint) if self.mirror.use_manifest else None
        if found is not None and found.unchanged and not self._verify:
            self._unchanged(home, saved)
            return
        saved.pop("complete", None)
        for left in reversed(range(_ROUNDS)):
            carrying = self._round(home, source, found.listings if found is not None else None)
            if carrying is None or not carrying.moved or not left:
                break
            self.log("the source has changed meanwhile: once more")
            self._count(carrying)
            found = None
        if carrying is None or self._dry:
            return
        self._conclude(home, carrying)
        if self.result.state == "ok" and not self._meant and not _evidence(home, carrying):
            self.result.end("partial", 3, "the source has no file that belongs to this mirror: there is nothing here")
        if self.result.state == "ok":
            traces.stamp(home, self.mirror.trace, self.url)
            if self.mirror.snapshots and (name := snapshots.switch(self.mirror)):
                self.log(f"readers see {name} from now on")
            saved["complete"] = {
                "fingerprint": fingerprint,
                "validator": found.validator if found is not None else "",
                "files": self.result.files,
                "bytes": self.result.bytes,
                "newest": self.result.newest,
            }

    def _fingerprint(self) -> str:
        """Return what has to be the same for an unchanged source to mean an unchanged mirror."""
        mirror = self.mirror
        belongs = (mirror.include, mirror.exclude, mirror.filters, mirror.links)
        left = (mirror.delete, mirror.delete_excluded, mirror.manifest, mirror.trace)
        return repr((self.url, belongs, left))

    def _unchanged(self, home: Home, saved: dict[str, Any]) -> None:
        """End a run whose source says that nothing is new."""
        complete = saved["complete"]
        self.result.files, self.result.bytes = complete["files"], complete["bytes"]
        self.result.newest, self.result.unchanged = complete["newest"], True
        self.result.plan = Plan(self.mirror.name, self.url)
        self._disk(home, self.result.plan)
        if not self._dry:
            traces.end(home, self.mirror.trace)
            traces.stamp(home, self.mirror.trace, self.url)
        self.log("the source's manifest is the one that we have: nothing to do")

    def _disk(self, home: Home, plan: Plan) -> None:
        disk = count_free(home.tree.fd, self.mirror.reserve, plan.bytes, len(plan.fetches))
        self.result.free, self.result.total = disk["free"], disk["total"]
        self.result.device = os.fstat(home.tree.fd).st_dev

    def _round(self, home: Home, source: Source, listings: Any) -> Carrying | None:
        """Plan, and carry the plan out up to the point where indexes would be published; None when it stays a plan."""
        self.progress.enter("list")
        plan = self._plan(home, source, listings)
        self.result.plan = plan
        self.log(f"plan: {plan.summary()}")
        for problem in plan.problems:
            self.log(problem)
        reasons = plan.excess(self.mirror.max_delete)
        if self._dry:
            self._measure(plan)
            return None
        self._guard(home, plan, reasons)
        self._disk(home, plan)
        self.progress.total_files, self.progress.total_bytes = len(plan.fetches), plan.bytes
        stage = self._stage = Stage(home.tree, home.temporary, self.mirror.layout().dates)
        carrying = Carrying(self.mirror, source, home.tree, stage, plan, self.log)
        if plan:
            self.progress.enter("fetch")
            snapshots.begin(self.mirror)
            carrying.fetch()
        return carrying

    def _plan(self, home: Home, source: Source, listings: Any) -> Plan:
        mirror = self.mirror
        planner = Planner(
            home.tree,
            mirror.rules(),
            mirror.layout(),
            links=mirror.links,
            delete_excluded=mirror.delete_excluded,
            own=traces.own_names(mirror.trace),
        )
        planner.plan.name, planner.plan.source = mirror.name, self.url
        if listings is not None:
            manifest.survey(listings, planner)
        else:
            source.survey(planner, home.tree, mirror.rules())
        return planner.settle(delete=mirror.delete)

    def _guard(self, home: Home, plan: Plan, reasons: list[str]) -> None:
        """Hold a plan that deletes too much, unless exactly this one was released. Raises :class:`Held`."""
        if reasons and not self._force and home.released() != plan.digest():
            home.hold(plan, reasons)
            self._measure(plan)
            raise Held(
                f"{'; '.join(reasons)}; nothing was changed. Look at it: poor-mirror plan {plan.name}; "
                f"let it pass: poor-mirror release {plan.name}"
            )
        self._meant = self._force or bool(reasons)
        home.unhold()

    def _measure(self, plan: Plan) -> None:
        self.result.files, self.result.bytes = plan.local["files"], plan.local["bytes"]
        self.result.newest, self.result.problems = plan.newest, len(plan.problems)

    def _conclude(self, home: Home, carrying: Carrying) -> None:
        """Publish, delete, and say how complete the mirror is now."""
        plan, stage = carrying.plan, carrying.stage
        self.progress.enter("publish")
        try:
            if plan:
                traces.begin(home, self.mirror.trace)
            carrying.publish()
            if self.mirror.manifest and (plan or not manifest.present(home)):
                manifest.write(home)
            self.progress.enter("delete")
            carrying.delete()
        finally:
            traces.end(home, self.mirror.trace)
        self._count(carrying)
        stage.clean(stage.resumable())
        result = self.result
        result.files, result.bytes = plan.listed["files"], plan.listed["bytes"]
        result.newest = max(plan.newest, stage.newest)
        spent = time.time() - result.started
        result.rate = result.fetched / spent if spent > 0 else 0.0
        problems = carrying.problems()
        result.problems = len(problems)
        if problems:
            more = f" (and {len(problems) - 1} more; see the log)" if len(problems) > 1 else ""
            result.end("partial", 3, problems[0] + more)

    def _count(self, carrying: Carrying) -> None:
        """Count what a round has brought; indexes that it could not publish come again with the next one."""
        stage, result = carrying.stage, self.result
        missing = {want.path for want, _ in stage.failures} | stage.waiting.keys()
        new = {want.path for want in carrying.plan.fetches if not want.changed} - missing
        result.added += len(new)
        result.changed += max(0, stage.files - len(stage.waiting) - len(new))
        result.deleted += carrying.deleted
        result.fetched += stage.bytes

    def _end(self, previous: dict[str, Any] | None) -> None:
        """Write history and status, and tell hooks and notifiers."""
        self.result.ended = time.time()
        if self._dry:
            return
        try:
            self._history.add(self.result.dump())
            self.progress.tick(now=True)
        except (MirrorError, OSError) as error:
            shown = disk_error(error, "the state of the run") if isinstance(error, OSError) else error
            self.log(str(shown))
            if self.result.state == "ok":
                self.result.end("failed", shown.status if isinstance(shown, MirrorError) else 1, str(shown))
        self._hook("post" if self.result.state == "ok" else "fail")
        before = previous["state"] if previous else ""
        if before != self.result.state:
            self._hook("change")
            tell_notifiers(self.result, before, self.log)


def _evidence(home: Home, carrying: Carrying) -> bool:
    """Whether there is anything that a good run could have left: nothing at all may come of a wrong path or pattern."""
    return bool(carrying.plan.listed["files"]) or any(local.kind == LINK for _, local in home.tree.walk())


def sync(mirror: Mirror, **options: Any) -> Result:
    """Run once; the arguments are those of :class:`Run`."""
    return Run(mirror, **options).go()
