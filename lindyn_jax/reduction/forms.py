"""The smallest exact form of each kind of network."""

import functools
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from .._linalg import row_factor
from .._norms import norm
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
        L, Q = row_factor(jnp.concatenate([V, U1]), True)
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
        L, Q = row_factor(model.U, True)
        core = SymmetricFactors(L)
    return Reduction(core, model.width, bases=Bases(None, (Q,), (None, None)))


@reduced_form.register
def _(model: DeepLinear, problem, subspaces) -> Reduction:
    found = subspaces is None
    subspaces = find_subspaces(model, problem) if found else tuple(subspaces)
    check_subspaces(model, subspaces, found)
    return project(model, problem, subspaces, not found)


@reduced_form.register
def _(model: Momentum, problem, subspaces) -> Any:
    return Momentum(reduced_form(model.network, problem, subspaces), model.epsilon)


@reduced_form.register
def _(model: Polar, problem, subspaces) -> Any:
    return Polar(reduced_form(model.network, problem, subspaces), model.smoothing)
