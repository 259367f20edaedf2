"""``poor-container ps``: which containers can be entered."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["DESCRIPTION", "EPILOG", "FAILURE", "HELP", "NAME", "add_arguments", "execute"]

NAME = "ps"
HELP = "list the containers that can be entered"
DESCRIPTION = (
    "Lists this user's containers that pytest keeps (--poor-container-keep), or holds while a person looks at them "
    "(--poor-container-pause, --pdb): name, test, age, addresses, services with their states, and the pid of the lab."
)
EPILOG = "Exit status: 0; 1 when a lab does not answer, which is named on standard error; 2 when it could not be done."
FAILURE = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def execute(options: argparse.Namespace) -> int:
    """Print the list; return the exit status."""
    import json  # noqa: PLC0415 - a command loads what it needs, and no other does
    import shutil  # noqa: PLC0415
    import sys  # noqa: PLC0415
    import time  # noqa: PLC0415

    from pytest_poorcontainer.cli._kept_table import render  # noqa: PLC0415
    from pytest_poorcontainer.container.kept import survey  # noqa: PLC0415

    containers, silent = survey()
    if options.json:
        labs = [{"socket": str(one.socket), "reason": one.why} for one in silent]
        print(json.dumps({"containers": [one.as_json() for one in containers], "silent": labs}, indent=2))
    elif containers:
        width = shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else None
        print(render(containers, time.time(), width), end="")
    else:
        print("No containers are kept.")
    for one in silent:
        print(f"poor-container: cannot ask the lab behind {one.socket}: {one.why}", file=sys.stderr)
    return 1 if silent else 0
