"""``poor-container``: finds the command and runs it."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from pytest_poorcontainer.cli import cow, doctor, enter, ps, rm, run, up
from pytest_poorcontainer.errors import PoorContainerError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_COMMANDS = (doctor, run, up, cow, ps, enter, rm)
_LAST_STREAM = 2  # stderr


class _Parser(argparse.ArgumentParser):
    """A parser whose usage errors end with the status that its command documents."""

    failure = 2

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(self.failure, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``poor-container`` with these arguments (default: the process's) and return its exit status."""
    _fill_standard_streams()
    parser = _Parser(prog="poor-container", description="Containers without a container engine, for tests.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in _COMMANDS:
        added = commands.add_parser(
            command.NAME,
            help=command.HELP,
            description=command.DESCRIPTION,
            epilog=command.EPILOG,
            allow_abbrev=False,  # an option of the command to run must not be taken for ours
        )
        added.failure = command.FAILURE
        added.set_defaults(parser=added, execute=command.execute)
        command.add_arguments(added)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        # argparse would blame it on the outer parser, whose status and usage are others.
        options.parser.error(f"there is no option {unknown[0]}")
    try:
        status: int = options.execute(options)
        sys.stdout.flush()
    except PoorContainerError as error:
        print(f"poor-container: {error}", file=sys.stderr)
        return int(options.parser.failure)
    except BrokenPipeError:
        # Who read our output has gone. Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(options.parser.failure)
    return status


def _fill_standard_streams() -> None:
    """Open /dev/null where the caller closed a standard stream: else the next socket of ours would take its place."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= _LAST_STREAM:
        os.set_inheritable(fd, True)
    os.close(fd)
    for number, name in enumerate(("stdout", "stderr"), start=1):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115 - for good


if __name__ == "__main__":
    sys.exit(main())
