"""Results in words: the one line of a repr, the lines of a failed expectation, the whole explanation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_poorcontainer.probe.result import ProbeResult

__all__ = ["explain", "explanation", "failure", "flow_text", "path_line", "summary"]

_ROOM = 8  # hops shown in one line


def flow_text(result: ProbeResult) -> str:
    """Return "tcp 10.9.0.1 -> 10.9.10.2:83"."""
    target = f"[{result.target}]" if ":" in result.target and result.port is not None else result.target
    port = "" if result.port is None else f":{result.port}"
    return f"{result.protocol} {result.source} -> {target}{port}"


def _where(result: ProbeResult) -> str:
    if result.at is None or result.state in ("open", "closed", "reached"):
        return ""
    if result.state == "filtered" and not result.rule and not result.sure:
        if len(result.candidates) > 1:
            return " at " + " or ".join(str(one) for one in result.candidates)
        return f" at or behind {result.at}"
    return f" at {result.at}"


def summary(result: ProbeResult) -> str:
    """Return flow, state and place in one line."""
    code = f" ({result.code})" if result.code and result.state in ("rejected", "unreachable") else ""
    return f"{flow_text(result)} is {result.state.upper()}{code}{_where(result)}"


def path_line(result: ProbeResult) -> str:
    """Return the hops in one line; of many the first and the last ones."""
    hops = list(result.hops)
    if not hops:
        return "no router on the way" if result.reached else "no hop answered"
    shown = [f"{hop.ttl} {hop}" for hop in hops]
    if len(shown) > _ROOM:
        shown = [*shown[: _ROOM // 2], "...", *shown[-_ROOM // 2 :]]
    return " | ".join(shown)


def _reason(result: ProbeResult) -> list[str]:
    lines = []
    if result.rule:
        lines.append(result.rule)
    elif result.why:
        lines.append(result.why)
    if result.seen_in:
        lines.append("SYN seen: " + " ".join(result.seen_in))
    lines += result.evidence
    lines += [str(one) for one in result.findings]
    return lines


def failure(result: ProbeResult, expected: str) -> str:
    """Return the message of a failed expectation: what was expected, what is, the path, and why."""
    code = f" ({result.code})" if result.code and result.state in ("rejected", "unreachable") else ""
    silence = ""
    if result.state == "filtered":
        silence = f" (no answer to {result.asked} probe{'s' * (result.asked != 1)} in {result.seconds * 1000:.0f} ms)"
    head = f"{flow_text(result)} expected {expected}, is {result.state.upper()}{code}{_where(result)}{silence}"
    return "\n".join([head, f" {path_line(result)}", *(f"{line}" for line in _reason(result))])


def explanation(result: ProbeResult) -> str:
    """Return the verdict, and what it rests on."""
    sure = "" if result.sure or result.state != "filtered" else " (which of them cannot be told from here)"
    lines = [summary(result) + sure, *(f"  {line}" for line in _reason(result))]
    if result.mtu is not None:
        lines.append(f"  {result.mtu}")
    lines.append(f"  ({result.mode}: {result.sent} packets, {result.seconds * 1000:.1f} ms)")
    return "\n".join(lines)


def explain(result: ProbeResult) -> str:
    """Return verdict, path with one line for each hop, evidence and findings."""
    head, *rest = explanation(result).split("\n")
    lines = [head, *(f"  {hop.ttl:2} {hop}" for hop in result.hops)]
    if result.reached:
        rtt = f" {result.rtt * 1000:.2f} ms" if result.rtt is not None else ""
        lines.append(f"  {len(result.hops) + 1:2} {result.target_name or result.target} [{result.state}]{rtt}")
    return "\n".join([*lines, *rest])
