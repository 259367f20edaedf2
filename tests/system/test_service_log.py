"""Services: their logs while they run, and the lines as they come; on real processes."""

import logging
import os
import re
import resource
import sys
import threading

import pytest

from pytest_poorcontainer import Container, NotReady, ServiceDied, UsageError, eventually, machine
from pytest_poorcontainer.container import log_live

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)
COUNT = "for i in 1 2 3; do sleep 0.05; echo n=$i; done; sleep 1000"
FOLLOWER = "poor-container-logs"


@pytest.fixture
def box():
    """Return a container of the test's own."""
    with Container("box") as container:
        yield container


@pytest.fixture
def lines():
    """Observe the lines of services; return a list of them."""
    seen = []

    def observer(service, line):
        seen.append((service.name, line))

    log_live.observers.append(observer)
    yield seen
    log_live.observers.remove(observer)


def followers():
    """Return how many threads follow logs."""
    return sum(thread.name == FOLLOWER for thread in threading.enumerate())


def test_waiting_for_a_line(box):
    """Each wait finds what comes after the last match; a mark does the same."""
    service = box.start(["sh", "-c", COUNT])
    first = service.wait_log(r"n=(\d)")
    second = service.wait_log(r"n=(\d)", since=first)
    third = service.wait_log(re.compile(r"n=(\d)"), since=second)
    assert [first[1], second[1], third[1]] == ["1", "2", "3"]
    assert service.wait_log(r"n=(\d)")[1] == "1"
    mark = service.log_mark()
    with pytest.raises(NotReady, match=r"has not printed within 0.05 s: 'n=' in its log since position \d+"):
        service.wait_log("n=", since=mark, timeout=0.05)
    assert service.log_between(0, mark) == service.log


def test_line_that_cannot_come(box):
    """A service that has ended without the line is not waited for; what it had printed is found all the same."""
    service = box.start(["sh", "-c", "echo one; exit 4"])
    with pytest.raises(ServiceDied, match=r"exited 4 while waiting for 'two'[^|]*\n  \| one$"):
        service.wait_log("two", timeout=60)
    assert service.wait_log("one").group() == "one"


def test_prompt_without_a_newline(box):
    """What is no whole line yet is found too."""
    service = box.start(["sh", "-c", "printf 'ready> '; sleep 1000"])
    assert service.wait_log("ready> ").group() == "ready> "
    assert service.log_tail() == "ready> "


def test_since_of_something_else(box):
    """since= takes what this service gave out, and names what it did not."""
    service = box.start(["sh", "-c", "echo x; sleep 1000"])
    with pytest.raises(UsageError, match="since="):
        service.wait_log("x", since=re.search("x", "x"))
    with pytest.raises(UsageError, match="since="):
        service.wait_log("x", since=1.5)
    with pytest.raises(UsageError, match="no regular expression"):
        service.wait_log("(")


def test_garbage(box):
    """Binary garbage and unfinished lines are shown safely, in the tail and in errors."""
    script = r"printf '\033[2J\377\000\ngood\r\nunfinished \342\202'; exit 1"
    with pytest.raises(ServiceDied) as caught:
        box.start(["sh", "-c", script], ready=80)
    text = str(caught.value)
    assert text.endswith("\n  | \\x1b[2J\ufffd\\x00\n  | good\n  | unfinished \ufffd")
    assert text.replace("\n", "").isprintable()


def test_other_users_and_dev_stdout(box):
    """A daemon may open /dev/stdout and /dev/stderr anew, for appending, and as another user."""
    user = {} if os.geteuid() else {"user": "nobody"}
    script = "echo one >> /dev/stdout; echo two >> /dev/stderr; echo three; sleep 1000"
    service = box.start(["sh", "-c", script], ready=re.compile("three"), **user)
    assert service.log == "one\ntwo\nthree\n"


def test_large_log(box):
    """Of a large log the last lines are right, and neither the memory nor the file grows with it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code = """
import os, time
block = (b"x" * 1023 + b"\\n") * 1024
for _ in range(192):
    os.write(1, block)
