"""What sources on libcurl have in common: the walk, the fetching, the offset of the server's clock."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from pytest_poorcontainer.mirror.entries import FILE, UNRECOGNISED, Listing
from pytest_poorcontainer.mirror.errors import BadConfig, SourceError
from pytest_poorcontainer.mirror.plan import printable
from pytest_poorcontainer.mirror.sources.base import USUAL, check_family, check_netrc
from pytest_poorcontainer.mirror.sources.request import Outcome, Request
from pytest_poorcontainer.mirror.sources.transfers import Transfers, load_pycurl
from pytest_poorcontainer.mirror.staging import LARGE, Failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_poorcontainer.mirror.entries import Entry
    from pytest_poorcontainer.mirror.plan import Want
    from pytest_poorcontainer.mirror.planner import Planner
    from pytest_poorcontainer.mirror.rules import Rules
    from pytest_poorcontainer.mirror.sources.base import Options, Visitor
    from pytest_poorcontainer.mirror.staging import Incoming, Stage
    from pytest_poorcontainer.mirror.tree import Tree

__all__ = ["CurlSource", "without_credentials"]

_QUARTER = 900  # seconds: zones differ from UTC by multiples of it
_ASKED = 3  # files whose exact time tells the server's zone
_SAFE = "/~-._!$&'()*+,;=:@"
_PLAIN = re.compile(r"[A-Za-z0-9/~._+-]*")  # what need not be quoted, as most paths


def without_credentials(url: str) -> str:
    """Return a URL without user and password, for everything that somebody may read."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


