"""A tarball as a tree: what is made of each kind of file, and what is refused."""

import bz2
import gzip
import importlib
import lzma
import os
import shutil
import stat
import subprocess
import tarfile

import pytest
from archives import archive, directory, entry, hardlink, header, symlink
from descriptors import descriptor_count

from pytest_poorcontainer.errors import LabError, Unavailable, UsageError
from pytest_poorcontainer.rootfs import compressed, find
from pytest_poorcontainer.rootfs import tree as trees
from pytest_poorcontainer.rootfs.tarball import Tarball

SIMPLE = (directory("etc"), entry("etc/motd", b"hello\n", mode=0o640))


@pytest.fixture
def unpack(tmp_path):
    """Return a function that unpacks bytes and returns the directory; what lies beside it must stay as it is."""
    outside = tmp_path / "outside"
    (outside / "secret").mkdir(parents=True)
    (outside / "secret/file").write_text("mine")
    before = descriptor_count()

    def unpack(content, name="root"):
        root = outside / name
        root.mkdir(exist_ok=True)
        path = tmp_path / "archive.tar"
        path.write_bytes(content)
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            Tarball(path).fill(fd)
        finally:
            os.close(fd)
        return root

    yield unpack
    assert {path.name for path in outside.iterdir()} <= {"secret", "root", "second"}
    assert [path.name for path in (outside / "secret").iterdir()] == ["file"]
    assert (outside / "secret/file").read_text() == "mine"
    assert descriptor_count() <= before, "others may close theirs meanwhile, nobody opens any"


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_it_is_told_by_its_content(tmp_path, unpack, compression):
    """Each compression is read, whatever the file is called."""
    root = unpack(archive(*SIMPLE, compression=compression))
    assert (root / "etc/motd").read_text() == "hello\n"
    assert find(tmp_path / "archive.tar").description == f"tarball {tmp_path / 'archive.tar'}"


def zstd_of(content):
    """Return the content as zstd, made by the program."""
    return subprocess.run(["zstd", "-qc"], input=content, check=True, capture_output=True).stdout


@pytest.mark.skipif(shutil.which("zstd") is None, reason="the program zstd, which makes the archive, is not installed")
def test_zstd_is_read_or_explained(unpack):
    """A zstd tarball is read where Python can, else the error says what to install."""
    content = zstd_of(archive(*SIMPLE))
    if any(_there(name) for name in ("compression.zstd", "backports.zstd", "zstandard")):
        assert (unpack(content) / "etc/motd").read_text() == "hello\n"
    else:
        with pytest.raises(Unavailable, match=r"zstd does not work here: .* pip install zstandard"):
            unpack(content)


def _there(name):
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def test_zstd_that_cannot_be_read_is_unavailable(monkeypatch, unpack):
    """Without a module for zstd the reason and the remedy are named."""
    monkeypatch.setattr(compressed, "_ZSTD", ("no.such.module",))
    with pytest.raises(Unavailable, match="compress the tarball with gzip or xz"):
        unpack(b"\x28\xb5\x2f\xfd" + bytes(600))


def test_files_are_as_in_the_archive(unpack):
    """Content, permissions and time of files and directories are the archive's, whatever the umask."""
    umask = os.umask(0o077)
    try:
        root = unpack(
            archive(
                directory("./", 0o711, mtime=11),
                directory("./d", 0o500, mtime=22),
                entry("./d/f", b"x" * 3_000_000, mode=0o754, mtime=33.25),
                entry("implied/g", b""),
                entry("p", kind=tarfile.FIFOTYPE, mode=0o620),
                symlink("s", "/d/f"),
                hardlink("h", "./d/f"),
            )
        )
    finally:
        os.umask(umask)
    assert (root / "d/f").read_bytes() == b"x" * 3_000_000
    modes = {name: stat.S_IMODE((root / name).lstat().st_mode) for name in (".", "d", "d/f", "implied", "p")}
    assert modes == {".": 0o711, "d": 0o500, "d/f": 0o754, "implied": 0o755, "p": 0o620}
    assert (root.stat().st_mtime, (root / "d").stat().st_mtime, (root / "d/f").stat().st_mtime) == (11, 22, 33.25)
    assert os.readlink(root / "s") == "/d/f"  # noqa: PTH115 - as text
    assert (root / "h").samefile(root / "d/f")
    assert stat.S_ISFIFO((root / "p").stat().st_mode)


