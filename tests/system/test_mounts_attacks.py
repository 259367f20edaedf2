"""What a program in a container could try while mounts are made in it: all of it ends inside."""

import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from pytest_poorcontainer import Container, LabError, machine

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["unshared_mounts"].works, reason=machine.fixtures_ready()["unshared_mounts"].reason
)

ROUNDS = 60


@pytest.fixture
def box():
    """A container on the machine's root."""
    with Container("box") as container:
        yield container


def shell(container, script):
    """Run a script in the container; return what it prints, errors included."""
    done = container.run(["/bin/sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout


def race(container, script):
    """Start a Python that does what the script says for as long as it lives."""
    return container.popen(["python3", "-c", f"import os\n{script}"])


def tried(mount):
    """Return what a mount returns; None when it was refused, which is for a reason of the kernel's."""
    try:
        return mount()
    except LabError as error:
        if not error.errno:
            raise
        return None


def mount_many(container):
    """Mount until that fails, for half a minute at most."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        container.mounts.tmpfs("/data")
        container.mounts.unmount("/data")


@pytest.mark.parametrize(
    "target", ["/etc/passwd-outside", "../../../../../../../etc", "/proc/1/root/etc", "/proc/self/cwd", "/srv/real"]
)
def test_a_link_is_no_mount_point(box, tmp_path, target):
    """A symbolic link is refused, wherever it leads, and the error says where that is."""
    box.run(["mkdir", "-p", "/srv/real"], check=True)
    box.run(["ln", "-s", target, "/srv/link"], check=True)
    with pytest.raises(LabError, match=rf"ELOOP .*symbolic link to {target}"):
        box.mounts.bind(tmp_path, "/srv/link")
    assert [entry for entry in box.mounts.table() if entry.ours] == []


def test_links_on_the_way_lead_where_they_lead_inside(box, tmp_path):
    """Absolute links and many dots are looked up from the container's root, and the machine has nothing of it."""
    box.run(["/bin/sh", "-c", "ln -s /var /srv/absolute; ln -s ../../../../../var /srv/dots"], check=True)
    box.mounts.tmpfs("/srv/absolute/ours-one/deep")
    box.mounts.tmpfs("/srv/dots/ours-two")
    assert shell(box, "ls -d /var/ours-one/deep /var/ours-two") == "/var/ours-one/deep\n/var/ours-two\n"
    assert not list(Path("/var").glob("ours-*"))


def test_links_of_proc_are_not_followed(box):
    """/proc/PID/root, cwd and fd of whatever process: no mount goes there."""
    for target in ("/proc/1/root/srv", "/proc/self/root/srv", "/proc/1/cwd/x", "/proc/self/fd/3/x"):
        with pytest.raises(LabError, match=r"ELOOP|ENOENT|EEXIST|EACCES"):
            box.mounts.tmpfs(target)
    assert [entry for entry in box.mounts.table() if entry.ours] == []


def test_a_race_of_renames_and_links_leads_nowhere_else(box, tmp_path):
    """While the place is now a directory and now a link out, mounts land on the directory or are refused."""
    racer = race(
        box,
        (
            "os.makedirs('/srv/a/data'); os.symlink('/etc', '/srv/b')\n"
            "while True:\n os.rename('/srv/a', '/srv/x'); os.rename('/srv/b', '/srv/a')\n"
            " os.rename('/srv/a', '/srv/b'); os.rename('/srv/x', '/srv/a')"
        ),
    )
    (tmp_path / "marked").touch()
    landed = refused = 0
    for _ in range(ROUNDS):
        mount = tried(lambda: box.mounts.bind(tmp_path, "/srv/a/data"))
        if mount is None:
            refused += 1
            continue
        landed += 1
        try:
            mount.undo()
        except LabError:
            # Its directory is elsewhere at the moment, or something else is there.
            racer.send_signal(19)
            shell(box, "[ -e /srv/x ] && mv -T /srv/a /srv/b && mv -T /srv/x /srv/a")
            mount.undo()
            racer.send_signal(18)
    racer.kill()
    racer.wait()
    assert landed + refused == ROUNDS
    assert not Path("/etc/data").exists()
    assert Path("/etc/passwd").exists()


def test_a_race_on_a_directory_that_is_missing(box):
    """Who makes a link where a directory is about to be made gets a refusal, and the machine no directory."""
    racer = race(
        box,
        (
            "while True:\n"
            " try: os.symlink('/usr/local', '/srv/new')\n"
            " except OSError: pass\n"
            " try: os.unlink('/srv/new')\n"
            " except OSError: pass"
        ),
    )
    before = sorted(Path("/usr/local").iterdir())
    for number in range(ROUNDS):
        tried(lambda place=f"/srv/new/deep{number}": box.mounts.tmpfs(place))
    racer.kill()
    racer.wait()
    assert sorted(Path("/usr/local").iterdir()) == before


def test_nobody_inside_can_undo_a_mount(box, tmp_path):
    """Root in there has no CAP_SYS_ADMIN; in a user namespace of its own our mounts are locked."""
    (tmp_path / "f").write_text("ours")
    box.run(["/bin/sh", "-c", "mkdir /srv/d && echo under >/srv/d/f"], check=True)
    box.mounts.bind(tmp_path, "/srv/d", readonly=True)
    box.mounts.readonly("/etc")
    inside = (
        "umount /srv/d; umount -l /srv/d; mount -o remount,rw /srv/d; mount -o remount,bind,rw /srv/d; umount /etc;"
        "mount -o remount,bind,rw /etc; cat /srv/d/f; echo x >/srv/d/g; echo x >/etc/g"
    )
    for script in (inside, f"unshare -Urm sh -c '{inside}'"):
        text = shell(box, script)
        assert "under" not in text
        assert not (tmp_path / "g").exists()
        assert not box.exists("/etc/g")
    assert box.read("/srv/d/f") == "ours"


def test_set_uid_and_devices_of_a_bind_give_nothing(box, tmp_path):
    """Mounts are nosuid and nodev, with what is mounted below."""
    if os.geteuid() != 0:
        pytest.skip("only root can make such files")
    (tmp_path / "id").write_bytes(Path("/usr/bin/id").read_bytes())
    (tmp_path / "id").chmod(0o4755)
    os.mknod(tmp_path / "null", 0o20666, os.makedev(1, 3))
    tmp_path.chmod(0o755)
    box.mounts.bind(tmp_path, "/data")
    told = box.run(["/data/id", "-u"], user="nobody", capture_output=True, text=True)
    assert told.stdout == "65534\n"
    assert "Permission denied" in shell(box, "cat /data/null")


def test_the_table_is_the_kernel_s_whatever_stands_in_paths(box):
    """Spaces, newlines and the table's own separator in a name make no entry that is not there."""
    odd = "/srv/a b\n99 1 0:1 / /fake rw - tmpfs fake rw\\040"
    box.mounts.tmpfs(odd, size=4096)
    assert [entry.target for entry in box.mounts.table() if entry.ours] == [odd]
    assert "/fake" not in [entry.target for entry in box.mounts.table()]


def test_a_container_that_dies_meanwhile(box):
    """A mount that is asked for while the container is killed is made or refused, and the next container works."""
    for _ in range(10):
        with Container("doomed") as doomed:
            killer = threading.Thread(target=os.kill, args=(doomed.pid, 9))
            killer.start()
            with pytest.raises(Exception, match=r"ended|ESRCH|ECHILD|killed"):
                mount_many(doomed)
            killer.join()
    assert box.mounts.tmpfs("/data")


def test_a_source_that_vanishes_while_it_is_used(box, tmp_path):
    """What was removed on the machine is empty in there; a new container of it is refused by name."""
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone/f").write_text("1")
    box.mounts.bind(tmp_path / "gone", "/data")
    (tmp_path / "gone/f").unlink()
    (tmp_path / "gone").rmdir()
    assert "No such file" in shell(box, "cat /data/f; touch /data/g")
    with pytest.raises(LabError, match=r"gone: ENOENT"):
        box.mounts.bind(tmp_path / "gone", "/data2")
