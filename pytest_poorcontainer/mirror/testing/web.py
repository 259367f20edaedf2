"""A web server for tests: directories as nginx, Apache, lighttpd, Caddy or Python show them, ranges, conditions."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import html
import json
import os
import re
import socket
import socketserver
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_poorcontainer.mirror.testing.serving import Item, Served

__all__ = ["DIALECTS", "WebServer"]

_LOGIN = b"<html><head><title>Please log in</title></head><body><h1>Log in</h1><a href='/login'>here</a></body></html>"


def _link(item: Item) -> str:
    return quote(os.fsencode(item.name), safe="/~-._") + ("/" if item.kind == "d" else "")


def _shown(item: Item, width: int = 50) -> str:
    name = os.fsencode(item.name).decode("utf-8", "replace") + ("/" if item.kind == "d" else "")
    return html.escape(name if len(name) <= width else name[: width - 3] + "..>")


def _when(form: str, item: Item) -> str:
    return time.strftime(form, time.gmtime(item.mtime))


def nginx(path: str, items: list[Item]) -> bytes:
    """Write ``autoindex on``."""
    rows = "".join(
        f'<a href="{_link(item)}">{_shown(item)}</a> {_when("%d-%b-%Y %H:%M", item):>40} '
        f"{'-' if item.kind == 'd' else item.size:>19}\r\n"
        for item in items
    )
    title = html.escape(path)
    return (
        f"<html>\r\n<head><title>Index of {title}</title></head>\r\n<body>\r\n<h1>Index of {title}</h1><hr><pre>"
        f'<a href="../">../</a>\r\n{rows}</pre><hr></body>\r\n</html>\r\n'
    ).encode("utf-8", "replace")


def nginx_json(path: str, items: list[Item]) -> bytes:  # noqa: ARG001 - as the others
    """Write ``autoindex_format json``: what JSON has to have escaped is (ngx_escape_json), and all else raw bytes."""
    rows = []
    for item in items:
        raw = os.fsencode(item.name).replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        name = b'"' + re.sub(rb"[\0-\x1f]", lambda found: b"\\u%04x" % ord(found[0]), raw) + b'"'
        kind = b"directory" if item.kind == "d" else b"file"
        size = b"" if item.kind == "d" else b', "size":%d' % item.size
        when = _when("%a, %d %b %Y %H:%M:%S GMT", item).encode()
        rows.append(b'{ "name":%s, "type":"%s", "mtime":"%s"%s }' % (name, kind, when, size))
    return b"[\n" + b",\n".join(rows) + b"\n]"


def _rounded(size: int) -> str:
    """Return a size as Apache's %pS-like format has it."""
    if size < 1024:  # noqa: PLR2004 - a KiB
        return str(size)
    value = float(size)
    for unit in "KMGT":
        value /= 1024
        if value < 1024:  # noqa: PLR2004 - the next unit
            return f"{value:.1f}{unit}" if value < 9.95 else f"{value:.0f}{unit}"  # noqa: PLR2004 - two digits
    return f"{value:.0f}P"


def apache(path: str, items: list[Item]) -> bytes:
    """Write ``IndexOptions FancyIndexing``."""
    rows = "".join(
        f'<img src="/icons/a.gif" alt="[   ]"> <a href="{_link(item)}">{_shown(item, 23)}</a>   '
        f"{_when('%Y-%m-%d %H:%M', item)}  {'  - ' if item.kind == 'd' else _rounded(item.size):>4}  \n"
        for item in items
    )
    title = html.escape(path.rstrip("/"))
    return (
        '<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 3.2 Final//EN">\n<html>\n <head>\n'
        f"  <title>Index of {title or '/'}</title>\n </head>\n <body>\n<h1>Index of {title}</h1>\n"
        '<pre><img src="/icons/blank.gif" alt="Icon "> <a href="?C=N;O=D">Name</a>  '
        '<a href="?C=M;O=A">Last modified</a>'
        '      <a href="?C=S;O=A">Size</a>  <a href="?C=D;O=A">Description</a><hr>'
        '<img src="/icons/back.gif" alt="[PARENTDIR]"> <a href="/">Parent Directory</a>                        -   \n'
        f"{rows}<hr></pre>\n</body></html>\n"
    ).encode("utf-8", "replace")


