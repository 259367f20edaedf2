"""Against the servers that are out there: nginx, vsftpd, pyftpdlib, rsyncd (elsewhere), and TLS."""

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import warnings
from pathlib import Path

import pytest
from proxies import NAME, proxy

from pytest_poorcontainer.mirror.testing.faults import Faults
from pytest_poorcontainer.mirror.testing.server import serving
from pytest_poorcontainer.mirror.testing.serving import Served
from pytest_poorcontainer.mirror.testing.web import WebServer


def free_port():
    """Return a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def program(name, package=None):
    """Return the path of a program, or skip."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"needs {name}: sudo apt-get install --no-install-recommends {package or name}")
    return found


@contextlib.contextmanager
def running(argv, port):
    """Run a server until the block ends; wait until it listens."""
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            end = time.monotonic() + 10
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                assert process.poll() is None, process.stdout.read().decode()
                assert time.monotonic() < end
                time.sleep(0.02)
            yield
        finally:
            process.terminate()
            process.stdout.close()


@pytest.fixture(params=["html", "json"])
def nginx(request, tmp_path):
    """Yield the URL of an nginx that serves ``tmp_path/source``."""
    path, port = program("nginx"), free_port()
    (tmp_path / "source").mkdir()
    user = "user root;" if os.geteuid() == 0 else ""  # pytest's directories are for their owner alone
    temporary = "".join(
        f"{kind}_temp_path {tmp_path};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"{user} daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}}\n"
        f"http {{ access_log off; {temporary} server {{ listen 127.0.0.1:{port}; root {tmp_path}/source; autoindex on; "
        f"autoindex_format {request.param}; }} }}\n"
    )
    with running([path, "-e", f"{tmp_path}/error.log", "-c", f"{tmp_path}/nginx.conf"], port):
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture
def vsftpd(tmp_path, request):
    """Yield the URL of a vsftpd that serves ``tmp_path/source``, by way of a top that nobody may write to."""
    if os.geteuid() != 0:
        pytest.skip("vsftpd becomes the user that it serves as, which only root can")
    path, port = program("vsftpd"), free_port()
    top = Path(tempfile.mkdtemp(prefix="poor-mirror-test-", dir="/tmp"))
    (top / "pub").mkdir()
    (tmp_path / "source").symlink_to(top / "pub")
    (tmp_path / "empty").mkdir()
    top.chmod(0o555)
    options = {
        "listen": "YES", "listen_address": "127.0.0.1", "listen_port": port, "anonymous_enable": "YES",
        "anon_root": top, "no_anon_password": "YES", "background": "NO", "seccomp_sandbox": "NO",
        "secure_chroot_dir": tmp_path / "empty", "connect_from_port_20": "NO",
        "ftp_username": "ftp",
        "isolate": "NO", "isolate_network": "NO", "ssl_enable": "YES", "allow_anon_ssl": "YES",
        "force_anon_data_ssl": "NO", "force_anon_logins_ssl": "NO", "rsa_cert_file": certificate(tmp_path),
        "rsa_private_key_file": tmp_path / "key.pem", **getattr(request, "param", {}),
    }  # fmt: skip
    (tmp_path / "vsftpd.conf").write_text("".join(f"{key}={value}\n" for key, value in options.items()))
    with running([path, str(tmp_path / "vsftpd.conf")], port):
        yield f"ftp://127.0.0.1:{port}/pub/"
    top.chmod(0o755)
    shutil.rmtree(top)


