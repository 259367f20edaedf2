"""``poor-container doctor``: what works on this machine, why not, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["DESCRIPTION", "EPILOG", "FAILURE", "HELP", "NAME", "add_arguments", "execute"]

NAME = "doctor"
HELP = "show what works on this machine, why not, and what to do about it"
DESCRIPTION = "Tries every feature that containers are made of, in child processes, and leaves nothing behind."
EPILOG = "Exit status: 0 when every fixture can work here, 1 when one cannot, 2 when it could not be found out."
FAILURE = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def execute(options: argparse.Namespace) -> int:
    """Print the diagnosis; return the exit status."""
    import json  # noqa: PLC0415 - a command loads what it needs, and no other does
    import os  # noqa: PLC0415
    import shutil  # noqa: PLC0415
    import sys  # noqa: PLC0415

    from pytest_poorcontainer.machine.diagnosis import diagnose  # noqa: PLC0415
    from pytest_poorcontainer.machine.table import render  # noqa: PLC0415

    diagnosis = diagnose()
    if options.json:
        print(json.dumps(diagnosis, indent=2))
    else:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        print(render(diagnosis, shutil.get_terminal_size((100, 24)).columns, colour), end="")
    return 0 if diagnosis["ready"] else 1
