"""The exact reduction: a two-layer network of any width moves as one with min(h, r + m) columns does, tied layers as n.

Gradients multiply `Z1 = [U1; V]` by a matrix from the left, so a dynamics built from them by scalar and linear operations
keeps `Z1(t) = L(t) Q^T` with the Q of the start, and L obeys the same dynamics. Rows of U outside the range of the data get
no gradient at all. This holds for the flow and for descent with any scalar schedule, momentum, weight decay or clipping by
global norm, and fails for optimizers that look at single entries, such as Adam. An optax transformation does not say which
kind it is: `require_exact` reads its program, and `check_optimizer` tries it.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from . import _checks
from ._equivariance import extra_arguments, obstacle
from ._linalg import row_factor
from ._norms import norm
from ._public import FITS, public
from .models import (
    AbstractModel,
    DeepLinear,
    Frozen,
    ReducedDeepLinear,
    ReducedTwoLayer,
    SymmetricFactors,
    TwoLayer,
    refuse_matrix_penalty,
)
from .problems import AbstractProblem
from .subspaces import (
    DeepBasis,
    deep_state,
    find_subspaces,
    from_deep_state,
    helps,
    lift_deep,
    pad_velocity,
    reduce_deep,
)


class Basis(eqx.Module):
    """What it takes to go back from the reduced coordinates of one start.

    **Fields:** `Phi1`, shape (n, r), or `None` for X = I; `Q`, shape (h, k), or `None` where the width was not reduced;
    `frozen`, shape (n, h), the part of U outside the range of the data, or `None` where there is none.
    """

    Phi1: Float[Array, "n r"] | None
    Q: Float[Array, "h k"] | None
    frozen: Float[Array, "n h"] | None


@public
def reduce(
    model: TwoLayer | SymmetricFactors | DeepLinear,
    problem: AbstractProblem,
    *,
    subspaces: tuple[Float[Array, "_ _"], ...] | None = None,
) -> tuple[ReducedTwoLayer | SymmetricFactors | ReducedDeepLinear, Basis | DeepBasis]:
    """The smallest exact form of a two-layer, tied or deep network, and the basis to come back.

    `Phi1^T U = U1 Q^T`, `V = V_reduced Q^T` with orthonormal Q, shape (h, k), k = min(h, r + m). Tied layers keep all n rows,
    which all move: `U = L Q^T` with k = min(h, n), and L is again a `SymmetricFactors`. Deep networks are reduced to the smallest
    subspaces of their hidden layers that all layers respect, `core_l = S_{l-1}^T W_l S_l`, where these are smaller.

    **Args:** `model`, a `TwoLayer` whose U has n rows and V has m rows, a `SymmetricFactors` or a `DeepLinear`; `problem`;
    `subspaces`, for a `DeepLinear` those of `find_subspaces`, which makes them from the concrete weights by default: inside jit
    they must be given, and weights that do not respect them are an error at run time.

    **Returns:** a `ReducedTwoLayer` (or a `SymmetricFactors`) and a `Basis`, or a `ReducedDeepLinear` and a `DeepBasis`;
    `lift(*reduce(model, problem))` is the model, to round-off.

    **Raises:** `ValueError` for another kind of model, sizes that do not fit the problem, or a problem with a penalty whose
    Lambda is a matrix; for a deep network none of whose hidden layers becomes smaller, as with Gaussian middle layers (the
    message says which sizes were found), or whose weights are traced while `subspaces` are not given. Differentiating with
    respect to a start whose moving rows are linearly dependent raises an error for h > r + m (h > n for tied layers): use
    `reduce=False` in the solvers.

    **Source:** M22 section 2.1 for the data's part; the width's part is the invariance of the gradient under rotations.
    """
    check_fits(model, problem)
    refuse_matrix_penalty(problem)
    if isinstance(model, DeepLinear):
        return reduce_deep(model, problem, subspaces)
    if isinstance(model, SymmetricFactors):
        if model.width <= model.U.shape[0]:
            return model, Basis(None, None, None)
        L, Q = row_factor(model.U, True)
        return SymmetricFactors(L), Basis(None, Q, None)
    if not isinstance(model, TwoLayer):
        raise ValueError(
            "Argument `model` must be a TwoLayer, a SymmetricFactors or a DeepLinear to be reduced, "
            f"but is a {type(model).__name__}."
        )
    r, m = problem.rank, problem.num_outputs
    U1, V = problem.to_data(model.U), model.V
    Q = None
    if model.width > r + m:
        L, Q = row_factor(jnp.concatenate([V, U1]), True)
        V, U1 = L[:m], L[m:]
    frozen_rows, frozen = None, None
    if problem.num_frozen > 0:
        frozen_rows = model.U - problem.from_data(problem.to_data(model.U))
        seen = frozen_rows if Q is None else frozen_rows @ Q
        core = seen if seen.shape[0] <= seen.shape[1] else row_factor(seen.T)[0].T
        frozen = Frozen(core, norm(frozen_rows), jnp.ones((), core.dtype))
    reduced = ReducedTwoLayer(U1, V, model.width, problem.num_frozen, frozen)
    return reduced, Basis(problem.frame, Q, frozen_rows)


@public
def lift(
    reduced: ReducedTwoLayer | SymmetricFactors | ReducedDeepLinear, basis: Basis | DeepBasis
) -> TwoLayer | SymmetricFactors | DeepLinear:
    """The full-size network of a reduced one: `U = Phi1 U1 Q^T + frozen part`, `V = V_reduced Q^T`; `U = L Q^T` if tied.

    **Args:** `reduced`, as it came from `reduce` or after moving; `basis`, from the same call of `reduce`.

    **Raises:** `ValueError` if the two do not belong together, or for a core drawn directly, which has no full size.
    """
    if isinstance(reduced, ReducedDeepLinear) != isinstance(basis, DeepBasis):
        raise ValueError("Arguments `reduced` and `basis` do not belong together: only one is that of a deep network.")
    if isinstance(reduced, ReducedDeepLinear):
        return lift_deep(reduced, basis)
    columns = (reduced.U if isinstance(reduced, SymmetricFactors) else reduced.V).shape[1]
    if basis.Q is not None and basis.Q.shape[1] != columns:
        raise ValueError(f"Argument `basis` has {basis.Q.shape[1]} columns, but the reduced model has {columns}.")
    if isinstance(reduced, SymmetricFactors):
        return reduced if basis.Q is None else SymmetricFactors(reduced.U @ basis.Q.T)
    if (basis.frozen is None) != (reduced.frozen is None):
        raise ValueError("Arguments `reduced` and `basis` do not belong together: only one has a frozen part.")
    widen = (lambda A: A) if basis.Q is None else (lambda A: A @ basis.Q.T)
    U1, V = widen(reduced.U1), widen(reduced.V)
    U = U1 if basis.Phi1 is None else basis.Phi1 @ U1
    if basis.frozen is not None:
        U = U + reduced.frozen.factor * basis.frozen
    return TwoLayer(U, V)


@public
def is_reducible(model: AbstractModel, problem: AbstractProblem) -> bool:
    """Whether the solvers move this start in a reduced form that they make inside of jit; see `prepare` for deep ones."""
    if isinstance(model, SymmetricFactors):
        return model.width > model.U.shape[0]
    penalty = problem.penalty
    return isinstance(model, TwoLayer) and (penalty is None or penalty.is_isotropic)


@public
def prepare(model: AbstractModel, problem: AbstractProblem, reduce: bool) -> tuple[AbstractModel, DeepBasis | None]:
    """What the solvers move, and the basis to come back if this is a reduced deep network.

    Only deep networks are reduced here, outside of jit: those with concrete weights whose hidden layers become smaller.
    """
    if not reduce or not isinstance(model, DeepLinear) or _checks.is_traced(*jax.tree.leaves((model, problem))):
        return model, None
    subspaces = find_subspaces(model, problem)
    return reduce_deep(model, problem, subspaces) if helps(model, subspaces) else (model, None)


@public
def check_fits(model: AbstractModel, problem: AbstractProblem) -> None:
    """Refuses a model whose sizes do not fit the problem, or whose kind or width does not fit the problem's penalty."""
    _check_sizes(model, problem)
    if problem.penalty is not None:
        model.check_penalty(problem.penalty)


