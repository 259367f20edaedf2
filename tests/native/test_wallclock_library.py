"""libpcclock.so: every function that tells the time of day, or waits for one, in a program of its own."""

import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from pytest_poorcontainer import native

HERE = Path(__file__).parent
HEADER = HERE.parents[1] / "preload" / "wallclock" / "wallclock.h"
PATIENCE = 300  # seconds; the program ends itself when a wait lasts too long


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The path of a program that calls all of them."""
    path = tmp_path_factory.mktemp("wallclock") / "wallclock"
    source = HERE / "programs" / "wallclock.c"
    argv = ["cc", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", source, "-o", path, "-lrt"]
    subprocess.run(argv, check=True)
    return path


class Place:
    """A directory with the library and its clock."""

    def __init__(self, directory):
        self.library, self.clock = directory / "libpcclock.so", directory / "clock"
        shutil.copy(native.program("libpcclock.so"), self.library)
        self.show(0)
        self.env = {**os.environ, "LD_PRELOAD": str(self.library)}

    def show(self, ns):
        """Set the clock; in place, since programs have the file mapped."""
        with self.clock.open("r+b" if self.clock.exists() else "wb") as file:
            file.write(struct.pack("=q", ns))

    def run(self, *argv):
        """Run a command that has the library."""
        return subprocess.run(argv, env=self.env, capture_output=True, text=True, check=False, timeout=PATIENCE)


@pytest.fixture
def place(tmp_path):
    """A directory with the library and its clock."""
    return Place(tmp_path)


@pytest.mark.parametrize("seconds", [0, 3600, -3600, 0.999999999, -0.25, 2_000_000_000])
def test_all_that_tells_the_time_of_day_and_all_that_waits_for_it(program, place, seconds):
    """What is told is ahead to the ns, waits and timers last as long as was meant, other clocks are right."""
    place.show(int(seconds * 1_000_000_000))
    done = place.run(program, repr(seconds))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.splitlines()[-1] == "right"


def test_without_the_library_the_program_finds_fault(program):
    """The program can tell: with the machine's clock it misses the offset."""
    done = subprocess.run([program, "3600"], capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 1
    assert "reading:" in done.stdout


def test_the_clock_may_change_at_any_time(program, place):
    """A program that runs sees each change when the write has returned; its children see it too."""
    command = ["sh", "-c", f"{program} watch; true"]
    with subprocess.Popen(command, env=place.env, stdin=-1, stdout=-1, text=True, bufsize=1) as running:
        for ns in (0, 1, -1, 3_600_000_000_000, -(10**17), 0):
            place.show(ns)
            running.stdin.write("\n")
            low, high = map(int, running.stdout.readline().split())
            assert low <= ns <= high
        running.stdin.close()


def test_a_clock_that_cannot_be_read_is_said(program, place):
    """The program runs, with the machine's time, and its standard error says so."""
    for prepare in (lambda: place.clock.write_bytes(b"1234567"), place.clock.unlink):
        prepare()
        done = place.run(program, "0")
        assert done.returncode == 0, done.stdout
        assert done.stderr == (f"libpcclock.so: cannot map {place.clock}: this program has the machine's time of day\n")


def test_the_library_exports_what_it_wraps_and_needs_libc_alone():
    """No other name is taken from a program, and nothing else comes with it."""
    library = native.program("libpcclock.so")
    lines = subprocess.run(["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True).stdout
    table = HEADER.read_text().partition("#define WALL_CALLS(X)")[2].partition("\n\n")[0]
    assert sorted(line.split()[-1] for line in lines.splitlines()) == sorted(
        [*re.findall(r"X\((\w+)\)", table), "gettimeofday", "time", "ftime"]
    )
    text = subprocess.run(["readelf", "-d", library], check=True, capture_output=True, text=True).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", text)
    assert {name for name in needed if not name.startswith("ld-linux")} <= {"libc.so.6", "libubsan.so.1"}
    assert not re.search(r"R(UN)?PATH", text)
