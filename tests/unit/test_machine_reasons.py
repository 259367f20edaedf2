"""Reasons and remedies: a table of what other people's machines answered."""

import errno
import itertools
import json
from pathlib import Path

import pytest

from pytest_poorcontainer.machine import names, reasons
from pytest_poorcontainer.machine.facts import Facts, read_facts

CASES = json.loads(Path(__file__).with_suffix(".json").read_text())


def some_facts(**changes):
    """Return the facts of an ordinary user on an ordinary kernel."""
    changes = {name: tuple(value) if name == "kernel" else value for name, value in changes.items()}
    ordinary = {
        "kernel": (6, 8),
        "release": "6.8.0",
        "architecture": "x86_64",
        "uid": 4242,
        "gid": 4242,
        "capable": False,
        "seccomp": False,
        "no_new_privs": False,
    }
    return Facts(**{**ordinary, **changes})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_the_cause_and_the_remedy_of_a_known_refusal_are_named(case):
    """Each known combination of feature, step, errno and facts gives its own cause and remedy."""
    number = getattr(errno, case["errno"]) if case["errno"] else 0
    why, remedy = reasons.explain(case["feature"], case["step"], number, some_facts(**case["facts"]))
    assert why.startswith(f"cannot {case['step']}: ")
    assert case["why"] in why
    assert case["remedy"] in remedy
    assert bool(remedy) == bool(case["remedy"])


@pytest.mark.parametrize("feature", names.PURPOSES)
def test_no_errno_is_left_alone(feature):
    """Whatever a step answers, the reason says more than the errno, and no placeholder is left in it."""
    for number, seccomp in itertools.product([0, *errno.errorcode], (False, True)):
        why, remedy = reasons.explain(feature, "do something", number, some_facts(seccomp=seccomp))
        assert number == 0 or "), because " in why
        assert len(why.rpartition("because")[2]) > 10
        assert "{" not in why + remedy


def test_every_rule_can_be_reached_by_its_feature():
    """A rule names only features that exist, so that a renamed feature cannot leave its knowledge behind."""
    assert {name for rule in reasons.RULES for name in rule.features} <= set(names.PURPOSES)


def test_every_case_of_the_table_is_about_a_feature():
    """The cases name features that exist."""
    assert {case["feature"] for case in CASES} <= set(names.PURPOSES)


def test_facts_can_be_read_on_this_machine():
    """The facts are read without an error, and the kernel's version is that of uname."""
    facts = read_facts()
    assert facts.release.startswith(f"{facts.kernel[0]}.{facts.kernel[1]}")


def test_a_uid_without_a_name_is_called_by_its_number():
    """A user that /etc/passwd does not know, as in many engines' containers, is named by the uid."""
    assert some_facts(uid=3999999).user == "3999999"
