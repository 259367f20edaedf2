"""A container on another root than the machine's: what it sees, what it may change, what it cannot leave."""

import os
import subprocess
from pathlib import Path

import pytest
from trees import UsrTree

from pytest_poorcontainer import Container, LabError, UsageError, machine
from pytest_poorcontainer.container.settings import CAPABILITIES

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)


@pytest.fixture
def box():
    """A container with nothing of the machine but its programs."""
    with Container("box", rootfs=UsrTree()) as container:
        yield container


def shell(container, script, **options):
    """Run a script in the container and return what it prints, errors included."""
    done = container.run(
        ["/bin/sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    return done.stdout


def test_it_sees_its_tree_and_what_every_container_has(box):
    """The tree's names, its own /dev /proc /sys /tmp /run and names in /etc; nothing of the machine's."""
    own = {"dev", "etc", "proc", "run", "sys", "tmp", "usr"}
    assert set(shell(box, "ls /").split()) - {"bin", "lib", "lib32", "lib64", "libx32", "sbin"} == own
    assert set(shell(box, "ls /etc").split()) == {"group", "hostname", "hosts", "passwd", "resolv.conf"}
    assert shell(box, "hostname; cat /etc/hostname").split() == ["box", "box"]
    assert "127.0.1.1\tbox" in shell(box, "cat /etc/hosts")
    assert box.rootfs == "tree of /usr"


def test_its_devices_are_the_harmless_ones(box):
    """The six of DESIGN, its own terminals, queues and shared memory, and the usual links."""
    found = set(shell(box, "ls /dev").split())
    assert found == {
        "fd",
        "full",
        "log",
        "mqueue",
        "null",
        "ptmx",
        "pts",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
        "tty",
        "urandom",
        "zero",
    }
    assert shell(box, "echo x > /dev/null; head -c 3 /dev/zero | wc -c; ls /dev/pts").split() == ["3", "ptmx"]
    assert box.run(["/bin/sh", "-c", "echo x > /dev/full"], capture_output=True).returncode != 0


def test_its_processes_and_network_are_its_own(box):
    """Pid 1 is our init, /proc is of its pid namespace, /sys of its network."""
    assert shell(box, "cat /proc/1/comm").strip() == "pc-init"
    assert len(shell(box, "cd /proc; echo [0-9]*").split()) < 8
    assert shell(box, "ls /sys/class/net").split() == ["lo"]


def test_all_of_it_can_be_changed_and_nobody_else_sees_it():
    """Files of the tree can be changed, removed and added anywhere, also in /; the next container has the tree."""
    tree = UsrTree(files=[("etc/mine", "as it was\n"), ("opt/data", "data\n")])
    with Container("a", rootfs=tree) as a, Container("b", rootfs=tree) as b:
        assert shell(a, "echo new > /etc/mine; rm -r /opt; mkdir /srv; echo x > /new; cat /etc/mine /new; ls /") != ""
        assert shell(a, "cat /etc/mine /new; ls -d /opt").startswith("new\nx\n")
        assert shell(b, "cat /etc/mine /opt/data; ls /new 2>&1").startswith("as it was\ndata\n")
    with Container("c", rootfs=tree) as c:
        assert shell(c, "cat /etc/mine; ls -d /srv /new").startswith("as it was\n")


def test_the_machine_s_directories_in_it_are_read_only(box):
    """What is bound from the machine cannot be changed, whoever tries."""
    assert "Read-only file system" in shell(box, "echo x > /usr/poor-container-test")
    assert not Path("/usr/poor-container-test").exists()


def test_readonly_leaves_but_the_places_of_its_own():
    """With readonly=True nothing of the tree can be changed; /tmp, /run and /dev/shm can, and its names are its own."""
    with Container("box", rootfs=UsrTree(), readonly=True) as box:
        for path in ("/x", "/etc/x", "/etc/passwd", "/dev/x"):
            assert "Read-only file system" in shell(box, f"echo x >> {path}")
        assert shell(box, "for d in /tmp /run /dev/shm; do echo $d > $d/x; cat $d/x; done").split() == [
            "/tmp",
            "/run",
            "/dev/shm",
        ]
        assert shell(box, "cat /etc/hostname") == "box\n"


def test_a_tree_that_has_links_where_a_container_has_directories():
    """A tree whose /tmp, /run or /etc is a link or a file gets directories there: nothing is followed."""

    class Odd(UsrTree):
        def fill(self, dir_fd):
            super().fill(dir_fd)
            os.symlink("/usr/share", "tmp", dir_fd=dir_fd)
            os.symlink("../../..", "run", dir_fd=dir_fd)
            os.close(os.open("proc", os.O_CREAT | os.O_WRONLY, dir_fd=dir_fd))

    with Container("odd", rootfs=Odd(files=[("odd", "")])) as box:
        assert shell(box, "ls -ld /tmp /run /proc | cut -c1").split() == ["d", "d", "d"]
        assert shell(box, "ls -A /tmp; ls /run; cat /proc/1/comm").split() == ["lock", "pc-init"]


def test_no_way_leads_out_of_it(box):
    """Neither .. nor chroot and .., nor a directory that was kept open, shows anything but the container's own root."""
    before = shell(box, "ls -id /").split()[0]
    assert shell(box, "ls -id /../../.. | cut -d/ -f1").split()[0] == before
    escape = (
        "import os\n"
        "kept = os.open('/', os.O_RDONLY)\n"
        "os.makedirs('/tmp/inner', exist_ok=True)\n"
        "os.chroot('/tmp/inner')\n"
        "os.fchdir(kept)\n"
        "for _ in range(30): os.chdir('..')\n"
        "os.chroot('.')\n"
        "print(sorted(os.listdir('/')), os.stat('/').st_ino)\n"
    )
    said = box.run(["/usr/bin/python3", "-c", escape], capture_output=True, text=True, check=True).stdout
    assert said.endswith(f" {before}\n")
    assert "lower" not in said
    assert "machine" not in said


def test_the_host_s_network_can_be_had_with_it():
    """With network="host" it has the machine's interfaces, and /sys shows them."""
    with Container("box", rootfs=UsrTree(), network="host") as box:
        assert set(shell(box, "ls /sys/class/net").split()) == {path.name for path in Path("/sys/class/net").iterdir()}


def test_capabilities_are_those_that_were_asked_for():
    """A container keeps what it is told to, by name; the default is all that containers have."""

    def effective(container):
        line = next(
            line for line in shell(container, "cat /proc/self/status").splitlines() if line.startswith("CapEff")
        )
        return int(line.split()[1], 16)

    with Container("all") as box:
        assert effective(box) == sum(1 << number for number in CAPABILITIES.values())
    with Container("some", capabilities=["net_bind_service", "CAP_CHOWN"]) as box:
        assert effective(box) == 1 << 10 | 1
    with Container("none", capabilities=[]) as box:
        assert effective(box) == 0
        assert "Operation not permitted" in shell(box, "chroot /tmp true")


def test_rlimits_hold_for_every_command():
    """Soft and hard limits are those that were given, for each command anew."""
    with Container("box", rlimits={"nofile": (33, 44), "core": 0, "fsize": (1 << 20, None)}) as box:
        for _ in range(2):
            assert shell(box, "ulimit -Sn; ulimit -Hn; ulimit -c; ulimit -Sf; ulimit -Hf").split()[:3] == [
                "33",
                "44",
                "0",
            ]
        assert "File too large" in shell(box, "trap '' XFSZ; head -c 2000000 /dev/zero > /tmp/x")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"capabilities": ["sys_admin"]}, "cannot have the capability 'sys_admin'; what it can have: chown"),
        ({"capabilities": "chown"}, "a list of names"),
        ({"rlimits": {"files": 1}}, "no resource 'files'.* nofile"),
        ({"rlimits": {"nofile": -1}}, "a number from 0 up"),
        ({"rlimits": {"nofile": (9, 3)}}, "above its hard limit"),
        ({"rlimits": {"nofile": (1, 2, 3)}}, "a pair of soft and hard limit"),
        ({"rlimits": ["nofile"]}, "a mapping"),
        ({"readonly": True}, "readonly=True is for rootfs="),
        ({"network": "mine"}, "one of 'none', 'host'"),
    ],
    ids=str,
)
def test_what_is_no_setting_is_refused_before_anything_is_built(arguments, said):
    """The message says what was expected."""
    with pytest.raises(UsageError, match=said):
        Container("box", **arguments)


def test_a_limit_that_may_not_be_raised_is_told_by_the_command():
    """A hard limit above what this process has may be refused by the kernel: then the command says so, and names it."""
    with Container("box", rlimits={"nofile": 1 << 40}) as box, pytest.raises(LabError, match=r"rlimits.* hard limit"):
        box.run(["true"])


def test_a_failing_source_leaves_nothing():
    """What a source raises arrives as it is, and the next container is built."""

    class Broken(UsrTree):
        def fill(self, dir_fd):
            super().fill(dir_fd)
            raise ValueError("no such image")

    with pytest.raises(ValueError, match="no such image"):
        Container("box", rootfs=Broken(files=[("broken", "")]))
    with Container("box", rootfs=UsrTree()) as box:
        assert shell(box, "echo here") == "here\n"


def test_a_directory_that_cannot_be_one_is_named(tmp_path):
    """A place of the machine that is not there is told with its path."""

    class Missing(UsrTree):
        def binds(self):
            return [(str(tmp_path / "none"), "/none")]

    with pytest.raises(LabError, match=r"cannot open .*none: ENOENT"):
        Container("box", rootfs=Missing(files=[("missing", "")]))
