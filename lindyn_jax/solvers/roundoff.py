"""How round-off grows along a path: whether it, and not the start, has chosen where the flow goes.

With `Z = [U1; V]` the flow is `Z' = A(B) Z`, `A(B) = [[0, B], [B^T, 0]]`, where -B is the gradient with respect to `U1 V^T`; tied
layers obey `U' = B U`, with -B the gradient plus its transpose. Whatever is small in Z, round-off included, obeys the same linear
equation, at rates up to sigma_1(B). Round-off is therefore followed as a few more columns, which start with random entries
of the size of round-off in their rows and are moved as Z is.

Two things are told from them. A start whose flow ends in a saddle, or passes one closer than round-off, is led away from it by
the round-off of the start, which has then become as large as the weights: all that follows is lost. Modes that a tiny start
learns late may be smaller than round-off of what was learned before: when they are learned is then lost, and observables
before that is over; where all has been learned nothing is.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..models import AbstractModel
from ..problems import AbstractProblem
from ..problems.least_squares import is_least_squares

# Round-off that has grown to this part of the weights has chosen where the path went.
LOST = 1e-3
_PROBES = 3
_LIFETIMES = 8


def growth(
    model: AbstractModel, problem: AbstractProblem
) -> tuple[Float[Array, "n m"] | None, Float[Array, ""] | None]:
    """B, and the rate at which what is small in the weights can grow: sigma_1(B), or what takes its place in other models."""
    B = model.generator(problem)
    if B is not None:
        return B, largest_singular_value(B)
    layers, factor = model.moving_layers(problem), model.growth_factor
    if layers is not None and len(layers) > 1:
        # Of all layers but two, the product is largest without the two smallest.
        factor = jnp.prod(jnp.sort(jnp.stack([_spectral_norm(W) for W in layers]))[2:])
    if factor is None:
        return None, None
    return None, factor * largest_singular_value(problem.reduced_loss_gradient(model.reduced_product(problem)))


def decay(model: AbstractModel, problem: AbstractProblem) -> Float[Array, "n 1"] | None:
    """A lower bound on the rates at which the rows of B vanish, `q s_i^2 lambda_m(V V^T)`, or `None` where none is known."""
    layers, factors, terms = model.moving_layers(problem), model.factors, problem.penalty
    if terms is not None and terms.weight_decay is None:
        problem = problem.plain
    # In the data's own coordinates alone are the rows of B those of the singular values.
    if layers is None or len(factors) != 2 or not is_least_squares(problem) or layers[0] is not factors[0]:
        return None
    least = jnp.maximum(jnp.linalg.eigvalsh(layers[1].T @ layers[1])[0], 0)
    return problem.scale * problem.singular_values[:, None] ** 2 * least


def _spectral_norm(W: Array) -> Array:
    """About sigma_1, from below, by four steps of the power method: no product of two matrices."""
    scale = jnp.max(jnp.abs(W))
    A = W / jnp.where(scale > 0, scale, 1)
    v = jnp.asarray(np.random.default_rng(1).normal(size=W.shape[1]), W.dtype)
    for _ in range(4):
        v = A.T @ (A @ v)
        v = v / jnp.maximum(jnp.sqrt(jnp.sum(v**2)), jnp.finfo(v.dtype).tiny)
    return scale * jnp.sqrt(jnp.sum((A @ v) ** 2))


@jax.jit
def largest_singular_value(A: Float[Array, "r m"]) -> Float[Array, ""]:
    """An upper bound on sigma_1, at most a few per cent above it, by products alone: `||(A^T A)^{16}||^{1/32}`."""
    largest = jnp.max(jnp.abs(A))
    A = A / jnp.where(largest > 0, largest, 1)
    G = A.T @ A if A.shape[1] <= A.shape[0] else A @ A.T

    def square(carry, power):
        G, log = carry
        size = jnp.sqrt(jnp.sum(G**2))
        safe = jnp.where(size > 0, size, 1)
        return ((G / safe) @ (G / safe), log + jnp.log(safe) / power), None

    (G, log), _ = jax.lax.scan(square, (G, jnp.zeros((), A.dtype)), jnp.asarray([1, 2, 4, 8], A.dtype))
    size = jnp.sqrt(jnp.sum(G**2))
    return largest * jnp.exp((log + jnp.log(jnp.where(size > 0, size, 1)) / 16) / 2)


def norm(*arrays: Array, axis: int | None = None) -> Array:
    """The Frobenius norm of all arrays together, or norms along an axis; the squares may be beyond the range of the dtype."""
    return _norm(arrays, axis)


@functools.partial(jax.jit, static_argnums=1)
def _norm(arrays: tuple[Array, ...], axis: int | None) -> Array:
    most = [jnp.max(jnp.abs(array), axis=axis, keepdims=axis is not None, initial=0) for array in arrays]
    largest = functools.reduce(jnp.maximum, most)
    largest = jax.lax.stop_gradient(jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1))
    size = jnp.sqrt(sum(jnp.sum((array / largest) ** 2, axis=axis) for array in arrays))
    return size * (largest if axis is None else jnp.squeeze(largest, axis))


def is_followed(model: AbstractModel) -> bool:
    """Whether the round-off of a model is followed: two-layer and tied ones wide enough for the error to vanish."""
    factors = model.factors
    return bool(factors) and factors[0].shape[1] >= min(A.shape[0] for A in factors)


def _rows(model: AbstractModel) -> Float[Array, " p"]:
    """Norms of the rows of the weights."""
    return jnp.concatenate([norm(A, axis=1) for A in model.factors])


@functools.lru_cache(maxsize=32)
def _directions(rows: int) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(rows, _PROBES))


class Noise(NamedTuple):
    """What goes from step to step: whether anything is followed, columns of round-off, the least row of the start, sigma_1(B)
    there and now, until when a mode is lost, and how much was at a time that was observed. Half of the columns began as
    round-off of the start, the others have that of every later state besides."""

    followed: Bool[Array, ""]
    columns: Float[Array, "p 2*q"]
    least: Float[Array, ""]
    first_rate: Float[Array, ""]
    rate: Float[Array, ""]
    until: Float[Array, ""]
    lost: Float[Array, ""]

    @property
    def start(self) -> Float[Array, "p q"]:
        """Round-off of the start alone."""
        return self.columns[:, :_PROBES]


def first(model: AbstractModel, rate: Float[Array, ""]) -> Noise | None:
    """Round-off of a start: in each row what the row's size makes of it; `None` where it is not followed."""
    if not is_followed(model):
        return None
    rows = _rows(model)
    columns = jnp.finfo(rows.dtype).eps * rows[:, None] * jnp.asarray(_directions(rows.shape[0]), rows.dtype)
    # Columns of zeros stay zero: a padded batch has networks that are narrower than they look.
    live = jnp.any(jnp.concatenate(model.factors) != 0, axis=0)
    followed = jnp.sum(live) >= min(A.shape[0] for A in model.factors)
    columns = jnp.tile(jnp.where(followed, columns, 0), (1, 2))
    least = jnp.min(jnp.where(rows > 0, rows, jnp.inf))
    zero = jnp.zeros((), rows.dtype)
    return Noise(followed, columns, least, rate, rate, zero, zero)


