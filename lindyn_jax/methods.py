"""Methods of integration: each says what it refuses, and builds the solver and the step sizes that belong together."""

import functools
from abc import abstractmethod
from typing import ClassVar

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from . import _checks
from .models import AbstractModel
from .problems import AbstractProblem
from .solvers import (
    ImpulseRadau,
    LieRK4,
    NormController,
    RelativeController,
    ScaledChord,
    group_reach,
    growth_reach,
    impulse_reach,
    internal_tolerance,
)

# Up to this many impulses, r m, steps under a loss other than least squares factor a dense matrix of that size. Of more, steps by
# GMRES would cost more than the explicit ones of completions down to losses of 1e-6 (benchmarks/results/krylov.md).
MOST_IMPULSES = 1000

Built = tuple[Float[Array, ""], diffrax.AbstractSolver, diffrax.AbstractStepSizeController]


class AbstractMethod(eqx.Module):
    """A way to integrate a flow: what it cannot move, and the solver with its step sizes."""

    name: ClassVar[str]
    moves: ClassVar[str]
    takes_any: ClassVar[bool] = False

    @property
    @abstractmethod
    def is_implicit(self) -> bool:
        """Whether steps solve equations."""

    @abstractmethod
    def refuses(self, model: AbstractModel, problem: AbstractProblem, reduce: bool = True) -> str | None:
        """Why this method cannot move the model, or `None` if it can."""

    @abstractmethod
    def build(self, rtol: Float[Array, ""], atol: Float[Array, ""], ts: Float[Array, " T"] | None) -> Built:
        """The tolerance of a step, the solver and the step sizes for the observation times ts."""


class Standard(AbstractMethod):
    """A solver of diffrax, for any model: errors relative to the rows of the weights."""

    solver: diffrax.AbstractSolver
    name = "diffrax"
    moves = "any model"
    takes_any = True

    @property
    def is_implicit(self) -> bool:
        return isinstance(self.solver, diffrax.AbstractImplicitSolver)

    def refuses(self, model: AbstractModel, problem: AbstractProblem, reduce: bool = True) -> str | None:
        return None

    def build(self, rtol: Float[Array, ""], atol: Float[Array, ""], ts: Float[Array, " T"] | None) -> Built:
        solver = self.solver
        # A root finder that takes its tolerances from the steps gets those of the steps here.
        from_steps = diffrax.with_stepsize_controller_tols(diffrax.VeryChord)()
        if getattr(getattr(solver, "root_finder", None), "rtol", None) is from_steps.rtol:
            solver = eqx.tree_at(lambda s: s.root_finder, solver, ScaledChord(rtol, atol))
        return rtol, solver, RelativeController(rtol=rtol, atol=atol, reach=growth_reach(self.solver, rtol), ts=ts)


class Group(AbstractMethod):
    """`solvers.LieRK4`: every step is an element of O(r, m)."""

    name = "lie"
    moves = "two-layer models in reduced form"

    @property
    def is_implicit(self) -> bool:
        return False

    def refuses(self, model: AbstractModel, problem: AbstractProblem, reduce: bool = True) -> str | None:
        if problem.penalty is not None:
            return f"the problem {problem.penalty.beyond}"
        if len(model.parts(problem)[0].factors) != 2:
            return f"the model is a {type(model).__name__}"
        return None if reduce or model.is_reduced else "`reduce` is False"

    def build(self, rtol: Float[Array, ""], atol: Float[Array, ""], ts: Float[Array, " T"] | None) -> Built:
        return rtol, LieRK4(), NormController(rtol, ts, group_reach(rtol))


class Impulse(Group):
    """`solvers.ImpulseRadau`: implicit, with the impulses of the error as its only unknowns."""

    tolerance: Float[Array, ""] | float | None = None
    name = "radau"
    moves = "two-layer models in reduced form"

    @property
    def is_implicit(self) -> bool:
        return True

    def refuses(self, model: AbstractModel, problem: AbstractProblem, reduce: bool = True) -> str | None:
        Psi1 = problem.restrict_outputs()[1]
        impulses = problem.rank * (problem.num_outputs if Psi1 is None else Psi1.shape[1])
        if not problem.is_quadratic and impulses > MOST_IMPULSES:
            kind = type(problem).__name__
            return f"the loss of the {kind} has {impulses} impulses, more than the {MOST_IMPULSES} of a dense Newton matrix"
        return super().refuses(model, problem, reduce)

    def build(self, rtol: Float[Array, ""], atol: Float[Array, ""], ts: Float[Array, " T"] | None) -> Built:
        given = internal_tolerance(rtol) if self.tolerance is None else self.tolerance
        tolerance = jnp.asarray(given, rtol.dtype)
        return tolerance, ImpulseRadau(tolerance), NormController(tolerance, ts, impulse_reach(tolerance))


METHODS: dict[str, AbstractMethod] = {
    "tsit5": Standard(diffrax.Tsit5()),
    "dopri8": Standard(diffrax.Dopri8()),
    "kvaerno5": Standard(diffrax.Kvaerno5()),
    "radau": Impulse(),
    "lie": Group(),
}


@functools.singledispatch
def as_method(solver: diffrax.AbstractSolver | str) -> AbstractMethod:
    """The method of a name or a solver.

    **Raises:** `ValueError` for a name that is none.
    """
    _checks.check_choice(solver, "solver", ("auto", *METHODS))
    return METHODS[str(solver)]


as_method.register(diffrax.AbstractSolver, Standard)
as_method.register(ImpulseRadau, lambda solver: Impulse(solver.tolerance))
as_method.register(LieRK4, lambda solver: METHODS["lie"])
