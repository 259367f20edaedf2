"""Many transfers at once, on libcurl's multi interface, with retries, and with an end for what stalls."""

from __future__ import annotations

import heapq
import io
import itertools
import math
import os
import re
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.mirror.errors import MirrorError, NotAllowed, Unreachable
from pytest_poorcontainer.mirror.sources.base import USUAL
from pytest_poorcontainer.mirror.sources.request import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pytest_poorcontainer.mirror.sources.base import Options
    from pytest_poorcontainer.mirror.sources.request import Request

__all__ = ["Transfers", "load_pycurl"]

_LONGEST_WAIT = 60.0
_STEP = 0.2
_BUFFER = 128 << 10  # at most eleven of these come in one turn: all of it fits into a processor's cache
_BATCH = 256 << 10
_HTTP = {
    **dict.fromkeys((421, 429, 503), "busy"),
    **dict.fromkeys((401, 407), "denied"),
    **dict.fromkeys((403, 451), "refused"),
    **dict.fromkeys((404, 410), "gone"),
}
"""Classes of HTTP's replies (RFC 9110 15); what is not named is "broken" from 400 on."""
_FTP = {450: "broken", 550: "gone", 553: "gone"}
"""Classes of FTP's replies (RFC 959 4.2)."""
_FULL_HOUSE = re.compile(rb"530.*\b(?:too many|maximum|limit|later)\b", re.IGNORECASE)
"""A refusal that is of the number of users and not of this one: ProFTPD, wu-ftpd and IIS have no 421 for it."""
_LIMITED = 64 << 10
_DISTANCE, _ANSWERS = 0.005, 32
"""A server is far away if none of so many answers has begun within these seconds after its request."""
_LARGEST_LISTING = 256 << 20  # bytes; libcurl gives up on more, before 8.4 only if the server says so beforehand


def load_pycurl() -> Any:
    """Return the module; raises :class:`MirrorError` with the line that installs it."""
    try:
        import pycurl  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MirrorError(
            f"cannot use pycurl ({error}), which ftp and http sources need: pip install 'pytest-poorcontainer[mirror]'"
        ) from error
    return pycurl


def _remedy(reason: str) -> str:
    """Return what to look at when there is no connection."""
    for word, remedy in (
        ("proxy", "look at the proxy"),
        ("resolve", "is the name right, and does this machine resolve others?"),
        ("TLS", "does the server speak TLS at this port?"),
        ("SSL", "does the server speak TLS at this port?"),
    ):
        if word in reason:
            return remedy
    return "is the address right, and is the server up?"


def _small_buffer(fd: int, purpose: int) -> int:  # noqa: ARG001 - libcurl's arguments
    """Keep the kernel from taking megabytes ahead of a limit on the bandwidth: the link would be full all the same."""
    import socket  # noqa: PLC0415 - for a limit only

    with socket.socket(fileno=os.dup(fd)) as copy:
        copy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _LIMITED)
    return 0


class _Slot:
    """One of the handles, and what it is doing.

    libcurl brings 16 KiB at a time. They go into ``sink`` without a line of Python, which would be most of the work of
    a large file; it stays, since what is freed and asked for again costs a page fault for each page.
    """

    __slots__ = ("alike", "curl", "error", "full", "request", "sink")

    def __init__(self, curl: Any) -> None:
        self.curl = curl
        self.sink = io.BytesIO()
        self.request: Request | None = None
        self.error: BaseException | None = None
        self.full = False
        self.alike = ""

    def drain(self, count: int) -> None:
        """Hand on the bytes that have come. Raises what the request's ``data`` does."""
        request, sink = self.request, self.sink
        sink.seek(0)
        if request is None:
            return
        if request.data is not None and count >= _BATCH:
            with sink.getbuffer() as whole, whole[:count] as view:
                request.data(view)
            return
        data = sink.read(count)
        sink.seek(0)
        if request.data is None:
            request.body.append(data)
        else:
            request.data(data)

    def header(self, line: bytes) -> int:
        """Take a line of a header, or of an FTP dialogue. An exception must not cross C: it is kept, and ends it."""
        try:
            self.full = self.full or _FULL_HOUSE.match(line) is not None
            if self.request is not None and self.request.header is not None and not self.request.header(line):
                return -1
        except BaseException as error:  # noqa: BLE001 - raised again in Transfers.run
            self.error = error
            return -1
        return len(line)


