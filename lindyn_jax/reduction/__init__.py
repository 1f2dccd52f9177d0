"""The exact reduction: a two-layer network of any width moves as one with min(h, r + m) columns does, tied layers as n.

Gradients multiply `Z1 = [U1; V]` by a matrix from the left, so a dynamics built from them by scalar and linear operations
keeps `Z1(t) = L(t) Q^T` with the Q of the start, and L obeys the same dynamics. Rows of U outside the range of the data get
no gradient at all. This holds for the flow and for descent with any scalar schedule, momentum, weight decay or clipping by
global norm, and fails for optimizers that look at single entries, such as Adam. An optax transformation does not say which
kind it is: `require_exact` reads its program.
"""

import functools
from typing import Any

import jax
from jaxtyping import Array, Float

from .. import _checks
from .._public import ROLES, public, role_of
from ..models import (
    AbstractChain,
    AbstractModel,
    DeepLinear,
    Reduction,
    SymmetricFactors,
    TwoLayer,
    refuse_matrix_penalty,
)
from ..problems import AbstractProblem
from .forms import reduced_form, refuse_dependent_rows
from .optimizers import require_exact
from .subspaces import find_subspaces, helps, project

__all__ = ["check_fits", "find_subspaces", "is_reducible", "lift", "prepare", "reduce", "require_exact"]


@public
def reduce(
    model: TwoLayer | SymmetricFactors | DeepLinear,
    problem: AbstractProblem,
    *,
    subspaces: tuple[Float[Array, "_ _"], ...] | None = None,
) -> Reduction:
    """The smallest exact form of a two-layer, tied or deep network.

    `Phi1^T U = U1 Q^T`, `V = V_reduced Q^T` with orthonormal Q, shape (h, k), k = min(h, r + m). Tied layers keep all n rows,
    which all move: `U = L Q^T` with k = min(h, n). Deep networks are reduced to the smallest subspaces of their hidden layers
    that all layers respect, `core_l = S_{l-1}^T W_l S_l`, where these are smaller.

    **Args:** `model`, a `TwoLayer` whose U has n rows and V has m rows, a `SymmetricFactors` or a `DeepLinear`; `problem`;
    `subspaces`, for a `DeepLinear` those of `find_subspaces`, which makes them from the concrete weights by default: inside jit
    they must be given, and the core of weights that do not respect them is NaN.

    **Returns:** a `Reduction`, whose core is of the same kind; `lift(reduce(model, problem))` is the model, to round-off.

    **Raises:** `ValueError` for another kind of model, sizes that do not fit the problem, or a problem with a penalty whose
    Lambda is a matrix; for a deep network none of whose hidden layers becomes smaller, as with Gaussian middle layers (the
    message says which sizes were found), or whose weights are traced while `subspaces` are not given, or do not respect
    given ones. Differentiating with respect to a start whose moving rows are linearly dependent is refused for h > r + m (h > n
    for tied layers), and NaN inside jit: use `reduce=False` in the solvers.

    **Source:** M22 section 2.1 for the data's part; the width's part is the invariance of the gradient under rotations.

    Example:

        >>> problem = ld.LeastSquares(jnp.array([[1.0, 1.0]]), jnp.array([[2.0]]))
        >>> start = ld.TwoLayer(jnp.ones((2, 100)) / 10, jnp.ones((1, 100)) / 10)
        >>> small = ld.reduce(start, problem)
        >>> print([W.shape for W in small.core.layers], float(small.width))
        [(1, 2), (2, 1)] 100.0
        >>> print(jnp.linalg.norm(start.U), jnp.linalg.norm(small.core.U))
        1.414 1.414
    """
    check_fits(model, problem)
    refuse_matrix_penalty(problem)
    refuse_dependent_rows(model, problem)
    return reduced_form(model, problem, subspaces)


