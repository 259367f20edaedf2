"""A network that stands until a signal comes."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

from pytest_poorcontainer.container.keep import publish
from pytest_poorcontainer.errors import PoorContainerError
from pytest_poorcontainer.machine import FIXTURE_NEEDS, require
from pytest_poorcontainer.network import Network
from pytest_poorcontainer.network.loading import build, start
from pytest_poorcontainer.network.topology_file import read

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType
    from typing import Literal, NoReturn

    from pytest_poorcontainer.network.topology_file import Description

__all__ = ["stand"]

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def stand(path: Path, form: Literal["ascii", "svg"], *, detach: bool) -> int:
    """Build the network of a file, show it, and end it when a signal comes; or leave it to itself."""
    require(*FIXTURE_NEEDS["network"])
    try:
        found = read(path)
    except OSError as error:
        raise PoorContainerError(f"cannot read {path}: {error.strerror}") from None
    # Taken only where we wait for them: a half-built network is undone first.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    network = Network()
    try:
        build(network, found)
        if not _start(network, found):
            return 0
        names = publish(network.hosts, describe=lambda _: {"test": str(path), "peer": ""}, detach=detach)
        print(network.draw(form), end="")
        for name in names.values():
            print(f"poor-container enter {name}")
        sys.stdout.flush()
        if detach:
            return 0
        print("Ctrl-C ends it.", flush=True)
        signal.sigwait(_ENDING)
    finally:
        if not detach:
            network.close()
    return 0


class _EndedError(BaseException):
    """A signal came; like KeyboardInterrupt nothing that handles ordinary errors may take it."""


def _start(network: Network, found: Description) -> bool:
    """Start the services, for which somebody may not want to wait; return False when a signal came meanwhile."""
    heeded = {number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN}

    def ended(_number: int, _frame: FrameType | None) -> NoReturn:
        for number in heeded:
            signal.signal(number, signal.SIG_IGN)  # the first one is enough
        raise _EndedError

    before = {number: signal.signal(number, ended) for number in heeded}
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, heeded)
        start(network, found)
        signal.pthread_sigmask(signal.SIG_BLOCK, heeded)
    except _EndedError:
        return False
    for number, handler in before.items():
        signal.signal(number, handler)
    return True
