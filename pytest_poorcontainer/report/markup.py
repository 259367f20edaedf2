"""HTML and SVG made of strangers' texts: what goes in is escaped here, and nowhere else."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from pytest_poorcontainer.report.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Markup", "document", "element", "join", "text"]


class Markup(str):
    """A piece of a page that is escaped already."""

    __slots__ = ()


def text(words: object) -> Markup:
    """Return a text as it is shown: no tag of its own, no control character, no half of a surrogate pair."""
    return Markup(html.escape(clean(str(words)), quote=True))


def element(tag: str, *inside: object, **attributes: object) -> Markup:
    """Return an element. What is inside is escaped unless it is :class:`Markup`; so are the values of attributes.

    An attribute's name ends with ``_`` where it is a word of Python's, and has ``_`` for ``-``; None leaves it out.
    """
    named = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{text(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{named}>{join(inside)}</{tag}>")


def join(parts: Iterable[object], between: str = "") -> Markup:
    """Return the parts one after the other, escaped unless they are."""
    return Markup(between.join(part if isinstance(part, Markup) else text(part) for part in parts))


def document(title: str, *body: object) -> str:
    """Return a page that needs nothing but itself, and that runs nothing (Content-Security-Policy)."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    head = join(
        (
            Markup('<meta charset="utf-8">'),
            Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
            Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            Markup('<meta name="color-scheme" content="light dark">'),
            Markup('<link rel="icon" href="data:,">'),
            element("title", title),
            Markup(f"<style>{_STYLE}</style>"),
        ),
        "\n",
    )
    inside = element("body", Markup("\n"), join(body, "\n"), Markup("\n"))
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n{inside}\n</html>\n'


_STYLE = """
:root { color-scheme: light dark; --ground: #ffffff; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de;
  --raised: #f6f8fa; --good: #1a7f37; --bad: #b42318; --warm: #9a6700; --link: #0550ae; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171c; --ink: #e2e6eb; --soft: #98a2ae; --line: #363d47;
  --raised: #1d2229; --good: #56c26a; --bad: #ff7b70; --warm: #e3b341; --link: #79b8ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 70rem; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.35rem; line-height: 1.3; margin: 0 0 .25rem; }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0; }
a { color: var(--link); }
.soft { color: var(--soft); }
.good { color: var(--good); } .bad { color: var(--bad); } .warm { color: var(--warm); }
pre, code, .mono { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: 13px; }
pre { margin: .5rem 0; padding: .75rem 1rem; background: var(--raised); border: 1px solid var(--line);
  border-radius: 6px; overflow-x: auto; white-space: pre-wrap; max-height: 32rem; overflow-y: auto; }
.wide { overflow-x: auto; }
ul.odd { margin: .5rem 0; padding: .5rem 1rem .5rem 2rem; border-left: 4px solid var(--bad);
  background: var(--raised); }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: break-word; }
th { font-weight: 600; color: var(--soft); font-size: 13px; }
details { margin: .5rem 0; border: 1px solid var(--line); border-radius: 6px; padding: .4rem .75rem; }
summary { cursor: pointer; }
figure { margin: .5rem 0 1rem; padding: .75rem; border: 1px solid var(--line); border-radius: 6px; overflow-x: auto; }
figcaption { margin-bottom: .25rem; }
svg { display: block; max-width: 100%; height: auto; margin: 0 auto; }
svg text { fill: var(--ink); font: 12px ui-monospace, "DejaVu Sans Mono", monospace; }
svg text.soft { fill: var(--soft); } svg text.bad { fill: var(--bad); } svg text.warm { fill: var(--warm); }
svg .rail, svg .wire { stroke: var(--soft); stroke-width: 1.5; }
svg .wire.bad { stroke: var(--bad); stroke-dasharray: 6 5; }
svg .arrow { stroke: var(--ink); stroke-width: 1.2; } svg .arrow.bad { stroke: var(--bad); }
svg .head { fill: var(--ink); } svg .head.bad { fill: var(--bad); }
svg .node { fill: var(--raised); stroke: var(--soft); stroke-width: 1.5; } svg .node.bad { stroke: var(--bad); }
svg text.over { paint-order: stroke; stroke: var(--ground); stroke-width: 4px; }
@media (max-width: 40rem) { body { padding: 1rem; } svg { min-width: 40rem; } }
svg .bar { fill: var(--link); } svg .event { stroke: var(--warm); stroke-width: 1.2; stroke-dasharray: 3 3; }
""".strip()