def apache_table(path: str, items: list[Item]) -> bytes:
    """Write ``IndexOptions FancyIndexing HTMLTable``."""
    rows = "".join(
        f'<tr><td valign="top"><img src="/icons/a.gif" alt="[   ]"></td><td><a href="{_link(item)}">'
        f'{_shown(item, 23)}</a></td><td align="right">{_when("%Y-%m-%d %H:%M", item)}  </td><td align="right">'
        f"{'  - ' if item.kind == 'd' else _rounded(item.size):>4}</td><td>&nbsp;</td></tr>\n"
        for item in items
    )
    title = html.escape(path.rstrip("/"))
    return (
        f"<html>\n <head>\n  <title>Index of {title or '/'}</title>\n </head>\n <body>\n<h1>Index of {title}</h1>\n"
        '  <table>\n   <tr><th valign="top"><img src="/icons/blank.gif" alt="[ICO]"></th>'
        '<th><a href="?C=N;O=D">Name</a></th>'
        '<th><a href="?C=M;O=A">Last modified</a></th><th><a href="?C=S;O=A">Size</a></th></tr>\n'
        '   <tr><th colspan="5"><hr></th></tr>\n<tr><td valign="top"><img src="/icons/back.gif" alt="[PARENTDIR]"></td>'
        '<td><a href="/">Parent Directory</a></td><td>&nbsp;</td><td align="right">  - </td><td>&nbsp;</td></tr>\n'
        f'{rows}   <tr><th colspan="5"><hr></th></tr>\n</table>\n</body></html>\n'
    ).encode("utf-8", "replace")


_D = ' class="d"'


def _cell(item: Item) -> str:
    return "<td>&mdash;</td>" if item.kind == "d" else f'<td data-order="{item.size}">{_rounded(item.size)}</td>'


def lighttpd(path: str, items: list[Item]) -> bytes:
    """Write ``dir-listing.activate``."""
    rows = "".join(
        f"<tr{_D * (item.kind == 'd')}>"
        f'<td class="n"><a href="{_link(item)}">{_shown(item)}</a></td>'
        f'<td class="m">{_when("%Y-%b-%d %H:%M:%S", item)}</td><td class="s">'
        f"{'- &nbsp;' if item.kind == 'd' else f'{max(0.1, int(item.size / 102.4) / 10):.1f}K'}</td>"
        f'<td class="t">application/octet-stream</td></tr>\n'
        for item in items
    )
    return (
        f"<!DOCTYPE html>\n<html>\n<head>\n<title>Index of {html.escape(path)}</title>\n</head>\n<body>\n"
        f'<h2>Index of {html.escape(path)}</h2>\n<div class="list">\n<table summary="Directory Listing">\n<thead><tr>'
        '<th class="n">Name</th></tr></thead>\n<tbody>\n<tr class="d"><td class="n"><a href="../">..</a>/</td>'
        '<td class="m">&nbsp;</td><td class="s">- &nbsp;</td><td class="t">Directory</td></tr>\n'
        f"{rows}</tbody>\n</table>"
        "\n</div>\n</body>\n</html>\n"
    ).encode("utf-8", "replace")


def caddy(path: str, items: list[Item]) -> bytes:  # noqa: ARG001 - as the others
    """Write what ``file_server browse`` gives to who accepts JSON."""
    rows = [
        {
            "name": os.fsencode(item.name).decode("utf-8", "replace"),
            "size": 4096 if item.kind == "d" else item.size,
            "url": "./" + _link(item),
            "mod_time": _when("%Y-%m-%dT%H:%M:%S.123456789Z", item),
            "mode": 420,
            "is_dir": item.kind == "d",
            "is_symlink": False,
        }
        for item in items
    ]
    return json.dumps(rows or None).encode()


def caddy_html(path: str, items: list[Item]) -> bytes:
    """Write what ``file_server browse`` gives to a browser."""
    rows = "".join(
        f'<tr class="file">\n<td></td>\n<td><a href="./{_link(item)}"><svg></svg>'
        f'<span class="name">{_shown(item, 80)}</span>'
        f"</a></td>\n{_cell(item)}"
        f'\n<td class="hideable"><time datetime="{_when("%Y-%m-%dT%H:%M:%SZ", item)}">x</time></td>\n</tr>\n'
        for item in items
    )
    return (
        f"<!DOCTYPE html><html><head><title>{html.escape(path)}</title></head><body><main>"
        f'<span class="meta-item"><b>{len(items)}</b></span><table aria-describedby="summary"><tbody>'
        f"{rows}</tbody></table>"
        "</main></body></html>"
    ).encode("utf-8", "replace")


def python(path: str, items: list[Item]) -> bytes:
    """Write what ``python -m http.server`` does: names alone."""
    rows = "".join(f'<li><a href="{_link(item)}">{_shown(item, 500)}</a></li>\n' for item in items)
    return (
        f"<!DOCTYPE HTML>\n<html>\n<head>\n<title>Directory listing for {html.escape(path)}</title>\n</head>\n<body>\n"
        f"<h1>Directory listing for {html.escape(path)}</h1>\n<hr>\n<ul>\n{rows}</ul>\n<hr>\n</body>\n</html>\n"
    ).encode("utf-8", "replace")


