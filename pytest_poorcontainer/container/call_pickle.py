"""What crosses the border of a call, in both directions: objects, exceptions, and the reason why something cannot.

This file is run on both sides. Inside a container it is loaded alone, from memory, before ``sys.path`` is known:
it imports nothing but the standard library, and of that only what is cheap.
"""

from __future__ import annotations

import io
import pickle  # both ends are one user's
import sys
import threading
import weakref
from importlib import import_module
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Node", "arrive", "culprit", "dumps", "failure", "loads", "module_files", "pack_raised", "rebuild", "recall"]

_DEEPEST = 12  # steps of a path to what cannot be pickled; a person reads no further
_WIDEST = 1000  # parts of one container that are tried
_HEAPTYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made at run time, by a class statement for instance (object.h)
_CHAIN = 50  # exceptions of one chain
_NO_FILE = "<dynamic-code>"

# Pickling by value is switched on for the whole process by cloudpickle, so one at a time. Reentrant, because a signal
# handler may make a call of its own.
_lock = threading.RLock()
_ours = sys.modules[__name__]
refer_back = False
"""Whether classes go back by reference to where they came from: true inside, where there is but one other side."""
_classes: weakref.WeakValueDictionary[str, type] = weakref.WeakValueDictionary()
_arrived: set[str] = set()


def arrive(number: str, make: Callable[..., type], arguments: tuple[Any, ...]) -> type:
    """Make a class that the other side has sent by value, and remember that the other side has it."""
    made = make(*arguments)
    _classes[number] = made
    _arrived.add(number)
    return made


def recall(number: str) -> type:
    """Return the class that was sent to the other side under a number: itself, not a copy."""
    try:
        return _classes[number]
    except KeyError:
        raise pickle.UnpicklingError("the class of this object does not exist any more where it came from") from None


def rebuild(kind: type[BaseException], arguments: tuple[Any, ...]) -> BaseException:
    """Make an exception as it was, without its own ``__init__``: that may want other arguments than ``args``."""
    base = _builtin_base(kind)
    made: BaseException = base.__new__(kind, *arguments)
    base.__init__(made, *arguments)
    return made


def _builtin_base(kind: type) -> type[BaseException]:
    # Not by __module__, which pytest's outcomes have set to "builtins".
    return next(base for base in kind.__mro__ if not base.__flags__ & _HEAPTYPE)


def _reduce_exception(obj: BaseException) -> Any:
    """Return the parts of an exception for :func:`rebuild`; NotImplemented when its class has a way of its own."""
    kind = type(obj)
    if kind.__reduce_ex__ is not object.__reduce_ex__ or kind.__reduce__ is not _builtin_base(kind).__reduce__:
        return NotImplemented
    reduced = obj.__reduce__()
    if not isinstance(reduced, tuple) or reduced[0] is not kind:
        return NotImplemented
    return (rebuild, (kind, reduced[1]), *reduced[2:])


def _reduce_class(obj: type, reduced: Any, by_value: Callable[[ModuleType], bool] | None) -> Any:
    """Return the parts of a class as cloudpickle has them; but what came from the other side goes back as a reference.

    By value it would be written into the original: its methods would become copies with other globals.
    """
    if not isinstance(reduced, tuple) or not getattr(reduced[0], "__name__", "").startswith("_make_skeleton"):
        return reduced
    home = _true_home(obj)
    if home is not None and not (by_value is not None and by_value(home)):
        return getattr, (home, obj.__name__)
    make, arguments = reduced[:2]
    number = arguments[-2]  # cloudpickle's class_tracker_id
    if not isinstance(number, str):
        return reduced
    if refer_back and number in _arrived:
        return recall, (number,)
    _classes[number] = obj
    return (arrive, (number, make, arguments), *reduced[2:])


