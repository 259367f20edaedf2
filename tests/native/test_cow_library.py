"""libpccow.so as a library, and trees of every shape: where they lie, how they are stacked, what fails."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cow_case import HERE, IS_ROOT, Case, compiled, config, copy, fill, manifest, preloaded, run

from pytest_poorcontainer import native

LIBRARY = HERE.parents[1] / "preload" / "cow" / "library"
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root can mount: a file system that is full, or read-only")


@pytest.fixture
def table():
    """Return the generator and the table of calls."""
    sys.path.insert(0, str(LIBRARY))
    try:
        import generate
    finally:
        sys.path.remove(str(LIBRARY))
    return generate, (LIBRARY / "calls.table").read_text()


def test_the_library_exports_the_names_of_its_table_and_no_other(table):
    """What is not in the table is hidden: the library takes no name from a program by accident."""
    generate, text = table
    lines = run(("nm", "-D", "--defined-only", native.program("libpccow.so"))).stdout.splitlines()
    sanitizers = {"__asan_default_options"} if "libasan" in preloaded(native.program("libpccow.so")) else set()
    assert sorted({line.split()[-1] for line in lines} - sanitizers) == generate.exported(text)


def test_every_name_of_libc_that_has_to_do_with_paths_is_in_the_table(table):
    """A name of glibc 2.36 that takes a path has a wrapper, or a reason why not."""
    generate, text = table
    names = (HERE / "glibc_path_names.txt").read_text().split()
    assert sorted(set(names) - generate.known(text)) == []


def test_the_library_needs_libc_alone_and_looks_nowhere_else():
    """It is loaded into any program: no other library comes with it, and no path of the build is in it."""
    text = run(("readelf", "-d", native.program("libpccow.so"))).stdout
    needed = [line.split("[")[1].rstrip("]") for line in text.splitlines() if "(NEEDED)" in line]
    assert [name for name in needed if not name.startswith(("ld-linux", "libasan.", "libubsan."))] == ["libc.so.6"]
    assert "RUNPATH" not in text
    assert "RPATH" not in text


def work(case, script, **options):
    """Run a shell script in the view; return its output."""
    done = case.run("sh", "-ec", script, **options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("name", [b"sp ace", b"co:lon", b"latin\xe9", b"new\nline", b"'quo\"te", b"x" * 200])
def test_a_tree_may_lie_at_any_path(tmp_path, name):
    """Names of directories are bytes: spaces, colons, quotes, what is no UTF-8."""
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    root.mkdir()
    case = Case.of(fill(root / "t"), root / "beside")
    assert work(case, "echo new > a.txt; rm dir/f1; cat a.txt; ls dir; pwd | wc -l").startswith("new\nf2\nsub\n")
    assert case.damage() == []


def test_the_library_may_lie_behind_a_link(tmp_path):
    """LD_PRELOAD cannot hold spaces and colons: a link of a safe name does, also for what is started by a script."""
    odd = tmp_path / "o d:d"
    odd.mkdir()
    shutil.copy(native.program("libpccow.so"), odd / "libpccow.so")
    (tmp_path / "safe").mkdir()
    (tmp_path / "safe" / "libpccow.so").symlink_to(odd / "libpccow.so")
    case = Case.of(fill(tmp_path / "t"), tmp_path / "beside")
    env = {**case.env, "LD_PRELOAD": str(tmp_path / "safe" / "libpccow.so")}
    assert run(("sh", "-c", "env -i sh -c 'echo new > a.txt; cat a.txt'"), cwd=case.lower, env=env).stdout == "new\n"
    assert case.damage() == []


def test_other_preloaded_libraries_stay(tmp_path):
    """A program's own LD_PRELOAD is kept behind the library's when a program is started."""
    case = Case.of(fill(tmp_path / "t"), tmp_path / "beside")
    other = tmp_path / "other.so"
    (tmp_path / "other.c").write_text("int other;\n")
    subprocess.run(["cc", "-shared", "-fPIC", tmp_path / "other.c", "-o", other], check=True)
    out = work(case, f"LD_PRELOAD={other} sh -c 'echo $LD_PRELOAD; echo x > a.txt'")
    assert out.strip().split(":") == [preloaded(native.program("libpccow.so")), str(other)]
    assert case.damage() == []


def test_a_tree_without_an_upper_is_read_only(tmp_path):
    """Writes to it are EROFS, whatever they are; it can be read."""
    lower = fill(tmp_path / "t")
    case = Case(lower, tmp_path, tmp_path, tmp_path / "config", manifest(lower))
    case.config.write_bytes(config({"mount": lower, "lower": lower}))
    for script in ("echo x > a.txt", "rm a.txt", "mkdir n", "mv a.txt b", "chmod 600 a.txt", "touch n", "ln -s x y"):
        done = case.run("sh", "-c", script)
        assert done.returncode != 0
        assert "Read-only file system" in done.stderr
    assert case.run("cat", "a.txt").stdout == "hello\n"
    assert case.damage() == []


def test_a_mount_elsewhere_shows_the_lower(tmp_path):
    """A tree may be seen at another path than its lower's, which need not exist."""
    case = Case.of(fill(tmp_path / "t"), tmp_path / "beside")
    mount = tmp_path / "elsewhere"
    tree = {"mount": mount, "upper": case.upper, "work": case.work, "lower": case.lower}
    case.config.write_bytes(config(tree))
    out = case.run(
        "sh", "-ec", f"cd {mount}; pwd; echo x > dir/f1; cat dir/f1 a.txt; ls -d {mount}/dir; rm a.txt", cwd="/"
    )
    assert out.stdout == f"{mount}\nx\nhello\n{mount}/dir\n"
    assert sorted(path.name for path in case.upper.iterdir()) == ["a.txt", "dir"]
    assert case.damage() == []


