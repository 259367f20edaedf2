"""kill -9 at any moment: the original as it was, every file that was copied up complete; and what else can go wrong."""
# ruff: noqa: F811 - a test's argument is the fixture of that name

import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cow_trees import backend, described, make, shell  # noqa: F401 - fixtures

from pytest_poorcontainer import CowTree
from pytest_poorcontainer.cow.backend import Backend
from pytest_poorcontainer.cow.duplicate import Copy
from pytest_poorcontainer.plugins import hookimpl, manager

ROOT = os.geteuid() == 0
KILLS = 200
FILES = 24
WORKLOAD = """
for (0..23) { open(F, ">>", "big$_"); syswrite(F, "more\n"); close(F); }
for (0..23) { rename("big$_", "moved$_"); open(F, ">", "big$_"); syswrite(F, "new\n"); close(F); }
unlink("d/x"); rmdir("d"); mkdir("d"); open(F, ">", "d/n");
"""


def victim(process):
    """Return the pid of the program itself: below it may be its starter's and its supervisor's."""
    pid = process.pid
    while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        pid = int(children[0])
    return pid


@pytest.mark.timeout(400)
def test_killed_at_200_random_moments(make, tmp_path, backend):
    """No file is ever seen half copied, what was not reached is as it was, and the tree goes on to be used."""
    if backend == "copy":
        pytest.skip("nothing is copied up: programs write to files of their own")
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "d/x").touch()
    content = {f"big{number}": os.urandom(100_000) for number in range(FILES)}
    for name, data in content.items():
        (source / name).write_bytes(data)
    before = described(source)
    tree = make(source)
    chance = random.Random(5)
    reached = 0
    for _ in range(KILLS):
        process = tree.popen(["perl", "-e", WORKLOAD])
        time.sleep(chance.uniform(0, 0.02))
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it was quicker
            os.kill(victim(process), signal.SIGKILL)
        process.wait()
        changes = tree.diff()
        reached += bool(changes)
        for path in changes:
            if path.startswith(("big", "moved")) and changes[path] != "deleted":
                data = tree.read_bytes(path)
                original = content[path.replace("moved", "big")]
                assert data in (original, original + b"more\n", b"", b"new\n"), path
        tree.reset()
    assert described(source) == before
    assert reached > KILLS // 10  # else the moments are not in it
    assert tree.diff() == {}
    shell(tree, "echo 1 >> big0")
    assert tree.diff() == {"big0": "modified"}


@pytest.mark.skipif(not ROOT, reason="a file system of one's own takes root")
def test_a_full_disk_is_told_to_the_program(make, tmp_path, backend):
    """ENOSPC reaches who writes, what was copied up before stays whole, and the original is as it was."""
    small = tmp_path / "small"
    small.mkdir()
    source = tmp_path / "source"
    source.mkdir()
    (source / "large").write_bytes(b"x" * 600_000)
    (source / "other").write_bytes(b"y" * 600_000)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2M", "small", small], check=True)
    try:
        from pytest_poorcontainer.lab import Lab

        Lab.close_current()  # which does not see the mount where the machine's are private
        tree = make(source, upper=small / "changes")
        done = tree.run(["sh", "-c", "head -c 3000000 /dev/zero > new"], capture_output=True, text=True)
        assert os.strerror(errno.ENOSPC) in done.stderr
        refused = tree.run(["sh", "-c", "echo more >> other"], capture_output=True).returncode != 0
        assert refused or backend == "copy"  # which has all that it needs already
        assert tree.stat("other").st_size >= 600_000
        shell(tree, "rm new; echo more >> large")
        assert tree.read_bytes("large") == b"x" * 600_000 + b"more\n"
        tree.close()
    finally:
        subprocess.run(["umount", "-l", small], check=True)


@pytest.mark.parametrize("name", ["with space", "with:colon", "with\nline"])
def test_a_library_whose_path_ld_so_cannot_hold(tmp_path, monkeypatch, name):
    """LD_PRELOAD splits at spaces and colons: the library is reached by a link, which goes with the tree."""
    from pytest_poorcontainer import native

    directory = tmp_path / name
    directory.mkdir()
    for program in ("pccow", "libpccow.so", "pclab"):
        shutil.copy(native.program(program), directory)
    monkeypatch.setenv("POOR_CONTAINER_NATIVE", str(directory))
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_text("1")
    with CowTree(source, backend="preload") as tree:
        preload = tree.env["LD_PRELOAD"].split(":")[0]
        assert Path(preload).samefile(directory / "libpccow.so")
        shell(tree, "echo 2 > a")
        subprocess.run(["sh", "-c", f"echo 3 > {source}/b"], env=tree.env, check=True)
        assert tree.diff() == {"a": "modified", "b": "added"}
    assert not Path(preload).exists()
    assert (source / "a").read_text() == "1"


def test_what_is_refused_is_told(tmp_path):
    """Without a net a static program is not run, and the tree says which call it was."""
    code = tmp_path / "static.c"
    code.write_text("int main(void) { return 0; }")
    if subprocess.run(["gcc", "-static", code, "-o", tmp_path / "static"], check=False, capture_output=True).returncode:
        pytest.skip("no static C library to link with")
    source = tmp_path / "source"
    source.mkdir()
    with CowTree(source, backend="preload") as tree:
        done = subprocess.run(["sh", "-c", tmp_path / "static"], env=tree.env, check=False, capture_output=True)
        assert done.returncode == 126
        assert any(f"{tmp_path}/static" in line for line in tree.refused)


def test_programs_of_a_preload_tree_end_with_this_process(tmp_path):
    """Killed as it is, it leaves nothing of the tree running."""
    source = tmp_path / "source"
    source.mkdir()
    code = (
        "import sys\nfrom pytest_poorcontainer import CowTree\n"
        "tree = CowTree(sys.argv[1], backend='preload', temporary=sys.argv[2])\n"
        "process = tree.popen(['sh', '-c', 'sleep 1000 & echo $!; wait'], stdout=-1, text=True)\n"
        "print(process.stdout.readline(), flush=True)\nsys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, source, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        sleeper = int(process.stdout.readline())
        process.kill()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{sleeper}").exists() and time.monotonic() < deadline:
        if "Z" in Path(f"/proc/{sleeper}/stat").read_text().rpartition(")")[2].split()[0]:
            break
        time.sleep(0.01)
    else:
        assert not Path(f"/proc/{sleeper}").exists()


class OfAPlugin(Copy):
    """A backend of somebody else's."""

    name = "special"
    rank = 1


class Plugin:
    """What registers it."""

    @hookimpl
    def poor_container_cow_backends(self) -> list[type[Backend]]:
        """Return it."""
        return [OfAPlugin]


def test_backends_of_others(tmp_path):
    """A plugin's backend is taken by its name, and by auto when its rank is better than ours."""
    (tmp_path / "source").mkdir()
    plugin = Plugin()
    manager().register(plugin)
    try:
        with CowTree(tmp_path / "source", backend="special", temporary=tmp_path) as tree:
            assert tree.backend == "special"
        with CowTree(tmp_path / "source", temporary=tmp_path) as tree:
            assert (tree.backend, tree.reason) == ("special", "the first that works here")
    finally:
        manager().unregister(plugin)
