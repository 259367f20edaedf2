"""The files of a container: read, written, listed, copied, as its own processes would, and never outside of it."""

import os
import stat
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from descriptors import descriptor_count

from pytest_poorcontainer import Container, LabError, PoorContainerError, UsageError, machine

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["chroot_env"].works, reason=machine.fixtures_ready()["chroot_env"].reason
)


@pytest.fixture
def box():
    """A container on the machine's root."""
    with Container("box") as container:
        yield container


def shell(container, script):
    """Run a script in the container; return what it prints."""
    return container.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True).stdout


def test_text_and_bytes(box):
    """What is written is read, inside too; newlines and encodings are as with pathlib."""
    box.write("/etc/app/app.conf", "port = 1\n")
    box.write_bytes("/srv/data.bin", b"a\r\n\xff\0")
    assert box.read("/etc/app/app.conf") == shell(box, "cat /etc/app/app.conf") == "port = 1\n"
    assert box.read_bytes("/srv/data.bin") == b"a\r\n\xff\0"
    assert box.read("/srv/data.bin", encoding="latin-1") == "a\n\xff\0"
    box.write("/srv/utf16", "ü", encoding="utf-16-le")
    assert box.read_bytes("/srv/utf16") == b"\xfc\0"
    with pytest.raises(UnicodeDecodeError):
        box.read("/srv/data.bin")
    with pytest.raises(TypeError, match="write_bytes"):
        box.write("/srv/x", b"bytes")
    assert not Path("/etc/app").exists()


def test_sizes_from_nothing_to_many_megabytes(box):
    """An empty file, and one that is more than any buffer; written anew, nothing of the longer one stays."""
    data = os.urandom(1 << 20) * 9
    box.write_bytes("/srv/big", data)
    assert box.read_bytes("/srv/big") == data
    box.write_bytes("/srv/big", memoryview(b"x"))
    assert box.read_bytes("/srv/big") == b"x"
    box.write("/srv/big", "")
    assert box.read("/srv/big") == ""


def test_mode_and_owner(box):
    """A new file is root's and 0644 whatever the umask; one that is there keeps what it has; both can be said."""
    before = os.umask(0o077)
    try:
        box.write("/srv/new", "1")
        box.write("/srv/secret", "1", mode=0o4640, owner="nobody")
        box.mkdir("/srv/dir/deep", mode=0o1777, owner=65534)
    finally:
        os.umask(before)
    box.write("/srv/kept", "1", mode=0o600)
    box.write("/srv/kept", "2")
    user = 0 if has_one_id(box) else 65534
    seen = shell(box, "stat -c '%n %a %u %g' /srv/new /srv/secret /srv/kept /srv/dir /srv/dir/deep")
    assert seen.splitlines() == [
        "/srv/new 644 0 0",
        f"/srv/secret 4640 {user} {user}",
        "/srv/kept 600 0 0",
        "/srv/dir 755 0 0",
        f"/srv/dir/deep 1777 {user} {user}",
    ]


def has_one_id(box):
    """Return whether everybody in the container is one user, since this user has no range of ids (subuid(5))."""
    return box.read("/proc/self/uid_map").split()[2] == "1"


def test_links_lead_where_they_lead_inside(box):
    """Absolute links and dots are followed from the container's root, for every method."""
    shell(box, "mkdir -p /srv/real; ln -s /srv/real /srv/link; ln -s ../../../../srv/real/f /srv/dots")
    shell(box, "echo 1 >/srv/real/f")
    assert box.read("/srv/link/f") == box.read("/srv/dots") == "1\n"
    box.write("/srv/link/g", "2")
    box.mkdir("/srv/link/made/deep")
    assert shell(box, "cat /srv/real/g; ls /srv/real") == "2f\ng\nmade\n"
    shell(box, "ln -s /etc/passwd-of-nobody /srv/broken; ln -s loop /srv/loop; ln -s /srv/real/new /srv/to-new")
    assert not box.exists("/srv/broken")
    assert not box.exists("/srv/loop")
    with pytest.raises(OSError, match=r"symbolic links.*box:/srv/loop"):
        box.read("/srv/loop")
    box.write("/srv/to-new", "3")
    assert box.read("/srv/real/new") == "3"


