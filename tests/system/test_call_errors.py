"""host.call() when things go wrong: exceptions, what cannot be pickled, processes that end, no Python."""

import asyncio
import functools
import os
import signal
import subprocess
import sys
import threading

import pytest

from pytest_poorcontainer import Container, machine
from pytest_poorcontainer.container.call import CallDied, CallError, RemoteTraceback

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)
ANSWER = 42


@pytest.fixture(scope="module")
def box():
    """Return one container for all the tests here that leave it alive."""
    with Container("box") as container:
        yield container


class Odd(Exception):
    """Its constructor wants other arguments than its ``args`` are."""

    def __init__(self, code, detail):
        super().__init__(f"code {code}: {detail}")
        self.code = code


def add(first, second=10, *rest, scale=1):
    """Add."""
    return (first + second + sum(rest)) * scale


def raise_odd():
    """Raise while another exception is handled."""
    try:
        raise KeyError("inner")  # noqa: TRY301
    except KeyError as error:
        raise Odd(7, "seven") from error


def test_exceptions_are_raised_as_themselves(box):
    """The exception is of the test's own class, has its attributes, and what it was raised from."""
    with pytest.raises(Odd, match="code 7: seven") as raised:
        box.call(raise_odd)
    assert type(raised.value) is Odd
    assert (raised.value.code, raised.value.args) == (7, ("code 7: seven",))
    assert isinstance(raised.value.__cause__, KeyError)
    trace = raised.value.__cause__.__cause__
    assert isinstance(trace, RemoteTraceback)
    assert "In container box:" in str(trace)
    assert "in raise_odd" in str(trace)
    assert "test_call_errors.py" in str(trace)  # its line too, where the container sees the file
    assert "callee.py" not in str(trace)


def test_contexts_and_suppression_are_kept(box):
    """``raise ... from None`` stays so, and an exception raised while handling another keeps it as context."""

    def quiet():
        try:
            raise KeyError("hidden")  # noqa: TRY301
        except KeyError:
            raise ValueError("shown") from None

    def chained():
        try:
            raise KeyError("first")  # noqa: TRY301
        except KeyError:
            raise ValueError("second")  # noqa: B904

    with pytest.raises(ValueError, match="shown") as raised:
        box.call(quiet)
    assert raised.value.__suppress_context__
    assert isinstance(raised.value.__cause__, RemoteTraceback)
    with pytest.raises(ValueError, match="second") as raised:
        box.call(chained)
    assert isinstance(raised.value.__context__, KeyError)
    assert isinstance(raised.value.__context__.__cause__, RemoteTraceback)


