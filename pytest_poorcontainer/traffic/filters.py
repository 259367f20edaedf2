"""Filters as tcpdump takes them, pcap-filter(7), compiled here: so they mean the same with and without tcpdump.

The common part of the language: ``host net port portrange`` with ``src`` and ``dst``, the protocols ``ip ip6 arp tcp
udp icmp icmp6 sctp``, ``proto N``, ``ether host``, ``broadcast multicast less greater``, comparisons of bytes such as
``tcp[tcpflags] & tcp-rst != 0``, ``and or not`` and parentheses. What else there is goes to ``tcpdump -ddd`` if that
is installed. Two things differ from it: names are those of the hosts, and ``tcp[...]`` and its like work on IPv6 too.
"""

from __future__ import annotations

import shutil
import subprocess
from functools import lru_cache
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.traffic.bpf import Instruction, matches, read_listing
from pytest_poorcontainer.traffic.filter_code import assembled
from pytest_poorcontainer.traffic.filter_words import Unknown, understood

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_poorcontainer.traffic.frames import Frame

__all__ = ["Filter", "compiled"]

_REMEDY = (
    "the words that are understood: host net port portrange (with src, dst), ip ip6 arp tcp udp icmp icmp6 sctp proto "
    "ether broadcast multicast less greater, tcp[tcpflags] & tcp-syn != 0 and its like, and or not ( ); for the rest "
    "of pcap-filter(7) install tcpdump (apt-get install tcpdump)"
)


class Filter:
    """A filter, ready for the kernel and for frames that are here already."""

    def __init__(self, text: str, program: Sequence[Instruction]) -> None:
        """Keep both forms."""
        self.text = text
        self.program = program

    def matches(self, frame: Frame) -> bool:
        """Return whether it wants the frame. What lies behind the bytes that were captured never matches."""
        return matches(self.program, frame.data, frame.length)


def compiled(text: str, resolve: Callable[[str], Sequence[str]] | None = None) -> Filter:
    """Return the filter; ``resolve`` returns the addresses that a name stands for, none for an unknown one.

    Raises :class:`UsageError` for what is no filter.
    """
    try:
        return Filter(text, assembled(understood(text, resolve or _nobody)))
    except Unknown as error:
        return Filter(text, _by_tcpdump(text, str(error)))


def _nobody(name: str) -> Sequence[str]:  # noqa: ARG001 - knows none
    return ()


@lru_cache(maxsize=64)
def _by_tcpdump(text: str, why: str) -> tuple[Instruction, ...]:
    program = shutil.which("tcpdump", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if program is None:
        raise UsageError(f"cannot understand the filter {text!r}: {why}; {_REMEDY}")
    done = subprocess.run(
        [program, "-ddd", "-y", "EN10MB", "-s", "0", "--", text],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise UsageError(f"cannot understand the filter {text!r}: {why}, and tcpdump says: {said[0]}")
    return tuple(read_listing(done.stdout))