def _check_sizes(model: AbstractModel, problem: AbstractProblem) -> None:
    """Refuses a model whose sizes do not fit the problem."""
    name, expected, given = model.sizes(problem)
    if expected != given:
        made = isinstance(model, (ReducedTwoLayer, ReducedDeepLinear))
        why = "; a reduced model has the coordinates of the data it was made for and no others" if made else ""
        raise ValueError(f"The model does not fit the problem: {name} must be {expected}, but is {given}{why}.")


FITS.append((AbstractModel, AbstractProblem, _check_sizes))


# -- optimizers --------------------------------------------------------------------------------------------------------


@public
def to_state(reduced: ReducedTwoLayer | ReducedDeepLinear) -> TwoLayer | DeepLinear:
    """The reduced network as the small `TwoLayer` or `DeepLinear` that an optimizer sees.

    It has the tree structure of the full network, so that masks and labels fit, and the same norm of every leaf: one extra
    row and column hold `||U2||_F`, on which weight decay acts as it does on U2.
    """
    if isinstance(reduced, ReducedDeepLinear):
        return deep_state(reduced)
    if reduced.frozen is None:
        return TwoLayer(reduced.U1, reduced.V)
    pad = ((0, 1), (0, 1))
    U = jnp.pad(reduced.U1, pad).at[-1, -1].set(reduced.frozen.factor * reduced.frozen.norm)
    return TwoLayer(U, jnp.pad(reduced.V, ((0, 0), (0, 1))))


