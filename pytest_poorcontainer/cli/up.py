"""``poor-container up``: a network without tests, for as long as somebody wants it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["DESCRIPTION", "EPILOG", "FAILURE", "HELP", "NAME", "add_arguments", "execute"]

NAME = "up"
HELP = "build the network that a TOML file says, and let people enter it"
DESCRIPTION = (
    "Builds the hosts, routers, switches and links that FILE says (docs/networks.md), shows them, and waits. "
    "Meanwhile `poor-container enter NAME` opens a shell in a host, as `ps` lists them. SIGINT (Ctrl-C), SIGTERM or "
    "SIGHUP ends it with all that runs in it."
)
EPILOG = (
    "Exit status: 0 when it was ended, 2 when FILE is no topology or the network could not be built; then nothing is "
    "left."
)
FAILURE = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--draw", choices=("ascii", "svg"), default="ascii", help="how it is shown (default: ascii)")
    parser.add_argument(
        "--detach", action="store_true", help="leave it alone and end; `poor-container rm` ends the hosts later"
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the topology")


def execute(options: argparse.Namespace) -> int:
    """Build, show and wait; return the exit status."""
    from pytest_poorcontainer.cli._standing import stand  # noqa: PLC0415 - a command loads what it needs

    return stand(options.file, options.draw, detach=options.detach)
