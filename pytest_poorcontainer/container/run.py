"""``run``: start a command, wait for it, return what it printed; in the manner of subprocess.run."""

from __future__ import annotations

import errno
import os
import subprocess
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.container.process import Process
from pytest_poorcontainer.container.request import arguments, search_path

if TYPE_CHECKING:
    from pytest_poorcontainer.container.request import Argv, Environment
    from pytest_poorcontainer.lab.handle import Handle

__all__ = ["run"]

_NOT_FOUND = 127  # what ld.so(8) ends with when a library is missing, and a shell when a command is


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
    if code == _NOT_FOUND and handle.rootfs != "host":
        _explain(handle, argv, rest.get("env"))
    if check and code:
        raise subprocess.CalledProcessError(code, argv, out, err)
    return subprocess.CompletedProcess(argv, code or 0, out, err)


def _explain(handle: Handle, argv: Argv, env: Environment | None) -> None:
    """Raise FileNotFoundError when the program could not begin, for want of a library."""
    from pytest_poorcontainer.container.not_found import lacking  # noqa: PLC0415 - few tests need it

    program = os.fsdecode(arguments(argv)[0])
    why = lacking(handle, program, search_path(env))
    if why:
        raise FileNotFoundError(errno.ENOENT, f"{os.strerror(errno.ENOENT)}: {why}", program)
