"""What a study records of its problem and starts, so that nothing is resumed that would give other numbers."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import numpy as np

from .. import init
from ..problems import LeastSquares
from ._starts import Given


def fingerprint(arrays: Iterable[Any]) -> str:
    """A hash of the values, shapes and dtypes of arrays, in their order; `None` among them is the identity."""
    digest = hashlib.sha256()
    for array in arrays:
        if array is None:
            digest.update(b"none;")
            continue
        values = np.ascontiguousarray(np.asarray(array))
        digest.update(f"{values.dtype.str} {values.shape};".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def of_problem(problem: LeastSquares) -> dict[str, Any]:
    """Everything of a problem that determines numbers: data as given, scales, rank, precision and link.

    Not the decomposition of the data, whose last bits are those of the machine.
    """
    link = problem.link
    return {
        "problem": type(problem).__name__,
        "data_sha256": fingerprint((problem.X, problem.Y)),
        "data_dtype": str(problem.dtype),
        "rank": problem.rank,
        "loss_scale": float(problem.scale),
        "output_scale": float(problem.output_scale),
        "link": None if link is None else getattr(link, "__name__", type(link).__name__),
    }


def of_arrays(tree: Any) -> str:
    """A hash of all arrays and numbers of a model, and of how they are put together."""
    leaves, structure = jax.tree.flatten(eqx.filter(tree, eqx.is_array_like))
    return hashlib.sha256(f"{fingerprint(leaves)} {structure}".encode()).hexdigest()


def of_draws(tree: Any) -> str:
    """As `of_arrays` for values that were computed, but for round-off, which differs between machines."""

    def rounded(leaf):
        values = np.asarray(leaf, float)
        largest = np.max(np.abs(values), initial=0.0)
        if not (np.isfinite(largest) and largest > 0):
            return values
        # The exponent of the largest entry is recorded with the leading digits of all of them.
        exponent = np.floor(np.log10(largest))
        return np.append(np.round(values / 10**exponent, 6) + 0.0, exponent)

    return of_arrays(jax.tree.map(rounded, eqx.filter(tree, eqx.is_array_like)))


@functools.singledispatch
def of_start(start: init.AbstractStart, problem: LeastSquares) -> dict[str, Any]:
    """The fields of a start of this package; of another one, whose code can change, also what it draws from one key."""
    fields = {field.name: getattr(start, field.name) for field in dataclasses.fields(start)}
    if type(start) in vars(init).values() and type(start) is not init.FromFunction:
        return {"kind": type(start).__name__.lower(), **fields}
    plain = {name: value for name, value in fields.items() if isinstance(value, (int, float, str, tuple, type(None)))}
    return {"kind": type(start).__name__, **plain, "draws": of_draws(start.draw(problem, key=jax.random.key(0)))}


@of_start.register
def _(start: Given, problem: LeastSquares) -> dict[str, Any]:
    return {"arrays": of_arrays(start.model)}


@functools.singledispatch
def of_field(value: Any, name: str, problem: Any) -> dict[str, Any]:
    """What is recorded of a field of a study."""
    return value._asdict() if hasattr(value, "_asdict") else {name: value}


of_field.register(LeastSquares, lambda value, name, problem: of_problem(value))
of_field.register(init.AbstractStart, lambda value, name, problem: {name: of_start(value, problem)})
