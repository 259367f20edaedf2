"""From the probe program's lines to features, fixtures and levels."""

import json
from pathlib import Path

import pytest

from pytest_poorcontainer import machine
from pytest_poorcontainer.errors import PoorContainerError, Unavailable, UsageError
from pytest_poorcontainer.machine import levels, needs, probing
from pytest_poorcontainer.machine.names import PURPOSES
from pytest_poorcontainer.machine.needs import CONTAINER_NEEDS, FIXTURE_NEEDS

PRIVATE_SPACES = ("mountns", "pidns", "netns", "utsns", "ipcns", "cgroupns")


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Put a shell script in the probe program's place, and forget what the real one said."""

    def replace(script):
        path = tmp_path / "pcprobe"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    monkeypatch.setenv("POOR_CONTAINER_NATIVE", str(tmp_path))
    monkeypatch.setattr(probing, "_examined", None)
    return replace


@pytest.fixture
def answers(program, tmp_path):
    """Make the probe program answer that all works but the given ones."""

    def say(via="root", **failing):
        lines = []
        for name in PURPOSES:
            errno, step = failing.get(name, (0, ""))
            works = name not in failing
            line = {"feature": name, "works": works, "errno": errno, "step": step, "detail": "", "via": via}
            lines.append(json.dumps(line))
        (tmp_path / "lines").write_text("\n".join(lines))
        program(f"echo once >> {tmp_path}/count; cat {tmp_path}/lines")

    return say


def test_the_program_runs_once_a_process(answers, tmp_path):
    """However often features are asked for, the machine is probed once, and again only on demand."""
    answers()
    assert machine.features() == machine.features()
    machine.require("veth")
    assert (tmp_path / "count").read_text() == "once\n"
    machine.features(refresh=True)
    assert (tmp_path / "count").read_text() == "once\nonce\n"


def test_what_features_returns_may_be_changed(answers):
    """A caller that changes the dict it was given changes nobody else's."""
    answers()
    machine.features().clear()
    assert set(machine.features()) == set(PURPOSES)


def test_a_feature_that_works_has_no_reason(answers):
    """A working feature has an empty reason and remedy."""
    answers()
    assert machine.features()["veth"] == machine.Feature("veth", True, "", "")


def test_require_names_the_first_missing_one(answers):
    """require() raises for the first feature missing, with its reason and its remedy."""
    answers(netem=(2, "add the netem queueing discipline"), tun=(2, "open /dev/net/tun"))
    machine.require("veth", "netns")
    with pytest.raises(Unavailable) as caught:
        machine.require("veth", "netem", "tun")
    assert caught.value.feature == "netem"
    assert "CONFIG_NET_SCH_NETEM" in caught.value.reason
    assert "modprobe sch_netem" in caught.value.remedy
    assert "netem does not work here: cannot add the netem" in str(caught.value)


def test_of_two_alternatives_one_is_enough(answers):
    """``a|b`` is met by either of the two."""
    answers(pivot_root=(1, "pivot_root"))
    machine.require("pivot_root|mount_move")
    assert machine.fixtures_ready()["netns_pair"].works
    answers(pivot_root=(1, "pivot_root"), mount_move=(1, "move a mount onto /"))
    machine.features(refresh=True)
    with pytest.raises(Unavailable, match=r"^pivot_root does not work here"):
        machine.require("pivot_root|mount_move")


def test_an_unknown_feature_is_a_usage_error_with_the_nearest_name(answers):
    """A name with a typo is told apart from a feature that does not work."""
    answers()
    with pytest.raises(UsageError, match=r"no feature 'vetch'; did you mean 'veth'"):
        machine.require("vetch")


def test_without_root_and_user_namespaces_the_true_cause_is_told(answers):
    """A network namespace that is refused because user namespaces are is explained by these."""
    refused = dict.fromkeys(("mountns", "overlay", "veth"), (1, "make a mount namespace"))
    answers(via="", userns=(1, "make a user namespace"), **refused)
    found = machine.features()
    for name in refused:
        assert found[name].reason.endswith(f"needs a user namespace for it: {found['userns'].reason}")
        assert found[name].remedy == found["userns"].remedy
    assert machine.privilege() == ""


