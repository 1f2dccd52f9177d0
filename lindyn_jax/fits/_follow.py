r"""How a fit of lambda0 follows what it was given, by the implicit function theorem.

At a minimum inside its bracket `dJ/dlambda0 = 0`, so that `d lambda0 = -J_ll^{-1} d(J_l)` and `dJ = d_theta J`: nothing of the
search is differentiated. The horizon is where the relative error has its value, `dT = -d(error)/(d error/dt)`. A minimum at
lambda0 = 0, which the slope on that side holds there, stays.
"""

from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import exact
from .._derivatives import last_derivative, two_way, unknown
from ..problems import LeastSquares
from ._objective import Motion, integrate, ratio, towards

_FIRST_ONLY = "`fit_lambda0` has first derivatives, but no second ones."


class Given(NamedTuple):
    """What a fit depends on."""

    problem: LeastSquares
    U1: Float[Array, "r k"]
    V: Float[Array, "m k"]
    horizon: Float[Array, ""] | None
    relative_error: Float[Array, ""]


@eqx.filter_custom_jvp
def follow(given: Given, fit: Any, velocity: Array, closed: bool, policy: dict) -> Any:
    """A fit of what was `given`, with derivatives; `velocity` is that of its flow's product.

    `closed`: whether the homogeneous solution is `exact.homogeneous_product`, or else integrated; `policy` is how.
    """
    return fit


@follow.def_jvp
def _follow_jvp(primals: tuple[Given, Any, Array, bool, dict], tangents: tuple):
    return primals[1], _change(*primals, tangents[0])


@eqx.filter_jit
def _change(given: Given, fit: Any, velocity: Array, closed: bool, policy: dict, tangent: Any) -> Any:
    moving, fixed = eqx.partition(given, eqx.is_inexact_array)
    change = jax.tree.map(
        lambda x, dx: jnp.zeros_like(x) if dx is None and x is not None else dx,
        moving,
        tangent,
        is_leaf=lambda x: x is None,
    )
    moving = jax.tree.map(lambda x: last_derivative(x, _FIRST_ONLY), moving)
    whole = lambda moving: eqx.combine(moving, fixed)  # noqa: E731
    levels = jnp.concatenate([fit.lambda0, jnp.zeros(1, fit.lambda0.dtype)])

    plain = lambda moving, adjoint: _motion(whole(moving), fit.ts, None, policy, adjoint)  # noqa: E731
    paths = Motion(fit.product, velocity)
    d_paths = two_way(
        lambda t: jax.jvp(lambda x: plain(x, diffrax.ForwardMode()), (moving,), (t,))[1],
        lambda y: jax.vjp(lambda x: plain(x, diffrax.RecursiveCheckpointAdjoint()), moving)[1](y)[0],
        change,
        paths,
    )
    if closed:
        predicted, d_predicted = None, None
    else:
        predicted, d_predicted = _integrated(moving, whole, levels, fit, policy, change)
    _, (J, slopes, time, product) = jax.jvp(
        lambda *arguments: _answers(whole(arguments[0]), levels, fit, *arguments[1:]),
        (moving, paths, predicted),
        (change, d_paths, d_predicted),
    )
    known = fit.result == 0
    inside = ~fit.at_edge & (fit.curvature > 0)
    fitted = fit.converged & (inside | fit.at_edge)
    moved = jnp.where(inside, -slopes[:2] / jnp.where(inside, fit.curvature, 1), 0)
    answers = {
        "lambda0": (moved, fitted & known),
        "objective": (J[:2], fitted & known),
        "at_zero": (J[2], known),
        "horizon": (time, known),
        "ts": (fit.ts / fit.horizon * time, known),
        "product": (product, known),
    }
    numbers = {name: leaf for name, leaf in vars(fit).items() if eqx.is_inexact_array(leaf) and name != "weights"}
    blank = unknown(change, numbers)
    blank |= {name: jnp.where(holds, value, blank[name]) for name, (value, holds) in answers.items()}
    nothing = jax.tree.map(lambda leaf: None, fit)
    names = tuple(blank)
    get = lambda tree: tuple(getattr(tree, name) for name in names)  # noqa: E731
    return eqx.tree_at(get, nothing, tuple(blank.values()), is_leaf=lambda leaf: leaf is None)