os.write(1, b"the end\\n")
time.sleep(1000)
"""
    service = box.start([sys.executable, "-c", code])
    match = service.wait_log(r"the e\w+", timeout=60)
    assert match.group() == "the end"
    assert service.log_tail(1) == "the end"
    assert service.log.endswith("xxx\nthe end\n")
    assert service.log_mark() == (192 << 20) + 8
    assert os.fstat(service.log_of_runs.fd).st_blocks * 512 < 32 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 128 << 10  # KiB
    service.stop()
    assert service.log_tail(1) == "the end"


def test_lines_as_they_come(box, lines):
    """An observer gets each line of each service while it runs, and the unfinished rest at its end."""
    service = box.start(["sh", "-c", "echo one; echo two >&2; printf rest; sleep 1000"], name="web")
    eventually(lambda: len(lines) == 2)
    assert lines == [("web", "one"), ("web", "two")]
    mark = service.log_mark()
    service.stop()
    assert lines == [("web", "one"), ("web", "two"), ("web", "rest")]
    assert service.log_tail(since=mark) == ""
    assert service.log_tail(since=4) == "two\nrest"


def test_observer_that_asks_its_service(box, lines):
    """An observer may ask the service for its state, also while that is being stopped."""
    states = []

    def observer(service, _):
        states.append(service.state)

    log_live.observers.append(observer)
    try:
        for _ in range(10):
            box.start(["sh", "-c", "echo one; echo two; echo three; sleep 1000"]).stop()
    finally:
        log_live.observers.remove(observer)
    assert len(states) == len(lines)
    assert set(states) <= {"starting", "running", "stopped"}


def test_lines_on_demand(box, lines):
    """Who asks has all lines passed on that the service has printed, before the call returns."""
    service = box.start(["sh", "-c", "for i in 1 2 3; do echo $i; done; sleep 1000"], ready=re.compile("3\n"))
    service.deliver_lines()
    assert lines == [("sh", "1"), ("sh", "2"), ("sh", "3")]


def test_copy(box, tmp_path):
    """The last bytes of a log, of all runs, can be written to a file as they are."""
    service = box.start(["sh", "-c", r"printf '\377\n'; sleep 1000"], ready=re.compile("\n"), name="web")
    service.restart()
    with (tmp_path / "log").open("wb") as file:
        assert service.copy_log(file.fileno()) == 30
        assert service.copy_log(file.fileno(), 2) == 2
    assert (tmp_path / "log").read_bytes() == b"\xff\n--- web in box: run 2 ---\n\xff\n\xff\n"


def test_lines_of_an_observer_that_fails(box, lines, monkeypatch):
    """An observer that raises keeps nobody else from the lines, and its error is told as a thread's would be."""
    told = []
    monkeypatch.setattr(threading, "excepthook", lambda error: told.append(error.exc_type))
    log_live.observers.insert(0, lambda *_: 1 / 0)
    try:
        box.start(["sh", "-c", "echo one"]).wait_log("one")
        eventually(lambda: bool(box.services[0].alive or lines))
        box.services[0].stop()
    finally:
        del log_live.observers[0]
    assert lines == [("sh", "one")]
    assert told == [ZeroDivisionError]


def test_lines_in_logging(box, caplog):
    """With level INFO the lines go to logging, under the names of host and service, complete when it has stopped."""
    with caplog.at_level(logging.INFO, logger="poor_container"):
        service = box.start(["sh", "-c", "echo one; echo two; sleep 1000"], name="web", ready=re.compile("two"))
        service.stop()
    assert caplog.record_tuples == [
        ("poor_container.box.web", logging.INFO, "one"),
        ("poor_container.box.web", logging.INFO, "two"),
    ]


def test_lines_in_a_run_with_log_cli(pytester):
    """With pytest's live log the lines stand in the run's output, while the test runs."""
    pytester.makepyfile(
        """
        import logging
        from pytest_poorcontainer import Container

        def test_service():
            with Container("box") as box:
                service = box.start(["sh", "-c", "echo hello; echo said $((40 + 2)); sleep 1000"], name="web")
                service.wait_log("said")
                service.deliver_lines()
                logging.getLogger("test").info("the test ends")
        """
    )
    result = pytester.runpytest_subprocess("-o", "log_cli=true", "--log-cli-level=INFO", "-p", "no:randomly")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["INFO *poor_container.box.web:log_live.py:* hello", "INFO *said 42", "INFO *the test ends"]
    )


def test_nobody_wants_lines(box):
    """Without anybody who wants lines there is no thread; with somebody there is one, which ends with the last log."""
    logging.getLogger("poor_container").setLevel(logging.WARNING)
    try:
        with box.start(["sleep", "1000"]):
            eventually(lambda: followers() == 0)
    finally:
        logging.getLogger("poor_container").setLevel(logging.NOTSET)
    log_live.observers.append(_ignore)
    try:
        with box.start(["sleep", "1000"]), box.start(["sleep", "1000"]):
            assert followers() == 1
        eventually(lambda: followers() == 0)
    finally:
        log_live.observers.remove(_ignore)


def _ignore(*_):
    """Observe nothing."""


def test_log_survives_a_full_archive(box, monkeypatch):
    """When an ended log cannot be copied the file itself is kept."""

    def full(*_):
        raise OSError(28, "No space left on device")

    service = box.start(["sh", "-c", "echo one; sleep 1000"], ready=re.compile("one"))
    monkeypatch.setattr(service.log_of_runs._archive, "add", full)
    service.stop()
    assert service.log == "one\n"
