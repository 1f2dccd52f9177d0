"""The tangent kernel, and how far it has turned."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._norms import all_finite, root, total
from .._public import public
from .._roots import gram_roots
from ..models import AbstractModel, WideLimit
from ..problems import AbstractProblem
from .registry import observable


@observable(
    label="how far the tangent kernel has turned",
    symbol="1 - cosine to that at the start",
    panel="turn of the tangent kernel",
    log=True,
    needs_start=True,
    convention="1 - cosine to that at the start",
    reduced=True,
)
@public
def kernel_distance(model: AbstractModel, problem: AbstractProblem, start: AbstractModel) -> Float[Array, ""]:
    """`1 - <K(0), K>/(||K(0)||_F ||K||_F)`, how far the tangent kernel has turned; `start` is the model at time 0.

    `K = X U U^T X^T kron I + X X^T kron V V^T` for two layers, and `sum_l X A_l A_l^T X^T kron B_l^T B_l` for more, with the
    partial products before and behind layer l; for a `WideLimit`
    `K = X (Theta Theta^T + c^2 I)^{1/2} X^T kron I + X X^T kron (Theta^T Theta + c^2 I)^{1/2}`. Computed from matrices of the
    sizes r x r and m x m, without cancellation; with a link it is the kernel of the outputs before it. Zero where either is.
    For any other network it is `J J^T` of the outputs' derivatives with respect to all weights, of size r m x r m, by
    automatic differentiation of `product`.

    **Raises:** `ValueError` for two networks of different depth or kind.

    Example:

        >>> problem, start = ld.factorization(jnp.eye(2)), ld.TwoLayer(jnp.eye(2), jnp.eye(2))
        >>> model = ld.TwoLayer(jnp.diag(jnp.array([2.0, 1.0])), jnp.eye(2))
        >>> float(ld.observables.kernel_distance(model, problem, start)), 1 - 7 / 58**0.5
        (0.08085, 0.08085)
    """
    (kernel, _), (before, _) = tangent_kernel(model, problem), tangent_kernel(start, problem)
    if len(kernel) != len(before):
        raise ValueError(
            f"The kernel distance compares networks of one depth, but the kernel of the model has {len(kernel)} terms and that "
            f"of the start {len(before)}."
        )
    if [(P.shape, Q.shape) for P, Q in kernel] != [(P.shape, Q.shape) for P, Q in before]:
        raise ValueError(
            f"The kernel distance compares networks of one kind, but the model is a {type(model).__name__} and the start a "
            f"{type(start).__name__}."
        )
    size, size_before = (root(_inner(factors, factors)) for factors in (kernel, before))
    absent = (size == 0) | (size_before == 0)
    size, size_before = (jnp.where(absent, 1, x) for x in (size, size_before))
    # Half the squared distance of the two kernels of norm 1, as a sum of terms that are each small where they are close.
    change = []
    for (P, Q), (P_before, Q_before) in zip(kernel, before, strict=True):
        change += [(P / size - P_before / size_before, Q), (P_before / size_before, Q - Q_before)]
    distance = jnp.where(absent, 0, jnp.maximum(_inner(change, change), 0) / 2)
    # A single layer's kernel is the same wherever it is, but not where it is nowhere.
    return jnp.where(all_finite((model, start)), distance, jnp.nan)


@public
def neural_tangent_kernel(model: AbstractModel, problem: AbstractProblem) -> Float[Array, "k k"]:
    """The tangent kernel, `J J^T` of the outputs with respect to all weights, in the data's coordinates.

    As in `kernel_distance`, with `S Phi1^T` in place of X: that of the outputs of all samples is `(W kron I) K (W kron I)^T` with
    `X = W S Phi1^T`.

    **Returns:** shape (r m, r m), by rows of the r x m outputs.

    **Notes:** no observable by name: give solvers `observables={"ntk": neural_tangent_kernel}`.

    **Source:** Jacot, Gabriel and Hongler (2018); for the wide limit this package's own.

    Example:

        >>> problem = ld.factorization(jnp.eye(2))
        >>> model = ld.TwoLayer(jnp.diag(jnp.array([2.0, 1.0])), jnp.eye(2))
        >>> print(jnp.diagonal(ld.observables.neural_tangent_kernel(model, problem)).round(4))
        [5. 5. 2. 2.]
    """
    pairs, log = tangent_kernel(model, problem)
    return jnp.exp(log) * total(jnp.kron(P, Q) for P, Q in pairs)


@functools.singledispatch
def tangent_kernel(model: AbstractModel, problem: AbstractProblem) -> tuple[list[tuple[Array, Array]], Array]:
    """Pairs (P, Q) and a logarithm: the kernel is `e^log` times the sum of all `P kron Q`, P in the data's coordinates."""
    s = problem.singular_values / problem.singular_values[0]
    layers = model.moving_layers(problem)
    if layers is None:
        K, log = jacobian_kernel(model, problem)
        return [(K, jnp.ones((1, 1), K.dtype))], log
    # Products of many small or large layers leave the range of floats: each is kept at size 1, and its logarithm beside it.
    ahead = [_unit(jnp.diag(s), 0.0)]
    for i, W in enumerate(layers[:-1]):
        A, log = ahead[-1]
        ahead.append(_unit(s[:, None] * W if i == 0 else A @ W, log))
    behind = [_unit(jnp.eye(layers[-1].shape[1], dtype=s.dtype), 0.0)]
    for W in reversed(layers[1:]):
        B, log = behind[-1]
        behind.append(_unit(W @ B, log))
    logs = jnp.stack([2 * (a + b) for (_, a), (_, b) in zip(ahead, reversed(behind), strict=True)])
    largest = jnp.max(logs)
    largest = jnp.where(jnp.isneginf(largest), 0, largest)
    parts = zip(jnp.exp(logs - largest), ahead, reversed(behind), strict=True)
    pairs = [(weight * (A @ A.T), B.T @ B) for weight, (A, _), (B, _) in parts]
    return pairs, largest + 2 * jnp.log(problem.singular_values[0])


