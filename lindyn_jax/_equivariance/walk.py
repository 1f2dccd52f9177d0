"""Two programs that are the same but for sizes, side by side: what each array in them is, branches and loops included."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._checks import is_traced
from .numbers import numbers
from .rules import RULES, Pair
from .values import A_SIZE, BY_ENTRIES, BY_SIZE, Obstacle, Value, join, number, sized


class Walk:
    """One walk through the programs of an optimizer; numbers that are made alike have the same name in all of it."""

    def __init__(self):
        self.names: dict[Any, int] = {}

    def closed(self, programs: Iterable[Any], inputs: list[Value]) -> list[Value]:
        """What comes out of two programs, of what goes in."""
        first, second = programs
        consts = [getattr(program, "consts", ()) for program in (first, second)]
        first, second = (getattr(program, "jaxpr", program) for program in (first, second))
        if len(consts[0]) != len(consts[1]) or len(first.eqns) != len(second.eqns):
            raise Obstacle(BY_SIZE)
        known: dict[Any, tuple[int, Value]] = {}
        other: dict[Any, int] = {}

        def define(a, b, value):
            value.check(a.aval.shape, b.aval.shape)
            other[b] = len(known)
            known[a] = len(known), self.named(value)

        def read(a, b):
            literals = [hasattr(v, "val") for v in (a, b)]
            if all(literals):
                value = _constant(a.val, b.val)
                return self.named(value, (a.aval.dtype.name, str(a.val))) if np.ndim(a.val) == 0 else value
            if any(literals) or other[b] != known[a][0]:
                raise Obstacle(BY_SIZE)
            return known[a][1]

        variables = [[*p.constvars, *p.invars] for p in (first, second)]
        for a, b, value in zip(*variables, [*map(_constant, *consts), *inputs], strict=True):
            define(a, b, value)
        for one, two in zip(first.eqns, second.eqns, strict=True):
            values = [read(a, b) for a, b in zip(one.invars, two.invars, strict=True)]
            for a, b, value in zip(one.outvars, two.outvars, self.step(one, two, values), strict=True):
                define(a, b, value)
        return [read(a, b) for a, b in zip(first.outvars, second.outvars, strict=True)]

    def step(self, one: Any, two: Any, inputs: list[Value]) -> list[Value]:
        """What comes out of two equations."""
        name = one.primitive.name
        if name != two.primitive.name:
            raise Obstacle(BY_SIZE)
        pair = Pair(one, two)
        if name in CONTROL:
            return CONTROL[name](self, pair, inputs)
        if any(value.is_size for value in inputs):
            if all(value.degree == 0 or value.is_size for value in inputs):
                return [sized for _ in one.outvars]
            if name not in ("dynamic_slice", "dynamic_update_slice"):
                raise Obstacle(A_SIZE)
        if name != "select_n" and any(value.unless for value in inputs):
            return [self.conditional(pair, inputs)]
        if one.outvars and (one.effects or name == "rng_uniform"):
            raise Obstacle(f"it applies `{name}`, which may give other numbers at every call")
        if all(value.degree == 0 and not value.unless for value in inputs):
            return self.alike(one, inputs, numbers(pair, inputs))
        if name not in RULES:
            raise Obstacle(
                f"it applies `{name}` to entries of gradients or weights, in no way that is known to commute"
            )
        if not pair.has_same_params(sizes=False):
            raise Obstacle(BY_SIZE)
        out = RULES[name](pair, *inputs)
        return out if name == "split" else [out]

    def conditional(self, pair: Pair, inputs: list[Value]) -> Value:
        """The usual operations on what is a matrix or a number under a condition, which go on under the condition."""
        conditions = {value.unless for value in inputs if value.unless}
        bare = [value.under(None) if value.unless else value for value in inputs]
        varying = any(value.degree == 0 and value.varies for value in bare)
        if len(conditions) != 1 or pair.name in ("dot_general", "add_any", "split") or varying:
            raise Obstacle(BY_SIZE)
        (out,) = self.step(pair.one, pair.two, bare)
        if out.degree is None:
            raise Obstacle(BY_SIZE)
        return out.under(conditions.pop())

    def named(self, value: Value, of: Any = None) -> Value:
        """A number with a name: a new one, or the one that the same operation on numbers of the same names has had."""
        if value.degree != 0 or value.unless or (of is None and value.name is not None):
            return value
        return value.but(name=self.names.setdefault(object() if of is None else of, len(self.names)))

    def alike(self, one: Any, inputs: list[Value], outputs: list[Value]) -> list[Value]:
        """Numbers that come out of an operation, with the name of what the same operation gave before."""
        name, names = one.primitive.name, [value.name for value in inputs]
        if len(outputs) != 1 or name.startswith("random") or None in names:
            return outputs
        if name in ("squeeze", "reshape", "broadcast_in_dim") and not inputs[0].varies:
            return [outputs[0].but(name=names[0])]
        return [self.named(outputs[0], (name, str(sorted(one.params.items())), *names))]


def settle(body: Callable[[list], list], held: list[Value], where: str, otherwise: str) -> list[Value]:
    """What is held from one turn to the next, whatever the number of turns."""
    held = [value.but(name=None) for value in held]
    for _ in range(20):
        joined = [join(where, a, b).but(name=None) for a, b in zip(held, body(held), strict=True)]
        if joined == held:
            return held
        held = joined
    raise Obstacle(otherwise)


def _constant(a: Any, b: Any) -> Value:
    """A constant of the two programs; those that are traced have no entries to compare."""
    if is_traced(a, b) or any(jnp.issubdtype(jnp.result_type(x), jax.dtypes.extended) for x in (a, b)):
        return number(range(np.ndim(a))) if a is b else sized
    a, b = np.asarray(a), np.asarray(b)
    if not a.any() and not b.any():
        return number(is_zero=True)
    same = a.shape == b.shape and np.array_equal(a, b, equal_nan=jnp.issubdtype(a.dtype, jnp.inexact))
    return number(range(a.ndim)) if same else sized


# -- calls, branches and loops ------------------------------------------------------------------------------------------


def _call(walk: Walk, pair: Pair, inputs: list[Value]) -> list[Value]:
    programs = [next(p[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in p) for p in pair.params]
    return walk.closed(programs, inputs)


def _check_choice(which: Value) -> None:
    if which.degree != 0 or which.unless:
        raise Obstacle(BY_SIZE if which.unless else BY_ENTRIES)


def _cond(walk: Walk, pair: Pair, inputs: list[Value]) -> list[Value]:
    which, *operands = inputs
    _check_choice(which)
    firsts, seconds = (p["branches"] for p in pair.params)
    if len(firsts) != len(seconds):
        raise Obstacle(BY_SIZE)
    outs = [walk.closed(branches, operands) for branches in zip(firsts, seconds, strict=True)]
    return [join("its branches", *each) for each in zip(*outs, strict=True)]


_TURNS = "what its loop holds changes from turn to turn"


def _while(walk: Walk, pair: Pair, inputs: list[Value]) -> list[Value]:
    k, j = (pair.one.params[key] for key in ("cond_nconsts", "body_nconsts"))
    for_test, for_body, held = inputs[:k], inputs[k : k + j], inputs[k + j :]
    tests, bodies = ([p[key] for p in pair.params] for key in ("cond_jaxpr", "body_jaxpr"))
    held = settle(lambda held: walk.closed(bodies, [*for_body, *held]), held, "its loop", _TURNS)
    (test,) = walk.closed(tests, [*for_test, *held])
    _check_choice(test)
    return held


def _scan(walk: Walk, pair: Pair, inputs: list[Value]) -> list[Value]:
    first, second = pair.params
    if any(first[key] != second[key] for key in ("length", "reverse", "num_consts", "num_carry")):
        raise Obstacle(BY_SIZE)
    k, c = first["num_consts"], first["num_carry"]
    consts, held, slices = inputs[:k], inputs[k : k + c], [value.shifted(-1) for value in inputs[k + c :]]

    def body(held):
        return walk.closed((first["jaxpr"], second["jaxpr"]), [*consts, *held, *slices])

    held = settle(lambda held: body(held)[:c], held, "its loop", _TURNS)
    return [*held, *(value.shifted(1) for value in body(held)[c:])]


_CALLS = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2", "custom_jvp_call", "custom_vjp_call")
CONTROL: dict[str, Callable[[Walk, Pair, list[Value]], list[Value]]] = {
    **dict.fromkeys(_CALLS, _call),
    "optimization_barrier": lambda walk, pair, inputs: inputs,
    "cond": _cond,
    "while": _while,
    "scan": _scan,
}
