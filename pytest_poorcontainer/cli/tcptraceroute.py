"""``poor-tcptraceroute``: options and output of tcptraceroute(1), and a verdict."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from pytest_poorcontainer.errors import PoorContainerError, Unavailable
from pytest_poorcontainer.probe import classic
from pytest_poorcontainer.probe.ask import MODES, Ask, Ground, checked_port
from pytest_poorcontainer.probe.probing import probe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_poorcontainer.probe.result import ProbeResult

__all__ = ["main"]

USAGE, PRIVILEGE = 4, 5
_TCP_PORT, _UDP_PORT = 80, 33434

DESCRIPTION = """\
Shows the way of TCP packets to a port, hop by hop, and says whether the port is open, and if not, who is in the way.
No connection is ever established: the answer to a SYN is answered by a reset.
"""
EPILOG = """\
examples:
  poor-tcptraceroute example.org 443            the way to a web server
  poor-tcptraceroute -n -q1 db.local 5432       no names, one probe per hop
  poor-tcptraceroute --explain db.local 5433    why does nothing answer?
  poor-tcptraceroute --json db.local 5432       for programs
  poor-tcptraceroute -U 192.0.2.1               classical traceroute with UDP; -I with ICMP echo

marks behind a hop: !N network and !H host unreachable, !P protocol, !p port, !X administratively prohibited,
!A network prohibited, !Z host prohibited, [open], [closed], [reached].

With CAP_NET_RAW (root) it uses raw sockets. Without, TCP and UDP work as well, by sockets of the kernel's; then each
TTL has a source port of its own, and changes of headers on the way are not seen.

exit status: 0 the port is open (-U, -I, -A: the target answers), 1 closed, 2 nothing answers (filtered) or packets go
round in a loop, 3 rejected or unreachable, 4 wrong usage, 5 no privilege for what was asked for.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\n")


