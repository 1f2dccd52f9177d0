"""Where the flow of a separable classification goes: the limit of Theta/||Theta||, by integrating in log time.

The loss has no minimum: margins grow like log t, and Theta/||Theta|| is within 1/log t of its limit. In `tau = log(1 + t)` the
flow is `Z' = -e^tau dL/dZ`, where `e^tau` and the gradient are multiplied as exponentials, so that neither overflows nor vanishes
and tau = 1e4 is no different from tau = 10. What is returned is the heading, `Theta'/||Theta'||`: where Theta itself is off by
c/tau because of where it came from, the heading is off by the square of that, or by a power of t for a single layer.
"""

from importlib import import_module
from typing import ClassVar, cast

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from . import _checks, trajectory
from ._norms import norm
from ._public import public
from ._stop import AbstractStop
from .flow import _flow, check_finite_start, check_not_saddle, default_adjoint
from .methods import METHODS
from .models import AbstractModel
from .problems import AbstractProblem
from .problems.classification import Classification
from .reduction import check_fits, is_reducible, prepare
from .reduction.forms import reduced_form

# Linear programs with more numbers than this are not solved: the run tells whether the data are separable.
_MOST_NUMBERS = 10_000_000


class Direction(eqx.Module):
    """What `direction` returns.

    **Fields:**

    - `direction`: shape (n, m), of norm 1, in the coordinates of the inputs.
    - `margin`: the least margin of a sample under it.
    - `error`: an estimate of its distance from the limit, certified for one layer alone: see the notes of `direction`.
    - `log_time`: log(1 + t) at the end.
    - `result`: a code of `trajectory.RESULTS`.
    - `stats`: numbers on the run, as in a `Trajectory`.

    Example:

        >>> problem = ld.Logistic(np.array([[3.0, 0.0], [0.0, -4.0]]), np.array([1, 0]))
        >>> found = ld.direction(ld.TwoLayer(0.1 * np.eye(2), np.array([[0.1, 0.1]])), problem)
        >>> bool(found.ok), float(found.margin)
        (True, 2.4)
    """

    direction: Float[Array, "n m"]
    margin: Float[Array, ""]
    error: Float[Array, ""]
    log_time: Float[Array, ""]
    result: Int[Array, ""]
    stats: dict[str, Array]

    @property
    def ok(self) -> Bool[Array, ""]:
        """Whether the tolerance was reached."""
        return self.result == trajectory.FINISHED


