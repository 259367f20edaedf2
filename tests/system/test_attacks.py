"""What an attacker in a container would try, on the machine's root and on another: each ends inside.

The list is that of known holes of other sandboxes: leaked descriptors and a working directory through them
(CVE-2024-21626), terminals (CVE-2017-5226), chroot and "..", set-uid programs, devices, tracing, the first process'
/proc, file handles (the "shocker" of 2014), nested user namespaces. Mounts have theirs in test_mounts_attacks.py.
"""

import os
import platform
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
from trees import UsrTree

from pytest_poorcontainer import Container, machine

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only real root could do harm here")
NOBODY = 65534
PYTHON = "/usr/bin/python3"


@pytest.fixture(params=["host", "tree"])
def box(request):
    """A container on either kind of root."""
    with Container("box", rootfs=None if request.param == "host" else UsrTree()) as container:
        yield container


def shell(container, script, **options):
    """Run a script in the container and return what it prints, errors included."""
    command = ["/bin/sh", "-c", script]
    return container.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options).stdout


def python(container, script, **options):
    """Run a script in the machine's own Python in the container and return what it prints, errors included."""
    command = [PYTHON, "-I", "-c", script]
    return container.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options).stdout


def test_no_descriptor_leaks(box, tmp_path):
    """A command has its three streams, whatever pytest holds, inheritable or not, and none of them is a directory."""
    held = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(held, True)
    try:
        seen = python(
            box,
            "import os\nfor n in sorted(os.listdir('/proc/self/fd')): print(n, os.path.exists(f'/proc/self/fd/{n}'))",
        )
    finally:
        os.close(held)
    assert [line.split()[0] for line in seen.splitlines() if line.endswith("True")] == ["0", "1", "2"]


@pytest.mark.parametrize("number", range(3, 24))
def test_no_working_directory_through_a_descriptor(box, number, tmp_path):
    """What the launching process holds can be nobody's working directory: it is refused, or it is not there."""
    with pytest.raises(OSError, match="proc/self/fd") as refused:
        box.run(["/bin/true"], cwd=f"/proc/self/fd/{number}")
    assert isinstance(refused.value, (FileNotFoundError, NotADirectoryError, PermissionError))


def test_a_directory_that_was_handed_in_is_no_working_directory(box, tmp_path):
    """A descriptor of a machine's directory that a test passes on purpose cannot become cwd= by its path."""
    held = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="proc/self/fd"):
            box.run(["/bin/true"], cwd="/proc/self/fd/9", pass_fds={9: held})
    finally:
        os.close(held)


def test_chroot_and_dotdot_end_at_its_own_root(box):
    """The oldest way out, a directory kept open across chroot(2), leads to the container's root."""
    said = python(
        box,
        "import os\n"
        "first = os.stat('/')\n"
        "kept = os.open('/', os.O_RDONLY)\n"
        "os.makedirs('/tmp/inner', exist_ok=True)\n"
        "os.chroot('/tmp/inner')\n"
        "os.fchdir(kept)\n"
        "for _ in range(64): os.chdir('..')\n"
        "os.chroot('.')\n"
        "now = os.stat('/')\n"
        "print((first.st_dev, first.st_ino) == (now.st_dev, now.st_ino))\n",
    )
    assert said == "True\n"


@pytest.mark.parametrize("what", ["root", "cwd", "fd", "exe", "map_files", "mem", "environ", "maps"])
def test_the_first_process_shows_nothing(box, what):
    """/proc/1/root and the like of our init are for nobody inside, its root included."""
    said = python(box, f"import os\nprint(os.path.exists('/proc/1/{what}/'), open('/proc/1/{what}').read(1))")
    assert "Permission denied" in said or "Errno 13" in said or "Errno 5" in said or "Is a directory" in said
    assert "True" not in said


def test_nothing_can_be_traced_that_is_not_its_own(box):
    """PTRACE_ATTACH to our init, and to the watcher above the command, is refused."""
    said = python(
        box,
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "for pid in (1, os.getppid()):\n"
        "    print(libc.ptrace(16, pid, 0, 0), ctypes.get_errno())\n",
    )
    assert said.split() == ["-1", "1", "-1", "1"]  # EPERM


def test_a_set_uid_program_in_a_root_that_can_be_written_gives_nothing(box):
    """A copy of id(1) that belongs to root and is set-uid runs as who started it."""
    shell(box, "cp /usr/bin/id /tmp/id; chmod 6755 /tmp/id; cp /usr/bin/id /etc/id; chmod 6755 /etc/id")
    for path in ("/tmp/id", "/etc/id"):
        assert stat.S_IMODE(int(shell(box, f"stat -c %a {path}"), 8)) == 0o6755
        assert shell(box, f"{path} -u; {path} -ru", user=NOBODY).split() == [str(NOBODY)] * 2


