"""What crosses the border of a call: exceptions without their constructors, classes once, and the name of a culprit."""

import functools
import itertools
import pickle
import sys
import threading
from pathlib import Path

import pytest

from pytest_poorcontainer.container import call_pickle, callee


class Twice(Exception):
    """Would say its text twice if its constructor ran again."""

    def __init__(self, text):
        super().__init__(f"twice {text}")
        self.text = text


class Fussy(OSError):
    """Takes no arguments, but has an errno."""

    def __init__(self):
        super().__init__(5, "fussy", "file")


class Own(Exception):
    """Pickles in a way of its own."""

    def __reduce__(self):
        return Own, ("rebuilt",)


def both_ways(obj):
    """Return what an object becomes on its way through a pickle."""
    return call_pickle.loads(call_pickle.dumps(obj)[0])


def test_constructors_of_exceptions_are_not_run_again():
    """An exception comes back with the args and attributes that it had, whatever its constructor wants."""
    came = both_ways(Twice("a"))
    assert (type(came), came.args, came.text) == (Twice, ("twice a",), "a")
    came = both_ways(Fussy())
    assert (type(came), came.errno, came.filename, str(came)) == (Fussy, 5, "file", str(Fussy()))


def test_an_exceptions_own_pickle_is_respected():
    """A class that defines __reduce__ is pickled by it."""
    assert both_ways(Own("first")).args == ("rebuilt",)


def test_exceptions_inside_of_others_are_rebuilt_too():
    """Exceptions in arguments and attributes come back as themselves, also one that refers to itself."""
    outer = ValueError(Twice("inner"))
    outer.myself = outer
    came = both_ways(outer)
    assert type(came.args[0]) is Twice
    assert came.myself is came


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with Python 3.11")
def test_exception_groups_come_whole():
    """A group comes back with its members."""
    came = both_ways(ExceptionGroup("several", [Twice("a"), Fussy()]))  # noqa: F821 - see the condition
    assert came.message == "several"
    assert [type(member) for member in came.exceptions] == [Twice, Fussy]


def test_pytests_outcomes_come_back_as_themselves():
    """Skipped and Failed, which claim to be builtins, are found where they are."""
    came = both_ways(pytest.skip.Exception("reason"))
    assert type(came) is pytest.skip.Exception
    assert came.msg == "reason"


def test_noted_modules_are_those_of_functions_and_classes():
    """The names of all modules that a pickle refers to are told."""
    assert {"json.decoder", "functools"} <= call_pickle.dumps([__import__("json").JSONDecoder, functools.partial])[1]


def test_by_value_leaves_no_trace_in_cloudpickle():
    """The switch to pickle a module by value is set back, also when the pickle fails."""
    import cloudpickle

    assert call_pickle.dumps(both_ways, lambda module: module.__name__ == __name__)[0]
    with pytest.raises(TypeError):
        call_pickle.dumps([both_ways, threading.Lock()], lambda module: module.__name__ == __name__)
    assert __name__ not in cloudpickle.list_registry_pickle_by_value()


def test_what_is_missing_is_named_when_loading():
    """A pickle that refers to a module that is not there tells its name beside the error."""
    data = pickle.dumps(Path, protocol=2).replace(b"pathlib", b"pathlab")
    with pytest.raises(ModuleNotFoundError) as raised:
        call_pickle.loads(data)
    assert "pathlab" in " ".join(raised.value.poor_container_modules)


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda lock: lock, "it (<unlocked"),
        (lambda lock: [1, (2, lock)], "it[1][1] ("),
        (lambda lock: {"a{b}": lock}, "it['a{b}'] ("),
        (lambda lock: {(1, lock): 2}, "the key (1, <unlocked"),
        (lambda lock: functools.partial(print, end=lock), "it.keywords['end'] ("),
        (lambda lock: ValueError("x", lock), "it.args[1] ("),
        (lambda lock: lambda: lock, "the closure variable 'lock' of "),
        (lambda lock: lambda given=lock: given, "default 0 of "),
        (lambda lock: lambda *, given=lock: given, "the default of 'given' of "),
        (lambda lock: threading.Thread(target=lock.acquire), "it._"),
        (lambda lock: {frozenset([lock])}, "an element of an element of it ("),
    ],
)
def test_the_culprit_is_named(make, path):
    """The part of an object that cannot be pickled is found, and told by its path, with the reason."""
    text = call_pickle.culprit(make(threading.Lock()), "it")
    assert path in text
    assert "cannot pickle" in text


def test_a_culprit_whose_repr_raises_is_named_all_the_same():
    """An object without a usable repr does not hide the message."""

    class Silent:
        def __repr__(self):
            raise RuntimeError

        def __reduce__(self):
            raise RuntimeError("never")

    text = call_pickle.culprit(Silent(), "it")
    assert text.startswith("it (<test_call_pickle.")
    assert text.endswith(": never")


def test_a_chain_of_exceptions_is_packed_once_each():
    """Causes and contexts keep their places, also in a circle."""
    first, second = ValueError("first"), Twice("second")
    first.__cause__, second.__context__ = second, first
    nodes = call_pickle.pack_raised(first)
    assert [(node[1].rpartition(".")[2], node[4], node[5]) for node in nodes] == [
        ("ValueError", 1, -1),
        ("Twice", -1, 0),
    ]


def test_a_long_chain_is_cut():
    """Of a chain without an end only the first fifty are brought over."""
    errors = [ValueError(number) for number in range(200)]
    for error, cause in itertools.pairwise(errors):
        error.__cause__ = cause
    assert len(call_pickle.pack_raised(errors[0])) == 50


def test_what_runs_inside_imports_nothing_of_ours():
    """The files that are sent into a container import the standard library and each other."""
    import ast

    for module in (call_pickle, callee):
        for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("pytest_poorcontainer"):
                assert [alias.name for alias in node.names] == ["call_pickle"]
