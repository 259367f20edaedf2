"""pccow as a launcher: status, signals, descriptors, lifelines, what is left behind; starts within starts."""

import os
import re
import shlex
import signal
import subprocess
import sys

import pytest
from net_tree import NetTree, alive, children, compile_program, wait_for

from pytest_poorcontainer import native


@pytest.fixture
def tree(tmp_path):
    """A tree of some files."""
    return NetTree(tmp_path)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """The program that does one operation by bare system calls."""
    return compile_program("raw", tmp_path_factory.mktemp("raw"))


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", -signal.SIGTERM), ("kill -KILL $$", -signal.SIGKILL)],
)
@pytest.mark.parametrize("net", ["required", "off"])
def test_the_status_is_the_commands_own(tree, script, status, net):
    """Pccow ends as the command did, by the same signal too."""
    assert tree.run("sh", "-c", script, net=net, check=False).returncode == status


def test_a_command_that_is_not_there_is_127_and_one_that_cannot_be_run_126(tree):
    """As in shells, and with a sentence that names the command."""
    # Where one may not search a directory of PATH, a command may be there: then it is "permission denied" (execvp(3)).
    done = tree.run("no-such-command", check=False, env={**os.environ, "PATH": os.defpath})
    assert (done.returncode, "cannot execute no-such-command: No such file" in done.stderr) == (127, True)
    done = tree.run(tree.lower / "a.txt", check=False)
    assert (done.returncode, "Permission denied" in done.stderr) == (126, True)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 64, "usage: pccow"),
        (["--net", "some", "--", "true"], 64, "usage: pccow"),
        (["--config", "/none", "--", "true"], 125, "cannot read the configuration /none: No such file"),
        (["--", "true"], 125, "neither --config nor POOR_CONTAINER_COW"),
        (["--config", "/dev/null", "--", "true"], 125, "cannot use the configuration"),
        (["--lifeline", "77", "--", "true"], 125, "a number of an open descriptor was expected"),
    ],
)
def test_bad_arguments_are_one_clear_sentence(arguments, status, said):
    """A wrong start says what was wrong, and runs nothing."""
    environment = {name: value for name, value in os.environ.items() if name != "POOR_CONTAINER_COW"}
    done = subprocess.run(
        [native.program("pccow"), *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, said in done.stderr) == (status, True)


def test_signals_reach_the_command(tree):
    """A signal to pccow is the command's, which may handle it and end as it likes."""
    script = "trap 'echo got; exit 3' USR1; echo ready; while :; do sleep 0.01; done"
    with tree.popen("sh", "-c", script) as pccow:
        assert pccow.stdout.readline() == "ready\n"
        pccow.send_signal(signal.SIGUSR1)
        assert pccow.communicate()[0] == "got\n"
    assert pccow.returncode == 3


def test_the_command_has_the_starters_signal_mask_environment_and_descriptors(tree):
    """Nothing of pccow's own is left in the command: no descriptor, no blocked signal."""
    read, write = os.pipe()
    script = (
        "import os, signal; print(sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))), "
        f"os.environ['MINE'], sorted(int(n) for n in os.listdir('/proc/self/fd') if int(n) != {write})[:4])"
    )
    done = tree.run(sys.executable, "-c", script, pass_fds=[write], env={**os.environ, "MINE": "mine"})
    os.close(read)
    os.close(write)
    assert done.stdout == "[] mine [0, 1, 2, 3]\n"  # 3 is listdir's own


@pytest.mark.parametrize("what", ["lifeline", "owner", "front"])
def test_the_command_and_all_it_started_end_with_the_lifeline_the_owner_or_the_front(tree, what):
    """When the starter's pipe hangs up, it dies, or pccow itself is killed, nothing of the command goes on."""
    read, write = os.pipe()
    owner = subprocess.Popen(["sleep", "1000"])
    pidfd = os.pidfd_open(owner.pid)
    options = ("--lifeline", str(read), "--owner", str(pidfd))
    script = "setsid sleep 1000 & sleep 1000 & echo ready; wait"
    with owner, tree.popen("sh", "-c", script, options=options, pass_fds=[read, pidfd]) as pccow:
        os.close(read)
        os.close(pidfd)
        (supervisor,) = wait_for(lambda: children(pccow.pid), "the supervisor")
        assert pccow.stdout.readline() == "ready\n"
        (command,) = children(supervisor)
        family = [supervisor, command, *wait_for(lambda: len(children(command)) == 2 and children(command), "both")]
        if what == "lifeline":
            os.close(write)
        else:
            (owner if what == "owner" else pccow).kill()
        wait_for(lambda: not any(alive(pid) for pid in family), "the end of all")
        pccow.communicate()
        owner.kill()
    if what != "lifeline":
        os.close(write)


def test_what_the_command_leaves_behind_is_served_on(tree):
    """A daemon outlives the command and pccow, and still writes to the tree, never to the lower."""
    fifo = tree.base / "fifo"
    os.mkfifo(fifo)
    script = f"(exec <&- >&- 2>&-; read line <{fifo}; echo by-daemon >a.txt; echo done >{fifo}) & echo $!"
    done = tree.run("bash", "-c", script, cwd=tree.lower)
    assert alive(int(done.stdout))
    fifo.write_text("go\n")
    assert fifo.read_text() == "done\n"
    wait_for(lambda: not alive(int(done.stdout)), "the end of the daemon")
    assert (tree.upper / "a.txt").read_text() == "by-daemon\n"
    tree.check()


def level(command, *, check=True):
    """Run a pccow command line with --status, and return what it said there and the CompletedProcess."""
    read, write = os.pipe()
    place = next(i for i, word in enumerate(command) if str(word).endswith("pccow")) + 1
    command = [*command[:place], "--status", str(write), *command[place:]]
    done = subprocess.run(command, check=check, pass_fds=[write], capture_output=True, text=True)
    os.close(write)
    with os.fdopen(read) as status:
        return status.read(), done


def test_the_level_is_told(tree):
    """One line says whether there is a net, or why not."""
    assert level(tree.argv("true"))[0] == "net\n"
    assert level(tree.argv("true", net="off"))[0] == "preload: it was not wanted (--net off)\n"


def test_below_another_programs_listener_the_level_is_lower_and_required_fails(tree, tmp_path_factory):
    """The kernel gives one listener only: pccow says so, and runs the command without a net; required, not at all."""
    listen = compile_program("listen", tmp_path_factory.mktemp("listen"))
    said, done = level([listen, *tree.argv("echo", "ran", net="auto")])
    assert re.match("preload: another program's seccomp listener is above", said)
    assert done.stdout == "ran\n"
    said, done = level([listen, *tree.argv("echo", "ran")], check=False)
    assert (said, done.stdout, done.returncode) == ("", "", 125)
    assert "no net below libc: another program's seccomp listener" in done.stderr


def nested(outer, inner, *command, cwd):
    """Run a command on two trees, each by a pccow of its own, one in the other."""
    return outer.run(*inner.argv(*command), cwd=cwd)


def test_a_start_within_a_start_adds_its_tree(raw, tmp_path):
    """Both trees are the inner command's, the outer command keeps its own one, and one net serves all."""
    outer, inner = NetTree(tmp_path / "outer"), NetTree(tmp_path / "inner")
    nested(outer, inner, raw, "open_trunc", inner.lower, cwd=inner.lower)
    nested(outer, inner, raw, "open_trunc", outer.lower, cwd=outer.lower)
    assert [(tree.upper / "a.txt").read_text() for tree in (outer, inner)] == ["new", "new"]
    script = f"{' '.join(map(str, inner.argv('true')))}; cat {inner.lower}/a.txt"
    assert outer.run("sh", "-c", script).stdout == "hello a"
    outer.check()
    inner.check()


def test_starts_within_a_start_have_uppers_of_their_own_for_one_lower(tmp_path):
    """Tests that run side by side below one net see each its own changes of the lower that they share."""
    outer = NetTree(tmp_path / "outer")
    one = NetTree(tmp_path / "one")
    two = NetTree(tmp_path / "two", lower=one.lower)
    change = "for i in $(seq 50); do echo $0 >>a.txt; cat a.txt >copy; mv copy a.txt; done; tail -n 1 a.txt"
    with (
        outer.popen(*one.argv("sh", "-c", change, "one"), cwd=one.lower) as first,
        outer.popen(*two.argv("sh", "-c", change, "two"), cwd=two.lower) as second,
    ):
        assert [process.communicate()[0] for process in (first, second)] == ["one\n", "two\n"]
    both = f"{shlex.join(map(str, one.argv('sh', '-c', change, 'three')))} & "
    both += f"{shlex.join(map(str, two.argv('sh', '-c', change, 'four')))} & wait"
    done = outer.run("sh", "-c", both, cwd=one.lower)
    assert (sorted(done.stdout.split()), done.stderr) == (["four", "three"], "")
    assert set((one.upper / "a.txt").read_text().split()) == {"hello", "aone", "one", "three"}
    assert set((two.upper / "a.txt").read_text().split()) == {"hello", "atwo", "two", "four"}
    one.check()


def test_a_tree_on_a_tree_has_the_outer_view_as_its_lower(raw, tmp_path):
    """An inner tree of the outer one's directory begins with what is seen there, and changes neither layer of it."""
    outer = NetTree(tmp_path / "outer")
    inner = NetTree(tmp_path / "inner", lower=outer.lower)
    outer.run(raw, "open_trunc", outer.lower, cwd=outer.lower)
    outer.run(raw, "unlinkat", outer.lower, cwd=outer.lower)
    seen = nested(outer, inner, raw, "open_append", inner.lower, cwd=inner.lower).stdout
    assert "[newnew]" in seen
    assert "b.txt" not in seen
    assert (outer.upper / "a.txt").read_text() == "new"
    assert (inner.upper / "a.txt").read_text() == "newnew"
    outer.check()


def test_a_tree_above_an_outer_one_is_refused(tmp_path):
    """What lies below the outer mount would be the outer tree's still: that is said, and nothing is run."""
    (tmp_path / "outer").mkdir()
    outer = NetTree(tmp_path / "outer" / "below")
    inner = NetTree(tmp_path / "inner", lower=tmp_path / "outer")
    done = outer.run(*inner.argv("echo", "ran"), check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert "cannot add to the outer pccow's trees those of" in done.stderr


def test_calls_that_block_leave_the_net_to_the_others(tree):
    """Forty processes wait for the other ends of FIFOs, killed ones among them; all others are served meanwhile."""
    script = (
        "mkdir f; for i in $(seq 40); do mkfifo f/$i; (read line <f/$i; echo $line >>got) & done; "
        "(read line <f/1) & kill -9 $!; "
        "for i in $(seq 40); do cat a.txt >>copy; done; for i in $(seq 40); do echo $i >f/$i; done; wait; "
        "sort -n got | tail -n 1; wc -l <got; wc -c <copy"
    )
    assert tree.run("bash", "-c", script, cwd=tree.lower).stdout.split() == ["40", "40", str(40 * len("hello a"))]
    tree.check()
