"""Whether `make sanitize` sees what libpccow does wrong, in programs that know nothing of sanitizers."""

import shutil
import subprocess

import pytest
from cow_case import HERE, Case, fill, preloaded, run

from pytest_poorcontainer import native

pytestmark = pytest.mark.skipif(
    "libasan" not in preloaded(native.program("libpccow.so")), reason="of a build with sanitizers: make sanitize"
)
SEEN = {
    "stack": "AddressSanitizer: stack-buffer-overflow",
    "global": "AddressSanitizer: global-buffer-overflow",
    "heap": "AddressSanitizer: heap-buffer-overflow",
    "shift": "runtime error: shift exponent",
}


@pytest.fixture(scope="module")
def wrong(tmp_path_factory):
    """Return a libpccow.so built as all are, from all its sources and one that does wrong when it is told to."""
    where = tmp_path_factory.mktemp("wrong")
    shutil.copytree(HERE.parents[1] / "preload", where / "preload")
    shutil.copy(HERE / "programs" / "overflow.c", where / "preload" / "cow" / "library")
    out = where / "out" / "libpccow.so"
    subprocess.run(["make", "-s", "-C", where / "preload", "SAN=1", f"OUT={out.parent}", out], check=True)
    return str(out)


@pytest.mark.parametrize("before", [(), ("env", "-i", "PATH=/bin:/usr/bin", "OVERFLOW={}")], ids=["first", "cleared"])
@pytest.mark.parametrize("what", SEEN)
@pytest.mark.timeout(300)
def test_an_error_of_the_library_ends_the_program(wrong, tmp_path, what, before):
    """In the program that is started first, and in one that is started with an environment of its own."""
    case = Case.of(fill(tmp_path / "t"), tmp_path / "beside")
    environment = {**case.env, "LD_PRELOAD": preloaded(wrong)}
    right = run((*before, "cat", "a.txt"), cwd=case.lower, env=environment)
    assert (right.returncode, right.stdout, right.stderr) == (0, "hello\n", "")
    argv = [word.format(what) for word in before]
    done = run(
        (*argv, "cat", "a.txt"), cwd=case.lower, env=environment if before else {**environment, "OVERFLOW": what}
    )
    assert done.returncode not in (0, 126)
    assert SEEN[what] in done.stderr
    assert "overflow.c" in done.stderr
    assert done.stdout == ""