def test_layers_are_stacked(tmp_path):
    """A lower may be another tree's upper: its whiteouts and opaque directories hide what is below."""
    first = Case.of(fill(tmp_path / "t"), tmp_path / "first")
    work(first, "echo one > a.txt; rm dir/f1; rm -r d; mkdir d; echo n > d/n; echo 1 > new")
    before = manifest(first.upper)
    second = Case.of(first.lower, tmp_path / "second")
    tree = {"mount": first.lower, "upper": second.upper, "work": second.work, "lower": [first.upper, first.lower]}
    second.config.write_bytes(config(tree))
    assert work(second, "cat a.txt; ls dir d; cat new") == "one\nd:\nn\n\ndir:\nf2\nsub\n1\n"
    script = (
        "echo two >> a.txt; echo back > dir/f1; rm d/n new; mv dir dir2; "
        "cat a.txt dir2/f1 dir2/f2; ls d; ls -d d* new || :"
    )
    out = second.run("sh", "-ec", script).stdout
    assert out == "one\ntwo\nback\ntwo\nd\ndangling\ndir2\ndlink\n"
    assert manifest(first.upper) == before
    assert first.damage() == []
    assert work(first, "cat a.txt; ls d dir new") == "one\nnew\n\nd:\nn\n\ndir:\nf2\nsub\n"


def test_several_trees_at_once(tmp_path):
    """Each has its own upper; a rename from one to the other is EXDEV, which mv takes for a reason to copy."""
    one, two = Case.of(fill(tmp_path / "one"), tmp_path / "b1"), Case.of(fill(tmp_path / "two"), tmp_path / "b2")
    trees = [{"mount": c.lower, "upper": c.upper, "work": c.work, "lower": c.lower} for c in (one, two)]
    one.config.write_bytes(config(*trees))
    out = work(
        one,
        f"mv a.txt {two.lower}/moved; cat {two.lower}/moved; echo x > {two.lower}/a.txt; ls; cd {two.lower}; cat a.txt",
    )
    assert "hello\n" in out
    assert out.endswith("x\n")
    assert (two.upper / "moved").read_text() == "hello\n"
    assert one.damage() == two.damage() == []


def test_a_directory_that_holds_a_tree_cannot_be_moved(tmp_path):
    """The path of lower, upper and work is what the view stands on: a rename above them is EBUSY."""
    (tmp_path / "above").mkdir()
    case = Case.of(fill(tmp_path / "above" / "t"), tmp_path / "beside")
    for path in ("above", "beside", "above/t", "beside/upper"):
        done = case.run("mv", "-T", tmp_path / path, tmp_path / "gone", cwd=tmp_path)
        assert "busy" in done.stderr
    assert case.damage() == []


