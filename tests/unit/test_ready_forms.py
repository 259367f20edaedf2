"""What ``ready=`` may be, and what it may not."""

import functools
import re
from pathlib import Path

import pytest

from pytest_poorcontainer.container.ready import conditions
from pytest_poorcontainer.errors import UsageError


@pytest.mark.parametrize(
    ("ready", "shown"),
    [
        (80, ["tcp:80"]),
        ("80", ["tcp:80"]),
        ("tcp:80", ["tcp:80"]),
        ("udp:53", ["udp:53"]),
        ("127.0.0.1:80", ["tcp:127.0.0.1:80"]),
        ("udp:127.0.0.1:53", ["udp:127.0.0.1:53"]),
        ("[::1]:80", ["tcp:[::1]:80"]),
        ("tcp:[0:0::1]:80", ["tcp:[::1]:80"]),
        ("localhost:80", ["tcp:localhost:80"]),
        ("*:80", ["tcp:80"]),
        ("0.0.0.0:80", ["tcp:80"]),
        ("/run/x.sock", ["/run/x.sock"]),
        (Path("/run/x.sock"), ["/run/x.sock"]),
        ("/run/../run//x.sock", ["/run/x.sock"]),
        (re.compile("up"), ["'up' in the log"]),
        ("notify", ["READY=1 to NOTIFY_SOCKET"]),
        (functools.partial(bool, 1), ["functools.partial(<class 'bool'>, 1)() to be true"]),
        ([80, "notify"], ["tcp:80", "READY=1 to NOTIFY_SOCKET"]),
        (None, []),
    ],
)
def test_forms(ready, shown):
    """Each form is understood, and shown as it can be written."""
    assert [str(condition) for condition in conditions(ready)] == shown


@pytest.mark.parametrize(
    ("ready", "why"),
    [
        (0, "from 1 to 65535"),
        (-1, "from 1 to 65535"),
        (65536, "from 1 to 65535"),
        ("udp:0", "from 1 to 65535"),
        (True, "is none of"),
        (1.5, "is none of"),
        ("http", "is none of"),
        ("run/x.sock", "is none of"),
        ("sctp:80", "'sctp' is no IP address"),
        ("example.org:80", "'example.org' is no IP address"),
        (b"/run/x.sock", "is none of"),
        (re.compile(b"up"), "regular expression of str"),
        ([], "ready is empty"),
        ([80, None, "nonsense"], "'nonsense'"),
        (lambda one, two: None, "several arguments"),
    ],
)
def test_what_is_none_of_them(ready, why):
    """What cannot be waited for is refused before anything is started, and named."""
    with pytest.raises(UsageError, match=re.escape(why)):
        conditions(ready)
