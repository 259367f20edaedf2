"""What a container can do to the machine, and see of it: as its own root, trying."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from pytest_poorcontainer import Container, Network, machine

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only real root could do harm here")


@pytest.fixture
def box():
    """A container of its own."""
    with Container("box") as container:
        yield container


def shell(container, script):
    """Run a script in the container and return what it prints, errors included."""
    done = container.run(["sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout


@pytest.mark.parametrize("path", ["/usr/x", "/usr/bin/yes", "/x", "/boot/x", "/dev/x", "/sys/x"])
def test_the_machine_s_files_are_read_only(box, path):
    """Neither new files nor changed ones, anywhere outside of the private directories."""
    said = shell(box, f"echo x >> {path}")
    assert "Read-only file system" in said or "Permission denied" in said
    assert not Path("/usr/x").exists()


@pytest.mark.parametrize("directory", ["/etc", "/var", "/var/lib", "/tmp", "/run", "/dev/shm", "/root"])
def test_private_directories_take_files_that_the_machine_never_sees(box, directory):
    """What is written there is there, and on the machine it is not."""
    name = f"{directory}/poor-container-test-{os.getpid()}"
    assert shell(box, f"echo here > {name}; cat {name}") == "here\n"
    if os.access(directory, os.X_OK):
        assert not Path(name).exists()


def test_configuration_files_can_be_changed_in_place(box):
    """A line appended to a file of the distribution's is in the container's file, and only there."""
    before = Path("/etc/passwd").read_text()
    assert shell(box, "echo 'x:x:1:1::/:/bin/sh' >> /etc/passwd; tail -n 1 /etc/passwd") == "x:x:1:1::/:/bin/sh\n"
    assert shell(box, "rm /etc/passwd; ls /etc/passwd 2>&1; true").endswith("No such file or directory\n")
    assert Path("/etc/passwd").read_text() == before


def test_containers_do_not_see_each_other_s_changes():
    """Two of a kind side by side: each has its own /etc and /run."""
    with Network() as network:
        a, b = network.pair()
        shell(a, "echo a > /etc/mine; echo a > /run/mine")
        assert shell(b, "cat /etc/mine /run/mine").count("No such file") == 2


def test_processes_of_the_machine_are_not_there(box):
    """The container has a pid 1 of its own and sees no process of the test's."""
    pids = [int(word) for word in shell(box, "cd /proc; echo [0-9]*").split()]
    assert pids[0] == 1
    assert len(pids) < 10


def test_a_command_inherits_nothing_but_its_streams(box):
    """No descriptor of the lab's, the agent's or pytest's comes along."""
    with Path("/etc/hostname").open() as open_file:
        os.set_inheritable(open_file.fileno(), True)
        assert shell(box, "ls /proc/self/fd").split() == ["0", "1", "2", "3"]  # 3 is the directory that ls reads


def test_its_init_cannot_be_harmed_from_inside(box):
    """Root in the container can neither kill nor trace pid 1, nor look into it."""
    assert "Permission denied" in shell(box, "ls /proc/1/fd; cat /proc/1/mem")
    box.run(["sh", "-c", "kill -9 1; kill -STOP 1"])
    assert shell(box, "echo alive") == "alive\n"


def test_the_lab_s_own_directories_are_covered(box):
    """Where the lab keeps the machine's proc and the lower directories a container has its own proc."""
    assert "machine" not in shell(box, "ls /proc").split()
    assert shell(box, "umount /proc; ls /proc/1/stat").endswith("/proc/1/stat\n")


def test_no_new_privileges_and_few_capabilities(box):
    """Set-uid programs give nothing, and what reaches out of a container is not in the bounding set."""
    status = shell(box, "cat /proc/self/status")
    assert "NoNewPrivs:\t1" in status
    bounding = int(status.split("CapBnd:\t")[1].split()[0], 16)
    dac_read_search, sys_admin, sys_ptrace, sys_module, mknod = 2, 21, 19, 16, 27
    assert not any(bounding >> bit & 1 for bit in (dac_read_search, sys_admin, sys_ptrace, sys_module, mknod))


@as_root
@pytest.mark.parametrize("file", ["kernel/panic", "vm/swappiness", "kernel/core_pattern"])
def test_the_machine_s_kernel_settings_are_read_only(box, file):
    """Root in a container without a user namespace cannot write sysctls that are not the network's."""
    assert "Read-only file system" in shell(box, f"cat /proc/sys/{file} > /proc/sys/{file}")


@as_root
def test_sysrq_is_out_of_reach(box):
    """Nobody reboots the machine from a container."""
    if not Path("/proc/sysrq-trigger").exists():
        pytest.skip("this kernel has no sysrq")
    assert "Read-only file system" in shell(box, ": >> /proc/sysrq-trigger")  # opened, not written to


def test_the_network_s_settings_are_the_container_s_own(box):
    """Those of the network can be written, and the machine's stay as they are."""
    file = Path("/proc/sys/net/ipv4/ip_default_ttl")
    before = file.read_text()
    assert shell(box, f"echo 33 > {file}; cat {file}") == "33\n"
    assert file.read_text() == before


@as_root
def test_with_the_machine_s_network_it_cannot_be_administered():
    """A container that shares the machine's network sees it, and may change nothing of it."""
    with Container("box", network="host") as box:
        assert shell(box, "cat /sys/class/net/lo/ifindex") == "1\n"
        assert "Operation not permitted" in shell(box, "ip link set lo mtu 65536")
        assert "Read-only file system" in shell(
            box, "cat /proc/sys/net/ipv4/ip_forward > /proc/sys/net/ipv4/ip_forward"
        )


def test_shared_memory_and_queues_are_its_own(box):
    """Host name, System V IPC and POSIX queues are not the machine's."""
    assert shell(box, "hostname; cat /proc/sysvipc/shm | wc -l; ls /dev/mqueue | wc -l").split() == ["box", "1", "0"]


def test_memory_of_the_private_directories_goes_with_the_container():
    """What was written into a container's /tmp is free again when it is closed."""

    def free():
        return int(next(line for line in Path("/proc/meminfo").read_text().splitlines() if "Shmem:" in line).split()[1])

    with Container("box") as box:
        before = free()
        box.run(["sh", "-c", "head -c 64000000 /dev/zero > /tmp/big"], check=True)
        assert free() - before > 40_000
    deadline = time.monotonic() + 5
    while free() - before > 30_000:  # it is unmounted right after close() has returned
        assert time.monotonic() < deadline
        time.sleep(0.01)