@pytest.mark.parametrize("fixture", FIXTURE_NEEDS)
def test_a_fixture_is_ready_when_all_that_it_needs_works(answers, fixture):
    """One missing need makes a fixture unready, and is named with its reason and remedy."""
    answers()
    assert machine.fixtures_ready()[fixture].works
    for need in FIXTURE_NEEDS[fixture]:
        answers(**dict.fromkeys(need.split("|"), (1, "do it")))
        machine.features(refresh=True)
        ready = machine.fixtures_ready()[fixture]
        assert not ready.works
        assert ready.reason.startswith(f"{need.split('|')[0]}: cannot do it: EPERM (")


def test_all_needs_are_features_or_alternatives_of_features():
    """The tables of needs name only features that exist."""
    told = [*FIXTURE_NEEDS.values(), *levels._NEEDS.values()]
    assert {name for row in told for need in row for name in need.split("|")} <= set(PURPOSES)
    assert set(needs.FIXTURE_NEEDS) == {
        "chroot_env",
        "cow_dir",
        "netns_pair",
        "network",
        "unshared_mounts",
        "tcp_probe",
    }


@pytest.mark.parametrize(
    ("failing", "reached", "why"),
    [
        ((), "namespaces", ""),
        (("netns",), "mounts", "not namespaces, for want of netns: "),
        (PRIVATE_SPACES, "chroot", "not mounts, for want of mountns: "),
        ((*PRIVATE_SPACES, "chroot"), "ptrace", "not chroot, for want of chroot: "),
        ((*PRIVATE_SPACES, "chroot", "ptrace"), "preload", "not ptrace, for want of ptrace: "),
        ((*PRIVATE_SPACES, "chroot", "ptrace", "preload"), "", "not preload, for want of preload: "),
    ],
)
def test_the_level_is_the_highest_rung_whose_needs_work(answers, monkeypatch, failing, reached, why):
    """The ladder is climbed down until a rung holds, and the reason is that of the rung above."""
    monkeypatch.setattr(probing.shutil, "which", lambda _name: "/usr/bin/proot")
    answers(**dict.fromkeys(failing, (1, "do it")))
    level = machine.level()
    assert level.name == reached
    assert level.reason.startswith(why)
    assert bool(level.reason) == bool(why)
    assert level.built == (reached == "namespaces")


def test_the_upper_level_needs_what_containers_need():
    """The level of containers is reached exactly where a container can be made."""
    assert levels._NEEDS["namespaces"] == CONTAINER_NEEDS


def test_a_name_without_an_answer_is_no_working_feature(program):
    """What an older probe program does not know does not count as working."""
    program("""echo '{"feature": "veth", "works": true, "errno": 0, "step": "", "detail": "", "via": "root"}'""")
    found = machine.features()
    assert found["veth"].works
    assert not found["netem"].works
    assert "ended before" in found["netem"].reason


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo broken >&2; exit 3", r"ended with status 3 and said broken"),
        ("kill -9 $$", r"ended with status -9 and said nothing"),
    ],
)
def test_a_program_that_fails_is_an_error_of_ours(program, script, expected):
    """When the probe program fails, the error says so and repeats its words."""
    program(script)
    with pytest.raises(PoorContainerError, match=expected):
        machine.features()


def test_a_program_that_cannot_be_executed_is_an_error_of_ours(program, tmp_path):
    """A probe program for another architecture, or on a noexec mount, gives a clear error."""
    program("exit 0")
    (tmp_path / "pcprobe").write_bytes(b"\x7fELF of nowhere")
    with pytest.raises(PoorContainerError, match="noexec"):
        machine.features()


def test_a_missing_program_is_an_error_that_says_how_to_build_it(program):
    """Without the compiled program the error names the way to get it."""
    with pytest.raises(PoorContainerError, match="make build"):
        machine.features()


def test_the_page_about_levels_says_what_the_code_says():
    """docs/levels.md names the needs of every level, and calls no level built that is not."""
    page = (Path(__file__).parents[2] / "docs/levels.md").read_text()
    for name, needed in levels._NEEDS.items():
        assert f"| `{name}` | {', '.join(needed).replace('|', ' or ')} |\n" in page
    rows = [line for line in page.partition("## What each")[0].splitlines() if line.startswith("| `")]
    for row in rows:
        name = row.split("`")[1]
        assert ("not built" in row) == (name not in levels.BUILT)
    assert {row.split("`")[1] for row in rows} == set(machine.LEVELS)
    for need in set(FIXTURE_NEEDS["netns_pair"]) - set(CONTAINER_NEEDS):
        assert need in page
