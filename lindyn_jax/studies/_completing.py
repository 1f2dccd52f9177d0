"""What a trial of matrix completion draws: a mask, and a start of any depth and width."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from .. import init
from ..models import AbstractModel, DeepLinear, LinearModel, WideLimit
from ..problems import MatrixCompletion

# The wide limit's place on the axis of depths, which has numbers; masks drawn until one sees every row and column.
WIDE, MOST_MASKS = 0, 1000


def draw_mask(key, known: Bool[Array, "n m"], fraction) -> tuple[Bool[Array, "n m"], Bool[Array, ""]]:
    """A mask of that share of the known entries, drawn of those that see every row and column, and whether it does."""
    count = jnp.round(fraction * jnp.sum(known)).astype(int)

    def draw(carry):
        key, _, _, tries = carry
        key, own = jax.random.split(key)
        scores = jnp.where(known, jax.random.uniform(own, known.shape), jnp.inf)
        mask = scores <= jnp.sort(scores.ravel())[count - 1]
        return key, mask, jnp.all(mask.any(0)) & jnp.all(mask.any(1)), tries + 1

    first = (key, known, jnp.asarray(False), jnp.asarray(0))
    _, mask, covered, _ = jax.lax.while_loop(lambda carry: ~carry[2] & (carry[3] < MOST_MASKS), draw, first)
    return mask, covered


def draw_start(problem: MatrixCompletion, depth: int, scale, width, key) -> AbstractModel:
    """A start in its smallest form: with orthogonal middle layers the columns of two Gaussian ones serve every depth."""
    n, m = problem.num_inputs, problem.num_outputs
    if depth == WIDE:
        return WideLimit(jnp.zeros((n, m)), scale**2 * width)
    if depth == 1:
        return LinearModel(scale * jax.random.normal(key, (n, m)))
    gaussian = init.gaussian_core(problem, width, std=scale, key=key)
    if depth == 2:
        return gaussian
    U, V = gaussian.U1, gaussian.V
    middle = scale * jnp.sqrt(jnp.asarray(width, float)) * jnp.eye(U.shape[1])
    return DeepLinear((U, *(middle,) * (depth - 2), V.T))


def stable_step(problem: MatrixCompletion, depth: int, scale, width) -> Array:
    """Half of what is stable where every layer has the root of the matrix's largest singular value, and its start besides."""
    layers = max(depth, 2) if depth == WIDE else depth
    largest = jnp.linalg.norm(problem.mask * problem.Y, ord=2) / jnp.mean(problem.mask)
    start = scale * (jnp.sqrt(jnp.asarray(width, float)) + math.sqrt(problem.num_inputs + problem.num_outputs))
    return 1 / (layers * (largest ** (1 / layers) + start) ** (2 * layers - 2))