DIALECTS: dict[str, Callable[[str, list[Item]], bytes]] = {
    "nginx": nginx,
    "nginx-json": nginx_json,
    "apache": apache,
    "apache-table": apache_table,
    "lighttpd": lighttpd,
    "caddy": caddy,
    "caddy-html": caddy_html,
    "python": python,
}
"""The forms of a directory that the server can write."""


class _Handler(BaseHTTPRequestHandler):
    """Serves one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    server: WebServer

    def do_GET(self) -> None:
        """Send a directory or a file."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Send the header alone."""
        self._answer(body=False)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _answer(self, *, body: bool) -> None:
        served = self.server.served
        text = unquote(self.path.partition("?")[0], errors="surrogateescape")
        path = text.strip("/")
        self.server.seen.append((self.command, path))
        error = served.faults.find("error", path)
        busy = served.faults.find("busy", path)
        if not self._let_in():
            self._refuse()
        elif error:
            self._send(int(error.get("status", 500)), b"an error, as a fault says\n", body=body)
        elif away := served.faults.find("redirect", path):
            self._send(302, b"elsewhere\n", to=str(away["to"]), body=body)
        elif busy and self.server.now > int(busy["most"]):
            self._send(503, b"too many\n", body=body)
        elif served.faults.find("login", path):
            self._send(200, _LOGIN, "text/html", body=body)
        elif served.faults.find("vanish", path) or ".." in path.split("/") or not (served.root / path).exists():
            self._send(404, b"not found\n", body=body)
        elif (served.root / path).is_dir():
            self._directory(path, text, body=body)
        else:
            self._file(path, body=body)
        if served.faults.find("drop", path):
            self.close_connection = True

    def _let_in(self) -> bool:
        """Whether the request has the password, where there is one (RFC 7617)."""
        wanted = self.server.password
        found = self.headers.get("Authorization", "")
        return wanted is None or found == "Basic " + base64.b64encode(":".join(wanted).encode()).decode()

    def _refuse(self) -> None:
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="mirror"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _directory(self, path: str, text: str, *, body: bool) -> None:
        if not text.endswith("/"):
            self.send_response(301)
            self.send_header("Location", quote(self.path) + "/")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        page = self.server.served.faults.find("page", path)
        kind = "application/json" if self.server.dialect in {"caddy", "nginx-json"} else "text/html"
        content = (
            page["text"].encode()
            if page
            else DIALECTS[self.server.dialect](text, self.server.served.items(path, links=False))
        )
        self._send(200, content, kind, body=body)

    def _send(self, status: int, content: bytes, kind: str = "text/plain", *, to: str = "", body: bool) -> None:
        self.send_response(status)
        if to:
            self.send_header("Location", to)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _file(self, path: str, *, body: bool) -> None:
        stat = (self.server.served.root / path).stat()
        tag = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'
        modified = email.utils.formatdate(int(stat.st_mtime), usegmt=True)
        since = self.headers.get("If-Modified-Since")
        if self.headers.get("If-None-Match") == tag or (since is not None and since == modified):
            self.send_response(304)
            self.send_header("ETag", tag)
            self.end_headers()
            return
        start = self._start(tag, modified, stat.st_size)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(stat.st_size - start))
        if not self.server.served.faults.find("bare", path):
            self.send_header("Last-Modified", modified)
            self.send_header("ETag", tag)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{stat.st_size - 1}/{stat.st_size}")
        self.end_headers()
        if body:
            sent = start
            try:
                for chunk in self.server.served.content(path, start):
                    self.wfile.write(chunk)
                    sent += len(chunk)
            except ConnectionError:
                self.close_connection = True
            if sent < stat.st_size:
                self.close_connection = True

    def _start(self, tag: str, modified: str, size: int) -> int:
        """Return where a range begins that the client may have (bytes=N- alone)."""
        unit, _, value = self.headers.get("Range", "").partition("=")
        condition = self.headers.get("If-Range")
        first = value.removesuffix("-")
        if unit != "bytes" or not first.isdigit() or condition not in {None, tag, modified} or int(first) >= size:
            return 0
        return int(first)


class WebServer(ThreadingHTTPServer):
    """Serves a directory; ``seen`` has the requests."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        served: Served,
        dialect: str = "nginx",
        *,
        password: tuple[str, str] | None = None,
    ) -> None:
        """Listen on an address, of IPv4 or IPv6; port 0 is any. ``password`` is (user, password)."""
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.password = password
        self.served = served
        self.dialect = dialect
        self.seen: list[tuple[str, str]] = []
        self.now = 0
        self._count = threading.Lock()
        super().__init__(address, _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Count the connections, and take one that ends early for what it is."""
        with self._count:
            self.now += 1
        try:
            with contextlib.suppress(ConnectionError, TimeoutError):
                super().finish_request(request, client_address)
        finally:
            with self._count:
                self.now -= 1

    def server_bind(self) -> None:
        """Bind without asking for the name of the machine, which may take long without a resolver."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
