"""Finding what is kept: which name means which container, and what a broken lab's answers do."""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pytest_poorcontainer.container import kept, runtime_dir
from pytest_poorcontainer.container.kept import Kept, choose, end, enter, survey
from pytest_poorcontainer.errors import LabError, PoorContainerError
from pytest_poorcontainer.lab import protocol
from pytest_poorcontainer.lab.protocol import Field, Op


def make(name, lab=7, **changes):
    """Return a container of which only the name matters."""
    known = {"host": name.rsplit("-")[0], "test": "t", "created": 0.0, "addresses": (), "services": ()}
    known |= {"level": "namespaces", "peer": "", "detached": True, "socket": Path("/nonexistent/7.sock")}
    return Kept(name=name, lab=lab, id=1, **(known | changes))


THERE = [make("a-17"), make("ab-17"), make("ab-17-2"), make("b-170"), make("b-171")]


@pytest.mark.parametrize(
    ("name", "found"),
    [("a-17", "a-17"), ("a", "a-17"), ("ab-17", "ab-17"), ("ab-17-", "ab-17-2"), ("b-171", "b-171"), ("a-", "a-17")],
)
def test_a_name_is_whole_or_the_hosts_or_a_beginning(name, found):
    """A whole name comes first, then a host's name, then the beginning of a name, when it fits one."""
    assert choose(name, THERE).name == found


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("c", "there is no container 'c'; there are: a-17, ab-17, ab-17-2, b-170, b-171"),
        ("", "there is no container ''; there are: a-17, ab-17, ab-17-2, b-170, b-171"),
        ("b", "'b' is not one container but 2: b-170, b-171; say more of the name"),
        ("b-17", "'b-17' is not one container but 2: b-170, b-171; say more of the name"),
    ],
)
def test_a_name_that_fits_none_or_several_is_answered_with_names(name, words):
    """The error says what there is, or what fits."""
    with pytest.raises(PoorContainerError) as error:
        choose(name, THERE)
    assert str(error.value) == words


def test_many_names_are_not_all_told():
    """Of very many names the error tells the first ones and how many more there are."""
    with pytest.raises(PoorContainerError, match=r"a-11 and 988 more$"):
        choose("nobody", [make(f"a-{number}") for number in range(1000)])


class Lab:
    """Answers on a socket file as it is told to, until closed."""

    def __init__(self, path, *answers):
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen()
        self._answers = answers
        self.asked = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        for answer in self._answers:
            client = protocol.socket_of(self._listener.accept()[0].detach())
            request = protocol.receive(client)
            self.asked.append(request.op)
            answer(client)
            client.close()
        self._listener.close()

    def close(self):
        """Wait until all that it was to answer is answered."""
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture
def lab(monkeypatch, tmp_path):
    """Return a function that makes the lab with the given answers; its socket is 77.sock."""
    monkeypatch.setenv(runtime_dir.ENVIRONMENT, str(tmp_path / "r"))
    os.close(runtime_dir.opened())
    made = []

    def make_lab(*answers):
        made.append(Lab(tmp_path / "r" / "77.sock", *answers))
        return made[-1]

    yield make_lab
    for one in made:
        one.close()


def listing(ids, description):
    """Return the answer to KEPT_LIST, with this text as the description."""

    def answer(client):
        fd = os.memfd_create("description")
        os.write(fd, description.encode())
        packed = b"".join(id_.to_bytes(4, sys.byteorder) for id_ in ids)
        protocol.send(client, Op.OK, protocol.pack(((Field.IDS, packed),)), [fd])
        os.close(fd)

    return answer


def hang_up(client):
    """Say nothing."""


@pytest.mark.parametrize(
    "description",
    ["", "no JSON {", "[]", "3", '{"containers": 5}', '{"containers": {"1": 5}}', '{"lab": "x", "containers": null}'],
)
def test_a_description_that_makes_no_sense_hides_nothing(lab, description):
    """Containers of which nothing can be understood are listed all the same, so that they can be ended."""
    lab(listing([1, 2], description), listing([], ""))
    found, silent = survey()
    assert [one.name for one in found] == ["1-77", "2-77"]
    assert silent == []


def test_a_description_with_odd_values_is_understood_as_far_as_can_be(lab):
    """Values of other types than ours do no harm, and what is not known is carried along."""
    entry = {"name": "x-1", "services": [5, {"name": "s"}], "created": "now", "addresses": None, "extra": [1]}
    lab(listing([1], json.dumps({"lab": 1, "containers": {"1": entry}})), listing([], ""))
    (one,) = survey()[0]
    assert (one.name, one.lab, one.services, one.created, one.addresses) == ("x-1", 1, (("s", ""),), 0.0, ())
    assert one.as_json()["details"] == {"extra": [1]}


