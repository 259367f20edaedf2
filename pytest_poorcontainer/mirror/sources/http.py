"""``http://`` and ``https://``: directories as pages, read by the parsers of ``listings``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes, urlsplit

from pytest_poorcontainer.mirror.errors import SourceError
from pytest_poorcontainer.mirror.sources.base import FAR
from pytest_poorcontainer.mirror.sources.curl import CurlSource
from pytest_poorcontainer.mirror.sources.request import Outcome, Request

if TYPE_CHECKING:
    from pytest_poorcontainer.mirror.entries import Entry, Listing
    from pytest_poorcontainer.mirror.plan import Want
    from pytest_poorcontainer.mirror.sources.base import Options, Source
    from pytest_poorcontainer.mirror.staging import Incoming, Stage

__all__ = ["HttpSource", "open_url"]

_ACCEPT = ["Accept: application/json, text/html;q=0.9, */*;q=0.1"]
_OK, _PARTIAL, _SAME, _BEYOND = 200, 206, 304, 416
_AGENT = "poor-mirror (pytest-poorcontainer)"


def open_url(url: str, options: Options) -> Source:
    """Return the source of a URL; raises :class:`~pytest_poorcontainer.mirror.errors.BadConfig`."""
    return HttpSource(url, options)


class HttpSource(CurlSource):
    """A tree that a web server shows as pages."""

    _far = FAR  # FTP servers count the sessions of an address more strictly

    def _set_up(self, curl: Any) -> None:
        pycurl = self._pycurl
        curl.setopt(pycurl.FOLLOWLOCATION, 1)
        curl.setopt(pycurl.MAXREDIRS, 5)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.REDIR_PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.FAILONERROR, 1)
        curl.setopt(pycurl.OPT_FILETIME, 1)
        curl.setopt(pycurl.USERAGENT, _AGENT)

    def _list(self, path: str) -> Request:
        url = self._to(path) + "/" if path else self.url

        def arrange(curl: Any) -> None:
            curl.setopt(self._pycurl.HTTPHEADER, _ACCEPT)

        return Request(url, self._listed, arrange=arrange, tag=path, alike="list")

    def _parse(self, request: Request, outcome: Outcome) -> Listing:
        body = b"".join(request.body)
        if body.lstrip()[:1] == b"[" or body.strip() == b"null":
            from pytest_poorcontainer.mirror.listings.jsons import parse_json  # noqa: PLC0415 - few servers write it

            return parse_json(body)
        from pytest_poorcontainer.mirror.listings.html import parse_html  # noqa: PLC0415 - not with a manifest

        return parse_html(body, unquote_to_bytes(urlsplit(outcome.url).path))

    def _clock(self, path: str, entry: Entry) -> Request:
        def arrange(curl: Any) -> None:
            curl.setopt(self._pycurl.NOBODY, 1)

        return Request(self._to(path), self._clocked, arrange=arrange, tag=entry)

    def _ask(self, want: Want, stage: Stage) -> Request:
        """Ask with If-Modified-Since (RFC 9110 13.1.3)."""
        import email.utils  # noqa: PLC0415 - where times are rough

        incoming = stage.incoming(want)
        since = email.utils.formatdate(int(want.ask or 0), usegmt=True)

        def arrange(curl: Any) -> None:
            curl.setopt(self._pycurl.HTTPHEADER, [f"If-Modified-Since: {since}"])

        def finished(_: Request, outcome: Outcome) -> None:
            if outcome.kind == "ok" and outcome.code == _SAME:
                stage.unchanged(want)
            else:
                self._arrived(want, incoming, outcome, stage)

        return Request(self._to(want.path), finished, incoming.data, arrange, again=incoming.restart)

    def _large(self, want: Want, stage: Stage) -> Request:
        """Ask for the rest, if the file is still the same (If-Range, RFC 9110 13.1.5)."""
        incoming = stage.incoming(want)
        resuming = _Resuming(incoming)

        def arrange(curl: Any) -> None:
            place, validator = resuming.begin()
            if place and validator:
                curl.setopt(self._pycurl.RANGE, f"{place}-")
                curl.setopt(self._pycurl.HTTPHEADER, [f"If-Range: {validator}"])

        def finished(request: Request, outcome: Outcome) -> None:
            if outcome.code == _BEYOND and request.attempts <= self._options.retries:
                resuming.forget()
                self._transfers.add(request)
            else:
                self._arrived(want, incoming, outcome, stage)

        return Request(self._to(want.path), finished, incoming.data, arrange, resuming.header)

    def read(self, path: str, most: int, known: str = "") -> tuple[bytes | None, str]:
        """Return a small file, if its ETag or date is not ``known``."""
        answer: list[Outcome] = []
        seen = {"etag": "", "last-modified": ""}

        def header(line: bytes) -> bool:
            name, _, value = line.decode("latin-1").partition(":")
            if name.lower() in seen:
                seen[name.lower()] = value.strip()
            return True

        def arrange(curl: Any) -> None:
            curl.setopt(self._pycurl.MAXFILESIZE_LARGE, most)
            if known:
                condition = "If-None-Match" if known.startswith(('"', "W/")) else "If-Modified-Since"
                curl.setopt(self._pycurl.HTTPHEADER, [f"{condition}: {known}"])

        request = Request(self._to(path), lambda _, outcome: answer.append(outcome), None, arrange, header)
        self._transfers.add(request)
        self._transfers.run()
        outcome = answer[0]
        if outcome.kind == "gone":
            raise FileNotFoundError(path)
        if outcome.kind != "ok":
            raise SourceError(f"cannot read {self._to(path)}: {outcome.reason}")
        return (None if outcome.code == _SAME else b"".join(request.body)), seen["etag"] or seen["last-modified"]


class _Resuming:
    """Reads the headers of a large file's answer, and decides whether its bytes continue what is there."""

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming
        self._begun = False
        self._place = 0
        self._validator = ""
        self._status = 0
        self._seen: dict[str, str] = {}

    def begin(self) -> tuple[int, str]:
        """Return (bytes that are there, validator) for the next attempt."""
        if not self._begun:
            self._begun = True
            _, self._validator = self._incoming.resume()
        if not self._validator:
            self._incoming.restart()
        self._place = self._incoming.size
        return self._place, self._validator

    def forget(self) -> None:
        """Begin anew next time."""
        self._validator = ""

    def header(self, line: bytes) -> bool:
        """Take one line of the header; whether the answer is one to go on with."""
        text = line.decode("latin-1").strip()
        if text.startswith("HTTP/"):
            code = text.split(" ")[1] if " " in text else ""
            self._status = int(code) if code.isdigit() else 0
            self._seen.clear()
        elif text:
            name, _, value = text.partition(":")
            self._seen[name.lower()] = value.strip()
        else:
            return self._complete()
        return True

    def _complete(self) -> bool:
        if self._status == _PARTIAL and self._place:
            if not self._seen.get("content-range", "").startswith(f"bytes {self._place}-"):
                self.forget()  # another range than the one that was asked for
                return False
        elif self._status == _OK:
            if self._place:
                self._incoming.restart()
            etag = self._seen.get("etag", "")
            self._validator = etag if etag.startswith('"') else self._seen.get("last-modified", "")
            if self._validator:
                self._incoming.validator(self._validator)
        return True
