"""Services: stopping, restarting, and what is left of them; on real processes."""

import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from descriptors import descriptor_count
from programs import processes

from pytest_poorcontainer import Container, Network, NotReady, ServiceDied, UsageError, eventually, machine

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)
LONG = ["sleep", "1000"]


@pytest.fixture
def box():
    """Return a container of the test's own."""
    with Container("box") as container:
        yield container


def test_stop(box):
    """A service gets the stop signal, and may tidy up; the return code is its own."""
    script = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.01; done"
    service = box.start(["sh", "-c", script], ready=re.compile("up"))
    assert service.stop() == 5
    assert service.log == "up\nbye\n"
    assert service.state == "stopped"
    assert service.stop() == 5
    assert processes(box) == []


def test_stop_signal(box):
    """The signal is the one that was asked for."""
    service = box.start(LONG, stop_signal=signal.SIGINT)
    assert service.stop() == -signal.SIGINT


def test_ignored_signal(box):
    """A service that ignores the signal is ended with all it started, and its state says so."""
    script = "trap '' TERM; echo up; while :; do sleep 0.01; done"
    service = box.start(["sh", "-c", script], ready=re.compile("up"), stop_timeout=0.1)
    assert service.stop() == -signal.SIGKILL
    assert service.state == "stopped (SIGKILL: ignored SIGTERM for 0.1 s)"
    assert processes(box) == []


def test_children_are_asked_too(box):
    """What the command leaves behind gets the stop signal, and so may end in good order."""
    child = "trap 'echo child ends; exit' TERM; echo child up; while :; do sleep 0.01; done"
    service = box.start(["sh", "-c", 'sh -c "$0" & sleep 1000', child], ready=re.compile("child up"))
    assert service.stop() == -signal.SIGTERM
    assert service.state == "stopped"
    assert service.log.endswith("child ends\n")
    assert processes(box) == []


def test_children_that_ignore_the_signal(box):
    """What the command leaves behind and ignores the signal is ended too."""
    child = "trap '' TERM; echo child up; while :; do sleep 0.01; done"
    command = ["sh", "-c", 'setsid sh -c "$0" & sleep 1000', child]
    service = box.start(command, ready=re.compile("child up"), stop_timeout=0.2)
    service.stop()
    assert service.state == "stopped (SIGKILL: what it had left behind ignored SIGTERM for 0.2 s)"
    assert processes(box) == []


def test_context_manager(box):
    """A with block stops the service, also when it is left by an exception."""
    with pytest.raises(KeyError), box.start(LONG) as service:
        raise KeyError("x")
    assert service.state == "stopped"
    assert service.returncode == -signal.SIGTERM


def test_restart(box):
    """A restarted service has a new process, waits for its readiness anew, and goes on with its log."""
    service = box.start(["sh", "-c", "echo up; sleep 1000"], ready=re.compile("up"), name="web")
    first = service.process
    service.restart()
    assert service.runs == 2
    assert first.returncode == -signal.SIGTERM
    assert service.process.pid != first.pid
    assert service.state == "ready"
    assert service.log == "up\n--- web in box: run 2 ---\nup\n"
    os.kill(service.pid, signal.SIGKILL)
    service.process.wait(5)
    service.restart()
    assert service.runs == 3
    assert box.services == (service,)


def test_restart_that_fails(box):
    """A restart that fails leaves nothing running; the next may succeed."""
    service = box.start(["sh", "-c", "test ! -e /run/broken || exit 9; echo up; sleep 1000"], ready=re.compile("up"))
    box.run(["touch", "/run/broken"], check=True)
    with pytest.raises(ServiceDied, match="exited 9"):
        service.restart()
    assert service.state == "exited 9"
    assert processes(box) == []
    box.run(["rm", "/run/broken"], check=True)
    service.restart()
    assert service.state == "ready"


def test_process_that_was_ended(box):
    """A service whose process was ended by hand is not alive, and can be stopped all the same."""
    service = box.start(LONG)
    assert service.process.end() == -signal.SIGKILL
    assert not service.alive
    assert service.state == "killed by SIGKILL"
    assert service.stop() == -signal.SIGKILL


def test_names(box):
    """A service is called like its program, and no two like each other; a name that runs already is refused."""
    assert [box.start(LONG).name for _ in range(3)] == ["sleep", "sleep-2", "sleep-3"]
    web = box.start(LONG, name="web")
    with pytest.raises(UsageError, match="'web' runs in box already"):
        box.start(LONG, name="web")
    web.stop()
    assert box.start(LONG, name="web").name == "web"
    assert [service.name for service in box.services] == ["sleep", "sleep-2", "sleep-3", "web", "web"]


