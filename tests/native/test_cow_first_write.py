"""First writes to files, and opening at all: what the short ways of library and net must not pass over."""

import os
import sys
import threading
from pathlib import Path

import pytest
from cow_case import Case
from net_tree import OLD, NetTree


def fill(lower: Path) -> Path:
    """Make a directory with files, one with a FIFO and another one."""
    for name in ("plain", "mixed", "many"):
        (lower / name).mkdir(parents=True)
        for i in range(10):
            (lower / name / f"f{i}").write_text(f"{name} {i}\n")
    (lower / "crowd").mkdir()
    for i in range(300):
        (lower / "crowd" / str(i)).write_text("first\n")
    os.mkfifo(lower / "mixed" / "fifo")
    (lower / "mixed" / "link").symlink_to("f0")
    (lower / "plain" / "link").symlink_to("f0")
    for path in sorted([lower, *lower.rglob("*")], reverse=True):
        os.utime(path, (OLD, OLD), follow_symlinks=False)
    return lower


class View:
    """A tree whose programs have the library, or the net alone below them."""

    def __init__(self, way: str, base: Path) -> None:
        """Make the tree in ``base``."""
        self.case = Case.of(fill(base / "lower"), base) if way == "library" else NetTree(base, fill=fill)
        self.lower: Path = self.case.lower
        self.upper: Path = self.case.upper
        self.way = way

    def run(self, script: str, *arguments: object) -> str:
        """Run Python in the tree, several directories of which have been walked already; return what it prints."""
        start = "import os, sys\nfor d in ('plain', 'mixed', 'many'): open(d + '/f9').close(); os.stat(d + '/f9')\n"
        argv = (sys.executable, "-c", start + script, *arguments)
        if self.way == "library":
            done = self.case.run(*argv)
            assert (done.returncode, done.stderr) == (0, "")
            assert self.case.damage() == []
        else:
            done = self.case.run(*argv, cwd=self.lower)
            self.case.check()
        return done.stdout


@pytest.fixture(params=["library", "net"])
def view(request, tmp_path):
    """Return a tree of each way."""
    return View(request.param, tmp_path / "base")


FIFO = """
import threading, time
def read():
    with open('mixed/fifo') as stream: print(stream.read())
reader = threading.Thread(target=read); reader.start()
time.sleep(0.2)  # the reader waits, most likely
with open('mixed/fifo', 'w') as stream: stream.write('through')
reader.join()
"""


def test_both_ends_of_a_fifo_of_the_lower_meet_in_the_tree(view):
    """A reader and a writer get the same copy, also where the directory is well known already."""
    assert view.run(FIFO) == "through\n"
    assert (view.upper / "mixed" / "fifo").is_fifo()


def test_who_waits_at_the_lowers_fifo_goes_on_waiting(view):
    """A program outside that waits for a reader of the original is not woken by what happens in the tree."""
    opened = threading.Event()

    def wait() -> None:
        fd = os.open(view.lower / "mixed" / "fifo", os.O_WRONLY)
        opened.set()
        os.close(fd)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    try:
        view.run(
            "os.close(os.open('mixed/fifo', os.O_RDONLY | os.O_NONBLOCK)); os.close(os.open('mixed/fifo', os.O_RDWR))"
        )
        view.run(FIFO)
        assert not opened.is_set()
    finally:
        os.close(os.open(view.lower / "mixed" / "fifo", os.O_RDONLY | os.O_NONBLOCK))
        waiting.join()
    assert opened.is_set()


@pytest.mark.parametrize("name", ["plain/f0", "mixed/f0", "plain/link"])
def test_the_first_write_gets_the_lowest_descriptor_and_leaves_no_other(view, name):
    """open(2) promises the lowest number; shells count on it."""
    out = view.run(
        f"free = os.open('/dev/null', os.O_RDONLY); os.close(free); before = len(os.listdir('/proc/self/fd'))\n"
        f"fd = os.open({name!r}, os.O_WRONLY); print(fd == free, len(os.listdir('/proc/self/fd')) - before)\n"
        f"os.write(fd, b'new'); print(os.get_inheritable(fd)); print(open({name!r}).read())\n"
        f"print(os.readlink(f'/proc/self/fd/{{fd}}') == os.path.realpath({name!r}))"
    )
    assert out == f"True 1\nFalse\nnew{name.split('/')[0][3:] if 'f0' in name else 'in'} 0\n\nTrue\n"


@pytest.mark.parametrize("directory", ["plain", "mixed"])
def test_what_is_not_a_file_of_ones_own_is_seen_by_opening(view, directory):
    """Missing names, directories and links are what they are, for reading and for writing."""
    out = view.run(
        "import errno\n"
        "def attempt(name, flags):\n"
        "    try: os.close(os.open(sys.argv[1] + '/' + name, flags)); return 'opened'\n"
        "    except OSError as error: return errno.errorcode[error.errno]\n"
        "for name in ('none', '.', 'link', 'f0/x', 'f1/'):\n"
        "    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_NOFOLLOW, os.O_RDONLY | os.O_DIRECTORY):\n"
        "        print(name, attempt(name, flags))\n",
        directory,
    )
    expected = {
        "none": ["ENOENT"] * 4,
        ".": ["opened", "EISDIR", "EISDIR", "opened"],
        "link": ["opened", "opened", "ELOOP", "ENOTDIR"],
        "f0/x": ["ENOTDIR"] * 4,
        "f1/": ["ENOTDIR"] * 4,
    }
    assert out.splitlines() == [f"{name} {one}" for name, all_ in expected.items() for one in all_]


CHANGES = {
    "nothing": "pass",
    "utime": "os.utime('plain', (5, 77))",
    "futimens": "fd = os.open('plain', os.O_RDONLY); os.utime(fd, (5, 78)); os.close(fd)",
    "create": "open('plain/new', 'x').close()",
    "mkdir": "os.mkdir('plain/newdir')",
    "mkfifo": "os.mkfifo('plain/newfifo')",
    "symlink": "os.symlink('f1', 'plain/newlink')",
    "link": "os.link('plain/f5', 'plain/newname')",
    "unlink of a copy": "os.unlink('plain/f0')",
    "unlink": "os.unlink('plain/f8')",
    "rename": "os.rename('plain/f7', 'plain/g7')",
    "rename away": "os.rename('plain/f7', 'many/g7')",
    "rename here": "os.rename('many/f7', 'plain/h7')",
    "bind": "import socket; socket.socket(socket.AF_UNIX).bind('plain/s')",
    "another directory": "open('many/f1', 'a').close()",
}


