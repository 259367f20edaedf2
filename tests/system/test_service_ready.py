"""Services: what they are waited for, and what is said when it does not come; on real processes."""

import os
import re
import resource
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
from descriptors import descriptor_count
from programs import processes

from pytest_poorcontainer import (
    Container,
    LabDied,
    LabError,
    NotReady,
    PoorContainerError,
    Service,
    ServiceDied,
    ServiceError,
    UsageError,
    eventually,
    machine,
)
from pytest_poorcontainer.container import service_tree

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)
LONG = ["sleep", "1000"]
LISTEN = """
import os, socket, sys, time
family, kind, address = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if family == socket.AF_UNIX:
    os.makedirs("/run/deep", exist_ok=True)
    os.chdir("/run/deep")
else:
    address = (address, int(sys.argv[4]))
server = socket.socket(family, kind)
if family == socket.AF_INET6:
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
server.bind(address)
if kind == socket.SOCK_STREAM:
    server.listen()
time.sleep(1000)
"""
NOTIFY = """
import os, socket, sys, time
messages = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
address = os.environ["NOTIFY_SOCKET"].replace("@", "\\0")
for text in sys.argv[1:]:
    messages.sendto(text.encode(), address)
print("all sent")
time.sleep(1000)
"""


@pytest.fixture
def box():
    """Return a container of the test's own."""
    with Container("box") as container:
        yield container


def listening(family, kind, address, port=0):
    """Return a command that listens."""
    return [sys.executable, "-c", LISTEN, str(int(family)), str(int(kind)), address, str(port)]