def test_an_upper_inside_the_lower_is_refused(tmp_path):
    """What is written to it would be seen as the tree's own: no program starts."""
    lower = fill(tmp_path / "t")
    case = Case.of(lower, tmp_path / "beside")
    for upper, work_ in ((lower / "dir", case.work), (case.upper, lower / "emptydir"), (case.upper, case.upper / "w")):
        case.config.write_bytes(config({"mount": lower, "upper": upper, "work": work_, "lower": lower}))
        done = case.run("true")
        assert done.returncode == 126
        assert "inside" in done.stderr


def test_what_cannot_be_had_is_refused_by_name(tmp_path):
    """A program that has trees cannot chroot; the log says call, path and reason."""
    case = Case.of(fill(tmp_path / "t"), tmp_path / "beside")
    done = case.run(sys.executable, "-c", f"import os; os.chroot({str(case.lower)!r})")
    assert "PermissionError" in done.stderr
    assert f"chroot {case.lower}: " in (tmp_path / "beside" / "refused").read_text()


def test_state_that_is_gone_is_made_again(tmp_path):
    """Without work/state and work/index the view is the same: they are rebuilt from upper."""
    case = Case.of(fill(tmp_path / "t"), tmp_path / "beside")
    work(case, "echo x > a.txt; rm dir/f1; mv d d2; echo y > hard1; rm -r emptydir")
    before = work(case, "find . | sort; cat a.txt hard1 d2/e/e/p/x")
    (case.work / "state").unlink()
    shutil.rmtree(case.work / "index")
    after = work(case, "find . | sort; cat a.txt hard1 d2/e/e/p/x; rm a.txt; ls a.txt 2>/dev/null || :")
    assert after == before
    assert case.damage() == []


