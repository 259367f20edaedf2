"""``host.call``: a function of the test's, called in a container as if that were here.

The function and its arguments are pickled (``call_pickle``), called by a Python of the same kind that waits in the
container (``call_worker`` is our side of it, ``callee`` the other), and what comes of it is brought back.
"""

from __future__ import annotations

import marshal
import os
import sys
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.container import call_coverage, call_pickle
from pytest_poorcontainer.container.call_errors import CallDied, CallError, RemoteTraceback
from pytest_poorcontainer.container.call_worker import pool_of
from pytest_poorcontainer.container.callee import Frame
from pytest_poorcontainer.errors import LabDied

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

    from pytest_poorcontainer.container.call_worker import Answer
    from pytest_poorcontainer.lab.handle import Handle

__all__ = ["CallDied", "CallError", "RemoteTraceback", "call"]

_by_value: set[str] = set()
"""Modules that were found not to be importable inside, or to be others there."""
_REWRITER = "_pytest.assertion.rewrite"
_STDLIB = f"{os.path.dirname(os.__file__)}/"  # noqa: PTH120 - as it stands in other modules' __file__


def call(handle: Handle, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call a function in a container; return what it returns, or raise what it raises.

    The exception is the function's own, with the traceback from inside as :class:`RemoteTraceback` at the root of its
    ``__cause__`` chain. Whatever interrupts the wait (Ctrl-C, a test's time limit) ends the function's process.

    Raises TypeError for what cannot be pickled, naming it; :class:`CallError` when there is no Python inside or what
    came back cannot be rebuilt here; :class:`CallDied` when the Python inside ended in the middle;
    :class:`~pytest_poorcontainer.errors.PoorContainerError` when the container is closed.
    """
    __tracebackhide__ = True
    if not callable(function):
        raise TypeError(f"call() wants a function and its arguments, not {type(function).__name__}: {function!r}")
    handle.check()
    name = str(getattr(function, "__qualname__", None) or repr(function))
    answer = _answered(handle, name, (function, tuple(args), dict(kwargs)))
    if answer.kind == Frame.RETURNED:
        try:
            return call_pickle.loads(answer.data)
        except Exception as error:
            raise CallError(
                f"what {name} returned in {handle.name} cannot be rebuilt here: {type(error).__name__}: {error}"
            ) from error
    if answer.kind == Frame.NOT_PICKLED:
        raise TypeError(
            f"cannot bring back what {name} returned in {handle.name}: {answer.data.decode()}; "
            "return what can be pickled, such as numbers, text, lists and dictionaries"
        )
    text, nodes = marshal.loads(answer.data)  # noqa: S302 - of our own process in the container
    raise _raised(name, handle.name, text, nodes)


def _answered(handle: Handle, name: str, what: tuple[Any, ...]) -> Answer:
    """Return the answer to a call; modules that turn out not to be importable inside go by value the next time."""
    __tracebackhide__ = True
    pool = pool_of(handle)
    settings = _settings()
    while True:
        body, files = _packed(name, what)
        worker = pool.take()
        try:
            answer = worker.ask(settings, files, body, name)
        except BaseException as error:
            worker.end()
            if isinstance(error, (CallDied, LabDied)):
                handle.check()  # closed meanwhile, by another thread: no surprise
            raise
        pool.give(worker)
        if answer.kind != Frame.NOT_LOADED:
            return answer
        modules, reason, text = marshal.loads(answer.data)  # noqa: S302 - of our own process in the container
        learned = {module for module in modules if module in sys.modules} - _by_value
        if not learned:
            raise CallError(f"{name} or its arguments cannot be rebuilt in {handle.name}: {reason}") from (
                RemoteTraceback(text) if text else None
            )
        _by_value.update(learned)


def _settings() -> bytes:
    """Return what the function is to find as it is here: module path, working directory, coverage."""
    try:
        cwd: str | None = os.getcwd()  # noqa: PTH109 - text is what travels
    except OSError:
        cwd = None  # it was removed
    # An entry may be anything a finder takes, and "" is the working directory.
    path = [os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)]  # noqa: PTH100 - links stay
    return marshal.dumps((path, cwd, call_coverage.options()))


def _packed(name: str, what: tuple[Any, ...]) -> tuple[bytes, dict[str, str]]:
    """Return the pickle of a call, and the files of the modules that it refers to by name.

    Raises TypeError with the name of what cannot be pickled.
    """
    __tracebackhide__ = True
    try:
        body, seen = call_pickle.dumps(what, _goes_by_value)
    except Exception as error:
        raise TypeError(f"cannot bring this call into the container: {_guilty(name, what)}") from error
    named = {module for module in seen if not _by_name(module)}
    return body, {module: file for module, file in call_pickle.module_files(named).items() if not _is_installed(file)}


def _by_name(module: str) -> bool:
    loaded = sys.modules.get(module)
    return loaded is None or _goes_by_value(loaded)


def _guilty(name: str, what: tuple[Any, ...]) -> str:
    """Return the path to the part of a call that cannot be pickled, and why."""
    function, args, kwargs = what
    candidates: list[tuple[Any, str]] = [(function, name)]
    candidates += [(value, f"argument {place}") for place, value in enumerate(args)]
    candidates += [(value, f"argument {key!r}") for key, value in kwargs.items()]
    for value, label in candidates:
        if call_pickle.failure(value, _goes_by_value) is not None:
            return call_pickle.culprit(value, label, _goes_by_value)
    return f"{name} with all its arguments is nested too deeply"


def _goes_by_value(module: ModuleType) -> bool:
    """Return whether functions and classes of a module go into the container as they are, instead of by name.

    So go those of test modules and of conftest files, which pytest has loaded in its own way: an import inside may not
    find them, or find another of the same name, and would bring pytest with it.
    """
    name = module.__name__
    if name.startswith("pytest_poorcontainer."):
        return False  # what is ours is there, also while it is being developed
    if name == "__main__" or name in _by_value or any(name.startswith(f"{known}.") for known in _by_value):
        return True
    loader = getattr(getattr(module, "__spec__", None), "loader", None)
    if type(loader).__module__ != _REWRITER:
        return False
    return not _is_installed(str(getattr(module, "__file__", "")))


def _is_installed(file: str) -> bool:
    """Return whether a file belongs to Python or an installed package: pytest rewrites the asserts of plugins too."""
    return "/site-packages/" in file or "/dist-packages/" in file or file.startswith(_STDLIB)


def _raised(name: str, container: str, text: str, nodes: list[call_pickle.Node]) -> BaseException:
    """Return the exception that a function has raised, with all that stood behind it, and the traceback at its root."""
    chain = [_one_raised(name, container, node) for node in nodes]
    for error, (*_, cause, context, suppress) in zip(chain, nodes, strict=True):
        if cause >= 0:
            error.__cause__ = chain[cause]
        if context >= 0:
            error.__context__ = chain[context]
        error.__suppress_context__ = suppress
    root, passed = chain[0], {id(chain[0])}
    while True:
        behind = root.__cause__ or (None if root.__suppress_context__ else root.__context__)
        if behind is None or id(behind) in passed:
            break
        root = behind
        passed.add(id(root))
    missing = "".join(f"(not brought over: {node[3]})\n" for node in nodes if node[3])
    root.__cause__ = RemoteTraceback(f"In container {container}:\n{text}{missing}")
    return chain[0]


def _one_raised(name: str, container: str, node: call_pickle.Node) -> BaseException:
    data, kind, message, missing = node[:4]
    why = missing or "its class cannot be pickled"
    if data is not None:
        try:
            error = call_pickle.loads(data)
        except Exception as failure:  # noqa: BLE001 - any __setstate__ may raise anything
            why = f"{type(failure).__name__}: {failure}"
        else:
            if isinstance(error, BaseException):
                return error
            why = f"its pickle is no exception but {type(error).__name__}"
    return CallError(f"{name} raised {kind} in {container}: {message}; it cannot be rebuilt here ({why})")
