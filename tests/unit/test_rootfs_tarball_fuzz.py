"""Archives that nobody would make: whatever is in them, nothing outside of the tree changes."""

import contextlib
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from pathlib import Path

from archives import archive, directory, entry, hardlink, symlink
from descriptors import open_now
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_poorcontainer.errors import LabError, UsageError
from pytest_poorcontainer.rootfs.tarball import Tarball

parts = st.sampled_from(["a", "b", "c", "..", ".", "", "secret", "root"])
paths = st.lists(parts, min_size=1, max_size=5).map("/".join)
tame = st.lists(st.sampled_from("abcd"), min_size=1, max_size=3).map("/".join)
modes = st.sampled_from([0o755, 0o000, 0o500, 0o4777, 0o1644])
contents = st.sampled_from([b"", b"one", b"x" * 600])


def kinds(names, targets):
    """Return a strategy for files of every kind."""
    return st.one_of(
        st.builds(directory, names, modes),
        st.builds(lambda name, mode, content: entry(name, content, mode=mode), names, modes, contents),
        st.builds(symlink, names, targets),
        st.builds(hardlink, names, names),
        st.builds(lambda name: entry(name, kind=tarfile.FIFOTYPE), names),
    )


@contextlib.contextmanager
def place():
    """Make a directory to unpack into, with neighbours; remove all of it, and look that no descriptor is left."""
    before = open_now()  # to collect garbage each time would take a minute
    with tempfile.TemporaryDirectory(dir="/dev/shm") as outside:
        for name in ("secret", "a", "b", "c"):
            Path(outside, name).mkdir()
            Path(outside, name, "secret").write_text("mine")
        Path(outside, "root").mkdir()
        yield Path(outside)
        subprocess.run(["chmod", "-R", "u+rwx", outside], check=True)
    assert open_now() <= before


def unpack(outside, content):
    """Unpack; return the error, if it is one that a user is meant to see."""
    path = outside / "secret/archive"
    path.write_bytes(content)
    fd = os.open(outside / "root", os.O_RDONLY | os.O_DIRECTORY)
    try:
        Tarball(path).fill(fd)
    except (UsageError, LabError) as error:
        return error
    finally:
        os.close(fd)
        path.unlink()
    return None


def look(outside):
    """Return what lies beside the tree, and what it says."""
    found = {}
    for top, names, files in os.walk(outside):
        if Path(top) == outside:
            names.remove("root")
        for name in (*names, *files):
            state = Path(top, name).lstat()
            text = Path(top, name).read_bytes() if stat.S_ISREG(state.st_mode) else b""
            found[str(Path(top, name))] = (state.st_mode, state.st_uid, state.st_nlink, text)
    return found


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(kinds(paths, paths), max_size=8))
def test_nothing_outside_is_touched(entries):
    """Whatever names and links say, what lies beside the tree stays as it is, or the archive is refused."""
    with place() as outside:
        before = look(outside)
        unpack(outside, archive(*entries))
        assert look(outside) == before


@settings(max_examples=300, deadline=None)
@given(
    st.lists(kinds(tame, tame), min_size=1, max_size=6),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=6),
    st.one_of(st.none(), st.integers(512, 1 << 14)),
)
def test_damage_is_no_crash(entries, form, changes, length):
    """An archive with wrong bytes, or without its end, is unpacked or refused, and nothing else."""
    content = bytearray(archive(*entries, form=form))
    for position, value in changes:
        content[position % len(content)] = value
    with place() as outside:
        before = look(outside)
        with contextlib.suppress(UsageError):  # what does not even look like an archive
            unpack(outside, bytes(content[:length]))
        assert look(outside) == before


def described(root):
    """Return what is in a tree: kinds, permissions, contents, and which names are the same file.

    Set-user-ID, and set-group-ID of files, are left out, as they are by us: containers are nosuid.
    """
    subprocess.run(["chmod", "u+rwx", root], check=True)
    found = {}
    first = {}
    for top, names, files in os.walk(root):
        for name in (*names, *files):
            path = Path(top, name)
            state = path.lstat()
            kind, mode, text = stat.S_IFMT(state.st_mode), stat.S_IMODE(state.st_mode), ""
            if kind == stat.S_IFLNK:
                mode, text = 0, str(path.readlink())
            elif kind == stat.S_IFREG:
                mode &= 0o1777
                path.chmod(0o600)
                text = path.read_bytes()
            elif kind == stat.S_IFDIR:
                mode &= 0o3777
                path.chmod(0o700)
            same = first.setdefault(state.st_ino, path.relative_to(root))
            found.setdefault(str(path.relative_to(root)), (kind, mode, text, str(same)))
    return found


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(kinds(tame, tame), max_size=7))
def test_it_is_as_tar_unpacks_it(entries):
    """What GNU tar unpacks without a complaint, we unpack, and to the same tree."""
    content = archive(*entries)
    with place() as outside:
        theirs = outside / "secret/theirs"
        theirs.mkdir()
        done = subprocess.run(
            ["tar", "--no-same-owner", "--preserve-permissions", "-C", theirs, "-xf", "-"],
            input=content,
            check=False,
            capture_output=True,
        )
        error = unpack(outside, content)
        if done.returncode == 0:
            assert error is None
            assert described(outside / "root") == described(theirs)
        shutil.rmtree(theirs, ignore_errors=True)