def test_owners_are_kept_as_root(unpack):
    """As root files belong to the archive's ids, by number; an ordinary user's are all his."""
    root = unpack(archive(directory("d", uid=5, gid=6), entry("d/f", b"", uid=7, gid=8), entry("g", b"", uid=-1)))
    owners = [(path.stat().st_uid, path.stat().st_gid) for path in (root / "d", root / "d/f", root / "g")]
    mine = (os.geteuid(), os.getegid())
    assert owners == ([(5, 6), (7, 8), (0, 0)] if os.geteuid() == 0 else [mine] * 3)


def test_an_ordinary_user_need_not_own_anything(tmp_path):
    """Without the privilege to give files away, they stay this user's, and nothing fails."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    with trees.Tree(fd, owners=False) as tree:
        tree.directory(b"a", 0o700, 12345, 12345)
        os.close(tree.file(b"a/b", 0o600, 12345, 12345))
    os.close(fd)
    assert (tmp_path / "a/b").stat().st_uid == os.geteuid()


def test_setuid_is_dropped(unpack):
    """A file has no setuid and setgid bit; a directory keeps setgid and sticky."""
    root = unpack(archive(entry("su", b"", mode=0o6755), directory("tmp", 0o3777)))
    assert stat.S_IMODE((root / "su").stat().st_mode) == 0o755
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o3777


def test_devices_are_left_out(unpack):
    """Device nodes are not made: a container has a /dev of its own."""
    root = unpack(archive(entry("dev/null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3), *SIMPLE))
    assert not (root / "dev/null").exists()
    assert (root / "etc/motd").exists()


def test_absolute_names_are_the_trees(unpack):
    """A name that begins with a slash lies in the tree, and a link's target too."""
    root = unpack(archive(entry("//etc/passwd", b"ours"), symlink("l", "/secret"), entry("secret/x", b"1")))
    assert (root / "etc/passwd").read_text() == "ours"
    root = unpack(archive(symlink("out", "/lib"), directory("lib"), entry("out/f", b"2")))
    assert (root / "lib/f").read_text() == "2"


def test_later_ones_replace_earlier_ones(unpack):
    """What comes later in the archive wins, of whatever kind both are."""
    root = unpack(
        archive(
            *(directory("a"), entry("a/x", b"1"), entry("a", b"file")),
            *(entry("b", b"1"), directory("b"), entry("b/x", b"2")),
            *(directory("real"), symlink("c", "real"), entry("c/in", b"3"), directory("c"), entry("c/x", b"4")),
            *(entry("d", b"1"), entry("e", b"other"), hardlink("d", "e"), hardlink("e", "d")),
            *(directory("g", 0o700), symlink("g", "real")),
            *(entry("h", b"1"), symlink("h", "x"), entry("h", b"22")),
        )
    )
    assert (root / "a").read_text() == "file"
    assert (root / "b/x").read_text() == "2"
    assert (root / "real/in").read_text() == "3"
    assert not (root / "c").is_symlink()
    assert [path.name for path in (root / "c").iterdir()] == ["x"]
    assert (root / "d").read_text() == (root / "e").read_text() == "other"
    assert stat.S_IMODE((root / "real").stat().st_mode) == 0o755
    assert (root / "h").read_text() == "22"
    assert not (root / "x").exists()


