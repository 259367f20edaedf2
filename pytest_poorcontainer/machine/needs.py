"""Which features the fixtures stand on. ``a|b`` means that either will do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import Unavailable, UsageError
from pytest_poorcontainer.machine.probing import Feature, features

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CONTAINER_NEEDS", "FIXTURE_NEEDS", "first_missing", "fixtures_ready", "require"]

# The steps of preload/lab, one feature each. clone3 is no need: the lab falls back to clone.
CONTAINER_NEEDS = (
    "mountns",
    "pidns",
    "netns",
    "utsns",
    "ipcns",
    "cgroupns",
    "overlay",
    "fresh_proc",
    "private_dev",
    "pivot_root|mount_move",
    "mount_setattr",
    "pidfd",
    "close_range",
)

FIXTURE_NEEDS: dict[str, tuple[str, ...]] = {
    "chroot_env": CONTAINER_NEEDS,
    "cow_dir": (),  # of its backends one always works: a copy
    "netns_pair": (*CONTAINER_NEEDS, "veth", "tc_clsact", "cls_bpf", "mirred"),
    "network": (*CONTAINER_NEEDS, "veth", "tc_clsact", "cls_bpf", "mirred", "bridge"),
    "unshared_mounts": CONTAINER_NEEDS,
    "tcp_probe": (*CONTAINER_NEEDS, "veth", "tc_clsact", "cls_bpf", "mirred", "raw_socket", "packet_socket"),
}


def require(*names: str) -> None:
    """Do nothing when all these features work here.

    Raises :class:`Unavailable` naming the first one that does not, why, and what to do; :class:`UsageError` for a name
    that no feature has.
    """
    found = features()
    for name in names:
        for one in name.split("|"):
            if one not in found:
                raise UsageError(_unknown(one, found))
    missing = first_missing(names, found)
    if missing:
        raise Unavailable(missing.name, missing.reason, missing.remedy)


def fixtures_ready() -> dict[str, Feature]:
    """Return for each fixture whether all that it stands on works; ``detail`` lists what that is."""
    found = features()
    ready = {}
    for fixture, needs in FIXTURE_NEEDS.items():
        missing = first_missing(needs, found)
        ready[fixture] = Feature(
            fixture,
            missing is None,
            f"{missing.name}: {missing.reason}" if missing else "",
            missing.remedy if missing else "",
            ", ".join(needs),
        )
    return ready


def first_missing(needs: tuple[str, ...], found: Mapping[str, Feature]) -> Feature | None:
    """Return the first feature needed that does not work; of alternatives the one named first."""
    for need in needs:
        alternatives = [found[name] for name in need.split("|")]
        if not any(feature.works for feature in alternatives):
            return alternatives[0]
    return None


def _unknown(name: str, found: Mapping[str, Feature]) -> str:
    import difflib  # noqa: PLC0415 - only for a message

    near = difflib.get_close_matches(name, found, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(found)}"
    return f"there is no feature {name!r}{hint}"
