"""What is read of ELF files."""

import io
import subprocess
import sys

import elfs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_poorcontainer.rootfs import elf

WHOLE = elfs.build(
    ["libfoo.so.1", "libc.so.6"], interpreter="/lib64/ld.so", runpath="$ORIGIN/../lib:/opt/lib", soname="libx.so.1"
)


def read(data):
    """Read an ELF file from bytes."""
    return elf.read(io.BytesIO(data))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [32, 64])
def test_names_are_read_whatever_the_word_and_the_byte_order(bits, order):
    """Interpreter, needed libraries, paths and soname come out of all four kinds of files."""
    names = {"interpreter": "/lib/ld.so", "rpath": "/a:/b", "soname": "libx.so.1"}
    found = read(elfs.build(["liba.so", "libb.so.2"], bits=bits, order=order, machine=elfs.S390, **names))
    assert found == elf.Elf(bits, elfs.S390, "/lib/ld.so", ("liba.so", "libb.so.2"), ("/a", "/b"), (), "libx.so.1")


def test_a_runpath_makes_the_rpath_void():
    """DT_RPATH counts only in a file without DT_RUNPATH, ld.so(8)."""
    found = read(elfs.build(rpath="/old", runpath="/new"))
    assert (found.rpath, found.runpath) == ((), ("/new",))


def test_a_static_program_needs_nothing():
    """Neither an interpreter nor libraries."""
    found = read(elfs.build())
    assert (found.interpreter, found.needed, found.no_default) == ("", (), False)
    assert read(elfs.build(no_default=True)).no_default


def test_it_agrees_with_readelf_about_this_python():
    """What binutils says of the running interpreter is what we read."""
    try:
        said = subprocess.run(["readelf", "-dlW", sys.executable], capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("readelf of binutils is not installed")
    with open(sys.executable, "rb") as file:  # noqa: PTH123
        found = elf.read(file)
    needed = [line.partition("[")[2].partition("]")[0] for line in said.splitlines() if "(NEEDED)" in line]
    assert list(found.needed) == needed
    assert f"[Requesting program interpreter: {found.interpreter}]" in said


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fEL", b"\x7fELF", WHOLE[:40], WHOLE[:100], WHOLE[:-90]])
def test_what_is_no_elf_file_or_cut_is_an_error(data):
    """A file that ends early says so, and never IndexError or struct.error."""
    with pytest.raises(elf.ElfError):
        read(data)


@given(st.data())
def test_damage_is_an_elf_error_or_a_reading(data):
    """Whatever bytes are changed, and wherever it is cut: a result or ElfError, in bounded memory."""
    damaged = bytearray(WHOLE[: data.draw(st.integers(0, len(WHOLE)))])
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=8)):
        if at < len(damaged):
            damaged[at] = value
    try:
        found = read(bytes(damaged))
    except elf.ElfError:
        return
    assert isinstance(found, elf.Elf)


def test_machines_have_the_names_that_uname_says():
    """The 32-bit mode of a 64-bit machine is told apart."""
    names = [elf.machine_name(read(elfs.build(**kind))) for kind in ({}, {"machine": 183}, {"machine": 3, "bits": 32})]
    assert names == ["x86_64", "aarch64", "i386"]
    assert elf.machine_name(read(elfs.build(bits=32))) == "x86_64 (32 bits)"
    assert elf.machine_name(read(elfs.build(machine=4711))) == "machine 4711"
