"""What ICMP errors mean: names, traceroute's marks, and whether a host is unreachable or a packet was rejected."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Code", "code_of"]


class Code(NamedTuple):
    """``name`` as in ``expect.rejected(code=...)``, ``mark`` as traceroute prints it, ``state`` of what it ends."""

    name: str
    mark: str
    state: str
    meaning: str


_UNREACHABLE, _REJECTED = "unreachable", "rejected"

_CODES4 = {  # RFC 792, RFC 1122 3.2.2.1, RFC 1812 5.2.7.1; the marks are those of traceroute(8)
    0: Code("net", "!N", _UNREACHABLE, "network unreachable"),
    1: Code("host", "!H", _UNREACHABLE, "host unreachable"),
    2: Code("proto", "!P", _REJECTED, "protocol unreachable"),
    3: Code("port", "!p", _REJECTED, "port unreachable"),
    5: Code("source-route", "!S", _UNREACHABLE, "source route failed"),
    6: Code("net-unknown", "!U", _UNREACHABLE, "network unknown"),
    7: Code("host-unknown", "!W", _UNREACHABLE, "host unknown"),
    8: Code("isolated", "!I", _UNREACHABLE, "source host isolated"),
    9: Code("net-admin", "!A", _REJECTED, "network administratively prohibited"),
    10: Code("host-admin", "!Z", _REJECTED, "host administratively prohibited"),
    11: Code("net-tos", "!Q", _UNREACHABLE, "network unreachable for this type of service"),
    12: Code("host-tos", "!T", _UNREACHABLE, "host unreachable for this type of service"),
    13: Code("admin", "!X", _REJECTED, "communication administratively prohibited"),
    14: Code("precedence", "!V", _REJECTED, "host precedence violation"),
    15: Code("cutoff", "!C", _REJECTED, "precedence cutoff in effect"),
}
_CODES6 = {  # RFC 4443 3.1
    0: Code("net", "!N", _UNREACHABLE, "no route to the destination"),
    1: Code("admin", "!X", _REJECTED, "communication administratively prohibited"),
    2: Code("scope", "!S", _UNREACHABLE, "beyond the scope of the source address"),
    3: Code("host", "!H", _UNREACHABLE, "address unreachable"),
    4: Code("port", "!p", _REJECTED, "port unreachable"),
    5: Code("policy", "!A", _REJECTED, "source address failed a policy"),
    6: Code("reject-route", "!R", _REJECTED, "route to the destination rejects"),
}


def code_of(version: int, code: int) -> Code:
    """Return what "destination unreachable" with this code means in IPv4 (``version`` 4) or IPv6."""
    known = (_CODES4 if version == 4 else _CODES6).get(code)  # noqa: PLR2004
    return known or Code(f"code-{code}", f"!<{code}>", _UNREACHABLE, f"unreachable, code {code}")
