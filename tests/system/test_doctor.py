"""The probe program and ``poor-container doctor`` on this machine: as root, as an ordinary user, and refused."""

import contextlib
import functools
import json
import os
import pty
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest

from pytest_poorcontainer import native
from pytest_poorcontainer.machine.names import PURPOSES
from pytest_poorcontainer.machine.needs import CONTAINER_NEEDS

ROOT = Path(__file__).parents[2]
REFUSE = Path(__file__).with_name("refuse_namespaces.py")
NOBODY = 65534
SPACES = {"userns", "mountns", "pidns", "netns", "utsns", "ipcns", "cgroupns"}
UNSHARE = shutil.which("unshare")


class Place:
    """Somewhere to run things: as a user, with or without namespaces refused."""

    def __init__(self, user, refused, python, environment):
        self.user, self.refused, self.python, self.environment = user, refused, python, environment

    def run(self, argv, **changes):
        """Run a program there."""
        if self.refused:
            argv = [self.python, str(REFUSE), "--", *argv]
        who = {} if self.user is None else {"user": self.user, "group": self.user, "extra_groups": []}
        environment = {**self.environment, **changes}
        return subprocess.run(argv, capture_output=True, text=True, cwd="/", env=environment, **who, check=False)

    def doctor(self, *arguments, **changes):
        """Run ``poor-container doctor`` there."""
        return self.run([self.python, "-m", "pytest_poorcontainer.cli.main", "doctor", *arguments], **changes)

    def probe(self):
        """Run the probe program there and return its answers by feature."""
        done = self.run([f"{self.environment['POOR_CONTAINER_NATIVE']}/pcprobe"])
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return {answer["feature"]: answer for answer in map(json.loads, done.stdout.splitlines())}


@functools.cache
def python_for(user):
    """Return a Python that this user can start and that finds our package, or None."""
    who = {"user": user, "group": user, "extra_groups": []}
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            subprocess.run(
                [python, "-c", "import pytest_poorcontainer.machine"],
                env={"PYTHONPATH": str(ROOT)},
                cwd="/",
                stderr=subprocess.DEVNULL,
                check=True,
                **who,
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    return None


@pytest.fixture(scope="session")
def reachable():
    """Return a directory with the probe program that every user can reach."""
    with tempfile.TemporaryDirectory(prefix="poor-container-test-", dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        shutil.copy(native.program("pcprobe"), directory)
        yield directory


@pytest.fixture(params=["self", "self, refused", "nobody", "nobody, refused"])
def place(request, reachable):
    """Return each place in turn: who runs the tests, and nobody where that is root; free and refused."""
    who, _, refused = request.param.partition(", ")
    environment = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), "POOR_CONTAINER_NATIVE": reachable}
    if who == "self":
        return Place(None, bool(refused), sys.executable, environment)
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    if (python := python_for(NOBODY)) is None:
        pytest.skip("no Python that uid 65534 can reach finds this checkout")
    return Place(NOBODY, bool(refused), python, environment)


def test_the_json_has_the_documented_shape(place):
    """The JSON names every feature and fixture, and the exit status says whether the fixtures can work."""
    done = place.doctor("--json")
    told = json.loads(done.stdout)
    assert done.stderr == ""
    assert " ".join(told) == "version kernel architecture uid user engine privilege level ready fixtures features"
    assert told["version"] == 1
    assert told["kernel"] == os.uname().release
    assert told["uid"] == (os.geteuid() if place.user is None else place.user)
    assert set(told["level"]) == {"name", "reason", "built"}
    assert list(told["features"]) == list(PURPOSES)
    assert set(told["fixtures"]) == {"chroot_env", "cow_dir", "netns_pair", "network", "unshared_mounts", "tcp_probe"}
    for row in told["features"].values():
        assert {name: type(value) for name, value in row.items()} == {
            "works": bool, "reason": str, "remedy": str, "detail": str, "purpose": str,
        }  # fmt: skip
        assert row["works"] == (not row["reason"])
    assert told["ready"] == all(row["works"] for row in told["fixtures"].values())
    assert done.returncode == (0 if told["ready"] else 1)


def test_every_feature_is_answered_once(place):
    """The probe program answers for every feature that it is asked about, whatever is refused."""
    answers = place.probe()
    assert set(answers) == set(PURPOSES) - {"proot"}
    for answer in answers.values():
        assert answer["works"] == (answer["step"] == "")
        assert answer["via"] in {"", "root", "userns"}


