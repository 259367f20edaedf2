"""Lines that run in a call are counted by the coverage.py that measures the caller.

Nothing here loads coverage: where it is not loaded, nobody measures.
"""

from __future__ import annotations

import marshal
import os
import sys
from typing import Any

__all__ = ["merge", "options"]

_OPTIONS = ("run:branch", "run:cover_pylib", "run:relative_files", "run:core", "run:omit", "run:include")
_THREADS = frozenset({"thread", "greenlet", "eventlet", "gevent"})


def options() -> dict[str, Any] | None:
    """Return what the container's coverage is to be told, None when nothing is measured here."""
    coverage = sys.modules.get("coverage")
    current = getattr(getattr(coverage, "Coverage", None), "current", None)
    measuring = None if current is None else current()
    if measuring is None:
        return None
    files = sys.modules.get("coverage.files")
    # Where it was started, to which all relative paths of its options belong; the test may have gone elsewhere.
    directory = getattr(files, "relative_directory", os.getcwd)()
    given: dict[str, Any] = {}
    for name in _OPTIONS:
        value = _option(measuring, name)
        if isinstance(value, (list, tuple)):
            value = [_absolute(str(pattern), directory) for pattern in value]
        if value is not None:
            given[name] = value
    sources = [*(_option(measuring, "run:source") or ()), *(_option(measuring, "run:source_pkgs") or ())]
    sources += _option(measuring, "run:source_dirs") or ()
    if sources:
        # As patterns: for a source, coverage looks through the whole directory each time that data is taken.
        given["run:include"] = [pattern for source in sources for pattern in _patterns(source, directory)]
    concurrency = _THREADS.intersection(_option(measuring, "run:concurrency") or ())
    if concurrency:
        given["run:concurrency"] = sorted(concurrency)
    return {"directory": directory, "options": given}


def _option(measuring: Any, name: str) -> Any:
    try:
        return measuring.get_option(name)
    except Exception:  # noqa: BLE001 - this version does not know it (coverage's own ConfigError)
        return None


def _absolute(pattern: str, directory: str) -> str:
    return pattern if pattern.startswith(("*", "?", "/")) else os.path.join(directory, pattern)  # noqa: PTH118 - a pattern


def _patterns(source: str, directory: str) -> list[str]:
    """Return file patterns of a source, which is a directory or a package."""
    place = os.path.realpath(os.path.join(directory, source))  # noqa: PTH118 - not to be normalised by pathlib
    if os.path.isdir(place):  # noqa: PTH112
        return [f"{place}/*"]
    module = sys.modules.get(source)
    if module is None:
        return [f"*/{source.replace('.', '/')}/*", f"*/{source.replace('.', '/')}.py"]
    paths = list(getattr(module, "__path__", ()))
    return [f"{path}/*" for path in paths] or [str(getattr(module, "__file__", source))]


def merge(data: bytes | bytearray) -> None:
    """Add what a call has measured to the data of the coverage that runs here, under its current context."""
    coverage = sys.modules.get("coverage")
    measuring = coverage.Coverage.current() if coverage is not None else None
    arcs, found = marshal.loads(data)  # noqa: S302 - of our own process in the container
    if measuring is None or not found:
        return
    # get_data() is the public way, but with each call it looks through all sources for files that nothing has run.
    into = getattr(measuring, "_data", None) or measuring.get_data()
    if arcs:
        into.add_arcs({file: [tuple(arc) for arc in some] for file, some in found.items()})
    else:
        into.add_lines(found)
