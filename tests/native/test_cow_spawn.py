"""pidfd_spawn and pidfd_spawnp, which glibc has since 2.39."""

import ctypes

import pytest
from cow_case import HERE, Case, compiled, copy, fill, run

SOURCE = HERE / "programs" / "pidfd_spawn.c"
LIBC_HAS_IT = hasattr(ctypes.CDLL(None), "pidfd_spawn")


@pytest.fixture(scope="module")
def libcs(tmp_path_factory):
    """Return what stands in for libc's where that has none: a library that makes them of posix_spawn and pidfd_open."""
    if LIBC_HAS_IT:
        return ""
    return str(compiled(tmp_path_factory.mktemp("libc") / "pidfd_spawn.so", [SOURCE], "-shared", "-fPIC"))


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Return the program that calls them."""
    return compiled(tmp_path_factory.mktemp("program") / "program", [SOURCE], "-DPROGRAM")


def test_pidfd_spawn_is_as_on_a_plain_copy(libcs, program, tmp_path):
    """Its file actions, program and environment are those of the view; the descriptor is libc's, or the stand-in's."""
    plain, case = copy(fill(tmp_path / "t"), tmp_path / "plain"), Case.of(tmp_path / "t", tmp_path / "beside")
    expected = run((program,), cwd=plain, env={"LD_PRELOAD": libcs, "PATH": "/usr/bin:/bin"})
    assert "pidfd_spawnp cat: Success\n0 0\n" in expected.stdout
    preload = ":".join(filter(None, [case.env["LD_PRELOAD"], libcs]))
    done = case.run(program, env={**case.env, "LD_PRELOAD": preload})
    assert (done.returncode, done.stdout, done.stderr) == (0, expected.stdout, "")
    assert case.run("cat", "made").stdout == (plain / "made").read_text() == "hello\nhello\n"
    assert case.damage() == []


@pytest.mark.skipif(LIBC_HAS_IT, reason="this libc has it")
def test_where_libc_has_none_it_is_not_implemented(program, tmp_path):
    """Whoever finds the library's own by name gets ENOSYS, as where the kernel has no pidfds; nothing is started."""
    case = Case.of(fill(tmp_path / "t"), tmp_path / "beside")
    done = case.run(program)
    assert done.stdout.splitlines() == [
        "pidfd_spawn /bin/cat: Function not implemented",
        "pidfd_spawnp cat: Function not implemented",
        "pidfd_spawn cat: No such file or directory",
    ]
    assert case.damage() == []