def test_refused_namespaces_have_a_reason_and_a_remedy(place):
    """Under a filter like Docker's no namespace works; each says so by its cause, and what to do."""
    told = json.loads(place.doctor("--json").stdout)
    if not place.refused:
        works = {name for name in SPACES if told["features"][name]["works"]}
        assert bool(told["privilege"]) == bool(works)
        return
    for name in {*SPACES, *CONTAINER_NEEDS[:6], "veth", "netem", "fresh_proc"}:
        row = told["features"][name]
        assert not row["works"]
        assert "because a seccomp filter refuses namespaces" in row["reason"]
        assert "seccomp=unconfined" in row["remedy"]
    assert not told["features"]["clone3"]["works"]
    assert told["privilege"] == ""
    assert told["level"]["name"] in {"chroot", "ptrace", "preload", ""}
    assert told["level"]["reason"]
    assert not told["level"]["built"]
    assert not told["ready"]


def test_what_needs_no_namespace_works_under_the_filter(place):
    """The filter refuses nothing else: pidfds, ptrace, chroot for root, seccomp notification answer as without it."""
    free = Place(place.user, False, place.python, place.environment).probe()
    here = place.probe()
    for name in ("pidfd", "close_range", "openat2", "chroot", "ptrace", "preload", "seccomp_notify", "landlock"):
        assert here[name]["works"] == free[name]["works"], name


@pytest.mark.skipif(UNSHARE is None, reason="the program unshare, as an independent witness, is not installed")
@pytest.mark.parametrize(
    ("feature", "flags"),
    [
        ("mountns", ["-m"]),
        ("pidns", ["-p", "-f"]),
        ("netns", ["-n"]),
        ("utsns", ["-u"]),
        ("ipcns", ["-i"]),
        ("cgroupns", ["-C"]),
        ("fresh_proc", ["-m", "-p", "-f", "--mount-proc"]),
    ],
)
def test_the_probe_agrees_with_unshare(place, feature, flags):
    """What the probe says of a namespace is what the program unshare of util-linux finds."""
    answer = place.probe()[feature]
    in_userns = [] if answer["via"] == "root" else ["-U", "-r"]
    witness = place.run([UNSHARE, *in_userns, *flags, "true"])
    assert answer["works"] == (witness.returncode == 0), witness.stderr


MARK = "POOR_CONTAINER_TEST_MARK"


def marked(mark):
    """Return the processes that carry the mark in their environment: others may be probing at the same time."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has just ended, or is another user's
            if f"{MARK}={mark}".encode() in environment.read_bytes():
                found.append(environment.parent.name)
    return found


def files():
    """Return the files and control groups that probes have made."""
    left = [str(path) for place in ("/tmp", "/dev/shm", "/run") for path in Path(place).glob("pcprobe*")]
    return left + [directory for directory, _, _ in os.walk("/sys/fs/cgroup") if "pcprobe" in directory]


def machine_state():
    """Return the mounts and interfaces of the machine."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return mounts, sorted(map(str, Path("/sys/class/net").iterdir()))


def lasting(seen):
    """Return those of the files that are still there after all probes of now have ended."""
    deadline = time.monotonic() + 4
    while seen and time.monotonic() < deadline:
        time.sleep(0.02)
        seen = [path for path in seen if Path(path).exists()]
    return seen


def test_nothing_is_left(place):
    """After a probe there is no mount, interface, process, file or control group that was not there before."""
    before = machine_state()
    place.environment[MARK] = mark = uuid.uuid4().hex
    place.probe()
    assert marked(mark) == []
    assert machine_state() == before
    assert lasting(files()) == []


def test_nothing_is_left_of_a_killed_probe(reachable):
    """Killed at any moment, the probe program takes its children with it."""
    mark = uuid.uuid4().hex
    for delay in (0, 0.001, 0.003, 0.006, 0.01, 0.02, 0.03, 0.05):
        process = subprocess.Popen([f"{reachable}/pcprobe"], stdout=subprocess.DEVNULL, env={MARK: mark})
        time.sleep(delay)
        process.kill()
        process.wait()
    deadline = time.monotonic() + 2
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left == []
    assert lasting(files()) == []