class CurlSource:
    """A tree on a server, told by its URL."""

    protocol = ""
    _far = USUAL

    def __init__(self, url: str, options: Options) -> None:
        """Check the URL, and connect to nothing yet. Raises :class:`BadConfig`."""
        parts = urlsplit(url)
        if not parts.hostname:
            raise BadConfig(f'the source "{without_credentials(url)}" has no host: write {parts.scheme}://HOST/PATH/')
        check_family(parts.hostname, options.ip)
        options.netrc = check_netrc(options.netrc)
        if parts.username and not options.user:
            options.user, options.password = unquote(parts.username), unquote(parts.password or "")
        path = parts.path if parts.path.endswith("/") else parts.path + "/"
        self.protocol = parts.scheme
        self.url = without_credentials(urlunsplit((parts.scheme, parts.netloc, path, "", "")))
        self._options = options
        self._pycurl = load_pycurl()
        self._transfers = Transfers(options, self._set_up, self._far)
        self._visitor: Visitor | None = None
        self._offset: float | None = None
        self._held: list[tuple[str, Listing]] = []
        self._asking = 0
        self._samples: list[float] = []

    def close(self) -> None:
        """Close all connections. Idempotent."""
        self._transfers.close()

    def _set_up(self, curl: Any) -> None:
        """Prepare a handle for this protocol."""
        raise NotImplementedError

    def _list(self, path: str) -> Request:
        """Return the request for a directory; what it brings goes to :meth:`_listed`."""
        raise NotImplementedError

    def _parse(self, request: Request, outcome: Outcome) -> Listing:
        """Return what a directory's page says."""
        raise NotImplementedError

    def _large(self, want: Want, stage: Stage) -> Request:
        """Return the request for a large file, which goes on where an earlier one has ended."""
        raise NotImplementedError

    def _ask(self, want: Want, stage: Stage) -> Request:
        """Return the request for a file that may be the one that we have."""
        raise NotImplementedError

    def _clock(self, path: str, entry: Entry) -> Request:
        """Return a request for a file's exact time."""
        raise NotImplementedError

    def _to(self, path: str) -> str:
        if _PLAIN.fullmatch(path):
            return self.url + path
        return self.url + quote(os.fsencode(path), safe=_SAFE)

    # -- listing

    def survey(self, planner: Planner, tree: Tree, rules: Rules) -> None:  # noqa: ARG002 - other sources need them
        """List all of it, over as many connections as there are."""
        self._walk(planner, [""])
        planner.plan.facts.update(self._facts())

    def _facts(self) -> dict[str, Any]:
        return {"offset": self._offset or 0, "dialect": self._options.memory.get("dialect", "")}

    def relist(self, directories: Iterable[str]) -> Mapping[str, Listing | None]:
        """List these directories once more."""
        found: dict[str, Listing | None] = {}

        class Once:
            def found(self, path: str, listing: Listing) -> list[str]:
                found[path] = listing
                return []

            def failed(self, path: str, reason: str) -> None:  # noqa: ARG002 - that it failed is enough
                found[path] = None

        self._walk(Once(), sorted(directories))
        return found

    def _walk(self, visitor: Visitor, paths: list[str]) -> None:
        self._visitor = visitor
        for path in paths:
            self._transfers.add(self._list(path))
        self._transfers.run()
        self._visitor = None

    def _listed(self, request: Request, outcome: Outcome) -> None:
        """Take the answer for a directory."""
        path = request.tag
        if outcome.kind != "ok":
            self._unlisted(path, outcome.reason)
            return
        listing = self._parse(request, outcome)
        request.body.clear()
        if listing.state == UNRECOGNISED:
            self._unlisted(path, "; ".join(listing.notes[:3]) or "what came is no listing")
            return
        self._options.memory["dialect"] = listing.dialect or self._options.memory.get("dialect", "")
        if self._offset is None and self._find_offset(path, listing):
            return
        self._report(path, listing)

    def _unlisted(self, path: str, reason: str) -> None:
        if not path:
            raise SourceError(
                f"cannot list {self.url}: {printable(reason)}; is it a directory that the server lists? "
                "Nothing was changed"
            )
        self._options.log(f"cannot list {printable(path)}: {printable(reason)}")
        if self._visitor is not None:
            self._visitor.failed(path, reason)

    def _report(self, path: str, listing: Listing) -> None:
        if self._offset:
            listing.entries = [
                entry._replace(mtime=entry.mtime - self._offset) if entry.local and entry.mtime is not None else entry
                for entry in listing.entries
            ]
        if self._visitor is not None:
            for below in self._visitor.found(path, listing):
                self._transfers.add(self._list(below))

    def _find_offset(self, path: str, listing: Listing) -> bool:
        """Ask for the exact times of some files; whether the listing has to wait for the answers."""
        if self._asking:
            self._held.append((path, listing))
            return True
        local = [
            one for one in listing.entries if one.local and one.kind == FILE and one.mtime is not None and not one.vague
        ]
        if not local:
            return False
        self._held.append((path, listing))
        for entry in sorted(local, key=lambda one: one.precision)[:_ASKED]:
            self._asking += 1
            self._transfers.add(self._clock(f"{path}/{entry.name}" if path else entry.name, entry))
        return True

    def _clocked(self, request: Request, outcome: Outcome) -> None:
        """Take the exact time of a file; with the last one, go on with the listings that wait."""
        self._asking -= 1
        entry: Entry = request.tag
        if outcome.kind == "ok" and outcome.mtime is not None and entry.mtime is not None:
            ahead = entry.mtime - outcome.mtime
            offset = round((ahead + entry.precision / 2) / _QUARTER) * _QUARTER
            if entry.precision < _QUARTER and -entry.precision <= ahead - offset <= 1:
                self._samples.append(offset)
        if self._asking:
            return
        agreed = len(set(self._samples)) == 1
        self._offset = self._options.memory["offset"] = self._samples[0] if agreed else 0.0
        if self._offset:
            self._options.log(f"the server's listings are {self._offset / 3600:+g} h from UTC")
        held, self._held = self._held, []
        for path, listing in held:
            self._report(path, listing)

    # -- fetching

    def fetch(self, wants: Iterable[Want], stage: Stage) -> None:
        """Deliver these files to the stage, smaller and larger ones mixed as they come."""
        self._transfers.run(self._requests(wants, stage))

    def _requests(self, wants: Iterable[Want], stage: Stage) -> Iterator[Request]:
        def arrived(request: Request, outcome: Outcome) -> None:
            incoming: Incoming = request.tag
            self._arrived(incoming.want, incoming, outcome, stage)

        for want in wants:
            if want.ask is not None:
                yield self._ask(want, stage)
            elif want.size is None or want.size >= LARGE:
                yield self._large(want, stage)
            else:
                incoming = stage.incoming(want)
                url, again = self._to(want.path), incoming.restart
                yield Request(url, arrived, incoming.data, again=again, tag=incoming, alike="file")

    def _arrived(self, want: Want, incoming: Incoming, outcome: Outcome, stage: Stage) -> None:
        try:
            if outcome.kind != "ok":
                incoming.close(keep=outcome.kind in {"cut", "lost", "busy"})
                raise Failure(outcome.kind, outcome.reason)  # noqa: TRY301 - as what arrived raises
            stage.arrived(incoming, outcome.mtime)
        except Failure as failure:
            self._options.log(f"{printable(want.path)}: {failure}")
            stage.failed(want, failure)