def public(error):
    """Return the attributes of an exception that are no methods; some of OSError's are listed, but not there."""
    values = {name: getattr(error, name, None) for name in dir(error) if not name.startswith("__")}
    return {name: value for name, value in values.items() if not callable(value)}


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file", "/x"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        StopIteration(3),
        SyntaxError("bad", ("f", 1, 2, "text")),
        subprocess.CalledProcessError(3, ["x"], b"out", b"err"),
        TimeoutError(),
        ImportError("no", name="n", path="p"),
        SystemExit(4),
        GeneratorExit("g"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_standard_exceptions_keep_their_attributes(box, error):
    """Exceptions of the standard library, SystemExit too, are raised with all that they hold."""

    def boom():
        raise error

    with pytest.raises(type(error)) as raised:
        box.call(boom)
    assert public(raised.value) == public(error)
    assert str(raised.value) == str(error)


def test_assertions_explain_themselves(box):
    """A failed assert in a function of a test module has pytest's explanation."""

    def check():
        assert add(1) == ANSWER

    with pytest.raises(AssertionError, match="assert 11 == 42"):
        box.call(check)


def test_an_exception_that_cannot_be_pickled_is_raised_without_what_cannot(box):
    """What of an exception cannot be brought over is replaced by its repr, and the traceback says so."""

    def boom():
        error = Odd(1, "locked")
        error.lock = threading.Lock()
        raise error

    with pytest.raises(Odd) as raised:
        box.call(boom)
    assert raised.value.code == 1
    assert "_thread.lock" in raised.value.lock
    assert "not brought over: it.lock" in str(raised.value.__cause__)


def test_an_exception_that_cannot_be_rebuilt_is_described(box):
    """An exception whose own pickle does not load here becomes a CallError with type, message and traceback."""

    class Broken(Exception):
        def __reduce__(self):
            return int, ("no number",)

    def boom():
        raise Broken("here")

    with pytest.raises(CallError, match=r"boom raised .*Broken in box: here; it cannot be rebuilt") as raised:
        box.call(boom)
    assert "in boom" in str(raised.value.__cause__)


def test_wrong_arguments_raise_type_error(box):
    """A call that the function does not accept raises what Python raises for it, and what is no function is named."""
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        box.call(add)
    with pytest.raises(TypeError, match="not int: 5"):
        box.call(5)


def test_what_cannot_be_pickled_is_named(box):
    """TypeError tells the argument, the path into it, the closure variable, or the return value."""
    lock, deep = threading.Lock(), {"a": [1, {"lock": threading.Lock()}]}

    def uses_closure():
        return lock

    cases = [
        ((print, lock), {}, r"argument 0 \(<unlocked"),
        ((print, 1, deep), {}, r"argument 1\['a'\]\[1\]\['lock'\]"),
        ((print,), {"end": lock}, r"argument 'end' "),
        ((uses_closure,), {}, r"the closure variable 'lock' of .*uses_closure"),
        ((functools.partial(print, lock),), {}, r"\.args\[0\]"),
        ((print, box), {}, r"argument 0 \(<Container box>\): a Container exists only in the process of the test"),
        ((threading.Lock,), {}, r"the return value \(<unlocked"),
        ((lambda: {"x": [threading.Lock()]},), {}, r"the return value\['x'\]\[0\]"),
        ((lambda: asyncio.sleep(0),), {}, r"asyncio\.run"),
    ]
    for arguments, named, message in cases:
        with pytest.raises(TypeError, match=message):
            box.call(*arguments, **named)
    assert box.call(add, 1) == 11


def test_too_deep_an_argument_is_a_type_error(box):
    """What recurses deeper than pickle can go raises TypeError; the function runs only when all has arrived."""
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(TypeError, match="argument 0"):
        box.call(len, deep)


@pytest.mark.parametrize(
    ("death", "code", "how"),
    [
        (lambda: os._exit(3), 3, "exit status 3"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), -9, "SIGKILL"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), -11, "SIGSEGV"),
        (lambda: os.closerange(3, 1000), 94, "closed descriptors"),
    ],
)
def test_a_function_that_kills_its_process_is_told_from_others(box, capfd, death, code, how):
    """How the Python inside died is said, and the next call gets a fresh one."""
    with pytest.raises(CallDied, match=how) as raised:
        box.call(death)
    assert raised.value.returncode == code
    assert box.call(add, 1) == 11
    assert ("Segmentation fault" in capfd.readouterr().err) == (code == -11)


def test_without_python_inside_the_error_says_so(monkeypatch):
    """When the interpreter cannot be seen in the container, the error names it and says what to do."""
    with Container("bare") as bare:
        monkeypatch.setattr(sys, "executable", "/run/no/python")
        with pytest.raises(CallError, match=r"no Python in it: /run/no/python, .*use run"):
            bare.call(os.getpid)


def test_a_python_that_does_not_start_is_quoted(monkeypatch):
    """What an interpreter of the wrong kind says before it ends stands in the error."""
    with Container("bare") as bare:
        monkeypatch.setattr(sys, "executable", "/bin/false")
        with pytest.raises(CallDied, match="does not start: /bin/false ended with exit status 1"):
            bare.call(os.getpid)
        monkeypatch.setattr(sys, "executable", "/bin/ls")
        with pytest.raises(CallDied, match=r"does not start: /bin/ls ended with exit status 2(?s:.*)cannot access"):
            bare.call(os.getpid)


def test_warnings_inside_are_no_errors_here(box, capsys):
    """A warning that a function gives is printed on stderr, also where warnings are errors."""
    assert box.call(lambda: __import__("warnings").warn("careful", stacklevel=1)) is None
    assert "UserWarning: careful" in capsys.readouterr().err
