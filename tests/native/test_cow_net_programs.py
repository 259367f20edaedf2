"""Real programs below the net: static ones, Go's, and dynamic ones, each as on a plain copy."""

import os
import shutil
import subprocess
import sys

import pytest
from cow_case import library_environment
from net_tree import PROGRAMS, NetTree

BUSYBOX = shutil.which("busybox")
GO = shutil.which("go")
LIBRARY = ("--library", library_environment()["LD_PRELOAD"])
ENVIRONMENT = {**os.environ, **{key: value for key, value in library_environment().items() if key != "LD_PRELOAD"}}
SCRIPT = """
set -e
cp a.txt copy; mv copy d/copy; echo more >>a.txt; sed -i s/hello/bye/ d/b.txt
mkdir -p n/m; for i in $(seq 300); do echo $i >n/m/file-$i; done
rm -r d/e; ln -s a.txt s; ln a.txt hard; chmod 600 empty; touch -d @86400 empty
tar cf t.tar n; rm -r n; mkdir out; tar xf t.tar -C out; mv out/n again; rm t.tar
find . -name 'file-1?' -exec rm {} +; cat d/b.txt; ls -a again/m | wc -l; mv d renamed; rmdir out
(cd renamed && pwd && echo here >here); test -e renamed/here; ls -lR . | wc -l
"""


def show(directory, run):
    """Return one line for each file of a tree, as a static program sees it."""
    find = "find . ! -type d -exec stat -c '%n %F %a %s' {} ';' | sort; find . -type f -exec md5sum {} + | sort"
    return run([BUSYBOX, "sh", "-c", find], directory)


def plainly(argv, directory):
    """Run a command without a net; return what it said."""
    return subprocess.run(argv, cwd=directory, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(not BUSYBOX, reason="no busybox: sudo apt install busybox-static")
def test_a_static_busybox_works_on_the_tree_as_on_a_plain_copy(tmp_path):
    """A shell script of copies, moves, removals, archives and links leaves the same tree and prints the same."""
    tree = NetTree(tmp_path)
    plain = tree.copy()

    def below_the_net(argv, directory):
        return tree.run(*argv, cwd=directory).stdout

    expected = plainly([BUSYBOX, "sh", "-c", SCRIPT], plain).replace(str(plain), "ROOT")
    assert below_the_net([BUSYBOX, "sh", "-c", SCRIPT], tree.lower).replace(str(tree.lower), "ROOT") == expected
    assert show(tree.lower, below_the_net) == show(plain, plainly)
    tree.check()


@pytest.mark.skipif(not GO, reason="no Go compiler: sudo apt install golang-go")
def test_a_go_program_works_on_the_tree_as_on_a_plain_copy(tmp_path, tmp_path_factory):
    """Files, goroutines, renames, commands of a Go program without libc: the same results, the lower untouched."""
    build = tmp_path_factory.mktemp("go")
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(build),
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=mod",
        "GO111MODULE": "off",
    }
    program = build / "tree"
    subprocess.run([GO, "build", "-o", program, PROGRAMS / "tree.go"], env=environment, check=True)
    tree = NetTree(tmp_path)
    plain = tree.copy()
    expected = plainly([program], plain)
    assert tree.run(program, cwd=tree.lower).stdout == expected
    assert "moved" in expected
    tree.check()


PYTHON = """
import os, pathlib, shutil, sqlite3, subprocess, sys, tempfile, threading
here = pathlib.Path(".")
def many(n):
    for i in range(50):
        path = here / f"{n}-{i}"
        path.write_text("x"); os.replace(path, f"{path}.done"); os.chmod(f"{path}.done", 0o600); os.stat(f"{path}.done")
threads = [threading.Thread(target=many, args=(n,)) for n in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
with sqlite3.connect("data.db") as data:
    data.execute("pragma journal_mode=wal"); data.execute("create table t(x)")
    data.executemany("insert into t values (?)", [(i,) for i in range(100)])
data.close()
shutil.copytree("d", "d2", symlinks=True); shutil.rmtree("d")
subprocess.run(["sh", "-c", "echo by-shell >>a.txt; rm link"], check=True, env={})
with tempfile.NamedTemporaryFile(dir=".") as file: file.write(b"x")
print(sorted(os.listdir(".")), os.path.realpath("dirlink").rpartition("/")[2], open("a.txt").read())
"""


