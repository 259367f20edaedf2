"""Control groups that pclab looks after, asked by bare messages; here they are plain directories, which go alike."""

import errno
import os
import signal
import socket
import struct
import time
from pathlib import Path

import pytest
from test_pclab import CREATE, END, ERRNO, ERROR, ID, NAME, OK, STEP, Lab, container, message, number, program  # noqa: F401 - fixture

from pytest_poorcontainer import machine

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)

LIMIT = 28
PLACES = 8  # PLACES_MAX of limit.c
SOON = 2  # seconds


class Limited:
    """A lab with a container in it, and directories that may hold groups."""

    def __init__(self, program, tmp_path):  # noqa: F811 - the fixture's value
        """Start both."""
        self.lab = Lab(program)
        self.agent, self.pidfd, self.id = self.create()
        self.places = [tmp_path / f"place{index}" for index in range(PLACES + 1)]
        for place in self.places:
            place.mkdir()

    def create(self):
        """Make a container; return its agent's descriptor, its pidfd and its number as a field's value."""
        op, _, fields, fds = self.lab.ask(CREATE, container("limited")[:3])
        assert op == OK, fields
        return fds[0], fds[1], fields[ID]

    def limit(self, fields, places):
        """Hand directories over; return errno, 0 when that went well."""
        fds = [os.open(place, os.O_PATH | os.O_CLOEXEC) for place in places]
        data = bytearray(message(LIMIT, fields))
        struct.pack_into("=H", data, 6, len(fds))
        socket.send_fds(self.lab.socket, [bytes(data)], fds)
        for fd in fds:
            os.close(fd)
        op, _, answer, _ = self.lab.receive()
        assert op in (OK, ERROR)
        assert op == OK or answer[STEP]
        return struct.unpack("=I", answer[ERRNO])[0] if op == ERROR else 0

    def groups(self, name, places):
        """Make a group of a name in each of these places."""
        groups = [place / name for place in places]
        for group in groups:
            group.mkdir()
        return groups

    def close(self):
        """End all of it."""
        self.lab.close()
        os.close(self.agent)
        os.close(self.pidfd)


@pytest.fixture
def limited(program, tmp_path):  # noqa: F811 - the fixture of that name
    """Return a lab with a container."""
    limited = Limited(program, tmp_path)
    yield limited
    limited.close()


def test_groups_go_when_their_container_is_ended(limited):
    """END is answered when the groups are gone, those of other containers stay."""
    agent, pidfd, other = limited.create()
    places = limited.places[:3]
    mine, theirs = limited.groups("mine", places), limited.groups("theirs", places)
    assert limited.limit([(ID, limited.id), (NAME, b"mine")], places) == 0
    assert limited.limit([(ID, other), (NAME, b"theirs")], places) == 0
    assert limited.lab.ask(END, [(ID, limited.id)])[0] == OK
    assert not any(group.exists() for group in mine)
    assert all(group.exists() for group in theirs)
    os.close(agent)
    os.close(pidfd)


def test_groups_of_a_container_that_ended_by_itself_stay_until_somebody_ends_it(limited):
    """What was used can be read after the death of its init; then END removes the groups."""
    groups = limited.groups("mine", limited.places[:1])
    assert limited.limit([(ID, limited.id), (NAME, b"mine")], limited.places[:1]) == 0
    signal.pidfd_send_signal(limited.pidfd, signal.SIGKILL)
    deadline = time.monotonic() + SOON
    while limited.lab.children() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert limited.limit([(ID, limited.id), (NAME, b"mine")], limited.places[:1]) == errno.ESRCH
    assert groups[0].exists()
    assert limited.lab.ask(END, [(ID, limited.id)])[0] == OK
    assert not groups[0].exists()


def test_groups_go_with_the_lab(program, tmp_path):  # noqa: F811 - the fixture of that name
    """When pytest is gone the lab ends the container, and removes its groups before it ends itself."""
    limited = Limited(program, tmp_path)
    groups = limited.groups("mine", limited.places[:2])
    assert limited.limit([(ID, limited.id), (NAME, b"mine")], limited.places[:2]) == 0
    limited.close()
    assert not any(group.exists() for group in groups)


def test_a_group_that_is_gone_or_cannot_go_is_no_obstacle(limited):
    """Another has removed one, another is not empty: the container ends as ever, and the rest is removed."""
    gone, full, plain = limited.groups("mine", limited.places[:3])
    assert limited.limit([(ID, limited.id), (NAME, b"mine")], limited.places[:3]) == 0
    gone.rmdir()
    (full / "child").mkdir()
    assert limited.lab.ask(END, [(ID, limited.id)])[0] == OK
    assert [full.exists(), plain.exists()] == [True, False]


@pytest.mark.parametrize("name", [b"", b".", b"..", b"../x", b"a/b", b"x" * 64, b"a\0b"])
def test_a_name_that_leads_elsewhere_is_refused(limited, name):
    """A group's name is one component of a path, of bounded length."""
    assert limited.limit([(ID, limited.id), (NAME, name)], limited.places[:1]) == errno.EPROTO


def test_what_is_no_request_is_refused(limited, tmp_path):
    """No directories, no name, no container, a file, too many directories, a second time: each its own errno."""
    mine = [(ID, limited.id), (NAME, b"mine")]
    file = tmp_path / "file"
    file.touch()
    assert limited.limit(mine, []) == errno.EPROTO
    assert limited.limit(mine[:1], limited.places[:1]) == errno.EPROTO
    assert limited.limit(mine[1:], limited.places[:1]) == errno.ESRCH
    assert limited.limit([(ID, number(77)), *mine[1:]], limited.places[:1]) == errno.ESRCH
    assert limited.limit(mine, [file]) == errno.ENOTDIR
    assert limited.limit(mine, limited.places) == errno.ENOSPC
    assert limited.limit(mine, limited.places[:PLACES]) == 0
    assert limited.limit(mine, limited.places[:PLACES]) == errno.EBUSY


def test_many_containers_share_the_descriptors_of_the_directories(limited):
    """The lab keeps one descriptor of each directory, however many containers have groups there."""
    made = []
    for index in range(30):
        agent, pidfd, id_ = limited.create()
        made.append((agent, pidfd))
        assert limited.limit([(ID, id_), (NAME, b"g%d" % index)], limited.places[:3]) == 0
    assert limited.limit([], []) == errno.EPROTO  # by now the descriptors of the last message are closed
    links = [os.readlink(fd) for fd in Path(f"/proc/{limited.lab.pid}/fd").iterdir()]  # noqa: PTH115 - may lead nowhere
    assert sorted(link for link in links if "/place" in link) == [str(place) for place in limited.places[:3]]
    for fds in made:
        for fd in fds:
            os.close(fd)