def _true_home(obj: type) -> ModuleType | None:
    """Return the module that a class is in, although its ``__module__`` names another: so are pytest's outcomes."""
    for base in obj.__mro__:
        member = next((member for member in vars(base).values() if isinstance(member, FunctionType)), None)
        name = None if member is None else member.__globals__.get("__name__")
        module = sys.modules.get(name) if isinstance(name, str) and name != obj.__module__ else None
        if module is not None and name != "__main__" and getattr(module, obj.__name__, None) is obj:
            return module
    return None


def _reduce_ours(obj: Any) -> Any:
    """Let our own functions be found where the package around this module is not to be seen, as an editable one's."""
    if obj is _ours:
        return (import_module, (__name__,))
    return (getattr, (_ours, obj.__name__)) if obj is rebuild or obj is arrive or obj is recall else NotImplemented


def _reduce_code(obj: CodeType, table: Any) -> Any:
    """Return the parts of a code object as cloudpickle has them, with the file that it is from.

    cloudpickle 3.1.3 gives all of them the same name, for pickles that do not depend on where a function stands; but
    then tracebacks, warnings and coverage.py would not know it either.
    """
    make, arguments = table[CodeType](obj)[:2]
    return make, tuple(obj.co_filename if part == _NO_FILE else part for part in arguments)


def _home(obj: Any) -> str | None:
    """Return the name of the module that a pickle of an object refers to or contains, None when it is not known yet."""
    if isinstance(obj, (type, FunctionType)):
        return obj.__module__
    return obj.__name__ if isinstance(obj, ModuleType) else None


def _register(module: ModuleType) -> list[ModuleType]:
    """Let cloudpickle treat a module by value; return it if that was not so before."""
    import cloudpickle  # noqa: PLC0415

    if module.__name__ in cloudpickle.list_registry_pickle_by_value():
        return []
    cloudpickle.register_pickle_by_value(module)
    return [module]


class _ByValue(pickle.PicklingError):
    """Something has to go by value, which pickle alone cannot do."""


def _pickler_class(base: type[Any]) -> type[Any]:
    """Return our pickler, made from pickle's or from cloudpickle's."""

    class Pickler(base):  # type: ignore[misc]
        """Pickles classes that the other side has as references, and notes the modules that it refers to."""

        def __init__(self, file: io.BytesIO, by_value: Callable[[ModuleType], bool] | None) -> None:
            super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
            self.by_value = by_value
            self.seen: set[str] = set()
            self.registered: list[ModuleType] = []

        def note(self, name: str | None) -> None:
            """Decide about a module when it is met for the first time."""
            if not isinstance(name, str) or name in self.seen:
                return
            self.seen.add(name)
            module = sys.modules.get(name)
            if module is not None and self.by_value is not None and self.by_value(module):
                if base is pickle.Pickler:
                    raise _ByValue
                self.registered += _register(module)

        def reducer_override(self, obj: Any) -> Any:
            """Return the parts of an object that has no pickle of its own, as pickle's documentation has it."""
            reduced = _reduce_exception(obj) if isinstance(obj, BaseException) else _reduce_ours(obj)
            if reduced is not NotImplemented:
                return reduced
            self.note(_home(obj))
            if base is pickle.Pickler:
                return NotImplemented
            if isinstance(obj, CodeType):
                return _reduce_code(obj, self.dispatch_table)
            reduced = super().reducer_override(obj)
            return _reduce_class(obj, reduced, self.by_value) if isinstance(obj, type) else reduced

    return Pickler


_plain = _pickler_class(pickle.Pickler)
_full: type[Any] | None = None


def dumps(obj: Any, by_value: Callable[[ModuleType], bool] | None = None) -> tuple[bytes, set[str]]:
    """Return an object as bytes, and the names of the modules that they refer to or contain.

    ``by_value`` says of a module whether its functions and classes go as they are, not by their names.
    Raises whatever ``__reduce__`` methods raise.
    """
    global _full  # noqa: PLW0603 - a class that is made when it is needed
    if _full is None and "cloudpickle" not in sys.modules:
        # It takes some fifty milliseconds to load, and most values do without: so does all that is found by its name.
        try:
            return _dumped(_plain, obj, by_value)
        except Exception:  # noqa: BLE001, S110 - any __reduce__ may raise anything; the other one may know better
            pass
    if _full is None:
        import cloudpickle  # noqa: PLC0415

        _full = _pickler_class(cloudpickle.Pickler)
    with _lock:
        return _dumped(_full, obj, by_value)


