"""The errors of this package: each says operation, object, cause and remedy."""

from __future__ import annotations

import errno as _errno
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "LabDied",
    "LabError",
    "NotReady",
    "PoorContainerError",
    "ServiceDied",
    "ServiceError",
    "Unavailable",
    "UsageError",
    "did_you_mean",
    "do_all",
]


class PoorContainerError(Exception):
    """Base of every error that this package raises on its own account."""

    where = ""
    """What asked for it, like "two-sites.toml:6: hosts.db.start[0]"; "" for what a program has asked for."""

    def _beginning(self) -> str:
        return f"{self.where}: " if self.where else ""


class UsageError(PoorContainerError, ValueError):
    """An argument, a marker or an option is not of the form that was expected."""


class Unavailable(PoorContainerError):
    """This machine cannot do what was asked for.

    ``feature`` is the name in ``poor-container doctor``, ``reason`` why it does not
    work here, ``remedy`` what a person can do about it ("" when nothing is known).
    """

    def __init__(self, feature: str, reason: str, remedy: str = "") -> None:
        """Keep the three parts apart, so that a skip can show them in its own words."""
        self.feature = feature
        self.reason = reason
        self.remedy = remedy
        super().__init__(feature, reason, remedy)

    def __str__(self) -> str:
        """Return one sentence with all three parts."""
        text = f"{self.feature} does not work here: {self.reason}"
        return f"{text}; {self.remedy}" if self.remedy else text


class LabError(PoorContainerError):
    """The lab (our helper process) could not do a step of what it was asked for.

    ``operation`` names the step ("mount overlay"), ``object`` what it was done to
    ("/etc"), ``errno`` is the kernel's answer (0 when none), ``remedy`` what to do.
    """

    def __init__(self, operation: str, object: str = "", errno: int = 0, remedy: str = "") -> None:  # noqa: A002
        """Keep the parts apart; the text is made on demand."""
        self.operation = operation
        self.object = object
        self.errno = errno
        self.remedy = remedy
        super().__init__(operation, object, errno, remedy)

    def __str__(self) -> str:
        """Return "cannot OPERATION OBJECT: cause; remedy"."""
        text = f"{self._beginning()}cannot {self.operation}"
        if self.object:
            text += f" {self.object}"
        if self.errno:
            name = _errno.errorcode.get(self.errno, str(self.errno))
            text += f": {name} ({os.strerror(self.errno)})"
        return f"{text}; {self.remedy}" if self.remedy else text


class LabDied(LabError):
    """The lab, or the init of a container, has ended although nobody asked it to."""


class ServiceError(PoorContainerError):
    """Something is wrong with a service, or was asked of it in vain.

    ``service`` is its name, ``reason`` what happened, ``log`` the last lines of its log, safe to print.
    """

    _ran = False

    def __init__(self, service: str, reason: str, log: str = "") -> None:
        """Keep the parts apart, for reports; the text is made on demand."""
        self.service = service
        self.reason = reason
        self.log = log
        super().__init__(service, reason, log)

    def __str__(self) -> str:
        """Return what happened, and below it the last lines of the log."""
        lines = "".join(f"\n  | {line}" for line in self.log.splitlines())
        shown = f"\nlast lines of its log:{lines}" if lines else "\nits log is empty" * self._ran
        return f"{self._beginning()}service {self.service} {self.reason}{shown}"


class NotReady(ServiceError):
    """What was waited for did not come in time. The service lives, unless this came out of ``start``."""

    _ran = True


class ServiceDied(ServiceError):
    """The service ended while something was expected of it."""

    _ran = True


def did_you_mean(word: object, words: Iterable[str]) -> str:
    """Return ", did you mean ...?" for a word that is nearly one of ``words``, else nothing."""
    import difflib  # noqa: PLC0415 - only after a mistake; not at the start of every pytest

    near = difflib.get_close_matches(str(word), words, n=1)
    return f", did you mean {near[0]!r}?" if near else ""


def do_all(steps: Iterable[Callable[[], object]]) -> None:
    """Take each of some steps, whatever another raises. Raises the last error, those before it as its contexts.

    (``contextlib.ExitStack`` keeps them only as far as errors have no cause and no context of their own.)
    """
    handled = sys.exc_info()[1]
    failed: BaseException | None = None
    for step in steps:
        try:
            step()
        except BaseException as error:  # noqa: BLE001, PERF203 - raised below; few steps
            if failed is not None:
                _precede(error, failed, handled)
            failed = error
    if failed is None:
        return
    context = failed.__context__
    try:
        raise failed
    finally:
        failed.__context__ = context  # while another is handled, raising sets that


def _precede(error: BaseException, before: BaseException, handled: BaseException | None) -> None:
    """Let an error be shown before another, and before what that one says of its own origin."""
    known = set()
    one: BaseException | None = before
    while one is not None and id(one) not in known:
        known.add(id(one))
        one = one.__cause__ or one.__context__
    last = error
    while id(last) not in known:
        known.add(id(last))
        shown = last.__cause__ or (None if last.__suppress_context__ else last.__context__)
        if shown is None or shown is handled:
            last.__context__ = before
            last.__suppress_context__ = False
            return
        last = shown