def test_permissions_of_directories_come_last(unpack):
    """A directory without permissions is filled all the same, also through a link and through '..'."""
    root = unpack(
        archive(
            directory("a", 0o000),
            directory("a/b", 0o000),
            entry("a/b/f", b"1"),
            symlink("l", "a/b"),
            directory("l/c", 0o500),
            symlink("m", "a/b/.."),
            directory("m/d", 0o400),
        )
    )
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0
    (root / "a").chmod(0o700)
    assert stat.S_IMODE((root / "a/b").stat().st_mode) == 0
    assert stat.S_IMODE((root / "a/d").stat().st_mode) == 0o400
    (root / "a/b").chmod(0o700)
    assert (root / "a/b/f").read_text() == "1"
    assert stat.S_IMODE((root / "a/b/c").stat().st_mode) == 0o500


def test_holes_stay_holes(tmp_path, unpack):
    """A sparse file, as GNU tar writes them in each of its formats, is as long and takes no memory."""
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.write(b"start")
        file.seek(1 << 30)
        file.write(b"end")
    for version in ("0.0", "0.1", "1.0"):
        arguments = ["tar", "-C", tmp_path, "--sparse", "--format=pax", f"--sparse-version={version}"]
        arguments += ["-cf", "-", "sparse"]
        made = unpack(subprocess.run(arguments, check=True, capture_output=True).stdout, "second") / "sparse"
        assert made.stat().st_size == (1 << 30) + 3
        assert made.stat().st_blocks < 1000
        with made.open("rb") as file:
            assert file.read(6) == b"start\0"
            file.seek(1 << 30)
            assert file.read() == b"end"


def test_names_that_are_no_text(unpack):
    """A name of any bytes but NUL is made as it is, and so is a long one."""
    odd = b"\xff\xfe".decode(errors="surrogateescape")
    content = archive(entry(odd, b"1"), entry("n" * 200 + "/" + "m" * 255, b"2"))
    root = unpack(content)
    assert sorted(os.fsencode(path.name) for path in root.iterdir()) == [b"n" * 200, b"\xff\xfe"]
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        root = unpack(archive(entry("d" * 100 + "/" + "é" * 100, b"3"), form=form), "second")
        assert (root / ("d" * 100) / ("é" * 100)).read_text() == "3"


ESCAPES = {
    "dotdot": [entry("../evil", b"")],
    "dotdot inside": [entry("a/../../evil", b"")],
    "harmless dotdot": [entry("a/../b", b"")],
    "dotdot directory": [directory("a/..")],
    "climbing link": [symlink("a/l", "../../secret")],
    "climbing absolute link": [symlink("l", "/../secret")],
    "hard link out": [hardlink("h", "../secret/file")],
    "hard link of a stranger": [hardlink("h", "/etc/passwd")],
    "nul": [entry("a\0b", b"", pax_headers={"path": "a\0b"})],
    "file as root": [entry("./", b"")],
    "empty link": [symlink("l", "")],
    "unknown kind": [entry("x", kind=b"V")],
}


@pytest.mark.parametrize("entries", ESCAPES.values(), ids=ESCAPES)
def test_what_climbs_out_is_refused(unpack, entries):
    """A name or a link that leads out, or has no meaning, ends it with an error that names the tarball and the file."""
    with pytest.raises(UsageError, match=r"cannot use tarball .*/archive\.tar as a root file system: it \w+"):
        unpack(archive(*SIMPLE, *entries))


def test_links_are_followed_inside_only(unpack):
    """A file below a link to the machine's directory is looked for in the tree, and not found."""
    for target in ("/", "/secret", "/../secret", "x"):
        with pytest.raises((UsageError, LabError)):
            unpack(archive(symlink("l", target), entry("l/f/g", b""), entry("l/f", b""), entry("l/f/g", b"")))