@pytest.mark.parametrize(
    ("family", "kind", "address", "port", "ready"),
    [
        (socket.AF_INET, socket.SOCK_STREAM, "0.0.0.0", 8000, 8000),
        (socket.AF_INET, socket.SOCK_STREAM, "0.0.0.0", 8000, "127.0.0.1:8000"),
        (socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1", 8000, "tcp:localhost:8000"),
        (socket.AF_INET6, socket.SOCK_STREAM, "::1", 8000, "[::1]:8000"),
        (socket.AF_INET6, socket.SOCK_STREAM, "::", 8000, 8000),
        (socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1", 53, "udp:53"),
        (socket.AF_INET6, socket.SOCK_DGRAM, "::1", 53, "udp:[::1]:53"),
        (socket.AF_UNIX, socket.SOCK_STREAM, "/run/deep/a.sock", 0, "/run/deep/a.sock"),
        (socket.AF_UNIX, socket.SOCK_STREAM, "a.sock", 0, "/run/deep/a.sock"),
        (socket.AF_UNIX, socket.SOCK_STREAM, "a.sock", 0, Path("/var/run/deep/a.sock")),
        (socket.AF_UNIX, socket.SOCK_DGRAM, "/run/deep/log", 0, "/run/deep/log"),
    ],
)
def test_ready_by_a_socket(box, family, kind, address, port, ready):
    """A service is ready when it listens where it was asked for, also by another name of the same path."""
    service = box.start(listening(family, kind, address, port), ready=ready)
    assert isinstance(service, Service)
    assert service.state == "ready"
    assert service.pids == [service.pid]
    assert any(info.port == port or info.local == address for info in box.open_sockets())
    assert service.stop() == -signal.SIGTERM
    assert box.open_sockets() == []


def test_ready_is_usable_at_once(box):
    """Who connects when start returns is not refused."""
    for _ in range(5):
        with box.start(listening(socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1", 8000), ready=8000):
            code = "import socket; socket.create_connection(('127.0.0.1', 8000)).close()"
            box.run([sys.executable, "-c", code], check=True)


def test_port_that_only_another_family_or_address_has(box):
    """A service that listens elsewhere is not ready; the error says where it does."""
    command = listening(socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1", 8001)
    with pytest.raises(NotReady) as caught:
        box.start(command, ready="[::1]:8000", name="web", timeout=1)
    text = str(caught.value)
    assert text.startswith("service web was not ready within 1 s: still missing is tcp:[::1]:8000; what listens there:")
    assert "tcp 127.0.0.1:8001 (this service, pid " in text
    assert caught.value.service == "web"
    assert processes(box) == []


def test_nothing_listens(box):
    """When nothing listens at all the error says that, and nothing of the service is left."""
    with pytest.raises(NotReady, match="nothing listens in box"):
        box.start(LONG, ready=80, timeout=0.1)
    (service,) = box.services
    assert service.state == "stopped (it was not ready in time)"
    assert service.pids == []


def test_ready_by_a_line_of_the_log(box):
    """A regular expression is searched in what the service prints, stdout and stderr alike."""
    script = "echo one; sleep 0.05; echo 'listening on 80' >&2; sleep 1000"
    service = box.start(["sh", "-c", script], ready=re.compile(r"^listening on \d+$", re.MULTILINE))
    assert service.log == "one\nlistening on 80\n"


def test_python_need_not_flush(box):
    """What a service in Python prints is in its log at once, although that is a file; env= has the last word."""
    code = "import time; print('up'); time.sleep(1000)"
    box.start([sys.executable, "-c", code], ready=re.compile("up"))
    with pytest.raises(NotReady):
        box.start([sys.executable, "-c", code], ready=re.compile("up"), env={"PYTHONUNBUFFERED": None}, timeout=0.5)


def test_ready_by_a_function(box):
    """A function is called until it returns something true, with the service if it takes an argument."""
    seen = []

    def ready(service):
        seen.append(service.state)
        assert "3" in service.log, "not yet"
        return True

    service = box.start(["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.02; done; sleep 1000"], ready=ready)
    assert set(seen) == {"starting"}
    assert len(seen) > 1
    assert service.state == "ready"
    assert box.start(LONG, ready=lambda: True).state == "ready"


def test_function_that_never_succeeds(box):
    """The last exception of a function is shown, and is the cause."""
    with pytest.raises(NotReady, match="the function raised ConnectionError: no answer") as caught:
        box.start(LONG, ready=_no_answer, timeout=0.1)
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert "_no_answer() to be true" in str(caught.value)


def _no_answer():
    raise ConnectionError("no answer")


def test_function_with_a_mistake(box):
    """A NameError in a function is the test's mistake: it is raised at once, and the service ended."""
    calls = []

    def ready():
        calls.append(1)
        return undefined_name  # noqa: F821

    with pytest.raises(NameError):
        box.start(LONG, ready=ready)
    assert calls == [1]
    assert box.services[0].state == "stopped (its start was given up)"


@pytest.mark.parametrize("value", [True, False])
def test_function_that_kills_its_service(box, value):
    """A function that kills the service has no ready one, whatever it returns."""

    def ready(service):
        os.kill(service.pid, signal.SIGKILL)
        return value

    with pytest.raises(ServiceDied, match="was killed by SIGKILL"):
        box.start(LONG, ready=ready)
    assert box.services[0].state == "killed by SIGKILL"


def test_function_that_stops_or_closes(box):
    """A function may even stop its service, or close the host: the start fails and says so."""
    with pytest.raises(ServiceDied, match="was stopped"):
        box.start(LONG, ready=lambda service: service.stop())
    with pytest.raises(ServiceDied, match="was stopped"):
        box.start(LONG, ready=box.close)
    with pytest.raises(PoorContainerError, match="is closed"):
        box.start(LONG)


def test_ready_by_notification(box):
    """READY=1 makes it ready, STATUS= is remembered, and what it tells later never blocks it."""
    texts = ["STATUS=loading", "READY=1\nSTATUS=serving", *["WATCHDOG=1"] * 100]
    service = box.start([sys.executable, "-c", NOTIFY, *texts], ready="notify")
    assert service.state == "ready"
    assert service.status == "serving"
    service.wait_log("all sent")


def test_notification_with_a_barrier(box):
    """A service that waits until its notification was taken note of (sd_notify_barrier(3)) goes on, then and later."""
    code = """
import array, os, select, socket
messages = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
address = os.environ["NOTIFY_SOCKET"].replace("@", "\\0")
def barrier():
    reader, writer = os.pipe()
    messages.sendmsg([b"BARRIER=1"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writer]))], 0, address)
    os.close(writer)
    os.read(reader, 1)
messages.sendto(b"READY=1", address)
barrier()
print("first")
barrier()
print("second")
"""
    with box.start([sys.executable, "-c", code + "import time; time.sleep(1000)"], ready="notify") as service:
        service.wait_log("first\nsecond")


def test_notification_that_does_not_come(box):
    """What was told last is shown when READY=1 does not come."""
    with pytest.raises(NotReady, match=r"still missing is READY=1 to NOTIFY_SOCKET; its status is 'loading 3 of 9'"):
        box.start([sys.executable, "-c", NOTIFY, "STATUS=loading 3 of 9"], ready="notify", timeout=1)


def test_notifications_of_strangers(box):
    """A message that comes from outside of the container is not listened to."""
    result = []

    def start():
        try:
            box.start(LONG, ready="notify", timeout=1)
        except NotReady as error:
            result.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    service = _first_service(box)
    address = "\0" + service.notifications.address[1:]
    fd = box._handle.agent.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM, 0, fd) as outside:
        outside.sendto(b"READY=1", address)
    thread.join()
    assert "1 notifications came from processes outside of it" in result[0]


def _first_service(box):
    """Return the first service as soon as it runs."""

    def runs():
        assert box.services
        assert box.services[0].runs
        return box.services[0]

    return eventually(runs)


def test_several_conditions(box):
    """With several conditions all must hold; the error names those that do not."""
    command = listening(socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1", 8000)
    assert box.start(command, ready=[8000, lambda: True]).stop() == -signal.SIGTERM
    with pytest.raises(NotReady, match="still missing is 'x' in the log and udp:53;"):
        box.start(command, ready=(8000, re.compile("x"), "udp:53"), timeout=0.5)


def test_death_ends_the_wait_at_once(box):
    """A service that dies is not waited for; the error has the exit status and the last lines."""
    lines = "for i in $(seq 30); do echo line $i; done; printf 'no newline'; exit 3"
    started = time.monotonic()
    with pytest.raises(ServiceDied) as caught:
        box.start(["sh", "-c", lines], ready=80, name="web", timeout=60)
    assert time.monotonic() - started < 30
    text = str(caught.value)
    assert text.startswith("service web exited 3 while waiting for tcp:80")
    assert text.endswith("\n  | line 30\n  | no newline")
    assert text.count("\n  | ") == 20
    assert box.services[0].returncode == 3


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("kill -SEGV $$", "was killed by SIGSEGV"),
        ("exit 0", "exited 0, and nothing of it is left"),
        ("sleep 1000 & exit 7", "exited 7"),
    ],
)
def test_ways_to_die(box, script, why):
    """Each way to die is named; what the command has started is ended with it."""
    with pytest.raises(ServiceDied, match=why):
        box.start(["sh", "-c", script], ready=80, timeout=60)
    assert processes(box) == []


def test_port_that_another_service_has(box):
    """A port that is taken is an error before anything is started, and says who has it."""
    command = listening(socket.AF_INET, socket.SOCK_STREAM, "0.0.0.0", 8000)
    web = box.start(command, ready=8000, name="web")
    with pytest.raises(ServiceError, match=rf"tcp 0.0.0.0:8000 is taken by service web, pid {web.pid}: .*python"):
        box.start(LONG, ready=8000)
    assert box.services == (web,)
    web.stop()
    assert box.start(command, ready=8000).state == "ready"


def test_processes_where_the_kernel_lists_no_children(box, monkeypatch):
    """Without CONFIG_PROC_CHILDREN the processes of a service are found by their parents."""
    monkeypatch.setattr(service_tree, "_lists_children", lambda: False)
    script = f'{sys.executable} -c "$0" 2 1 0.0.0.0 8000 & wait'
    service = box.start(["sh", "-c", script, LISTEN], ready=8000)
    assert len(service.pids) == 2


def test_port_that_others_have(box):
    """A port may be taken by a command, or by the test itself: it is said."""
    command = listening(socket.AF_INET, socket.SOCK_STREAM, "0.0.0.0", 8000)
    process = box.popen(command)
    eventually(lambda: any(info.port == 8000 for info in box.open_sockets()))
    with pytest.raises(ServiceError, match=rf"is taken by pid {process.pid} of box: .*python"):
        box.start(LONG, ready=8000)
    process.end()
    fd = box._handle.agent.socket(socket.AF_INET, socket.SOCK_STREAM)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd) as server:
        server.bind(("0.0.0.0", 8000))
        server.listen()
        with pytest.raises(ServiceError, match="is taken by the test's own process"):
            box.start(LONG, ready=8000)


def test_two_services_on_one_port_of_two_addresses(box):
    """A port on another address is in nobody's way, and is not mistaken for the service's own."""
    box.start(listening(socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1", 8000), ready=8000)
    second = box.start(listening(socket.AF_INET, socket.SOCK_STREAM, "127.0.0.2", 8000), ready=8000)
    assert second.state == "ready"
    with pytest.raises(NotReady, match=r"still missing is tcp:8000; what listens there: tcp 127\.0\.0\.1:8000"):
        box.start(LONG, ready=8000, timeout=0.1)


def test_service_that_dies_of_a_taken_port(box):
    """When a service dies and somebody has its port, the error says both."""
    box.start(listening(socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1", 8000), ready=8000, name="first")
    with pytest.raises(
        ServiceDied, match=r"exited 1 .*; tcp 127\.0\.0\.1:8000 is taken by service first, pid "
    ) as caught:
        box.start(listening(socket.AF_INET, socket.SOCK_STREAM, "0.0.0.0", 8000), ready="127.0.0.2:8000", name="second")
    assert "Address already in use" in str(caught.value)


def test_daemon_that_forks_away(box):
    """A command that exits with 0 and leaves a daemon behind is a service: ready, with the daemon's pid, stoppable."""
    daemon = f'exec setsid {sys.executable} -c "$0" {int(socket.AF_INET)} 1 0.0.0.0 8000 &'
    script = f"({daemon}) ; echo 4711 > /run/web.pid; exit 0"
    service = box.start(["sh", "-c", script, LISTEN], ready=8000)
    assert service.state == "ready"
    assert service.returncode == 0
    assert service.pids == [service.pid]
    assert service.pid != service.process.pid
    assert service.stop() == 0
    assert service.state == "stopped"
    assert processes(box) == []


def test_nothing_to_wait_for(box):
    """Without ready= the service runs as soon as it is started."""
    service = box.start(LONG)
    assert service.state == "running"
    assert service.returncode is None
    assert service.alive
    service.wait_ready()
    os.kill(service.pid, signal.SIGKILL)
    service.process.wait(5)
    assert service.state == "killed by SIGKILL"
    with pytest.raises(ServiceDied):
        service.wait_ready()


def test_waiting_for_readiness_again(box):
    """wait_ready looks anew: after the port is gone it is not ready."""
    code = LISTEN.replace("time.sleep(1000)", "time.sleep(0.5); server.close(); print('closed'); time.sleep(1000)")
    service = box.start([sys.executable, "-c", code, "2", "1", "127.0.0.1", "8000"], ready=8000)
    service.wait_ready(5)
    service.wait_log("closed")
    with pytest.raises(NotReady):
        service.wait_ready(0.05)
    assert service.alive


@pytest.mark.parametrize(
    ("argv", "keywords", "error"),
    [
        ([], {}, UsageError),
        (["nonesuch"], {}, FileNotFoundError),
        (["/etc/passwd"], {}, PermissionError),
        (LONG, {"cwd": "/nonesuch"}, FileNotFoundError),
        (LONG, {"ready": "nonsense"}, UsageError),
        (LONG, {"timeout": -1}, UsageError),
        (LONG, {"timeout": None}, UsageError),
        (LONG, {"stop_signal": 0}, UsageError),
        (LONG, {"stop_signal": 1000}, UsageError),
        (LONG, {"name": ""}, UsageError),
        (LONG, {"env": {"A=B": "c"}}, ValueError),
    ],
)
def test_what_cannot_be_started(box, argv, keywords, error):
    """What cannot be started raises as popen does, and leaves no service and no descriptor."""
    box.start(["true"])
    before = descriptor_count()
    with pytest.raises(error):
        box.start(argv, **keywords)
    assert len(box.services) == 1
    assert descriptor_count() <= before


def test_no_descriptor_left(box):
    """When this process may open no more files the start says so, and leaves nothing."""
    first = box.start(["true"])  # and with it, all is imported
    first.process.wait(5)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    taken = [os.open("/dev/null", os.O_RDONLY) for _ in range(highest)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1, hard))
    try:
        with pytest.raises(LabError, match="raise the limit"):
            box.start(LONG)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)
    assert box.services == (first,)
    assert box.start(LONG).state == "running"


def test_closed_container():
    """A closed container starts nothing, and what ran in it was stopped."""
    with Container("box") as box:
        service = box.start(["sh", "-c", "echo hello; exec sleep 1000"], ready=re.compile("hello"))
    assert service.state == "stopped"
    assert service.stop() == -signal.SIGKILL
    assert service.log == "hello\n"
    assert box.services == (service,)
    assert service.describe()["log_tail"] == "hello"
    for attempt in (lambda: box.start(LONG), service.restart, service.wait_ready, box.open_sockets):
        with pytest.raises(PoorContainerError, match="closed"):
            attempt()


def test_container_that_is_killed(box):
    """When something kills the container, who waits for a service learns it at once, and its log is still there."""
    threading.Timer(0.3, lambda: os.kill(box.pid, signal.SIGKILL)).start()
    with pytest.raises(LabDied):
        box.start(["sh", "-c", "echo hello; sleep 1000"], ready=80, timeout=60)
    (service,) = box.services
    assert service.state == "killed with its container"
    assert service.describe()["log_tail"] == "hello"
