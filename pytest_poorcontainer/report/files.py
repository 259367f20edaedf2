"""What was seen of the containers, as files: a directory per test, attempt and phase."""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING

from pytest_poorcontainer.report.text import hosts_text, links_text, mounts_text, services_text, sockets_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from pytest_poorcontainer.report.evidence import NetworkFacts, ServiceFacts

__all__ = ["ReportDirectory", "safe_name", "write_file"]

MIB = 1 << 20
_LONGEST_NAME = 120  # NAME_MAX is 255 bytes; what a person reads in a listing is less
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_EVERY_SOCKET = 100_000
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class ReportDirectory:
    """Writes below ``root``, which is made when the first report is.

    ``log`` bounds one log, ``test`` all the logs of one report and ``run`` those of all reports of this process, in
    bytes. Of a longer log the end is written, under a line that says so.
    """

    def __init__(self, root: Path, *, log: int = 16 * MIB, test: int = 64 * MIB, run: int = 1024 * MIB) -> None:
        """Remember the place and the bounds; nothing is made yet."""
        self.root = root
        self.written = 0
        self._log, self._test, self._run = log, test, run

    def write(
        self, test: str, attempt: int, phase: str, networks: Sequence[NetworkFacts], more: Iterable[tuple[str, str]]
    ) -> Path:
        """Write a report and return its directory, ``<root>/<safe name of the test>/<attempt>-<phase>``.

        ``more`` are further texts by the names of their files. The files of an earlier run's report are replaced.
        Raises OSError: no permission, no space, a path that is too long.
        """
        place = self.root / safe_name(test) / f"{attempt}-{phase}"
        logs = place / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        for old in (*place.glob("*.txt"), *logs.glob("*.log")):
            old.unlink()
        hosts = [each for network in networks for each in network.hosts]
        texts = {
            "test.txt": f"{test}\nattempt {attempt}, {phase}\n",
            "hosts.txt": hosts_text(hosts),
            "links.txt": links_text(networks),
            "mounts.txt": mounts_text(hosts),
            "services.txt": services_text(hosts),
            "sockets.txt": sockets_text(hosts, _EVERY_SOCKET),
            **{f"{safe_name(name)}.txt": text for name, text in more},
        }
        for name, text in texts.items():
            if text:
                write_file(place / name, [text.rstrip("\n").encode("utf-8", "backslashreplace"), b"\n"])
        left = self._test
        services = [(host.name, service) for host in hosts for service in host.services]
        for number, (host, service) in enumerate(services, 1):
            # The number tells two services of one name from each other, and sorts them as they were started.
            name = f"{number:02}-{safe_name(host)}.{safe_name(service.name)}.log"
            most = min(self._log, left, self._run - self.written)
            size = write_file(logs / name, _end_of_log(service, max(most, 0)))
            left -= size
            self.written += size
        return place


def _end_of_log(service: ServiceFacts, most: int) -> Iterator[bytes]:
    """Yield the whole log of a service, or its last ``most`` bytes; what cannot be read is told in its place."""
    try:
        log = service.service.log.encode("utf-8", "backslashreplace")
    except Exception as error:  # noqa: BLE001 - the other files are worth having
        yield f"[cannot be read: {type(error).__name__}: {error}]\n".encode()
        return
    if len(log) > most:
        yield f"[the last {most} of {len(log)} bytes]\n".encode()
    yield log[len(log) - min(most, len(log)) :]


def write_file(path: Path, pieces: Iterable[bytes]) -> int:
    """Write a file anew and return its size. A symbolic link in its place is refused (open(2), O_NOFOLLOW)."""
    size = 0
    with open(os.open(path, _NEW_FILE, 0o666), "wb") as file:  # noqa: PTH123 - from a descriptor
        for piece in pieces:
            size += file.write(piece)
    return size


def safe_name(text: str) -> str:
    """Return a file name for a node id or the name of a thing: letters, digits, ".", "_" and "-".

    "/" and "::" become "."; what loses more than that gets a hash of it, so that no two share a name.
    """
    dotted = text.replace("::", ".").replace("/", ".")
    plain = _UNSAFE.sub("_", dotted).lstrip(".-")
    if plain and plain == dotted and len(plain) <= _LONGEST_NAME:
        return plain
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    # Of a long node id the end tells more: the test's name and its parameters.
    return "-".join(filter(None, (plain[-(_LONGEST_NAME - 9) :].strip("._-"), mark)))
