"""Pictures of networks: lines of ASCII, or an SVG document without outside resources."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.network.subnets import address_text
from pytest_poorcontainer.network.topology import Node, Switch

if TYPE_CHECKING:
    from pytest_poorcontainer.network.link import Link
    from pytest_poorcontainer.network.network import Network
    from pytest_poorcontainer.network.topology import Port

__all__ = ["draw"]

_COLUMN, _ROW, _WIDTH, _HEIGHT, _MARGIN = 220, 70, 130, 36, 24
_COLOURS = {"up": "#2e7d32", "cut": "#c62828", "unplugged": "#757575", "dead": "#c62828"}


def draw(network: Network, form: str) -> str:
    """Return the picture. Raises :class:`UsageError` for a form that is none."""
    if form == "ascii":
        return _ascii(network)
    if form == "svg":
        return _svg(network)
    raise UsageError(f"a picture is drawn as 'ascii' or 'svg', not {form!r}")


def _address(port: Port | None) -> str:
    return "" if port is None else address_text(port.place.ip)


def _state(link: Link) -> str:
    """Return what is to be seen of a link that is not as it was."""
    words = [] if link.state == "up" else [link.state]
    if link.impairment:
        words.append("impaired")
    return f"  ({', '.join(words)})" if words else ""


def _vlans(link: Link) -> str:
    """Return which VLANs a cable carries, " vlan 10" or " untagged, vlan 10, 20"; nothing for one of none alone."""
    numbers = ", ".join(str(vlan) for vlan in link.vlans if vlan)
    return (" untagged," * (0 in link.vlans) + f" vlan {numbers}") if numbers else ""


def _ascii(network: Network) -> str:
    lines: list[str] = []
    drawn: set[Link] = set()
    for switch in network.switches:
        nets = [f"vlan {vlan} " * bool(vlan) + one.subnet.text(4) for vlan, one in sorted(switch.segments.items())]
        lines.append(f"[{switch.name}] {', '.join(nets)}".rstrip())
        mine = [link for link in network.links if switch in link.cable.ends and link not in drawn]
        drawn.update(mine)
        for place, link in enumerate(mine):
            stem = "`" if place == len(mine) - 1 else "|"
            end = 0 if link.cable.ends[1] is switch else 1
            port, other = link.cable.ports[end], link.cable.ends[end]
            name = f"[{other.name}]" if isinstance(other, Switch) else other.name
            vlan = _vlans(link)
            where = f"  {port.name} {_address(port)}" if port is not None else ""
            lines.append(f"{stem}-- {name}{where}{vlan}{_state(link)}")
    for link in network.links:
        if link not in drawn:
            a, b = link.cable.ports
            assert a is not None and b is not None  # noqa: S101, PT018 - no switch is at its ends
            lines.append(
                f"{a.node.name} {a.name} {_address(a)} ---- {_address(b)} {b.name} {b.node.name}{_state(link)}"
            )
    lines += [host.name for host in network.hosts if not host.cables]
    return "\n".join(lines) + "\n"


def _columns(network: Network) -> dict[Node | Switch, tuple[int, int]]:
    """Return a place for each host and switch: how far it is from the first one, and which of those it is."""
    everybody: list[Node | Switch] = [*network.topology.nodes.values(), *network.switches]
    beside: dict[Node | Switch, list[Node | Switch]] = {one: [] for one in everybody}
    for link in network.links:
        a, b = link.cable.ends
        beside[a].append(b)
        beside[b].append(a)
    places: dict[Node | Switch, tuple[int, int]] = {}
    rows: dict[int, int] = {}
    for first in everybody:
        wave = [first] if first not in places else []
        column = 0
        while wave:
            following: list[Node | Switch] = []
            for one in wave:
                if one in places:
                    continue
                places[one] = (column, rows.get(column, 0))
                rows[column] = rows.get(column, 0) + 1
                following += [other for other in beside[one] if other not in places]
            wave, column = following, column + 1
    return places


def _svg(network: Network) -> str:
    places = _columns(network)
    width = _COLUMN * (1 + max((column for column, _ in places.values()), default=0))
    height = _ROW * (1 + max((row for _, row in places.values()), default=0))
    size = f'viewBox="0 0 {width + _MARGIN} {height + _MARGIN}" font-family="sans-serif" font-size="12"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
        f"<title>{len(network.hosts)} hosts, {len(network.links)} links</title>",
    ]
    centre = {
        one: (_MARGIN + column * _COLUMN + _WIDTH // 2, _MARGIN + row * _ROW + _HEIGHT // 2)
        for one, (column, row) in places.items()
    }
    for link in network.links:
        (x1, y1), (x2, y2) = (centre[end] for end in link.cable.ends)
        dashed = ' stroke-dasharray="6 4"' if link.state != "up" else ""
        what = escape(f"{link}: {link.state}{', impaired' if link.impairment else ''}{_vlans(link)}")
        parts.append(
            f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{_COLOURS[link.state]}" stroke-width="2"{dashed}>'
            f"<title>{what}</title></line>"
        )
    for one, (x, y) in centre.items():
        fill, radius = ("#e3f2fd", 4) if isinstance(one, Switch) else ("#fff3e0" if one.forwards else "#ffffff", 14)
        first = "" if isinstance(one, Switch) or not one.ports else address_text(one.ports[0].place.ip)
        parts.append(
            f'<rect x="{x - _WIDTH // 2}" y="{y - _HEIGHT // 2}" width="{_WIDTH}" height="{_HEIGHT}" rx="{radius}" '
            f'fill="{fill}" stroke="#455a64"/>'
            f'<text x="{x}" y="{y - 2 if first else y + 4}" text-anchor="middle">{escape(one.name)}</text>'
        )
        if first:
            parts.append(f'<text x="{x}" y="{y + 12}" text-anchor="middle" fill="#607d8b">{first}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
