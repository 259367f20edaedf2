"""What programs of a preload tree know of it, when the tree is changed from outside while they run."""
# ruff: noqa: F811 - a test's argument is the fixture of that name

import subprocess
import sys

import pytest
from cow_trees import make, shell, source, tree  # noqa: F401 - fixtures

NAMES = ("first", "second", "third")


@pytest.fixture
def backend():
    """Return the one backend that this is about."""
    return "preload"


def links(tree, *names):
    """Return how many names each of these has, as a program in the tree sees it."""
    return [int(word) for word in shell(tree, f"stat -c %h {' '.join(names)}").split()]


def test_names_that_come_back_are_counted_again(make, source):
    """By reset of all, of one file, by restore, and when a commit has taken the name from the original too."""
    (source / "third").hardlink_to(source / "first")
    (source / "data/two").unlink()
    (source / "data/two").hardlink_to(source / "data/one")
    tree = make(source, tripwire=False)
    for _ in range(3):
        shell(tree, "rm first")
        assert links(tree, "second") == [2]
        tree.reset()
        assert links(tree, *NAMES) == [3, 3, 3]
    shell(tree, "rm data/one")
    tree.snapshot()
    shell(tree, "rm first second")
    assert links(tree, "third", "data/two") == [1, 1]
    tree.reset("VERSION")
    assert links(tree, "third", "data/two") == [1, 1]
    tree.reset("data/one")
    assert links(tree, "third", "data/one", "data/two") == [1, 2, 2]
    tree.restore()
    assert links(tree, *NAMES, "data/two") == [3, 3, 3, 1]
    shell(tree, "rm first")
    tree.commit()
    assert links(tree, "second", "third", "data/two") == [2, 2, 1]
    shell(tree, "rm second")
    assert links(tree, "third") == [1]


def test_what_a_commit_has_given_to_the_original_can_be_removed(make, source):
    """Also by the program that has made it, and knew that the original had no such name."""
    tree = make(source, tripwire=False)
    script = (  # files that are looked at let the program know their directory
        "import os\nopen('data/x', 'w').close(); os.stat('data/one')\n"
        "open('data/new', 'w').close(); print('made', flush=True)\n"
        "input()\nos.stat('data/one'); os.unlink('data/new'); print(os.path.exists('data/new'))"
    )
    command = [sys.executable, "-c", script]
    with tree.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout.readline() == "made\n"
        tree.commit()
        assert (source / "data/new").exists()
        assert program.communicate("\n", timeout=30)[0] == "False\n"
    assert not tree.exists("data/new")
    assert tree.diff() == {"data/new": "deleted"}