def advance(
    noise: Noise,
    model: AbstractModel,
    B: Float[Array, "n m"],
    rate: Float[Array, ""],
    decay: Float[Array, "n 1"] | None,
    length: Float[Array, ""],
    end: Float[Array, ""],
    observed: Bool[Array, ""],
) -> Noise:
    """Round-off after a step to `end` and `model`, where B and its `rate` are; something may be observed in it.

    A mode that round-off has overtaken is learned too early here. It is lost until the start's own part of it has grown as well:
    until `rate t` is the logarithm of how much smaller the start was, and ten more.
    """
    tied, n = len(model.factors) == 1, B.shape[0]

    def more(j, columns):
        turned = B @ columns if tied else jnp.concatenate([B @ columns[n:], B.T @ columns[:n]])
        return noise.columns + length / (4 - j) * turned

    length = length.astype(B.dtype)
    if decay is not None:
        # Near the limit of stiff data a step is many lifetimes of the error long, and acts for a few of them.
        B = B / jnp.maximum(decay * length / _LIFETIMES, 1)
    # By the power series, in a loop, which is compiled in a fifth of the time: `length sigma_1(B)` is at most one.
    columns = jax.lax.fori_loop(0, 4, more, noise.columns)
    rows = _rows(model)
    # What is lost is lost: larger numbers would only overflow.
    most = norm(rows)
    start, path = jnp.split(jnp.clip(columns, -most, most), 2, axis=1)
    least = jnp.finfo(rows.dtype).eps * jnp.abs(jnp.asarray(_directions(rows.shape[0]), rows.dtype)) * rows[:, None]
    path = jnp.where(jnp.abs(path) < least, jnp.copysign(least, path), path)
    path = jnp.where(noise.followed, path, 0)
    grown = relative(path, model)
    safe = jnp.where(rate > 0, rate, 1)
    unlearned = jnp.minimum(rate, noise.first_rate) / jnp.where(noise.first_rate > 0, noise.first_rate, 1)
    # Where B falls as fast as it is large, a mode is being learned; where it does not, one is growing at this rate.
    growing = (unlearned >= LOST) & ((noise.rate - rate) / safe <= 0.2 * length * rate)
    needed = (jnp.log(most) - jnp.log(noise.least) + 10) / safe
    until = jnp.where(growing & is_lost(grown), jnp.maximum(noise.until, needed), noise.until)
    lost = jnp.where(end <= until, grown, grown * unlearned)
    lost = jnp.where(observed, jnp.maximum(noise.lost, lost), noise.lost)
    columns = jnp.concatenate([start, path], axis=1)
    return Noise(noise.followed, columns, noise.least, noise.first_rate, rate, until, lost)


def relative(columns: Float[Array, "p q"], model: AbstractModel) -> Float[Array, ""]:
    """Round-off relative to all weights."""
    size = norm(_rows(model))
    return jnp.max(norm(columns, axis=0)) / jnp.where(size > 0, size, 1)


def is_lost(roundoff: Float[Array, ""]) -> Bool[Array, ""]:
    """Whether round-off has chosen the path."""
    return ~(roundoff < LOST)
