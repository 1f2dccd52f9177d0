"""Measurements that commute: where small starts are known to end at the least nuclear norm."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._finite import of_finite_state
from .._norms import norm, quotient
from .._public import public
from .._statement import Statement
from ..problems import AbstractProblem, MatrixCompletion, MatrixSensing
from ..problems.sensing import RankOne
from .nuclear_norm import observed, of_kind


@public
@of_finite_state
def commuting_measurements(problem: AbstractProblem) -> Statement:
    r"""Whether the measurements commute, so that small starts are known to end at the least nuclear norm.

    For tied layers, `Theta = U U^T`, the hypothesis is that the symmetric parts of the A_k, which are all that counts, commute.
    For two layers, `Theta = U V^T`, it is that the matrices `[[0, A_k], [A_k^T, 0]]` do: `A_j A_k^T = A_k A_j^T` and
    `A_j^T A_k = A_k^T A_j`. The flow from `Z Z^T = a I` with Z = U, or Z = [U; V] for two layers, then ends, if its loss tends
    to zero, at a Theta whose nuclear norm tends to the least one of all with zero loss as a -> 0: of all that are positive
    semidefinite for tied layers.

    **Args:** `problem`, a `MatrixSensing`, or a `MatrixCompletion`, which measures its observed entries.

    **Returns:** a `Statement` on the largest `||C||_F/(2 ||A_j||_F ||A_k||_F)` of the commutators C of two layers; `applies`,
    whether it is zero up to round-off; `tied`, the same for tied layers, infinite unless n = m, and `tied_applies`. Whether the
    start is small enough, and the loss tends to zero, is not asked here.

    **Raises:** `ValueError` for any other problem.

    **Notes:** two observed entries of one row or column do not commute: completion is covered only where it is trivial. That
    small starts reach the least nuclear norm without this hypothesis was conjectured by Gunasekar et al.; Li, Luo and Lyu
    (2021) contradict it. It is measured by `sweep completion`, and stated nowhere here. Costs K^2 products of two A_k.

    **Source:** Gunasekar et al. (2017), Theorem 1; its section 2 for two layers.

    Example:

        >>> Y = np.diag([2.0, 1.0])
        >>> float(ld.theory.commuting_measurements(ld.MatrixCompletion(Y, np.eye(2))).value)
        0.0
        >>> float(ld.theory.commuting_measurements(ld.MatrixCompletion(Y)).value)
        0.7071
    """
    problem = of_kind("commuting_measurements", problem, MatrixSensing, MatrixCompletion)
    n, m = problem.num_inputs, problem.num_outputs
    if isinstance(problem, MatrixCompletion):
        two, tied = _of_entries(observed(problem), n == m)
    elif isinstance(problem.A, RankOne):
        two, tied = _of_vectors(problem.A.a, problem.A.b, n == m)
    else:
        A = problem.A.A
        two, tied = _largest(A, A), _largest((A + jnp.swapaxes(A, 1, 2)) / 2) if n == m else jnp.inf
    two, tied = (jnp.asarray(value, problem.dtype) for value in (two, tied))
    cutoff = 8 * float(jnp.finfo(problem.dtype).eps)
    return Statement(two, two <= cutoff, tied=tied, tied_applies=tied <= cutoff)


def _largest(A: Float[Array, "K n m"], turned: Float[Array, "K n m"] | None = None) -> Float[Array, ""]:
    """The largest relative commutator of matrices: `A_j A_k^T - A_k A_j^T`, and, where they are not symmetric, of A^T as well."""
    sizes = jax.vmap(norm)(A)

    def against_all(one):
        B, size = one
        products = [jnp.einsum("nm,klm->knl", B, A)]
        if turned is not None:
            products.append(jnp.einsum("nm,knl->kml", B, turned))
        return jnp.stack([jnp.max(quotient(_skew(P), 2 * size * sizes)) for P in products])

    return jnp.max(jax.lax.map(against_all, (A, sizes)))


def _skew(products: Float[Array, "K p p"]) -> Float[Array, " K"]:
    return jax.vmap(norm)(products - jnp.swapaxes(products, 1, 2))


def _of_vectors(a: Float[Array, "K n"], b: Float[Array, "K m"], is_square: bool):
    """The largest relative commutators of `A_k = a_k b_k^T`, of which no more than one pair is ever formed."""

    def against_all(one):
        ends = []
        for (x, xs), (y, ys) in (((one[0], a), (one[1], b)), ((one[1], b), (one[0], a))):
            # ||x x_k^T - x_k x^T||_F is sqrt(2) ||x|| times what of x_k is not along x.
            across = jax.vmap(lambda z, x=x: norm(z - quotient(z @ x, x @ x) * x))(xs)
            ends.append(quotient(jnp.abs(ys @ y) * across, jax.vmap(norm)(xs) * jax.vmap(norm)(ys) * norm(y)))
        return jnp.max(jnp.stack(ends)) / jnp.sqrt(jnp.asarray(2, a.dtype))

    def tied_against(one, other):
        (a, b), (c, d) = one, other
        turned = (b @ c) * jnp.outer(a, d) + (b @ d) * jnp.outer(a, c) + (a @ c) * jnp.outer(b, d)
        turned = (turned + (a @ d) * jnp.outer(b, c)) / 4
        sizes = [norm(jnp.outer(x, y) + jnp.outer(y, x)) / 2 for x, y in (one, other)]
        return quotient(norm(turned - turned.T), 2 * sizes[0] * sizes[1])

    two = jnp.max(jax.lax.map(against_all, (a, b)))
    if not is_square:
        return two, jnp.inf
    return two, jnp.max(jax.lax.map(lambda one: jax.lax.map(lambda other: tied_against(one, other), (a, b)), (a, b)))


def _of_entries(seen: Array, is_square: bool):
    """The largest relative commutators of measured entries, which are known numbers."""
    shared = jnp.maximum(jnp.max(jnp.sum(seen, axis=0)), jnp.max(jnp.sum(seen, axis=1))) > 1
    two = jnp.where(shared, math.sqrt(0.5), 0.0)
    if not is_square:
        return two, jnp.inf
    either = seen | seen.T
    pairs, alone = jnp.sum(either & ~jnp.eye(len(either), dtype=bool), axis=1), jnp.diagonal(either)
    return two, jnp.where(jnp.any(alone & (pairs > 0)), 0.5, jnp.where(jnp.any(pairs > 1), math.sqrt(0.125), 0.0))