@pytest.mark.parametrize("path", ["/proc/1/root/etc/passwd", "/proc/self/fd/0", "/proc/1/cwd/etc/passwd", "/dev/stdin"])
def test_links_of_proc_to_what_a_process_has_open_are_not_followed(box, path):
    """They would be those of the container's first process."""
    assert not box.exists(path)
    with pytest.raises(OSError, match=r"not followed|No such file"):
        box.read(path)
    with pytest.raises(OSError, match=r"not followed|No such file"):
        box.write(path, "x")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda box: box.read("/no/such"), FileNotFoundError, "box:/no/such"),
        (lambda box: box.read("/etc"), IsADirectoryError, "box:/etc"),
        (lambda box: box.write("/etc", "x"), IsADirectoryError, "box:/etc"),
        (lambda box: box.read("/etc/passwd/x"), NotADirectoryError, "box:/etc/passwd/x"),
        (lambda box: box.mkdir("/etc/passwd"), FileExistsError, "box:/etc/passwd"),
        (lambda box: box.write("/usr/x", "1"), OSError, r"Read-only.*mounts\.overlay\(\).*box:/usr/x"),
        (lambda box: box.read("etc/passwd"), UsageError, "absolute path .*not 'etc/passwd'"),
        (lambda box: box.read("/a\0b"), ValueError, "null byte"),
        (lambda box: box.read(3), UsageError, "absolute path .*not 3"),
        (lambda box: box.write("/srv/x", "1", mode="0644"), UsageError, "mode is a number"),
        (lambda box: box.write("/srv/x", "1", mode=0o10000), UsageError, "mode is a number"),
        (lambda box: box.write("/srv/x", "1", owner="nobody-here"), LabError, "find the user nobody-here"),
        (lambda box: box.read("/" + "x" * 256), OSError, "File name too long"),
        (lambda box: box.read("/" + "y/" * 2100), OSError, "File name too long"),
        (lambda box: box.read("/srv/fifo"), OSError, "named pipe, a socket or a device"),
        (lambda box: box.write("/srv/fifo", "x"), OSError, "named pipe, a socket or a device"),
        (lambda box: box.read("/dev/null"), OSError, "named pipe, a socket or a device"),
        (lambda box: box.glob("*"), UsageError, "absolute path"),
    ],
)
def test_what_is_wrong_is_said_as_pathlib_does(box, call, error, message):
    """The container's name stands before the path; nobody waits for a pipe's other end."""
    shell(box, "mkfifo /srv/fifo")
    with pytest.raises(error, match=message):
        call(box)


def test_in_a_closed_container(box):
    """Every method says that it is closed."""
    box.close()
    for call in (
        lambda: box.read("/etc/passwd"),
        lambda: box.exists("/etc"),
        lambda: box.glob("/*"),
        lambda: box.path("/"),
    ):
        with pytest.raises(PoorContainerError, match="box is closed"):
            call()


def test_patterns(box):
    """Stars, sets and double stars, in order; links to directories are not descended into by a double star."""
    shell(
        box,
        "mkdir -p /opt/g/a/b/c /opt/g/.d; touch /opt/g/a/1.conf /opt/g/a/b/2.conf /opt/g/a/b/c/3.txt /opt/g/.d/4.conf",
    )
    shell(box, "ln -s a /opt/g/link")
    assert box.glob("/opt/g/*/*.conf") == ["/opt/g/.d/4.conf", "/opt/g/a/1.conf", "/opt/g/link/1.conf"]
    assert box.glob("/opt/g/**/*.conf") == ["/opt/g/.d/4.conf", "/opt/g/a/1.conf", "/opt/g/a/b/2.conf"]
    assert box.glob("/opt/g/a/**") == [
        "/opt/g/a",
        "/opt/g/a/1.conf",
        "/opt/g/a/b",
        "/opt/g/a/b/2.conf",
        "/opt/g/a/b/c",
        "/opt/g/a/b/c/3.txt",
    ]
    assert box.glob("/opt/g/*/") == ["/opt/g/.d", "/opt/g/a", "/opt/g/link"]
    assert box.glob("/opt/g/[a-b]/[!2].conf") == ["/opt/g/a/1.conf"]
    assert box.glob("/opt/g/a/b") == ["/opt/g/a/b"]
    assert box.glob("/nothing/*") == box.glob("/etc/passwd/*") == []
    assert box.glob("/") == ["/"]


