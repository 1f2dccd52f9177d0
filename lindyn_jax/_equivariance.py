"""Which optimizers commute with the reduction, read off their own program.

A reduced layer W stands for `P W R^T + rest` with orthonormal frames P and R and a rest that no gradient sees. An optimizer
commutes with that if all it does to gradients and weights is to add them, scale them by numbers, multiply matrices whose inner
frames are the same, and take numbers from them that frames do not change: inner products and norms. `obstacle` traces
`init` and `update` at both sizes, walks through the two programs side by side and says what else it found, such as a square
root of single entries. Nothing is tried out: branches that are taken at step 1000 are walked through like all others, so
optimizers that act late are known; what is not understood is an obstacle.
"""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core import ClosedJaxpr

from ._checks import is_traced


class _Number(NamedTuple):
    """An array that is the same at both sizes, along axes of one length, and is constant along all axes but `varies`.

    Numbers with the same `name` are equal. One with `unless` is so only where the number of that name has a certain value.
    """

    varies: frozenset[int] = frozenset()
    is_zero: bool = False
    name: int | None = None
    unless: tuple[int, int] | None = None


class _Matrix(NamedTuple):
    """An array of matrices in two frames, which lie along two of its axes; `is_pure` if they have no rest."""

    frames: tuple[Any, Any]
    axes: tuple[int, int]
    is_pure: bool = True
    unless: tuple[int, int] | None = None


class _Square(NamedTuple):
    """An elementwise product of two such arrays: of use only after its matrix axes have been summed."""

    frames: tuple[Any, Any]
    axes: tuple[int, int]
    unless: tuple[int, int] | None = None


class _Flat(NamedTuple):
    """Matrices written out one after another: their tags with their shapes at both sizes."""

    parts: tuple[tuple[_Matrix, tuple[int, ...], tuple[int, ...]], ...]


class _FlatSquare(NamedTuple):
    parts: tuple[tuple[_Matrix, tuple[int, ...], tuple[int, ...]], ...]


class _Sized(NamedTuple):
    """A number that depends on the sizes of the matrices: of use only for naming whole rows and columns."""


class _Finite(NamedTuple):
    """Whether entries of a matrix are finite: of use only as "all of them"."""


class _Obstacle(Exception):
    """What an optimizer does that does not commute, or that is not understood."""


def obstacle(optimizer: optax.GradientTransformation, full: Any, small: Any, frames: Any) -> str | None:
    """Why an optimizer does not commute with the reduction, or `None` if it does.

    **Args:** `full` and `small`, the weights at full and at reduced size, as trees of one structure of which only shapes and
    dtypes count; `frames`, a tree of the same structure whose leaves are pairs that name the frames of each layer.
    """
    treedef = jax.tree.structure(full)
    sizes = tuple(
        tuple(jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in jax.tree.leaves(tree))
        for tree in (full, small)
    )
    try:
        return _cached_obstacle(optimizer, treedef, sizes, tuple(frames))
    except _Traced as verdict:
        return verdict.args[0]


class _Traced(Exception):
    """The verdict on an optimizer with traced hyperparameters, which must not be kept."""