@public
def lift(reduced: Reduction, core: AbstractChain | None = None) -> AbstractChain:
    """The full-size network of a reduced one: `U = Phi1 U1 Q^T + frozen part`, `V = V_reduced Q^T`; `U = L Q^T` if tied.

    **Args:** `reduced`, as it came from `reduce` or after moving; `core`, one that was moved by itself, on `problem.restrict()`,
    to be lifted in the place of its own.

    **Raises:** `ValueError` for a core of other sizes, or a network that was drawn in its reduced form and has no full size.

    Example:

        >>> problem = ld.LeastSquares(jnp.array([[1.0, 1.0]]), jnp.array([[2.0]]))
        >>> start = ld.TwoLayer(jnp.ones((2, 100)) / 10, jnp.ones((1, 100)) / 10)
        >>> back = ld.lift(ld.reduce(start, problem))
        >>> print(back.U.shape, back.U[0, :3], back.product().T)
        (2, 100) [0.1 0.1 0.1] [[1. 1.]]
    """
    return reduced.lift(core)


@public
def is_reducible(model: AbstractModel, problem: AbstractProblem) -> bool:
    """Whether the solvers move this start in a reduced form that they make inside of jit; see `prepare` for deep ones.

    **Returns:** a flag.

    Example:

        >>> problem, U = ld.factorization(jnp.eye(2)), jnp.eye(2, 100)
        >>> models = (ld.TwoLayer(U, U), ld.LinearModel(jnp.eye(2)))
        >>> [ld.reduction.is_reducible(model, problem) for model in models]
        [True, False]
    """
    return model.is_reducible(problem)


@public
def prepare(model: AbstractModel, problem: AbstractProblem, reduce: bool) -> AbstractModel:
    """What the solvers move, if it is reduced outside of jit: deep networks with concrete weights that become smaller.

    **Args:** `model`, the start; `problem`; `reduce`, whether to reduce at all.

    **Returns:** a `Reduction` to the subspaces of `find_subspaces`, or the model itself: of another kind, traced, or no smaller.

    **Raises:** `ValueError` for derivatives of a start with linearly dependent moving rows, as `reduce` does.

    Example:

        >>> problem = ld.factorization(jnp.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> start = ld.init.deep_balanced(problem, problem.Y, (30, 30), key=jax.random.key(0))
        >>> moved = ld.reduction.prepare(start, problem, True)
        >>> start.widths, moved.core.widths
        ((30, 30), (2, 2))
    """
    if reduce:
        refuse_dependent_rows(model, problem)
        return _prepared(model, problem)
    return model


@functools.singledispatch
def _prepared(model: AbstractModel, problem: AbstractProblem) -> AbstractModel:
    return model


@_prepared.register
def _(model: DeepLinear, problem: AbstractProblem) -> AbstractModel:
    if _checks.is_traced(*jax.tree.leaves((model, problem))):
        return model
    subspaces = find_subspaces(model, problem)
    return project(model, problem, subspaces, False) if helps(model, subspaces) else model


def check_kinds(model: Any, problem: Any) -> None:
    """Refuses what is no model, or no problem."""
    for name, value, what in (
        ("model", model, "model of this package"),
        ("problem", problem, "problem such as LeastSquares"),
    ):
        if role_of(value) != name:
            raise ValueError(f"Argument `{name}` must be a {what}, but is a {type(value).__name__}.")


@public
def check_fits(model: AbstractModel, problem: AbstractProblem) -> None:
    """Refuses a model whose sizes or data do not fit the problem, or whose kind or width does not fit the problem's penalty.

    **Raises:** `ValueError` that says what does not fit.

    Example:

        >>> problem = ld.factorization(jnp.eye(2))
        >>> ld.reduction.check_fits(ld.TwoLayer(jnp.eye(3, 2), jnp.eye(2)), problem)
        Traceback (most recent call last):
            ...
        ValueError: The model does not fit the problem: (U rows, V rows) must be (2, 2), but is (3, 2).
    """
    _check_sizes(model, problem)
    if problem.penalty is not None:
        model.check_penalty(problem.penalty)


def _check_sizes(model: AbstractModel, problem: AbstractProblem) -> None:
    """Refuses a model whose sizes do not fit the problem, or one that was reduced to other data."""
    name, expected, given = model.sizes(problem)
    if expected != given:
        why = (
            "; a reduced model has the coordinates of the data it was made for and no others"
            if model.is_reduced
            else ""
        )
        raise ValueError(f"The model does not fit the problem: {name} must be {expected}, but is {given}{why}.")
    model.check_data(problem)


ROLES["model", "problem"] = _check_sizes