@pytest.mark.parametrize("who", ["itself", "another process"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_directory_keeps_the_time_that_it_had_before_a_first_write(view, change, who):
    """Copying a file up is no change of its directory: one before it shows, whoever made it, and nothing else does."""
    made = CHANGES[change]
    if who == "another process":
        made = (
            f"import subprocess; subprocess.run([sys.executable, '-c', {'import os' + chr(10) + made!r}], check=True)"
        )
    out = view.run(
        f"for name in ('f0', 'f1', 'f2'): open('plain/' + name, 'a').close()\n"
        f"print(os.stat('plain').st_mtime_ns == {OLD} * 10**9)\n"
        f"{made}\n"
        f"before = os.stat('plain').st_mtime_ns\n"
        f"for name in ('f3', 'f4', 'f6'):\n"
        f"    with open('plain/' + name, 'r+') as stream: stream.write('n')\n"
        f"print(os.stat('plain').st_mtime_ns == before, before == {OLD} * 10**9)\n"
    )
    same = change in {"nothing", "another directory"}
    assert out.split() == ["True", "True", str(same)]


COMES_AND_GOES = """
import errno, subprocess
def attempt(flags):
    try: os.close(os.open(name, os.O_WRONLY | os.O_CREAT | flags)); return 'made'
    except OSError as error: return errno.errorcode[error.errno]
name = sys.argv[1]
if os.path.exists(name): os.unlink(name)
for i in range(3):
    print(attempt(os.O_EXCL), attempt(os.O_EXCL), attempt(0), attempt(os.O_TRUNC)); os.unlink(name)
    print(attempt(os.O_TRUNC), os.path.getsize(name), attempt(os.O_EXCL)); os.rename(name, 'plain/final')
    subprocess.run(['sh', '-c', 'echo others > ' + name]); print(attempt(os.O_EXCL), open(name).read(), end='')
    os.unlink(name)
    os.mkdir(name); print(attempt(os.O_EXCL), attempt(0)); os.rmdir(name)
    os.symlink('aim', name); print(attempt(os.O_EXCL), attempt(0), os.path.exists('plain/aim'))
    os.unlink(name); os.unlink('plain/aim')
print(os.path.exists(name), sorted(os.listdir('plain'))[-2:])
"""


@pytest.mark.parametrize("name", ["plain/lock", "plain/f0"])
def test_a_name_that_comes_and_goes_is_made_anew_each_time(view, name):
    """Lock files and files that are renamed over others: exclusive creation fails while anything has the name."""
    once = ["made EEXIST made made", "made 0 EEXIST", "EEXIST others", "EEXIST EISDIR", "EEXIST made True"]
    assert view.run(COMES_AND_GOES, name).splitlines() == [*once * 3, "False ['final', 'link']"]


RENAMED_OVER = """
def replace(name, text):
    with open('plain/tmp', 'w') as stream: stream.write(text)
    os.rename('plain/tmp', 'plain/' + name)
for i in range(3):
    for name in ('f0', 'fresh', 'f1'): replace(name, name + str(i))
os.unlink('plain/f1'); print(os.path.exists('plain/f1'), os.path.exists('plain/tmp'))
replace('f1', 'back'); os.rename('plain/f1', 'plain/fresh'); print(os.path.exists('plain/f1'))
os.mkdir('plain/d'); open('plain/d/f1', 'x').close(); os.rename('plain/d/f1', 'plain/f1')
os.unlink('plain/f1'); os.rmdir('plain/d')
os.rename('many', 'moved'); os.mkdir('many')  # its names are not the lower's any more
open('many/f1', 'x').close(); os.rename('many/f1', 'many/f2'); os.unlink('many/f2'); print(os.listdir('many'))
os.rmdir('many'); os.rename('moved', 'many'); os.unlink('many/f1'); os.rename('many/f3', 'many/f2')
print(os.path.exists('many/f1'), os.path.exists('many/f3'), open('many/f2').read(), end='')
print(sorted(os.listdir('plain'))[:3], open('plain/fresh').read(), open('plain/f0').read())
"""


def test_files_that_are_renamed_over_others_hide_what_the_lower_has(view):
    """Again and again, by the same names, for files that the lower has and for others."""
    assert view.run(RENAMED_OVER).splitlines() == [
        "False False",
        "False",
        "[]",
        "False False many 3",
        "['f0', 'f2', 'f3'] back f02",
    ]


STATX = """
import ctypes, errno, stat
libc = ctypes.CDLL(None, use_errno=True)
BASIC, NOFOLLOW, CWD = 0x7ff, 0x100, -100
def statx(name, flags):
    out = (ctypes.c_uint32 * 64)()
    if libc.statx(CWD, name.encode(), flags, BASIC, out) < 0: return errno.errorcode[ctypes.get_errno()]
    return (out[7] & 0xffff, out[8] | out[9] << 32, out[4], os.makedev(out[34], out[35]), out[10])
def plain(name, follow):
    try: st = os.stat(name, follow_symlinks=follow)
    except OSError as error: return errno.errorcode[error.errno]
    return (st.st_mode, st.st_ino, st.st_nlink, st.st_dev, st.st_size)
open('plain/f0', 'a').close(); os.unlink('plain/f1'); open('plain/new', 'w').close()
os.link('plain/f2', 'plain/second'); os.mkdir('plain/made')
for name in ('f0', 'f1', 'f2', 'f3', 'second', 'new', 'link', 'made', 'none', 'f3/x', 'made/none', '.'):
    for follow in (True, False):
        for _ in range(2):
            ours, expected = statx('plain/' + name, 0 if follow else NOFOLLOW), plain('plain/' + name, follow)
            if ours != expected: print(name, follow, ours, expected)
print(libc.statx(CWD, b'plain/f3', 0, BASIC, None), errno.errorcode[ctypes.get_errno()])
print(libc.statx(CWD, b'plain/f3', 0x10, BASIC, (ctypes.c_uint32 * 64)()), errno.errorcode[ctypes.get_errno()])
"""


def test_statx_says_what_stat_says(view):
    """Of the lower's files, of copies, of names that are gone or new, of links; with nowhere to write to it fails."""
    assert view.run(STATX).splitlines() == ["-1 EFAULT", "-1 EINVAL"]


def test_a_copy_has_the_time_of_its_original_until_it_is_written_to(view):
    """Opening for writing changes nothing but where the file lies."""
    out = view.run(
        "os.close(os.open('plain/f0', os.O_RDWR)); st = os.stat('plain/f0')\n"
        "print(st.st_mtime_ns, st.st_ino, st.st_size)"
    )
    info = (view.lower / "plain" / "f0").stat()
    assert out.split() == [str(OLD * 10**9), str(info.st_ino), str(info.st_size)]
    assert (view.upper / "plain" / "f0").stat().st_mtime_ns == OLD * 10**9


def test_processes_and_threads_that_write_first_at_once(view):
    """None of what they append is lost, there is one copy, and the directory keeps its time."""
    out = view.run(
        "import threading\n"
        "def work():\n"
        "    for i in range(300):\n"
        "        fd = os.open(f'crowd/{i}', os.O_WRONLY | os.O_APPEND); os.write(fd, b'line\\n'); os.close(fd)\n"
        "def child():\n"
        "    threads = [threading.Thread(target=work) for _ in range(2)]\n"
        "    for thread in threads: thread.start()\n"
        "    for thread in threads: thread.join()\n"
        "    os._exit(0)\n"
        "pids = [os.fork() or child() for _ in range(3)]\n"
        "print(sum(os.waitpid(pid, 0)[1] for pid in pids))\n"
        "print({open(f'crowd/{i}').read() for i in range(300)} == {'first\\n' + 'line\\n' * 6})\n"
        "print(os.stat('crowd').st_mtime_ns)\n"
    )
    assert out.split() == ["0", "True", str(OLD * 10**9)]


def test_a_process_may_change_its_directory_between_calls(tmp_path):
    """The net asks where a caller is each time, whoever had its number before and however often it has asked."""
    tree = NetTree(tmp_path / "base", fill=fill)
    done = tree.run(
        "sh",
        "-c",
        "for d in plain mixed many plain; do cd $d; read a < f1; read b < f2; read c < f3; echo $a $b $c; cd ..; done; "
        "mkdir n; cd n; cd ..; mv n m; cd m; echo x > f1; read a < f1; echo $a",
        cwd=tree.lower,
    )
    lines = [" ".join(f"{name} {i}" for i in (1, 2, 3)) for name in ("plain", "mixed", "many", "plain")]
    assert done.stdout.splitlines() == [*lines, "x"]
    tree.check()


def test_many_processes_by_turns_have_their_own_directories(tmp_path):
    """More callers than the net keeps in mind, each in another directory, call by turns."""

    def make(lower: Path) -> Path:
        for i in range(20):
            (lower / f"d{i}").mkdir(parents=True)
            (lower / f"d{i}" / "name").write_text(str(i))
        return lower

    tree = NetTree(tmp_path / "base", fill=make)
    script = (
        "import os, sys\n"
        "def child(i):\n"
        "    os.chdir(f'd{i}')\n"
        "    for _ in range(50): assert open('name').read() == str(i); os.sched_yield()\n"
        "    os._exit(0)\n"
        "pids = [os.fork() or child(i) for i in range(20)]\n"
        "print(sum(os.waitpid(pid, 0)[1] for pid in pids))\n"
    )
    assert tree.run(sys.executable, "-c", script, cwd=tree.lower).stdout == "0\n"
    tree.check()
