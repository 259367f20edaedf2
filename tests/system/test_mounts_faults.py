"""Faults of disks, each on a program that runs: it meets the fault, and goes on when that is taken back."""

import subprocess

import pytest

from pytest_poorcontainer import Container, LabError, machine

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["unshared_mounts"].works, reason=machine.fixtures_ready()["unshared_mounts"].reason
)


@pytest.fixture
def box():
    """A container with a small disk on /data."""
    with Container("box") as container:
        container.mounts.tmpfs("/data", size="1M", inodes=20)
        yield container


def writes(container, path, size="64k"):
    """Try to write a file; return what is complained about, "" for nothing."""
    script = f"head -c {size} /dev/zero >{path}"
    told = container.run(["/bin/sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return told.stdout.strip()


def test_a_disk_is_full_for_who_writes_now(box):
    """ENOSPC for new bytes; what is deleted makes room; afterwards all is as it was."""
    assert writes(box, "/data/a") == ""
    with box.mounts.full("/data"):
        assert "No space left" in writes(box, "/data/b")
        assert box.run(["rm", "/data/a"]).returncode == 0
        assert writes(box, "/data/b") == ""
    assert writes(box, "/data/c", "800k") == ""
    assert "No space left" in writes(box, "/data/d", "800k"), "the former size is back"


def test_an_empty_disk_can_be_full(box):
    """Also where nothing is in use yet, which for tmpfs would mean no limit."""
    with box.mounts.full("/data"):
        assert "No space left" in writes(box, "/data/a", "10k")
    assert writes(box, "/data/a", "900k") == ""


def test_a_program_that_keeps_its_file_open_meets_it(box):
    """A writer fails half-way and goes on."""
    script = (
        "import sys\nf = open('/data/log', 'ab', buffering=0)\nfor line in sys.stdin:\n"
        " try: print(f.write(b'x' * 8192))\n except OSError as e: print(e.errno)"
    )
    writer = box.popen(["python3", "-uc", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def write():
        writer.stdin.write("\n")
        writer.stdin.flush()
        return int(writer.stdout.readline())

    assert write() == 8192
    with box.mounts.full("/data"):
        assert write() == 28
    assert write() == 8192
    writer.stdin.close()
    writer.wait()


def test_no_inodes_are_left(box):
    """No new file, but bytes to those that are there."""
    assert writes(box, "/data/a", "1k") == ""
    with box.mounts.out_of_inodes("/data/a"):
        assert "No space left" in writes(box, "/data/b", "1k")
        assert writes(box, "/data/a", "100k") == ""
    assert writes(box, "/data/b", "1k") == ""
    assert "nr_inodes=20" in next(entry.options for entry in box.mounts.table() if entry.ours)


def test_an_overlay_is_full(box):
    """The file system that it writes to is what fills."""
    box.mounts.overlay("/usr/local", size="2M")
    assert writes(box, "/usr/local/a") == ""
    with box.mounts.full("/usr/local"):
        assert "No space left" in writes(box, "/usr/local/b")
    assert writes(box, "/usr/local/b") == ""


def test_the_container_s_own_disk_is_full(box):
    """/tmp, /run and what the container may change of /etc and /var are on one."""
    with box.mounts.full("/tmp"):
        for path in ("/tmp/a", "/run/a", "/dev/shm/a", "/etc/a", "/var/a"):
            assert "No space left" in writes(box, path, "10k"), path
        assert writes(box, "/data/a") == "", "this is another one"
    assert writes(box, "/var/a") == ""


def test_a_disk_gets_another_size(box):
    """Larger and smaller, and back; less than what it holds is refused."""
    with box.mounts.resize("/data", size="4M"):
        assert writes(box, "/data/a", "3M") == ""
        assert box.run(["rm", "/data/a"]).returncode == 0
    assert "No space left" in writes(box, "/data/a", "3M")
    box.run(["rm", "/data/a"])
    assert writes(box, "/data/a", "500k") == ""
    with pytest.raises(LabError, match="EINVAL"):
        box.mounts.resize("/data", size="100k")


def test_a_disk_goes_read_only_half_way(box):
    """``remount`` is refused while a file is open for writing, with who has it; then it holds for all, and back."""
    writer = box.popen(["/bin/sh", "-c", "exec 3>/data/open; read go <&0; exec 3>&-; read go"], stdin=subprocess.PIPE)
    box.run(["/bin/sh", "-c", "until [ -e /data/open ]; do sleep 0.01; done"])
    with pytest.raises(LabError, match=rf"EBUSY .*process {writer.pid_inside} \(sh\) of the container has /data/open"):
        box.mounts.remount("/data", readonly=True)
    writer.stdin.write(b"\n")
    writer.stdin.flush()
    box.run(["/bin/sh", "-c", f"while [ -e /proc/{writer.pid_inside}/fd/3 ]; do sleep 0.01; done"])
    with box.mounts.remount("/data", readonly=True):
        assert "Read-only" in writes(box, "/data/a")
    assert writes(box, "/data/a") == ""
    writer.kill()
    writer.wait()


@pytest.mark.parametrize("path", ["/data", "/etc", "/etc/hosts", "/var/log", "/usr/local"])
def test_any_place_can_be_made_read_only(box, path):
    """A mount, a directory below one, a file; what is read-only already stays so."""
    target = path if path.startswith("/etc/") else f"{path}/new"
    before = writes(box, target, "1k")
    with box.mounts.readonly(path):
        assert "Read-only" in writes(box, target, "1k")
    assert writes(box, target, "1k") == before


def test_read_only_is_for_all_below(box):
    """All that the container could write is read-only, and afterwards just that can be written again."""
    places = ("/tmp", "/etc", "/var/lib", "/data", "/run", "/usr")
    before = [writes(box, f"{place}/x", "1k") for place in places]
    assert ["Read-only" in text for text in before] == [False] * 5 + [True]
    with box.mounts.readonly("/"):
        assert all("Read-only" in writes(box, f"{place}/x", "1k") for place in places)
    assert [writes(box, f"{place}/x", "1k") for place in places] == before


def test_programs_may_not_run(box):
    """EACCES for what lies there; the same program elsewhere runs."""
    box.run(["cp", "/bin/true", "/data/true"], check=True)
    box.run(["cp", "/bin/true", "/srv/true"], check=True)
    assert box.run(["/data/true"]).returncode == 0
    with box.mounts.noexec("/data"), box.mounts.noexec("/srv"):
        for program in ("/data/true", "/srv/true"):
            with pytest.raises(PermissionError):
                box.run([program])
    assert box.run(["/data/true"]).returncode == box.run(["/srv/true"]).returncode == 0


def test_faults_compose(box):
    """Several at once, undone in another order than they came."""
    full = box.mounts.full("/data")
    readonly = box.mounts.readonly("/data")
    assert "Read-only" in writes(box, "/data/a")
    readonly.undo()
    assert "No space left" in writes(box, "/data/a")
    full.undo()
    assert writes(box, "/data/a") == ""
    first, second = box.mounts.full("/data"), box.mounts.full("/data")
    second.undo()
    assert "No space left" in writes(box, "/data/b"), "the first one still holds"
    first.undo()
    assert writes(box, "/data/b") == ""