class Transfers:
    """Runs requests, up to ``options.connections`` at a time over as many connections, which it keeps.

    Where those are not said, they are :data:`~..sources.base.USUAL`, and ``far`` once it is known that the server is
    far away: then a connection does little but wait for the next answer to begin.
    """

    def __init__(self, options: Options, setup: Callable[[Any], None], far: int = USUAL) -> None:
        """``setup`` prepares a fresh handle for this kind of server."""
        self._pycurl = load_pycurl()
        self._options = options
        self._setup = setup
        self._multi = self._pycurl.CurlMulti()
        self._came = 0  # bytes that were handed on, over all of them
        self._due = 0.0
        self._slots: list[_Slot] = []
        self._by_handle: dict[Any, _Slot] = {}
        self._free: list[_Slot] = []
        self._provide(options.connections or USUAL)
        self._far = 0 if options.connections or options.bandwidth else far
        self._answers, self._soonest = 0, math.inf
        self._ready: deque[Request] = deque()
        self._later: list[tuple[float, int, Request]] = []
        self._ended: list[tuple[Request, Outcome]] = []
        self._order = itertools.count()
        self.allowed = len(self._slots)
        self.succeeded = 0
        self._debt, self._paid, self._billed = 0.0, time.monotonic(), 0  # what has come too fast
        self._exhausted = False
        self._hung, self._hung_at = 0, -1  # how many have hung since the last byte, and at which that was

    def _provide(self, count: int) -> None:
        """Have so many handles, and as many connections kept."""
        more = [_Slot(self._pycurl.Curl()) for _ in range(count - len(self._slots))]
        self._slots += more
        self._free += more
        self._by_handle.update((slot.curl, slot) for slot in more)
        self._multi.setopt(self._pycurl.M_MAXCONNECTS, count + 2)

    def _look_how_far(self, curl: Any) -> None:
        """Take more connections when none of the first answers has begun soon; decided once, by the soonest of them."""
        begun = curl.getinfo(self._pycurl.STARTTRANSFER_TIME) - curl.getinfo(self._pycurl.PRETRANSFER_TIME)
        self._soonest = min(self._soonest, begun)
        self._answers += 1
        if self._soonest < _DISTANCE:
            self._far = 0
        elif self._answers == _ANSWERS:
            self._options.log(f"the server is {self._soonest * 1000:.0f} ms away: {self._far} connections from now on")
            self._provide(self._far)
            self.allowed, self._far = self._far, 0

    def close(self) -> None:
        """Close all connections. Idempotent."""
        for slot in self._slots:
            if slot.request is not None:
                self._multi.remove_handle(slot.curl)
            slot.request = None
            slot.curl.close()
        self._slots.clear()
        self._by_handle.clear()
        self._multi.close()

    def add(self, request: Request) -> None:
        """Ask for this as soon as a connection is free."""
        self._ready.append(request)

    def run(self, more: Iterable[Request] = ()) -> None:
        """Run what was added and what ``more`` yields, until nothing is left. Requests may be added meanwhile.

        Raises :class:`Unreachable` when the server is lost, :class:`NotAllowed` when it refuses us, and what the
        callbacks raise.
        """
        source = iter(more)
        try:
            while self._start(source):
                self._multi.perform()
                self._conclude()
                self._drain()
                if not self._collect():  # a handle that is free is used at once, not after the next byte of another
                    self._wait()
                if self._options.bandwidth:
                    self._throttle()
                self._options.tick()
        except BaseException:
            self._abort()
            raise

    def _abort(self) -> None:
        for slot in self._slots:
            if slot.request is not None:
                self._multi.remove_handle(slot.curl)
                slot.sink.seek(0)
                slot.request, slot.error = None, None
                self._free.append(slot)
        self._ready.clear()
        self._later.clear()
        self._ended.clear()

    def _start(self, more: Iterator[Request]) -> bool:
        """Give free handles something to do; whether anything is left."""
        now = time.monotonic() if self._later else 0.0
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])
        while self._free and len(self._slots) - len(self._free) < self.allowed:
            request = self._ready.popleft() if self._ready else next(more, None)
            if request is None:
                self._exhausted = True
                break
            self._exhausted = False
            self._begin(self._free.pop(), request)
        return len(self._free) < len(self._slots) or bool(self._ready or self._later or self._ended)

    def _throttle(self) -> None:
        """Wait until what has come is within the bandwidth, which is for all transfers together.

        libcurl limits each of them alone, to all of it: so one has all that the others leave. What it allows cannot be
        changed meanwhile: each change lets it take a second's worth at once.
        """
        came = self._came + sum(slot.sink.tell() for slot in self._slots)
        self._debt, self._billed = self._debt + came - self._billed, came
        while True:
            bandwidth, now = self._options.share() or self._options.bandwidth, time.monotonic()
            saved = _STEP * bandwidth  # at most, of what was not used a moment ago
            self._debt, self._paid = max(-saved, self._debt - (now - self._paid) * bandwidth), now
            if self._debt <= 0:
                return
            time.sleep(min(self._debt / bandwidth, _STEP))
            self._options.tick()

    def _begin(self, slot: _Slot, request: Request) -> None:
        if request.attempts:
            request.body.clear()
            if request.again is not None:
                request.again()
        request.attempts += 1
        request.seen = self.succeeded + self._came
        slot.request = request
        slot.error, slot.full = None, False
        last = request.attempts > 1 and request.attempts > self._options.retries
        fresh = last or request.stale
        alike = "" if fresh else request.alike
        if not alike or alike != slot.alike:
            slot.curl.reset()
            self._prepare(slot)
            if request.data is None:
                slot.curl.setopt(self._pycurl.MAXFILESIZE_LARGE, _LARGEST_LISTING)
            if fresh:  # a connection that was kept tells little about the server
                slot.curl.setopt(self._pycurl.FRESH_CONNECT, 1)
            if request.header is not None or not self.succeeded:
                slot.curl.setopt(self._pycurl.HEADERFUNCTION, slot.header)
            if request.arrange is not None:
                request.arrange(slot.curl)
        slot.alike = alike
        slot.curl.setopt(self._pycurl.URL, request.url)
        self._multi.add_handle(slot.curl)

    def _prepare(self, slot: _Slot) -> None:
        curl, pycurl, options = slot.curl, self._pycurl, self._options
        curl.setopt(pycurl.WRITEFUNCTION, slot.sink.write)
        curl.setopt(pycurl.BUFFERSIZE, _BUFFER)
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(options.connect * 1000))
        curl.setopt(pycurl.LOW_SPEED_LIMIT, max(1, options.min_rate))
        curl.setopt(pycurl.LOW_SPEED_TIME, max(1, round(options.idle)))
        if options.bandwidth:
            curl.setopt(pycurl.MAX_RECV_SPEED_LARGE, options.bandwidth)
            curl.setopt(pycurl.SOCKOPTFUNCTION, _small_buffer)
        if options.ip:
            version = pycurl.IPRESOLVE_V4 if options.ip == 4 else pycurl.IPRESOLVE_V6  # noqa: PLR2004 - of IP
            curl.setopt(pycurl.IPRESOLVE, version)
        if options.proxy:
            curl.setopt(pycurl.PROXY, options.proxy)
        if options.user:
            curl.setopt(pycurl.USERNAME, options.user)
            curl.setopt(pycurl.PASSWORD, options.password)
        elif options.netrc:
            curl.setopt(pycurl.NETRC, pycurl.NETRC_REQUIRED)
            curl.setopt(pycurl.NETRC_FILE, options.netrc)
        if options.ca:
            curl.setopt(pycurl.CAINFO, options.ca)
        if options.insecure:
            curl.setopt(pycurl.SSL_VERIFYPEER, 0)
            curl.setopt(pycurl.SSL_VERIFYHOST, 0)
        self._setup(curl)

    def _conclude(self) -> None:
        """Tell of what has ended, now that its successors are under way: to publish a file takes a while."""
        ended, self._ended = self._ended, []
        for request, outcome in ended:
            request.finished(request, outcome)

    def _drain(self) -> None:
        """Hand on what has come, where it is worth a call, or has waited for long."""
        least, now = _BATCH, time.monotonic()
        if now >= self._due:
            least, self._due = 1, now + _STEP
        for slot in self._slots:
            count = slot.sink.tell()
            if count >= least:
                self._came += count
                slot.drain(count)

    def _collect(self) -> bool:
        """Free the handles of what has ended; whether anything has."""
        left, found = 1, False
        while left:
            left, good, bad = self._multi.info_read()
            found = found or bool(good or bad)
            for curl in good:
                if self._far:
                    self._look_how_far(curl)
                self._finish(self._by_handle[curl], 0, "")
            for curl, number, text in bad:
                self._finish(self._by_handle[curl], number, text)
        return found

    def _finish(self, slot: _Slot, number: int, text: str) -> None:
        curl, request = slot.curl, slot.request
        self._multi.remove_handle(curl)
        count = slot.sink.tell()
        if count:
            self._came += count
            slot.drain(count)
        slot.request = None
        self._free.append(slot)
        if slot.error is not None:
            raise slot.error
        if request is None:
            return
        code = curl.getinfo(self._pycurl.RESPONSE_CODE)
        stamp = curl.getinfo(self._pycurl.INFO_FILETIME)
        mtime = stamp if stamp >= 0 else None
        if number == 0 and code < 400 and request.data is not None:  # noqa: PLR2004 - as in _judge; nearly all files
            self.succeeded += 1
            self._ended.append((request, Outcome("ok", code, "", mtime, "")))
            return
        if number and (told := curl.getinfo(self._pycurl.HTTP_CONNECTCODE)) >= 400:  # noqa: PLR2004 - HTTP's errors
            code, kind = told, "denied" if told == 407 else "lost"  # noqa: PLR2004 - RFC 9110: the proxy refuses us
            text = f"the proxy answers {code}"
        else:
            kind = self._judge(number, code, full=slot.full)
        if kind in {"ok", "gone"}:
            self.succeeded += 1
        outcome = Outcome(kind, code, text or f"the server answers {code}", mtime, "")
        if request.data is None:
            outcome.url = curl.getinfo(self._pycurl.EFFECTIVE_URL)
        if kind in {"lost", "cut", "busy", "broken"} and (
            self._kept(request, outcome, curl) or self._again(request, outcome, curl)
        ):
            return
        if kind == "denied" and not self.succeeded:
            raise NotAllowed(f"the source refuses us: {outcome.reason}; look at user, password and certificate")
        self._ended.append((request, outcome))

    def _judge(self, number: int, code: int, *, full: bool) -> str:
        """Return the class of an outcome from libcurl's number and the server's reply."""
        if number == 0 and code < 400:  # noqa: PLR2004 - HTTP's errors; FTP's leave a number
            return "ok"
        pycurl = self._pycurl
        if number in {0, pycurl.E_HTTP_RETURNED_ERROR}:
            return _HTTP.get(code, "broken" if code >= 400 else "ok")  # noqa: PLR2004 - HTTP's errors
        if number == pycurl.E_LOGIN_DENIED or code in {421, 430}:
            return "busy" if self.succeeded or full or code == 421 else "denied"  # noqa: PLR2004 - RFC 959: not available
        if number in {pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_CACERT_BADFILE, pycurl.E_SSL_ISSUER_ERROR}:
            return "denied"
        if number in {pycurl.E_PARTIAL_FILE, pycurl.E_RECV_ERROR, pycurl.E_GOT_NOTHING, pycurl.E_SEND_ERROR}:
            return "cut"
        if code in _FTP or number == pycurl.E_REMOTE_FILE_NOT_FOUND:
            return _FTP.get(code, "gone")
        if number in {
            pycurl.E_REMOTE_ACCESS_DENIED, pycurl.E_FTP_COULDNT_RETR_FILE, pycurl.E_QUOTE_ERROR,
            pycurl.E_FILESIZE_EXCEEDED, pycurl.E_TOO_MANY_REDIRECTS, pycurl.E_UNSUPPORTED_PROTOCOL,
        }:  # fmt: skip
            return "refused"
        return "lost"

    def _kept(self, request: Request, outcome: Outcome, curl: Any) -> bool:
        """Ask at once anew where a connection that was kept has been closed behind our back: that was no attempt."""
        if outcome.kind != "cut" or outcome.code or request.stale or curl.getinfo(self._pycurl.NUM_CONNECTS):
            return False
        request.stale = True
        request.attempts -= 1
        self._ready.appendleft(request)
        return True

    def _again(self, request: Request, outcome: Outcome, curl: Any) -> bool:
        """Ask once more later, if there is an attempt left. Raises :class:`Unreachable` when nothing came meanwhile.

        A server that has taken a new connection for this attempt, and has answered before, is there: it is this one
        file or directory that hangs; until that is so of more than it serves at once.
        """
        busy = outcome.kind == "busy"
        if busy and self.allowed > 1:
            self.allowed -= 1
            self._far = 0
            self._options.log(f"the server is busy ({outcome.reason}): {self.allowed} connections from now on")
            request.attempts -= 1
        if request.attempts > self._options.retries:
            if outcome.kind in {"lost", "cut"} and self._moved() == request.seen:
                self._hung = self._hung + 1 if self._hung_at == request.seen else 1
                self._hung_at = request.seen
                met = curl.getinfo(self._pycurl.NUM_CONNECTS) > 0 and curl.getinfo(self._pycurl.CONNECT_TIME) > 0
                if met and self.succeeded and self._hung <= len(self._slots):
                    return False
                often = "once" if request.attempts == 1 else f"{request.attempts} times"
                server = "/".join(request.url.split("/")[:3])
                said = f"{server}: {outcome.reason} (asked {often})"
                raise Unreachable(f"the source cannot be reached: {said}; {_remedy(outcome.reason)}")
            return False
        import random  # noqa: PLC0415 - for failures

        wait = self._options.backoff * 2 ** max(0, request.attempts - 1) * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
        heapq.heappush(self._later, (time.monotonic() + min(wait, _LONGEST_WAIT), next(self._order), request))
        return True

    def _moved(self) -> int:
        """Return a number that grows whenever anything comes from the server."""
        return self.succeeded + self._came + sum(slot.sink.tell() for slot in self._slots)

    def _wait(self) -> None:
        active = len(self._slots) - len(self._free)
        timer = self._multi.timeout()  # milliseconds after which libcurl wants to be called in any case; -1: none
        limit = min(_STEP, timer / 1000) if timer >= 0 else _STEP
        if self._later:
            limit = min(limit, max(0.0, self._later[0][0] - time.monotonic()))
        if not active:
            if self._exhausted and not self._ready:
                time.sleep(limit if self._later else 0)
            return
        if self._multi.select(limit) < 0:
            time.sleep(0.002)  # libcurl has nothing to wait for yet: it resolves a name
