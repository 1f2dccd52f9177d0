"""What every public function asks of its arguments, read off its signature: kinds, shapes, and that they fit each other.

`@public` stands on each of them. An argument of a kind or shape that the signature excludes ends in one `ValueError` that names
it. The function's own sentence goes first where it has one, since it knows more; arguments that are what they should be cost
one look at their type and shape. Nothing here looks at values, except that a whole number is one.
"""

import dis
import functools
import inspect
import itertools
import operator
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import AbstractArray, PyTree, TypeCheckError

from ._checks import hint_of, is_array, is_traced

P = ParamSpec("P")
R = TypeVar("R")

# What two arguments must agree in, by the parts that they play: filled by the modules that define them.
ROLES: dict[tuple[str, str], Callable[[Any, Any], None]] = {}


@functools.singledispatch
def role_of(value: Any) -> str | None:
    """The part that an argument plays, `"model"` or `"problem"`, whatever it is called; registered by kind."""
    return None


@functools.singledispatch
def sizes_of(value: Any) -> dict[str, int]:
    """Lengths that a value gives to letters of shapes; registered by kind."""
    return {}


_RAISE = dis.opmap["RAISE_VARARGS"]
_NAMES = {
    "AbstractModel": "a model of this package",
    "AbstractChain": "a TwoLayer, a SymmetricFactors or a DeepLinear",
    "AbstractProblem": "a problem such as LeastSquares",
    "AbstractSolver": "a diffrax solver",
    "AbstractAdjoint": "a diffrax adjoint",
    "GradientTransformation": "an optax optimizer",
    "PathLike": "a path",
    "Mapping": "a dictionary",
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "True or False",
    "NoneType": "None",
    "SupportsIndex": "a whole number",
}


class _Kind(NamedTuple):
    """One way to fill a parameter: what it is called, whether a value is of it, and whether to look before the body runs."""

    words: str
    holds: Callable[[Any], bool]
    early: bool = False
    element: "_Expected | None" = None


class _Expected(NamedTuple):
    """All ways to fill a parameter: kinds, and arrays by their axes and whether they hold whole numbers or flags."""

    kinds: tuple[_Kind, ...]
    arrays: tuple[tuple[str, str], ...]

    @property
    def words(self) -> str:
        names = [_shape_words(axes) for axes, _ in self.arrays] + [kind.words for kind in self.kinds]
        return " or ".join(dict.fromkeys(names))


class _Misfit(NamedTuple):
    """What is wrong, and when to say it.

    **Fields:** `sentence`; `early`, before the function runs; `array`, it is about numbers and shapes; `only_after`, it explains
    a raw error, but some functions allow it.
    """

    sentence: str
    early: bool = False
    array: bool = False
    only_after: bool = False


def public(function: Callable[P, R]) -> Callable[P, R]:
    """A public function (or `__init__`) that refuses arguments which its signature excludes, in one sentence.

    **Raises:** `ValueError` that names the argument, says what it must be and what it is.
    """
    raw = inspect.unwrap(function)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [name for name, parameter in inspect.signature(raw).parameters.items() if parameter.kind in kinds]

    @functools.wraps(function)
    def checked(*args, **kwargs):
        given = dict(zip(names, args, strict=False)) | kwargs
        given.pop("self", None)
        misfit = _misfit(_expectations(raw), given)
        if misfit is None:
            return function(*args, **kwargs)
        if not misfit.early:
            try:
                answer = function(*args, **kwargs)
            except Exception as error:
                if is_sentence(error) or (misfit.array and isinstance(error, TypeCheckError)):
                    raise
            else:
                if misfit.only_after:
                    return answer
        raise ValueError(misfit.sentence)

    vars(checked).update(__wrapped__=raw, is_checked=True)
    return checked