@public
def direction(
    model: AbstractModel,
    problem: AbstractProblem,
    *,
    rtol: float | Float[Array, ""] | None = None,
    log_time: float | int | Float[Array, ""] = 1e4,
    max_steps: int = 100_000,
    adjoint: diffrax.AbstractAdjoint | None = None,
) -> Direction:
    r"""The limit of `Theta/||Theta||_F` under gradient flow, for `Logistic` and `Softmax` on separable data.

    **Args:**

    - `model`: the start, any network whose sizes fit the problem.
    - `rtol`: the accuracy asked of the direction, by default 1e-4 in float64 and 1e-3 in float32.
    - `log_time`: the latest log(1 + t) to go to. No clock is too late: it may be above 709, where t itself overflows.
    - `max_steps`: the step budget.
    - `adjoint`: how derivatives pass through, as in `gradient_flow`.

    **Returns:** a `Direction`, whose `result` is `FINISHED` where the estimate came down to `rtol`, `NOT_CONVERGED` where
    `log_time` came first, `STEP_LIMIT` where `max_steps` did.

    **Raises:** `ValueError` for a problem that is no classification, for concrete data that are not separable (the loss has a
    minimum, or an infimum that not all samples' losses vanish at), and as `gradient_flow` does. Traced data that are not
    separable end as `NOT_CONVERGED`, or `STEP_LIMIT` where steps become as short as 1/t on the way.

    **Notes:** the estimate for the heading D is the larger of `1 - (least margin of D)/(mean margin of D)`, the mean by how
    much the samples still pull, which bounds what a single layer misses of the largest margin there is; and the square of the
    distance of D from Theta/||Theta|| or, if smaller, from the gradient's direction. One output: the direction is that of the
    max-margin (support vector) solution without intercept for every depth. Several outputs: that of the largest margin for the
    Frobenius norm (one layer), the nuclear norm (two), or a stationary point of the Schatten quasi-norm 2/L (L layers). Beyond
    one layer the estimate is not a bound: of three layers it was seen to be 1.6 times too small. With one output the limit is
    that of `theory.max_margin` for every depth, which certifies any direction. Steps are explicit, about two to a unit of tau,
    and more for ill-conditioned inputs. Derivatives are those of the heading at the log time that was reached, whose own
    derivative is left out; they are as far from those of the limit as the heading is.

    **Source:** Soudry et al. (2018) for one layer; Ji and Telgarsky (2019), Lyu and Li (2020) for more.

    Example:

        >>> problem = ld.Logistic(np.array([[3.0, 0.0], [0.0, -4.0]]), np.array([1, 0]))
        >>> found = ld.direction(ld.TwoLayer(0.1 * np.eye(2), np.array([[0.1, 0.1]])), problem)
        >>> found.direction.ravel().tolist(), ld.theory.max_margin(problem).direction.ravel().tolist()
        ([0.8, 0.6], [0.8, 0.6])
    """
    if not isinstance(problem, Classification):
        raise ValueError(
            "The direction is that of a classification, Logistic or Softmax, whose loss has no minimum, but the problem is a "
            f"{type(problem).__name__}: use `limit`."
        )
    check_fits(model, problem)
    check_not_saddle(model, problem)
    check_finite_start(model, problem)
    dtype = jnp.result_type(*jax.tree.leaves(eqx.filter(model, model.moving())))
    if rtol is None:
        rtol = 1e-4 if dtype == jnp.float64 else 1e-3
    _checks.check_tolerance(rtol, "rtol", dtype)
    _checks.check_positive(log_time, "log_time")
    if not max_steps >= 1:
        raise ValueError(f"Argument `max_steps` must be at least 1, but is {max_steps}.")
    _check_separable(problem)
    adjoint = default_adjoint() if adjoint is None else adjoint
    start = prepare(model, problem, True)
    return _direction(start, problem, jnp.asarray(rtol, dtype), jnp.asarray(log_time, dtype), max_steps, adjoint)


@eqx.filter_jit
def _direction(model, problem, rtol, log_time, max_steps, adjoint) -> Direction:
    with jax.default_matmul_precision("highest"):
        whole = reduced_form(model, problem, None) if is_reducible(model, problem) else model
        core, small = whole.parts(problem)
        small = cast(Classification, small)
        method = METHODS["dopri8" if rtol.dtype == jnp.float64 else "tsit5"]
        # What the samples pull with is an exponential: Theta has to be known to rtol itself, and it grows with log time.
        resolution = 40 * jnp.finfo(rtol.dtype).eps
        run = _flow(
            Clocked(core, jnp.zeros_like(log_time)),
            small,
            log_time[None],
            Settled(rtol),
            jnp.clip(0.1 * rtol / log_time, resolution, 1e-5).astype(rtol.dtype),
            jnp.zeros_like(rtol),
            {},
            (method,),
            max_steps,
            adjoint,
            False,
            False,
            False,
        )
        end = cast(Clocked, run.final)
        D, error = heading(end, small), unsettled(end, small)
        code = run.result
        finished, stopped = code == trajectory.FINISHED, code == trajectory.STOPPED
        code = jnp.where(finished, trajectory.NOT_CONVERGED, jnp.where(stopped, trajectory.FINISHED, code))
        margin = small.restrict()[0].margin(D)
        return Direction(problem.from_data(D), margin, error, end.log_time, code, run.stats)


class Hastened(AbstractProblem):
    """A classification whose gradient is multiplied by `e^tau`."""

    problem: Classification
    log_time: Float[Array, ""]

    def __init__(self, problem: AbstractProblem, log_time: Float[Array, ""]):
        self.problem, self.log_time = cast(Classification, problem), log_time

    @property
    def num_inputs(self) -> int:
        return self.problem.num_inputs

    @property
    def num_outputs(self) -> int:
        return self.problem.num_outputs

    def loss(self, Theta: Float[Array, "n m"]) -> Float[Array, ""]:
        return self.problem.loss(Theta)

    def loss_gradient(self, Theta: Float[Array, "n m"]) -> Float[Array, "n m"]:
        problem = self.problem
        gradients = problem.output_scale * problem.hastened(Theta, self.log_time)
        return gradients if problem.X is None else problem.X.T @ gradients


