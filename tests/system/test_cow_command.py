"""``poor-container cow`` as a shell sees it: a command in a tree, then diff, commit, reset."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pluggy
import pytest
from shells import ROOT, Shell

REFUSE = Path(__file__).with_name("refuse_namespaces.py")


class Cow(Shell):
    """Starts ``poor-container cow``."""

    def argv(self, *command):
        """Return the command line."""
        return super().argv("cow", *command)


@pytest.fixture(scope="module")
def libraries():
    """Return a directory with what our package needs that every user can reach."""
    with tempfile.TemporaryDirectory(prefix="poor-container-test-", dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        shutil.copytree(Path(pluggy.__file__).parent, Path(directory, "pluggy"))
        yield directory


@pytest.fixture
def shell(user, libraries):
    """Return a shell of each user; what it started must have ended by the end of the test."""
    made = Cow(*user, PYTHONPATH=f"{ROOT}:{libraries}")
    yield made
    assert made.left_for_long() == []


@pytest.fixture
def place(user):
    """Return a directory that the user owns, with an original in it."""
    directory = Path(tempfile.mkdtemp(prefix="poor-container-cow-", dir="/tmp"))
    (directory / "app").mkdir()
    (directory / "app/VERSION").write_text("1\n")
    (directory / "app/old").write_text("old\n")
    if "user" in user[2]:
        for path in (directory, *directory.rglob("*")):
            os.chown(path, user[2]["user"], user[2]["group"])
    yield directory
    # The kernel leaves a directory without permissions in the work directory of an overlay.
    subprocess.run(["chmod", "-R", "u+rwx", directory], check=True)
    shutil.rmtree(directory)


SCRIPT = 'cd "${POOR_CONTAINER_TREE:-$0}" && echo 2 > VERSION && rm old && echo new > new && exit 3'


@pytest.mark.parametrize("backend", ["overlay", "preload", "copy"])
def test_run_diff_commit_reset(shell, place, backend):
    """The status is the command's; the changes stay in UPPER until they are committed or taken back."""
    upper = f"--upper={place}/changes"
    done = shell.run(f"--backend={backend}", f"--lower={place}/app", upper, "--", "sh", "-c", SCRIPT, f"{place}/app")
    assert (done.returncode, done.stderr) == (3, "")
    assert (place / "app/VERSION").read_text() == "1\n"
    assert shell.run("diff", upper).stdout == "modified VERSION\nadded    new\ndeleted  old\n"
    assert shell.run("diff", upper, "n*").stdout == "added    new\n"
    assert "-1\n  +2\n" in shell.run("diff", "--text", upper, "VERSION").stdout
    assert shell.run("commit", upper, "VERSION").stdout == "modified VERSION\n"
    assert (place / "app/VERSION").read_text() == "2\n"
    assert shell.run("reset", upper, "old").returncode == 0
    assert shell.run(upper, "diff").stdout == "added    new\n"
    assert shell.run("reset", upper).returncode == 0
    assert shell.run("diff", upper).stdout == ""
    assert (place / "app/old").read_text() == "old\n"


def test_a_directory_that_may_not_be_changed(shell, place):
    """What the user owns is opened for the moment; what is another's is named, before anything is done."""
    upper = f"--upper={place}/changes"
    for name, owner in (("ours", None), ("root", 0)):
        made = place / "app" / name
        made.mkdir()
        (made / "file").touch()
        if owner is None and "user" in shell.who:
            for path in (made, made / "file"):
                os.chown(path, shell.who["user"], shell.who["group"])
        made.chmod(0o555)
    script = 'cd "$POOR_CONTAINER_TREE"; echo 2 > VERSION; chmod 755 ours; rm ours/file; : > ours/new; chmod 555 ours'
    assert shell.run("--backend=copy", f"--lower={place}/app", upper, "--", "sh", "-c", script).stderr == ""
    assert shell.run("commit", upper).returncode == 0
    assert [path.name for path in (place / "app/ours").iterdir()] == ["new"]
    assert (place / "app/ours").stat().st_mode & 0o777 == 0o555
    script = 'cd "$POOR_CONTAINER_TREE"; echo 3 > VERSION; chmod 755 root; rm root/file'
    assert shell.run("--backend=copy", upper, "--", "sh", "-c", script).stderr == ""
    if "user" in shell.who:
        done = shell.run("commit", upper)
        assert done.returncode == 125
        assert f"cannot commit to {place}/app/root: EPERM" in done.stderr
        assert (place / "app/VERSION").read_text() == "2\n"
        assert not (place / "app/.poor-container-commit").exists()


def test_a_later_command_goes_on_with_the_changes(shell, place):
    """Without --lower, which UPPER knows; in the current directory, which it may write to."""
    upper = f"--upper={place}/changes"
    shell.run(f"--lower={place}/app", upper, "--", "sh", "-c", SCRIPT, f"{place}/app")
    told = shell.run(upper, "--", "cat", f"{place}/app/new")
    assert (told.stdout, told.returncode) == ("new\n", 0)


def test_without_namespaces(shell, place):
    """Where none can be made it works by preload: the same changes, and an original that is as it was."""
    upper = f"--upper={place}/changes"
    command = ["sh", "-c", SCRIPT, f"{place}/app"]
    done = shell.run(f"--lower={place}/app", upper, "--", *command, before=(shell.python, REFUSE))
    assert (done.returncode, done.stderr) == (3, "")
    assert '"backend": "preload"' in (place / "changes/tree.json").read_text()
    told = shell.run("diff", upper, before=(shell.python, REFUSE))
    assert told.stdout == "modified VERSION\nadded    new\ndeleted  old\n"
    assert (place / "app/VERSION").read_text() == "1\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--upper is needed"),
        (["--upper=/nonexistent/x", "diff"], "has no changes yet: --lower is needed"),
        (["--upper=/tmp/x", "--lower=/nonexistent", "true"], "/nonexistent: ENOENT"),
        (["--lower=/usr/share", "--upper=/usr/share/x", "true"], "lies in its lower"),
        (["--lower=/usr/share", "--upper=/tmp/x-not-made"], "a command is needed"),
        (["--backend=overly", "--lower=/etc/default", "--upper=/tmp/x-not-made", "true"], "did you mean 'overlay'?"),
    ],
)
def test_what_makes_no_sense(shell, arguments, words):
    """One line on stderr that says what was expected, and status 125."""
    done = shell.run(*arguments)
    assert done.returncode == 125
    assert words in done.stderr
    assert done.stdout == ""