def is_sentence(error: Exception) -> bool:
    """Whether a `raise` of this package made the error, and not this module, Python or a library."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    if step is None:
        return False
    module = step.tb_frame.f_globals.get("__name__", "")
    raised = step.tb_frame.f_code.co_code[step.tb_lasti] == _RAISE
    return raised and module.split(".")[0] == __package__ and module != __name__


@functools.cache
def _expectations(function: Callable) -> dict[str, _Expected]:
    """What is expected of the parameters that have an annotation which can be checked."""
    hints = {name: _expected(hint) for name, hint in typing.get_type_hints(function).items() if name != "return"}
    return {name: expected for name, expected in hints.items() if expected is not None}


def _misfit(expectations: Mapping[str, _Expected], given: Mapping[str, Any]) -> _Misfit | None:
    """The first thing that is wrong with the arguments."""
    lengths = {}
    for value in given.values():
        lengths |= {letter: (length, None, None) for letter, length in sizes_of(value).items()}
    for name, value in given.items():
        if name in expectations:
            misfit = _check(name, value, expectations[name], lengths)
            if misfit is not None:
                return misfit
    parts = [(role, value) for value in given.values() if (role := role_of(value)) is not None]
    for (one, second), (two, first) in itertools.product(parts, parts):
        if (two, one) in ROLES:
            try:
                ROLES[two, one](first, second)
            except ValueError as error:
                return _Misfit(str(error))
    return _check_broadcasting(expectations, given)


def _check_broadcasting(expectations: Mapping[str, _Expected], given: Mapping[str, Any]) -> _Misfit | None:
    """Whether arrays of any shape have shapes that broadcast together, as almost all functions want it."""
    free = [name for name in given if name in expectations and ("...", "any") in expectations[name].arrays]
    shapes = {name: array.shape for name in free if (array := _as_array(given[name])) is not None and array.ndim}
    for one, two in itertools.combinations(shapes, 2):
        if any(a != b and 1 not in (a, b) for a, b in zip(shapes[one][::-1], shapes[two][::-1], strict=False)):
            sentence = (
                f"Arguments `{one}` and `{two}` must have shapes that broadcast together, but have {shapes[one]} and"
            )
            return _Misfit(f"{sentence} {shapes[two]}.", array=True, only_after=True)
    return None


def _check(name: str, value: Any, expected: _Expected, lengths: dict) -> _Misfit | None:
    """What is wrong with one argument; `lengths` are those of the axes seen so far."""
    for kind in expected.kinds:
        if kind.holds(value):
            if kind.element is None:
                return None
            parts = (_check(f"{name}[{i}]", part, kind.element, {}) for i, part in enumerate(value))
            # Of an entry the function may know more.
            return next((part._replace(early=False) for part in parts if part is not None), None)
    if not expected.arrays:
        early = all(kind.early for kind in expected.kinds)
        return _Misfit(f"Argument `{name}` must be {expected.words}, but is {_describe(value)}.", early)
    array = _as_array(value)
    if array is None:
        plain = all(axes for axes, _ in expected.arrays) and not expected.kinds
        words = "an array of numbers" if plain else expected.words
        return _Misfit(f"Argument `{name}` must be {words}, but is {_describe(value)}.", array=True)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        return _Misfit(f"Argument `{name}` must be real, but has dtype {array.dtype}.", array=True)
    fitting = [axes.split() for axes, _ in expected.arrays if _fits(axes.split(), array.ndim)]
    if not fitting:
        return _Misfit(f"Argument `{name}` must {_shape_phrase(expected)}, but has shape {array.shape}.", array=True)
    whole = {numbers for _, numbers in expected.arrays}
    if len(whole) == 1 and not _holds(array, *whole):
        words = {"int": "whole numbers", "bool": "flags, True or False"}[whole.pop()]
        words = words if array.ndim else {"whole numbers": "a whole number"}.get(words, "True or False")
        given = f"has dtype {array.dtype}" if array.ndim else f"is {value}"
        return _Misfit(f"Argument `{name}` must be {words}, but {given}.", array=True)
    return _check_lengths(name, array.shape, fitting[0], lengths)


def _check_lengths(name: str, shape: tuple[int, ...], axes: list[str], lengths: dict) -> _Misfit | None:
    """Whether axes of one letter have one length; those that are new are noted."""
    if any(axis == "..." or axis.startswith("*") for axis in axes):
        return None
    mine = "(" + ", ".join(axes) + ("," if len(axes) == 1 else "") + ")"
    for axis, length in zip(axes, shape, strict=True):
        if axis.isdigit() and int(axis) != length:
            return _Misfit(f"Argument `{name}` must have shape {mine}, but has shape {shape}.", array=True)
        if not axis.isidentifier() or axis.startswith("_"):
            continue
        known, other, theirs = lengths.setdefault(axis, (length, name, mine))
        if known == length:
            continue
        if other is None:
            sentence = f"Argument `{name}` must have shape {mine} with {axis} = {known} for this problem, but has shape {shape}."
        elif other == name:
            sentence = f"Argument `{name}` must have shape {mine}, but has shape {shape}."
        else:
            both = f"Arguments `{other}` {theirs} and `{name}` {mine}"
            sentence = f"{both} must have the same {axis}, but have {known} and {length}."
        return _Misfit(sentence, array=True)
    return None


def _as_array(value: Any) -> Any | None:
    """The value as something with a shape and a numeric dtype, or `None` where it has neither."""
    if isinstance(value, (str, bytes, Mapping, set, frozenset, type(None))):
        return None
    if not is_array(value):
        try:
            value = np.asarray(value)
        except (TypeError, ValueError, RuntimeError, AttributeError, OverflowError, jax.errors.JAXTypeError):
            # Lists of traced numbers are arrays to JAX alone.
            try:
                value = jnp.asarray(value)
            except (TypeError, ValueError, RuntimeError, AttributeError, OverflowError):
                return None
    numeric = jnp.issubdtype(value.dtype, np.number) or jnp.issubdtype(value.dtype, np.bool_)
    # A whole number beyond 64 bits is one all the same.
    return (
        value
        if numeric or (value.dtype == object and isinstance(value.item() if value.ndim == 0 else None, int))
        else None
    )


def _holds(array: Any, numbers: str) -> bool:
    """Whether an array can stand for whole numbers or for flags, by its dtype or by all its values."""
    if numbers == "any" or is_traced(array) or array.dtype == bool or array.dtype == object:
        return True
    if jnp.issubdtype(array.dtype, jnp.integer):
        return numbers == "int" or bool(np.all((np.asarray(array) == 0) | (np.asarray(array) == 1)))
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        return False
    values = np.asarray(array)
    return numbers == "int" and bool(np.all(np.isfinite(values) & (values == np.round(values))))


def _is_whole(value: Any) -> bool:
    if is_traced(value):
        return value.ndim == 0
    try:
        operator.index(value)
    except TypeError:
        array = _as_array(value)
        return array is not None and array.ndim == 0 and _holds(array, "int")
    return True


def _is_number(value: Any) -> bool:
    array = _as_array(value)
    return array is not None and array.ndim == 0 and not jnp.issubdtype(array.dtype, jnp.complexfloating)


def _is_flag(value: Any) -> bool:
    array = _as_array(value)
    return array is not None and array.ndim == 0 and _holds(array, "bool")


def _is_key(value: Any) -> bool:
    """A typed PRNG key, or the words of one: `jax.random` takes both."""
    if not is_array(value):
        return False
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return value.ndim == 0
    return value.dtype == np.uint32 and value.shape in ((2,), (4,))


def _flat(annotation: Any) -> list[Any]:
    """The alternatives of a union, type variables and named types resolved."""
    if isinstance(annotation, typing.TypeVar):
        chosen = annotation.__constraints__ or (annotation.__bound__ or Any,)
        return [one for each in chosen for one in _flat(each)]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [one for each in typing.get_args(annotation) for one in _flat(each)]
    return [annotation]


def _expected(annotation: Any) -> _Expected | None:
    """What an annotation asks for; `None` for what it leaves open."""
    kinds, arrays, alternatives = {}, {}, _flat(annotation)
    if any(_is_array_type(one) and _fits(one.dim_str.split(), 0) for one in alternatives):
        # A number is an array without axes, and has no further kind.
        alternatives = [one for one in alternatives if one not in (np.number, np.floating, np.integer, float, int)]
    if any(_is_array_type(one) and _fits(one.dim_str.split(), 1) for one in alternatives):
        # A sequence of numbers is a vector.
        alternatives = [one for one in alternatives if typing.get_origin(one) is not Sequence]
    for one in alternatives:
        if one is jax.Array or (_is_array_type(one) and not _is_key_type(one)):
            arrays[getattr(one, "dim_str", "..."), _numbers(one)] = None
            continue
        kind = _kind(one)
        if kind is None:
            return None
        kinds.setdefault(kind.words, kind)
    return _Expected(tuple(kinds.values()), tuple(arrays))


def _is_array_type(one: Any) -> bool:
    return inspect.isclass(one) and issubclass(one, AbstractArray)


def _is_key_type(one: Any) -> bool:
    return "prng_key" in one.dtypes or one.dtype.__name__ == "UInt32"


def _numbers(one: Any) -> str:
    """Which numbers an array holds: `"int"` for whole ones, `"bool"` for flags, or `"any"`."""
    words = [] if one is jax.Array else [str(dtype) for dtype in one.dtypes]
    return next((kind for kind in ("int", "bool") if words and all(kind in word for word in words)), "any")


def _kind(one: Any) -> _Kind | None:
    """One alternative of an annotation that is no array of numbers; `None` for anything."""
    origin, args = typing.get_origin(one), typing.get_args(one)
    if _is_array_type(one):
        return _Kind("a PRNG key, such as `jax.random.key(0)`", _is_key, early=True)
    if origin is typing.Literal:
        return _Kind(
            "one of " + ", ".join(map(repr, args)), lambda value: isinstance(value, str) and value in args, True
        )
    if origin is tuple and Ellipsis not in args:
        return _tuple(args)
    if origin in (list, tuple, Sequence):
        return _sequence(args[0] if args else Any)
    if origin is Callable or one is Callable:
        return _Kind("a function", callable, early=True)
    if one is Any or one is object or one is PyTree or not inspect.isclass(origin or one):
        return None
    if (
        test := {int: _is_whole, typing.SupportsIndex: _is_whole, float: _is_number, bool: _is_flag}.get(one)
    ) is not None:
        return _Kind(_NAMES[one.__name__], test, early=one is bool)
    one = {os.PathLike: os.PathLike, dict: Mapping}.get(origin or one, origin or one)
    words = _NAMES.get(one.__name__, f"{_article(one.__name__)} {one.__name__}")
    return _Kind(words, lambda value: isinstance(value, one), early=one in (str, type(None), os.PathLike, Mapping))


def _sequence(entry: Any) -> _Kind:
    element = _expected(entry)

    def holds(value):
        if is_array(value):
            return value.ndim > 0
        return isinstance(value, Sequence) and not isinstance(value, (str, bytes))

    words = "a sequence" if element is None else f"a sequence, each entry {element.words}"
    return _Kind(words, holds, element=element)


def _tuple(entries: tuple) -> _Kind:
    """As many entries as the annotation has; a list will do."""
    words = f"a tuple of {len(entries)} entries"
    return _Kind(
        words,
        lambda value: isinstance(value, (tuple, list)) and len(value) == len(entries),
        element=_expected(entries[0]),
    )


def _fits(axes: list[str], ndim: int) -> bool:
    variadic = [axis for axis in axes if axis == "..." or axis.startswith("*")]
    return ndim >= len(axes) - 1 if variadic else ndim == len(axes)


def _shape_words(axes: str) -> str:
    names = axes.split()
    if not names:
        return "a number"
    if any(name == "..." or name.startswith("*") for name in names):
        return "an array of numbers"
    return "an array of shape (" + ", ".join(names) + ("," if len(names) == 1 else "") + ")"


def _shape_phrase(expected: _Expected) -> str:
    """`have shape (n, m)`, or `be a number or ...` where there is more than one way."""
    axes = [axes for axes, _ in expected.arrays]
    if len(axes) > 1 or expected.kinds or not axes[0]:
        return f"be {expected.words}"
    return "have shape " + _shape_words(axes[0]).removeprefix("an array of shape ")


def _article(name: str) -> str:
    return "an" if name[0] in "AEIOUaeiou" else "a"


def _describe(value: Any) -> str:
    """A value in a sentence: itself where that is short, otherwise its kind."""
    if value is None or isinstance(value, (bool, int, float, complex, str)):
        text = repr(value)
        return text if len(text) <= 60 else text[:57] + "..."
    if is_array(value) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return f"an array of {value.size} keys: give one, and use `jax.vmap` for several"
    if is_array(value):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    return f"{_article(type(value).__name__)} {type(value).__name__}{hint_of(value)}"
