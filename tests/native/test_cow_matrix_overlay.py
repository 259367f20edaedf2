"""The same operations on the kernel's overlayfs, as the backend overlay mounts it: as on a plain copy, but for a table.

As root with an index of hard links, as an ordinary user in the lab's user namespace without one.
"""
# ruff: noqa: F811 - a test's argument is the fixture of that name

import re

import pytest
from cow_case import IS_ROOT, copy, manifest
from test_cow_matrix import NAMES, ops, outcome, pattern  # noqa: F401 - fixtures

from pytest_poorcontainer import CowTree, Unavailable

pytestmark = pytest.mark.timeout(60)

# What the kernel does otherwise than on a plain copy, by a line that the operation prints there, or the view after it.
# Sources: Documentation/filesystems/overlayfs.rst, and fs/overlayfs of Linux 6.1 to 6.18.
DIRECTORIES = {  # "renaming directories": without redirects none that the lower has is renamed
    "exchange_directories": 'renameat2(AT_FDCWD, "dir", AT_FDCWD, "d", RENAME_EXCHANGE): -1 EXDEV',
    "exchange_mixed": 'renameat2(AT_FDCWD, "dir", AT_FDCWD, "a.txt", RENAME_EXCHANGE): -1 EXDEV',
    "rename_dir": 'rename("dir", "moved"): -1 EXDEV',
    "rename_dir_cwd": 'rename("../dir", "../moved"): -1 EXDEV',
    "rename_dir_deep": 'rename("d/e", "e2"): -1 EXDEV',
    "rename_dir_onto_gone": 'rename("dir", "x"): -1 EXDEV',
    "rename_dir_over_emptied": 'rename("d", "dir"): -1 EXDEV',
    "rename_dir_over_empty": 'rename("dir", "emptydir"): -1 EXDEV',
    "rename_errors": 'rename("d", "dir"): -1 EXDEV',  # before it looks whether that is empty
}
OTHERS = {
    # ovl_listxattr() hides overlayfs' own attributes, but counts them when it is asked for the length, or has no room
    "setxattr": re.compile(r'listxattr\("a\.txt", NULL, 0\): (?!14$)\d+'),
    "fsetxattr_rdonly": "flistxattr(fd, v, 16): -1 ERANGE",
    # ovl_copy_up_file() leaves out holes in steps of 1 MiB (OVL_COPY_UP_CHUNK_SIZE)
    "sparse": "st.st_blocks < 200: 0",
    # a special file is the overlay's own inode, and what is written to it changes no time of upper's or lower's
    "fifo_talk": re.compile(r"\./fifo 10644 0:0 mtime 1100000000\.000000456 nlink 1 size 0"),
}
WITHOUT_INDEX = {  # "index": without it a copy-up breaks hard links of the lower
    "hardlink_chmod": "stat hard2: 100644 0:0 5 nlink 2",
    "hardlink_pair": 'ino_of("hard1") == ino_of("hard2"): 0',
    "hardlink_rename": "cat hard2: [pair",
    "hardlink_unlink": "stat hard2: 100644 0:0 5 nlink 2",
    "hardlink_unlink_after": "cat hard2: [pair",
    "link_new": 'ino_of("a.txt") == ino_of("hard"): 0',
    "rename_same": 'rename("a.txt", "same"): -1 ESTALE',
}
KERNELS = DIRECTORIES | OTHERS | ({} if IS_ROOT else WITHOUT_INDEX)


@pytest.fixture
def place(pattern, tmp_path, ops):
    """Return a function that runs the operations' program in a tree, or in a plain copy in the same container."""
    lower, plain = copy(pattern, tmp_path / "lower"), copy(pattern, tmp_path / "plain")
    before = manifest(lower)
    try:
        tree = CowTree(lower, backend="overlay", temporary=tmp_path, shared=[plain, ops.parent])
    except Unavailable as error:
        pytest.skip(str(error))

    def go(where, *words):
        done = tree.container.run([ops, *words], cwd=tmp_path / where, capture_output=True, timeout=30)
        done.stdout, done.stderr = (text.decode("utf-8", "surrogateescape") for text in (done.stdout, done.stderr))
        return done

    with tree:
        yield go
    assert manifest(lower) == before


def seen(view):
    """Return the lines of a view without readdir's inode numbers (see below)."""
    return [line for line in view.splitlines() if "d_ino differs" not in line]


@pytest.mark.parametrize("name", NAMES)
def test_an_operation_is_as_on_a_plain_copy_or_as_the_kernel_does_it(name, place, tmp_path):
    """Result, errno and tree are a plain copy's, or for an operation of the table what that says; no leak."""
    expected = outcome(place("plain", "run", name), tmp_path / "plain")
    got = outcome(place("lower", "run", name), tmp_path / "lower")
    views = [seen(place(where, "view").stdout) for where in ("plain", "lower")]
    if name not in KERNELS:
        assert got == expected
        assert views[1] == views[0]
        return
    kernels = KERNELS[name]
    pattern_ = kernels if isinstance(kernels, re.Pattern) else re.compile(re.escape(kernels))
    plainly, here = ([*said.splitlines(), *view] for said, view in zip((expected[1], got[1]), views, strict=True))
    assert [line for line in here if pattern_.fullmatch(line)] != []
    assert [line for line in plainly if pattern_.fullmatch(line)] == []
    assert (got[0], got[2]) == (expected[0], expected[2])


def test_readdirs_inode_numbers(place):
    """Of directories they may be the layer's own, not those that stat(2) tells; of the lower's files they are right."""
    view = place("lower", "view").stdout
    directories = {line.split()[0] for line in view.splitlines() if re.search(r"^\./\S+ 4\d{4} ", line)}
    assert len(directories) > 5
    assert set(re.findall(r"^(\S+): d_ino differs", view, re.MULTILINE)) <= directories
    assert seen(view) == seen(place("plain", "view").stdout)