def in_own_userns(script, **environment):
    """Run a shell script as root of a new user and mount namespace, where it may break things."""
    command = [UNSHARE, "-U", "-r", "-m", "sh", "-e", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


needs_userns = pytest.mark.skipif(
    UNSHARE is None or in_own_userns("true").returncode != 0, reason="user namespaces do not work here"
)


@needs_userns
def test_a_probe_that_hangs_costs_two_seconds_and_no_other_probe(reachable, tmp_path):
    """A probe that blocks (here /etc/subuid is a FIFO) is killed after two seconds and reported; the rest goes on."""
    os.mkfifo(tmp_path / "fifo")
    start = time.monotonic()
    mark = uuid.uuid4().hex
    done = in_own_userns(f"mount --bind {tmp_path}/fifo /etc/subuid; {reachable}/pcprobe", **{MARK: mark})
    took = time.monotonic() - start
    answers = {answer["feature"]: answer for answer in map(json.loads, done.stdout.splitlines())}
    assert not answers["idranges"]["works"]
    assert answers["idranges"]["step"] == "answer within two seconds"
    assert answers["netns"]["works"]
    assert 2 <= took < 10
    assert marked(mark) == []


@needs_userns
def test_a_low_limit_of_network_namespaces_is_enough(reachable):
    """Three network namespaces are enough, again and again, although the kernel frees dead ones late."""
    script = f"echo 3 > /proc/sys/user/max_net_namespaces; for i in 1 2 3 4 5; do {reachable}/pcprobe; done"
    answers = [json.loads(line) for line in in_own_userns(script).stdout.splitlines()]
    assert [answer["works"] for answer in answers if answer["feature"] in {"netns", "veth"}] == [True] * 10


@needs_userns
def test_a_limit_of_zero_user_namespaces_is_told_as_such(reachable):
    """Where user.max_user_namespaces is 0 the reason says so, not only that there is no space left."""
    script = f"""echo 0 > /proc/sys/user/max_user_namespaces
        export POOR_CONTAINER_NATIVE={reachable} PYTHONPATH={ROOT}
        {sys.executable} -m pytest_poorcontainer.cli.main doctor --json || test $? = 1"""
    done = in_own_userns(script)
    userns = json.loads(done.stdout)["features"]["userns"]
    assert "user.max_user_namespaces is 0" in userns["reason"]
    assert "sysctl -w user.max_user_namespaces" in userns["remedy"]


@needs_userns
def test_a_masked_proc_is_told_as_such(reachable):
    """Where something covers a part of /proc, as engines do it, no fresh proc can be mounted in a user namespace."""
    script = f"mount -t tmpfs masked /proc/fs; {UNSHARE} -U -r -m {reachable}/pcprobe"
    answers = {answer["feature"]: answer for answer in map(json.loads, in_own_userns(script).stdout.splitlines())}
    assert answers["mountns"]["works"]
    assert not answers["fresh_proc"]["works"]
    assert answers["fresh_proc"]["step"] == "mount a fresh proc"


@needs_userns
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="takes root and the program setpriv")
def test_root_without_capabilities_goes_by_a_user_namespace(reachable):
    """Root in a pod of Kubernetes has no CAP_SYS_ADMIN: there a user namespace is what is probed, and what works."""
    command = ["setpriv", "--bounding-set=-sys_admin,-net_admin", f"{reachable}/pcprobe"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    answers = {answer["feature"]: answer for answer in map(json.loads, said.splitlines())}
    assert answers["netns"]["via"] == answers["overlay"]["via"] == "userns"
    assert answers["netns"]["works"]


def test_without_the_probe_program_the_status_is_two(place):
    """What could not be found out is told apart from what does not work."""
    done = place.doctor(POOR_CONTAINER_NATIVE="/dev/null/nowhere")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("poor-container: cannot find the compiled program pcprobe")
    assert "make build" in done.stderr


def test_the_table_fits_into_the_terminal_and_is_plain_in_a_pipe(place):
    """The table follows the width of the terminal, and a pipe gets no escape sequences."""
    done = place.doctor(COLUMNS="60")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 60
    assert "\x1b" not in done.stdout
    first = [line.partition(":")[0] for line in lines if line and not line.startswith(" ")]
    assert first[:3] == ["kernel", "who", "level"]
    words = " ".join(done.stdout.split())
    assert words.count("EPERM (Operation not permitted), because") == words.count("EPERM")


@pytest.mark.parametrize(("more", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_a_terminal_gets_colours_unless_it_wants_none(more, coloured):
    """On a terminal yes and no are coloured, unless NO_COLOR or a dumb terminal say otherwise."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pytest_poorcontainer.cli.main", "doctor"]
    environment = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), "TERM": "xterm", **more}
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=environment)
    os.close(theirs)
    said = b""
    try:
        while chunk := os.read(ours, 65536):
            said += chunk
    except OSError:  # a terminal nobody has open any more reads as EIO
        pass
    os.close(ours)
    assert process.wait() in {0, 1}
    assert (b"\x1b[32myes\x1b[0m" in said) == coloured
    assert (b"\x1b" in said) == coloured
