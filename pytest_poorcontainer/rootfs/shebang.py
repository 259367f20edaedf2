"""Whom a script is for: the first line, as the kernel reads it (execve(2), fs/binfmt_script.c)."""

from __future__ import annotations

import posixpath
import shlex

__all__ = ["DEPTH_MAX", "HEAD", "Shebang", "parse", "program_of_env"]

HEAD = 256
"""How many bytes of a file the kernel looks at (BINPRM_BUF_SIZE)."""

DEPTH_MAX = 5
"""How many scripts may be for one another, before execve(2) fails with ELOOP."""


class Shebang:
    """The interpreter of a script, and its one argument ("" for none)."""

    def __init__(self, interpreter: str, argument: str = "") -> None:
        """Keep both."""
        self.interpreter, self.argument = interpreter, argument

    def program(self) -> str:
        """Return the program that env(1) is asked to start, "" when the interpreter is not env."""
        return program_of_env(self.argument) if posixpath.basename(self.interpreter) == "env" else ""


def parse(head: bytes) -> Shebang | None:
    """Return whom a file that begins like this is for; None when it is no script of this kind."""
    if not head.startswith(b"#!"):
        return None
    line = head[2:HEAD].partition(b"\n")[0].partition(b"\0")[0].strip(b" \t")
    interpreter, _, argument = line.replace(b"\t", b" ").partition(b" ")
    if not interpreter:
        return None
    return Shebang(interpreter.decode("utf-8", "surrogateescape"), argument.strip().decode("utf-8", "surrogateescape"))


def program_of_env(argument: str) -> str:
    """Return what ``env ARGUMENT`` starts, "" when that cannot be said: ``python3``, ``-S A=1 python3 -u``."""
    if not argument.startswith(("-S", "--split-string", "-vS")):
        # Without -S the kernel hands all of it over as one word.
        return "" if argument.startswith("-") or "=" in argument else argument
    text = argument.partition("=")[2] if argument.startswith("--") else argument.partition("S")[2]
    try:
        words = shlex.split(text)
    except ValueError:
        return ""
    while words:
        word = words.pop(0)
        if word in {"-u", "--unset", "-C", "--chdir"}:
            words[:1] = []
        elif not word.startswith("-") and "=" not in word:
            return word
    return ""
