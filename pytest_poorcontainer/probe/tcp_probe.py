"""``tcp_probe``: what tests call to see where a connection goes, and where it dies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.network import Host
from pytest_poorcontainer.probe.ask import Ask, checked_port
from pytest_poorcontainer.probe.expect import Expectation
from pytest_poorcontainer.probe.grounds import ground_of, target_of
from pytest_poorcontainer.probe.matrix import Matrix
from pytest_poorcontainer.probe.memory import Memory
from pytest_poorcontainer.probe.probing import probe
from pytest_poorcontainer.probe.told import failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pytest_poorcontainer.probe.ask import Ground
    from pytest_poorcontainer.probe.result import ProbeResult

__all__ = ["TcpProbe"]

_RECENT = 3


class TcpProbe:
    """Probes, from hosts of ours or from this machine. Works without pytest, and holds nothing open between probes.

    It remembers which routers have answered, so that one that limits its answers is called that.
    """

    def __init__(self, keep: Callable[[ProbeResult], str] | None = None) -> None:
        """Know no router yet. ``keep`` may save a result that an expectation did not want, and say where."""
        self._keep = keep
        self.recent: list[ProbeResult] = []
        """The last results, for reports."""
        self._memory = Memory()
        self._known: dict[str, Host] = {}

    def __call__(self, source: Host | None, target: Any, *, version: int | None = None, **options: Any) -> ProbeResult:
        """Probe from ``source`` (None: this machine) to ``target``, ``(host, port)``, and return what was found out.

        The host is one of ours, a name or an address; "name:port" and "[address]:port" will do as well. ``version``
        (4 or 6) chooses the family. The other options: ``kind`` ("tcp", "udp", "icmp"; ICMP has no port: ``(host,
        None)``), ``flags`` ("syn", "ack", "fin,psh,urg"), ``first_ttl``, ``max_ttl``, ``queries`` (probes per hop),
        ``wait`` (the least seconds until silence counts), ``patience`` (how long to wait for "no such host" when
        nothing at all comes, 3.3 s), ``tos``, ``ecn``, ``source_address``, ``source_port``, ``interface``, ``mode``
        ("auto", "raw", "unprivileged", "white-box"), ``diagnose`` (other probes when nothing answers), and ``probe``,
        a scapy packet that says what to send (``IP(tos=8)/TCP(flags="A")``).

        Raises :class:`UsageError` for what cannot be asked, :class:`Unavailable` for a mode without its privilege.
        """
        ground = self._ground(source, target)
        packet = options.pop("probe", None)
        if packet is not None:
            target = self._of_packet(packet, ground, target, version, options)
        kind = options.get("kind", "tcp")
        address, port = target_of(ground, *_pair(target), kind, _checked_version(version))
        result = probe(ground, _ask(options), address, port, self._memory)
        self.recent = [*self.recent[1 - _RECENT :], result]
        return result

    def know(self, *hosts: Host) -> None:
        """Tell of hosts that may be on the way, so that hops have their names. Those that are asked about are known."""
        self._known.update((host.name, host) for host in hosts)

    def _ground(self, *ends: object) -> Ground:
        for end in ends:
            one = end[0] if isinstance(end, (tuple, list)) and end else end
            if isinstance(one, Host):
                self._known[one.name] = one
        self._known = {name: host for name, host in self._known.items() if not host.closed}
        source = ends[0]
        return ground_of(source, self._known.values())  # type: ignore[arg-type]

    def _of_packet(
        self, packet: Any, ground: Ground, target: Any, version: int | None, options: dict[str, Any]
    ) -> tuple[object, object]:
        """Set the options that a scapy packet asks for, and return the target with the packet's port, if it has one."""
        from pytest_poorcontainer.probe.dissect import made  # noqa: PLC0415 - loads scapy

        host, port = _pair(target)
        address, _ = target_of(ground, host, port or 1, "tcp", _checked_version(version))
        kind, found = made(packet, 6 if ":" in address else 4, ground.name, address)
        sport, dport = found.pop("ports")
        options["kind"] = kind
        if sport is not None:
            options["source_port"] = sport
        options.update(found)
        return host, (port if port is not None else dport) if kind != "icmp" else None

    def expect(self, source: Host | None, target: Any, **options: Any) -> Expectation:
        """Return what to say an expectation of: ``tcp_probe.expect(client, (db, 5432)).open()``.

        Also ``.closed()``, ``.filtered(at=)``, ``.rejected(code=, at=)``, ``.unreachable(code=, at=)``, ``.loop()``;
        each returns the result, or fails with path, verdict and reason. The arguments are those of a probe.
        """
        return Expectation(lambda: self(source, target, **options), self._keep)

    def wait_open(self, source: Host | None, target: Any, timeout: float = 10, **options: Any) -> ProbeResult:
        """Wait until a TCP port is open, at most ``timeout`` seconds, and return a probe of it.

        Raises TimeoutError with the path and the verdict of the last moment.
        """
        from pytest_poorcontainer.probe.sweep import until_open  # noqa: PLC0415 - not every test waits

        if timeout < 0:
            raise UsageError(f"a timeout is not negative: {timeout}")
        ground = self._ground(source, target)
        version = _checked_version(options.pop("version", None))
        address, port = target_of(ground, *_pair(target), "tcp", version)
        opened = until_open(ground, address, checked_port(port), timeout)
        result = probe(ground, _ask({"patience": 0.0, **options}), address, port, self._memory)
        if not opened and not result.open:
            raise TimeoutError(failure(result, f"open within {timeout} s"))
        return result

    def matrix(
        self,
        sources: Iterable[Host | None],
        targets: Sequence[Any],
        ports: Sequence[int],
        *,
        version: int | None = None,
    ) -> Matrix:
        """Return the states of all ports of all targets as seen from all sources, each source's in one wave.

        It compares with a dict: ``tcp_probe.matrix([client], [db], ports=[22, 5432]).assert_equal({22: "closed",
        5432: "open"})``. A source that is a target too is left out as its own target.
        """
        from pytest_poorcontainer.probe.sweep import sweep  # noqa: PLC0415 - as above

        table = Matrix()
        for source in sources:
            ground = self._ground(source, *targets)
            asked = [(target, port) for target in targets if target is not source for port in ports]
            found = [target_of(ground, target, port, "tcp", _checked_version(version)) for target, port in asked]
            states = sweep(ground, [(address, checked_port(port)) for address, port in found])
            for (target, port), state in zip(asked, states, strict=True):
                name = target.name if isinstance(target, Host) else str(target)
                table[ground.name or "this machine", name, port] = state
        return table


def _pair(target: Any) -> tuple[object, object]:
    """Return host and port of a target. Raises :class:`UsageError`."""
    if isinstance(target, str):
        host, colon, port = target.rpartition(":")
        if colon and port.isdigit() and (":" not in host or host.startswith("[")):
            return host.strip("[]"), int(port)
        raise UsageError(f"expected a target as (host, port) or 'host:port', got {target!r}")
    try:
        host, port = target
    except (TypeError, ValueError):
        raise UsageError(f"expected a target as (host, port), got {target!r}") from None
    return host, port


def _checked_version(version: int | None) -> int | None:
    if version not in (None, 4, 6):
        raise UsageError(f"version is 4, 6 or None, not {version!r}")
    return version


def _ask(options: dict[str, Any]) -> Ask:
    try:
        return Ask.of(**options)
    except TypeError:
        known = Ask.of.__func__.__kwdefaults__ or {}  # type: ignore[attr-defined]
        wrong = ", ".join(sorted(set(options) - set(known)))
        if not wrong:
            raise
        raise UsageError(f"a probe has no option {wrong}; there are {', '.join(known)}, version, probe") from None
