"""What the library cannot see, without a net: the kernel's current directory is never the original."""

import subprocess
import sys

import pytest
from cow_case import Case, compiled, fill

STRAY = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>
static long raw(long n, long a, long b, long c, long d)
{
    register long r10 __asm__("r10") = d;
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}
int main(int argc, char **argv)
{
    if (argc > 1 && chdir(argv[1]) < 0)
        return 2;
    if (argc > 2 && fchdir(open(argv[2], O_RDONLY)) < 0)
        return 3;
    return raw(SYS_openat, AT_FDCWD, (long)"stray", O_CREAT | O_WRONLY, 0644) < 0;
}
"""


@pytest.mark.parametrize("where", [[], ["."], ["dir"], ["dir/sub", "../../d/e"], [".", "dlink"]])
def test_a_stray_relative_write_falls_into_the_upper(tmp_path, where):
    """What comes past the library by a path from the current directory reaches the upper alone."""
    source = tmp_path / "stray.c"
    source.write_text(STRAY)
    program = compiled(tmp_path / "stray", [source])
    case = Case.of(fill(tmp_path / "t"), tmp_path / "beside")
    assert case.run(program, *where).returncode == 0
    assert case.damage() == []
    assert len(list(case.upper.rglob("stray"))) == 1
    assert "stray" in case.run("find", ".", "-name", "stray").stdout


def test_a_program_that_was_profiled_leaves_its_figures_in_the_upper(tmp_path):
    """gmon.out is written by a call inside libc, at the program's end."""
    source = tmp_path / "main.c"
    source.write_text("int main(void) { return 0; }\n")
    try:
        program = compiled(tmp_path / "main", [source], "-pg")
    except subprocess.CalledProcessError:
        pytest.skip("this compiler makes no profiled programs (-pg)")
    case = Case.of(fill(tmp_path / "t"), tmp_path / "beside")
    assert case.run(program).returncode == 0
    assert (case.upper / "gmon.out").exists()
    assert case.damage() == []


def test_a_python_program_moves_about(tmp_path):
    """os.chdir, subprocess' cwd and threads agree on where relative paths begin."""
    case = Case.of(fill(tmp_path / "t"), tmp_path / "beside")
    script = (
        "import os, subprocess, threading\n"
        "os.chdir('dir'); subprocess.run(['sh', '-c', 'echo x > made'], cwd='../d', check=True)\n"
        "t = threading.Thread(target=lambda: open('thread', 'w').close()); t.start(); t.join()\n"
        "print(sorted(os.listdir('.')), sorted(os.listdir('../d')), os.path.basename(os.getcwd()))\n"
    )
    done = case.run(sys.executable, "-c", script)
    assert done.stdout == "['f1', 'f2', 'sub', 'thread'] ['e', 'made'] dir\n"
    assert case.damage() == []