class Clocked(AbstractModel):
    """A network with its clock, tau = log(1 + t): what moves is a function of tau alone."""

    network: AbstractModel
    log_time: Float[Array, ""]
    is_gradient_flow: ClassVar[bool] = False

    def product(self) -> Float[Array, "n m"]:
        return self.network.product()

    def moving(self) -> "Clocked":
        return eqx.tree_at(lambda tree: tree.network, super().moving(), self.network.moving())

    def sizes(self, problem: AbstractProblem) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        return self.network.sizes(problem)

    def velocity(self, problem: AbstractProblem) -> "Clocked":
        moved = self.network.velocity(Hastened(problem, self.log_time))
        return Clocked(moved, jnp.ones_like(self.log_time))


class Settled(AbstractStop):
    """Ends where the heading is as good as its limit."""

    def measure(self, model: AbstractModel, problem: AbstractProblem) -> Float[Array, ""]:
        return unsettled(cast(Clocked, model), cast(Classification, problem))


def heading(clocked: Clocked, problem: Classification) -> Float[Array, "r m"]:
    """D = Theta1'/||Theta1'||, of Theta1 = Phi1^T Theta."""
    weights, rest = eqx.partition(clocked, clocked.moving())
    product = lambda weights: eqx.combine(weights, rest).network.reduced_product(problem)  # noqa: E731
    return _unit(jax.jvp(product, (weights,), (eqx.filter(clocked.velocity(problem), clocked.moving()),))[1])


def unsettled(clocked: Clocked, problem: Classification) -> Float[Array, ""]:
    """An estimate of the heading's distance from its limit; infinity where a sample is still on the wrong side."""
    small, D = problem.restrict()[0], heading(clocked, problem)
    Theta = clocked.network.reduced_product(problem)
    gradients = small.hastened(Theta, clocked.log_time)
    # What the samples pull with falls far below the range of the dtype, or beyond: ratios alone count.
    gradients = gradients / jnp.where(jnp.any(gradients != 0), jnp.max(jnp.abs(gradients)), 1)
    total = jnp.sum(small.pulls(gradients, small.Y))
    mean = -jnp.sum(gradients * small.outputs(D)) / jnp.where(total > 0, total, 1)
    missing = 1 - small.margin(D) / jnp.where(mean > 0, mean, 1)
    pulled = _unit(-gradients if small.X is None else -small.X.T @ gradients)
    behind = jnp.minimum(norm(D - _unit(Theta)), norm(D - pulled)) ** 2
    separated = (mean > 0) & (small.margin(Theta) > 0) & jnp.isfinite(missing)
    return jnp.where(separated, jnp.maximum(missing, behind), jnp.inf)


def _unit(A: Float[Array, "r m"]) -> Float[Array, "r m"]:
    size = norm(A)
    return A / jnp.where(size > 0, size, 1)


def _check_separable(problem: Classification) -> None:
    """Refuses concrete data that no Theta classifies rightly, by linear programs in the data's own coordinates."""
    numbers = problem.num_samples * problem.rank * problem.num_outputs**2
    if _checks.is_traced(*jax.tree.leaves(problem)) or numbers > _MOST_NUMBERS:
        return
    # It is asked for here alone, and takes as long to import as the rest. By its name: a type checker would read all of SciPy.
    linprog = import_module("scipy.optimize").linprog

    small = problem.restrict()[0]
    for A in small.separations():
        rows = np.asarray(A, np.float64)
        if problem.weights is not None:
            counted = np.repeat(np.asarray(problem.weights) > 0, len(rows) // problem.num_samples)
            rows = rows[counted]
        sizes = np.linalg.norm(rows, axis=1)
        # A row of zeros has margin zero under every Theta.
        free = np.all(sizes > 0)
        if free:
            rows = rows / sizes[:, None]
            found = linprog(np.zeros(rows.shape[1]), A_ub=-rows, b_ub=-np.ones(len(rows)), bounds=(None, None))
            free = found.status != 2
        if not free:
            raise ValueError(
                "The data are not separable: no Theta puts every sample on the right side, so Theta/||Theta|| has no limit of "
                "its own; use `limit` for the minimum."
            )