def test_copies_of_a_tree_in_and_out(box, tmp_path):
    """Contents, modes, times, links, holes and odd names arrive both ways; what is no file is left out and named."""
    source = tmp_path / "source"
    (source / "sub/empty").mkdir(parents=True)
    (source / "sub/run").write_text("#!/bin/sh\n")
    (source / "sub/run").chmod(0o750)
    (source / os.fsdecode(b"odd \xff\n")).write_bytes(b"1")
    (source / "link").symlink_to("/etc/passwd")
    with (source / "holes").open("wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 29)
        file.write(b"x")
    os.mkfifo(source / "fifo")
    for path in (source / "sub/run", source / "sub"):
        os.utime(path, ns=(0, 1_234_567_890_123_456_789))
    assert box.copy_in(source, "/srv/copy") == [str(source / "fifo")]
    assert shell(box, "readlink /srv/copy/link; stat -c %a /srv/copy/sub/run; ls /srv/copy/sub") == (
        "/etc/passwd\n750\nempty\nrun\n"
    )
    shell(box, "mkfifo /srv/copy/pipe")
    assert box.copy_out("/srv/copy", tmp_path / "back") == ["/srv/copy/pipe"]
    back = tmp_path / "back"
    assert sorted(path.name for path in back.rglob("*")) == sorted(
        path.name for path in source.rglob("*") if path.name != "fifo"
    )
    assert (back / "link").readlink() == Path("/etc/passwd")
    assert (back / "holes").stat().st_size == 1 << 30
    assert (back / "holes").stat().st_blocks < 1000
    for path in (back / "sub/run", back / "sub"):
        assert path.stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert stat.S_IMODE((back / "sub/run").stat().st_mode) == 0o750


def test_a_copy_of_one_file(box, tmp_path):
    """It becomes the target, or comes into it where that is a directory or ends with a slash."""
    (tmp_path / "f").write_text("1")
    box.copy_in(tmp_path / "f", "/srv/g")
    box.copy_in(tmp_path / "f", "/srv")
    box.copy_in(tmp_path / "f", "/srv/new/", owner=7)
    assert shell(box, "cat /srv/g /srv/f /srv/new/f; stat -c %u /srv/new/f") == f"111{0 if has_one_id(box) else 7}\n"
    box.write("/srv/out", "2")
    box.copy_out("/srv/out", tmp_path / "h")
    box.copy_out("/srv/out", tmp_path)
    box.copy_out("/srv/out", f"{tmp_path}/deep/er/")
    assert [(tmp_path / name).read_text() for name in ("h", "out", "deep/er/out")] == ["2", "2", "2"]
    with pytest.raises(FileNotFoundError, match="nothing"):
        box.copy_in(tmp_path / "nothing", "/srv")
    with pytest.raises(FileNotFoundError, match="box:/nothing"):
        box.copy_out("/nothing", tmp_path)


def test_a_copy_out_writes_nowhere_else(box, tmp_path):
    """Whatever links the container has laid, and whatever links lie at the target: nothing outside is touched."""
    victim, target = tmp_path / "victim", tmp_path / "target"
    victim.mkdir()
    (victim / "f").write_text("kept")
    target.mkdir()
    (target / "a").symlink_to(victim)
    (target / "f").symlink_to(victim / "f")
    shell(box, f"mkdir -p /srv/t/a; echo bad >/srv/t/a/f; echo bad >/srv/t/f; ln -s {victim} /srv/t/b")
    with pytest.raises(FileExistsError, match="a directory would take its place"):
        box.copy_out("/srv/t", target)
    (target / "a").unlink()
    box.copy_out("/srv/t", target)
    assert (target / "f").read_text() == "bad\n"
    assert not (target / "f").is_symlink()
    assert (target / "b").readlink() == victim
    (target / "one").symlink_to(victim / "f")
    with pytest.raises(FileExistsError, match="not followed"):
        box.copy_out("/srv/t/f", target / "one")
    assert [path.name for path in victim.iterdir()] == ["f"]
    assert (victim / "f").read_text() == "kept"


@pytest.fixture
def secret():
    """A directory that no container sees; pytest's temporary one is shown by a lab of its fixtures."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        yield Path(directory)


def test_a_copy_out_while_links_change_places(box, secret, tmp_path):
    """A directory that becomes a link to the machine's while it is copied brings nothing of the machine's."""
    (secret / "f").write_text("the machine's")
    script = (
        "import os\nos.makedirs('/srv/t/d'); open('/srv/t/d/f', 'w').write('ours')\n"
        f"os.symlink({str(secret)!r}, '/srv/link')\nwhile True:\n"
        " os.rename('/srv/t/d', '/srv/x'); os.rename('/srv/link', '/srv/t/d')\n"
        " os.rename('/srv/t/d', '/srv/link'); os.rename('/srv/x', '/srv/t/d')"
    )
    racer = box.popen(["python3", "-c", script])
    for number in range(60):
        target = tmp_path / f"target{number}"
        try:
            box.copy_out("/srv/t", target)
        except OSError:
            continue  # it was neither, at that moment
        copied = target / "d/f"
        assert (target / "d").is_symlink() or not copied.exists() or copied.read_text() == "ours"
    racer.kill()
    racer.wait()


def test_a_path_for_libraries(box, tmp_path):
    """What takes a path opens a file of the container's by it; the directory must be there, and links lead to it."""
    box.mkdir("/srv/real")
    shell(box, "ln -s /srv/real /srv/link; ln -s ../real/file /srv/real/by-link")
    with tarfile.open(box.path("/srv/link/app.tar"), "w") as archive:
        archive.add("/etc/hostname", "hostname")
    assert shell(box, "tar -tf /srv/real/app.tar") == "hostname\n"
    box.path("/srv/real/by-link").write_text("1")
    assert box.read("/srv/real/file") == "1"
    assert box.path("/srv/real") == box.path("/srv/link")
    done = subprocess.run(["ls", box.path("/srv/real")], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["app.tar", "by-link", "file"]
    with pytest.raises(FileNotFoundError, match="box:/srv/no"):
        box.path("/srv/no/such")
    path = box.path("/srv")
    box.close()
    assert not path.exists()


def test_a_full_disk_and_no_descriptor_left(box):
    """ENOSPC is told with the path; nothing is left open by what fails."""
    box.mounts.tmpfs("/data", size="64k")
    count = descriptor_count()
    for _ in range(10):
        with pytest.raises(OSError, match=r"No space left.*box:/data/f"):
            box.write("/data/f", "x" * 100_000)
        with pytest.raises(FileNotFoundError):
            box.read("/no")
    assert descriptor_count() == count
