"""nginx in front of two backends, one of which dies, hangs, or is cut off together with the other.

nginx runs with Debian's /etc/nginx/nginx.conf and a site of its own below sites-enabled, next to the default one; the
backends are Pythons on the other host. Run it with::

    pytest --poor-container docs/examples/nginx -v
"""

import collections
import http.client
import signal
import sys

import pytest

from pytest_poorcontainer import eventually

pytestmark = [
    pytest.mark.debian("nginx"),
    pytest.mark.poor_container(hosts=["front", "back"]),
]

PORTS = {"one": 8001, "two": 8002}

# The times are short, so that a test takes seconds. "zone" has nginx's processes agree on who is down.
SITE = """\
upstream shop {{
    zone shop 64k;
    server {back}:8001 fail_timeout=1s;
    server {back}:8002 fail_timeout=1s;
}}

server {{
    listen 80;
    server_name shop.test;

    location / {{
        include proxy_params;
        proxy_pass http://shop;
        proxy_connect_timeout 1s;
        proxy_read_timeout 1s;
    }}
}}
"""


def write(host, path, text):
    host.run(["tee", path], input=text, text=True, capture_output=True, check=True)


def whom(host):
    """Return as whom to start nginx: as root, whose workers become www-data, or as www-data where they may not.

    That is so where an ordinary user runs the tests, without a range in /etc/subuid: such a host has one id.
    """
    tried = host.run(["setpriv", "--reuid=www-data", "--init-groups", "true"], capture_output=True)
    return "root" if tried.returncode == 0 else "www-data"


@pytest.fixture
def backends(netns_pair):
    """Two servers on the second host, by name; each answers with its name."""
    back = netns_pair.b
    for name in PORTS:
        back.run(["mkdir", "-p", f"/srv/{name}"], check=True)
        write(back, f"/srv/{name}/index.html", f"{name}\n")
    return {
        name: back.start(
            [sys.executable, "-m", "http.server", str(port), "--directory", f"/srv/{name}"], name=name, ready=port
        )
        for name, port in PORTS.items()
    }


@pytest.fixture
def front(netns_pair, backends):
    """The first host, where nginx hands what comes for shop.test to the backends."""
    front, back = netns_pair
    write(front, "/etc/nginx/sites-available/shop", SITE.format(back=back.ip))
    front.run(["ln", "-s", "../sites-available/shop", "/etc/nginx/sites-enabled/shop"], check=True)
    user = whom(front)
    front.run(["nginx", "-t", "-q"], user=user, check=True)
    front.start(["nginx", "-g", "daemon off; master_process on;"], user=user, ready=80)
    return front


def get(front, name="shop.test"):
    """Return status and text of what a client on the host gets from nginx for this name."""
    with front.sockets():
        connection = http.client.HTTPConnection(front.ip, timeout=10)
        try:
            connection.request("GET", "/", headers={"Host": name})
            response = connection.getresponse()
            return response.status, response.read().decode().strip()
        finally:
            connection.close()


def both(front):
    assert collections.Counter(get(front) for _ in range(4)) == {(200, "one"): 2, (200, "two"): 2}


def error_log(front):
    return front.run(["cat", "/var/log/nginx/error.log"], capture_output=True, text=True, check=True).stdout


def test_requests_go_to_both_in_turn(front):
    """Each backend gets every second request, and Debian's own site is still there under every other name."""
    both(front)
    status, page = get(front, "localhost")
    assert (status, "Welcome to nginx!" in page) == (200, True)


def test_nobody_notices_that_a_backend_dies(front, backends):
    """While one is dead the other answers every request; some time after its return the first has its share again."""
    both(front)
    backends["one"].process.kill()
    backends["one"].process.wait()
    assert [get(front) for _ in range(6)] == [(200, "two")] * 6
    assert "connect() failed (111: Connection refused) while connecting to upstream" in error_log(front)
    backends["one"].restart()
    eventually(lambda: both(front), timeout=10)


def test_nobody_is_left_waiting_by_a_backend_that_hangs(front, backends):
    """What takes connections and says nothing costs the time that proxy_read_timeout allows, and the other answers."""
    backends["one"].process.send_signal(signal.SIGSTOP)
    assert [get(front) for _ in range(6)] == [(200, "two")] * 6
    assert "upstream timed out (110: Connection timed out) while reading response header" in error_log(front)
    backends["one"].process.send_signal(signal.SIGCONT)
    eventually(lambda: both(front), timeout=10)


def test_a_cut_cable_is_a_gateway_time_out(netns_pair, front):
    """Clients are told 504 when both backends are out of reach, and are served again when the cable is mended."""
    with netns_pair.link.cut():
        assert get(front)[0] == 504
        assert "upstream timed out (110: Connection timed out) while connecting to upstream" in error_log(front)
    eventually(lambda: both(front), timeout=10)
