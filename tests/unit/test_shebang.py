"""Whom a script is for."""

import pytest

from pytest_poorcontainer.rootfs import shebang


@pytest.mark.parametrize(
    ("head", "interpreter", "argument"),
    [
        (b"#!/bin/sh\necho", "/bin/sh", ""),
        (b"#! /bin/sh -eu \n", "/bin/sh", "-eu"),
        (b"#!/usr/bin/env python3 -u\n", "/usr/bin/env", "python3 -u"),
        (b"#!\t/bin/awk\t-f\n", "/bin/awk", "-f"),
        (b"#!/bin/sh\r\n", "/bin/sh\r", ""),
        (b"#!/bin/sh", "/bin/sh", ""),
        (b"#!/bin/\xff\n", "/bin/\udcff", ""),
    ],
)
def test_the_first_line_is_read_as_the_kernel_reads_it(head, interpreter, argument):
    """One interpreter, one argument with all that follows, blanks around both dropped."""
    found = shebang.parse(head)
    assert (found.interpreter, found.argument) == (interpreter, argument)


@pytest.mark.parametrize("head", [b"", b"#", b"#!", b"#!\n/bin/sh", b"#!   \n", b" #!/bin/sh\n", b"\x7fELF"])
def test_what_is_no_script_is_none(head):
    """An interpreter has to be named, in the first line."""
    assert shebang.parse(head) is None


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        ("python3", "python3"),
        ("-S python3 -u", "python3"),
        ("-SA=1 python3", "python3"),
        ("-S -i -u HOME LANG=C perl -w", "perl"),
        ("--split-string=python3 -I", "python3"),
        ("-S 'a program' x", "a program"),
        ("-i", ""),
        ("A=1", ""),
        ("-S 'open", ""),
        ("", ""),
    ],
)
def test_env_s_program_is_found(argument, name):
    """Behind options and assignments; "" where that cannot be said."""
    assert shebang.program_of_env(argument) == name
    assert shebang.Shebang("/usr/bin/env", argument).program() == name
    assert shebang.Shebang("/bin/sh", argument).program() == ""