def test_a_link_made_of_links(unpack):
    """Links that climb only when they are followed one after the other stay inside too."""
    root = unpack(
        archive(
            directory("a/b/c"),
            symlink("a/b/c/up", "../.."),
            symlink("x", "a/b/c/up"),
            symlink("y", "x/b/c/up"),
            entry("y/file", b"1"),
        )
    )
    assert (root / "a/file").read_text() == "1"


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_a_truncated_one_is_refused(unpack, compression):
    """Wherever an archive was cut off, it is refused; also where a file has just ended."""
    whole = archive(*SIMPLE, entry("big", os.urandom(4096)), compression=compression)
    # All but the fill of zeros behind the end mark, which nobody misses.
    last = len(whole) - 1 if compression else len(whole.rstrip(b"\0")) + 300
    for length in {513, 600, 1024, 1536, 2048, len(whole) // 2, last}:
        if length < len(whole):
            with pytest.raises(UsageError, match=r"truncated|damaged|no end mark"):
                unpack(whole[:length])


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_wrong_check_sum_is_refused(unpack, compress):
    """Damage that only the check sum shows is found, also when it stands behind the archive's end."""
    content = bytearray(compress(archive(*SIMPLE)))
    content[-6 if compress is gzip.compress else len(content) // 2] ^= 0x55
    with pytest.raises(UsageError, match="damaged"):
        unpack(bytes(content))


DAMAGED = {
    "garbage in the middle": archive(*SIMPLE)[:1536] + b"garbage!" * 64 + bytes(1024),
    "no archive inside": gzip.compress(b"hello"),
    "text inside": gzip.compress(b"hello" * 1000),
    "nothing inside": gzip.compress(b""),
    "size beyond the end": header("f", size=1 << 40) + bytes(1024),
    "negative size": header("f", size=-512) + bytes(1024),
    "a header of gigabytes": header("f", tarfile.GNUTYPE_LONGNAME, 1 << 33) + bytes(4096),
    "long name without a file": header("f", tarfile.GNUTYPE_LONGNAME, 5) + b"name\0".ljust(512, b"\0") + bytes(1024),
    "pax size": archive(entry("f", b"x", pax_headers={"size": "-5"})),
    "pax size of digits": archive(entry("f", b"x", pax_headers={"size": "9" * 30})),
    "pax map that is none": archive(entry("f", b"x", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})),
    "sparse beyond": archive(
        entry("f", b"x" * 512, pax_headers={"GNU.sparse.map": "0,512,99999999999,5", "GNU.sparse.size": "600"})
    ),
    "much behind the end": gzip.compress(archive(*SIMPLE) + bytes(80 << 20), 1),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_one_is_refused(unpack, content):
    """What is no archive, or promises what is not there, is a UsageError soon, and takes no memory."""
    with pytest.raises(UsageError, match="cannot use tarball"):
        unpack(content)


def test_an_empty_one_is_an_empty_tree(unpack):
    """An archive without files is a root without files."""
    assert list(unpack(archive()).iterdir()) == []
    assert list(unpack(archive(compression="gz")).iterdir()) == []


def test_a_full_disk_is_the_labs_error(unpack, monkeypatch):
    """What the lab's memory cannot take is told with the file's name and the kernel's answer."""

    def full(*arguments):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(LabError, match=r"tarball .*: ENOSPC .*; at 'etc/motd'"):
        unpack(archive(*SIMPLE))


def test_a_changed_file_is_another_one(tmp_path):
    """A tarball that was written again is not taken for the old one."""
    path = tmp_path / "x.tar"
    path.write_bytes(archive(*SIMPLE))
    first = find(path)
    assert first == find(str(path))
    assert first.key() == find(path).key()
    path.write_bytes(archive(*SIMPLE, entry("more", b"")))
    assert first != find(path)
    assert first.key() == find(path).key() != first.identity
    path.unlink()
    with pytest.raises(LabError, match="what has removed it"):
        first.key()


def test_a_stream_of_several_parts(unpack):
    """Compressed files that were joined are read to their end, as their programs do."""
    whole = archive(*SIMPLE)
    assert (unpack(gzip.compress(whole[:700]) + gzip.compress(whole[700:])) / "etc/motd").exists()
    assert (unpack(lzma.compress(whole[:700]) + lzma.compress(whole[700:])) / "etc/motd").exists()
