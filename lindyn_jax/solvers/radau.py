"""The structured implicit solver for two-layer networks: its steps do not shrink with the condition number of X^T X.

Radau IIA of order 5, solved for impulses. With `Z = [U1; V]` the flow is `Z' = A(q E) Z`, `A(L) = [[0, S L], [(S L)^T, 0]]`.
Newton's method on the stages Z_i is held back by the curvature of the manifold that stiff solutions live on, however good
its Jacobian. Given the impulses `Lam_i = h q E(Z_i)`, however, the stage equations

`Z_i = Z_0 + sum_j a_ij A(Lam_j) Z_j`

are linear in the stages and are solved exactly, and what is left, `h q E(Z_i(Lam)) = Lam_i`, has the Newton matrix
`I + h q A (x) T`, `T(R) = S U1 U1^T S R + S^2 R V V^T`, whose contraction depends neither on the step nor on the conditioning.
It falls apart into m matrices of size r by the eigenvectors of `V V^T`, and into a real and a complex one by those of A.

Under another loss the impulses are `-h G(Theta_i)`, with G the gradient in Theta: see `losses`.

The exact flow is `Z(t) = Phi(t) Z(0)` with Phi in O(r, m). Every step is made such a map, the nearest one, so the imbalance
moves by round-off only.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..problems import AbstractProblem
from ..problems.least_squares import is_least_squares
from .losses import LossImpulses
from .roundoff import norm
from .stages import ERROR, NODES, REAL, Impulses, Stages, is_dense, iterate, solution_of
from .steps import AnyStep, Leaves, LossStep, Step

_FARTHEST = 8.0


def internal_tolerance(rtol: Float[Array, ""]) -> Float[Array, ""]:
    """The tolerance that the error estimate is held to for a user's `rtol`: `0.1 rtol^{2/3}`.

    The estimate is that of a method of order 3, the step one of order 5: true errors are far smaller than the estimate.
    """
    return 0.1 * rtol ** (2 / 3)


def impulse_reach(tolerance: Float[Array, ""]) -> Float[Array, ""]:
    """The step z at which `exp(z)` is met to `z rtol`, at most 1, for the `rtol` that has this internal tolerance.

    The method errs by `(2! 3!)/(5! 6!) z^6` there.
    """
    rtol = (10 * tolerance) ** 1.5
    return jnp.minimum((7200 * rtol) ** 0.2, 1)


class StateInterpolation(diffrax.AbstractLocalInterpolation):
    """An interpolation between the two ends of a step by a function of time, `_state`."""

    def evaluate(self, t0, t1=None, left=True):
        """The state at `t0`, or its change from `t0` to `t1`."""
        del left
        start = self._state(t0)
        if t1 is None:
            return start
        return jax.tree.map(lambda a, b: b - a, start, self._state(t1))

    def _part(self, t):
        """Where in the step a time lies, from 0 to 1."""
        # In a batch, those who are at their end take steps of no length until the last one is, and derivatives see them.
        length = self.t1 - self.t0
        return (t - self.t0) / jnp.where(length > 0, length, 1)

    @abstractmethod
    def _state(self, t):
        """The state at a time within the step."""


class CollocationInterpolation(StateInterpolation):
    """The cubic through the state before a step and its three stages: of order 4 between steps, where it does not keep D."""

    t0: Float[Array, ""]
    t1: Float[Array, ""]
    y: eqx.Module
    Us: Float[Array, "4 r k"]
    Vs: Float[Array, "4 m k"]

    def _state(self, t):
        at = self._part(t)
        weights = _lagrange(np.concatenate([[0.0], NODES]), at[None])[0].astype(self.Us.dtype)
        return with_weights(self.y, jnp.tensordot(weights, self.Us, axes=1), jnp.tensordot(weights, self.Vs, axes=1))


def _lagrange(nodes: np.ndarray, at: Array) -> Array:
    """Values at `at` of the Lagrange polynomials of `nodes`, shape (len(at), len(nodes))."""
    columns, nodes = [], nodes.astype(at.dtype)
    for i, node in enumerate(nodes):
        others = np.delete(nodes, i)
        columns.append(jnp.prod((at[:, None] - others) / (node - others), axis=1))
    return jnp.stack(columns, axis=1)


def weights_of(y) -> tuple[Float[Array, "r k"], Float[Array, "m k"]]:
    """U and V of the state of a step."""
    core = getattr(y, "core", y)
    return core.U, core.V


def with_weights(y, U: Array, V: Array):
    """The state of a step, a two-layer network or one in reduced form, at other weights."""
    return y.with_core(eqx.tree_at(lambda core: (core.U, core.V), getattr(y, "core", y), (U, V)))


class _Memory(NamedTuple):
    """What one step hands to the next: slopes at its stages for the first guess, its length, its contraction, and what its form
    carries along (D(0), where that is needed)."""

    slopes: Array
    length: Array
    contraction: Array
    carried: Array


class ImpulseRadau(diffrax.AbstractAdaptiveSolver):
    r"""Radau IIA of order 5 by Newton's method on impulses, each step a member of O(r, m), which keeps the imbalance.

    A diffrax solver for the flow of a `TwoLayer` on a restricted problem, or of a reduced one, under any loss;
    `gradient_flow(..., solver="radau")` is the usual way in. The state is the network's moving weights, `args` a tuple that
    begins with the problem.

    **Args:** `tolerance`, the norm-wise relative tolerance of a step; it also says when the inner iteration ends. Use with
    `NormController(tolerance)`, which caps the step where E is not yet small.

    **Notes:** the cost of a step is m factorizations of size r, an eigenvalue problem of size k = min(h, r + m), and no
    matrix larger than that; for k < min(r, m), where the error cannot vanish, one of size (r + m) k; under other losses than
    least squares one of size r m. Steps that do not
    converge have an infinite error estimate. What it is not for: a penalty on the imbalance acts on the columns of Z, so a step
    is no longer a member of O(r, m); tied layers have a closed form where
    X = I, and are left to explicit solvers elsewhere. Derivatives: the unknowns of a step are differentiated by the implicit
    function theorem, in both modes; step lengths are not differentiated.

    **Source:** Hairer and Wanner, Solving Ordinary Differential Equations II, section IV.8 (tableau, error estimate); the
    iteration on impulses is this package's.
    """

    tolerance: Float[Array, ""]

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Callable] = CollocationInterpolation

    def order(self, terms) -> int:
        return 5

    def error_order(self, terms) -> int:
        return 4

    def func(self, terms, t0, y0, args):
        return terms.vf(t0, y0, args)

    def init(self, terms, t0, t1, y0, args) -> _Memory:
        with jax.default_matmul_precision("highest"):
            U, V = weights_of(y0)
            step = _step(U, V, args[0], jnp.ones((), U.dtype))
            form, _ = _form(U, V, args[0])
            slope = jnp.concatenate(step.force(U, V)) if form is Stages else form.slopes(step.error(U, V), step)
            slopes = jax.lax.stop_gradient(jnp.stack([slope] * 3))
            one = jnp.ones((), U.dtype)
            return _Memory(slopes, one, one, form.carried(U, V))

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        del terms, made_jump
        with jax.default_matmul_precision("highest"):
            return self._step(jnp.asarray(t1 - t0), y0, args[0], solver_state)

    def _step(self, length: Array, y0, problem: AbstractProblem, memory: _Memory):
        U, V = weights_of(y0)
        length = length.astype(U.dtype)
        form, solution = _form(U, V, problem)
        step = _step(U, V, problem, length)
        fixed, known = jax.lax.stop_gradient(step), jax.lax.stop_gradient(memory)
        size = norm(fixed.U, fixed.V)
        factors = form.factor(fixed)
        guess = form.guess(_combine_at(known, fixed, length), fixed.tau, fixed)
        resolution = 20 * jnp.finfo(U.dtype).eps * fixed.s[0] / fixed.s[-1]
        target = jnp.maximum(form.strictness * self.tolerance, resolution).astype(U.dtype) * size
        x, converged, contraction = iterate(form, fixed, factors, guess, target, known.contraction)
        converged = converged & jnp.all(jnp.isfinite(x))
        # A step that did not converge is thrown away; its unknowns must not reach derivatives.
        x = jnp.where(converged, x, form.guess(jnp.zeros_like(x), fixed.tau, fixed))
        x = solution(step, x, factors)
        (Us, Vs), (U1, V1), conserved, carried = form.end(x, step, memory.carried)
        error = self._error(form, fixed, factors, jax.lax.stop_gradient((Us, Vs)), size)
        failed = ~converged | ~conserved | ~jnp.all(jnp.isfinite(U1)) | ~jnp.all(jnp.isfinite(V1))
        U1, V1 = jnp.where(failed, U, U1), jnp.where(failed, V, V1)
        y1 = with_weights(y0, U1, V1)
        y_error = with_weights(y0, *(jnp.where(failed, jnp.inf, form.caution * part) for part in error))
        Us = jnp.concatenate([U[None], Us[:2], U1[None]])
        Vs = jnp.concatenate([V[None], Vs[:2], V1[None]])
        slopes = jax.lax.stop_gradient(form.slopes(x, fixed))
        memory = _Memory(slopes, jax.lax.stop_gradient(length), jax.lax.stop_gradient(contraction), carried)
        dense = {"y": y0, "Us": Us, "Vs": Vs}
        return y1, y_error, dense, memory, diffrax.RESULTS.successful

    def _error(self, form, step: AnyStep, factors, stages, size: Array) -> tuple[Array, Array]:
        """The filtered difference to an embedded method of order 3; filtered once more where it is too large."""
        Us, Vs = stages
        weights = jnp.asarray(ERROR, Us.dtype)
        differences = jnp.tensordot(weights, Us - step.U, axes=1), jnp.tensordot(weights, Vs - step.V, axes=1)

        def estimate(U, V):
            total = (a + b for a, b in zip(step.force(U, V), differences, strict=True))
            return tuple(part / REAL for part in form.filter(factors, step, *total))

        def again(once):
            twice = estimate(step.U + once[0], step.V + once[1])
            better = jnp.isfinite(norm(*twice))
            return tuple(jnp.where(better, b, a) for a, b in zip(once, twice, strict=True))

        once = estimate(step.U, step.V)
        return jax.lax.cond(norm(*once) > self.tolerance * size, again, lambda once: once, once)


_SOLUTIONS = {form: solution_of(form) for form in (Impulses, LossImpulses, Stages)}


def _step(U: Array, V: Array, problem: AbstractProblem, length: Array) -> AnyStep:
    if is_least_squares(problem):
        return Step(U, V, problem.singular_values, problem.Ytil, length * problem.scale)
    return LossStep(U, V, Leaves(problem), length)


def _form(U: Array, V: Array, problem: AbstractProblem):
    form = Stages if is_dense(U, V) else Impulses if is_least_squares(problem) else LossImpulses
    return form, _SOLUTIONS[form]


def dense_jacobian(
    U: Float[Array, "r k"], V: Float[Array, "m k"], problem: AbstractProblem
) -> tuple[Float[Array, "d d"], Float[Array, " d"]]:
    """The Jacobian of the velocity, of size d = (r + m) k, and the velocity."""
    step = _step(U, V, problem, jnp.ones((), U.dtype))
    return Stages.jacobian(step), jnp.concatenate(step.force(U, V)).ravel()


def _combine_at(memory: _Memory, step: AnyStep, length: Array) -> Array:
    """The last step's slopes, extrapolated to the stages of this one."""
    # Far extrapolation (after a step cut short) would be worse than none.
    at = 1 + jnp.asarray(NODES, length.dtype) * jnp.minimum(length / memory.length, _FARTHEST)
    return jnp.tensordot(_lagrange(NODES, at).astype(length.dtype), memory.slopes, axes=1)
