"""Mounts of a container's own: each kind, where it goes, that it is seen inside alone, and what is refused."""

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from descriptors import descriptor_count

from pytest_poorcontainer import Container, LabError, MountEntry, UsageError, machine
from pytest_poorcontainer.mounts import KINDS

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["unshared_mounts"].works, reason=machine.fixtures_ready()["unshared_mounts"].reason
)


@pytest.fixture
def box():
    """A container on the machine's root."""
    with Container("box") as container:
        yield container


def shell(container, script):
    """Run a script in the container; return its status and what it prints, errors included."""
    done = container.run(["/bin/sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def ours(container):
    """Return where mounts were made on request."""
    return [entry.target for entry in container.mounts.table() if entry.ours]


def below(directory):
    """Return the machine's names below a directory."""
    return sorted(str(path) for path in Path(directory).rglob("*"))


def test_a_tmpfs_has_size_inodes_mode_and_owner(box):
    """What was asked for is what the kernel keeps; the machine has not even the directory."""
    box.mounts.tmpfs("/var/lib/app", size="1M", inodes=10, mode=0o2750, owner=7)
    status, text = shell(box, "stat -c '%a %u' /var/lib/app; df --output=size,itotal /var/lib/app | tail -1")
    owner = "0" if box.read("/proc/self/uid_map").split()[2] == "1" else "7"  # where all share one id
    assert (status, text.split()) == (0, ["2750", owner, "1024", "10"])
    assert shell(box, "head -c 2M /dev/zero >/var/lib/app/big")[0] != 0
    assert not Path("/var/lib/app").exists()
    (entry,) = (entry for entry in box.mounts.table() if entry.ours)
    assert isinstance(entry, MountEntry)
    assert (entry.target, entry.kind, entry.root, entry.readonly) == ("/var/lib/app", "tmpfs", "/", False)
    assert {"nosuid", "nodev", "size=1024k", "nr_inodes=10"} <= set(entry.options)
    assert str(entry).startswith("/var/lib/app tmpfs rw,nosuid,nodev")


def test_a_bind_shows_the_machine_s_and_changes_it(box, tmp_path):
    """A directory is the machine's own, both ways; read-only it cannot be changed from inside."""
    (tmp_path / "one").write_text("1")
    box.mounts.bind(tmp_path, "/data")
    box.mounts.bind(tmp_path, "/fixed", readonly=True)
    assert shell(box, "cat /data/one /fixed/one; echo 2 >/data/two")[0] == 0
    assert (tmp_path / "two").read_text() == "2\n"
    (tmp_path / "three").write_text("3")
    status, text = shell(box, "cat /fixed/two /fixed/three; echo 4 >/fixed/four")
    assert (status, "Read-only file system" in text) == (2, True)
    assert not (tmp_path / "four").exists()


def test_read_only_is_for_mounts_below_too(tmp_path):
    """What is mounted below the source is as read-only as the source (mount_setattr(2), AT_RECURSIVE)."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount below the source")
    (tmp_path / "outer/inner").mkdir(parents=True)
    script = (
        "mount -t tmpfs none outer/inner && python3 -c 'from pytest_poorcontainer import Container\n"
        'with Container() as box:\n box.mounts.bind("outer", "/data", readonly=True)\n'
        ' print(box.run(["touch", "/data/inner/x"], capture_output=True, text=True).stderr)\''
    )
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["unshare", "-m", "sh", "-c", script]
    done = subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True, env=env)
    assert "Read-only file system" in done.stdout, done.stderr


def test_a_file_on_a_file(box, tmp_path):
    """A file can be bound, over one that is there and where there is none; a directory cannot take its place."""
    (tmp_path / "f").write_text("ours\n")
    box.mounts.bind(tmp_path / "f", "/etc/hostname")
    box.mounts.bind(tmp_path / "f", "/usr/new/file")
    assert shell(box, "cat /etc/hostname /usr/new/file") == (0, "ours\nours\n")
    with pytest.raises(LabError, match=r"EISDIR .*must be one"):
        box.mounts.bind(tmp_path / "f", "/etc")
    with pytest.raises(LabError, match=r"ENOTDIR .*on a directory only"):
        box.mounts.bind(tmp_path, "/etc/passwd")


def test_missing_places_are_made_in_the_private_layer(box, tmp_path):
    """Below a directory that the container cannot change all looks as before, and the machine has nothing of it."""
    listed = shell(box, "ls -a /usr /usr/lib")[1]
    machine_s = below("/usr/local")
    box.mounts.bind(tmp_path, "/usr/local/a/b/c")
    box.mounts.tmpfs("/usr/local/a/d")
    box.mounts.tmpfs("/new/at/the/root")
    assert shell(box, "ls /usr/local/a /new/at/the") == (0, "/new/at/the:\nroot\n\n/usr/local/a:\nb\nd\n")
    assert shell(box, "ls -a /usr /usr/lib")[1] == listed
    assert shell(box, "touch /usr/local/x")[0] != 0, "the cover is as read-only as what it covers"
    assert below("/usr/local") == machine_s
    assert not Path("/new").exists()
    assert ours(box) == ["/usr/local/a/b/c", "/usr/local/a/d", "/new/at/the/root"]


def test_an_overlay_makes_a_directory_writable(box):
    """Changes are the container's alone, and gone with the mount; what is mounted below stays."""
    box.mounts.tmpfs("/usr/local/deep")
    box.write("/usr/local/deep/file", "kept")
    before = shell(box, "ls /usr/share/doc | wc -l")
    overlay = box.mounts.overlay("/usr")
    assert shell(box, "rm -r /usr/share/doc; echo hi >/usr/bin/new; cat /usr/local/deep/file; ls /usr/share/doc") == (
        2,
        "keptls: cannot access '/usr/share/doc': No such file or directory\n",
    )
    assert ours(box) == ["/usr", "/usr/local/deep"]
    overlay.undo()
    assert shell(box, "ls /usr/share/doc | wc -l") == before
    assert not box.exists("/usr/bin/new")
    assert box.read("/usr/local/deep/file") == "kept"
    box.mounts.unmount("/usr/local/deep")
    assert ours(box) == []


def test_an_overlay_of_another_directory(box, tmp_path):
    """``lower`` is seen instead of what is there, and is never changed."""
    (tmp_path / "lower").mkdir()
    (tmp_path / "lower/f").write_text("lower")
    box.mounts.overlay("/srv", lower=tmp_path / "lower", size="1M")
    assert shell(box, "cat /srv/f; echo upper >/srv/f; cat /srv/f") == (0, "lowerupper\n")
    assert (tmp_path / "lower/f").read_text() == "lower"
    assert shell(box, "head -c 2M /dev/zero >/srv/big")[0] != 0


def test_terminals_of_their_own(box):
    """A devpts has no terminal of the container's, and gives new ones."""
    box.mounts.devpts("/srv/root/dev/pts")
    assert shell(box, "ls /srv/root/dev/pts; exec 3<>/srv/root/dev/pts/ptmx; ls /srv/root/dev/pts") == (
        0,
        "ptmx\n0\nptmx\n",
    )


def test_mounts_come_and_go_while_processes_run(box, tmp_path):
    """A process that was there before sees the mount, and what was under it when it goes, also if it is in use."""
    process = box.popen(["/bin/sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(command):
        process.stdin.write(f"{command}; echo .\n")
        process.stdin.flush()
        return "".join(iter(process.stdout.readline, ".\n"))

    assert ask("mkdir /srv/data; echo under >/srv/data/f; cat /srv/data/f") == "under\n"
    mount = box.mounts.tmpfs("/srv/data")
    assert ask("ls /srv/data; cd /srv/data; echo over >f; exec 3<f; cat /srv/data/f") == "over\n"
    with box.mounts.bind(tmp_path, "/srv/data/deep") as deep:
        assert ours(box) == ["/srv/data", "/srv/data/deep"]
    assert deep.done
    assert ours(box) == ["/srv/data"]
    mount.remove()
    assert ask("cat /srv/data/f; cat <&3") == "under\nover\n"
    mount.undo()
    assert repr(mount) == "<tmpfs on box:/srv/data (undone)>"
    process.stdin.close()
    process.wait()


def test_a_mount_goes_with_what_is_mounted_on_it(box):
    """What was mounted below later is gone as well, and undoing it then does nothing."""
    outer = box.mounts.tmpfs("/data")
    inner = box.mounts.tmpfs("/data/inner")
    twice = box.mounts.tmpfs("/data")
    with pytest.raises(LabError, match="something else is mounted there by now"):
        outer.undo()
    twice.undo()
    outer.undo()
    inner.undo()
    assert ours(box) == []


def test_nobody_else_sees_them(box):
    """Neither another container nor the machine has a mount more."""
    before = Path("/proc/self/mountinfo").read_text()
    with Container("other") as other:
        box.mounts.tmpfs("/var/lib/app")
        box.mounts.overlay("/usr")
        assert ours(other) == []
        assert not other.exists("/var/lib/app")
        assert Path("/proc/self/mountinfo").read_text() == before


def test_on_another_root_too(tmp_path):
    """A directory as root, read-only even: mounts are made in it, and it stays as it was."""
    (tmp_path / "root/usr").mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (tmp_path / "root" / name).symlink_to(f"usr/{name}")
    machine_s = below(tmp_path)
    for readonly in (False, True):
        with Container("box", rootfs=tmp_path / "root", readonly=readonly) as box:
            box.mounts.bind("/usr", "/usr", readonly=True)
            box.mounts.tmpfs("/missing/data", size="1M")
            assert shell(
                box, "echo 1 >/missing/data/f; cat /missing/data/f; touch /missing/x 2>/dev/null; echo $?"
            ) == (
                0,
                f"1\n{int(readonly)}\n",
            )
    assert below(tmp_path) == machine_s


def test_by_the_name_of_the_kind(box, tmp_path):
    """``mount()`` is the method of that name; every kind has one."""
    box.mount("bind", "/data", source=tmp_path, readonly=True)
    box.mount("tmpfs", "/more", size=65536)
    assert ours(box) == ["/data", "/more"]
    assert all(callable(getattr(box.mounts, kind)) for kind in KINDS)
    with pytest.raises(UsageError, match="'nfs' is no kind of mount; the kinds are bind, tmpfs, overlay, devpts"):
        box.mount("nfs", "/x")
    with pytest.raises(UsageError, match=r"bind has no 'readonyl', did you mean 'readonly'\?"):
        box.mount("bind", "/x", source="/", readonyl=True)
    with pytest.raises(UsageError, match="source is missing"):
        box.mount("bind", "/x")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, _: m.tmpfs("data"), UsageError, "target is the absolute path .*, not 'data'"),
        (lambda m, _: m.tmpfs(3), UsageError, "target is the absolute path .*, not 3"),
        (lambda m, _: m.tmpfs("/a\0b"), ValueError, "null byte"),
        (lambda m, _: m.tmpfs("/" + "x" * 4096), LabError, "ENAMETOOLONG"),
        (lambda m, _: m.tmpfs("/" + "y/" * 3000), LabError, "ENAMETOOLONG"),
        (lambda m, _: m.tmpfs("/" + "n" * 256), LabError, "ENAMETOOLONG"),
        (lambda m, _: m.tmpfs("/d", size="64MB"), UsageError, "size is a number of bytes.*'64MB'"),
        (lambda m, _: m.tmpfs("/d", size=-1), UsageError, "size is more than nothing"),
        (lambda m, _: m.tmpfs("/d", inodes=0), UsageError, "inodes is a number from 1 up, not 0"),
        (lambda m, _: m.tmpfs("/d", mode="rwx"), UsageError, "mode is a number .* not 'rwx'"),
        (lambda m, _: m.tmpfs("/d", owner="nobody-here"), LabError, "find the user nobody-here"),
        (lambda m, t: m.bind(t / "nothing", "/d"), LabError, "nothing: ENOENT .*on the machine"),
        (lambda m, _: m.tmpfs("/etc/passwd"), LabError, "ENOTDIR"),
        (lambda m, _: m.tmpfs("/etc/passwd/x"), LabError, "ENOTDIR"),
        (lambda m, _: m.tmpfs("/missing/../../x"), LabError, "leads nowhere"),
        (lambda m, _: m.overlay("/nothing"), LabError, "ENOENT .*a tmpfs can be mounted"),
        (lambda m, _: m.overlay("/etc/passwd"), LabError, "ENOTDIR"),
        (lambda m, t: m.overlay("/srv", lower=t / "file"), LabError, "ENOTDIR"),
        (lambda m, _: m.unmount("/usr"), UsageError, "no mount that was made here; there are none"),
        (lambda m, _: m.unmount("/nothing"), LabError, "ENOENT"),
        (lambda m, _: m.remount("/usr", readonly=False), UsageError, "no mount that was made here"),
        (lambda m, _: m.full("/usr"), LabError, "only a tmpfs .*mount one there first"),
        (lambda m, _: m.resize("/tmp"), UsageError, "needs a size"),
        (lambda m, _: m.readonly("/nothing"), LabError, "ENOENT"),
    ],
)
def test_what_cannot_be_is_named_and_leaves_nothing(box, tmp_path, call, error, message):
    """The error says what and why; the table is as it was, and so are the container's files."""
    (tmp_path / "file").touch()
    table, files = box.mounts.table(), shell(box, "ls -a / /usr /etc")
    with pytest.raises(error, match=message):
        call(box.mounts, tmp_path)
    assert box.mounts.table() == table
    assert shell(box, "ls -a / /usr /etc") == files


def test_a_file_that_runs_is_not_mounted_over(box, tmp_path):
    """The error names the process; when that has ended the mount can be made."""
    shell(box, "cp /bin/sleep /srv/run")
    (tmp_path / "other").write_text("#!/bin/sh\n")
    process = box.popen(["/srv/run", "60"])
    with pytest.raises(LabError, match=rf"ETXTBSY .*process {process.pid_inside} \(run\)"):
        box.mounts.bind(tmp_path / "other", "/srv/run")
    process.kill()
    process.wait()
    box.mounts.bind(tmp_path / "other", "/srv/run")


def test_in_a_closed_container(box):
    """There is nothing to be mounted, and nothing to be undone."""
    mount = box.mounts.tmpfs("/data")
    box.close()
    mount.undo()
    with pytest.raises(Exception, match="box is closed"):
        box.mounts.tmpfs("/more")


def test_from_several_threads_at_once(box):
    """Each gets its own, and all are in the table."""
    failed = []

    def work(number):
        try:
            for turn in range(5):
                box.mounts.tmpfs(f"/usr/many/{number}/{turn}", size=4096)
        except Exception as error:  # noqa: BLE001 - shown below
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert sorted(ours(box)) == sorted(f"/usr/many/{number}/{turn}" for number in range(4) for turn in range(5))


def test_no_descriptor_is_left(box, tmp_path):
    """Mounts, faults and failures leave this process as many descriptors as before."""
    for turn in range(20):
        if turn == 1:
            gc.collect()  # what other tests have left to it
            count = descriptor_count()
        with box.mounts.tmpfs("/data", size="1M"), box.mounts.full("/data"), box.mounts.readonly("/etc"):
            pass
        with box.mounts.overlay("/usr"), pytest.raises(LabError):
            box.mounts.bind(tmp_path / "nothing", "/x")
    assert descriptor_count() == count
    assert ours(box) == []
