"""A worker of the benchmarks: ``host.call``, the first and the later ones, by name and with a closure.

For each line on standard input it does one round and answers with one line of JSON; run by ``tests/benchmarks``.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer import Network

if TYPE_CHECKING:
    from collections.abc import Callable

MEGABYTE = bytes(1 << 20)


def taken(call: Callable[[], Any]) -> float:
    """Return how many microseconds a call takes."""
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e3


def main() -> None:
    """Answer line after line until there are no more."""
    base = Path(tempfile.mkdtemp(prefix="bench-"))
    with Network(basetemp=base) as network, ProcessPoolExecutor(1) as pool:
        pool.submit(os.getpid).result()
        kept = network.pair("primary", "replica").a
        offset = 1
        ways: list[tuple[str, Callable[[], Any]]] = [
            ("named", lambda: kept.call(os.getpid)),
            ("megabyte", lambda: kept.call(len, MEGABYTE)),
            ("peer", lambda: pool.submit(os.getpid).result()),
        ]
        try:
            import cloudpickle  # noqa: F401
        except ImportError:
            pass  # the system's Python, for an ordinary user: what follows is left out
        else:
            ways.append(("closure", lambda: kept.call(lambda x: x + offset, 1)))
        for _, way in ways:
            way()
        gc.collect()
        gc.freeze()
        for _ in sys.stdin:
            random.shuffle(ways)
            figures = {name: taken(way) for name, way in ways}
            with network.pair("first", "other") as pair:
                figures["first"] = taken(lambda host=pair.a: host.call(os.getpid))
            print(json.dumps(figures), flush=True)
    base.rmdir()


if __name__ == "__main__":
    main()
