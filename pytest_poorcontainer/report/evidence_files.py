"""The rest of a report's files: frames, timeline, conversations, states for programs, and the page that has it all."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import PoorContainerError
from pytest_poorcontainer.report.files import write_file
from pytest_poorcontainer.report.index import INDEX, PAGE, STATES, index
from pytest_poorcontainer.report.page import LOG_MOST, Story, page
from pytest_poorcontainer.report.states import states
from pytest_poorcontainer.report.text import conversations_text, timeline_text, topology_text
from pytest_poorcontainer.traffic.pcapng import blocks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pytest_poorcontainer.report.traffic import Traffic

__all__ = ["complete", "write_index"]

_FRAMES = "traffic.pcapng"
_TIMELINE, _CONVERSATIONS, _TOPOLOGY = "timeline.txt", "conversations.txt", "topology.txt"
_EVERY = 100_000
_MOST_CONVERSATIONS = 50


def complete(place: Path, story: Story) -> None:
    """Write them beside the files of :meth:`ReportDirectory.write`, which are read. Raises OSError."""
    for name in (_FRAMES, STATES, PAGE):
        with contextlib.suppress(FileNotFoundError):
            (place / name).unlink()
    _write_text(place / _TOPOLOGY, topology_text(story.networks))
    if story.traffic is not None:
        _write_traffic(place, story, story.traffic)
    text = json.dumps(states(story), indent=1, ensure_ascii=True)
    write_file(place / STATES, [text.encode(), b"\n"])
    services = [f"log of {service.name} on {host.name}" for host in story.hosts for service in host.services]
    paths = sorted(place.glob("logs/*.log"), key=lambda path: int(path.name.partition("-")[0]))
    logs = [(title, f"logs/{path.name}", _tail(path)) for title, path in zip(services, paths, strict=False)]
    files = sorted(path.name for path in place.iterdir() if path.is_file() and path.name != PAGE)
    words = page(replace(story, files=files, logs=logs))
    write_file(place / PAGE, [words.encode("utf-8", "backslashreplace")])


def _write_traffic(place: Path, story: Story, traffic: Traffic) -> None:
    if traffic.interfaces and not traffic.trouble:
        comment = (
            f"{story.test}, attempt {story.attempt}, {story.phase}: each frame once, at the interface that sent it"
        )
        lost = f"; {traffic.lost} frames of this pytest were lost" if traffic.lost else ""
        with contextlib.suppress(PoorContainerError):  # it has ended since: then there are no frames to be had
            frames = traffic.export()
            write_file(place / _FRAMES, [*blocks(traffic.interfaces, (), comment=comment + lost), frames])
    _write_text(place / _TIMELINE, timeline_text(traffic, _EVERY))
    _write_text(place / _CONVERSATIONS, conversations_text(traffic, _MOST_CONVERSATIONS))


def _write_text(path: Path, text: str) -> None:
    """Write a file, unless there is nothing to say."""
    if text:
        write_file(path, [text.encode("utf-8", "backslashreplace"), b"\n"])


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - LOG_MOST, 0))
        return file.read(LOG_MOST).decode("utf-8", "backslashreplace")


def write_index(root: Path, places: Iterable[Path]) -> Path:
    """Write the index over a run's reports, and return where. Raises OSError."""

    def pieces() -> Iterator[bytes]:
        yield index(root, places).encode("utf-8", "backslashreplace")

    target = root / INDEX
    with contextlib.suppress(FileNotFoundError):
        target.unlink()
    write_file(target, pieces())
    return target
