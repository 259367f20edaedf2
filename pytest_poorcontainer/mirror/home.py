"""What is ours in a destination: ``.poor-mirror``, with marker, lock, temporary files, state, held plan and logs."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.mirror.errors import BadConfig, BadDestination, Locked, NoSpace
from pytest_poorcontainer.mirror.plan import Plan
from pytest_poorcontainer.mirror.rules import OURS
from pytest_poorcontainer.mirror.tree import Tree

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Home", "check_place", "read_json", "write_json"]

_MARKER, _LOCK, _STATE, _HELD, _RELEASED = "mirror.json", "lock", "state.json", "held.json", "released"
_LOGS = 10
_MOMENT = 0.2  # seconds; who asks whether a run is at work has the lock for less
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def check_place(path: Path) -> None:
    """Refuse a destination that cannot be meant. Raises :class:`BadDestination`."""
    real = Path(os.path.realpath(path))
    home = os.environ.get("HOME", "")
    if real == Path("/"):
        what = "the root of the machine"
    elif home and real == Path(os.path.realpath(home)):
        what = "a home directory"
    elif os.path.ismount(real):
        what = "the root of a mounted file system"
    else:
        return
    raise BadDestination(f"the destination {path} is {what}: name a directory below it")


def read_json(path: Path) -> dict[str, Any]:
    """Return what a file of ours says; nothing when it is not there, or was damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: Path, value: object) -> None:
    """Write a file so that readers see the old or the new one. Odd bytes of names are escaped by JSON."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    temporary.write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")), encoding="ascii")
    temporary.replace(path)


def _name_of_log() -> str:
    now = time.time_ns()
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now // 10**9))}-{now % 10**9:09d}.log"


def _by_age(logs: Path) -> list[Path]:
    """Return the logs, the oldest first; one from the future is of a clock that has been set back since."""
    now = _name_of_log()
    return sorted(logs.iterdir(), key=lambda one: (one.name <= now, one.name))


class Home:
    """The place of one mirror, locked while it is open."""

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        source: str,
        adopt: bool = False,
        had_files: bool = False,
        dry: bool = False,
    ) -> None:
        """Open or make the destination and lock it; ``dry`` is to look at it alone, and writes nothing.

        ``adopt`` accepts a directory that has files and is not marked as ours; ``had_files`` says that earlier runs
        have filled it, so that an empty one means that its storage is gone. Raises :class:`BadDestination`,
        :class:`Locked`.
        """
        check_place(path)
        above = next((one for one in path.absolute().parents if os.path.isfile(one / OURS / _MARKER)), None)  # noqa: PTH113 - no error for what we may not see
        if above is not None:
            raise BadDestination(
                f"{path} is in the mirror {above}, which would delete it: name a directory beside that"
            )
        self.path = path
        self.ours = path / OURS
        self._lock = -1
        self.tree = self._opened(path, dry=dry)
        try:
            marked = self._marked(adopt=adopt, had_files=had_files)
            if dry:
                self._idle()
                return
            if not marked:
                self._mark(name, source)
            self._lock = self._locked()
            self.temporary = self._directory("tmp")
        except OSError as error:
            self.close()
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise NoSpace(f"cannot begin in {path}: {error.strerror}; free some space") from error
            where = error.filename if isinstance(error.filename, str) else ""
            what = f"{path} ({where})" if where.startswith(f"{path}/") else str(path)
            raise BadDestination(
                f"cannot write to {what}: {error.strerror}; it has to be ours, and writable"
            ) from error
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _opened(path: Path, *, dry: bool) -> Tree:
        if dry and not path.exists():
            import tempfile  # noqa: PLC0415 - a plan for a new mirror

            with tempfile.TemporaryDirectory() as empty:
                tree = Tree(empty)
            tree.path = str(path)  # where it would be; what is open has nothing in it
            return tree
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o755)
            return Tree(str(path))
        except OSError as error:
            raise BadDestination(
                f"cannot open the destination {path}: {error.strerror}; it has to be a directory that we may write to"
            ) from error

    def _marked(self, *, adopt: bool, had_files: bool) -> bool:
        """Whether our marker is there to stay; it is to be set in an empty directory, or in one that is adopted."""
        marker = self.ours / _MARKER
        if marker.is_file() and not self.ours.is_symlink():
            device = read_json(marker).get("device")
            if device not in {None, os.fstat(self.tree.fd).st_dev} and not adopt:
                raise BadDestination(
                    f"{self.path} is on another device than it was: is the right disk mounted? If so: --adopt"
                )
            return not adopt
        if not adopt:
            there = [each for each in os.listdir(self.tree.fd) if each != OURS]  # noqa: PTH208 - a descriptor
            if there:
                raise BadDestination(
                    f"{self.path} has files and is not marked as a mirror of ours: empty it, or say --adopt to have it"
                )
            if had_files:
                raise BadDestination(
                    f"{self.path} is empty, but earlier runs have filled it: is its disk mounted? "
                    "To begin anew: --adopt"
                )
        return False

    def _mark(self, name: str, source: str) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(OURS, 0o700, dir_fd=self.tree.fd)
        os.close(os.open(OURS, _DIRECTORY, dir_fd=self.tree.fd))  # and no link
        device = os.fstat(self.tree.fd).st_dev
        write_json(self.ours / _MARKER, {"name": name, "source": source, "since": time.time(), "device": device})

    def _locked(self) -> int:
        fd = os.open(self.ours / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        end = time.monotonic() + _MOMENT
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > end:
                    reason = self._owner(fd)
                    os.close(fd)
                    raise Locked(reason) from None
                time.sleep(_MOMENT / 20)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()} {os.uname().nodename}\n".encode(), 0)
        return fd

    def _idle(self) -> None:
        """Raise :class:`Locked` when a run is at work, half of whose doings would be in a plan."""
        if self.locked_by(self.path):
            with open(self.ours / _LOCK, "rb") as file:  # noqa: PTH123 - its descriptor
                raise Locked(self._owner(file.fileno()))

    def _owner(self, fd: int) -> str:
        """Return who has the lock, in a sentence."""
        owner = os.pread(fd, 200, 0).decode("ascii", "replace").split()
        age = time.time() - os.fstat(fd).st_mtime
        who = f"process {owner[0]} on {owner[1]}" if len(owner) > 1 else "another process"
        return f"{self.path} is being synchronised by {who}, for {age:.0f} s; wait, or end that one"

    def _directory(self, name: str) -> int:
        ours = os.open(OURS, _DIRECTORY, dir_fd=self.tree.fd)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=ours)
            return os.open(name, _DIRECTORY, dir_fd=ours)
        finally:
            os.close(ours)

    @staticmethod
    def locked_by(path: Path) -> int:
        """Return the pid of the run that is at work on a destination; 0 when none is."""
        try:
            fd = os.open(path / OURS / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return 0
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(fd, 200, 0).split()
            return int(owner[0]) if owner and owner[0].isdigit() else 0
        finally:
            os.close(fd)
        return 0

    def close(self) -> None:
        """Unlock it, and close all descriptors. Idempotent."""
        for attribute in ("temporary", "_lock"):
            fd = getattr(self, attribute, -1)
            if fd >= 0:
                os.close(fd)
            setattr(self, attribute, -1)
        self.tree.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what is kept from run to run

    def state(self) -> dict[str, Any]:
        """Return what earlier runs have left for us: tables by name. What is none was damaged, and is left out."""
        return {name: table for name, table in read_json(self.ours / _STATE).items() if isinstance(table, dict)}

    def save(self, state: dict[str, Any]) -> None:
        """Keep it for the next run."""
        write_json(self.ours / _STATE, state)

    def hold(self, plan: Plan, reasons: list[str]) -> None:
        """Save a plan that must not be carried out yet."""
        write_json(self.ours / _HELD, {**plan.dump(), "reasons": reasons, "since": time.time()})

    def unhold(self) -> None:
        """Forget the plan that was held, and its release."""
        for name in (_HELD, _RELEASED):
            (self.ours / name).unlink(missing_ok=True)

    def released(self) -> str:
        """Return the digest of the plan that may pass; "" for none."""
        with contextlib.suppress(OSError):
            return (self.ours / _RELEASED).read_text(encoding="ascii").strip()
        return ""

    @staticmethod
    def held(path: Path) -> tuple[Plan, dict[str, Any]] | None:
        """Return the held plan of a destination, and all that was saved with it; None when there is none."""
        saved = read_json(path / OURS / _HELD)
        if not saved:
            return None
        plain = {key: value for key, value in saved.items() if key not in {"reasons", "since"}}
        return Plan.load(json.dumps(plain)), saved

    @staticmethod
    def held_since(path: Path) -> int:
        """Return when the held plan of a destination was written, in nanoseconds; 0 when there is none."""
        with contextlib.suppress(OSError):
            return (path / OURS / _HELD).stat().st_mtime_ns
        return 0

    @classmethod
    def release(cls, path: Path, digest: str = "") -> str:
        """Let exactly the plan that is held pass; return its summary.

        Raises :class:`BadConfig` when none is, or another one than that of the ``digest``.
        """
        found = cls.held(path)
        if found is None:
            raise BadConfig(f"no plan is held for {path}: there is nothing to release")
        if digest and digest != found[0].digest():
            raise BadConfig(f"the plan that is held now is {found[0].digest()}, and not {digest}: look at it once more")
        (path / OURS / _RELEASED).write_text(found[0].digest(), encoding="ascii")
        return found[0].summary()

    def log_file(self) -> Path:
        """Return the path of a new log, and remove the oldest of the others."""
        logs = self.ours / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        for old in _by_age(logs)[: -_LOGS + 1]:
            old.unlink(missing_ok=True)
        return logs / _name_of_log()

    @staticmethod
    def last_log(path: Path) -> Path | None:
        """Return the newest log of a destination."""
        try:
            found = [each for each in _by_age(path / OURS / "logs") if stat.S_ISREG(each.lstat().st_mode)]
        except OSError:
            return None
        return found[-1] if found else None