@pytest.mark.parametrize("library", [False, True], ids=["net alone", "library and net"])
def test_a_dynamic_program_works_with_and_without_the_library(tmp_path, library):
    """Python's files, threads, sqlite, children with an empty environment: the same, whoever resolves the paths."""
    tree = NetTree(tmp_path)
    plain = tree.copy()
    expected = plainly([sys.executable, "-c", PYTHON], plain)
    options = LIBRARY if library else ()
    argv = tree.argv(sys.executable, "-c", PYTHON, options=options)
    done = subprocess.run(argv, cwd=tree.lower, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout == expected
    tree.check()
    assert not tree.log.exists()


GIT = """
set -e; day=2020-01-01T00:00:00Z
export HOME=$PWD GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_DATE=$day GIT_COMMITTER_DATE=$day
git -c init.defaultBranch=main init -q; git config user.email a@example.org; git config user.name a
for i in $(seq 20); do echo $i >f$i; done; git add .; git commit -qm one; git branch other
for i in 1 2 3; do echo more >>f$i; git commit -qam $i; done
git checkout -q other; echo new >new; git add new; git commit -qm new; git rebase -q main; git gc -q; git fsck
git log --format=%H; git reset -q --hard HEAD~2; git clean -fdq; git status --short
git clone -q . clone; diff -r d clone/d
printf 'all: prog\nprog: one.o two.o\n\tcc -o $@ $^\n' >Makefile; echo 'int f(void){return 3;}' >two.c
echo 'int f(void); int main(void){return f();}' >one.c; make -s -j2; ./prog || echo $?; make -s; ls -A | sort
"""


@pytest.mark.skipif(not shutil.which("git") or not shutil.which("make"), reason="no git or make: apt install git make")
@pytest.mark.parametrize("library", [False, True], ids=["net alone", "library and net"])
def test_git_and_make_work_with_and_without_the_library(tmp_path, library):
    """Commits, a rebase, a clone and a build have the same hashes and results as on a plain copy."""
    tree = NetTree(tmp_path)
    plain = tree.copy()
    expected = plainly(["bash", "-c", GIT], plain)
    options = LIBRARY if library else ()
    argv = tree.argv("bash", "-c", GIT, options=options)
    done = subprocess.run(argv, cwd=tree.lower, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout == expected
    tree.check()
    assert not tree.log.exists()


COUNT = """
import ctypes, os
prctl = ctypes.CDLL(None).prctl
before = prctl(0x70634377, 2, 0, 0, 0)
for i in range(1000): os.stat("a.txt"); os.close(os.open("a.txt", os.O_RDWR)); os.chmod("empty", 0o600); os.listdir("d")
print(prctl(0x70634377, 2, 0, 0, 0) - before - 1)
"""


def test_the_librarys_own_calls_do_not_go_through_the_net(tmp_path):
    """With the library, the supervisor sees none of them: they carry the number that lets them pass."""
    tree = NetTree(tmp_path)
    counted = []
    for options in ((), LIBRARY):
        argv = tree.argv(sys.executable, "-c", COUNT, options=options)
        done = subprocess.run(argv, cwd=tree.lower, env=ENVIRONMENT, check=True, capture_output=True, text=True)
        counted.append(int(done.stdout))
    assert counted[0] >= 3000
    assert counted[1] <= 10


@pytest.mark.skipif(not BUSYBOX, reason="no busybox: sudo apt install busybox-static")
def test_a_large_merged_directory_is_read_once_while_it_is_emptied(tmp_path):
    """Removing a directory's 3,000 entries while it is read skips none: half of them the lower's, half the upper's."""

    def fill(directory):
        directory.mkdir()
        (directory / "many").mkdir()
        for number in range(1500):
            (directory / "many" / f"lower-{number}").touch()

    tree = NetTree(tmp_path, fill=fill)
    script = "for i in $(seq 1500); do : >many/upper-$i; done; ls many | wc -l; rm -r many; ls -A"
    assert tree.run(BUSYBOX, "sh", "-c", script, cwd=tree.lower).stdout == "3000\n"
    tree.check()


def test_a_link_in_the_lower_to_a_program_outside_is_found_from_a_merged_directory(tmp_path):
    """The kernel's own directory is then the upper's, which does not have the link (a virtual environment's python)."""

    def fill(directory):
        (directory / "d").mkdir(parents=True)
        (directory / "d" / "say").symlink_to(shutil.which("echo"))

    tree = NetTree(tmp_path, fill=fill)
    assert tree.run("sh", "-c", "touch d/x; cd d; ./say found", cwd=tree.lower).stdout == "found\n"
