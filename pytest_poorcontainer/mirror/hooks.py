"""The admin's programs around a run, and the notifiers that plugins register."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import PoorContainerError
from pytest_poorcontainer.mirror.errors import MirrorError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_poorcontainer.mirror.config import Mirror
    from pytest_poorcontainer.mirror.sync import Result

__all__ = ["run_hook", "tell_notifiers"]

_PATIENCE = 600.0
_SHOWN = 2000


def run_hook(name: str, argv: list[str], mirror: Mirror, url: str, result: Result, log: Callable[[str], None]) -> None:
    """Run a hook in the destination (in / if that is none), with the result in its environment; it speaks to the log.

    Raises :class:`MirrorError` if the hook "pre" fails: then there is no run. Of the others a failure is logged.
    """
    import signal  # noqa: PLC0415 - most mirrors have no hooks
    import subprocess  # noqa: PLC0415 - as above

    environment = {
        **os.environ,
        "MIRROR_NAME": mirror.name,
        "MIRROR_SOURCE": url,
        "MIRROR_DEST": str(mirror.dest),
        "MIRROR_STATE": result.state,
        "MIRROR_STATUS": str(result.status),
        "MIRROR_REASON": result.reason,
        "MIRROR_ADDED": str(result.added),
        "MIRROR_CHANGED": str(result.changed),
        "MIRROR_DELETED": str(result.deleted),
        "MIRROR_FILES": str(result.files),
        "MIRROR_BYTES": str(result.bytes),
    }
    try:
        process = subprocess.Popen(
            argv,
            cwd=mirror.dest if mirror.dest.is_dir() else "/",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        _failed(name, f"cannot start {argv[0]}: {error.strerror}", log)
        return
    try:
        said = process.communicate(timeout=_PATIENCE)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said = process.communicate()[0]
    if said:
        log(f"hook {name}: {said[-_SHOWN:].decode('utf-8', 'backslashreplace').rstrip()}")
    if process.returncode:
        _failed(name, f"it ended with {process.returncode}", log)


def _failed(name: str, why: str, log: Callable[[str], None]) -> None:
    if name == "pre":
        raise MirrorError(f"the hook pre has failed: {why}; no run without it")
    log(f"the hook {name} has failed: {why}")


def tell_notifiers(result: Result, previous: str, log: Callable[[str], None]) -> None:
    """Tell all notifiers that the state is another than before, also those that only an entry point names."""
    from pytest_poorcontainer import plugins  # noqa: PLC0415 - the state is another rarely
    from pytest_poorcontainer.mirror.sources.finding import manager  # noqa: PLC0415 - as above

    found = manager()
    try:
        plugins.load()
    except PoorContainerError as error:
        log(f"some notifiers may be missing: {error}")
    for implementation in found.hook.poor_container_mirror_notify.get_hookimpls():
        try:
            implementation.function(result.name, result.state, previous, result.reason)
        except Exception as error:  # noqa: BLE001, PERF203 - a notifier's fault is not the mirror's
            log(f"the notifier {implementation.plugin_name} has failed: {error!r}")
