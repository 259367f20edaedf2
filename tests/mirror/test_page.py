"""The status page: what it shows, what it never does, and how it looks in a browser."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import browser
import pytest

from pytest_poorcontainer.mirror.config import load
from pytest_poorcontainer.mirror.daemon import Daemon
from pytest_poorcontainer.mirror.errors import BadConfig, MirrorError
from pytest_poorcontainer.mirror.history import History
from pytest_poorcontainer.mirror.home import Home, write_json
from pytest_poorcontainer.mirror.overview import overview
from pytest_poorcontainer.mirror.page import render
from pytest_poorcontainer.mirror.page.served import PageServer, address_of
from pytest_poorcontainer.mirror.plan import Deletion, Plan, printable

HOSTILE = "<script>alert(1)</script>&\"'\u202e"
PROGRAM = [sys.executable, "-m", "pytest_poorcontainer.cli.poor_mirror"]


def run_of(name, state="ok", reason="", ago=100.0, **more):
    """Return a run as the history has it."""
    ended = time.time() - ago
    return {"name": name, "started": ended - 3, "ended": ended, "state": state, "status": 0, "reason": reason,
            "files": 7, "bytes": 7000, "newest": ended - 3600, "protocol": "http", **more}  # fmt: skip


@pytest.fixture
def config(tmp_path):
    """Return a configuration with three mirrors and some history."""
    path = tmp_path / "mirrors.toml"
    tables = "".join(
        f'[mirror.{name}]\nsource = "http://user:secret@h.example/{name}/"\n' for name in ("one", "two", "three")
    )
    path.write_text(f'[defaults]\nroot = "{tmp_path}/root"\ninterval = "1h"\n[site]\ntitle = "{HOSTILE[:9]}"\n{tables}')
    found = load(path)
    history = History(found.state / "history.sqlite3")
    for number in range(3):
        history.add(run_of("one", ago=1000 - number))
    history.add(run_of("two", "failed", HOSTILE))
    return found


@pytest.fixture
def server(config):
    """Serve the page."""
    found = PageServer(config, ("127.0.0.1", 0))
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield found
    found.ending.set()
    found.shutdown()
    thread.join()
    found.server_close()


def get(server, path):
    """Return headers and text of an answer."""
    with urlopen(f"http://127.0.0.1:{server.server_port}/{path}", timeout=10) as answer:
        return answer.headers, answer.read().decode()


def test_what_strangers_say_stays_text(config):
    """Neither a title, nor a reason, nor a log becomes markup anywhere."""
    for name, content in render.files(config).items():
        text = content.decode()
        if name.endswith(".html"):
            assert "<script>alert" not in text, name
    assert "&lt;script&gt;alert(1)" in render.files(config)["two.html"].decode()


def test_credentials_are_nowhere(config):
    """User and password of a source are in no part of the page."""
    assert not [name for name, content in render.files(config).items() if b"secret" in content]


def test_the_line_and_the_states(config):
    """The first line counts the states; content and run have ages of their own."""
    found = overview(config)
    assert found["line"].startswith("1 up to date, 1 failing, 1 never run")
    one = found["mirrors"][0]
    assert 3590 < one["age"] - one["run_age"] < 3700
    assert len(one["runs"]) == 3
    assert found["mirrors"][1]["reason"] == HOSTILE


def test_late_is_a_state(config):
    """A mirror that was complete, but longer ago than two intervals, is late (row 31)."""
    History(config.state / "history.sqlite3").add(run_of("one", ago=3 * 3600))
    assert overview(config)["mirrors"][0]["shown"] == "late"
    config.mirrors["one"].late = 4 * 3600.0
    assert overview(config)["mirrors"][0]["shown"] == "ok"


def test_what_is_not_known_is_not_shown(config):
    """Neither figures of a run that has none, nor a path as a protocol."""
    assert render.progress({"phase": "fetch", "bytes": 0, "total_files": 0}) == "fetch"
    for source, protocol in (("/srv/x", "file"), ("h.example:x", "rsync"), ("ftp://h/", "ftp")):
        config.mirrors["three"].source = source
        assert overview(config)["mirrors"][2]["protocol"] == protocol
    config.mirrors["three"].command = ["true"]
    assert overview(config)["mirrors"][2]["protocol"] == "command"


def test_the_page_of_a_mirror_that_runs(config):
    """Shows how far it is, and how far its server's clock is from UTC."""
    mirror = config.mirrors["one"]
    with Home(mirror.dest, name="one", source="") as home:
        home.save({"memory": {"offset": 9000.0, "dialect": "nginx"}})
        write_json(home.ours / "status.json", {"phase": "fetch", "files": 3, "total_files": 9})
        shown = render.files(config, ["one"])["one.html"].decode()
    assert "3 of 9 files" in shown
    assert "+2.5 h from UTC" in shown