def _dumped(kind: type[Any], obj: Any, by_value: Callable[[ModuleType], bool] | None) -> tuple[bytes, set[str]]:
    sink = io.BytesIO()
    pickler = kind(sink, by_value)
    try:
        pickler.dump(obj)
    finally:
        if pickler.registered:
            import cloudpickle  # noqa: PLC0415

            for module in pickler.registered:
                cloudpickle.unregister_pickle_by_value(module)
    return sink.getvalue(), pickler.seen


class _Unpickler(pickle.Unpickler):
    """Remembers which module it looks for, for the error message."""

    wanted = ""

    def find_class(self, module: str, name: str) -> Any:
        """Look a global up, as pickle does."""
        self.wanted = module
        found = super().find_class(module, name)
        self.wanted = ""
        return found


def loads(data: bytes | bytearray | memoryview) -> Any:
    """Return the object that the bytes are. What goes wrong has ``poor_container_module``, the module looked for."""
    unpickler = _Unpickler(io.BytesIO(data))
    try:
        return unpickler.load()
    except Exception as error:
        names = {unpickler.wanted, getattr(error, "name", None) if isinstance(error, ImportError) else None}
        error.poor_container_modules = sorted(name for name in names if name)  # type: ignore[attr-defined]
        raise


def module_files(names: set[str]) -> dict[str, str]:
    """Return the files of modules, of those that are loaded from one."""
    files = {}
    for name in names:
        file = getattr(sys.modules.get(name), "__file__", None)
        if isinstance(file, str):
            files[name] = file
    return files


def culprit(obj: Any, what: str, by_value: Callable[[ModuleType], bool] | None = None) -> str:
    """Return the path to the part of an object that cannot be pickled, and the reason: "argument 0['x'].lock: ...".

    ``what`` is the object's own name. Tried part by part, so for failures only.
    """
    seen: set[int] = set()
    reason = failure(obj, by_value) or "it could not be pickled a moment ago, now it can"
    for _ in range(_DEEPEST):
        seen.add(id(obj))
        if type(obj).__module__.split(".")[0] == "pytest_poorcontainer":
            reason = f"a {type(obj).__name__} exists only in the process of the test; hand over what is needed of it"
            break
        for count, (label, part) in enumerate(_parts(obj)):
            if count >= _WIDEST:
                return f"{what}: {reason}"
            why = None if id(part) in seen else failure(part, by_value)
            if why:
                what, obj, reason = label.format(what), part, why
                break
        else:
            break
    return f"{what} ({_shown(obj)}): {reason}"


def failure(obj: Any, by_value: Callable[[ModuleType], bool] | None) -> str | None:
    """Return why an object cannot be pickled, None when it can."""
    try:
        dumps(obj, by_value)
    except Exception as error:  # noqa: BLE001 - any __reduce__ may raise anything
        return f"{error}" or type(error).__name__
    return None


def _shown(obj: Any) -> str:
    try:
        text = repr(obj)
    except Exception:  # noqa: BLE001 - anybody's __repr__
        text = object.__repr__(obj)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 - a line of a message


def _parts(obj: Any) -> Iterator[tuple[str, Any]]:
    """Yield what an object consists of, each with its path, in which {0} stands for the object's own."""
    if isinstance(obj, (list, tuple, set, frozenset, dict)):
        yield from _items(obj)
    if isinstance(obj, FunctionType):
        yield from _of_function(obj)
    elif isinstance(obj, MethodType):
        yield "the object of the method {0}", obj.__self__
        yield "the function of the method {0}", obj.__func__
    elif isinstance(obj, (type, ModuleType)):
        return
    else:
        if isinstance(obj, BaseException):
            yield from ((f"{{0}}.args[{number}]", part) for number, part in enumerate(obj.args))
        for name in ("func", "args", "keywords"):  # functools.partial
            if type(obj).__module__ == "functools" and hasattr(obj, name):
                yield f"{{0}}.{name}", getattr(obj, name)
        state = getattr(obj, "__dict__", None)
        if isinstance(state, dict):
            yield from ((f"{{0}}.{_escaped(name)}", part) for name, part in list(state.items()))