def _formatter(prog: str) -> argparse.HelpFormatter:
    """Return what formats the help. With a width of its own, or argparse loads shutil and all compressors for it."""
    try:
        width = os.get_terminal_size().columns - 2
    except OSError:
        width = 100
    return argparse.RawDescriptionHelpFormatter(prog, width=width)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="poor-tcptraceroute",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=_formatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("host", help="name or address of the target")
    add("port", nargs="?", help="its port, a number or a service's name (default 80; with -U 33434)")
    add("length", nargs="?", type=int, default=0, help="as -l")
    add("-4", dest="version", action="store_const", const=4, help="IPv4 only")
    add("-6", dest="version", action="store_const", const=6, help="IPv6 only")
    add("-n", dest="numeric", action="store_true", help="addresses only, no reverse DNS")
    add("-N", dest="all_names", action="store_true", help="reverse DNS also for private addresses")
    add("-f", dest="first", type=int, default=1, metavar="TTL", help="first TTL (default 1)")
    add("-m", dest="last", type=int, default=30, metavar="TTL", help="last TTL (default 30)")
    add("-q", dest="queries", type=int, default=3, metavar="N", help="probes per hop (default 3)")
    add("-w", dest="wait", type=float, default=0.0, metavar="SECONDS",
        help="wait at least so long for an answer (default: some round trips)")  # fmt: skip
    add("-p", "-P", dest="source_port", type=int, default=0, metavar="PORT", help="source port (default: a free one)")
    add("-s", dest="source", default="", metavar="ADDRESS", help="source address")
    add("-i", dest="device", default="", metavar="INTERFACE", help="send from this interface")
    add("-t", dest="tos", type=int, default=0, metavar="TOS", help="type of service, the whole byte")
    add("-l", dest="size", type=int, default=0, metavar="BYTES", help="length of the probes, if they are shorter")
    add("-F", action="store_true", help='"don\'t fragment": it is always set, as the kernel does for TCP')
    kinds = parser.add_argument_group("what is sent (default: TCP SYN)")
    add = kinds.add_argument
    add("-S", dest="syn", action="store_true", help="TCP SYN")
    add("-A", dest="ack", action="store_true", help="TCP ACK (both -S and -A: SYN+ACK)")
    add("--flags", default="", metavar="LIST", help="any TCP flags: fin,psh,urg")
    add("-E", dest="ecn", action="store_true", help="ask for ECN, and show where it is lost")
    add("-U", dest="kind", action="store_const", const="udp", help="UDP datagrams")
    add("-I", dest="kind", action="store_const", const="icmp", help="ICMP echo requests")
    outputs = parser.add_argument_group("output")
    add = outputs.add_argument
    add("--explain", action="store_true", help="say what was found out, and how sure it is")
    add("--json", action="store_true", help="print one JSON object instead")
    add("--pcap", default="", metavar="FILE", help="write what was sent and received, for Wireshark")
    add("--dnat", action="store_true", help="show where addresses are translated (--explain shows it too)")
    add("--no-dnat", "--no-dnat-strict", "--track-port", "-d", dest="ignored", action="store_true",
        help="as in tcptraceroute, and not needed: marks are matched tolerantly")  # fmt: skip
    add("--mda", action="store_true", help="all the ways that routers balance load over")
    add("--confidence", type=float, default=0.0, metavar="P", help="of --mda: 0.95 (default) or 0.99")
    add("--dot", action="store_true", help="with --mda: the ways as a graph for Graphviz, instead of text")
    add("--pmtu", action="store_true", help="the largest packet that arrives, and who drops larger ones")
    others = parser.add_argument_group("how")
    add = others.add_argument
    add("--mode", default="auto", choices=[mode for mode in MODES if mode != "white-box"], help="default auto")
    add("--patience", type=float, default=3.3, metavar="SECONDS",
        help='wait so long for "no such host" when nothing at all comes (default 3.3)')  # fmt: skip
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (default: the process's) and return its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        status = _run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read our output has gone. Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return USAGE
    except Unavailable as error:
        print(f"poor-tcptraceroute: {error}", file=sys.stderr)
        return PRIVILEGE
    except (PoorContainerError, OSError) as error:
        print(f"poor-tcptraceroute: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells have it
    return status


def _run(options: argparse.Namespace) -> int:
    ground = Ground()
    kind = options.kind or "tcp"
    flags = options.flags or ",".join(name for name in ("syn", "ack") if getattr(options, name)) or "syn"
    port = None if kind == "icmp" else _port(options.port, kind)
    ask = Ask.of(
        kind=kind,
        flags=flags,
        first_ttl=options.first,
        max_ttl=options.last,
        queries=options.queries,
        wait=options.wait,
        patience=options.patience,
        tos=options.tos,
        ecn=options.ecn,
        source_address=options.source,
        source_port=options.source_port,
        interface=options.device,
        mode=options.mode,
        length=max(options.size, options.length),
        mda=options.confidence or options.mda or options.dot,
        pmtu=options.pmtu,
    )
    target = ground.resolve(options.host, options.version)[0]
    result = probe(ground, ask, target, port)
    _show(result, options)
    if options.pcap:
        result.pcap(options.pcap)
    return classic.exit_status(result)


def _port(text: str | None, kind: str) -> int:
    if text is None:
        return _TCP_PORT if kind == "tcp" else _UDP_PORT
    if text.isdigit():
        return checked_port(int(text))
    from pytest_poorcontainer.probe.ask import service_port  # noqa: PLC0415 - seldom

    return service_port(text, kind)


def _show(result: ProbeResult, options: argparse.Namespace) -> None:
    if options.json:
        import json  # noqa: PLC0415 - its import takes time that others need not wait for

        print(json.dumps(result.json(), indent=2))
        return
    if options.dot and result.graph is not None:
        print(result.graph.dot(), end="")
        return
    print(classic.header(result, options.host, options.last), file=sys.stderr, flush=True)
    for line in classic.lines(result, _names(result, options), options.queries):
        print(line)
    _show_more(result, options)
    if not result.reached:
        print(f"Destination not reached: {result.summary}", file=sys.stderr)


def _show_more(result: ProbeResult, options: argparse.Namespace) -> None:
    """Print what was asked for beside the path."""
    if result.graph is not None:
        print(result.graph)
    if options.explain:
        print(result.explanation)
    elif result.mtu is not None:
        print(result.mtu)
    elif options.dnat:
        for what in ("dnat", "target address", "target port"):
            found = result.found(what)
            if found is not None:
                print(found)


def _names(result: ProbeResult, options: argparse.Namespace) -> dict[str, str]:
    from pytest_poorcontainer.probe.reverse import is_private, names_of  # noqa: PLC0415 - not with -n

    if options.numeric:
        return {}
    found = [hop.address for hop in result.hops if hop.address] + [result.target]
    wanted = [one for one in found if options.all_names or not is_private(one)]
    return names_of(wanted) if wanted else {}


if __name__ == "__main__":
    sys.exit(main())
