"""What the report of a failed test tells of the traffic, and the pages that ``--poor-container-report`` leaves."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from test_reports import sections

pytestmark = pytest.mark.poor_container

TRAFFIC = """
    import socket
    import pytest

    def talk(a, b):
        with b.listen((b.ip, 80)) as server, a.connect((b.ip, 80)):
            server.accept()[0].close()
        with pytest.raises(ConnectionRefusedError):
            a.connect((b.ip, 81))
        with a.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", (b.ip, 99))
"""
FAILS = (
    TRAFFIC
    + """
    def test_fails(netns_pair):
        with netns_pair.link.cut():
            pass
        talk(*netns_pair)
        assert False, "the reason"
"""
)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
HOSTILE = "<script>document.title='taken'</script><img src=x onerror=alert(1)>&amp;\\x1b[2J\\ud800\"'"


@pytest.mark.parametrize("args", [(), ("-n1",)])
def test_conversations_and_faults_are_shown(pytester, run, args):
    """Faults with their times, ladders of what was said, and a word on what is odd; also across xdist."""
    pytester.makepyfile(FAILS)
    result = run("--poor-container", *args)
    found = sections(result)
    assert [line.split(maxsplit=1)[1] for line in found["poor-container: timeline"]] == ["a -- b: cut", "a -- b: heal"]
    lines = found["poor-container: conversations"]
    assert any(re.fullmatch(r"tcp a:\d+ -- b:81, 2 packets: RST: refused", line) for line in lines)
    assert any(re.fullmatch(r"udp a:\d+ -- b:99, 2 packets: ICMP from b", line) for line in lines)
    assert any(re.fullmatch(r" +\d+\.\d{6}  \|-- SYN -+>\|", line) for line in lines)
    result.stdout.fnmatch_lines(["*|<---* RST,ACK --|  RST: refused"])


def test_without_recording_nothing_is_said_of_traffic(pytester, run):
    """``--poor-container-record=off``, its ini key and its variable leave the section out; captures go on to work."""
    body = FAILS.replace("talk(*netns_pair)", "talk(*netns_pair)\n        assert capture(*netns_pair) == 1")
    more = """
    def capture(a, b):
        with a.capture("udp") as packets, a.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", (b.ip, 99))
        return packets.count("src host a")
    """
    pytester.makepyfile(body + more)
    for args in (("--poor-container-record=off",), ("-o", "poor_container_record=off")):
        result = run("--poor-container", *args)
        result.stdout.fnmatch_lines(["*AssertionError: the reason"])
        assert "poor-container: conversations" not in sections(result)
        assert "poor-container: timeline" in sections(result)
    pytester.makeini("[pytest]\npoor_container_record = maybe")
    run("--poor-container").stderr.fnmatch_lines(["*poor_container_record: 'maybe' is none of on, off, and no size*"])


def test_how_much_is_recorded_can_be_chosen(pytester, run):
    """A size bounds what is kept of each interface: of a longer run the newest frames are in the report."""
    pytester.makepyfile(
        """
        import socket

        def test_fails(netns_pair):
            a, b = netns_pair
            here, there = (host.socket(socket.AF_INET, socket.SOCK_DGRAM) for host in (a, b))
            with here, there:
                there.bind((b.ip, 9))
                for number in range(1000):
                    here.sendto(b"%04d" % number * 50, (b.ip, 9))
            assert False
        """
    )
    for size, kept in (("64k", 65536), ("on", 1 << 20)):
        run("--poor-container", "--poor-container-report=out", f"--poor-container-record={size}")
        (path,) = (pytester.path / "out").glob("*/1-call/traffic.pcapng")
        data = path.read_bytes()
        assert len(data) < kept * 1.3
        assert (b"0000" * 50 in data) == (size == "on")
        assert b"0999" * 50 in data


def test_what_a_test_closed_itself_is_still_told(pytester, run):
    """The conversations of a pair that the test closed before it failed are in its report."""
    pytester.makepyfile(
        TRAFFIC
        + """
    def test_fails(netns_factory):
        with netns_factory(hosts=["left", "right"]) as pair:
            talk(*pair)
        assert False
    """
    )
    lines = sections(run("--poor-container"))["poor-container: conversations"]
    assert any(re.fullmatch(r"tcp left:\d+ -- right:81, 2 packets: RST: refused", line) for line in lines)


def test_a_test_has_its_own_conversations_alone(pytester, run):
    """Of hosts of a wider scope a test's report has what went by while it ran."""
    pytester.makepyfile(
        TRAFFIC
        + """
    @pytest.fixture(scope="module")
    def site(netns_factory):
        with netns_factory() as pair:
            yield pair

    def test_first(site):
        talk(*site)

    def test_second(site):
        with pytest.raises(ConnectionRefusedError):
            site.b.connect((site.a.ip, 7))
        site.link.cut()
        assert False
    """
    )
    found = sections(run("--poor-container", "-pno:randomly"))
    assert [line for line in found["poor-container: conversations"] if line.startswith(("tcp", "udp"))] == [
        line for line in found["poor-container: conversations"] if re.match(r"tcp b:\d+ -- a:7,", line)
    ]
    assert [line.split(maxsplit=1)[1] for line in found["poor-container: timeline"]] == ["a -- b: cut"]


