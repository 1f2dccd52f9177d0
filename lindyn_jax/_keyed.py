"""Functions told apart by what they are, and not by which object they are: equal ones share one compiled program.

`optax.sgd(0.1)` and a lambda are new functions whenever they are called for, and a cache of programs that goes by identity
never finds them. Here a function made inside of another is its code together with all that it refers to: defaults, the
variables it closes over, and the global names it uses. Where any of these cannot be compared, it is the object itself.
"""

import functools
import sys
import types
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax
import numpy as np

from ._checks import is_array, is_traced

P = ParamSpec("P")
R = TypeVar("R")

_LITERALS = (type(None), bool, int, float, complex, str, bytes, np.generic, np.dtype)
# Larger arrays that a function closes over are not looked through.
_MOST_NUMBERS = 10_000


class _Unknown(Exception):
    """What a function refers to cannot be compared."""


class _Same:
    """Equal where it is the same object, which is kept so that no other takes its place."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return type(other) is _Same and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


class Keyed:
    """A function that is equal to others of the same key."""

    def __init__(self, function: Callable, key: tuple):
        self.function, self.key, self.number = function, key, hash(key)
        self.__wrapped__ = function

    def __call__(self, *args, **kwargs):
        return self.function(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return type(other) is Keyed and self.number == other.number and self.key == other.key

    def __hash__(self) -> int:
        return self.number


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """`equinox.filter_jit` that compiles nothing anew for functions among the arguments which are what others were."""

    plain: Callable[..., R] = function

    def body(args, kwargs):
        args, kwargs = jax.tree.map(_function_of, (args, kwargs))
        return plain(*args, **kwargs)

    body.__name__ = body.__qualname__ = getattr(function, "__name__", "compiled")
    program = eqx.filter_jit(body)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        known: tuple[Any, Any] = jax.tree.map(keyed, (args, kwargs))
        return program(*known)

    return call


def _function_of(leaf: Any) -> Any:
    return leaf.function if type(leaf) is Keyed else leaf


def keyed(leaf: Any) -> Any:
    """A function as one that equals all which are what it is; anything else, and a function that is not known, as it is."""
    if type(leaf) is not types.FunctionType or _is_at_home(leaf):
        return leaf
    try:
        return Keyed(leaf, _key(leaf, ()))
    except _Unknown:
        return leaf


def _is_at_home(function: Any) -> bool:
    """Whether a function is found in its module under its name, so that there is one of it."""
    found: Any = sys.modules.get(getattr(function, "__module__", None) or "")
    for name in getattr(function, "__qualname__", "<none>").split("."):
        found = getattr(found, name, None)
    return found is function


@functools.singledispatch
def _key(value: Any, above: tuple) -> tuple:
    """All that a value is; `above` are the functions that it is a part of."""
    # Lists and dictionaries may change while a function stays the same object: they are not compared.
    if _is_at_home(value) or (is_array(value) and not is_traced(value)):
        return (_Same(value),)
    raise _Unknown


def _literal(value: Any, above: tuple = ()) -> tuple:
    return type(value), repr(value)


def _itself(value: Any, above: tuple = ()) -> tuple:
    return (_Same(value),)


for _kind in _LITERALS:
    _key.register(_kind, _literal)
for _kind in (type, types.ModuleType, types.BuiltinFunctionType):
    _key.register(_kind, _itself)


@_key.register
def _(value: tuple, above: tuple) -> tuple:
    return type(value), *(_key(part, above) for part in value)


@_key.register
def _(value: functools.partial, above: tuple) -> tuple:
    return type(value), *(_key(part, above) for part in (value.func, value.args, *value.keywords.items()))


@_key.register
def _(value: np.ndarray, above: tuple) -> tuple:
    if value.size > _MOST_NUMBERS or value.dtype == object:
        raise _Unknown
    return type(value), value.dtype.str, value.shape, value.tobytes()


@_key.register
def _(value: types.FunctionType, above: tuple) -> tuple:
    return _itself(value) if _is_at_home(value) else _key_of_function(value, above)


def _key_of_function(function: types.FunctionType, above: tuple) -> tuple:
    if function in above:
        return ("itself", above.index(function))
    above, code, known = (*above, function), function.__code__, function.__globals__
    try:
        cells = tuple(cell.cell_contents for cell in function.__closure__ or ())
    except ValueError:  # a variable that has no value yet
        raise _Unknown from None
    names = _names(code)
    used = tuple((name, known[name]) for name in names if name in known)
    parts = [function.__defaults__, tuple((function.__kwdefaults__ or {}).items()), cells, used]
    attributes = [_attributes(value, names, ()) for value in (*cells, *(value for _, value in used))]
    return code, _Same(known), *(_key(part, above) for part in parts), *attributes


def _attributes(owner: Any, names: list[str], above: tuple) -> tuple:
    """What a function may read from a module or a class by the names in it: settings there can change."""
    if not isinstance(owner, (type, types.ModuleType)) or any(owner is one for one in above):
        return ()
    found = [(name, vars(owner)[name]) for name in names if name in vars(owner)]
    return tuple(
        (name, *(_literal if type(value) in _LITERALS else _itself)(value), _attributes(value, names, (*above, owner)))
        for name, value in found
    )


def _names(code: types.CodeType) -> list[str]:
    """The global names that a function and those inside of it may use."""
    inner = [name for part in code.co_consts if type(part) is types.CodeType for name in _names(part)]
    return sorted({*code.co_names, *inner})
