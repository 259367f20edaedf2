"""The log of a service: positions, bounds, runs, and text that is safe to print; on real files, without a lab."""

import os
import re
import select

import pytest
from descriptors import descriptor_count

from pytest_poorcontainer.container.log import KEPT, Archive, Log, LogText, safe_tail
from pytest_poorcontainer.container.log_file import open_unnamed, watching
from pytest_poorcontainer.container.log_search import Search, compiled
from pytest_poorcontainer.errors import UsageError


@pytest.fixture
def archive(tmp_path):
    """Return an archive whose files lie in the test's directory."""
    return Archive([tmp_path])


@pytest.fixture
def log(archive):
    """Return a log whose first run has begun."""
    log = Log(archive)
    log.begin()
    return log


def blocks(log):
    """Return how many bytes the live file of a log takes on its file system."""
    return os.fstat(log.fd).st_blocks * 512


def test_files_have_no_name(tmp_path):
    """A log leaves nothing in its directory, and everybody who comes to it may open it anew."""
    file = open_unnamed([tmp_path])
    assert list(tmp_path.iterdir()) == []
    assert os.fstat(file.fd).st_nlink == 0
    assert os.fstat(file.fd).st_mode & 0o777 == 0o666
    file.close()


def test_a_file_in_memory_where_no_directory_takes_one(tmp_path):
    """Without a directory that takes a file it is in memory, and appends all the same."""
    file = open_unnamed([tmp_path / "missing"])
    os.write(file.fd, b"one")
    os.lseek(file.fd, 0, os.SEEK_SET)
    os.write(file.fd, b"two")
    assert os.pread(file.fd, 100, 0) == b"onetwo"
    file.close()


def test_text_so_far(log):
    """The text is what was written, from the first byte on, and a position cuts it."""
    os.write(log.fd, b"one\n")
    mark = log.end()
    os.write(log.fd, "zw\u00f6lf\n".encode())
    assert log.text() == "one\nzw\u00f6lf\n"
    assert log.between(mark) == "zw\u00f6lf\n"
    assert log.between(0, mark) == "one\n"
    assert log.between(mark, mark) == ""


def test_garbage_is_decoded_safely(log):
    """Bytes that are no UTF-8 become U+FFFD; the tail has no control characters and no overlong line."""
    os.write(log.fd, b"\xff\xfe\0ok\n\x1b[31mred\r\n" + b"x" * 5000 + b"\nunfinished \xc3")
    assert log.text().startswith("\ufffd\ufffd\0ok\n\x1b[31m")
    lines = log.tail(10).split("\n")
    assert lines[0] == "\ufffd\ufffd\\x00ok"
    assert lines[1] == "\\x1b[31mred"
    assert lines[2] == "x" * 1000 + "... (4000 characters more)"
    assert lines[3] == "unfinished \ufffd"
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("text", "lines", "shown"),
    [
        ("", 5, ""),
        ("a\nb\nc\n", 2, "b\nc"),
        ("a\nb\nc", 2, "b\nc"),
        ("a\n\n\n", 2, "\n"),
        ("tab\tstays\n", 1, "tab\tstays"),
        ("\u202eevil\n", 1, "\\u202eevil"),
    ],
)
def test_last_lines(text, lines, shown):
    """The last lines are counted with the unfinished one, and empty lines are lines."""
    assert safe_tail(text, lines) == shown


def test_runs_follow_each_other(log):
    """A second run goes on where the first ended, after a line of ours; its search does not see the first."""
    os.write(log.fd, b"ready\nunfinished")
    log.begin("--- run 2 ---")
    os.write(log.fd, b"again\n")
    assert log.text() == "ready\nunfinished\n--- run 2 ---\nagain\n"
    with Search(log, re.compile("ready|run"), log.run_start) as search:
        assert search.look(final=True) is None
    log.finish()
    assert log.fd == -1
    assert log.text().endswith("again\n")
    assert log.tail(1) == "again"


def test_ended_runs_share_one_descriptor(archive):
    """A hundred logs that are put away cost one descriptor, and each keeps its text."""
    logs = [Log(archive) for _ in range(100)]
    before = descriptor_count()
    for number, log in enumerate(logs):
        os.write(log.begin(), f"log {number}\n".encode())
        log.finish()
    assert descriptor_count() == before + 1
    assert [log.text() for log in logs] == [f"log {number}\n" for number in range(100)]