def test_a_recorder_that_was_killed_is_told_and_the_failure_stays(pytester, run):
    """The section says why there is nothing; the test's own failure is there, and the next test has its hosts."""
    pytester.makepyfile(
        """
        import os
        from pathlib import Path

        def test_fails(netns_pair):
            for path in Path("/proc").glob("[0-9]*/stat"):
                if "(pcrecorder)" in path.read_text() and is_ours(path.parent):
                    os.kill(int(path.parent.name), 9)
            assert False, "the reason"

        def is_ours(process):
            from pytest_poorcontainer.lab import Lab
            return f"PPid:\\t{Lab.current().pid}\\n" in (process / "status").read_text()

        def test_passes(netns_pair):
            netns_pair.a.run(["true"], check=True)
        """
    )
    result = run("--poor-container", "-pno:randomly", subprocess=True)
    result.assert_outcomes(failed=1, passed=1)
    assert sections(result)["poor-container: conversations"][0].startswith("not known: ")
    result.stdout.fnmatch_lines(["*AssertionError: the reason"])


def test_files_are_there_for_people_and_programs(pytester, run):
    """Frames for Wireshark, conversations, the timeline, states as JSON, a page, and an index over the run."""
    pytester.makepyfile(FAILS)
    result = run("--poor-container", "--poor-container-report=out")
    (place,) = (pytester.path / "out").glob("*/1-call")
    assert {"traffic.pcapng", "conversations.txt", "timeline.txt", "states.json", "report.html"} <= {
        path.name for path in place.iterdir()
    }
    states = json.loads((place / "states.json").read_text())
    assert states["test"].endswith("::test_fails")
    assert (states["phase"], states["failure"]) == ("call", "AssertionError: the reason")
    assert [host["name"] for host in states["hosts"]] == ["a", "b"]
    assert states["links"] == [{"ends": ["a", "b"], "state": "up"}]
    assert [event["what"] for event in states["events"]] == ["a -- b: cut", "a -- b: heal"]
    odd = {tuple(each["odd"]) for each in states["conversations"] if each["protocol"] in ("tcp", "udp")}
    assert odd == {(), ("RST: refused",), ("ICMP from b",)}
    assert "RST: refused" in (place / "conversations.txt").read_text()
    page = (place / "report.html").read_text()
    assert "RST: refused" in page
    index = (pytester.path / "out" / "index.html").read_text()
    assert f'href="{place.relative_to(pytester.path / "out")}/report.html"' in index
    result.stdout.fnmatch_lines([f"poor-container: all of them: {pytester.path}/out/index.html"])


@pytest.mark.skipif(not shutil.which("tshark"), reason="needs tshark and capinfos (apt-get install tshark)")
def test_wireshark_reads_the_frames_of_a_failed_test(pytester, run):
    """Wireshark's tools find an interface for each host, each frame once, at who sent it, and no fault with them."""
    pytester.makepyfile(FAILS)
    run("--poor-container", "--poor-container-report=out")
    (path,) = (pytester.path / "out").glob("*/1-call/traffic.pcapng")

    def tool(*command):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert [line for line in done.stderr.splitlines() if "Running as user" not in line] == []
        return done.stdout

    about = tool("capinfos", str(path))
    assert "Number of interfaces in file: 2" in about
    assert {"Name = a eth0", "Name = b eth0"} <= {line.strip() for line in about.splitlines()}
    rows = tool(
        "tshark",
        "-r",
        str(path),
        "-Y",
        "tcp.port == 81",
        "-T",
        "fields",
        "-e",
        "frame.interface_name",
        "-e",
        "_ws.col.Info",
    )
    assert [row.split("\t")[0] for row in rows.splitlines()] == ["a eth0", "b eth0"]
    assert (
        tool(
            "tshark", "-r", str(path), "-Y", "_ws.malformed || tcp.analysis.retransmission || tcp.analysis.out_of_order"
        )
        == ""
    )


