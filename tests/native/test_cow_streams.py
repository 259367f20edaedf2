"""Directory streams of the library: merged ones, and those that are read from one directory."""

import os
import subprocess
import sys

import pytest
from cow_case import Case, library_environment
from net_tree import NetTree

HEAD = """
import ctypes, errno, os, sys, threading
class Entry(ctypes.Structure):
    _fields_ = [('ino', ctypes.c_uint64), ('off', ctypes.c_int64), ('size', ctypes.c_uint16), ('type', ctypes.c_uint8),
                ('name', ctypes.c_char * 256)]
libc = ctypes.CDLL(None, use_errno=True)
libc.opendir.restype = libc.fdopendir.restype = ctypes.c_void_p
libc.readdir.restype = ctypes.POINTER(Entry)
libc.telldir.restype = ctypes.c_long
def opened(path): return ctypes.c_void_p(libc.opendir(path))
def entry(stream):
    found = libc.readdir(stream)
    return found.contents.name.decode() if found else None
def rest(stream):
    names = []
    while (name := entry(stream)) is not None: names.append(name)
    return names
"""
FILES = 1500


def fill(lower):
    """Make a directory whose records take several reads, and one with a whiteout as other trees' uppers have."""
    for name in ("many", "layered"):
        (lower / name).mkdir(parents=True)
    for i in range(FILES):
        (lower / "many" / f"file-{i}").touch()
    (lower / "layered" / "seen").touch()
    (lower / "file").touch()
    if os.geteuid() == 0:
        os.mknod(lower / "layered" / "gone", 0o20600, 0)
    return lower


@pytest.fixture(params=["library", "library and net"])
def run(request, tmp_path):
    """Return a function that runs Python in a tree, with the library, and with a net below it."""
    base = tmp_path / "base"
    if request.param == "library":
        case = Case.of(fill(base / "lower"), base)
    else:
        tree = NetTree(base, fill=fill)

    def in_tree(script, *arguments):
        argv = (sys.executable, "-c", HEAD + script, *map(str, arguments))
        if request.param == "library":
            done = case.run(*argv)
            assert case.damage() == []
        else:
            library = library_environment()
            argv = tree.argv(*argv, options=("--library", library.pop("LD_PRELOAD")))
            environment = {**os.environ, **library}
            done = subprocess.run(argv, cwd=tree.lower, env=environment, check=False, capture_output=True, text=True)
            tree.check()
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return in_tree


def test_a_stream_goes_back_to_where_it_was(run):
    """Positions that telldir tells and seekdir takes hold across reads of the buffer; rewinddir gives all again."""
    out = run(
        "stream = opened(b'many')\n"
        "first = [entry(stream) for _ in range(1100)]\n"
        "place = libc.telldir(stream); tail = rest(stream)\n"
        "libc.seekdir(stream, ctypes.c_long(place)); print(rest(stream) == tail)\n"
        "libc.rewinddir(stream); print(libc.telldir(stream), sorted(rest(stream)) == sorted(first + tail))\n"
        "print(len(set(first + tail)), libc.closedir(stream))"
    )
    assert out.split() == ["True", "0", "True", str(FILES + 2), "0"]


@pytest.mark.parametrize("kept", [0, 5])
def test_a_stream_that_is_rewound_shows_what_has_changed(run, kept):
    """A directory that comes up while it is read goes on as a merged one."""
    out = run(
        "stream = opened(b'many')\n"
        "for _ in range(int(sys.argv[1])): entry(stream)\n"
        "open('many/new', 'x').close(); os.unlink('many/file-7')\n"
        "libc.rewinddir(stream); names = rest(stream)\n"
        "print(len(names), 'new' in names, 'file-7' in names); libc.closedir(stream)",
        kept,
    )
    assert out.split() == [str(FILES + 2), "True", "False"]


def test_threads_that_read_one_stream_get_each_entry_once(run):
    """Readers of one stream wait for each other, also where the buffer is read anew."""
    out = run(
        "stream = opened(b'many'); offsets = []\n"
        "def work():\n"
        "    while (found := libc.readdir(stream)): offsets.append(ctypes.addressof(found.contents))\n"
        "threads = [threading.Thread(target=work) for _ in range(4)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "print(len(offsets)); libc.closedir(stream)"
    )
    assert out.split() == [str(FILES + 2)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a device here before Linux 5.8")
def test_whiteouts_are_hidden_in_a_tree_and_nowhere_else(run, tmp_path):
    """A lower may be another tree's upper; outside of all trees a device is a device."""
    (tmp_path / "outside").mkdir()
    os.mknod(tmp_path / "outside" / "device", 0o20600, 0)
    out = run(
        "for path in ('layered', sys.argv[1]):\n"
        "    stream = opened(path.encode()); print(sorted(rest(stream))); libc.closedir(stream)\n"
        "    print(sorted(os.listdir(os.open(path, os.O_RDONLY))))",
        tmp_path / "outside",
    )
    assert out.splitlines() == ["['.', '..', 'seen']", "['seen']", "['.', '..', 'device']", "['device']"]


def test_a_descriptor_that_is_no_directory_gives_no_stream(run):
    """It says why, and leaves the descriptor as it was; one of a removed directory gives an empty stream."""
    out = run(
        "def attempt(fd):\n"
        "    stream = libc.fdopendir(fd)\n"
        "    return rest(ctypes.c_void_p(stream)) if stream else errno.errorcode[ctypes.get_errno()]\n"
        "fd = os.open('file', os.O_RDONLY); print(attempt(fd), os.fstat(fd).st_size); print(attempt(9999))\n"
        "os.mkdir('made'); fd = os.open('made', os.O_RDONLY); os.rmdir('made'); print(attempt(fd))\n"
        "fd = os.open('many', os.O_RDONLY); os.set_inheritable(fd, True)\n"
        "print(len(attempt(fd)), os.get_inheritable(fd))\n"
    )
    assert out.splitlines() == ["ENOTDIR 0", "EBADF", "[]", f"{FILES + 2} False"]