def test_a_clock_that_was_ahead(config):
    """A run that has ended in the future keeps no mirror from running now."""
    config.jobs = 3
    History(config.state / "history.sqlite3").add(run_of("three", ago=-86400 * 365))
    daemon = Daemon(config)
    daemon._due = {name: daemon._first(mirror) for name, mirror in config.mirrors.items()}
    started = []
    daemon._launch = started.append
    for mirror in config.mirrors.values():
        mirror.source = "/nowhere"
    daemon._start()
    assert started == ["three"]


def test_old_content_is_late(config):
    """A source that stands still is noticed although every run is a good one (row 31)."""
    config.mirrors["one"].max_age = 3000.0
    one = overview(config)["mirrors"][0]
    assert (one["state"], one["shown"]) == ("ok", "late")
    assert "the content is" in one["reason"]
    config.mirrors["one"].max_age = 30000.0
    assert overview(config)["mirrors"][0]["shown"] == "ok"


def test_the_next_run_is_the_daemons(config):
    """A run that failed is repeated after a quarter of the interval, and the page says so."""
    found = {one["name"]: one["next_run"] - one["last_attempt"] for one in overview(config)["mirrors"][:2]}
    assert found == pytest.approx({"one": 3600, "two": 900})


def test_a_held_plan_is_on_the_page(config):
    """What would be deleted, why it is held, and each path of it (row 11)."""
    mirror = config.mirrors["three"]
    plan = Plan("three", deletions=[Deletion(f"pool/f{number}", "f", 1, "pool") for number in range(20)])
    with Home(mirror.dest, name="three", source="") as home:
        home.hold(plan, ["20 of 20 files would be deleted"])
    History(config.state / "history.sqlite3").add(run_of("three", "held", "held"))
    parts = render.files(config)
    assert b"+0 ~0 -20 files" in parts["index.html"]
    assert b"20 of 20 files would be deleted" in parts["index.html"]
    assert b"- pool/f19 1" in parts["three.html"]
    with Home(mirror.dest, name="three", source="") as home:
        home.hold(Plan("three"), ["another reason"])
    assert b"another reason" in render.files(config)["index.html"]
    (mirror.dest / ".poor-mirror/held.json").write_text('{"a": 1}')
    assert b"cannot read the saved plan" in render.files(config)["three.html"] + render.files(config)["index.html"]


def test_what_tunasync_users_expect(config):
    """/jobs has tunasync's keys and states."""
    found = json.loads(render.jobs(overview(config)))
    assert {"name", "is_master", "status", "last_update", "last_update_ts", "last_started_ts", "last_ended_ts",
            "next_schedule_ts", "upstream", "size"} <= found[0].keys()  # fmt: skip
    assert [one["status"] for one in found] == ["success", "failed", "none"]


def test_the_metrics_are_prometheus(config):
    """Each line is a comment, or a name with labels and a number."""
    for line in render.metrics(overview(config)).decode().splitlines():
        assert line.startswith("# ") or float(line.rpartition(" ")[2]) >= 0
    assert b'poor_mirror_state{mirror="two",state="failed"} 1' in render.metrics(overview(config))


def test_the_files_are_written_atomically(config, tmp_path):
    """Nothing but the parts is left in the directory, and each is whole."""
    config.page = tmp_path / "www"
    render.write(config)
    render.write(config)
    assert {path.name for path in config.page.iterdir()} == render.files(config).keys()


def test_of_one_mirror_its_own_page_is_written(config, tmp_path):
    """And what is of all; the others' pages only where they are missing."""
    config.page = tmp_path / "www"
    render.write(config, ["one"])
    assert {path.name for path in config.page.iterdir()} == render.files(config).keys()
    before = {path.name: path.stat().st_ino for path in config.page.iterdir()}
    render.write(config, ["one"])
    same = {path.name for path in config.page.iterdir() if path.stat().st_ino == before[path.name]}
    assert same == {f"{name}.{kind}" for name in ("two", "three") for kind in ("html", "svg")}


