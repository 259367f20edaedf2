"""``poor-container enter``: a shell, or a command, in a container that pytest keeps."""

from __future__ import annotations

import argparse

__all__ = ["DESCRIPTION", "EPILOG", "FAILURE", "HELP", "NAME", "add_arguments", "execute"]

NAME = "enter"
HELP = "run a shell or a command in a container that is kept"
DESCRIPTION = (
    "Runs CMD, or a shell, in a container that `poor-container ps` lists. NAME may be shortened to the host's name, or "
    "to its first letters, when only one fits. Where both standard input and output are a terminal, the command has "
    "one of its own, with job control; else the streams are the caller's."
)
EPILOG = (
    "It starts in the user's home, with PATH, LANG, HOME, TMPDIR and TERM. The container lives on when it ends. Exit "
    "status: the command's; 128+N when signal N ended it; 127 when there is no such command, 126 when it cannot be "
    "executed, 125 when the container could not be entered. SIGINT, SIGTERM and SIGHUP are passed on to the command, "
    "which is killed with all that it started when it has not ended after two seconds."
)
FAILURE = 125


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--user", metavar="U", help="a name or a number of the container's users (default: root)")
    parser.add_argument("name", metavar="NAME", help="of the container")
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="CMD", help="the command and its arguments (default: U's shell)"
    )


def execute(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    from pytest_poorcontainer.cli import _foreground  # noqa: PLC0415 - a command loads what it needs, and no other does
    from pytest_poorcontainer.cli._shell import prompt, shells  # noqa: PLC0415
    from pytest_poorcontainer.container.kept import choose, kept  # noqa: PLC0415

    place = choose(options.name, kept())
    # argparse keeps the "--" that ends our own options, in some versions of Python.
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if command:
        return _foreground.enter(place, [command], options.user, {})
    return _foreground.enter(place, shells(options.user), options.user, prompt(place, options.user))
