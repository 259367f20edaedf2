"""A root file system of some programs of the machine and what they need, and nothing else."""

# Paths are text in here: objects for thousands of them cost more than what is done with them.
# ruff: noqa: PTH109

from __future__ import annotations

import os
import posixpath
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import LabError, UsageError
from pytest_poorcontainer.plugins import hookimpl
from pytest_poorcontainer.rootfs.source import Rootfs

if TYPE_CHECKING:
    from collections.abc import Hashable

    from pytest_poorcontainer.rootfs.plan import Plan

__all__ = ["Programs", "poor_container_rootfs"]

_WORDS = ("nss", "certificates", "timezones")
_PLANS_MAX = 32
_SHOWN = 4  # programs in a description


class Programs(Rootfs):
    """Some programs, with their interpreters, libraries, and for a Python its standard library.

    ``programs`` are paths, or names that are looked for in the PATH that commands in containers have, then beside
    pytest's Python and in pytest's own PATH. A Python may be followed by packages: ``"python3:requests,yaml"``,
    ``"python3:*"``. With ``nss`` come the machine's users and name services, with ``certificates`` the authorities it
    trusts, with ``timezones`` the time zones; the words ``"+nss"``, ``"+certificates"``, ``"+timezones"`` among the
    programs mean the same. ``files`` are absolute paths of files and directories that come along.

    Everything is at the path it has on the machine. Programs need not exist before a container is made of them, so a
    fixture may build them; then :class:`UsageError` says which is not there, or which library is not.
    """

    def __init__(
        self,
        programs: Sequence[str | os.PathLike[str]],
        *,
        nss: bool = False,
        certificates: bool = False,
        timezones: bool = False,
        files: Sequence[str | os.PathLike[str]] = (),
        readonly: bool = False,
    ) -> None:
        """Check the form of what is asked for. Raises :class:`UsageError`."""
        words = _texts("programs", programs)
        wrong = [word for word in words if word.startswith("+") and word[1:] not in _WORDS]
        if wrong:
            raise UsageError(f"rootfs: {wrong[0]!r} is none of {', '.join('+' + word for word in _WORDS)}")
        asked = {"nss": nss, "certificates": certificates, "timezones": timezones}
        self.extras = tuple(word for word in _WORDS if asked[word] or "+" + word in words)
        self.programs = tuple(dict.fromkeys(word for word in words if not word.startswith("+")))
        self.files = tuple(dict.fromkeys(_texts("files", files)))
        if not self.programs:
            raise UsageError("rootfs: a list of programs has at least one, such as ['/bin/sh']")
        for path in self.files:
            if not path.startswith("/"):
                raise UsageError(f"rootfs: files are absolute paths, not {path!r}")
        directory = os.getcwd() if any("/" in word and not word.startswith("/") for word in self.programs) else ""
        super().__init__((self.programs, self.extras, self.files, directory), readonly=readonly)

    @property
    def description(self) -> str:
        """What it is, for people: "programs /bin/sh, python3"."""
        shown = [*self.programs, *(f"+{word}" for word in self.extras)]
        more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
        return f"programs {', '.join(shown[:_SHOWN])}{more}"

    def key(self) -> Hashable:
        """Return what the programs and their files are now: when one is compiled anew, so is this."""
        return self.identity, self._plan().signature()

    def binds(self) -> Sequence[tuple[str, str]]:
        """Return the directories that are too large to copy, the outer ones first."""
        return [(source, place) for place, source in sorted(self._plan().binds.items())]

    def fill(self, dir_fd: int) -> None:
        """Copy the rest. Raises :class:`LabError` for a file that cannot be read."""
        self._plan().fill(dir_fd)

    def _plan(self) -> Plan:
        with _guard:
            plan = _plans.pop(self.identity, None)
            if plan is None or not plan.is_current():
                plan = self._make_plan()
            _plans[self.identity] = plan
            while len(_plans) > _PLANS_MAX:
                del _plans[next(iter(_plans))]
            return plan

    def _make_plan(self) -> Plan:
        from pytest_poorcontainer.rootfs import extras  # noqa: PLC0415 - this module is imported with any rootfs=
        from pytest_poorcontainer.rootfs.closure import Closure  # noqa: PLC0415

        closure = Closure()
        directory = self.identity[3] if isinstance(self.identity, tuple) else ""
        try:
            extras.add_basics(closure.plan)
            for word in self.programs:
                relative = "/" in word and not word.startswith("/")
                closure.add(posixpath.join(directory, word) if relative else word)
            for path in self.files:
                closure.add_file(path)
            if "nss" in self.extras:
                extras.add_nss(closure)
            if "certificates" in self.extras:
                extras.add_certificates(closure.plan)
            if "timezones" in self.extras:
                extras.add_timezones(closure.plan)
        except OSError as error:
            raise LabError("read", str(error.filename or self.description), error.errno or 0) from error
        return closure.plan


def _texts(what: str, values: object) -> list[str]:
    if isinstance(values, (str, bytes, os.PathLike)) or not isinstance(values, Sequence):
        raise UsageError(f"rootfs: {what} is a list such as ['/bin/sh', 'python3'], not {values!r}")
    found = []
    for value in values:
        text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else value
        if not isinstance(text, str) or not text or "\0" in text:
            raise UsageError(f"rootfs: {value!r} in {what} is no path, and no name of a program")
        found.append(text)
    return found


_guard = threading.Lock()
_plans: dict[object, Plan] = {}  # of what was asked for last, the latest at the end


def _forget_in_child() -> None:
    global _guard  # noqa: PLW0603 - another thread of the parent's may have held it
    _guard = threading.Lock()


os.register_at_fork(after_in_child=_forget_in_child)


@hookimpl(tryfirst=True)
def poor_container_rootfs(source: object, readonly: bool) -> Rootfs | None:
    """Know lists of programs."""
    if isinstance(source, (str, bytes, bytearray)) or not isinstance(source, Sequence):
        return None
    return Programs(source, readonly=readonly)