@tangent_kernel.register(WideLimit)
def _wide_kernel(model, problem):
    s = problem.singular_values / problem.singular_values[0]
    unit = jax.lax.stop_gradient(jnp.maximum(jnp.max(jnp.abs(model.Theta)), model.level))
    unit = jnp.where(unit == 0, 1, unit)
    rows, columns = gram_roots(model.Theta / unit, model.level / unit)
    seen = problem.to_data(problem.to_data(rows).T)
    pairs = [(s[:, None] * seen * s, jnp.eye(columns.shape[0], dtype=s.dtype)), (jnp.diag(s**2), columns)]
    return pairs, jnp.log(unit) + 2 * jnp.log(problem.singular_values[0])


def _unit(A: Array, log: Array | float) -> tuple[Array, Array]:
    """A divided by its largest entry, and `log` plus the logarithm of that: minus infinity for A = 0."""
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(A)))
    return A / jnp.where(size == 0, 1, size), log + jnp.log(size)


def _inner(first: list[tuple[Array, Array]], second: list[tuple[Array, Array]]) -> Array:
    return total(jnp.sum(P * R) * jnp.sum(Q * S) for P, Q in first for R, S in second)


def jacobian_kernel(model: AbstractModel, problem: AbstractProblem) -> tuple[Float[Array, "k k"], Float[Array, ""]]:
    """`J J^T` with the derivatives J of `S Phi1^T Theta` with respect to all weights, divided by a factor, and its logarithm.

    It is the tangent kernel of the outputs X Theta in the data's coordinates, k = r m, for any network that can be
    differentiated; of r m rows with as many entries as there are weights.
    """
    weights, rest = eqx.partition(model, model.moving())
    s = problem.singular_values / problem.singular_values[0]

    def outputs(weights):
        return (s[:, None] * problem.to_data(eqx.combine(weights, rest).product())).ravel()

    jacobian = jax.tree.leaves(jax.jacrev(outputs)(weights))
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(J), initial=0) for J in jacobian]))
    # Squares of the derivatives stay in range.
    unit = jax.lax.stop_gradient(jnp.where(largest == 0, 1, largest))
    rows = [(J / unit).reshape(J.shape[0], -1) for J in jacobian]
    return total(A @ A.T for A in rows), 2 * jnp.log(unit) + 2 * jnp.log(problem.singular_values[0])
