"""What is the backend overlay's own: the kernel's view and ours, limits, static programs, ends, and other roots."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from pytest_poorcontainer import Container, CowTree
from pytest_poorcontainer.cow import overlayfs
from pytest_poorcontainer.cow.layer import Layer
from pytest_poorcontainer.cow.overlay import Overlay
from pytest_poorcontainer.cow.view import View
from pytest_poorcontainer.errors import LabDied, PoorContainerError, Unavailable
from pytest_poorcontainer.lab import Lab

ROOT = os.geteuid() == 0
STATIC = """
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int count, char **names)
{
    int fd = syscall(SYS_openat, AT_FDCWD, names[1], O_WRONLY | O_TRUNC);
    return count != 3 || write(fd, "raw", 3) != 3 || unlink(names[2]);
}
"""


@pytest.fixture
def source(tmp_path):
    """Return a directory with some files."""
    directory = tmp_path / "app"
    (directory / "d/sub").mkdir(parents=True)
    for name in ("a", "b", "d/x", "d/y", "d/sub/z"):
        (directory / name).write_text(name)
    return directory


def tree_of(source, **options):
    """Return a tree on the backend overlay, or skip."""
    try:
        return CowTree(source, backend="overlay", **options)
    except Unavailable as error:
        pytest.skip(str(error))


def listed(directory):
    """Return all paths in a directory."""
    return {str(path.relative_to(directory)) for path in Path(directory).rglob("*")}


def test_the_kernel_writes_what_we_read(source, tmp_path):
    """What the kernel puts into an upper, our view shows as the kernel does."""
    with tree_of(source, upper=tmp_path / "up") as tree:
        script = "rm a; echo new > b; rm -r d; mkdir d; echo n > d/new; ln b c; mkdir -p e/f; mv e g"
        tree.run(["sh", "-c", script], check=True)
        ours = View([Layer.at(tmp_path / "up/upper"), Layer.at(source)], str(source))
        assert {path for path, _, _ in ours.walk()} == listed(tree) == {"b", "c", "d", "d/new", "g", "g/f"}
        assert (tmp_path / "up/upper/a").stat().st_rdev == 0
        assert os.getxattr(tmp_path / "up/upper/d", overlayfs.OPAQUE) == b"y"


def test_the_kernel_reads_what_we_write(source, tmp_path):
    """Whiteouts and opaque directories of ours hide for the kernel what they hide for us."""
    tree_of(source, upper=tmp_path / "up").close()
    upper = Layer.at(tmp_path / "up/upper")
    overlayfs.make_whiteout(upper, "a")
    (tmp_path / "up/upper/d").mkdir()
    overlayfs.make_opaque(upper, "d")
    (tmp_path / "up/upper/d/new").write_text("n")
    with tree_of(source, upper=tmp_path / "up") as tree:
        assert listed(tree) == {"b", "d", "d/new"}
        assert set(tree.diff()) == {"a", "d/x", "d/y", "d/sub", "d/sub/z", "d/new"}


def test_a_full_upper_is_told_to_the_program(source):
    """ENOSPC reaches who writes; what was there stays readable, and after a reset there is room again."""
    with tree_of(source, size="1M") as tree:
        done = tree.run(["dd", "if=/dev/zero", "of=large", "bs=64k", "count=64"], capture_output=True, text=True)
        assert done.returncode != 0
        assert os.strerror(errno.ENOSPC) in done.stderr
        assert tree.read_text("a") == "a"
        (source / "late").write_bytes(b"x" * (1 << 20))
        assert tree.run(["sh", "-c", "echo more >> late"], capture_output=True).returncode != 0
        assert tree.stat("late").st_size == 1 << 20
        tree.reset()
        tree.run(["sh", "-c", "echo 1 > a"], check=True)
        assert tree.diff() == {"a": "modified"}


def test_static_programs_and_raw_system_calls_are_held_too(source, tmp_path):
    """Below libc nothing is different for the kernel: a static program changes the tree."""
    code = tmp_path / "static.c"
    code.write_text(STATIC)
    program = source / "static"
    built = subprocess.run(["gcc", "-static", code, "-o", program], capture_output=True, check=False)
    if built.returncode:
        pytest.skip("no static C library to link with")
    with tree_of(source) as tree:
        tree.run(["./static", source / "a", source / "b"], check=True)
        assert tree.diff() == {"a": "modified", "b": "deleted"}
        assert (source / "a").read_text() == "a"


@pytest.mark.skipif(not ROOT, reason="mounts on the machine take root")
@pytest.mark.parametrize("backend", ["overlay", "preload", "copy"])
@pytest.mark.parametrize("kind", ["read-only", "tmpfs", "overlay"])
def test_an_original_on_any_file_system(source, tmp_path, kind, backend):
    """It may be read-only, in memory, or an overlay itself, as a container engine has files; so may the tree below."""
    place = tmp_path / "place"
    place.mkdir()
    for directory in ("u/up", "u/work"):
        (tmp_path / directory).mkdir(parents=True)
    options = f"lowerdir={source},upperdir={tmp_path}/u/up,workdir={tmp_path}/u/work"
    argv = {
        "read-only": ["mount", "--bind", "-o", "ro", source, place],
        "tmpfs": ["mount", "-t", "tmpfs", "t", place],
        "overlay": ["mount", "-t", "overlay", "-o", options, "o", place],
    }[kind]
    subprocess.run(argv, check=True)
    try:
        if kind == "tmpfs":
            shutil.copytree(source, place, dirs_exist_ok=True)
        Lab.close_current()  # a lab that is older sees the mount only where the machine's mounts are shared
        with CowTree(place, backend=backend, temporary=tmp_path) as tree:
            tree.run(["sh", "-c", "echo 1 > a; rm -r d; mkdir d; echo n > d/n"], check=True)
            assert tree.diff()["a"] == "modified"
            assert {tree.diff()[path] for path in ("d/sub", "d/sub/z", "d/x", "d/y")} == {"deleted"}
            with CowTree(tree, backend=backend, temporary=tmp_path) as second:
                done = second.run(["sh", "-c", "cat a; ls d; echo 2 > b"], capture_output=True, text=True, check=True)
                assert done.stdout == "1\nn\n"
                assert second.diff() == {"b": "modified"}
                assert second.check_original()
            assert tree.check_original()
    finally:
        subprocess.run(["umount", place], check=True)


def test_why_this_backend(source):
    """Auto takes overlay where it works, and says so; where it does not, the reason is what stood in the way."""
    with tree_of(source) as tree:
        assert tree.reason == "it was asked for"
    with CowTree(source) as tree:
        assert (tree.backend, tree.reason) == ("overlay", "the first that works here")
        assert "keeps every program" in tree.trust


def test_auto_goes_on_to_the_next_backend(source, monkeypatch, tmp_path):
    """And tells why not the first."""

    def refuse(self, request):
        self._root = None
        raise Unavailable("cow backend overlay", "no namespaces in this test")

    monkeypatch.setattr(Overlay, "__init__", refuse)
    with CowTree(source, temporary=tmp_path) as tree:
        assert tree.backend != "overlay"
        assert "not overlay: no namespaces in this test" in tree.reason


@pytest.mark.skipif(not ROOT, reason="mounts on the machine take root")
def test_an_original_that_the_lab_does_not_see(source, tmp_path):
    """What was mounted after the lab's start is shown as it is, or refused: never the directory that it covers."""
    place = tmp_path / "place"
    place.mkdir()
    (place / "covered").touch()
    tree_of(source).close()
    subprocess.run(["mount", "--bind", source, place], check=True)
    try:
        with CowTree(place, temporary=tmp_path) as tree:
            assert not tree.exists("covered")
            assert tree.exists("a")
            assert tree.backend == "overlay" or "mounted or unmounted there after the lab" in tree.reason
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.skipif(ROOT, reason="root has all ids")
def test_files_of_others_are_not_for_the_rootless_overlay():
    """The kernel could not copy up what belongs to an id that is not mapped; the message names such a file."""
    with pytest.raises(Unavailable, match=r"/usr/share/doc.* belongs to 0:0, .*backend='copy'"):
        CowTree("/usr/share/doc", backend="overlay")


