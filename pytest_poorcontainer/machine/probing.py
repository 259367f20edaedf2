"""Runs ``pcprobe`` and turns its answers into features."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import threading
from dataclasses import dataclass
from typing import Any

from pytest_poorcontainer import native
from pytest_poorcontainer.errors import PoorContainerError
from pytest_poorcontainer.machine.facts import Facts, read_facts
from pytest_poorcontainer.machine.names import PURPOSES
from pytest_poorcontainer.machine.reasons import explain

__all__ = ["Feature", "features", "privilege"]

_TIMEOUT = 60.0  # seconds; each probe ends itself after two, and all of them take a tenth of a second


@dataclass(frozen=True)
class Feature:
    """Something this machine can or cannot do.

    ``reason`` says why not ("" when it works), ``remedy`` what to do about it ("" when nothing is known), ``detail`` a
    fact worth knowing in either case.
    """

    name: str
    works: bool
    reason: str
    remedy: str
    detail: str = ""


@dataclass(frozen=True)
class _Examined:
    features: dict[str, Feature]
    privilege: str


_lock = threading.Lock()
_examined: _Examined | None = None


def features(refresh: bool = False) -> dict[str, Feature]:
    """Return every feature by name, probed at the first call in this process, or again with ``refresh``.

    Raises :class:`PoorContainerError` when the probe program is missing or cannot be run.
    """
    return dict(_examine(refresh).features)


def privilege() -> str:
    """Return by what namespaces are made here: "root", "userns" (a user namespace), or "" (not at all)."""
    return _examine().privilege


def _examine(refresh: bool = False) -> _Examined:
    global _examined  # noqa: PLW0603 - the cache of the process; a machine does not change under a test run
    with _lock:
        if _examined is None or refresh:
            _examined = _interpret(_ask_program(), read_facts())
        return _examined


def _ask_program() -> list[dict[str, Any]]:
    program = native.program("pcprobe")
    environment = {"PATH": os.defpath, "TMPDIR": os.environ.get("TMPDIR", "/tmp")}  # noqa: S108 - libc's own default
    try:
        done = subprocess.run(
            [program],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            env=environment,
            check=False,
        )
    except OSError as error:
        raise PoorContainerError(
            f"cannot run {program} to find out what this machine can do: {error.strerror}; is it built for this "
            "architecture, and its file system mounted without noexec?"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise PoorContainerError(
            f"cannot find out what this machine can do: {program} took over {_TIMEOUT:g} s"
        ) from error
    if done.returncode != 0:
        raise PoorContainerError(
            f"cannot find out what this machine can do: {program} ended with status {done.returncode} and said "
            f"{done.stderr.strip() or 'nothing'}"
        )
    return [json.loads(line) for line in done.stdout.splitlines()]


def _interpret(answers: list[dict[str, Any]], facts: Facts) -> _Examined:
    """Give each answer its reason and remedy; a name without an answer gets that as its reason."""
    by_name = {answer["feature"]: answer for answer in [*answers, _proot()]}
    first = by_name.get("mountns", {"via": "", "works": False})
    found: dict[str, Feature] = {}
    for name in PURPOSES:
        answer = by_name.get(name)
        if answer is None:
            found[name] = Feature(name, False, "the probe program ended before it came to this", "")
        elif answer["works"]:
            found[name] = Feature(name, True, "", "", answer["detail"])
        else:
            reason, remedy = explain(name, answer["step"], answer["errno"], facts)
            found[name] = Feature(name, False, reason, remedy, answer["detail"])
    if not first["via"]:
        _blame_userns(found, facts)
    return _Examined(found, first["via"] if first["works"] else "")


def _proot() -> dict[str, Any]:
    """Answer for what needs no child: whether a program is there."""
    path = shutil.which("proot")
    return {
        "feature": "proot",
        "works": path is not None,
        "errno": 0 if path else errno.ENOENT,
        "step": "" if path else "find proot on PATH",
        "detail": path or "",
        "via": "",
    }


def _blame_userns(found: dict[str, Feature], facts: Facts) -> None:
    """Name the true cause where no namespace can be made: there is no root, and no user namespace in its place."""
    userns = found["userns"]
    if userns.works:
        return
    who = "root without CAP_SYS_ADMIN" if facts.uid == 0 and not facts.capable else facts.user
    for name, feature in found.items():
        if not feature.works and name != "userns" and "namespace" in feature.reason.partition(":")[0]:
            reason = f"{who} needs a user namespace for it: {userns.reason}"
            found[name] = Feature(name, False, reason, userns.remedy, feature.detail)
