"""``ftp://`` and ``ftps://``: MLSD where the server has it, else LIST."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.mirror.errors import SourceError
from pytest_poorcontainer.mirror.listings.ftp import parse_list, parse_mlsd
from pytest_poorcontainer.mirror.sources.curl import CurlSource
from pytest_poorcontainer.mirror.sources.request import Outcome, Request

if TYPE_CHECKING:
    from pytest_poorcontainer.mirror.entries import Entry, Listing
    from pytest_poorcontainer.mirror.plan import Want
    from pytest_poorcontainer.mirror.sources.base import Options, Source
    from pytest_poorcontainer.mirror.staging import Stage

__all__ = ["FtpSource", "open_url"]

_COMMANDS = ("MLSD", "LIST -a", "LIST")
_UNKNOWN = {500, 501, 502, 504}  # RFC 959: no such command, or not with these arguments
_DONE = {226, 250}


def open_url(url: str, options: Options) -> Source:
    """Return the source of a URL; raises :class:`~pytest_poorcontainer.mirror.errors.BadConfig`."""
    return FtpSource(url, options)


class FtpSource(CurlSource):
    """A tree on an FTP server. How it lists is remembered for the next run."""

    def __init__(self, url: str, options: Options) -> None:
        """See :class:`CurlSource`."""
        super().__init__(url, options)
        known = options.memory.get("command", "")
        self._commands = list(_COMMANDS[_COMMANDS.index(known) :] if known in _COMMANDS else _COMMANDS)

    @property
    def _command(self) -> str:
        return self._commands[0]

    def _set_up(self, curl: Any) -> None:
        pycurl = self._pycurl
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_FTP | pycurl.PROTO_FTPS)
        curl.setopt(pycurl.FTP_FILEMETHOD, pycurl.FTPMETHOD_NOCWD)
        # Each data connection puts its port into libcurl's cache of addresses, and each looks through all of them for
        # what is too old: after 10,000 files that is a third of all that is done.
        curl.setopt(pycurl.DNS_CACHE_TIMEOUT, 0)
        # A proxy, the environment's too, has to carry FTP itself: else libcurl asks it for pages about the directories.
        curl.setopt(pycurl.HTTPPROXYTUNNEL, 1)
        curl.setopt(pycurl.FTP_RESPONSE_TIMEOUT, max(1, round(self._options.idle)))
        if self._command == "MLSD":
            # The listing has told size and time: no SIZE and no MDTM, two more round trips for each file.
            curl.setopt(pycurl.IGNORE_CONTENT_LENGTH, 1)
        else:
            curl.setopt(pycurl.OPT_FILETIME, 1)
        if self._options.tls and self.protocol == "ftp":
            curl.setopt(pycurl.USE_SSL, pycurl.USESSL_ALL)

    def _list(self, path: str) -> Request:
        command = self._command

        def arrange(curl: Any) -> None:
            curl.setopt(self._pycurl.CUSTOMREQUEST, command)
            curl.setopt(self._pycurl.OPT_FILETIME, 0)
            if command != "MLSD":  # ls would take a path apart: spaces, wildcards, a leading dash
                curl.setopt(self._pycurl.FTP_FILEMETHOD, self._pycurl.FTPMETHOD_SINGLECWD)

        url = self._to(path) + "/" if path else self.url
        return Request(url, self._listed, arrange=arrange, tag=path, alike=command)

    def _listed(self, request: Request, outcome: Outcome) -> None:
        asked, last = request.alike, self._commands[-1]
        if outcome.code in _UNKNOWN and asked != last:
            if asked == self._command:  # else another one has found it out meanwhile
                self._commands.pop(0)
                self._options.log(f"the server knows no {asked}: {self._command} from now on")
                self._options.memory["command"] = self._command
            self._transfers.add(self._list(request.tag))
            return
        if outcome.kind == "ok" and outcome.code not in _DONE:
            outcome.kind = "broken"  # libcurl takes "450 no files" for an empty directory
        super()._listed(request, outcome)

    def _parse(self, request: Request, outcome: Outcome) -> Listing:  # noqa: ARG002 - HTTP needs it
        body = b"".join(request.body)
        return parse_mlsd(body) if request.alike == "MLSD" else parse_list(body)

    def _clock(self, path: str, entry: Entry) -> Request:
        def arrange(curl: Any) -> None:
            curl.setopt(self._pycurl.NOBODY, 1)
            curl.setopt(self._pycurl.OPT_FILETIME, 1)

        return Request(self._to(path), self._clocked, arrange=arrange, tag=entry)

    def _ask(self, want: Want, stage: Stage) -> Request:
        """Ask with MDTM; the file is fetched if its time is another."""

        def arrange(curl: Any) -> None:
            curl.setopt(self._pycurl.NOBODY, 1)
            curl.setopt(self._pycurl.OPT_FILETIME, 1)

        def finished(_: Request, outcome: Outcome) -> None:
            if outcome.kind == "ok" and outcome.mtime is not None and int(outcome.mtime) == int(want.ask or 0):
                stage.unchanged(want)
            else:
                exact = want._replace(ask=None, mtime=outcome.mtime or want.mtime)
                for request in self._requests([exact], stage):
                    self._transfers.add(request)

        return Request(self._to(want.path), finished, arrange=arrange)

    def _large(self, want: Want, stage: Stage) -> Request:
        """Go on with REST where an earlier attempt has ended: size and time of the listing say that it is the same."""
        incoming = stage.incoming(want)
        state = {"attempt": 0}

        def arrange(curl: Any) -> None:
            state["attempt"] += 1
            if state["attempt"] == 1 and want.precision <= 1:
                incoming.resume()
            elif state["attempt"] % 3 == 0:
                incoming.restart()  # a server that cannot do REST, or does it wrong
            if incoming.size:
                curl.setopt(self._pycurl.IGNORE_CONTENT_LENGTH, 0)
                curl.setopt(self._pycurl.RESUME_FROM_LARGE, incoming.size)

        def finished(_: Request, outcome: Outcome) -> None:
            self._arrived(want, incoming, outcome, stage)

        return Request(self._to(want.path), finished, incoming.data, arrange)

    def read(self, path: str, most: int, known: str = "") -> tuple[bytes | None, str]:
        """Return a small file, if its size and MDTM are not the known ones."""
        answer: list[Outcome] = []
        found: list[str] = []

        def finished(_: Request, outcome: Outcome) -> None:
            answer.append(outcome)

        def asked(curl: Any) -> None:
            curl.setopt(self._pycurl.NOBODY, 1)
            curl.setopt(self._pycurl.OPT_FILETIME, 1)
            curl.setopt(self._pycurl.IGNORE_CONTENT_LENGTH, 0)

        def limited(curl: Any) -> None:
            curl.setopt(self._pycurl.MAXFILESIZE_LARGE, most)

        def header(line: bytes) -> bool:
            found.append(line.decode("latin-1").strip())
            return True

        self._transfers.add(Request(self._to(path), finished, None, asked, header))
        self._transfers.run()
        if answer[0].kind != "ok" or answer[0].mtime is None:
            raise FileNotFoundError(path)
        size = next((line[4:] for line in reversed(found) if line.startswith("213 ") and len(line) < 18), "")  # noqa: PLR2004 - MDTM's has 18
        validator = f"{answer[0].mtime:.0f} {size}"
        if validator == known:
            return None, validator
        request = Request(self._to(path), finished, None, limited)
        self._transfers.add(request)
        self._transfers.run()
        if answer[1].kind != "ok":
            raise SourceError(f"cannot read {self._to(path)}: {answer[1].reason}")
        return b"".join(request.body), validator