def _answers(given: Given, levels: Array, fit: Any, paths: Motion, predicted: tuple | None) -> tuple:
    """J and dJ/dlambda0 at the levels, the horizon and the path: functions of `given` to first order about it."""
    constant = jax.lax.stop_gradient
    problem, nodes = given.problem, constant(fit.ts / fit.horizon)[:, None, None]
    if given.horizon is None:

        def excess(product):
            error, target = jnp.sum(problem.error(product) ** 2), jnp.sum(problem.Ytil**2)
            return jnp.log(error) - jnp.log(target) - 2 * jnp.log(given.relative_error)

        here = excess(paths.product[-1])
        rate = jax.jvp(excess, (constant(paths.product[-1]),), (constant(paths.velocity[-1]),))[1]
        time = constant(fit.horizon) - (here - constant(here)) / constant(rate)
    else:
        time = given.horizon
    later = time - constant(time)
    at = lambda motion: motion.product + constant(motion.velocity) * nodes * later  # noqa: E731
    path = at(paths)

    def of_level(index):
        if predicted is None:
            speed = _speed(problem)
            solution = lambda level: exact.homogeneous_product(  # noqa: E731
                problem.reduced_theta_hat, given.U1, given.V, level, speed * time * nodes[:, 0, 0]
            )
            here, slope = jax.jvp(solution, (levels[index],), (jnp.ones_like(levels[index]),))
        else:
            here, slope = (at(jax.tree.map(lambda leaf: leaf[index], motion)) for motion in predicted)
        size = jnp.sum(fit.weights * jnp.sum(path**2, axis=(1, 2)))
        size = jnp.where(size > 0, size, 1)
        return ratio(here - path, path, fit.weights), 2 * jnp.sum(
            fit.weights[:, None, None] * (here - path) * slope
        ) / size

    J, slopes = jax.lax.map(of_level, jnp.arange(3))
    return J, slopes, time, path


def _motion(given: Given, ts: Array, level: Array | None, policy: dict, adjoint: diffrax.AbstractAdjoint) -> Motion:
    """The plain flow at fixed times, or that towards a level."""
    problem = given.problem
    if level is not None:
        problem = towards(problem, level, _speed(problem))
    return integrate(given.U1, given.V, problem, ts, adjoint=adjoint, **policy)[0]


def _speed(problem: LeastSquares) -> Array:
    return problem.scale * jnp.mean(problem.singular_values**2)


def _integrated(moving, whole, levels, fit, policy, change) -> tuple[tuple[Motion, Motion], tuple[Motion, Motion]]:
    """The regularized flow at the levels and its derivative in the level, and the derivatives of both."""
    one = jnp.ones((), levels.dtype)
    flow = lambda x, level, adjoint: _motion(whole(x), fit.ts, level, policy, adjoint)  # noqa: E731

    def both(x, level, adjoint):
        return jax.jvp(lambda l: flow(x, l, adjoint), (level,), (one,))

    def forward(t):
        along = lambda l: jax.jvp(lambda x: both(x, l, diffrax.ForwardMode()), (moving,), (t,))[1]  # noqa: E731
        return jax.lax.map(along, levels)

    def backward(cotangents):
        # Checkpoints have no derivative in the level to go back through.
        pull = lambda l, y: jax.vjp(lambda x: both(x, l, diffrax.DirectAdjoint()), moving)[1](y)[0]  # noqa: E731
        back = jax.lax.map(lambda point: pull(*point), (levels, cotangents))
        return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), back)

    value = jax.lax.map(lambda l: both(moving, l, diffrax.ForwardMode()), levels)
    return value, two_way(forward, backward, change, value)