def test_a_whole_root_file_system_as_a_tree(tmp_path):
    """A root with a shell, its libraries and absolute links is changed from inside by who is in a chroot of it."""
    root = tmp_path / "root"
    for program in ("/bin/sh", "/bin/ls", "/bin/rm"):
        told = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        libraries = [word for word in told.split() if word.startswith("/")]
        for file in (program, *libraries):
            (root / file[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, root / file[1:])
    (root / "etc").mkdir()
    (root / "etc/issue").write_text("old")
    (root / "absolute").symlink_to("/etc/issue")
    with tree_of(root) as tree:
        script = "echo new > /absolute; rm /bin/ls; exec ls /etc"
        done = tree.run(["chroot", ".", "/bin/sh", "-c", script], capture_output=True, text=True)
        assert "ls: not found" in done.stderr
        assert tree.diff() == {"etc/issue": "modified", "bin/ls": "deleted"}
    assert (root / "etc/issue").read_text() == "old"


def test_a_program_in_a_container_holds_on_while_the_tree_is_reset(source):
    """A reset gives the container the tree anew, while what was open before stays open, and harms nobody."""
    with tree_of(source) as tree, Container("c") as container:
        container.mount(tree, "/srv/app")
        script = "exec 3>> /srv/app/log; echo ready; while read line; do echo $line >&3; echo ok; done"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with container.popen(["sh", "-c", script], **pipes) as process:
            assert process.stdout.readline() == "ready\n"
            tree.reset()
            process.stdin.write("late\n")
            process.stdin.flush()
            assert process.stdout.readline() == "ok\n"
            process.stdin.close()
        assert tree.diff() == {}
        container.run(["sh", "-c", "echo new > /srv/app/a"], check=True)
        assert tree.diff() == {"a": "modified"}


def test_trees_of_several_threads(source, tmp_path):
    """Made at the same time, the first of the lab among them, each is its thread's own."""
    tree_of(source).close()
    Lab.close_current()
    failed = []

    def use(number):
        try:
            with CowTree(source, backend="overlay", temporary=tmp_path) as tree:
                tree.run(["sh", "-c", f"echo {number} > a"], check=True)
                tree.snapshot()
                tree.reset()
                tree.restore()
                assert tree.read_text("a") == f"{number}\n"
        except BaseException as error:  # noqa: BLE001 - told by the thread that asks
            failed.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def run_for_half_a_minute(tree):
    """Run commands one after the other."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        tree.run(["true"])


def test_a_lab_that_was_killed(source):
    """Its trees say so, can be closed, and new ones are made in a new lab."""
    with tree_of(source) as tree:
        tree.run(["touch", "new"], check=True)
        lab = Lab.current()
        os.kill(lab.pid, signal.SIGKILL)
        with pytest.raises(LabDied):
            run_for_half_a_minute(tree)  # on a busy machine its containers live for a moment more
        with pytest.raises(PoorContainerError, match="has ended"):
            tree.reset()
    with tree_of(source) as tree:
        tree.run(["touch", "new"], check=True)
        assert tree.diff() == {"new": "added"}


def test_a_frozen_tree_is_read_only(source):
    """What stands on it can rely on that: EROFS for whoever writes."""
    with tree_of(source) as tree:
        tree.run(["sh", "-c", "echo 1 > a"], check=True)
        with CowTree(tree) as above:
            done = tree.run(["sh", "-c", "echo 2 > a"], capture_output=True, text=True)
            assert os.strerror(errno.EROFS) in done.stderr
            assert above.read_text("a") == "1\n"


@pytest.mark.skipif(not ROOT, reason="an index needs file handles, which the kernel keeps from user namespaces")
def test_names_of_one_file_stay_names_of_one_file(source):
    """With the index a change by one name is seen under the other; a stored snapshot and a reset keep that."""
    os.link(source / "a", source / "same")
    with tree_of(source) as tree:
        tree.run(["sh", "-c", "echo x >> a"], check=True)
        assert (tree / "same").read_text() == (tree / "a").read_text() == "ax\n"
        assert (tree / "same").samefile(tree / "a")
        assert tree.diff() == {"a": "modified", "same": "modified"}
        tree.snapshot()
        tree.reset()
        assert (tree / "same").read_text() == "a"
        tree.restore()
        assert (tree / "same").samefile(tree / "a")


def test_nothing_is_left_when_the_process_is_killed(source):
    """No mount, no process, no file: an overlay that nobody has any more is gone."""
    code = """
        import os, sys
        from pytest_poorcontainer import CowTree
        tree = CowTree(sys.argv[1], backend="overlay")
        tree.run(["sh", "-c", "echo x > new"])
        print(os.getpid(), flush=True)
        sys.stdin.read()
    """
    tree_of(source).close()
    before = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    command = [sys.executable, "-c", textwrap.dedent(code), str(source)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        pid = int(process.stdout.readline())
        os.kill(pid, signal.SIGKILL)
    assert Path("/proc/self/mountinfo").read_text(encoding="utf-8") == before
    assert listed(source) == {"a", "b", "d", "d/x", "d/y", "d/sub", "d/sub/z"}
