"""A mirror in a host: ``poor-mirror`` runs there, as its users run it."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.errors import PoorContainerError
from pytest_poorcontainer.mirror.testing.origin import MirrorSource, contents

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_poorcontainer.container import Process
    from pytest_poorcontainer.network import Host

__all__ = ["MirrorResult", "PoorMirror", "Syncing"]

_PROGRAM = [sys.executable, "-m", "pytest_poorcontainer.cli.poor_mirror"]
_QUICK = {"connections": 2, "connect": 1, "idle": 1, "retries": 1, "backoff": 0.1}
_PATIENCE = 60.0


@dataclass
class MirrorResult:
    """How a run ended: ``state`` ("ok", "partial", "held", "locked", "failed"), ``status``, ``reason``, counts."""

    state: str
    status: int
    reason: str = ""
    added: int = 0
    changed: int = 0
    deleted: int = 0
    fetched: int = 0
    unchanged: bool = False
    plan: dict[str, Any] = field(default_factory=dict)


class Syncing:
    """A run that is under way. ``result`` is there after the block."""

    def __init__(self, process: Process) -> None:
        """Read what the process says."""
        self.process = process
        self.progress: dict[str, Any] = {}
        self._result: MirrorResult | None = None

    @property
    def result(self) -> MirrorResult:
        """How it ended; raises :class:`PoorContainerError` while it has not."""
        if self._result is None:
            raise PoorContainerError("the run has not ended yet: its result is there after the block of syncing()")
        return self._result

    def wait(self, *, bytes: int = 0, files: int = 0, phase: str = "") -> None:  # noqa: A002 - what is counted
        """Wait until so much has come, or a phase ("list", "fetch", "publish", "delete") has begun.

        Raises :class:`PoorContainerError` when the run ends before that.
        """
        while not (
            self.progress.get("bytes", -1) >= bytes
            and self.progress.get("files", -1) >= files
            and phase in {"", self.progress.get("phase", "")}
        ):
            if not self._next():
                raise PoorContainerError(f"the run ended before what was waited for: {self._result}; {self.progress}")

    def _next(self) -> bool:
        """Read one line; whether there was one."""
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            return False
        said = json.loads(line)
        if said.pop("event") == "progress":
            self.progress = said
        else:
            self._result = _result(said)
        return True

    def finish(self) -> None:
        """Wait for the end."""
        while self._next():
            pass
        self.process.wait(_PATIENCE)
        if self._result is None:
            said = self.process.stderr.read() if self.process.stderr else ""
            raise PoorContainerError(f"poor-mirror ended with {self.process.returncode} and no result: {said.strip()}")


def _result(said: dict[str, Any]) -> MirrorResult:
    return MirrorResult(**{key: said[key] for key in MirrorResult.__dataclass_fields__ if key in said})


class PoorMirror:
    """A mirror of a source, kept by ``poor-mirror`` in a host. ``dest`` is where its files are."""

    def __init__(self, host: Host, source: MirrorSource | PoorMirror | str, directory: Path, **options: Any) -> None:
        """Write the configuration; ``options`` are keys of ``[mirror.NAME]``, with short limits for the others."""
        self.host = host
        self.source = source
        self.dest = directory / "mirror"
        self.config = directory / "mirrors.toml"
        url = source if isinstance(source, str) else source.url
        keys = {**_QUICK, **options, "source": url, "dest": str(self.dest)}
        lines = "".join(f"{key} = {_toml(value)}\n" for key, value in keys.items())
        self.config.write_text(
            f"[defaults]\nroot = {_toml(str(directory))}\n[mirror.mirror]\n{lines}", encoding="utf-8"
        )

    @property
    def url(self) -> str:
        """The mirror as a source for another one on the same host's file system."""
        return f"file://{self.dest}"

    def _argv(self, *words: str) -> list[str]:
        return [*_PROGRAM, "--config", str(self.config), *words]

    def run(self, *words: str) -> str:
        """Run ``poor-mirror`` with these words in the host; return what it prints. Its status is not looked at."""
        return str(self.host.run(self._argv(*words), capture_output=True, text=True).stdout)

    def sync(self, *flags: str) -> MirrorResult:
        """Synchronise once and return how that ended; ``flags`` are the command's, as "--force-delete"."""
        with self.syncing(*flags, rate=0) as run:
            pass
        return run.result

    @contextmanager
    def syncing(self, *flags: str, rate: int = 2_000_000) -> Iterator[Syncing]:
        """Synchronise while the block runs, and wait for its end. ``rate`` (bytes/s, 0: none) makes time to act."""
        argv = self._argv("sync", "--json", *flags)
        process = self.host.popen(argv, stdout=-1, stderr=-1, text=True, env={"POOR_MIRROR_RATE": str(rate)})
        run = Syncing(process)
        try:
            yield run
            run.finish()
        finally:
            process.close()

    def tree(self) -> dict[str, str]:
        """Return what is published: size and checksum, or target, by path."""
        return contents(self.dest)

    @property
    def status(self) -> dict[str, Any]:
        """What the status page says of this mirror: "state", "age" (of the content, in seconds), "files", ..."""
        found: dict[str, Any] = json.loads(self.run("status", "--json"))["mirrors"][0]
        return found

    @property
    def plan(self) -> dict[str, Any]:
        """The plan that is held, or a new one."""
        found: dict[str, Any] = json.loads(self.run("plan", "mirror", "--json"))
        return found

    def release(self) -> None:
        """Let the plan that is held pass with the next run."""
        self.host.run(self._argv("release", "mirror"), check=True, capture_output=True)

    def log(self) -> str:
        """Return the log of the last run."""
        return self.run("log", "mirror")


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + " }"
    return json.dumps(value)