@pytest.fixture
def pyftpd(tmp_path):
    """Yield the URL of pyftpdlib's server on ``tmp_path/source``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it brings asyncore along, or uses Python's
        from pyftpdlib.authorizers import DummyAuthorizer
        from pyftpdlib.handlers import FTPHandler
        from pyftpdlib.servers import FTPServer

    (tmp_path / "source").mkdir()
    handler = type("Handler", (FTPHandler,), {"authorizer": DummyAuthorizer()})
    handler.authorizer.add_anonymous(str(tmp_path / "source"))
    server = FTPServer(("127.0.0.1", 0), handler)
    ending = threading.Event()

    def serve():
        while not ending.is_set():
            server.serve_forever(timeout=0.02, blocking=False)
        server.close_all()

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"ftp://127.0.0.1:{server.address[1]}/"
    ending.set()
    thread.join()


def certificate(tmp_path):
    """Make a certificate for 127.0.0.1; return its path. Its key is ``key.pem``."""
    path = tmp_path / "cert.pem"
    argv = [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", tmp_path / "key.pem",
            "-out", path, "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]  # fmt: skip
    subprocess.run(argv, check=True, capture_output=True)
    return path


@pytest.fixture
def place(make_place, tmp_path):
    """Return a place whose source is ``tmp_path/source``; ask for it after the server that serves that."""
    with make_place("file") as found:
        found.source.rmdir()
        found.source = (tmp_path / "source").resolve()
        yield found


def check(place, url, **options):
    """Mirror some files with odd names; change some; mirror again; nothing is fetched twice."""
    place.fill()
    for name in (
        " space",
        "hash#",
        "why?",
        "100%",
        "a&b",
        "größe",
        "x" * 120,
        "plus+",
        "semi;colon",
        "-dash",
        "[glob]*",
    ):
        place.put(f"odd dir/{name}", b"x" * 1_536_000 if name == "why?" else name.encode())
    place.put("old", b"old", age=86400 * 400)
    result = place.sync(source=url, **options)
    assert (result.state, result.reason) == ("ok", "")
    assert place.tree() == place.tree(place.source)
    times = {path: int((place.dest / path).stat().st_mtime) for path, content in place.tree().items() if content}
    assert times == {path: int((place.source / path).stat().st_mtime) for path in times}
    assert place.sync(source=url, **options).fetched == 0
    place.put("d0/f0.bin", b"another", age=5)
    (place.source / "d1/f1.bin").unlink()
    result = place.sync(source=url, **options)
    assert (result.state, result.changed, result.deleted) == ("ok", 1, 1)
    assert place.tree() == place.tree(place.source)


def test_nginx(nginx, place):
    """Nginx' pages and its JSON, with names that it escapes and cuts."""
    check(place, nginx)


def test_vsftpd(vsftpd, place):
    """Vsftpd has no MLSD: LIST, and MDTM for exact times (row 17)."""
    check(place, vsftpd)
    assert "knows no MLSD" in place.log()


def test_vsftpd_with_tls(vsftpd, place, tmp_path):
    """AUTH TLS on both connections; a certificate that does not verify is an error of its own."""
    check(place, vsftpd, tls=True, ca=str(tmp_path / "cert.pem"))
    result = place.sync(source=vsftpd, tls=True)
    assert (result.state, result.status) == ("failed", 9)


@pytest.mark.parametrize("vsftpd", [{"implicit_ssl": "YES"}], indirect=True)
def test_vsftpd_with_tls_from_the_start(vsftpd, place, tmp_path):
    """ftps:// begins with TLS, on both connections; a certificate that does not verify is an error of its own."""
    url = vsftpd.replace("ftp://", "ftps://")
    check(place, url, ca=str(tmp_path / "cert.pem"))
    result = place.sync(source=url)
    assert (result.state, result.status) == ("failed", 9)


def test_pyftpdlib(pyftpd, place):
    """Pyftpdlib's MLSD, in which a link to a directory is a directory (row 16)."""
    check(place, pyftpd)
    (place.source / "d2/loop").symlink_to("..")
    assert place.sync(source=pyftpd).state == "ok"
    assert max(path.count("/") for path in place.tree()) <= 2


def test_https(place, tmp_path):
    """A certificate has to verify, by the machine's authorities or the one that is named."""
    (tmp_path / "source").mkdir()
    server = WebServer(("127.0.0.1", 0), Served(tmp_path / "source", Faults(None)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path), tmp_path / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    url = f"https://127.0.0.1:{server.server_address[1]}/"
    with serving(server):
        result = place.sync(source=url)
        assert (result.state, result.status) == ("failed", 9)
        check(place, url, ca=str(tmp_path / "cert.pem"))
        assert place.sync(source=url, insecure=True).state == "ok"


def test_https_through_a_proxy(place, tmp_path):
    """The proxy carries what it cannot read: CONNECT for each connection, and nothing else."""
    (tmp_path / "source").mkdir()
    server = WebServer(("127.0.0.1", 0), Served(tmp_path / "source", Faults(None)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path), tmp_path / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    target = f"{NAME}:{server.server_address[1]}"
    with serving(server), proxy() as there:
        way = f"http://127.0.0.1:{there.port}"
        result = place.sync(source=f"https://{target}/", proxy=way)
        assert (result.state, result.status) == ("failed", 9)
        check(place, f"https://{target}/", proxy=way, insecure=True)
        assert set(there.seen) == {("CONNECT", target)}