@functools.lru_cache(maxsize=128)
def _cached_obstacle(optimizer, treedef, sizes, frames) -> str | None:
    try:
        programs = _programs(optimizer, treedef, sizes)
        found = None
        try:
            _walk_optimizer(programs, frames)
        except _Obstacle as error:
            found = str(error)
        except (KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
            found = f"its program cannot be read, {type(error).__name__}: {_first_line(error)}"
        consts = [const for pair in programs for program in pair for const in program.consts]
    except _Obstacle as error:
        raise _Traced(str(error)) from error
    if is_traced(*consts):
        raise _Traced(found)
    return found


def refuse_unrunnable(optimizer: optax.GradientTransformation, weights: Any) -> None:
    """Refuses an optimizer that cannot make a step of these weights, or whose state does not keep its form.

    **Raises:** `ValueError`.
    """
    leaves, treedef = jax.tree.flatten(weights)
    sizes = (tuple(jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves),)
    try:
        _programs(optimizer, treedef, sizes)
    except _Obstacle as error:
        raise ValueError(f"Argument `optimizer` cannot be used: {error}.") from error


def extra_arguments(optimizer: optax.GradientTransformation, available: dict[str, Any]) -> dict[str, Any]:
    """Those arguments beyond gradients, state and weights that `optimizer.update` takes, such as the loss for line searches."""
    if not isinstance(optimizer, optax.GradientTransformationExtraArgs):
        return {}
    parameters = inspect.signature(optimizer.update).parameters.values()
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    # Line searches refuse what they do not know: only what optax itself passes around goes to those that take anything.
    names = {p.name for p in parameters} | ({"value", "grad", "value_fn"} if takes_all else set())
    return {name: value for name, value in available.items() if name in names}


def _programs(optimizer: optax.GradientTransformation, treedef: Any, sizes: tuple) -> list:
    """The programs of `init` and `update` for each of the sizes, on flat lists of arrays."""

    def squares(weights):
        # Any loss that frames do not change stands for the true one, which the optimizer only calls and differentiates.
        return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(weights))

    def init(leaves):
        return optimizer.init(jax.tree.unflatten(treedef, leaves))

    def update(gradients, state, leaves):
        gradients, weights = jax.tree.unflatten(treedef, gradients), jax.tree.unflatten(treedef, leaves)
        available = {
            "value": squares(weights),
            "grad": gradients,
            "value_fn": squares,
            "grad_fn": lambda weights, step: jax.grad(squares)(weights),
            "obj_fn": squares,
        }
        return optimizer.update(gradients, state, weights, **extra_arguments(optimizer, available))

    def trace(function, *args):
        try:
            return jax.make_jaxpr(function, return_shape=True)(*args)
        except Exception as error:
            raise _Obstacle(
                f"a step of it fails on these weights, {type(error).__name__}: {_first_line(error)}"
            ) from error

    pairs = []
    for leaves in sizes:
        start, state = trace(init, leaves)
        step, (_, new) = trace(update, leaves, state, leaves)
        forms = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)] for tree in (state, new)]
        if forms[0] != forms[1] or jax.tree.structure(state) != jax.tree.structure(new):
            raise _Obstacle("its state changes form in a step on these weights")
        pairs.append((start, step))
    return pairs


def _walk_optimizer(programs: list, frames: tuple) -> None:
    starts, steps = zip(*programs, strict=True)
    gradients = [_Matrix(pair, (0, 1)) for pair in frames]
    weights = [tag._replace(is_pure=False) for tag in gradients]
    _NAMES.clear()
    state = [_nameless(tag) for tag in _walk_closed(starts, weights)]
    for _ in range(20):
        out = _walk_closed(steps, [*gradients, *state, *weights])
        updates, new = out[: len(frames)], out[len(frames) :]
        for tag, expected in zip(updates, gradients, strict=True):
            if _join("the updates", tag, expected)._replace(is_pure=True) != expected:
                raise _Obstacle("its updates are no combination of gradients and weights")
        joined = [_nameless(_join("its state", a, b)) for a, b in zip(state, new, strict=True)]
        if joined == state:
            return
        state = joined
    raise _Obstacle("what its state holds changes from step to step")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else "without a message"


def _join(where: str, a: Any, b: Any) -> Any:
    """What an array is that may be either of two."""
    if a == b:
        return a
    if getattr(a, "unless", None) or getattr(b, "unless", None):
        raise _Obstacle(_BY_SIZE)
    if isinstance(a, _Number) and isinstance(b, _Number):
        return _Number(a.varies | b.varies, a.is_zero and b.is_zero)
    for one, other in ((a, b), (b, a)):
        if isinstance(one, _Number) and one.is_zero and isinstance(other, (_Matrix, _Square, _Flat, _FlatSquare)):
            return other
    if isinstance(a, (_Square, _FlatSquare)) or isinstance(b, (_Square, _FlatSquare)):
        raise _Obstacle("it works with squares of single entries of gradients or weights")
    if isinstance(a, _Matrix) and isinstance(b, _Matrix) and a[:2] == b[:2]:
        return a._replace(is_pure=a.is_pure and b.is_pure)
    if isinstance(a, _Flat) and isinstance(b, _Flat):
        parts = ((_join(where, p[0], q[0]), *p[1:]) for p, q in zip(a.parts, b.parts, strict=True) if p[1:] == q[1:])
        parts = tuple(parts)
        if len(parts) == len(a.parts):
            return _Flat(parts)
    raise _Obstacle(f"{where} mix matrices of different layers, or matrices with arrays of numbers")


# -- two programs side by side -----------------------------------------------------------------------------------------


def _walk_closed(programs: Iterable[Any], tags: list) -> list:
    first, second = programs
    consts = [_constant(a, b) for a, b in zip(first.consts, second.consts, strict=True)]
    if len(first.consts) != len(second.consts):
        raise _Obstacle(_BY_SIZE)
    return _walk(first.jaxpr, second.jaxpr, consts, tags)


