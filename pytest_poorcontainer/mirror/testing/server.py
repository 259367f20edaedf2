"""``python -m pytest_poorcontainer.mirror.testing.server``: one source for tests, until it is ended."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_poorcontainer.mirror.errors import MirrorError
from pytest_poorcontainer.mirror.testing.faults import Faults
from pytest_poorcontainer.mirror.testing.ftp import FtpServer
from pytest_poorcontainer.mirror.testing.serving import Served
from pytest_poorcontainer.mirror.testing.web import DIALECTS, WebServer

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PROTOCOLS", "main", "rsyncd_configuration", "serving"]

PROTOCOLS = ("http", "ftp", "ftp-list", "rsync")
"""What a source may speak; "ftp-list" is an FTP server without MLSD."""


@contextmanager
def serving(server: FtpServer | WebServer) -> Iterator[FtpServer | WebServer]:
    """Run a server in a thread of this process for as long as the block lasts."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.served.ending.set()
        server.shutdown()
        thread.join(10)
        server.server_close()


def rsyncd_configuration(root: Path, address: str, port: int) -> str:
    """Return what rsyncd.conf(5) has to say to serve a directory as the module "mirror"."""
    user = "uid = 0\ngid = 0\n" if os.geteuid() == 0 else ""
    return (
        f"port = {port}\naddress = {address}\nuse chroot = no\nreverse lookup = no\n"
        f"[mirror]\npath = {root}\nread only = yes\n{user}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("protocol", choices=PROTOCOLS)
    parser.add_argument("root", type=Path)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--faults", type=Path)
    parser.add_argument("--dialect", choices=DIALECTS, default="nginx")
    options = parser.parse_args(arguments)
    if options.protocol == "rsync":
        program = shutil.which("rsync")
        if program is None:
            raise MirrorError("cannot serve rsync: there is no rsync; sudo apt-get install rsync")
        path = options.root.parent / "rsyncd.conf"
        path.write_text(rsyncd_configuration(options.root, options.address, options.port))
        return subprocess.run([program, "--daemon", "--no-detach", f"--config={path}"], check=False).returncode
    served = Served(options.root, Faults(options.faults))
    where = (options.address, options.port)
    if options.protocol == "http":
        server: FtpServer | WebServer = WebServer(where, served, options.dialect)
    else:
        server = FtpServer(where, served, mlsd=options.protocol == "ftp")
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
