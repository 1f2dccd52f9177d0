r"""The largest step of plain descent that is stable: one function for a whole path, for a solution, and for any state."""

from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .. import _checks
from .._finite import of_finite_state
from .._public import public
from ..models import AbstractModel
from ..problems import AbstractProblem
from .imbalance import moving_layers, moving_spectrum
from .sharpness import hessian_sharpness, sharpness


@public
@of_finite_state
def stable_step(
    model: AbstractModel,
    problem: AbstractProblem,
    safety: Float[ArrayLike, ""] = 0.5,
    *,
    at: Literal["path", "solution", "state"] = "path",
) -> Float[Array, ""]:
    """A step size at which plain descent is stable: `2 safety / K` with a curvature K.

    With `safety=1` it is the largest such step where K is exact.

    - `at="path"`: K bounds the curvature where a path of two layers begins and where it ends, `q lambda_1 (a + b)`; of one
        layer it is `q lambda_1`. At a solution with Phi1^T Theta = Theta1 it is at most
        `q lambda_1 (sigma_max(U1)^2 + sigma_max(V)^2)`; there
        `sigma_max(U1)^2 <= a = (dbar+ + sqrt(dbar+^2 + 4 sigma_max(Theta1)^2))/2`, since
        `U1 D U1^T = (U1 U1^T)^2 - Theta1 Theta1^T`, and likewise for V with dbar- for b. The values of the start count as
        well where they are larger.
    - `at="solution"`: K is the `sharpness` of any chain of layers, exact at a solution. Descent moves away from it at larger
        steps, and comes back to it at smaller ones.
    - `at="state"`: K is the `hessian_sharpness` of any network and problem, exact at this state and not beyond it.

    **Args:** `model`, the start, a solution, or any state; `problem`; `safety` in (0, 1]; `at`, what the step must serve.

    **Returns:** the step size; infinite where K is zero or negative, as for weights and targets that are all zero, where
    every step is stable and none moves: give a finite one there.

    **Raises:** `ValueError` for a path of a model that has not one or two layers, or of a problem that is not least squares
    or has terms on the weights; and as `sharpness` and `hessian_sharpness`.

    **Notes:** steps close to the largest that is stable at a solution may not get there. For tolerances of the curvature take
    `2 / sharpness(...).value`.

    **Source:** this package's own for the path; M22 section 5.2 leaves open how the imbalance affects the step. Linear stability
    for the others; for one layer G19 section 3.2 asks for half of it, `eta < 1/lambda_1`.

    Example:

        >>> problem, model = ld.factorization(np.diag([2.0, 1.0])), ld.TwoLayer(np.diag([2.0, 1.0]), np.eye(2))
        >>> float(ld.stable_step(model, problem, 1.0, at="solution")), 2 / float(ld.theory.sharpness(model, problem).value)
        (0.4, 0.4)
        >>> float(ld.stable_step(model, problem, 1.0)), float(ld.stable_step(model, problem))
        (0.3333, 0.1667)
    """
    _checks.check_choice(at, "at", ("path", "solution", "state"))
    curvature: Array = {"path": _along_the_path, "solution": _sharpness, "state": _hessian_sharpness}[at](
        model, problem
    )
    flat = curvature <= 0
    return jnp.where(flat, jnp.inf, 2 * safety / jnp.where(flat, 1, curvature))


def _along_the_path(model: AbstractModel, problem: Any) -> Array:
    problem.refuse_link("stable_step")
    layers, curvature = model.moving_layers(problem), problem.scale * problem.singular_values[0] ** 2
    if layers is None or len(layers) > 2:
        raise ValueError(
            f"`stable_step` is for two-layer models and for one layer, but the model is a {type(model).__name__}: ask for a step "
            "`at` a solution or a state."
        )
    if len(layers) == 1:
        return curvature
    U1, V = moving_layers(model, problem)
    spectrum = moving_spectrum(model, problem)
    target = jnp.linalg.norm(problem.reduced_theta_hat, ord=2)
    largest = 0.0
    for bar, factor in ((spectrum[0], U1), (-spectrum[-1], V)):
        bar = jnp.maximum(bar, 0.0)
        at_end = (bar + jnp.hypot(bar, 2 * target)) / 2
        largest += jnp.maximum(at_end, jnp.linalg.norm(factor, ord=2) ** 2)
    return curvature * largest


def _sharpness(model: AbstractModel, problem: Any) -> Array:
    problem.refuse_link("sharpness")
    return sharpness(model, problem).value


def _hessian_sharpness(model: AbstractModel, problem: AbstractProblem) -> Array:
    return hessian_sharpness(model, problem).value