def _items(obj: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(obj, dict):
        for key, part in list(obj.items()):
            yield f"the key {_escaped(_shown(key))} of {{0}}", key
            yield f"{{0}}[{_escaped(_shown(key))}]", part
    elif isinstance(obj, (list, tuple)):
        for number, part in enumerate(obj):
            yield f"{{0}}[{number}]", part
    else:
        for part in list(obj):
            yield "an element of {0}", part


def _of_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    name = _escaped(function.__qualname__)
    for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            content = cell.cell_contents
        except ValueError:
            continue  # not assigned yet
        yield f"the closure variable {variable!r} of {name}", content
    for number, default in enumerate(function.__defaults__ or ()):
        yield f"default {number} of {name}", default
    for key, default in (function.__kwdefaults__ or {}).items():
        yield f"the default of {key!r} of {name}", default
    for code in _codes(function):
        for variable in code.co_names:
            if variable in function.__globals__:
                yield f"the global {variable!r} that {name} uses", function.__globals__[variable]
    for key, part in function.__dict__.items():
        yield f"{name}.{_escaped(key)}", part


def _codes(function: FunctionType) -> list[Any]:
    """Return the code of a function and of all functions in it."""
    codes: list[Any] = [function.__code__]
    for code in codes:  # grows meanwhile
        codes.extend(part for part in code.co_consts if hasattr(part, "co_names"))
    return codes


def _escaped(text: Any) -> str:
    return str(text).replace("{", "{{").replace("}", "}}")


Node = tuple["bytes | None", str, str, str, int, int, bool]
"""An exception of a chain: its pickle, type, message, what is missing, places of cause and context, suppress."""


def pack_raised(error: BaseException) -> list[Node]:
    """Return an exception and all that stand behind it, each pickled on its own: one that cannot be spoils no other."""
    chain: list[BaseException] = [error]
    for link in chain:  # grows meanwhile
        for other in (link.__cause__, link.__context__):
            if other is not None and len(chain) < _CHAIN and not any(other is known for known in chain):
                chain.append(other)
    places = {id(link): place for place, link in enumerate(chain)}
    nodes: list[Node] = []
    for link in chain:
        data, missing = _pickled_exception(link)
        cause, context = (places.get(id(other), -1) for other in (link.__cause__, link.__context__))
        kind = type(link)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        try:
            message = str(link)
        except Exception:  # noqa: BLE001 - anybody's __str__
            message = "(its __str__ raises)"
        nodes.append((data, name, message, missing, cause, context, link.__suppress_context__))
    return nodes


def _pickled_exception(error: BaseException) -> tuple[bytes | None, str]:
    """Return an exception as bytes (None: impossible), and what had to be replaced by its ``repr`` for that."""
    try:
        return dumps(error)[0], ""
    except Exception:  # noqa: BLE001 - any __reduce__ may raise anything
        reason = culprit(error, "it")
    kind = type(error)
    state = {key: part if failure(part, None) is None else _shown(part) for key, part in vars(error).items()}
    arguments = tuple(part if failure(part, None) is None else _shown(part) for part in error.args)
    try:
        return dumps(_Copy(kind, arguments, state))[0], reason
    except Exception:  # noqa: BLE001
        return None, reason


class _Copy:
    """Pickles as an exception of a class that cannot be pickled with all that it has."""

    def __init__(self, kind: type[BaseException], arguments: tuple[Any, ...], state: dict[str, Any]) -> None:
        self.parts = rebuild, (kind, arguments), state

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts
