"""``poor-container cow``: commands in a copy-on-write tree, and what becomes of their changes."""

from __future__ import annotations

import argparse

__all__ = ["DESCRIPTION", "EPILOG", "FAILURE", "HELP", "NAME", "add_arguments", "execute"]

NAME = "cow"
HELP = "run a command on a directory that stays as it is; show, commit or take back the changes"
DESCRIPTION = (
    "Runs CMD with a copy-on-write tree in place of the directory LOWER: it may change everything there, and nothing "
    "changes. What it has changed is in UPPER, where the next CMD finds it. `poor-container cow diff --upper UPPER` "
    "shows it, `cow commit` makes it the directory's own, `cow reset` takes it back; all three take PATTERN... to name "
    "some of the paths ('data/**', '*.log')."
)
EPILOG = (
    "Where the backend is overlay, CMD runs in a container that has the machine's network and files; beside UPPER only "
    "the current directory keeps what is written to it. Exit status: the command's; 128+N when signal N ended it; 127 "
    "when there is no such command, 126 when it cannot be executed, 125 when something went wrong before."
)
FAILURE = 125
_VERBS = ("diff", "commit", "reset")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--backend", default="auto", metavar="B", help="auto (default), overlay, preload, reflink, copy"
    )
    parser.add_argument("--lower", metavar="DIR", help="the directory; not needed when UPPER has changes of it already")
    parser.add_argument("--upper", metavar="DIR", help="where the changes are, and stay")
    parser.add_argument("--text", action="store_true", help="diff: show the lines that differ")
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="CMD", help="the command; or diff, commit, reset with PATTERN..."
    )


def execute(options: argparse.Namespace) -> int:
    """Do what is asked for; return the exit status."""
    from pytest_poorcontainer.errors import UsageError  # noqa: PLC0415 - a command loads what it needs, and no other does

    words = list(options.command)
    verb = words[0] if words and words[0] in _VERBS else ""
    if verb:
        words = _options_after(words[1:], options)
    elif words[:1] == ["--"]:
        words = words[1:]
    if not options.upper:
        raise UsageError("cow: --upper is needed: the directory where the changes are")
    if verb:
        return _with_changes(verb, options, words)
    if not words:
        raise UsageError("cow: a command is needed: poor-container cow --lower DIR --upper DIR [--] CMD...")
    return _run(options, words)


def _options_after(words: list[str], options: argparse.Namespace) -> list[str]:
    """Take options that stand behind a verb; return the patterns."""
    parser = argparse.ArgumentParser(prog="poor-container cow", add_help=False, allow_abbrev=False)
    parser.add_argument("--upper", default=options.upper)
    parser.add_argument("--text", action="store_true", default=options.text)
    parser.add_argument("patterns", nargs="*")
    parser.error = options.parser.error  # type: ignore[method-assign]
    found = parser.parse_args(words)
    options.upper, options.text = found.upper, found.text
    patterns: list[str] = found.patterns
    return patterns


def _lower(options: argparse.Namespace) -> str:
    """Return the directory that the changes are of, from the options or from what is in the upper."""
    from pytest_poorcontainer.cow import store  # noqa: PLC0415 - as above
    from pytest_poorcontainer.errors import UsageError  # noqa: PLC0415

    if options.lower:
        return str(options.lower)
    found = store.read(options.upper)
    if found is None:
        raise UsageError(f"cow: {options.upper} has no changes yet: --lower is needed, the directory that they are of")
    return found.lowers[0]


def _with_changes(verb: str, options: argparse.Namespace, patterns: list[str]) -> int:
    from pytest_poorcontainer.cow import Tree  # noqa: PLC0415 - as above

    with Tree(_lower(options), upper=options.upper, backend=options.backend, tripwire=False) as tree:
        if verb == "reset":
            tree.reset(*patterns)
            return 0
        changes = tree.commit(patterns or None) if verb == "commit" else tree.diff()
        if patterns and verb == "diff":
            changes = changes.matching([*patterns, *(f"{pattern}/**" for pattern in patterns)])
        if verb == "diff" and options.text:
            text = tree.diff_text(changes)
            print(text, end="\n" if text else "")
        else:
            for line in changes.lines():
                print(line)
    return 0


def _run(options: argparse.Namespace, command: list[str]) -> int:
    import sys  # noqa: PLC0415 - as above
    from pathlib import Path  # noqa: PLC0415

    from pytest_poorcontainer.cli import _foreground  # noqa: PLC0415
    from pytest_poorcontainer.container.trees import CowTree  # noqa: PLC0415

    here = Path.cwd()
    with CowTree(_lower(options), upper=options.upper, backend=options.backend, shared=[here]) as tree:
        refused = len(tree.refused)
        container = tree.container
        if container is not None:
            status = _foreground.run_in(container, command, str(here))
        else:
            inside = here.relative_to(tree.place) if here.is_relative_to(tree.place) else here
            status = _foreground.run_beside(lambda: tree.popen(command, cwd=inside, stdin=0, stdout=1, stderr=2))
        for line in tree.refused[refused:]:
            print(f"poor-container: refused: {line}", file=sys.stderr)
        tree.check_original(most=None)
    return status