def test_a_filter_that_is_switched_off_shows_what_others_have_done(tmp_path):
    """Who changes upper from outside writes filter_off and generation; running programs then see it."""
    case = Case.of(fill(tmp_path / "t"), tmp_path / "beside")
    program = subprocess.Popen(
        [sys.executable, "-uc", "import os\nprint(os.listdir('dir'))\ninput()\nprint(open('a.txt').read())"],
        cwd=case.lower, env=case.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    program.stdout.readline()
    state = os.open(case.work / "state", os.O_RDWR)
    generation = int.from_bytes(os.pread(state, 4, 8), sys.byteorder)
    os.pwrite(state, (1).to_bytes(4, sys.byteorder), 12)
    os.pwrite(state, (generation + 1).to_bytes(4, sys.byteorder), 8)
    os.close(state)
    (case.upper / "a.txt").write_text("from outside")
    out = program.communicate("\n", timeout=30)[0]
    assert "from outside" in out


LATE = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
int main(void)
{
    pid_t pid;
    posix_spawn_file_actions_t fa;
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addclosefrom_np(&fa, 3);
    posix_spawn_file_actions_addopen(&fa, 9, "a.txt", O_RDONLY, 0);
    puts(strerror(posix_spawn(&pid, "/bin/true", &fa, NULL, (char *[]){ "true", NULL }, NULL)));
}
"""


def test_a_spawn_that_cannot_be_served_is_refused_and_told(tmp_path):
    """A path that is opened to a descriptor which was closed by the action before: ENOSYS, and a line in the log."""
    (tmp_path / "late.c").write_text(LATE)
    case = Case.of(fill(tmp_path / "t"), tmp_path / "beside")
    done = case.run(compiled(tmp_path / "late", [tmp_path / "late.c"]))
    assert done.stdout == "Function not implemented\n"
    assert "addclosefrom_np" in (tmp_path / "beside/refused").read_text()


def test_an_upper_of_another_that_is_deep_is_seen(tmp_path):
    """However deep a file lies that somebody else has put in upper: it is what a program sees, not the lower's."""
    deep = "/".join(["d"] * 110)
    for name in ("t", "beside/upper"):
        (tmp_path / name / deep).mkdir(parents=True)
        (tmp_path / name / deep / "file").write_text(f"{name}\n")
    case = Case(tmp_path / "t", tmp_path / "beside/upper", tmp_path / "beside/work", tmp_path / "config", {})
    case.work.mkdir()
    case.config.write_bytes(config({"mount": case.lower, "upper": case.upper, "work": case.work, "lower": case.lower}))
    done = case.run("sh", "-c", f"cat {deep}/file; cat {case.lower}/{deep}/file; cd {deep} && cat file")
    assert (done.stdout, done.stderr) == ("beside/upper\n" * 3, "")


@needs_root
def test_a_full_upper_is_enospc_and_loses_nothing(tmp_path):
    """The program gets ENOSPC; the file is as it was, in view and lower, and nothing half-made is seen."""
    lower = fill(tmp_path / "t")
    (lower / "huge").write_bytes(b"h" * 3_000_000)
    (tmp_path / "beside").mkdir()
    script = (
        'mount -t tmpfs -o size=2m none "$1" && mkdir "$1/upper" "$1/work" && cd "$2" && shift 2 && '
        '{ "$@" sh -c "echo x >> huge"; echo $?; "$@" sh -c "cksum < huge; echo small > a.txt; cat a.txt; ls"; }'
    )
    case = Case(lower, tmp_path / "beside/upper", tmp_path / "beside/work", tmp_path / "config", manifest(lower))
    case.config.write_bytes(config({"mount": lower, "upper": case.upper, "work": case.work, "lower": lower}))
    start = ["env", f"LD_PRELOAD={preloaded(native.program('libpccow.so'))}", f"POOR_CONTAINER_COW={case.config}"]
    done = run(("unshare", "--mount", "sh", "-c", script, "sh", tmp_path / "beside", lower, *start))
    assert "No space left on device" in done.stderr
    expected = run(("sh", "-c", "cksum < huge"), cwd=lower).stdout
    assert done.stdout.splitlines()[:3] == ["2", expected.strip(), "small"] or done.stdout.splitlines()[1:3] == [
        expected.strip(),
        "small",
    ]
    assert case.damage() == []


@needs_root
def test_a_lower_on_a_read_only_file_system_can_be_changed(tmp_path):
    """The view of a read-only mount is writable: access says so, and all is copied up."""
    lower = fill(tmp_path / "t")
    case = Case.of(lower, tmp_path / "beside")
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && cd "$1" && shift && exec "$@"'
    start = ["env", f"LD_PRELOAD={preloaded(native.program('libpccow.so'))}", f"POOR_CONTAINER_COW={case.config}"]
    inner = (
        "test -w a.txt && echo writable; echo x > a.txt; cat a.txt; chmod 600 dir/f1; "
        "mkdir n; ls -d n; rm -r d; ls d || :"
    )
    done = run(("unshare", "--mount", "sh", "-c", script, "sh", lower, *start, "sh", "-ec", inner))
    assert done.stdout == "writable\nx\nn\n"
    assert case.damage() == []


@needs_root
def test_an_upper_that_the_kernel_has_written_is_understood(tmp_path):
    """What overlayfs leaves in an upper (whiteouts, opaque directories) means the same to the library."""
    case = Case.of(fill(tmp_path / "t"), tmp_path / "beside")
    (tmp_path / "merged").mkdir()
    (tmp_path / "kernel-work").mkdir()
    plain = copy(case.lower, tmp_path / "plain")
    script = (
        "echo k > a.txt; rm dir/f1; rm -r d; mkdir d; echo n > d/n; mv emptydir e2 || mkdir e2; "
        "ln -s x y; chmod 700 dir; rm -rf e2"
    )
    options = f"userxattr,lowerdir={case.lower},upperdir={case.upper},workdir={tmp_path}/kernel-work"
    mount = f"mount -t overlay cow -o {options} {tmp_path}/merged && cd {tmp_path}/merged && {script}; rm -rf emptydir"
    assert run(("unshare", "--mount", "sh", "-c", mount)).returncode == 0
    run(("sh", "-c", f"{script}; rm -rf emptydir"), cwd=plain)
    look = "find . | sort; cat a.txt d/n; stat -c %a dir; unlink dir/f1 2>&1; mkdir emptydir; ls -A emptydir"
    assert case.run("sh", "-c", look).stdout == run(("sh", "-c", look), cwd=plain).stdout
    assert case.damage() == []