def test_the_server_sends_the_policy(server):
    """Every answer forbids what does not come from the page itself."""
    for path in ("", "one.html", "status.json", "style.css"):
        headers, _ = get(server, path)
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
    _, text = get(server, "")
    assert "<style" not in text
    assert "style=" not in text
    assert "http://" not in text.replace("http://h.example", "")


@pytest.mark.parametrize(
    "path", ["../etc/passwd", "%2e%2e/mirrors.toml", "nothing", "one.html/x", ".poor-mirror/state.json"]
)
def test_there_is_nothing_else_to_fetch(server, path):
    """What is no part of the page is not found."""
    with pytest.raises(OSError, match="404"):
        get(server, path)


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1.1 200 OK"),
        (b"HEAD / HTTP/1.1\r\nConnection: close\r\n\r\n", b"HTTP/1.1 200 OK"),
        (b"POST / HTTP/1.1\r\n\r\n", b"HTTP/1.1 405"),
        (b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", b"HTTP/1.1 400"),
        (b"GET /\r\n\r\n", b"HTTP/1.1 400"),
        (b"\0\xff\r\n\r\n", b"HTTP/1.1 400"),
        (b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\n\r\n", b"HTTP/1.1 400"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", b"HTTP/1.1 400"),
        (b"GET /\xff\xfe HTTP/1.0\r\n\r\n", b"HTTP/1.1 404"),
    ],
)
def test_requests_of_all_kinds(server, request_, answer):
    """What is no request that the page needs is refused and the connection closed; the server lives on."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as client:
        said = b""
        with contextlib.suppress(ConnectionError):  # it does not wait for what it will not read
            client.sendall(request_)
            with contextlib.suppress(OSError):  # not connected any more
                client.shutdown(socket.SHUT_WR)
            while chunk := client.recv(65536):
                said += chunk
    assert said.startswith(answer) or (not said and len(request_) > 1000)
    assert (b"<table" in said) == (request_.startswith(b"GET / HTTP/1.0"))
    assert get(server, "status.json")[1].startswith("{")


def test_a_change_is_shown(server, config):
    """A new run is on the page within a second or so."""
    get(server, "")
    History(config.state / "history.sqlite3").add(run_of("three", "partial", "new reason"))
    deadline = time.monotonic() + 10
    while "new reason" not in get(server, "")[1]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_only_what_is_asked_for_is_drawn(server, config, monkeypatch):
    """A visitor costs one page after a change, and none without one: the runs have the machine."""
    drawn = []
    real = render.part
    monkeypatch.setattr(render, "part", lambda *args, **more: drawn.append(args[2]) or real(*args, **more))
    for _ in range(20):
        get(server, "")
    assert drawn == ["index.html"]
    looked = []
    monkeypatch.setattr(
        "pytest_poorcontainer.mirror.page.served.watch", lambda _: looked.append(1) or (server._mark, {})
    )
    began = time.monotonic()
    for _ in range(300):
        server.event()
    assert len(looked) <= (time.monotonic() - began) / 0.25 + 1


def test_history_is_read_when_it_has_changed(config, monkeypatch):
    """And at no other time; two changes within one tick of the file system's clock are two."""
    asked = []
    real = History.recent
    monkeypatch.setattr(History, "recent", lambda *args: asked.append(1) or real(*args))
    history = History(config.state / "history.sqlite3")
    for number in range(5):
        history.add(run_of("three", "partial", f"reason {number}"))
        for _ in range(3):
            assert overview(config)["mirrors"][2]["reason"] == f"reason {number}"
    assert len(asked) == 5


def test_a_history_that_is_none(server, config):
    """Is one sentence, on the page too; and the page is there again when the history is."""
    path = config.state / "history.sqlite3"
    path.write_text("no database at all" * 100)
    with pytest.raises(MirrorError, match="is it ours, and whole"):
        overview(config)
    with pytest.raises(HTTPError, match="500") as caught:
        get(server, "")
    assert b"is it ours, and whole" in caught.value.read()
    path.unlink()
    assert "never run" in get(server, "")[1]


