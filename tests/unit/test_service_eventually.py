"""Conditions that become true in a while."""

import itertools

import pytest

from pytest_poorcontainer import UsageError, eventually


def test_value_of_the_first_success():
    """What the check returns at last is returned; before, its assertions may fail."""
    numbers = itertools.count()

    def check():
        number = next(numbers)
        assert number >= 3
        return number

    assert eventually(check) == 3


def test_false_is_not_yet():
    """A check that returns False is made again, so that a bare comparison means what it says."""
    numbers = itertools.count()
    assert eventually(lambda: next(numbers) > 2) is True
    with pytest.raises(AssertionError, match="returned False"):
        eventually(lambda: False, timeout=0.01)


def test_other_falsy_values_are_values():
    """None, 0 and an empty list are results like others."""
    assert eventually(lambda: None) is None
    assert eventually(lambda: 0) == 0
    assert eventually(list) == []


def test_failure_shows_the_last_assertion():
    """After the time the last assertion is raised, with a note of how often was tried."""
    numbers = itertools.count(1)

    def check():
        raise AssertionError(f"try {next(numbers)}")

    with pytest.raises(AssertionError, match=r"^try \d+") as caught:
        eventually(check, timeout=0.05)
    tries = next(numbers) - 1
    assert tries >= 2
    told = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert f"try {tries}\n" in told
    assert f"{tries} tries" in told


def test_no_time_is_one_try():
    """With no time at all the check is made once."""
    calls = []
    with pytest.raises(AssertionError):
        eventually(lambda: calls.append(1) or False, timeout=0)
    assert calls == [1]


def test_other_exceptions_pass():
    """An exception that is no failed assertion is not waited out."""
    calls = []

    def check():
        calls.append(1)
        raise KeyError("x")

    with pytest.raises(KeyError):
        eventually(check)
    assert calls == [1]


def test_coroutine_functions_are_refused():
    """A coroutine function would seem to succeed at once: it is refused."""

    async def check():
        raise AssertionError

    with pytest.raises(UsageError, match="coroutine"):
        eventually(check)


@pytest.mark.parametrize("timeout", [None, -1, "1", True, float("nan")])
def test_a_timeout_that_is_none(timeout):
    """What is no number of seconds is refused before anything is tried."""
    with pytest.raises(UsageError, match="expected seconds"):
        eventually(lambda: pytest.fail("it was tried"), timeout=timeout)
