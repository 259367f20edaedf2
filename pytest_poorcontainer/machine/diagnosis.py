"""Everything that ``poor-container doctor`` shows, as one value of plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pytest_poorcontainer.machine.facts import read_facts
from pytest_poorcontainer.machine.levels import level
from pytest_poorcontainer.machine.names import PURPOSES
from pytest_poorcontainer.machine.needs import FIXTURE_NEEDS, fixtures_ready
from pytest_poorcontainer.machine.probing import features, privilege

__all__ = ["diagnose"]


def diagnose() -> dict[str, Any]:
    """Return the diagnosis, made of strings, numbers, booleans, lists and dicts.

    Keys: ``version`` (1) of this shape; ``kernel``, ``architecture``, ``uid``, ``user``, ``engine`` (the container
    engine we seem to run in, or ""); ``privilege``: "root", "userns" or ""; ``level``: ``name``, ``reason``, ``built``;
    ``fixtures`` and ``features``, by name: ``works``, ``reason``, ``remedy``, ``detail``, and ``needs`` or ``purpose``;
    ``ready``: every fixture can work.
    """
    facts = read_facts()
    fixtures = {
        name: {**_shown(feature), "needs": list(FIXTURE_NEEDS[name])} for name, feature in fixtures_ready().items()
    }
    return {
        "version": 1,
        "kernel": facts.release,
        "architecture": facts.architecture,
        "uid": facts.uid,
        "user": facts.user,
        "engine": facts.engine,
        "privilege": privilege(),
        "level": asdict(level()),
        "ready": all(fixture["works"] for fixture in fixtures.values()),
        "fixtures": fixtures,
        "features": {name: {**_shown(feature), "purpose": PURPOSES[name]} for name, feature in features().items()},
    }


def _shown(feature: Any) -> dict[str, Any]:
    return {key: value for key, value in asdict(feature).items() if key != "name"}
