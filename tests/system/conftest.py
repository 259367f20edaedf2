"""Who runs the console commands in these tests: whoever runs the tests, and an ordinary user where that is root."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from shells import NOBODY, Shell, python_of_all

from pytest_poorcontainer import native


@pytest.fixture(scope="module")
def native_of_all():
    """Return a directory with the native programs that every user can reach."""
    with tempfile.TemporaryDirectory(prefix="poor-container-test-", dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        for program in ("pclab", "pcprobe", "pcwire", "pcrecorder", "pccow", "libpccow.so", "libpcclock.so"):
            shutil.copy(native.program(program), directory)
        yield directory


@pytest.fixture(scope="module", params=["self", "nobody"])
def user(request, native_of_all):
    """Return who runs the tests, and nobody where that is root: Python, native programs, arguments of subprocess."""
    if request.param == "self":
        found = (sys.executable, native_of_all, {})
    elif os.geteuid() != 0 or python_of_all() is None:
        pytest.skip("only root can become another user, who then needs a Python and this checkout within reach")
    else:
        found = (python_of_all(), native_of_all, {"user": NOBODY, "group": NOBODY, "extra_groups": []})
    level = Shell(*found).diagnosis()["level"]
    if not level["built"]:
        pytest.skip(level["reason"])
    return found