def test_events_tell_of_a_run_and_of_its_end(server, config):
    """The stream says how far a run is while its lock is held, and to reload when a state has changed."""
    with urlopen(f"http://127.0.0.1:{server.server_port}/events", timeout=10) as stream:
        mirror = config.mirrors["one"]
        with Home(mirror.dest, name="one", source="") as home:
            write_json(home.ours / "status.json", {"phase": "fetch", "bytes": 5, "total_bytes": 10})
            said = next(one for one in events(stream) if one["running"])
            assert said["share"]["one"] == 0.5
            assert said["running"]["one"].startswith("fetch")
        assert next(one for one in events(stream) if not one["running"])["reload"] is True


def events(stream):
    """Yield what the stream says."""
    for line in stream:
        if line.startswith(b"data: "):
            yield json.loads(line[6:])


@pytest.mark.parametrize("text", ["8080", "host:", "host:99999", ":x"])
def test_an_address_that_is_none(text):
    """``--serve`` says how it is written."""
    with pytest.raises(BadConfig, match=r"127\.0\.0\.1:8080"):
        address_of(text)


def test_a_port_that_is_taken(server, config):
    """Is one sentence."""
    with pytest.raises(MirrorError, match="is the port free"):
        PageServer(config, ("127.0.0.1", server.server_port))


@contextlib.contextmanager
def daemon(path):
    """Run the daemon; yield its process and the page's URL."""
    with subprocess.Popen(
        [*PROGRAM, "--config", path, "run", "--serve", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True
    ) as it:
        try:
            yield it, it.stdout.readline().split()[-1]
        finally:
            it.kill()


def test_the_daemon_runs_what_is_due_and_ends_cleanly(tmp_path):
    """All mirrors are synchronised; SIGTERM ends runs and page, with status 0, and no process stays."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_text("x")
    path = tmp_path / "mirrors.toml"
    path.write_text(
        f'[defaults]\nroot = "{tmp_path}/root"\n[site]\npage = "{tmp_path}/www"\n'
        f'[mirror.one]\nsource = "{tmp_path}/source"\n'
        f'[mirror.two]\nsource = "/nowhere"\ncommand = "exec sleep 1000"\n'
    )
    with daemon(path) as (process, url):
        deadline = time.monotonic() + 30
        while True:
            found = json.loads(urlopen(f"{url}status.json", timeout=10).read())["mirrors"]
            if found[0]["state"] == "ok" and found[1]["shown"] == "running":
                break
            assert time.monotonic() < deadline, found
            time.sleep(0.1)
        while 'class="badge running"' not in (tmp_path / "www/two.html").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        runner = found[1]["running"]["pid"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert (tmp_path / "root/one/file").read_text() == "x"
    assert not Path(f"/proc/{runner}").exists()
    assert "interrupted" in (tmp_path / "www/index.html").read_text()


@pytest.mark.skipif(
    browser.CHROMIUM is None, reason="needs a browser: sudo apt-get install --no-install-recommends chromium"
)
def test_in_a_browser(server, config, tmp_path):
    """Chromium draws the page, live progress moves, hostile names stay text, and nothing else is asked for."""
    url = f"http://127.0.0.1:{server.server_port}/"
    mirror = config.mirrors["one"]
    with Home(mirror.dest, name="one", source="") as home, browser.page(tmp_path) as page:
        state = {"phase": "fetch", "bytes": 1, "total_bytes": 10, "files": 1, "total_files": 9}
        write_json(home.ours / "status.json", state)
        page.open(url)
        assert page.evaluate("document.querySelector('.badge').textContent") == "running"
        assert printable(HOSTILE) in page.evaluate("document.body.textContent")
        page.until("document.getElementById('heart').textContent === 'live'")
        write_json(home.ours / "status.json", {**state, "bytes": 9, "files": 8})
        page.until("document.querySelector('.progress').textContent.includes('8 of 9 files')")
        assert page.evaluate("document.querySelector('progress').value") == 0.9
        for name, width, dark in (("wide", 1200, False), ("dark", 1200, True), ("phone", 380, False)):
            page.screenshot(tmp_path / f"{name}.png", width, dark=dark)
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name
        home.close()
        page.until("document.querySelector('.badge').textContent === 'up to date'")
        page.open(f"{url}two.html")
        assert printable(HOSTILE) in page.evaluate("document.body.textContent")
        assert not [asked for asked in page.asked if not asked.startswith(url)]
        assert not [error for error in page.errors if "favicon" not in json.dumps(error)]
