"""What a daemon with its distribution's defaults finds in a container, so that it starts."""

import itertools
import os
import stat

import pytest
from talk import told

from pytest_poorcontainer import Container, machine
from pytest_poorcontainer.lab.run_directories import run_directories

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)


@pytest.fixture(scope="module")
def container():
    """A container that these tests share."""
    with Container() as made:
        yield made


def test_run_has_what_packages_want(container):
    """Every directory that tmpfiles.d and units of this machine name is in /run, with its mode."""
    for directory in run_directories():
        mode = told(container, "stat", "-c", "%a", f"/run/{directory.path}").strip()
        assert int(mode, 8) == directory.mode


@pytest.mark.skipif(os.geteuid() != 0, reason="root only: one's own id is the only one that is mapped")
def test_run_belongs_to_whom_packages_say(container):
    """As root the owners are the machine's too."""
    for directory in run_directories():
        assert told(container, "stat", "-c", "%u %g", f"/run/{directory.path}").split() == [
            str(directory.uid),
            str(directory.gid),
        ]


def test_low_ports_are_for_everybody(container):
    """A daemon that has dropped its privileges, or never had any, listens on its port."""
    script = "import os, socket; assert os.getuid() == 1234; socket.create_server(('127.0.0.1', 80))"
    container.run(["python3", "-c", script], user=1234, check=True)


def test_directories_of_others_can_be_written_to(container):
    """Whoever owns them on the machine: in /etc, /var, /srv and /opt things can be made."""
    for place in ("/etc", "/var/lib", "/var/log", "/srv", "/opt"):
        if stat.S_ISDIR(os.lstat(place).st_mode):
            container.run(["mkdir", f"{place}/made-by-a-test"], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="an ordinary user only: root reads every file")
def test_data_that_cannot_be_read_is_left_out(container):
    """A log, a database or a key of another id would stop a daemon; it is not there, and can be made."""
    hidden = []
    for directory, _, names in itertools.chain(os.walk("/var"), os.walk("/etc")):
        for name in names:
            path = os.path.join(directory, name)  # noqa: PTH118 - thousands of them
            if not os.path.islink(path) and os.path.isfile(path) and not os.access(path, os.R_OK):  # noqa: PTH113, PTH114
                hidden.append(path)
    for path in hidden[:20]:
        assert container.run(["test", "-e", path]).returncode == 1, path
        container.run(["touch", path], check=True)