def test_no_device_can_be_made(box):
    """mknod(2) of a disk, of memory and of a terminal is refused everywhere."""
    for place in ("/tmp", "/etc", "/run", "/dev/shm"):
        for node in ("b 254 0", "c 1 1", "c 4 0"):
            assert "Operation not permitted" in shell(box, f"mknod {place}/node {node}")


@as_root
def test_a_device_that_the_tree_brings_along_opens_nothing(tmp_path):
    """A directory with the node of a disk in it, as an image may have: the node is there, and cannot be opened."""

    class Images(UsrTree):
        def fill(self, dir_fd):
            super().fill(dir_fd)
            os.mknod("zero", stat.S_IFCHR | 0o666, os.makedev(1, 5), dir_fd=dir_fd)

    with Container("box", rootfs=Images(files=[("node", "")])) as box:
        assert "Permission denied" in shell(box, "head -c 1 /zero")


def test_file_handles_reach_no_file(box):
    """open_by_handle_at(2), with which one file of a file system leads to all of them, is refused."""
    if platform.machine() != "x86_64":
        pytest.skip("the numbers of the system calls below are those of x86_64")
    said = python(
        box,
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "handle = ctypes.create_string_buffer(b'\\x08\\0\\0\\0\\x01\\0\\0\\0\\x02\\0\\0\\0\\0\\0\\0\\0' + bytes(128))\n"
        "mount = os.open('/usr', os.O_RDONLY)\n"
        "print(libc.syscall(304, mount, handle, 0), ctypes.get_errno())\n",
    )
    assert said.split() == ["-1", "1"]


@pytest.mark.parametrize(
    "inside", ["umount /proc", "umount /", "umount -l /sys", "mount -o remount,rw /usr", "mount -o remount,rw /"]
)
def test_a_user_namespace_of_its_own_uncovers_nothing(box, inside):
    """Who makes a user namespace in there is root in it, and can neither unmount nor make writable what we mounted."""
    said = shell(box, f"unshare -Urm sh -c '{inside} && echo done'")
    assert "done" not in said
    assert said


def test_pivoting_in_a_user_namespace_of_its_own_uncovers_nothing(box):
    """pivot_root(2) there gives it its own root under another name, and nothing of the lab's."""
    said = shell(
        box,
        "unshare -Urm sh -c 'mount -t tmpfs none /tmp && mkdir /tmp/old && pivot_root /tmp /tmp/old && "
        "/old/bin/ls /old /old/proc; /old/bin/umount -l /old; /old/bin/ls /old /proc /; echo /*'",
    )
    assert not {"lower", "skel", "late", "machine"} & set(said.replace("/", " ").split())


def test_its_files_cannot_harm_who_reads_them_outside(box):
    """A symbolic link that a container leaves where the machine's files are leads inside when we read through it."""
    with tempfile.NamedTemporaryFile(dir="/tmp") as file:  # not pytest's own, which containers see
        secret = file.name
        shell(box, f"ln -sf {secret} /etc/link; ln -sf ../../../../../../..{secret} /etc/climb; ln -sfn / /etc/up")
        for path in ("/etc/link", "/etc/climb", f"/etc/up{secret}"):
            with pytest.raises(FileNotFoundError):
                box.read(path)


def test_a_terminal_of_its_own_takes_no_input_for_ours(box):
    """TIOCSTI types into no terminal but the container's own: a command without one has none at all."""
    said = python(
        box,
        "import fcntl, os, termios\n"
        "for path in ('/dev/tty', '/dev/stdin', '/dev/ptmx'):\n"
        "    try:\n"
        "        fcntl.ioctl(os.open(path, os.O_RDWR), termios.TIOCSTI, b'x')\n"
        "        print('typed', path)\n"
        "    except OSError as error:\n"
        "        print(error.errno)\n",
    )
    assert "typed /dev/tty" not in said
    assert "typed /dev/stdin" not in said


def test_the_lines_to_it_have_no_name(box):
    """No socket of ours can be found by anybody: neither a path nor an abstract name."""
    named = {line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()[1:] if len(line.split()) > 7}
    with Container("more") as more:
        more.run(["true"], check=True)
        again = {
            line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()[1:] if len(line.split()) > 7
        }
    assert not {name for name in again - named if "poor" in name or "pc" in name}
    assert box.run(["/bin/true"]).returncode == 0


@as_root
def test_another_user_of_the_machine_cannot_look_inside(box):
    """An ordinary user sees that the processes exist, and can open neither their root nor their descriptors."""
    said = subprocess.run(
        ["/bin/sh", "-c", f"ls /proc/{box.pid}/root/ /proc/{box.pid}/fd; nsenter -m -t {box.pid} true"],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.stdout == ""
    assert said.stderr.count("ermission denied") + said.stderr.count("not permitted") == 3
