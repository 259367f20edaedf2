"""openat2 with RESOLVE_... in a view: what is not sure to stay below the directory is EXDEV."""

import sys

import pytest
from cow_case import Case, copy, fill, run

SCRIPT = """
import ctypes, errno, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
root = os.open(".", os.O_PATH | os.O_DIRECTORY)
for line in sys.argv[1:]:
    resolve, path = line.split(" ", 1)
    how = struct.pack("=QQQ", os.O_RDWR, 0, int(resolve))
    fd = libc.syscall(437, root, path.encode(), how, len(how))
    if fd < 0:
        print(errno.errorcode[ctypes.get_errno()])
    else:
        print(os.read(fd, 3).decode())
        os.write(fd, b"!")
"""
NO_SYMLINKS, BENEATH, IN_ROOT = 0x04, 0x08, 0x10  # linux/openat2.h
SAME = {  # what is the same on a plain copy
    (BENEATH, "a.txt"): "hel",
    (BENEATH, "dir/f1"): "one",
    (BENEATH, "dir/./f2"): "two",
    (BENEATH, "nowhere"): "ENOENT",
    (BENEATH, "../outside"): "EXDEV",
    (BENEATH, "/etc/hostname"): "EXDEV",
    (IN_ROOT, "dir/sub/g"): "gee",
    (NO_SYMLINKS, "attr"): "att",
    (NO_SYMLINKS, "link"): "ELOOP",
    (NO_SYMLINKS, "dlink/f1"): "ELOOP",
}
REFUSED = {  # what is EXDEV here, and stays below the directory on a plain copy
    (BENEATH, "dir/../ro"): "rea",
    (BENEATH, "link"): "hel",
    (BENEATH, "dlink/f1"): "one",
    (IN_ROOT, "/a.txt"): "hel",
    (IN_ROOT, "../a.txt"): "hel",
    (IN_ROOT, "link"): "hel",
    (IN_ROOT, "dangling"): "ENOENT",
}


@pytest.mark.parametrize("where", ["view", "plain"])
def test_openat2(tmp_path, where):
    """Plain paths below are opened, and copied up; with links or .. on the way, or from /, they are refused."""
    plain = copy(fill(tmp_path / "t"), tmp_path / "plain")
    (plain / "ro").chmod(0o644)
    (tmp_path / "t/ro").chmod(0o644)
    case = Case.of(tmp_path / "t", tmp_path / "beside")
    (tmp_path / "outside").write_text("outside")
    tried = [f"{resolve} {path}" for resolve, path in (*REFUSED, *SAME)]
    argv = (sys.executable, "-c", SCRIPT, *tried)
    done = case.run(*argv) if where == "view" else run(argv, cwd=plain)
    refused = ["EXDEV"] * len(REFUSED) if where == "view" else list(REFUSED.values())
    assert (done.stdout.splitlines(), done.stderr) == ([*refused, *SAME.values()], "")
    assert case.damage() == []
    assert (tmp_path / "outside").read_text() == "outside"
    if where == "view":
        assert case.run("cat", "a.txt", "dir/f1").stdout == "hel!o\none!"