@public
def from_state(
    state: TwoLayer | DeepLinear, start: ReducedTwoLayer | ReducedDeepLinear
) -> ReducedTwoLayer | ReducedDeepLinear:
    """The reduced network that a small one made by `to_state` stands for."""
    _check_state(state, start, "start")
    if isinstance(start, ReducedDeepLinear):
        return from_deep_state(state, start)
    if start.frozen is None:
        return ReducedTwoLayer(state.U, state.V, start.width, start.num_frozen, None)
    size = start.frozen.norm
    absent = size == 0
    factor = jnp.where(absent, 1.0, state.U[-1, -1] / jnp.where(absent, 1, size))
    frozen = Frozen(start.frozen.core, size, factor)
    return ReducedTwoLayer(state.U[:-1, :-1], state.V[:, :-1], start.width, start.num_frozen, frozen)


@public
def state_velocity(
    velocity: ReducedTwoLayer | ReducedDeepLinear, state: TwoLayer | DeepLinear
) -> TwoLayer | DeepLinear:
    """The velocity of a reduced network in the form of `to_state`, whose extra row and column it leaves at rest."""
    _check_state(state, velocity, "velocity")
    if isinstance(velocity, ReducedDeepLinear):
        return pad_velocity(velocity)
    pad = ((0, state.U.shape[0] - velocity.U1.shape[0]), (0, state.U.shape[1] - velocity.U1.shape[1]))
    return TwoLayer(jnp.pad(velocity.U1, pad), jnp.pad(velocity.V, ((0, 0), pad[1])))


def _check_state(state, reduced, name: str) -> None:
    """Refuses a small network that `to_state` does not make of a reduced one."""
    expected = jax.eval_shape(to_state.__wrapped__, reduced)
    shapes = [[leaf.shape for leaf in jax.tree.leaves(one)] for one in (state, expected)]
    if type(state) is not type(expected) or shapes[0] != shapes[1]:
        raise ValueError(f"Argument `state` must have the kind and shapes of `to_state({name})`, but is a {state}.")


@public
def check_optimizer(optimizer: optax.GradientTransformation) -> Array:
    """How far an optax transformation is from commuting with the reduction: about round-off if it does.

    Small random networks are moved for a few steps with random gradients of six sizes, once in full and once reduced;
    returns the largest difference between the updates, relative to the largest update.

    **Source:** the invariance stated at the top of this module.
    """
    n, m, h, r, steps = 5, 2, 9, 3, 4
    sizes = jnp.asarray([1e-8, 1e-4, 1e-1, 1e1, 1e4, 1e8], jnp.result_type(float))
    rng = np.random.default_rng(20210513)
    k = r + m
    Q, Phi = (np.linalg.qr(rng.normal(size=(a, a)))[0] for a in (h, n))
    Q, Phi1, Phi2 = (jnp.asarray(A) for A in (Q[:, :k], Phi[:, :r], Phi[:, r:]))
    U1, V = (jnp.asarray(rng.normal(size=(rows, k))) for rows in (r, m))
    U2 = jnp.asarray(rng.normal(size=(n - r, h)))
    G_U1, G_V = (jnp.asarray(rng.normal(size=(steps, rows, k))) for rows in (r, m))

    core = row_factor(U2 @ Q)[0]
    reduced = to_state(ReducedTwoLayer(U1, V, float(h), float(n - r), Frozen(core, norm(U2), jnp.ones((), U2.dtype))))
    full = TwoLayer(Phi1 @ U1 @ Q.T + Phi2 @ U2, V @ Q.T)
    reduced_gradients = jax.vmap(lambda a, b: TwoLayer(jnp.pad(a, ((0, 1), (0, 1))), jnp.pad(b, ((0, 0), (0, 1)))))(
        G_U1, G_V
    )
    full_gradients = jax.vmap(lambda a, b: TwoLayer(Phi1 @ a @ Q.T, b @ Q.T))(G_U1, G_V)

    def run(start: TwoLayer, gradients: TwoLayer, size: Array) -> TwoLayer:
        def step(carry, gradient):
            params, state = carry
            gradient = jax.tree.map(lambda g: size * g, gradient)
            # A line search asks for the loss: any function of the product serves, since it is the same on both sides.
            value_fn = lambda weights: size * jnp.sum(jnp.sin(weights.V @ weights.V.T))  # noqa: E731
            extra = extra_arguments(optimizer, {"value": value_fn(params), "grad": gradient, "value_fn": value_fn})
            updates, state = optimizer.update(gradient, state, params, **extra)
            params = optax.apply_updates(params, updates)
            return (params, state), updates

        _, updates = jax.lax.scan(step, (start, optimizer.init(start)), gradients)
        return updates

    def difference(size: Array) -> Array:
        # Updates are compared, not weights: small ones would drown in the round-off of the weights.
        wide, small = run(full, full_gradients, size), run(reduced, reduced_gradients, size)
        decay = small.U[:, -1:, -1:] / norm(U2)
        lifted_U = Phi1 @ small.U[:, :-1, :-1] @ Q.T + decay * (Phi2 @ U2)
        lifted_V = small.V[:, :, :-1] @ Q.T
        leak = small.U[:, -1, :-1], small.U[:, :-1, -1], small.V[:, :, -1]
        gaps = [wide.U - lifted_U, wide.V - lifted_V, *leak]
        gap, length = (jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in xs])) for xs in (gaps, [wide.U, wide.V]))
        return jnp.where(gap > 0, gap / jnp.where(gap > 0, length, 1.0), 0.0)

    return jnp.max(jax.vmap(difference)(sizes))


