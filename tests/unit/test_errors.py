"""Steps of which several fail: each is taken, and each error is told."""

import functools
import traceback

import pytest

from pytest_poorcontainer.errors import do_all


def fail(word, *, cause=None, hidden=None, done=None):
    """Raise an error that says a word, maybe from a cause or in place of an error that it hides."""
    if done is not None:
        done.append(word)
    if hidden is not None:
        try:
            {}[hidden]
        except KeyError:
            raise ValueError(word) from None
    if cause is not None:
        raise ValueError(word) from TypeError(cause)
    raise ValueError(word)


@pytest.mark.parametrize("more", [{}, {"cause": "why"}, {"hidden": "never shown"}], ids=["bare", "from", "from None"])
def test_every_step_is_taken_and_every_error_is_told(more):
    """In their order, with their causes, whether or not an error has one."""
    done = []
    steps = [functools.partial(fail, word, done=done, **more) for word in ("one", "two", "three")]
    with pytest.raises(ValueError, match="three") as caught:
        do_all([steps[0], lambda: done.append("fine"), *steps[1:]])
    assert done == ["one", "fine", "two", "three"]
    lines = "".join(traceback.format_exception(caught.value)).splitlines()
    told = [
        line.rpartition(": ")[2] for line in lines if line.startswith(("ValueError: ", "TypeError: ", "KeyError: "))
    ]
    assert told == [
        word for error in ("one", "two", "three") for word in ([more["cause"]] if "cause" in more else []) + [error]
    ]


def test_what_was_handled_meanwhile_is_told_too():
    """The failure of a test whose block ends by it is shown before the errors of its end."""

    def leave_a_block():
        try:
            raise AssertionError("the test")
        finally:
            do_all([functools.partial(fail, "one"), functools.partial(fail, "two")])

    with pytest.raises(ValueError, match="two") as caught:
        leave_a_block()
    chain = [caught.value, caught.value.__context__, caught.value.__context__.__context__]
    assert [str(error) for error in chain] == ["two", "one", "the test"]
    assert chain[-1].__context__ is None


def test_an_error_that_is_raised_twice_is_no_circle():
    """Two steps that raise one and the same object, and one that raises what another one came from."""
    same = ValueError("same")

    def again(error=same):
        raise error

    with pytest.raises(ValueError, match="same") as caught:
        do_all([again, again])
    assert caught.value.__context__ is None
    outer = TypeError("outer")
    outer.__context__ = same
    with pytest.raises(ValueError, match="same"):
        do_all([functools.partial(again, outer), again])
    assert len(traceback.format_exception(same)) < 50


def test_nothing_is_raised_when_nothing_fails():
    """Not even an error that is being handled."""
    try:
        fail("handled")
    except ValueError:
        do_all([list])
