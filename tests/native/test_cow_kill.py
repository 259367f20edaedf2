"""Programs that are killed, and programs that work at once: no half-made file is seen, nothing reaches the lower."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from cow_case import HERE, Case, compiled, fill, run

WHOLE = "0123456789abcdef" * 8192
KILLS = 200


@pytest.fixture(scope="module")
def ops(tmp_path_factory):
    """Return the compiled operations."""
    return compiled(tmp_path_factory.mktemp("ops") / "cow_ops", sorted((HERE / "cow_ops").glob("*.c")))


def big(tmp_path, count=40):
    """Return a view of a tree with files that take a while to copy up."""
    root = fill(tmp_path / "t")
    for i in range(count):
        (root / "dir" / f"big{i}").write_text(WHOLE)
        os.link(root / "dir" / f"big{i}", root / "d" / f"other{i}") if i % 4 == 0 else None
    return Case.of(root, tmp_path / "beside")


WRITER = """
i=0
while :; do
  for f in dir/big*; do
    printf X >> $f
    chmod 600 $f
    mv $f $f.moved && mv $f.moved $f
    rm -f d/e/e/p/x; echo y > d/e/e/p/x
    mkdir -p new/$i && mv new/$i new/m$i && rm -r new/m$i
    mv d d2 && mv d2 d
    i=$((i+1))
  done
done
"""


WHOLE_FILES = """
import glob
names = glob.glob("dir/big*") + glob.glob("d*/other*")
for name in names:
    with open(name, "rb") as file:
        text = file.read()
    if text.rstrip(b"X") != b"0123456789abcdef" * 8192:
        print(name, len(text))
print(len(names))
"""


def broken(case):
    """Return what is wrong: each file is there, and the original or the original and what was added."""
    done = case.run(sys.executable, "-SEc", WHOLE_FILES)
    return [] if (done.stdout, done.stderr) == ("50\n", "") else [done.stdout, done.stderr]


@pytest.mark.timeout(300)
def test_a_kill_at_any_moment_leaves_a_whole_view(tmp_path, ops):
    """After each of 200 kills the lower is as it was, the view is readable, and each file of it is whole."""
    case = big(tmp_path)
    random_ = random.Random(5)
    for _ in range(KILLS):
        writer = subprocess.Popen(
            ["sh", "-c", WRITER], cwd=case.lower, env=case.env, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(random_.uniform(0.002, 0.06))
        os.killpg(writer.pid, signal.SIGKILL)
        writer.wait()
        seen = case.run(ops, "view")
        assert (seen.returncode, seen.stderr) == (0, "")
        assert "ENOENT" not in seen.stdout
        assert broken(case) == []
    assert case.damage() == []


def test_two_processes_copy_one_file_up_at_once(tmp_path):
    """Many programs append to the same files at the same time: each line is there once, and every file has one copy."""
    case = big(tmp_path, 6)
    script = 'i=0; while [ $i -lt 40 ]; do for f in dir/big*; do echo "$0 $i" >> $f; done; i=$((i+1)); done'
    writers = [subprocess.Popen(["sh", "-c", script, f"w{n}"], cwd=case.lower, env=case.env) for n in range(4)]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    expected = sorted(f"w{n} {i}" for n in range(4) for i in range(40))
    for i in range(6):
        text = case.run("cat", f"dir/big{i}").stdout
        assert text[: len(WHOLE)] == WHOLE
        assert sorted(text[len(WHOLE) :].splitlines()) == expected
    assert case.damage() == []
    assert list((case.work / "tmp").iterdir()) == []


def test_processes_that_create_and_remove_directories_at_once_agree(tmp_path):
    """Several processes make, move and remove directories in one: at the end nothing is left, for all of them."""
    case = big(tmp_path, 1)
    script = (
        "i=0; while [ $i -lt 60 ]; do mkdir dir/$0.$i && echo x > dir/$0.$i/f && mv dir/$0.$i dir/sub/$0.$i "
        "&& rm dir/sub/$0.$i/f && rmdir dir/sub/$0.$i || exit 9; i=$((i+1)); done"
    )
    workers = [subprocess.Popen(["sh", "-c", script, f"w{n}"], cwd=case.lower, env=case.env) for n in range(3)]
    assert [worker.wait(60) for worker in workers] == [0] * 3
    assert case.run("ls", "-A", "dir/sub").stdout.split() == ["g"]
    assert case.damage() == []


def test_of_many_that_create_a_name_one_wins(tmp_path):
    """O_EXCL over a name that was deleted from the lower: exactly one of the processes gets it, each time."""
    case = big(tmp_path, 1)
    script = (
        "set -C; i=0; while [ $i -lt 50 ]; do echo $0 > dir/lock.$i && echo won; "
        "rm -f a.txt; echo $0 > a.txt; i=$((i+1)); done 2>/dev/null; :"
    )
    racers = [
        subprocess.Popen(["sh", "-c", script, f"w{n}"], cwd=case.lower, env=case.env, stdout=subprocess.PIPE, text=True)
        for n in range(3)
    ]
    won = sum(racer.communicate(timeout=60)[0].count("won") for racer in racers)
    assert won == 50
    assert case.damage() == []


def test_the_original_is_whole_for_those_outside(tmp_path):
    """A program without the library sees the lower as it was, while programs in the view change it."""
    case = big(tmp_path, 1)
    assert case.run("sh", "-c", "echo changed > a.txt; rm dir/f1").returncode == 0
    assert run(("cat", "a.txt"), cwd=case.lower).stdout == "hello\n"
    assert (case.lower / "dir" / "f1").read_text() == "one\n"