_A_SIZE = "a number in it depends on the sizes of the matrices"
_BY_SIZE = "it does different things to matrices of different sizes"


def _constant(a: Any, b: Any) -> _Number | _Sized:
    same = a is b or (
        np.shape(a) == np.shape(b)
        and not is_traced(a, b)
        and not jnp.issubdtype(jnp.result_type(a), jax.dtypes.extended)
        and np.array_equal(np.asarray(a), np.asarray(b), equal_nan=jnp.issubdtype(jnp.result_type(a), jnp.inexact))
    )
    zero = [not is_traced(x) and _is_zero(x) for x in (a, b)]
    if not same and not all(zero):
        return _Sized()
    return _Number(frozenset() if all(zero) else frozenset(range(np.ndim(a))), all(zero))


def _is_zero(value: Any) -> bool:
    try:
        return bool(np.all(np.asarray(value) == 0))
    except (TypeError, ValueError):
        return False


def _walk(first: Any, second: Any, consts: list, tags: list) -> list:
    """Tags of the outputs of two programs that are the same but for sizes."""
    if len(first.eqns) != len(second.eqns):
        raise _Obstacle(_BY_SIZE)
    known: dict[Any, tuple[int, Any]] = {}
    other: dict[Any, int] = {}

    def define(a, b, tag):
        if isinstance(tag, _Number):
            tag = _named(tag) if tag.unless is None else tag
            shapes = a.aval.shape, b.aval.shape
            if len(shapes[0]) != len(shapes[1]) or any(shapes[0][i] != shapes[1][i] for i in tag.varies):
                raise _Obstacle("it makes arrays of numbers that have the shape of the weights")
        other[b] = len(known)
        known[a] = len(known), tag

    def read(a, b):
        if hasattr(a, "val") or hasattr(b, "val"):
            if not (hasattr(a, "val") and hasattr(b, "val")):
                raise _Obstacle(_BY_SIZE)
            tag = _constant(a.val, b.val)
            return _named(tag, ("literal", str(a.val))) if np.ndim(a.val) == 0 else tag
        number, tag = known[a]
        if other[b] != number:
            raise _Obstacle(_BY_SIZE)
        return tag

    for a, b, tag in zip(first.constvars, second.constvars, consts, strict=True):
        define(a, b, tag)
    for a, b, tag in zip(first.invars, second.invars, tags, strict=True):
        define(a, b, tag)
    for one, two in zip(first.eqns, second.eqns, strict=True):
        if one.primitive.name != two.primitive.name:
            raise _Obstacle(_BY_SIZE)
        inputs = [read(a, b) for a, b in zip(one.invars, two.invars, strict=True)]
        for a, b, tag in zip(one.outvars, two.outvars, _rule(one, two, inputs), strict=True):
            define(a, b, tag)
    return [read(a, b) for a, b in zip(first.outvars, second.outvars, strict=True)]


def _rule(one: Any, two: Any, inputs: list) -> list:
    name = one.primitive.name
    if name == "optimization_barrier":
        return inputs
    if name in _CONTROL:
        return _CONTROL[name](one, two, inputs)
    inner = [_subprogram(eqn) for eqn in (one, two)]
    if all(program is not None for program in inner):
        return _walk_closed(inner, inputs)
    if any(isinstance(tag, _Sized) for tag in inputs):
        if all(isinstance(tag, (_Number, _Sized)) for tag in inputs):
            return [_Sized() for _ in one.outvars]
        if name not in ("dynamic_slice", "dynamic_update_slice"):
            raise _Obstacle(_A_SIZE)
    if name != "select_n" and any(getattr(tag, "unless", None) for tag in inputs):
        return [_conditional(one, two, inputs)]
    if all(isinstance(tag, _Number) and tag.unless is None for tag in inputs):
        return _same_name(one, inputs, _numbers(one, two, inputs))
    if name == "split":
        return _split(one, two, inputs)
    if name not in _RULES:
        raise _Obstacle(f"it applies `{name}` to entries of gradients or weights, in no way that is known to commute")
    return [_RULES[name](one, two, inputs)]


def _subprogram(eqn: Any) -> Any | None:
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if key in eqn.params:
            program = eqn.params[key]
            return program if hasattr(program, "consts") else ClosedJaxpr(program, ())
    return None


_NAMES: dict[Any, int] = {}


def _named(tag: Any, of: Any = None) -> Any:
    """A number with a name: a new one, or the one that the same operation on numbers of the same names has had."""
    if not isinstance(tag, _Number) or (of is None and tag.name is not None):
        return tag
    return tag._replace(name=_NAMES.setdefault(object() if of is None else of, len(_NAMES)))


def _same_name(one: Any, inputs: list, outputs: list) -> list:
    name = one.primitive.name
    if len(outputs) != 1 or one.effects or name.startswith("random") or any(tag.name is None for tag in inputs):
        return [_named(tag) for tag in outputs]
    if name in ("squeeze", "reshape", "broadcast_in_dim") and not inputs[0].varies:
        return [outputs[0]._replace(name=inputs[0].name)]
    return [_named(outputs[0], (name, str(sorted(one.params.items())), *(tag.name for tag in inputs)))]


def _conditional(one: Any, two: Any, inputs: list) -> Any:
    """The usual operations on what is a matrix or a number under a condition, which go on under the condition."""
    conditions = {tag.unless for tag in inputs if getattr(tag, "unless", None)}
    if len(conditions) != 1 or one.primitive.name in ("dot_general", "add_any"):
        raise _Obstacle(_BY_SIZE)
    bare = [tag._replace(unless=None) if getattr(tag, "unless", None) else tag for tag in inputs]
    if any(isinstance(tag, _Number) and tag.varies for tag in bare):
        raise _Obstacle(_BY_SIZE)
    (out,) = _rule(one, two, bare)
    if not isinstance(out, (_Number, _Matrix, _Square)):
        raise _Obstacle(_BY_SIZE)
    return out._replace(unless=conditions.pop(), **({"name": None} if isinstance(out, _Number) else {}))


def _numbers(one: Any, two: Any, inputs: list) -> list:
    """Any operation on numbers alone: what comes out is the same at both sizes, if no length enters."""
    name, shape = one.primitive.name, one.outvars[0].aval.shape if one.outvars else ()
    ins = [v.aval.shape for v in one.invars]
    if name == "broadcast_in_dim":
        (tag, *_), dims = inputs, one.params["broadcast_dimensions"]
        return [_Number(frozenset(dims[i] for i in tag.varies if ins[0][i] == shape[dims[i]]), tag.is_zero)]
    same_length = all(v.aval.shape == w.aval.shape for v, w in zip(one.invars, two.invars, strict=True))
    outs = [(v.aval.shape, w.aval.shape) for v, w in zip(one.outvars, two.outvars, strict=True)]
    zero = bool(inputs) and name in _KEEP_ZERO and all(tag.is_zero for tag in inputs[: _KEEP_ZERO[name]])
    if zero:
        return [_Number(is_zero=True) for _ in one.outvars]
    if name in ("mul", "and") and any(tag.is_zero for tag in inputs):
        return [_Number(is_zero=True)]
    elementwise = len(one.outvars) == 1 and all(s in ((), shape) for s in ins) and name not in _NOT_ELEMENTWISE
    if elementwise and inputs:
        return [_Number(frozenset().union(*(tag.varies for tag in inputs)))]
    if not same_length and name not in (
        "reduce_max",
        "reduce_min",
        "reduce_and",
        "reduce_or",
        "squeeze",
        "reshape",
        "slice",
    ):
        raise _Obstacle(_A_SIZE)
    if not same_length:
        if any(tag.varies for tag in inputs):
            raise _Obstacle("it makes arrays of numbers that have the shape of the weights")
        return [_Number() for _ in one.outvars]
    if all(not tag.varies for tag in inputs) and name in ("squeeze", "reshape", "slice", "dynamic_slice", "transpose"):
        return [_Number() for _ in one.outvars]
    if any(a != b for a, b in outs):
        raise _Obstacle("it makes arrays of numbers that have the shape of the weights")
    return [_Number(frozenset(range(len(a)))) for a, _ in outs]


_KEEP_ZERO = {
    **dict.fromkeys(
        [
            "neg",
            "copy",
            "convert_element_type",
            "real",
            "square",
            "integer_pow",
            "abs",
            "sqrt",
            "sign",
            "stop_gradient",
            "reduce_sum",
        ],
        1,
    ),
    **dict.fromkeys(["reshape", "squeeze", "transpose", "slice", "dynamic_slice"], 1),
    **dict.fromkeys(["add", "sub", "add_any", "dynamic_update_slice"], 2),
    "concatenate": 99,
}
_NOT_ELEMENTWISE = frozenset(
    [
        "iota",
        "cumsum",
        "cumprod",
        "cummax",
        "cummin",
        "cumlogsumexp",
        "sort",
        "argsort",
        "rev",
        "transpose",
        "reshape",
        "slice",
        "dynamic_slice",
        "dynamic_update_slice",
        "scatter",
        "scatter-add",
        "scatter_add",
        "scatter_mul",
        "gather",
        "dot_general",
        "concatenate",
        "split",
        "pad",
        "reduce_window",
        "triangular_solve",
        "cholesky",
        "random_bits",
        "random_wrap",
        "random_unwrap",
        "threefry2x32",
    ]
)


# -- what commutes -----------------------------------------------------------------------------------------------------


def _scalar_for(number: _Number, matrix: Any, name: str) -> None:
    """Refuses a factor that differs from entry to entry of a matrix."""
    axes = matrix.axes if isinstance(matrix, (_Matrix, _Square)) else (0,)
    if number.varies & set(axes):
        raise _Obstacle(f"it applies `{name}` to a matrix and an array whose entries differ")


def _linear(one, two, inputs):
    tag = inputs[0]
    if one.primitive.name == "convert_element_type":
        given = jnp.dtype(one.params["new_dtype"])
        if not jnp.issubdtype(given, jnp.floating) or jnp.finfo(given).bits < 32:
            raise _Obstacle(f"it rounds matrices to {given.name}")
    if isinstance(tag, _Finite):
        raise _Obstacle("it looks at which entries are finite")
    return tag


def _add(one, two, inputs):
    return _join(f"its `{one.primitive.name}`s", *inputs)


def _mul(one, two, inputs):
    a, b = inputs
    for x, y in ((a, b), (b, a)):
        if isinstance(x, _Number):
            if isinstance(y, _Finite):
                raise _Obstacle("it looks at which entries are finite")
            if x.is_zero:
                return _Number(is_zero=True)
            _scalar_for(x, y, "mul")
            return y
    if isinstance(a, _Matrix) and isinstance(b, _Matrix) and a[:2] == b[:2]:
        return _Square(a.frames, a.axes)
    if isinstance(a, _Flat) and isinstance(b, _Flat):
        keys = [[(part[0].frames, *part[1:]) for part in tag.parts] for tag in (a, b)]
        if keys[0] == keys[1]:
            return _FlatSquare(a.parts)
    raise _Obstacle("it multiplies entries of different matrices, or three and more of one")


def _div(one, two, inputs):
    a, b = inputs
    if not isinstance(b, _Number) or isinstance(a, (_Finite, _Number)):
        raise _Obstacle("it divides by single entries of gradients or weights")
    _scalar_for(b, a, "div")
    return a


def _square(one, two, inputs):
    (a,) = inputs
    if one.primitive.name == "integer_pow" and one.params["y"] == 1:
        return a
    if one.primitive.name == "integer_pow" and one.params["y"] != 2:
        raise _Obstacle(f"it takes single entries to the power {one.params['y']}")
    return _mul(one, two, [a, a])


def _select(one, two, inputs):
    which, *cases = inputs
    if not isinstance(which, _Number):
        raise _Obstacle("it chooses entries by entries of gradients or weights")
    under = [getattr(case, "unless", None) for case in cases]
    if any(under) and len(cases) == 2 and not which.varies:
        # A case that is what it seems unless the condition holds by which it is not taken.
        for i, condition in enumerate(under):
            if condition == (which.name, 1 - i):
                cases[i] = cases[i]._replace(unless=None)
    elif len(cases) == 2 and not which.varies and which.name is not None:
        for i, (case, other) in enumerate((cases, cases[::-1])):
            if isinstance(case, _Matrix) and isinstance(other, _Number) and not (other.is_zero or other.varies):
                return case._replace(unless=(which.name, 1 - i))
    tag = cases[0]
    for case in cases[1:]:
        tag = _join("its choices", tag, case)
    if not isinstance(tag, _Number):
        _scalar_for(which, tag, "where")
    return tag


def _reduce_sum(one, two, inputs):
    (tag,), axes = inputs, set(one.params["axes"])
    if isinstance(tag, _FlatSquare) and axes == {0}:
        return _Number()
    if isinstance(tag, _Square) and set(tag.axes) <= axes:
        left = [i for i in range(len(one.invars[0].aval.shape)) if i not in axes]
        return _Number(frozenset(range(len(left))))
    if isinstance(tag, (_Matrix, _Square)) and not axes & set(tag.axes):
        return tag._replace(axes=tuple(a - sum(x < a for x in axes) for a in tag.axes))
    raise _Obstacle("it sums entries of gradients or weights over rows, columns or all of them")


def _all(one, two, inputs):
    (tag,) = inputs
    if isinstance(tag, _Finite) and len(one.outvars[0].aval.shape) == 0:
        return _Number()
    raise _Obstacle("it looks at which entries are finite")


def _is_finite(one, two, inputs):
    return _Finite()


def _transpose(one, two, inputs):
    (tag,), order = inputs, one.params["permutation"]
    if not isinstance(tag, (_Matrix, _Square)):
        raise _Obstacle("it reorders entries")
    return tag._replace(axes=tuple(order.index(a) for a in tag.axes))


def _broadcast(one, two, inputs):
    tag, dims = inputs[0], one.params["broadcast_dimensions"]
    shapes = [(eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape) for eqn in (one, two)]
    if not isinstance(tag, (_Matrix, _Square)) or any(s[a] != t[dims[a]] for s, t in shapes for a in tag.axes):
        if isinstance(tag, (_Flat, _FlatSquare)) and all(s == t for s, t in shapes):
            return tag
        raise _Obstacle("it repeats entries")
    return tag._replace(axes=tuple(dims[a] for a in tag.axes))


def _reshape(one, two, inputs):
    (tag, *_) = inputs
    befores, afters = ([getattr(eqn, v)[0].aval.shape for eqn in (one, two)] for v in ("invars", "outvars"))
    if isinstance(tag, (_Flat, _FlatSquare)):
        (part, *shapes), *others = tag.parts
        if befores == afters:
            return tag
        if not others and afters == shapes:
            return part if isinstance(tag, _Flat) else _Square(part.frames, part.axes)
    elif len(befores[0]) == 2 and len(afters[0]) == len(afters[1]) == 1:
        parts = ((_Matrix(tag.frames, tag.axes, getattr(tag, "is_pure", True)), *befores),)
        return _FlatSquare(parts) if isinstance(tag, _Square) else _Flat(parts)
    else:
        first, second = (_reshaped(tag, before, after) for before, after in zip(befores, afters, strict=True))
        if first is not None and first == second:
            return first
    raise _Obstacle("it reorders entries")


def _reshaped(tag: Any, before: tuple, after: tuple) -> Any | None:
    if isinstance(tag, (_Matrix, _Square)):
        if before == after:
            return tag
        # Axes of length one come or go: the matrix axes keep their order and their lengths.
        if [x for x in before if x != 1] != [x for x in after if x != 1] or 1 in [before[a] for a in tag.axes]:
            return None
        places = [i for i, x in enumerate(after) if x != 1]
        ranks = [i for i, x in enumerate(before) if x != 1]
        return tag._replace(axes=tuple(places[ranks.index(a)] for a in tag.axes))
    return None


def _squeeze(one, two, inputs):
    (tag,), gone = inputs, one.params["dimensions"]
    if not isinstance(tag, (_Matrix, _Square)) or set(gone) & set(tag.axes):
        raise _Obstacle("it reorders entries")
    return tag._replace(axes=tuple(a - sum(x < a for x in gone) for a in tag.axes))


def _dot(one, two, inputs):
    (contract, batch), (a, b) = one.params["dimension_numbers"], inputs
    contract, batch = [tuple(x) for x in contract], [tuple(x) for x in batch]
    ranks = [len(v.aval.shape) for v in one.invars]
    if isinstance(a, _Flat) and isinstance(b, _Flat) and contract == [(0,), (0,)]:
        _mul(one, two, inputs)
        return _Number()

    def place(side: int, axis: int) -> int:
        if axis in batch[side]:
            return batch[side].index(axis)
        free = [[i for i in range(ranks[s]) if i not in (*batch[s], *contract[s])] for s in (0, 1)]
        return len(batch[0]) + (len(free[0]) if side else 0) + free[side].index(axis)

    if isinstance(a, _Matrix) and isinstance(b, _Matrix):
        mine = [[axis for axis in c if axis in tag.axes] for c, tag in zip(contract, inputs, strict=True)]
        met = list(zip(*contract, strict=True))
        inner = [(tag.axes.index(x), x) for tag, axes in zip(inputs, mine, strict=True) for x in axes]
        fits = all((x in a.axes) == (y in b.axes) for x, y in met) and not any(
            set(batch[s]) & set(tag.axes) for s, tag in enumerate(inputs)
        )
        same = all(
            a.frames[a.axes.index(x)] == b.frames[b.axes.index(y)] for x, y in met if x in a.axes and y in b.axes
        )
        if fits and len(inner) == 4 and same:
            return _Number(frozenset(range(len(one.outvars[0].aval.shape))))
        if fits and len(inner) == 2 and len(met) == 1 and a.is_pure and b.is_pure:
            (i, _x), (j, _y) = inner
            if a.frames[i] == b.frames[j]:
                frames = a.frames[1 - i], b.frames[1 - j]
                return _Matrix(frames, (place(0, a.axes[1 - i]), place(1, b.axes[1 - j])))
        raise _Obstacle(
            "it multiplies matrices whose frames do not meet, or weights that have a part outside of the reduction"
        )
    for side, (tag, number) in enumerate(((a, b), (b, a))):
        if (
            isinstance(tag, _Matrix)
            and isinstance(number, _Number)
            and not set(tag.axes) & {*contract[side], *batch[side]}
        ):
            return tag._replace(axes=tuple(place(side, axis) for axis in tag.axes))
    raise _Obstacle("it multiplies entries of matrices by arrays whose entries differ")


def _whole(one, two, inputs):
    """Slices along axes other than those of the matrix, or, of matrices written out, one part of them."""
    tag = inputs[0]
    shapes = [(eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape) for eqn in (one, two)]
    others = [index for axis, index in enumerate(inputs[1:]) if axis not in getattr(tag, "axes", ())]
    if any(not isinstance(index, _Number) for index in others):
        raise _Obstacle(_A_SIZE)
    if isinstance(tag, _Matrix) and all(s[a] == t[a] for s, t in shapes for a in tag.axes):
        return tag
    if isinstance(tag, _Flat) and one.primitive.name == "slice":
        asked = [(eqn.params["start_indices"][0], eqn.params["limit_indices"][0]) for eqn in (one, two)]
        for i, part in enumerate(tag.parts):
            starts = [sum(int(np.prod(p[1:][side])) for p in tag.parts[:i]) for side in (0, 1)]
            if asked == [(start, start + int(np.prod(part[1:][side]))) for side, start in enumerate(starts)]:
                return _Flat((part,))
    raise _Obstacle("it treats parts of a matrix by themselves")


def _split(one, two, inputs):
    (tag,) = inputs
    for side, eqn in enumerate((one, two)):
        if not isinstance(tag, _Flat) or list(eqn.params["sizes"]) != [int(np.prod(p[1:][side])) for p in tag.parts]:
            raise _Obstacle("it treats parts of a matrix by themselves")
    return [_Flat((part,)) for part in tag.parts]


def _put(one, two, inputs):
    old, new, *where = inputs
    tag = _join("its memory", old, new)
    if any(not isinstance(index, _Number) for axis, index in enumerate(where) if axis not in getattr(tag, "axes", ())):
        raise _Obstacle(_A_SIZE)
    shapes = [(eqn.invars[0].aval.shape, eqn.invars[1].aval.shape) for eqn in (one, two)]
    if isinstance(tag, _Matrix) and all(s[a] == t[a] for s, t in shapes for a in tag.axes):
        return tag
    raise _Obstacle("it treats parts of a matrix by themselves")


def _scatter(one, two, inputs):
    old, _where, new = inputs
    numbers = one.params["dimension_numbers"]
    window, inserted = list(numbers.update_window_dims), set(numbers.inserted_window_dims)
    rank = len(one.invars[0].aval.shape)
    axes = dict(zip([i for i in range(rank) if i not in inserted], window, strict=True))
    if isinstance(new, _Matrix):
        back = {u: i for i, u in axes.items()}
        if not set(new.axes) <= set(back):
            raise _Obstacle("it treats parts of a matrix by themselves")
        new = new._replace(axes=tuple(back[a] for a in new.axes))
    tag = _join("its memory", old, new)
    for eqn in (one, two):
        s, t = eqn.invars[0].aval.shape, eqn.invars[2].aval.shape
        if not isinstance(tag, _Matrix) or any(a in inserted or s[a] != t[axes[a]] for a in tag.axes):
            raise _Obstacle("it treats parts of a matrix by themselves")
    return tag


def _gather(one, two, inputs):
    tag, _where = inputs
    numbers = one.params["dimension_numbers"]
    collapsed = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    rank = len(one.invars[0].aval.shape)
    axes = dict(zip([i for i in range(rank) if i not in collapsed], numbers.offset_dims, strict=True))
    for eqn in (one, two):
        s, sizes = eqn.invars[0].aval.shape, eqn.params["slice_sizes"]
        if not isinstance(tag, _Matrix) or any(a in collapsed or s[a] != sizes[a] for a in tag.axes):
            raise _Obstacle("it treats parts of a matrix by themselves")
    return tag._replace(axes=tuple(axes[a] for a in tag.axes))