def test_the_front_is_given_back(log):
    """Of a large log the end is kept; positions go on counting, and the text says what is missing."""
    line = b"x" * 1023 + b"\n"
    for _ in range(64):
        os.write(log.fd, line * 1024)
    os.write(log.fd, b"the end\n")
    text = log.text()
    assert log.end() == 64 * 1024 * 1024 + 8
    assert re.match(r"\[\.\.\. \d+ bytes before this are not kept\]\nx{1023}\n", text)
    assert text.endswith("\nthe end\n")
    assert len(text) <= KEPT + 100
    assert blocks(log) <= KEPT + (5 << 20)
    assert log.between(0, 100) == ""
    log.finish()
    assert log.tail(1) == "the end"
    assert log.text() == text


def test_search_reads_what_comes(log):
    """A search finds what spans two writes, and what spans lines."""
    with Search(log, re.compile(r"listening\non (\d+)\n"), 0) as search:
        assert search.look() is None
        os.write(log.fd, b"listen")
        assert search.look() is None
        os.write(log.fd, b"ing\non 80\n")
        assert search.look().group(1) == "80"


def test_search_waits_for_the_rest_of_a_line(log):
    """A match at the end of an unfinished line may be half of one: it counts when nothing more comes."""
    with Search(log, re.compile(r"port (\d+)"), 0) as search:
        os.write(log.fd, b"port 80")
        assert search.look() is None
        assert search.undecided
        os.write(log.fd, b"80\n")
        assert search.look().group(1) == "8080"
    with Search(log, re.compile(r"port (\d+)$"), log.end()) as search:
        os.write(log.fd, b"port 1")
        assert search.look() is None
        assert search.look(final=True).group(1) == "1"


def test_search_holds_back_what_it_has_not_read(log):
    """What somebody is still to search is not given back, though it is more than is kept."""
    with Search(log, re.compile("needle"), 0) as search:
        os.write(log.fd, b"needle\n")
        for _ in range(32):
            os.write(log.fd, (b"y" * 1023 + b"\n") * 1024)
        log.trim()
        assert search.look().start() == 0
    log.trim()
    assert log.base > 8 << 20


def test_a_match_is_a_position(log):
    """A match tells where in the log it ends, also behind bytes that are no UTF-8."""
    os.write(log.fd, "gr\u00fcn \u2713\n".encode() + b"\xff\xff\xe2\x82 \xc3\xa4 x=1; x=2\n")
    data = log.read(0, log.end())
    with Search(log, re.compile(r"x=\d"), 0) as search:
        match = search.look()
    assert isinstance(match.string, LogText)
    position = match.string.position(match.end())
    assert data[:position].endswith(b"x=1")
    with Search(log, re.compile(r"x=\d"), position) as search:
        assert search.look().group() == "x=2"


def test_a_log_that_its_service_empties(log):
    """When the service opens its stdout anew and so empties it, positions go on and later text is found."""
    os.write(log.fd, b"before, and longer than what follows\n")
    mark = log.end()
    fd = os.open(f"/proc/self/fd/{log.fd}", os.O_WRONLY | os.O_TRUNC)
    os.write(fd, b"after\n")
    os.close(fd)
    assert log.between(mark) == "after\n"
    assert log.end() == mark + 6
    assert log.text().endswith("after\n")


def test_writing_wakes(log):
    """Who waits for a log is woken by a write, through a file that has no name."""
    with watching(log.fd) as changes:
        poller = select.poll()
        poller.register(changes.fd, select.POLLIN)
        assert poller.poll(0) == []
        os.write(log.fd, b"x")
        assert poller.poll(5000) != []
        changes.take()
        assert poller.poll(0) == []


@pytest.mark.parametrize("wrong", [re.compile(b"x"), 5, None])
def test_what_a_log_is_not_searched_for(wrong):
    """A pattern of bytes, or none at all, is named as what it is."""
    with pytest.raises(UsageError, match="regular expression of str"):
        compiled(wrong)


def test_no_regular_expression():
    """A text that is no regular expression says what is wrong with it."""
    with pytest.raises(UsageError, match=r"'\(' is no regular expression"):
        compiled("(")
