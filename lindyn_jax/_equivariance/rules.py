"""What commutes: for each primitive that may be applied to matrices, what comes out of it."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from . import values as v
from .values import Obstacle, Value, are_alike, join, number

# Parameters that follow the sizes of matrices. All others have to be the same at both sizes.
_OF_SIZE = {"shape", "new_sizes", "start_indices", "limit_indices", "slice_sizes", "sizes"}


class Pair:
    """An equation at both sizes: its parameters, and shapes of what goes in and comes out, each a pair."""

    def __init__(self, one: Any, two: Any):
        self.one, self.two, self.name, self.params = one, two, one.primitive.name, (one.params, two.params)
        self.ins = [(a.aval.shape, b.aval.shape) for a, b in zip(one.invars, two.invars, strict=True)]
        self.outs = [(a.aval.shape, b.aval.shape) for a, b in zip(one.outvars, two.outvars, strict=True)]

    def has_same_params(self, *, sizes: bool) -> bool:
        """Whether parameters are the same, those that follow sizes of matrices among them or not."""
        one, two = ({k: str(x) for k, x in p.items() if sizes or k not in _OF_SIZE} for p in self.params)
        return one == two

    def require_same_lengths(self, which: int, but: tuple[int, ...]) -> None:
        """Refuses an input that has other lengths at the other size, along other axes than some."""
        if any(s != t for i, (s, t) in enumerate(zip(*self.ins[which], strict=True)) if i not in but):
            raise Obstacle(v.BY_SIZE)


RULES: dict[str, Callable[..., Any]] = {}


def rule(*names: str) -> Callable[[Callable], Callable]:
    """Registers what comes out of inputs of which some are no numbers: a value, or a list of several."""
    return lambda function: RULES.update(dict.fromkeys(names, function)) or function


def _whole(befores: tuple, afters: tuple, places: dict[int, int]) -> dict[int, int]:
    """Those axes that keep their lengths at both sizes."""
    return {i: j for i, j in places.items() if all(s[i] == t[j] for s, t in zip(befores, afters, strict=True))}


def _without(rank: int, gone: tuple[int, ...]) -> dict[int, int]:
    """Where axes go when some are taken out."""
    return {axis: i for i, axis in enumerate(axis for axis in range(rank) if axis not in gone)}


def _check_dtype(dtype: Any) -> None:
    dtype = jnp.dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.floating) or jnp.finfo(dtype).bits < 32:
        raise Obstacle(f"it rounds matrices to {dtype.name}")


# -- entries, sums and products ----------------------------------------------------------------------------------------


@rule("neg", "copy", "copy_p", "convert_element_type", "real", "stop_gradient")
def _linear(pair: Pair, a: Value) -> Value:
    if pair.name == "convert_element_type":
        _check_dtype(pair.one.params["new_dtype"])
    if a.degree is None:
        raise Obstacle(v.FINITE)
    return a


RULES |= dict.fromkeys(("add", "sub", "add_any"), lambda pair, a, b: join(f"its `{pair.name}`s", a, b))


@rule("mul")
def _mul(pair: Pair, a: Value, b: Value) -> Value:
    factor, other = (a, b) if a.degree == 0 else (b, a)
    if factor.degree != 0:
        return _product(a, b)
    if other.degree is None:
        raise Obstacle(v.FINITE)
    return number(is_zero=True) if factor.is_zero else other.scaled(factor, "mul")


def _product(a: Value, b: Value) -> Value:
    if not are_alike(a, b):
        raise Obstacle("it multiplies entries of different matrices, or three and more of one")
    return a.but(degree=2, is_pure=True)


@rule("div")
def _div(pair: Pair, a: Value, b: Value) -> Value:
    if b.degree != 0 or not a.degree:
        raise Obstacle("it divides by single entries of gradients or weights")
    return a.scaled(b, "div")


@rule("square", "integer_pow")
def _power(pair: Pair, a: Value) -> Value:
    power = pair.one.params.get("y", 2)
    if power not in (1, 2):
        raise Obstacle(f"it takes single entries to the power {power}")
    return a if power == 1 else _product(a, a)


@rule("select_n")
def _select(pair: Pair, which: Value, *cases: Value) -> Value:
    if which.degree != 0 or which.unless:
        raise Obstacle(v.BY_SIZE if which.unless else "it chooses entries by entries of gradients or weights")
    if len(cases) == 2 and not which.varies and which.name is not None:
        conditions = [(which.name, 1 - i) for i in (0, 1)]
        if any(case.unless for case in cases):
            # A case that is what it seems unless the condition holds by which it is not taken.
            cases = tuple(a.under(None) if a.unless == c else a for a, c in zip(cases, conditions, strict=True))
        else:
            for case, other, condition in zip(cases, cases[::-1], conditions, strict=True):
                if case.frames and case.degree == 1 and other.degree == 0 and not (other.is_zero or other.varies):
                    return case.under(condition)
    return join("its choices", *cases).scaled(which, "where")


RULES["is_finite"] = lambda pair, a: v.finite


@rule("reduce_and")
def _all(pair: Pair, a: Value) -> Value:
    if a.degree is not None or pair.outs[0][0] != ():
        raise Obstacle(v.FINITE)
    return number()


@rule("reduce_sum")
def _sum(pair: Pair, a: Value) -> Value:
    axes, rank = pair.one.params["axes"], len(pair.ins[0][0])
    if a.degree == 2 and set(a.axes) <= set(axes):
        return number(range(rank - len(axes)))
    return a.along(_without(rank, axes), "it sums entries of gradients or weights over rows, columns or all of them")


@rule("dot_general")
def _dot(pair: Pair, a: Value, b: Value) -> Value:
    _check_dtype(pair.one.outvars[0].aval.dtype)
    contract, batch = pair.one.params["dimension_numbers"]
    free = [_without(len(pair.ins[s][0]), (*contract[s], *batch[s])) for s in (0, 1)]
    starts = len(batch[0]), len(batch[0]) + len(free[0])
    places = [{axis: start + i for axis, i in new.items()} for start, new in zip(starts, free, strict=True)]
    if a.parts and b.parts and not free[0] and not free[1] and not batch[0]:
        _product(a, b)
        return number()
    if a.frames and b.frames and a.degree == b.degree == 1:
        met = list(zip(*contract, strict=True))
        inner = [(a.axes.index(x), b.axes.index(y)) for x, y in met if x in a.axes and y in b.axes]
        apart = set(a.axes) & set(batch[0]) or set(b.axes) & set(batch[1])
        fits = not apart and all((x in a.axes) == (y in b.axes) for x, y in met)
        if fits and all(a.frames[i] == b.frames[j] for i, j in inner):
            if len(inner) == 2:
                return number(range(len(pair.outs[0][0])))
            if len(inner) == len(met) == 1 and a.is_pure and b.is_pure:
                i, j = (1 - k for k in inner[0])
                frames, axes = (a.frames[i], b.frames[j]), (places[0][a.axes[i]], places[1][b.axes[j]])
                return a.but(frames=frames, axes=axes)
        raise Obstacle(
            "it multiplies matrices whose frames do not meet, or weights that have a part outside of the reduction"
        )
    for side, (one, other) in enumerate(((a, b), (b, a))):
        if one.frames and other.degree == 0:
            return one.along(places[side], "it multiplies entries of matrices by arrays whose entries differ")
    raise Obstacle("it multiplies entries of matrices by arrays whose entries differ")


# -- axes, parts and memories ------------------------------------------------------------------------------------------


@rule("broadcast_in_dim")
def _broadcast(pair: Pair, a: Value, *_: Value) -> Value:
    places = dict(enumerate(pair.one.params["broadcast_dimensions"]))
    return a.along(_whole(pair.ins[0], pair.outs[0], places), v.REPEATS)


@rule("transpose", "squeeze")
def _reorder(pair: Pair, a: Value) -> Value:
    gone, rank = pair.one.params.get("dimensions", ()), len(pair.ins[0][0])
    order = pair.one.params.get("permutation", [axis for axis in range(rank) if axis not in gone])
    return a.along({old: new for new, old in enumerate(order)}, v.ORDER)


@rule("reshape")
def _reshape(pair: Pair, a: Value, *_: Value) -> Value:
    befores, afters = pair.ins[0], pair.outs[0]
    if len(a.parts) == 1 and afters == a.parts[0][2]:
        return a.but(frames=a.parts[0][0], axes=a.parts[0][1], parts=())
    if a.frames and len(befores[0]) == 2 and len(afters[0]) == len(afters[1]) == 1:
        return a.but(frames=(), axes=(0,), parts=((a.frames, a.axes, befores),))
    first, second = (a.along(_regrouped(s, t), v.ORDER) for s, t in zip(befores, afters, strict=True))
    if first != second:
        raise Obstacle(v.ORDER)
    return first


def _regrouped(before: tuple, after: tuple) -> dict[int, int]:
    """Where axes go when axes of length one come or go: all others keep their order and their lengths."""
    if before == after:
        return {i: i for i in range(len(before))}
    old, new = ([i for i, length in enumerate(shape) if length != 1] for shape in (before, after))
    return dict(zip(old, new, strict=True)) if [before[i] for i in old] == [after[i] for i in new] else {}


def _windows(pair: Pair) -> dict[int, int]:
    """Which axis of the whole is which of a part that is taken out or put in."""
    rank, p = len(pair.ins[0][0]), pair.one.params.get("dimension_numbers")
    if pair.name == "gather":
        gone, axes = p.collapsed_slice_dims, p.offset_dims
    elif pair.name == "scatter":
        gone, axes = p.inserted_window_dims, p.update_window_dims
    else:
        return {i: i for i in range(rank)}
    return {axis: axes[i] for axis, i in _without(rank, (*gone, *p.operand_batching_dims)).items()}


def _check_places(a: Value, where: tuple[Value, ...]) -> None:
    """Refuses places that depend on sizes, but along axes of matrices, of which only the whole is taken."""
    if any(index.degree != 0 for axis, index in enumerate(where) if axis not in a.axes or a.parts):
        raise Obstacle(v.A_SIZE)


@rule("dynamic_slice", "gather")
def _take(pair: Pair, a: Value, *where: Value) -> Value:
    _check_places(a, where)
    if pair.one.params.get("fill_value"):
        raise Obstacle(v.PARTS)
    return a.along(_whole(pair.ins[0], pair.outs[0], _windows(pair)), v.PARTS)


@rule("slice")
def _slice(pair: Pair, a: Value) -> Value:
    out = _take(pair, a)
    for key in ("start_indices", "limit_indices", "strides"):
        p, q = (params[key] or () for params in pair.params)
        if len(p) != len(q) or any(s != t for i, (s, t) in enumerate(zip(p, q, strict=True)) if i not in a.axes):
            raise Obstacle(v.BY_SIZE)
    return out


@rule("dynamic_update_slice")
def _put(pair: Pair, old: Value, new: Value, *where: Value, place: int = 1) -> Value:
    windows, combine = _windows(pair), pair.one.params.get("update_jaxpr")
    if combine is not None and (combine.eqns or combine.outvars[0] is not combine.invars[1]):
        raise Obstacle("it changes parts of a matrix in its memory by a function of their entries")
    if new.degree != 0:
        new = new.along({part: axis for axis, part in windows.items()}, v.PARTS)
    joined = join("its memory", old, new)
    _check_places(joined, where)
    joined.along(_whole(pair.ins[0], pair.ins[place], windows), v.PARTS)
    pair.require_same_lengths(place, but=tuple(windows[axis] for axis in joined.axes))
    return joined


@rule("scatter")
def _scatter(pair: Pair, old: Value, where: Value, new: Value) -> Value:
    return _put(pair, old, new, where, place=2)


@rule("split")
def _split(pair: Pair, a: Value) -> list[Value]:
    lengths = [[math.prod(shapes[side]) for _, _, shapes in a.parts] for side in (0, 1)]
    if not a.parts or lengths != [list(p["sizes"]) for p in pair.params]:
        raise Obstacle(v.PARTS)
    return [a.but(parts=(part,)) for part in a.parts]


@rule("concatenate")
def _concatenate(pair: Pair, *inputs: Value) -> Value:
    if all(a.parts and a.degree == 1 for a in inputs):
        return inputs[0].but(parts=sum((a.parts for a in inputs), ()), is_pure=all(a.is_pure for a in inputs))
    joined = join("its stacks", *inputs)
    others = {i: i for i in range(len(pair.ins[0][0])) if i != pair.one.params["dimension"]}
    joined = joined.along(others, "it joins entries of matrices")
    for which in range(len(inputs)):
        pair.require_same_lengths(which, but=tuple(others))
    return joined