@pytest.mark.parametrize("args", [(), ("-n2",)])
def test_the_index_has_all_reports_of_the_run(pytester, run, args):
    """Failed tests of all xdist workers, and of set-ups and teardowns, stand in one index; passed ones do not."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("number", range(4))
        def test_fails(netns_pair, number):
            assert number == 1

        @pytest.fixture
        def broken(netns_pair):
            yield
            raise RuntimeError("teardown")

        def test_torn(broken): pass
        """
    )
    run("--poor-container", "--poor-container-report=out", *args)
    index = (pytester.path / "out" / "index.html").read_text()
    links = re.findall(r'href="([^"]+/report\.html)"', index)
    assert len(links) == 4
    assert all((pytester.path / "out" / link).is_file() for link in links)
    assert "RuntimeError: teardown" in index


def test_a_run_without_failures_leaves_no_index_of_an_earlier_one(pytester, run):
    """When nothing fails any more the index says so; without an earlier one nothing is written."""
    path = pytester.makepyfile("def test_it(netns_pair): assert not netns_pair")
    index = pytester.path / "out" / "index.html"
    run("--poor-container", "--poor-container-report=out")
    assert "1 report" in index.read_text()
    path.write_text("def test_it(netns_pair): assert netns_pair")
    run("--poor-container", "--poor-container-report=out")
    assert "Nothing has failed" in index.read_text()
    run("--poor-container", "--poor-container-report=other")
    assert not (pytester.path / "other").exists()


class Reader(HTMLParser):
    """Collects tags, attributes and text of a page."""

    def __init__(self):
        super().__init__()
        self.tags = set()
        self.addresses = []
        self.words = []

    def handle_starttag(self, tag, attrs):
        """Take note of a tag, and of what it refers to."""
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in ("href", "src", "action", "data", "xlink:href")]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data):
        """Take note of a text."""
        self.words.append(data)


def hostile(pytester):
    """Write tests whose names, texts and logs are meant to break a page."""
    pytester.makepyfile(
        f"""
        import pytest

        WORDS = {HOSTILE!r}.encode().decode("unicode_escape")

        @pytest.mark.parametrize("what", [WORDS])
        def test_fails(netns_pair, what):
            say = "for i in 1 2 3; do echo \\"$1\\"; done; exec sleep 100"
            service = netns_pair.a.start(["sh", "-c", say, "-", WORDS.replace("\\ud800", "")], name="</pre><b>log")
            service.wait_log("taken")
            netns_pair.link.unplug()
            assert what == "", what
        """
    )


def test_hostile_texts_stay_texts(pytester, run):
    """No name, message or log becomes a tag, an attribute or a reference; the pages refer to their own files alone."""
    hostile(pytester)
    run("--poor-container", "--poor-container-report=out")
    pages = [*(pytester.path / "out").glob("*/*/report.html"), pytester.path / "out" / "index.html"]
    assert len(pages) == 2
    for path in pages:
        reader = Reader()
        reader.feed(path.read_text())
        assert not reader.tags & {"script", "img", "iframe", "object", "embed", "b"}
        for address in reader.addresses:
            assert address == "data:," or (path.parent / address).is_file(), address
        words = "".join(reader.words)
        assert "<script>document.title" in words
        assert "\x1b" not in words


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (apt-get install chromium)")
def test_a_browser_shows_the_page(pytester, run, tmp_path):
    """Headless Chromium draws the page: nothing runs, nothing is fetched, nothing sticks out, light and dark differ."""
    hostile(pytester)
    run("--poor-container", "--poor-container-report=out")
    (path,) = (pytester.path / "out").glob("*/1-call/report.html")
    text = browse(path, tmp_path, "--dump-dom")
    assert "<title>" in text
    assert "taken</title>" not in text
    assert text.count("<svg") >= 2
    assert ">unplugged</text>" in text
    shots = {}
    for scheme, setting in (("light", 1), ("dark", 0)):
        picture = tmp_path / f"{scheme}.png"
        browse(path, tmp_path, f"--blink-settings=preferredColorScheme={setting}", f"--screenshot={picture}")
        shots[scheme] = picture.read_bytes()
    assert all(shot.startswith(b"\x89PNG") and len(shot) > 10_000 for shot in shots.values())
    assert shots["light"] != shots["dark"]


def browse(path, profile, *more):
    """Run a browser without a screen or a network; return what it prints."""
    assert CHROMIUM is not None
    common = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")
    done = subprocess.run(
        [
            CHROMIUM,
            *common,
            f"--user-data-dir={profile}/profile",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--window-size=1200,1600",
            *more,
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout
