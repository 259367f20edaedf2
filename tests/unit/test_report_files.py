"""Reports as files: names, bounds, and what a failure leaves."""

from __future__ import annotations

import errno
import resource
import signal
from pathlib import Path

import pytest

from pytest_poorcontainer.report.evidence import HostFacts, NetworkFacts, ServiceFacts
from pytest_poorcontainer.report.files import ReportDirectory, safe_name


class Said:
    """A service as far as a report asks it: what it has said."""

    def __init__(self, text):
        self.text = text

    @property
    def log(self):
        """What it has said; None cannot be read."""
        if self.text is None:
            raise OSError("the log is gone")
        return self.text


def network(*logs, host="a"):
    """Return a network of one host whose services have said this."""
    services = tuple(ServiceFacts("db", "running", 0, Said(text)) for text in logs)
    facts = HostFacts(host, "namespaces", "", ("10.0.0.1",), services, ("tcp LISTEN :80",), ())
    return NetworkFacts((facts,), (("a -- b", "up"),))


def test_a_report_is_a_directory(tmp_path):
    """Each thing has its file; what there is nothing of has none."""
    directory = ReportDirectory(tmp_path / "new" / "out")
    place = directory.write("some/test_a.py::test_b", 2, "call", [network("one\n", "two")], [("failure", "why")])
    assert place == tmp_path / "new" / "out" / "some.test_a.py.test_b" / "2-call"
    found = {str(path.relative_to(place)): path.read_text() for path in place.rglob("*") if path.is_file()}
    assert found == {
        "test.txt": "some/test_a.py::test_b\nattempt 2, call\n",
        "hosts.txt": "a: namespaces; 10.0.0.1\n",
        "links.txt": "a -- b: up\n",
        "services.txt": "a: db: running\na: db: running\n",
        "sockets.txt": "a: tcp LISTEN :80\n",
        "failure.txt": "why\n",
        "logs/01-a.db.log": "one\n",
        "logs/02-a.db.log": "two",
    }


def test_files_of_an_earlier_run_go(tmp_path):
    """A second report of the same test has nothing of the first; what is not ours stays."""
    directory = ReportDirectory(tmp_path)
    place = directory.write("test", 1, "call", [network("one", "two")], [("failure", "why")])
    (place / "notes.md").write_text("mine")
    assert directory.write("test", 1, "call", [network("three")], []) == place
    names = sorted(path.name for path in place.rglob("*") if path.is_file())
    assert names == ["01-a.db.log", "hosts.txt", "links.txt", "notes.md", "services.txt", "sockets.txt", "test.txt"]


@pytest.mark.parametrize(
    ("bounds", "sizes"),
    [
        ({"log": 100}, [100, 100, 100]),
        ({"test": 250}, [200, 50, 0]),
        ({"run": 300}, [200, 100, 0]),
    ],
)
def test_logs_are_bounded(tmp_path, bounds, sizes):
    """One log, the logs of a test and those of a run have each a bound; of what is longer the end is written."""
    directory = ReportDirectory(tmp_path, **bounds)
    text = "".join(f"{number:9}\n" for number in range(20))
    place = directory.write("test", 1, "call", [network(text, text, text)], [])
    for path, size in zip(sorted((place / "logs").iterdir()), sizes, strict=True):
        written = path.read_text()
        if size < len(text):
            first, _, written = written.partition("\n")
            assert first == f"[the last {size} of 200 bytes]"
        assert written == text[len(text) - size :]
    assert directory.written <= bounds.get("run", 1000) + 3 * 40


def test_a_log_that_cannot_be_read_does_not_cost_the_others(tmp_path):
    """The reason stands in its place."""
    place = ReportDirectory(tmp_path).write("test", 1, "call", [network(None, "two")], [])
    assert (place / "logs" / "01-a.db.log").read_text() == "[cannot be read: OSError: the log is gone]\n"
    assert (place / "logs" / "02-a.db.log").read_text() == "two"


def test_no_space_is_an_os_error(tmp_path):
    """What cannot be written in full raises, and leaves no open descriptor."""
    before = set(Path("/proc/self/fd").iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            ReportDirectory(tmp_path).write("test", 1, "call", [network("x" * 100_000)], [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.errno == errno.EFBIG
    assert set(Path("/proc/self/fd").iterdir()) <= before


def test_a_link_is_not_followed(tmp_path):
    """A symbolic link in the place of a file is removed, not written through."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    place = tmp_path / "out" / "test" / "1-call"
    place.mkdir(parents=True)
    (place / "hosts.txt").symlink_to(victim)
    ReportDirectory(tmp_path / "out").write("test", 1, "call", [network()], [])
    assert victim.read_text() == "precious"
    assert not (place / "hosts.txt").is_symlink()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("some/a/test_b.py::TestC::test_d", "some.a.test_b.py.TestC.test_d"),
        ("primary", "primary"),
    ],
)
def test_plain_names_stay_readable(text, name):
    """What has only safe characters, "/" and "::" needs no hash."""
    assert safe_name(text) == name


HARD = [
    *("", ".", "..", "../../etc/passwd", "/", "::", "a/../b", ".hidden", "-rf", "x" * 1000, "test[a/b]", "test[a b]"),
    *("test[\x00]", "test[\ud800]", "test[漢字]", "test[漢語]", "test[a_b]", "\n", "A" * 119, "A" * 121, "A" * 122),
]


def test_hard_names_are_safe_and_different(tmp_path):
    """Any node id becomes a name of one path component that can be made, and no two become the same."""
    names = {text: safe_name(text) for text in HARD}
    assert len(set(names.values())) == len(HARD)
    for name in names.values():
        assert name not in ("", ".", "..")
        assert not name.startswith((".", "-"))
        assert len(name) <= 120
        assert (tmp_path / name).parent == tmp_path
        (tmp_path / name).mkdir()
