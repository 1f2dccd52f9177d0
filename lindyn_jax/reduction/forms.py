"""The smallest exact form of each kind of network."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .. import _checks
from .._linalg import is_deficient, row_factor
from .._norms import all_finite, norm
from ..models import (
    AbstractModel,
    Bases,
    DeepLinear,
    Momentum,
    Outputs,
    Polar,
    Reduction,
    Rest,
    SymmetricFactors,
    TwoLayer,
)
from ..problems import AbstractProblem
from .subspaces import check_subspaces, find_subspaces, project


@functools.singledispatch
def reduced_form(model: AbstractModel, problem: AbstractProblem, subspaces: tuple | None) -> Reduction:
    """The smallest form of each kind of network that has one; `subspaces` are those of deep ones, found here if `None`."""
    raise ValueError(
        "Argument `model` must be a TwoLayer, a SymmetricFactors or a DeepLinear to be reduced, "
        f"but is a {type(model).__name__}."
    )


@reduced_form.register
def _(model: TwoLayer, problem, subspaces) -> Reduction:
    U1, V, Q, rows, frozen, size = _two_layer_parts(model, problem)
    V, outputs, behind = Outputs.split(problem, V)
    rest = (None if size is None else Rest.of(size), behind)
    bases = Bases(problem.frame, (Q,), (rows, None))
    options = {"rest": rest, "bases": bases, "coordinates": problem.coordinates, "outputs": outputs}
    return Reduction(TwoLayer(U1, V), model.width, problem.num_frozen, frozen, **options)


@eqx.filter_jit
def _two_layer_parts(
    model: TwoLayer, problem: AbstractProblem
) -> tuple[Array, Array, Array | None, Array | None, Array | None, Array | None]:
    """U1, V and the basis Q in which they are smallest; the frozen rows, the same in Q, and their norm."""
    r, m = problem.rank, problem.num_outputs
    U1, V, Q = problem.to_data(model.U), model.V, None
    if model.width > r + m:
        L, Q = row_factor(jnp.concatenate([V, U1]))
        V, U1 = L[:m], L[m:]
    if problem.num_frozen == 0:
        return U1, V, Q, None, None, None
    rows = model.U - problem.from_data(problem.to_data(model.U))
    seen = rows if Q is None else rows @ Q
    frozen = seen if seen.shape[0] <= seen.shape[1] else row_factor(seen.T)[0].T
    return U1, V, Q, rows, frozen, norm(rows)


@reduced_form.register
def _(model: SymmetricFactors, problem, subspaces) -> Reduction:
    core, Q = model, None
    if model.width > model.U.shape[0]:
        L, Q = row_factor(model.U)
        core = SymmetricFactors(L)
    return Reduction(core, model.width, bases=Bases(None, (Q,), (None, None)))


@reduced_form.register
def _(model: DeepLinear, problem, subspaces) -> Reduction:
    found = subspaces is None
    subspaces = find_subspaces(model, problem) if found else tuple(subspaces)
    check_subspaces(model, subspaces, found)
    reduced = project(model, problem, subspaces, not found)
    known = not found and not _checks.is_traced(*reduced.core.layers)
    if known and bool(all_finite(model) & ~all_finite(reduced.core)):
        raise ValueError(
            "The subspaces are not invariant under this network: find them from its own start with `find_subspaces`."
        )
    return reduced


def refuse_dependent_rows(model: AbstractModel, problem: AbstractProblem) -> None:
    """Refuses derivatives of a start whose moving rows are linearly dependent, where its numbers are known; else they are NaN."""
    if not _checks.is_traced(*jax.tree.leaves((model, problem))) or not model.is_reducible(problem):
        return
    # What is differentiated outside of jit has known numbers below its tangents.
    model, problem = jax.tree.map(lambda x: jax.lax.stop_gradient(x) if eqx.is_array(x) else x, (model, problem))
    if _checks.is_traced(*jax.tree.leaves((model, problem))):
        return
    L = _factored_rows(reduced_form(model, problem, None))
    if L is not None and bool(is_deficient(L)):
        raise ValueError(
            "The derivative with respect to a start whose moving rows are linearly dependent (balanced, zero or low-rank "
            "starts) does not pass through the width reduction: start from a reduced one (`reduce`), or pass `reduce=False` to "
            "`gradient_flow` or `gradient_descent`."
        )


@functools.singledispatch
def _factored_rows(reduced: Any) -> Array | None:
    """L of `Z = L Q^T` where the width was factored out."""
    return None


@_factored_rows.register
def _(reduced: Reduction) -> Array | None:
    hidden: list[Any] = [] if reduced.bases is None else list(reduced.bases.hidden)
    if len(hidden) != 1 or hidden[0] is None:
        return None
    first, last = reduced.layers
    return jnp.concatenate([last.T, first])[: hidden[0].shape[1]]


for _kind in (Momentum, Polar):
    _factored_rows.register(_kind, lambda reduced: _factored_rows(reduced.network))


@reduced_form.register
def _(model: Momentum, problem, subspaces) -> Any:
    return Momentum(reduced_form(model.network, problem, subspaces), model.epsilon)


@reduced_form.register
def _(model: Polar, problem, subspaces) -> Any:
    return Polar(reduced_form(model.network, problem, subspaces), model.smoothing)
