"""``poor-container run``: one command in a fresh container."""

from __future__ import annotations

import argparse

__all__ = ["DESCRIPTION", "EPILOG", "FAILURE", "HELP", "NAME", "add_arguments", "execute"]

NAME = "run"
HELP = "run a command in a fresh container"
DESCRIPTION = (
    "Runs CMD in a fresh container: its own processes, mounts, host name, /dev, /proc, /tmp and /run; the machine's "
    "files read-only, with private writable layers over /etc, /var, /srv, /opt and the homes. Standard input, output "
    "and error are the caller's; where the first two are a terminal, CMD has one of its own, with job control. Nothing "
    "is left when it ends, however it ends."
)
EPILOG = (
    "Without --net the container has a network of its own in which only the loopback interface is up. "
    "Exit status: the command's; 128+N when signal N ended it; 127 when there is no such command, 126 when it cannot "
    "be executed, 125 when the container could not be made. SIGINT, SIGTERM and SIGHUP are passed on to the command, "
    "which is killed when it has not ended after two seconds."
)
FAILURE = 125


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--net", action="store_true", help="share the machine's network instead of having one's own")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD", help="the command and its arguments")


def execute(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    from pytest_poorcontainer.cli import _foreground  # noqa: PLC0415 - a command loads what it needs, and no other does
    from pytest_poorcontainer.errors import UsageError  # noqa: PLC0415

    # argparse keeps the "--" that ends our own options, in some versions of Python.
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise UsageError("run: a command is needed: poor-container run [--net] [--] CMD...")
    return _foreground.run(command, network="host" if options.net else "none")
