"""Who may talk to whom, on which ports: a table of states, compared in one go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Matrix"]


class Matrix(dict[tuple[str, str, int], str]):
    """States by (source, target, port), names as text. It compares with a dict, whose keys may be shorter.

    Where there is but one source its name may be left out, and where there is but one target its name too:
    ``{22: "closed", 5432: "open"}``. Hosts may stand for their names.
    """

    def _key(self, key: object) -> tuple[str, str, int]:
        parts = [getattr(part, "name", part) for part in (key if isinstance(key, tuple) else (key,))]
        sources = list(dict.fromkeys(source for source, _, _ in self))
        targets = list(dict.fromkeys(target for _, target, _ in self))
        if len(parts) == 1 and len(targets) == 1:
            parts.insert(0, targets[0])
        if len(parts) == 2 and len(sources) == 1:  # noqa: PLR2004
            parts.insert(0, sources[0])
        found = tuple(parts)
        if found not in self:
            raise UsageError(f"{key!r} is no key of this matrix; there are {', '.join(map(str, self))}")
        return found  # type: ignore[return-value]

    def differences(self, wanted: Mapping[object, str]) -> Iterator[str]:
        """Yield a line for each state that is not the wanted one, and for each that nobody wanted."""
        full = {self._key(key): state for key, state in wanted.items()}
        for key, state in self.items():
            source, target, port = key
            expected = full.get(key, "nothing said")
            if state != expected:
                yield f"{source} -> {target}:{port} expected {expected}, is {state.upper()}"

    def assert_equal(self, wanted: Mapping[object, str]) -> None:
        """Assert that these are the states, all of them. Raises AssertionError with every difference."""
        __tracebackhide__ = True
        lines = list(self.differences(wanted))
        if lines:
            raise AssertionError("\n".join([f"{len(lines)} of {len(self)} differ:", *lines]))

    def __eq__(self, other: object) -> bool:
        """Compare with a dict of states, in long or short form."""
        if not isinstance(other, dict):
            return NotImplemented
        try:
            return not list(self.differences(other))
        except UsageError:
            return False

    def __ne__(self, other: object) -> bool:
        """Say the opposite of equality."""
        return not self == other

    __hash__ = None

    def __str__(self) -> str:
        """Return a line for each state."""
        return "\n".join(f"{source} -> {target}:{port} {state}" for (source, target, port), state in self.items())
