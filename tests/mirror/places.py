"""A source and its mirror on this machine, for tests: the server runs in this process, on loopback."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from pytest_poorcontainer.mirror.config import Mirror
from pytest_poorcontainer.mirror.sync import Run
from pytest_poorcontainer.mirror.testing.faults import Faults, write
from pytest_poorcontainer.mirror.testing.ftp import FtpServer
from pytest_poorcontainer.mirror.testing.server import rsyncd_configuration, serving
from pytest_poorcontainer.mirror.testing.serving import Served
from pytest_poorcontainer.mirror.testing.web import WebServer

QUICK = {"retries": 1, "backoff": 0.01, "idle": 1, "connect": 2, "connections": 4}
HTTP = ["nginx", "nginx-json", "apache", "apache-table", "lighttpd", "caddy", "caddy-html", "python"]
FTP = ["ftp", "ftp-list"]
OURS = (".poor-mirror", ".poor-mirror.manifest")


class Place:
    """``source`` is the directory that is served, ``dest`` the mirror."""

    def __init__(self, base, kind):
        self.base, self.kind = base, kind
        self.source, self.dest, self.state = base / "source", base / "dest", base / "state"
        self.source.mkdir()
        self.url, self.server, self.said = "", None, []

    def put(self, path, content=b"content\n", age=1000):
        """Write a file of the source, ``age`` seconds old."""
        file = self.source / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        when = int(time.time()) - age
        os.utime(file, (when, when))
        return file

    def fill(self, count=25):
        """Write some files in some directories."""
        for number in range(count):
            self.put(f"d{number % 5}/f{number}.bin", bytes([number]) * (100 * number), age=1000 + 60 * number)

    def faults(self, *faults):
        """Misbehave like this from now on; not at all for none."""
        write(self.base / "faults.json", list(faults))

    def mirror(self, **options):
        """Return the mirror's settings."""
        return Mirror(**{"name": "m", "source": self.url, "dest": self.dest, "state": self.state, **QUICK, **options})

    def package_while_fetching(self):
        """Have an archive of one package; return a listener for which another comes when the first is fetched."""
        self.put("pool/one", b"one")
        self.put("dists/Packages", b"pool/one")
        changed = []

        def tell(told):
            if told["phase"] == "fetch" and not changed:
                changed.append(1)
                self.put("pool/two", b"two")
                self.put("dists/Packages", b"pool/one pool/two", age=2)

        return tell

    def sync(self, *, dry=False, force=False, verify=False, adopt=False, tell=None, share=lambda: 0, **options):
        """Run once, and return the result."""
        run = Run(self.mirror(**options), dry=dry, force=force, verify=verify, adopt=adopt, tell=tell, share=share)
        return run.go()

    def tree(self, top=None):
        """Return what is in the mirror, or below ``top``: content of files, targets of links, None for directories."""
        top = top or self.dest
        found = {}
        for directory, names, files in os.walk(os.fsencode(top)):
            for name in names + files:
                path = os.path.join(directory, name)  # noqa: PTH118 - bytes
                relative = os.fsdecode(os.path.relpath(path, os.fsencode(top)))
                if relative.split("/")[0] in OURS:
                    continue
                if os.path.islink(path):  # noqa: PTH114 - bytes
                    found[relative] = os.fsdecode(os.readlink(path))  # noqa: PTH115 - bytes
                else:
                    found[relative] = None if os.path.isdir(path) else Path(os.fsdecode(path)).read_bytes()  # noqa: PTH112 - bytes
        return found

    def log(self):
        """Return the logs of all runs."""
        return "".join(path.read_text() for path in sorted((self.dest / ".poor-mirror/logs").iterdir()))


@contextlib.contextmanager
def place(base, kind, address="127.0.0.1", **options):
    """Serve: ``kind`` is a dialect of the web server, "ftp", "ftp-list", "file" or "rsync"."""
    found = Place(base, kind)
    if kind == "file":
        found.url = f"file://{found.source}"
        yield found
        return
    if kind == "rsync":
        with rsyncd(found, address, **options) as found.url:
            yield found
        return
    served = Served(found.source, Faults(base / "faults.json"))
    if kind.startswith("ftp"):
        server = FtpServer((address, 0), served, mlsd=kind == "ftp", **options)
        scheme = "ftp"
    else:
        server = WebServer((address, 0), served, kind, **options)
        scheme = "http"
    found.server = server
    found.url = f"{scheme}://{in_url(address)}:{server.server_address[1]}/"
    with serving(server):
        yield found


def in_url(address):
    """Return an address as URLs have it."""
    return f"[{address}]" if ":" in address else address


def end_children(pid):
    """Kill the processes that serve the connections of a daemon."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)


@contextlib.contextmanager
def rsyncd(found, address="127.0.0.1", password=None, more=""):
    """Serve by rsync; yield the URL."""
    with socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as free:
        port = free.getsockname()[1]
    path = found.base / "rsyncd.conf"
    text = rsyncd_configuration(found.source, address, port)
    if password is not None:
        secrets = found.base / "rsyncd.secrets"
        secrets.write_text(":".join(password) + "\n")
        secrets.chmod(0o600)
        text += f"auth users = {password[0]}\nsecrets file = {secrets}\n"
    path.write_text(text + more.format(base=found.base))
    argv = [shutil.which("rsync"), "--daemon", "--no-detach", f"--config={path}"]
    if os.geteuid() == 0:  # it is to be bound by permissions as everybody else
        argv = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *argv]
    with subprocess.Popen(argv) as process:
        found.cut = lambda: end_children(process.pid)
        try:
            end = time.monotonic() + 10
            while True:
                with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
                    break
                assert time.monotonic() < end
                time.sleep(0.01)
            yield f"rsync://{in_url(address)}:{port}/mirror/"
        finally:
            process.terminate()