def test_more_containers_than_one_answer_holds(lab):
    """A lab is asked again until it has no more; each question goes on where the last answer ended."""
    asked = lab(listing(range(1, 241), "{}"), listing(range(241, 300), "{}"), listing([], ""))
    assert [one.id for one in survey()[0]] == list(range(1, 300))
    asked.close()
    assert asked.asked == [Op.KEPT_LIST] * 3


def test_a_lab_that_hangs_up_is_asked_again(lab):
    """Somebody whose list is replaced right now hangs up; the next time it answers."""
    lab(hang_up, hang_up, listing([1], "{}"), listing([], ""))
    assert [one.id for one in survey()[0]] == [1]


def test_a_lab_that_only_hangs_up_is_named(lab, tmp_path):
    """A few times are enough: then it is one that does not answer."""
    lab(*[hang_up] * 5)
    found, silent = survey()
    assert found == []
    assert [one.socket for one in silent] == [tmp_path / "r" / "77.sock"]


def test_an_answer_of_another_version_is_no_traceback(lab):
    """What cannot be understood is named as that, and hides no other lab."""
    lab(lambda client: client.send(b"\xff" * 64))
    found, (silent,) = survey()
    assert found == []
    assert "it has version 65535" in silent.why


def test_a_container_that_ended_meanwhile_is_told(lab, tmp_path):
    """Entering what has just ended says so; ending it is no error."""
    no_such = protocol.pack(((Field.STEP, "find"), (Field.OBJECT, "the container"), (Field.ERRNO, 2)))
    lab(lambda client: protocol.send(client, Op.ERROR, no_such))
    place = make("x-77", socket=tmp_path / "r" / "77.sock")
    with pytest.raises(PoorContainerError, match=r"^cannot enter x-77: it has ended$"):
        enter(place, ["true"])


def test_a_lab_that_ended_meanwhile_is_told(tmp_path):
    """Without a lab there is nothing to enter, and nothing to end."""
    for place in (make("x-77"), make("x-77", socket=tmp_path / "77.sock")):
        with pytest.raises(PoorContainerError, match="it has ended, with its whole lab"):
            enter(place, ["true"])
        end([place])


def test_one_lab_that_fails_does_not_save_the_others(lab, tmp_path):
    """Every lab is told to end its containers; then the failure is raised."""
    stuck = protocol.pack(((Field.STEP, "end"), (Field.OBJECT, "a container"), (Field.ERRNO, 110)))
    first = lab(lambda client: protocol.send(client, Op.ERROR, stuck))
    other = Lab(tmp_path / "r" / "78.sock", lambda client: protocol.send(client, Op.OK), listing([3], "{}"))
    there = [make("x-77", socket=tmp_path / "r" / "77.sock"), make("x-78", socket=tmp_path / "r" / "78.sock")]
    with pytest.raises(LabError, match="ETIMEDOUT"):
        end(there)
    first.close()
    assert other.asked[0] == Op.KEPT_END


def test_foreign_files_in_the_directory_are_left_alone(lab, tmp_path):
    """What is no socket of a lab's is neither asked nor removed; a fresh unfinished socket neither, an old one is."""
    lab()
    directory = tmp_path / "r"
    (directory / "77.sock").unlink()
    (directory / "notes").touch()
    for name, age in (("fresh", 0), ("old", 100)):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as unfinished:
            unfinished.bind(str(directory / f".{name}.new"))
        times = (directory / f".{name}.new").stat().st_mtime - age
        os.utime(directory / f".{name}.new", (times, times))
    assert survey() == ([], [])
    assert sorted(path.name for path in directory.iterdir()) == [".fresh.new", "notes"]


def test_a_services_state_is_that_of_now():
    """A service that ran when it was published has ended when its process is another one now, or none."""
    process = subprocess.Popen(["sleep", "100"])
    started = kept.started_at(process.pid)
    assert started > 0
    entry = {"name": "s", "state": "ready", "pid": process.pid, "started": started}
    earlier = {"name": "e", "state": "ready", "pid": process.pid, "started": started - 1}
    stopped = {"name": "t", "state": "exited 3", "pid": process.pid, "started": started}
    known = list(kept._services([entry, earlier, stopped]))
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    dead = list(kept._services([entry]))
    process.wait()
    assert known == [("s", "ready"), ("e", "ended"), ("t", "exited 3")]
    assert dead == list(kept._services([entry])) == [("s", "ended")]
