r"""Where the gradient flow of a diagonal network ends: a mirror flow whose potential is the hypentropy.

For `Theta = u * v` with `a = u0 + v0` and `b = u0 - v0` the flow keeps `(u + v) = a e^g` and `(u - v) = b e^{-g}`, with
minus the integral of the loss's gradient for g, which lies in the row space of X whatever the path. So

    Theta - Theta0 = (a^2/4) (e^{2g} - 1) + (b^2/4) (1 - e^{-2g}),    g = Phi1 nu,

and the limit is the one such Theta that solves `X Theta = Y`: the gradient in nu of a convex function is zero. With a = b,
that is v0 = 0, it reads `Theta = (a^2/2) sinh(2 g)`.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from .. import _checks
from .._finite import of_finite_numbers
from .._linalg import round_off
from .._norms import norm
from .._public import public
from ..problems import LeastSquares
from ._common import Limit, as_floats, check_quadratic

MOST_STEPS = 200
FORMS = ("product", "difference")


@public
@of_finite_numbers
def diagonal_limit(
    problem: LeastSquares, u0: Real[ArrayLike, "n *m"], v0: Real[ArrayLike, "n *m"], *, form: str = "product"
) -> Limit:
    r"""Limit of the gradient flow of a diagonal network, `Theta = u * v` or `Theta = u^2 - v^2`, under least squares.

    It is the solution (of least error, where there is none) that is nearest to the start by the Bregman divergence of the
    hypentropy: `arcsinh(2 Theta/|a b|) - arcsinh(2 Theta0/|a b|)` lies in the row space of X for every output, with
    `a = u0 + v0` and `b = u0 - v0` (`a = 2 u0`, `b = 2 v0` for the difference). From u0 = sqrt(2) s and v0 = 0 that is
    `arcsinh(Theta/s^2)`.

    **Args:**

    - `problem`: least squares, without a link and without a penalty, of data of any rank.
    - `u0`, `v0`: the start, shape (n, m), or (n,) for one output.
    - `form`: `"product"` for `Diagonal`, `"difference"` for `DiagonalDifference`.

    **Returns:** a `Limit`: Theta(inf) in the shape of u0, and whether it is the solution. It is for every start with a b != 0
    in all entries; an entry with a = 0 (b = 0) stays negative (positive), and where no such solution exists the value is NaN.

    **Raises:** `ValueError` for a link, a penalty, shapes that do not fit, entries that are not finite, or an unknown form.

    **Notes:** by Newton's method on r numbers an output; the relative error is round-off times s_1/s_r. Derivatives are those
    of the equation. Numbers below the root of the least one are nothing, here as squares of the start.

    **Source:** Woodworth et al. (2020), for any start; the hypentropy is that of Ghai, Hazan and Singer (2020).

    Example:

        >>> problem = ld.LeastSquares(jnp.array([[1.0, 2.0]]), jnp.array([[2.0]]))
        >>> for size in (1e-4, 10.0):  # nearly the solution of least l1 norm, and that of least l2 norm
        ...     print(ld.exact.diagonal_limit(problem, jnp.full(2, size), jnp.zeros(2)).value.round(3))
        [0. 1.]
        [0.4 0.8]
    """
    check_quadratic(problem, "diagonal_limit")
    _checks.check_choice(form, "form", FORMS)
    u0, v0 = as_floats(u0=u0, v0=v0)
    n, m = problem.num_inputs, problem.num_outputs
    shapes = ((n,), (n, 1)) if m == 1 else ((n, m),)
    for name, value in (("u0", u0), ("v0", v0)):
        if value.shape not in shapes or value.shape != u0.shape:
            fitting = " or ".join(map(str, shapes))
            raise ValueError(
                f"Arguments `u0` and `v0` must have one shape, {fitting}, for this problem, but `{name}` has {value.shape}."
            )
    u, v = (weights.reshape(n, m).astype(problem.dtype) for weights in (u0, v0))
    if form == "difference":
        u, v = u + v, u - v
    value, applies = _limits(problem, u, v)
    return Limit(value.reshape(u0.shape), applies)


@jax.jit
def _limits(problem: LeastSquares, u: Float[Array, "n m"], v: Float[Array, "n m"]):
    frame = problem.from_data(jnp.eye(problem.rank, dtype=problem.dtype))
    found: tuple[Array, Array] = jax.vmap(partial(_limit, frame), 1, (1, 0))(u, v, problem.reduced_theta_hat)
    value, solved = found
    return value, jnp.all(solved)


def _limit(frame: Float[Array, "n r"], u, v, target: Float[Array, " r"]) -> tuple[Array, Bool[Array, ""]]:
    """Theta(inf) of one output, and whether `Phi1^T Theta(inf)` is the target."""
    begin = u * v
    halves = jnp.abs(u + v) / 2, jnp.abs(u - v) / 2
    way = target - frame.T @ begin

    def gap(nu: Array, inputs) -> Array:
        frame, halves, way = inputs
        return frame.T @ _moved(halves, frame @ nu) - way

    inputs = frame, halves, way
    held = jax.lax.stop_gradient(inputs)
    nu: Array = jax.lax.custom_root(
        lambda nu: gap(nu, inputs),
        jnp.zeros_like(way),
        lambda _, start: _newton(held, start),
        lambda linear, y: jnp.linalg.solve(jax.jacobian(linear)(y), y),
    )
    value = begin + _moved(halves, frame @ nu)
    size = norm(way) + norm(begin) + norm(value)
    solved: Any = norm(gap(nu, inputs)) <= 64 * round_off(frame) * jax.lax.stop_gradient(size)
    known: Any = jnp.where(solved, value, jnp.nan)
    return known, solved


def _moved(halves: tuple[Array, Array], g: Array) -> Array:
    """`Theta - Theta0` at g: both terms have the sign of g, whatever the start, and nothing cancels."""
    up, down = halves
    return _growth(up, g) - _growth(down, -g)


def _growth(half: Array, g: Array) -> Array:
    """`half^2 (e^{2g} - 1)`, in range wherever the result is."""
    there, far = half > 0, g > 1
    grown: Array = jnp.exp(jnp.where(far, g, 0) + jnp.log(jnp.where(there, half, 1)))
    near = half * jnp.expm1(2 * jnp.where(far, 0, g)) * half
    return jnp.where(there, jnp.where(far, (grown - half) * (grown + half), near), 0)


def _newton(inputs, nu: Array) -> Array:
    """The root of a gradient of a convex function: Newton's directions, each followed to where the function is least."""
    frame, halves, way = inputs
    eps = float(jnp.finfo(way.dtype).eps)

    def slope(g: Array) -> Array:
        """The derivative of Theta in g, at least 0."""
        risen: Array = jax.jvp(partial(_moved, halves), (g,), (jnp.ones_like(g),))[1]
        return risen

    def step(state):
        nu, _, count = state
        g = frame @ nu
        rise = slope(g)
        # Rows from large to small, so that the reflections keep the digits of small ones.
        order = jnp.argsort(-rise)
        weight = jnp.sqrt(rise[order])
        R = jnp.linalg.qr(weight[:, None] * frame[order], mode="r")
        short = frame.T @ _moved(halves, g) - way
        solve = partial(jax.scipy.linalg.solve_triangular, R)
        direction = -solve(solve(short, trans="T"))
        direction = jnp.where(jnp.all(jnp.isfinite(direction)), direction, 0)
        along = frame @ direction

        def uphill(length: Array) -> Array:
            """Whether the function rises along the direction; terms that overflow do so upwards."""
            moved: Any = jnp.where(along == 0, 0, along * _moved(halves, g + length * along))
            return jnp.sum(moved) - way @ direction > 0

        def halve(_, ends):
            low, high = ends
            middle = (low + high) / 2
            up = uphill(middle)
            return jnp.where(up, low, middle), jnp.where(up, middle, high)

        one = jnp.ones((), way.dtype)
        # Newton's step itself overshoots by a logarithm where the function is exponential.
        most = 2 * jnp.max(jnp.abs(along))
        safe = jnp.where(most > 0, jnp.log1p(most) / jnp.where(most > 0, most, 1), 1)
        ends: tuple[Array, Array] = jax.lax.fori_loop(0, 24, halve, (safe, one))
        low, _ = ends
        length = jnp.where(uphill(one), jnp.where(uphill(safe), safe, low), one)
        changed = jnp.max(jnp.abs(rise * along)) > 4 * eps * (jnp.max(jnp.abs(_moved(halves, g))) + norm(way))
        return nu + length * direction, changed, count + 1

    def goes_on(state):
        return state[1] & (state[2] < MOST_STEPS)

    return jax.lax.while_loop(goes_on, step, (nu, jnp.asarray(True), 0))[0]
