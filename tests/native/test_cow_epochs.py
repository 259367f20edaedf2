"""A tree that somebody else changes (reset, restore, commit): what programs know of it ends, and is learned anew."""

import errno
import os
import subprocess
import sys
import threading

import pytest
from cow_case import Case, config, fill

from pytest_poorcontainer.cow import shared

FILTER_OFF = 12  # struct cow_state, preload/cow/resolver/internal.h


def tell(case):
    """Say that upper or lower is another one, as reset, restore and commit do."""
    fd = os.open(case.work / "state", os.O_RDWR)
    try:
        shared.tell(fd, dict)
    finally:
        os.close(fd)


def filter_off(case):
    """Return whether all programs of the tree ask upper for each name."""
    with (case.work / "state").open("rb") as file:
        file.seek(FILTER_OFF)
        return int.from_bytes(file.read(4), sys.byteorder)


class Running:
    """A program that evaluates lines of Python in a tree and prints what they are."""

    def __init__(self, case, **options):
        """Start it."""
        code = "import errno, os\nwhile True:\n    try: print(repr(eval(input())), flush=True)\n    except OSError as error: print(error.errno, flush=True)"  # noqa: E501
        settings = {"cwd": case.lower, "env": case.env, "text": True, **options}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **settings
        )

    def __enter__(self):
        """Return it."""
        return self

    def __exit__(self, *_):
        """End it."""
        self.process.kill()
        self.process.communicate()

    def __call__(self, expression):
        """Return the value of ``expression``, or the number of the error."""
        self.process.stdin.write(f"{expression}\n")
        self.process.stdin.flush()
        return eval(self.process.stdout.readline())


@pytest.fixture
def case(tmp_path):
    """Return a tree, the state of which is there."""
    case = Case.of(fill(tmp_path / "t"), tmp_path / "beside")
    assert case.run("true").returncode == 0
    return case


def test_the_filter_is_used_again_by_the_next_program_and_has_the_names_of_others(case):
    """Programs that run already, and those that start then, see what was put into upper, in directories too."""
    with Running(case) as running:
        running("open('dir/own', 'w').close()")
        assert running("os.path.exists('dir/late'), os.path.exists('dir/sub/late')") == (False, False)
        (case.upper / "dir" / "late").write_text("late")
        (case.upper / "dir" / "sub").mkdir()
        (case.upper / "dir" / "sub" / "late").write_text("late")
        tell(case)
        assert filter_off(case)
        assert running("open('dir/late').read(), open('dir/sub/late').read()") == ("late", "late")
        assert case.run("cat", "dir/late").stdout == "late"
        assert not filter_off(case)
        assert running("open('dir/late').read(), open('dir/sub/late').read()") == ("late", "late")
        assert running("os.path.exists('dir/own'), open('dir/sub/g').read()") == (True, "gee\n")
        (case.upper / "dir" / "late").unlink()
        tell(case)
        assert case.run("ls", "dir").stdout.split() == ["f1", "f2", "own", "sub"]
        assert not filter_off(case)
        assert running("os.path.exists('dir/late'), os.path.exists('dir/own')") == (False, True)


def test_what_the_lower_lacked_is_asked_for_again(case):
    """A name that a program has made and removed is the lower's after a commit."""
    with Running(case) as running:
        for _ in range(2):
            running("open('dir/new', 'x').close() or os.unlink('dir/new')")
        (case.lower / "dir" / "new").write_text("committed")
        tell(case)
        assert case.run("true").returncode == 0
        assert not filter_off(case)
        assert running("os.open('dir/new', os.O_CREAT | os.O_EXCL)") == errno.EEXIST
        assert running("open('dir/new', 'a').close(), os.unlink('dir/new'), os.path.exists('dir/new')") == (
            None,
            None,
            False,
        )


def test_a_directory_in_which_nothing_waited_is_looked_at_again(case):
    """A FIFO that a commit brings is opened as one: readers and writers of the tree meet at a copy."""
    with Running(case) as running:
        assert running("open('dir/f1').read()") == "one\n"
        (case.lower / "dir" / "f2").unlink()
        os.mkfifo(case.lower / "dir" / "f2")
        tell(case)
        assert case.run("true").returncode == 0
        assert not filter_off(case)
        assert running("os.close(os.open('dir/f2', os.O_RDONLY | os.O_NONBLOCK))") is None
    assert (case.upper / "dir" / "f2").is_fifo()


def test_a_whiteout_that_hides_nothing_any_more_is_no_file(case):
    """Removing a name that a restored upper hides is ENOENT, before and after the filter was filled again."""
    with Running(case) as running:
        running("open('dir/own', 'w').close()")
        os.mknod(case.upper / "dir" / "ghost", 0o20600, 0)
        tell(case)
        assert running("os.unlink('dir/ghost')") == errno.ENOENT
        assert case.run("true").returncode == 0
        assert not filter_off(case)
        assert running("os.unlink('dir/ghost')") == errno.ENOENT


def test_views_at_two_mounts_do_without_the_filter_for_good(case, tmp_path):
    """The names of a view elsewhere have other hashes: both views show what either has made, whoever starts last."""
    other = tmp_path / "elsewhere"
    file = tmp_path / "beside" / "other.config"
    file.write_bytes(config({"mount": other, "upper": case.upper, "work": case.work, "lower": case.lower}))
    with Running(case) as here, Running(case, env={**case.env, "POOR_CONTAINER_COW": str(file)}, cwd="/") as there:
        assert there(f"os.listdir({str(other / 'dir')!r}).sort()") is None
        here("open('dir/here', 'w').close()")
        assert there(f"os.path.exists({str(other / 'dir' / 'here')!r})")
        tell(case)
        assert case.run("true").returncode == 0
        assert filter_off(case)
        here("open('dir/more', 'w').close()")
        assert there(f"os.path.exists({str(other / 'dir' / 'more')!r})")


def test_an_upper_that_is_too_deep_for_the_filter_is_not_read_at_each_start(case):
    """The filter stays off, and all names are seen."""
    deep = case.upper
    for _ in range(110):
        deep /= "d"
    deep.mkdir(parents=True)
    (deep / "bottom").touch()
    tell(case)
    path = deep.relative_to(case.upper) / "bottom"
    for _ in range(2):
        assert case.run("ls", path).stdout == f"{path}\n"
        assert filter_off(case)


def test_names_that_come_while_the_filter_is_filled_are_seen(case):
    """Others change upper while programs start all the time: none that runs misses a name that it was told of."""
    stop = threading.Event()

    def start() -> None:
        while not stop.is_set():
            case.run("true")

    (case.upper / "dir").mkdir()
    starters = [threading.Thread(target=start) for _ in range(2)]
    for thread in starters:
        thread.start()
    try:
        with Running(case) as running:
            for i in range(150):
                assert running(f"os.path.exists('dir/name-{i}')") is False
                (case.upper / "dir" / f"name-{i}").touch()
                tell(case)
                assert running(f"os.path.exists('dir/name-{i}')") is True
            assert running("len(os.listdir('dir'))") == 150 + 3
    finally:
        stop.set()
        for thread in starters:
            thread.join()
    assert case.run("ls", "dir/name-0").returncode == 0
    assert not filter_off(case)