@public
def require_exact(
    optimizer: optax.GradientTransformation,
    model: AbstractModel,
    problem: AbstractProblem,
    moved: AbstractModel | None = None,
) -> None:
    """Refuses an optimizer that does not commute with the reduction of this model, or for which that cannot be shown.

    The program of the optimizer is read, whatever its hyperparameters are and at whatever step they act; it is not tried out.

    **Args:** `model`, the start at full size, or a reduced one; `moved`, for a `DeepLinear` its reduced form.

    **Raises:** `ValueError` that says what stands in the way.
    """
    for full, small, frames in _forms(model, problem, moved):
        reason = obstacle(optimizer, full, small, frames)
        if reason is None:
            continue
        message = (
            f"The width reduction is not exact for this optimizer as far as can be shown ({reason}): it has to commute with "
            "rotations of the weights at every step. Pass `reduce=False` to run it at full size."
        )
        if isinstance(model, (ReducedTwoLayer, ReducedDeepLinear)):
            message += " A core drawn at a given width has no full size to run at: start from `init.gaussian` instead."
        raise ValueError(message)


def _forms(model: AbstractModel, problem: AbstractProblem, moved: AbstractModel | None) -> list[tuple[Any, Any, list]]:
    """Shapes of the weights at full and at reduced size, and the frames between them; two guesses where there is no full size."""
    n, r, m = problem.num_inputs, problem.rank, problem.num_outputs

    def shapes(kind: Any, *sizes: tuple[int, int]) -> Any:
        return jax.eval_shape(lambda: kind(*(jnp.zeros(size, dtype) for size in sizes)))

    def deep(*sizes: tuple[int, int]) -> Any:
        return jax.eval_shape(lambda: DeepLinear([jnp.zeros(size, dtype) for size in sizes]))

    dtype = jax.tree.leaves(model)[0].dtype
    two, pad = [("inputs", "hidden"), ("outputs", "hidden")], int(problem.num_frozen > 0)
    if isinstance(model, SymmetricFactors):
        return [(model, shapes(SymmetricFactors, (n, min(model.width, n))), [("inputs", "hidden")])]
    if isinstance(model, TwoLayer):
        k = min(model.width, r + m)
        if problem.frame is None and k == model.width:
            return []  # what is moved is the network itself
        return [(model, shapes(TwoLayer, (r + pad, k + pad), (m, k + pad)), two)]
    if isinstance(model, ReducedTwoLayer):
        small = jax.eval_shape(to_state, model)
        (rows, k), pad = small.U.shape, int(model.frozen is not None)
        return [(shapes(TwoLayer, (rows + 2 * pad, h), (m, h)), small, two) for h in (k + 5, 16 * k + 7)]
    state = jax.eval_shape(to_state, moved if isinstance(model, DeepLinear) else model)
    frames = [(i, i + 1) for i in range(len(state.layers))]
    if isinstance(model, DeepLinear):
        return [(model, state, frames)]
    sizes = [W.shape for W in state.layers]
    last = len(sizes) - 1
    wide = [
        [(a + 2 if i == 0 else f * a + 5, b - 1 if i == last else f * b + 5) for i, (a, b) in enumerate(sizes)]
        for f in (1, 16)
    ]
    return [(deep(*layers), state, frames) for layers in wide]
