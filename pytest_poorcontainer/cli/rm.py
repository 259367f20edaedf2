"""``poor-container rm``: ends containers that pytest keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["DESCRIPTION", "EPILOG", "FAILURE", "HELP", "NAME", "add_arguments", "execute"]

NAME = "rm"
HELP = "end containers that are kept"
DESCRIPTION = (
    "Ends containers that `poor-container ps` lists, with all that runs in them, and prints their names. A name may be "
    "shortened to the host's name, or to its first letters, when only one fits. The other host of a pair lives on."
)
EPILOG = (
    "Exit status: 0 when every process in them is dead, 2 when a name was wrong (then none is ended) or a lab silent."
)
FAILURE = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--all", action="store_true", help="end all of them")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a container")


def execute(options: argparse.Namespace) -> int:
    """End them; return the exit status."""
    import sys  # noqa: PLC0415 - a command loads what it needs, and no other does

    from pytest_poorcontainer.container.kept import choose, end, survey  # noqa: PLC0415
    from pytest_poorcontainer.errors import UsageError  # noqa: PLC0415

    if bool(options.names) == options.all:
        raise UsageError("rm: say which: poor-container rm NAME... | --all")
    containers, silent = survey()
    chosen = containers if options.all else [choose(name, containers) for name in options.names]
    chosen = list(dict.fromkeys(chosen))
    end(chosen)
    for one in chosen:
        print(one.name)
    if options.all:
        for lab in silent:
            print(f"poor-container: cannot ask the lab behind {lab.socket}: {lab.why}", file=sys.stderr)
        return FAILURE if silent else 0
    return 0
