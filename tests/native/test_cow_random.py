"""Random sequences of operations: as on a plain copy, by two processes in turns, and the kernel sees the same upper."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from cow_case import HERE, IS_ROOT, Case, clean, compiled, copy, fill, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PATHS = ("a.txt", "dir", "dir/f1", "dir/f2", "dir/sub", "dir/sub/g", "d", "d/e", "d/e/e/p", "d/e/e/p/x", "emptydir")
PATHS += ("hard1", "hard2", "link", "dlink", "dlink/f1", "new", "new/x", "dir/new", "emptydir/y", "ro", "attr", "loop1")
path = st.sampled_from(PATHS)
text = st.sampled_from(("one", "t" * 300, "0"))
number = st.integers(0, 511).map(str)


def step(*parts):
    """Return a strategy for one line."""
    return st.tuples(*(st.just(part) if isinstance(part, str) else part for part in parts)).map(" ".join)


WITH_TEXT = ("write", "append", "over", "create", "save", "setxattr")
WITH_NUMBER = ("truncate", "chmod", "fchmod", "futimens", "utimens")
ALONE = ("unlink", "mkdir", "rmdir", "rmtree", "mkfifo", "createat", "unlinkat", "mkdirat", "chdir", "removexattr")
TWO = ("rename", "exchange", "noreplace", "link", "tmpfile")
operation = st.one_of(
    step(st.sampled_from(WITH_TEXT), path, text),
    step(st.sampled_from(WITH_NUMBER), path, number),
    step(st.sampled_from(ALONE), path),
    step(st.sampled_from((*TWO, "rename")), path, path),
    step("symlink", path, st.sampled_from(("a.txt", "dir", "../a.txt", "nowhere", "new"))),
    step(st.sampled_from(("list", "stat")), path),
)
EXAMPLES = int(os.environ.get("COW_EXAMPLES", "500"))
sequence = st.lists(st.lists(operation, min_size=1, max_size=8), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def ops(tmp_path_factory):
    """Return the compiled operations."""
    return compiled(tmp_path_factory.mktemp("ops") / "cow_ops", sorted((HERE / "cow_ops").glob("*.c")))


@pytest.fixture(scope="module")
def pattern(tmp_path_factory):
    """Return a filled directory, to be copied for each sequence."""
    return fill(tmp_path_factory.mktemp("pattern") / "tree")


def feed(ops, lines, **options):
    """Run a sequence of operations; return what they gave."""
    text_ = "\n".join(lines) + "\n"
    done = subprocess.run(
        [str(ops), "seq"],
        input=text_,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=60,
        check=False,
        **options,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


NAMESPACES = ("unshare", *(() if IS_ROOT else ("--user", "--map-root-user")), "--mount")


@pytest.fixture(scope="module")
def mountable(tmp_path_factory):
    """Return why an overlay cannot be mounted here, by this user in namespaces of its own, or ""."""
    where = tmp_path_factory.mktemp("mountable")
    for name in ("lower", "upper", "work", "merged"):
        (where / name).mkdir()
    return mounted(where / "lower", where, ("true",)).stderr.strip()


def mounted(lower, beside, command):
    """Run a command in a mount of ``beside``/upper that the kernel's overlayfs makes, in namespaces of its own."""
    options = f"userxattr,lowerdir={lower},upperdir={beside}/upper,workdir={beside}/work"
    script = 'mount -t overlay cow -o "$1" "$2" && cd "$2" && shift 2 && exec "$@"'
    return run((*NAMESPACES, "sh", "-c", script, "sh", options, beside / "merged", *command))


def kernel_views(ops, case, plain):
    """Return the views of the upper as the kernel shows it, and of a plain copy, by the same user."""
    kernels = case.upper.parent / "kernels"
    (kernels / "merged").mkdir(parents=True)
    (kernels / "work").mkdir()
    (kernels / "upper").symlink_to(case.upper)
    views = mounted(case.lower, kernels, (ops, "view")), run((*NAMESPACES, ops, "view"), cwd=plain)
    assert [view.stderr for view in views] == ["", ""]
    return [without_names(view.stdout) for view in views]


def check_sequence(ops, pattern, parts, *, kernel):
    """Run the parts, each in a process of its own, in a view and in a copy."""
    root = Path(tempfile.mkdtemp(prefix="cow-random-"))
    try:
        plain, case = copy(pattern, root / "plain"), Case.of(copy(pattern, root / "lower"), root / "beside")
        for lines in parts:
            expected = feed(ops, lines, cwd=plain)
            assert feed(ops, lines, cwd=case.lower, env=case.env) == expected
        assert case.damage() == []
        expected = run((ops, "view"), cwd=plain).stdout
        assert case.run(ops, "view").stdout == expected
        assert list((case.work / "tmp").iterdir()) == []
        if kernel:
            kernels, plainly = kernel_views(ops, case, plain)
            assert kernels == plainly
    finally:
        clean(root)


def without_names(view):
    """Drop what the kernel tells otherwise: it knows our hard links not by an index of its own."""
    lines = [line for line in view.splitlines() if "d_ino differs" not in line]
    return [" ".join(word for word in cut_links(line.split(" "))) for line in lines]


def cut_links(words):
    """Return the words without the number of links."""
    if "nlink" not in words:
        return words
    at = words.index("nlink")
    return words[:at] + words[at + 2 :]


@pytest.mark.timeout(600)
def test_a_random_sequence_is_as_on_a_plain_copy(ops, pattern, mountable):
    """Of 500, each result and errno, and the tree seen by a later process and by the kernel, are a plain copy's."""
    done = []

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(parts=sequence)
    def check(parts):
        check_sequence(ops, pattern, parts, kernel=not mountable)
        done.append(parts)

    check()
    assert len(done) >= EXAMPLES


def test_the_kernel_shows_what_the_sequences_made(mountable):
    """The tests of sequences have mounted each upper too, as root or in a user namespace."""
    if mountable:
        pytest.skip(f"an ordinary user's overlay needs user namespaces and Linux 5.11: {mountable}")


SEQUENCES = sorted((HERE / "cow_sequences").glob("*.txt"))


@pytest.mark.parametrize("file", SEQUENCES, ids=lambda file: file.stem)
def test_a_sequence_that_was_wrong_once_is_right(ops, pattern, file, mountable):
    """What random sequences have found stays mended; an empty line begins another process."""
    check_sequence(
        ops, pattern, [part.split("\n") for part in file.read_text().strip().split("\n\n")], kernel=not mountable
    )
