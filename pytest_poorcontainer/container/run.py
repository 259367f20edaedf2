"""``run``: start a command, wait for it, return what it printed; in the manner of subprocess.run."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.container.process import Process

if TYPE_CHECKING:
    from pytest_poorcontainer.container.handle import Handle
    from pytest_poorcontainer.container.request import Argv

__all__ = ["run"]


def run(
    handle: Handle,
    argv: Argv,
    *,
    check: bool,
    capture_output: bool,
    input: Any,  # noqa: A002 - subprocess' name
    timeout: float | None,
    **rest: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run a command to its end; ``rest`` is as for :class:`Process`. Whatever interrupts it ends the whole tree."""
    if input is not None:
        if rest.get("stdin") is not None:
            raise ValueError("stdin and input arguments may not both be used.")
        rest["stdin"] = subprocess.PIPE
    if capture_output:
        if rest.get("stdout") is not None or rest.get("stderr") is not None:
            raise ValueError("stdout and stderr arguments may not be used with capture_output.")
        rest["stdout"] = rest["stderr"] = subprocess.PIPE
    process = Process(handle, argv, **rest)
    try:
        out, err = process.communicate(input, timeout)
    except BaseException:
        # The time is up, or Ctrl-C: as subprocess does, but with all that the command started.
        process.end()
        raise
    finally:
        process.close()
    code = process.returncode
    if check and code:
        raise subprocess.CalledProcessError(code, argv, out, err)
    return subprocess.CompletedProcess(argv, code or 0, out, err)
