"""What is said of a program that cannot be started."""

import io

import elfs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_poorcontainer.rootfs.missing import explain

LOADER = "/lib64/ld-linux-x86-64.so.2"
PATH = "/usr/bin:/bin"


def why(files, program):
    """Explain, on a file system of these files: bytes, arguments of elfs.build, or an error to raise."""

    def open_file(path):
        data = files.get(path, FileNotFoundError(path))
        if isinstance(data, Exception):
            raise data
        return io.BytesIO(data if isinstance(data, bytes) else elfs.build(**data))

    return explain(open_file, program, PATH)


SOUND = {"/bin/sh": {"needed": ["libc.so.6"], "interpreter": LOADER}, LOADER: {}, "/lib64/libc.so.6": {}}


@pytest.mark.parametrize(
    ("files", "program", "expected"),
    [
        ({}, "foo", "there is no 'foo' in /usr/bin, /bin"),
        ({}, "/opt/foo", "there is no /opt/foo"),
        (SOUND, "sh", None),
        ({**SOUND, "/x": b"#!/bin/sh\n"}, "/x", None),
        ({"/x": b"echo\n"}, "/x", None),
        ({"/x": PermissionError("/x")}, "/x", None),
        ({"/x": b"#!/bin/bash -e\n"}, "/x", "/x is a script for /bin/bash, which is not there"),
        (
            {**SOUND, "/x": b"#!/bin/sh\r\n"},
            "/x",
            (
                "the first line of /x ends with a carriage return, so its interpreter is '/bin/sh\\r': "
                "give it Unix line ends"
            ),
        ),
        (
            {"/usr/bin/env": {}, "/x": b"#!/usr/bin/env python3\n"},
            "/x",
            "/x is a script for python3: there is no 'python3' in /usr/bin, /bin",
        ),
        ({"/bin/sh": SOUND["/bin/sh"]}, "sh", f"/bin/sh needs the dynamic loader {LOADER}, which is not there"),
        ({**SOUND, "/lib64/libc.so.6": b""}, "sh", "/bin/sh needs libc.so.6, which is not there"),
        (
            {"/x": b"#!/bin/sh\n", "/bin/sh": SOUND["/bin/sh"], LOADER: {}},
            "/x",
            "/x is a script for /bin/sh: /bin/sh needs libc.so.6, which is not there",
        ),
        ({"/bin/sh": b"\x7fELF\2\1"}, "sh", "/bin/sh is a damaged ELF file"),
        (
            {"/bin/sh": {"interpreter": LOADER, "machine": elfs.AARCH64}, LOADER: {}},
            "sh",
            f"/bin/sh is made for aarch64, and {LOADER} for x86_64",
        ),
        ({"/x": b"#!/x\n"}, "/x", None),
        ({"/x": {}}, "/x", None),
    ],
)
def test_what_is_missing_is_named(files, program, expected):
    """The program, its interpreter, its loader or its libraries, and nothing when nothing is."""
    assert why(files, program) == expected


def test_an_empty_path_is_said():
    """A name without a slash cannot be found then."""
    assert explain(io.BytesIO, "sh", "") == "there is no 'sh' in PATH, which is empty"


@given(st.binary(max_size=200), st.sampled_from([b"", b"#!", b"\x7fELF\2\1", b"#!/usr/bin/env -S"]))
def test_no_content_makes_it_raise(tail, head):
    """Files may contain what they want."""
    found = why({"/x": head + tail, "/usr/bin/env": {}}, "/x")
    assert found is None or isinstance(found, str)
