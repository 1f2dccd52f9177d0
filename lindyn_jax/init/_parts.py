"""What starts of all kinds read and build with."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt32

from .. import _checks
from .._linalg import row_factor
from ..problems import LeastSquares

Key = PRNGKeyArray | UInt32[Array, "2"]
# Real numbers: `ArrayLike` has complex ones too.
Number = Float[Array, ""] | Float[np.ndarray, ""] | np.floating | np.integer | float | int
Std = Number | tuple[Number, Number]


def frame(h: int, k: int, key: Key | None, dtype) -> Float[Array, "h k"]:
    """Orthonormal columns: random with a key, otherwise the first k of the identity."""
    if key is None:
        return jnp.eye(h, k, dtype=dtype)
    return row_factor(jax.random.normal(key, (k, h), dtype))[1]


def pair_of(std: Number | tuple[Number, ...]) -> tuple[Number, Number]:
    """Standard deviations of the entries of U and V, from one for both or one for each."""
    values = _checks.as_tuple(std)
    if len(values) not in (1, 2):
        raise ValueError(f"Argument `std` must be one number, or one for U and one for V, but has {len(values)}.")
    return values[0], values[-1]


def stds_of(std: Std | None, alpha: Number | None, h: Number) -> tuple[Number, Number]:
    """Standard deviations of the entries of U and V, from exactly one of a value and an exponent."""
    check_scale(std, alpha)
    if std is not None:
        return pair_of(std)
    value = jnp.asarray(h, jnp.result_type(float)) ** -jnp.asarray(alpha)
    return value, value


def check_scale(std: Std | None, alpha: Number | None) -> None:
    """Refuses both or none of a value and an exponent, and one that is not positive."""
    if (std is None) == (alpha is None):
        raise ValueError(
            "Give exactly one of `std` and `alpha`: the scale of a Gaussian start by value or by exponent."
        )
    if std is None:
        _checks.check_positive(alpha, "alpha")
    else:
        check_stds(pair_of(std))


def check_stds(stds: tuple[Number, Number]) -> tuple[Number, Number]:
    """Refuses standard deviations of U and V that are no positive numbers, but for one of zero beside one that is none."""
    zero = [not _checks.is_traced(value) and value == 0 for value in stds]
    for value, absent in zip(stds, zero, strict=True):
        if not absent or all(zero):
            _checks.check_positive(value, "std")
    return stds


def size_of(value: int, name: str) -> int:
    """A whole number of at least 1."""
    if _checks.is_traced(value):
        raise ValueError(
            f"Argument `{name}` is a shape here and cannot be traced, inside of jit, vmap or `run_ensemble`: pass a number of "
            "Python, or draw a width that is a number by `init.gaussian_core`."
        )
    try:
        size = operator.index(value)
    except TypeError:
        raise ValueError(f"Argument `{name}` must be a whole number, but is {value!r}.") from None
    if size < 1:
        raise ValueError(f"Argument `{name}` must be at least 1, but is {size}.")
    return size


def strengths(d: Any, widths: tuple[int, ...], problem: LeastSquares) -> Array:
    """Exponents of modes, shape (k,); a number stands for as many equal ones as there can be."""
    d, sizes = _checks.as_float(d, "d"), (problem.num_inputs, problem.num_outputs)
    d = d if d.ndim else jnp.full(min(*sizes, *widths), d)
    check_modes(d, d, min(*sizes, *widths), min(sizes))
    return d


def check_modes(u0: Array, v0: Array, most: int, modes: int) -> None:
    """Refuses strengths of modes that are not vectors of one length up to `most`, which widths make of a number of `modes`."""
    given = f"`d` has shape {u0.shape}" if u0 is v0 else f"`u0` and `v0` have shapes {u0.shape} and {v0.shape}"
    if u0.ndim != 1 or u0.shape != v0.shape or not 1 <= u0.shape[0] <= most:
        narrow = u0.ndim == 1 and u0.shape == v0.shape and most < u0.shape[0] <= modes
        hint = f": they need a width of at least {u0.shape[0]}." if narrow else "."
        raise ValueError(
            f"Mode strengths must be vectors of one length k with 1 <= k <= min(n, m, h) = {most}, but {given}{hint}"
        )


def theta_of(problem: LeastSquares, Theta) -> Float[Array, "n m"]:
    """A product of the problem's shape and precision."""
    Theta = _checks.as_matrix(Theta, "Theta", "(n, m)")
    shape = (problem.num_inputs, problem.num_outputs)
    if Theta.shape != shape:
        raise ValueError(f"Argument `Theta` must have shape {shape} for this problem, but has shape {Theta.shape}.")
    return Theta.astype(problem.dtype)
