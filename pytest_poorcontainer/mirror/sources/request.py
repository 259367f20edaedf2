"""What is asked of a server, and how that ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Outcome", "Request"]


class Request:
    """One thing to ask for. ``arrange`` sets a handle up; bytes go to ``data``, the end of it to ``finished``."""

    __slots__ = (
        "again", "alike", "arrange", "attempts", "body", "data", "finished", "header", "seen", "stale", "tag", "url"
    )  # fmt: skip

    def __init__(
        self,
        url: str,
        finished: Callable[[Request, Outcome], None],
        data: Callable[[bytes | memoryview], None] | None = None,
        arrange: Callable[[Any], None] | None = None,
        header: Callable[[bytes], bool] | None = None,
        again: Callable[[], None] | None = None,
        tag: Any = None,
        alike: str = "",
    ) -> None:
        """Without ``data`` the bytes are collected in ``body``; ``again`` is called before each further attempt.

        ``header`` takes the lines of a header or an FTP dialogue, and returns whether to go on. Requests that say the
        same in ``alike`` differ in their URLs alone, so that a handle need be set up for the first of them only.
        """
        self.url = url
        self.finished = finished
        self.body: list[bytes] = []
        self.data = data
        self.arrange = arrange
        self.header = header
        self.again = again
        self.tag = tag
        self.alike = alike
        self.attempts = 0
        self.seen = 0
        self.stale = False  # its last attempt was over a connection that had been closed meanwhile


class Outcome:
    """How a transfer ended: ``kind`` is "ok", "lost", "cut", "gone", "busy", "denied", "refused" or "broken"."""

    __slots__ = ("code", "kind", "mtime", "reason", "url")

    def __init__(self, kind: str, code: int, reason: str, mtime: float | None, url: str) -> None:
        """``code`` is the server's last reply; ``mtime`` what it says the file's time is."""
        self.kind = kind
        self.code = code
        self.reason = reason
        self.mtime = mtime
        self.url = url
