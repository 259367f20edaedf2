"""A network that stands until a signal comes."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

from pytest_poorcontainer.container.keep import publish
from pytest_poorcontainer.errors import PoorContainerError
from pytest_poorcontainer.machine import FIXTURE_NEEDS, require
from pytest_poorcontainer.network import Network
from pytest_poorcontainer.network.loading import load
from pytest_poorcontainer.network.topology_file import read

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

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
        load(network, found)
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
