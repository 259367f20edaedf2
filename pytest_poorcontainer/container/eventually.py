"""Conditions of a test's own, which become true in a while."""

from __future__ import annotations

import inspect
import time
from typing import TYPE_CHECKING, TypeVar

from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.lab.clock import now

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["eventually"]

Result = TypeVar("Result")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.005  # seconds


def eventually(check: Callable[[], Result], timeout: float = 5.0) -> Result:
    """Call ``check()`` until it returns without an AssertionError; return what it returns.

    ``False`` counts as a failed assertion, so that ``eventually(lambda: "done" in service.log)`` means what it says.
    Other exceptions pass through at once. After ``timeout`` seconds the last AssertionError is raised, as it is, with a
    note of how long and how often was tried; the last try begins when the time is over.
    """
    __tracebackhide__ = True
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise UsageError(f"timeout={timeout!r}: expected seconds, a number from 0 up")
    began = now()
    tries, pause = 0, _FIRST_PAUSE
    while True:
        over = now() - began >= timeout
        tries += 1
        called = now()
        try:
            value = check()
        except AssertionError as error:
            failure = error
        else:
            _refuse_awaitable(value)
            if value is not False:
                return value
            failure = AssertionError("the check returned False")
        if over:
            _note(failure, f"still so after {now() - began:.3g} s and {tries} tries (eventually, timeout={timeout:g})")
            raise failure
        # A check that takes long is not made without a rest: what it waits for needs the processor too.
        rest = max(pause, min(now() - called, 0.1))
        time.sleep(max(0.0, min(rest, began + timeout - now())))
        pause = min(2 * pause, _LONGEST_PAUSE)


def _refuse_awaitable(value: object) -> None:
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()
        remedy = "expected an ordinary one; await in the test itself"
        raise UsageError(f"eventually() was given a coroutine function: {remedy}")


def _note(error: AssertionError, text: str) -> None:
    if hasattr(error, "add_note"):
        error.add_note(text)
    else:  # Python 3.10
        error.args = (f"{error.args[0] if error.args else ''}\n{text}", *error.args[1:])