def _concatenate(one, two, inputs):
    dimension = one.params["dimension"]
    if all(isinstance(tag, _Flat) for tag in inputs):
        return _Flat(tuple(part for tag in inputs for part in tag.parts))
    tag = inputs[0]
    for other in inputs[1:]:
        tag = _join("its stacks", tag, other)
    if isinstance(tag, _Matrix) and dimension not in tag.axes:
        return tag
    raise _Obstacle("it joins entries of matrices")


_RULES: dict[str, Callable] = {
    **dict.fromkeys(("neg", "copy", "copy_p", "convert_element_type", "real", "stop_gradient"), _linear),
    **dict.fromkeys(("add", "sub", "add_any"), _add),
    **dict.fromkeys(("square", "integer_pow"), _square),
    **dict.fromkeys(("slice", "dynamic_slice"), _whole),
    **dict.fromkeys(("reduce_and",), _all),
    "mul": _mul,
    "div": _div,
    "select_n": _select,
    "reduce_sum": _reduce_sum,
    "is_finite": _is_finite,
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "dot_general": _dot,
    "dynamic_update_slice": _put,
    "scatter": _scatter,
    "gather": _gather,
    "concatenate": _concatenate,
}


# -- branches and loops ------------------------------------------------------------------------------------------------


def _cond(one, two, inputs):
    which, *operands = inputs
    if not isinstance(which, _Number):
        raise _Obstacle("it chooses by entries of gradients or weights")
    if len(one.params["branches"]) != len(two.params["branches"]):
        raise _Obstacle(_BY_SIZE)
    branches = zip(one.params["branches"], two.params["branches"], strict=True)
    outs = [_walk_closed(pair, operands) for pair in branches]
    joined = outs[0]
    for out in outs[1:]:
        joined = [_join("its branches", x, y) for x, y in zip(joined, out, strict=True)]
    return joined


def _nameless(tag: Any) -> Any:
    return tag._replace(name=None) if isinstance(tag, _Number) else tag


def _settle(body: Callable[[list], list], carry: list) -> list:
    carry = [_nameless(tag) for tag in carry]
    for _ in range(20):
        joined = [_nameless(_join("its loop", x, y)) for x, y in zip(carry, body(carry), strict=True)]
        if joined == carry:
            return carry
        carry = joined
    raise _Obstacle("what its loop holds changes from turn to turn")


def _while(one, two, inputs):
    params = [eqn.params for eqn in (one, two)]
    k, j = params[0]["cond_nconsts"], params[0]["body_nconsts"]
    for_cond, for_body, carry = inputs[:k], inputs[k : k + j], inputs[k + j :]
    body = lambda carry: _walk_closed((p["body_jaxpr"] for p in params), [*for_body, *carry])  # noqa: E731
    carry = _settle(body, carry)
    (test,) = _walk_closed((p["cond_jaxpr"] for p in params), [*for_cond, *carry])
    if not isinstance(test, _Number):
        raise _Obstacle("it chooses by entries of gradients or weights")
    return carry


def _scan(one, two, inputs):
    params = [eqn.params for eqn in (one, two)]
    if params[0]["length"] != params[1]["length"]:
        raise _Obstacle(_BY_SIZE)
    k, c = params[0]["num_consts"], params[0]["num_carry"]
    consts, carry, xs = inputs[:k], inputs[k : k + c], [_shifted(tag, -1) for tag in inputs[k + c :]]
    walk = lambda carry: _walk_closed((p["jaxpr"] for p in params), [*consts, *carry, *xs])  # noqa: E731
    carry = _settle(lambda carry: walk(carry)[:c], carry)
    return [*carry, *(_shifted(tag, 1) for tag in walk(carry)[c:])]


def _shifted(tag: Any, by: int) -> Any:
    """The tag of a slice along the first axis, or of a stack of such slices."""
    if isinstance(tag, _Number):
        varies = {a + by for a in tag.varies if a + by >= 0}
        return _Number(frozenset(varies | ({0} if by > 0 and not tag.is_zero else set())), tag.is_zero)
    if isinstance(tag, (_Matrix, _Square)) and (by > 0 or 0 not in tag.axes):
        return tag._replace(axes=tuple(a + by for a in tag.axes))
    raise _Obstacle("it goes through rows or columns one by one")


_CONTROL: dict[str, Callable] = {"cond": _cond, "while": _while, "scan": _scan}
