"""Impaired links in words, for reports."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from pytest_poorcontainer.network.units import rate_text, share_text, time_text

if TYPE_CHECKING:
    from pytest_poorcontainer.network.link import Link
    from pytest_poorcontainer.network.medium import Impairment

__all__ = ["described"]

_WORDS = {"delay": time_text, "jitter": time_text, "rate": rate_text}


def described(link: Link) -> str:
    """Return its state, what carries its frames, and what happens to packets: "up, wire, from a: delay 20ms"."""
    ways: dict[str, list[str]] = {}
    for name, impairment in link.impairment.items():
        ways.setdefault(_words(impairment), []).append(name)
    parts = [f"from {' and '.join(sorted(names))}: {words}" for words, names in ways.items()]
    return ", ".join([link.state, link.medium, *parts])


def _words(impairment: Impairment) -> str:
    said = [(field.name, getattr(impairment, field.name)) for field in fields(impairment) if field.name != "precise"]
    return " ".join(f"{name} {_WORDS.get(name, share_text)(value)}" for name, value in said if value) or "no fault"