def test_description(box):
    """A description is plain data, of a service that runs and of one that has ended."""
    service = box.start(["sh", "-c", "echo up; sleep 1000"], ready=[re.compile("up"), lambda: True], name="web")
    facts = service.describe()
    assert {key: facts[key] for key in ("name", "host", "state", "returncode", "runs", "log_tail")} == {
        "name": "web",
        "host": "box",
        "state": "ready",
        "returncode": None,
        "runs": 1,
        "log_tail": "up",
    }
    assert facts["argv"] == ["sh", "-c", "echo up; sleep 1000"]
    assert facts["ready"].startswith("'up' in the log and ")
    assert service.pid in facts["pids"]
    service.stop()
    assert service.describe()["pids"] == []
    assert repr(service) == "<Service web in box: stopped>"


def test_two_hundred_services(box):
    """Two hundred services one after the other leave no process and no descriptor; each keeps its log."""
    box.start(["true"])
    before = None
    for number in range(200):
        service = box.start(["sh", "-c", f"echo number {number}; exec sleep 1000"], ready=re.compile(r"number \d+\n"))
        service.stop()
        before = before or descriptor_count()
    assert descriptor_count() <= before
    assert processes(box) == []
    assert [service.log for service in box.services[1:]] == [f"number {number}\n" for number in range(200)]


def test_two_hundred_services_at_once():
    """Two hundred services that live at one time end with their container, and give back what they held."""
    Container("warm").close()  # the lab is there
    before = descriptor_count()
    with Container("box") as box:
        services = [box.start(LONG) for _ in range(200)]
        assert len(processes(box)) == 200
        pids = [service.pid for service in services]
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert {service.state for service in services} == {"stopped"}
    del services, box
    assert descriptor_count() <= before


def test_container_that_nobody_refers_to():
    """A container that is dropped ends with its services: they do not keep it alive by a cycle."""
    box = Container("box")
    answers = iter([0])
    service = box.start(LONG, ready=lambda: 1 / next(answers, 1))
    pidfd = os.pidfd_open(service.pid)
    try:
        del service, box
        with pytest.raises(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, 0)
    finally:
        os.close(pidfd)


def test_interrupted_start(box):
    """An exception that strikes during the wait leaves nothing of the service."""

    class StrikeError(Exception):
        pass

    def strike(*_):
        raise StrikeError

    former = signal.signal(signal.SIGALRM, strike)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(StrikeError):
            box.start(LONG, ready=80, timeout=60)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    assert processes(box) == []
    assert box.services[0].state == "stopped (its start was given up)"


def test_stop_from_another_thread(box):
    """Who waits for a service that another thread stops is told so."""
    service = box.start(LONG)
    threading.Timer(0.1, service.stop).start()
    started = time.monotonic()
    with pytest.raises(ServiceDied, match="was stopped while waiting for"):
        service.wait_log("never", timeout=60)
    assert time.monotonic() - started < 30


def test_stop_of_one_that_starts(box):
    """Another thread may stop a service that does not become ready: the start ends at once, and says so."""
    told = []

    def start():
        try:
            box.start(LONG, ready=80, timeout=60)
        except ServiceDied as error:
            told.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    eventually(lambda: bool(box.services and box.services[0].pids))
    box.services[0].stop()
    thread.join(30)
    assert told[0].startswith("service sleep was stopped while waiting for tcp:80")


def test_many_threads(box):
    """Services may be started and stopped from several threads at once."""
    failures = []

    def work(number):
        try:
            for _ in range(5):
                with box.start(
                    ["sh", "-c", f"echo {number}; exec sleep 1000"], ready=re.compile(str(number))
                ) as service:
                    assert service.log == f"{number}\n"
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len({service.name for service in box.services}) == 20
    assert processes(box) == []


def test_services_of_two_hosts():
    """Services of two hosts have each their own ports, and reach each other through the cable."""
    with Network() as net:
        primary, replica = net.pair("primary", "replica")
        command = [sys.executable, "-m", "http.server", "8000"]
        primary.start(command, ready=8000)
        replica.start(command, ready=8000)
        for here, there in ((primary, replica), (replica, primary)):
            with here.connect((there.name, 8000)) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert connection.recv(15) == b"HTTP/1.0 200 OK"
            match = there.services[0].wait_log(r"(\S+) - - \[.*\] \"GET / ")
            assert match[1] == here.ip
        with pytest.raises(NotReady), primary.start(LONG, ready="udp:53", timeout=0.05):
            pass
        assert [info.local for info in eventually(primary.open_sockets) if info.state == "LISTEN"] == ["0.0.0.0:8000"]


def test_a_name_that_would_break_a_line(box):
    """A name is one printable line: it stands in reports, in logs' names and in errors."""
    with pytest.raises(UsageError, match="printable"):
        box.start(["sleep", "1000"], name="x\ny")
    assert box.services == ()
