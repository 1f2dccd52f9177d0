"""The structured implicit solver for two-layer least squares: its steps do not shrink with the condition number of X^T X.

Radau IIA of order 5, solved for impulses. With `Z = [U1; V]` the flow is `Z' = A(q E) Z`, `A(L) = [[0, S L], [(S L)^T, 0]]`.
Newton's method on the stages Z_i is held back by the curvature of the manifold that stiff solutions live on, however good
its Jacobian. Given the impulses `Lam_i = h q E(Z_i)`, however, the stage equations

`Z_i = Z_0 + sum_j a_ij A(Lam_j) Z_j`

are linear in the stages and are solved exactly, and what is left, `h q E(Z_i(Lam)) = Lam_i`, has the Newton matrix
`I + h q A (x) T`, `T(R) = S U1 U1^T S R + S^2 R V V^T`, whose contraction depends neither on the step nor on the conditioning.
It falls apart into m matrices of size r by the eigenvectors of `V V^T`, and into a real and a complex one by those of A.

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

from ..problems import LeastSquares
from .roundoff import norm

# -- the tableau ---------------------------------------------------------------------------------------------------------

_ROOT6 = np.sqrt(6)
_NODES = np.array([(4 - _ROOT6) / 10, (4 + _ROOT6) / 10, 1.0])
_TABLEAU = np.array(
    [
        [(88 - 7 * _ROOT6) / 360, (296 - 169 * _ROOT6) / 1800, (-2 + 3 * _ROOT6) / 225],
        [(296 + 169 * _ROOT6) / 1800, (88 + 7 * _ROOT6) / 360, (-2 - 3 * _ROOT6) / 225],
        [(16 - _ROOT6) / 36, (16 + _ROOT6) / 36, 1 / 9],
    ]
)
_ERROR = np.array([-13 - 7 * _ROOT6, -13 + 7 * _ROOT6, -1.0]) / 3


def _transformation() -> tuple[np.ndarray, np.ndarray, float, complex]:
    """T, its inverse, and the real and complex eigenvalue of the inverse tableau: `A^{-1} T = T blockdiag(real, complex)`."""
    values, vectors = np.linalg.eig(np.linalg.inv(_TABLEAU))
    real, pair = int(np.argmin(np.abs(values.imag))), int(np.argmax(values.imag))
    T = np.stack([vectors[:, real].real, vectors[:, pair].real, -vectors[:, pair].imag], axis=1)
    return T, np.linalg.inv(T), float(values[real].real), complex(values[pair])


_T, _T_INVERSE, _REAL, _COMPLEX = _transformation()

MAX_ITERATIONS = 12
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


# -- one step as functions of its parameters -----------------------------------------------------------------------------


class _Step(NamedTuple):
    """What a step depends on: the state before it, the data, and tau = h q."""

    U: Float[Array, "r k"]
    V: Float[Array, "m k"]
    s: Float[Array, " r"]
    Y: Float[Array, "r m"]
    tau: Float[Array, ""]

    def error(self, U: Array, V: Array) -> Array:
        """E at a state, or at several."""
        return self.Y - self.s[:, None] * (U @ jnp.swapaxes(V, -1, -2))

    def force(self, U: Array, V: Array) -> tuple[Array, Array]:
        """h times the velocity at a state, or at several."""
        SE = self.s[:, None] * self.error(U, V)
        return self.tau * (SE @ V), self.tau * (jnp.swapaxes(SE, -1, -2) @ U)


def _combine(matrix: np.ndarray, stages: Array) -> Array:
    """`sum_j matrix_ij stages_j` over the leading axis."""
    matrix = jnp.asarray(matrix, stages.dtype)
    return jnp.tensordot(matrix, stages, axes=1, precision="highest")


def _transformed_solve(solve_real: Callable, solve_complex: Callable, residual: Array) -> Array:
    """`(I + tau A (x) N)^{-1}` on three stages, from its solves with `I + tau N / eigenvalue`, real and complex."""
    w1, w2, w3 = _combine(_T_INVERSE, residual)
    pair = solve_complex(jax.lax.complex(w2, w3))
    return _combine(_T, jnp.stack([solve_real(w1), pair.real, pair.imag]))


def small_solve(matrix: Array, right: Array) -> Array:
    """`matrix^{-1} right` by LU, 16 columns at a time.

    With more, LAPACK's triangular solve wakes threads of its own, which fight with those of the batch for the cores.
    """
    lu, pivots = jax.scipy.linalg.lu_factor(jax.lax.stop_gradient(matrix))

    def solve(trans):
        def apply(_, right):
            size, columns = right.shape
            blocks = -(-columns // 16)
            padded = jnp.pad(right, ((0, 0), (0, 16 * blocks - columns)))
            parts = padded.reshape(size, blocks, 16).swapaxes(0, 1)
            batch = jnp.broadcast_to(lu, (blocks, *lu.shape)), jnp.broadcast_to(pivots, (blocks, *pivots.shape))
            solved = jax.scipy.linalg.lu_solve(batch, parts, trans)
            return solved.swapaxes(0, 1).reshape(size, 16 * blocks)[:, :columns]

        return apply

    return jax.lax.custom_linear_solve(lambda x: matrix @ x, right, solve(0), solve(1))


class _Impulses:
    """The step with the impulses `Lam` (3, r, m) as unknowns, for k >= min(r, m): E can vanish."""

    strictness = 0.03
    caution = 1.0

    @staticmethod
    def stages(x: Array, step: _Step) -> tuple[Array, Array]:
        """The stages (3, r, k) and (3, m, k) that belong to the impulses: one linear system of size 3m, or 3r if smaller."""
        r, m = step.Y.shape
        if m <= r:
            return _Impulses._linear_stages(step.s[:, None] * x, step.U, step.V)
        V, U = _Impulses._linear_stages(jnp.swapaxes(step.s[:, None] * x, -1, -2), step.V, step.U)
        return U, V

    @staticmethod
    def _linear_stages(B: Array, U: Array, V: Array) -> tuple[Array, Array]:
        """`U_i = U + sum_j a_ij B_j V_j`, `V_i = V + sum_j a_ij B_j^T U_j`, by eliminating the U_i."""
        A = jnp.asarray(_TABLEAU, V.dtype)
        m, k = V.shape
        BT = jnp.swapaxes(B, -1, -2)
        blocks = jnp.einsum("ij,jl,jlmn->imln", A, A, BT[:, None] @ B[None])
        matrix = jnp.eye(3 * m, dtype=V.dtype) - blocks.reshape(3 * m, 3 * m)
        right = V + jnp.tensordot(A, BT @ U, axes=1)
        Vs = small_solve(matrix, right.reshape(3 * m, k)).reshape(3, m, k)
        return U + jnp.tensordot(A, B @ Vs, axes=1), Vs

    @staticmethod
    def carried(U: Array, V: Array) -> Array:
        """What goes from step to step: nothing."""
        return jnp.zeros((), U.dtype)

    @staticmethod
    def end(x: Array, Us: Array, Vs: Array, step: _Step, carried: Array) -> tuple[Array, Array, Array, Array]:
        """The state after the step, with its imbalance, and whether that worked.

        Given the impulses the step is linear, `Z_1 = R Z_0`, and R is nearly in O(r, m): its nearby member of that group (the
        polar factor for the form J, by products alone) keeps the imbalance to round-off and moves Z as little as the step errs.
        """
        del Us, Vs
        r, m = step.Y.shape
        one = jnp.eye(r + m, dtype=x.dtype)
        R = jnp.concatenate([part[-1] for part in _Impulses.stages(x, step._replace(U=one[:r], V=one[r:]))])
        Q, defect = pseudo_orthogonal(R, r)
        U, V = Q[:r, :r] @ step.U + Q[:r, r:] @ step.V, Q[r:, :r] @ step.U + Q[r:, r:] @ step.V
        return U, V, defect < 1e-2, carried

    @staticmethod
    def residual(x: Array, Us: Array, Vs: Array, step: _Step) -> Array:
        return step.tau * step.error(Us, Vs) - x

    @staticmethod
    def factor(step: _Step):
        """Factors of `I + tau (M + g_j S^2) / eigenvalue` for each eigenvalue g_j of `V V^T`, `M = S U U^T S`."""
        g, Q = jnp.linalg.eigh(step.V @ step.V.T)
        SU = step.s[:, None] * step.U
        # A rounded-off negative g is a zero one.
        N = SU @ SU.T + jnp.maximum(g, 0)[:, None, None] * jnp.diag(step.s**2)
        one = jnp.eye(N.shape[-1], dtype=N.dtype)

        def scaled(tau):
            # Symmetric diagonal scaling: rows of N differ by the condition number of X^T X.
            diagonal = jnp.sqrt(1 + jnp.abs(tau) * jnp.diagonal(N, axis1=-2, axis2=-1))
            diagonal = diagonal.astype(tau.dtype)
            shifted = one.astype(tau.dtype) + tau * N.astype(tau.dtype)
            return shifted / (diagonal[:, :, None] * diagonal[:, None, :]), diagonal

        real, real_scale = scaled(step.tau / _REAL)
        factor = jnp.linalg.cholesky(real)
        # Where that fails the step is thrown away, but derivatives pass through here.
        factor = jnp.where(jnp.isfinite(factor), factor, one)
        kind = jax.lax.complex(g, g).dtype
        pair, pair_scale = scaled(step.tau.astype(kind) / jnp.asarray(_COMPLEX, kind))
        return Q, (factor, real_scale), (jax.scipy.linalg.lu_factor(pair), pair_scale)

    @staticmethod
    def _solve_real(factors, right: Array) -> Array:
        Q, (L, scale), _ = factors
        columns = (right @ Q).T / scale
        solved = jax.scipy.linalg.cho_solve((L, True), columns[..., None])[..., 0]
        return (solved / scale).T @ Q.T

    @staticmethod
    def _solve_complex(factors, right: Array) -> Array:
        Q, _, (lu, scale) = factors
        Q = Q.astype(right.dtype)
        columns = (right @ Q).T / scale
        solved = jax.scipy.linalg.lu_solve(lu, columns[..., None])[..., 0]
        return (solved / scale).T @ Q.T

    @staticmethod
    def newton(factors, residual: Array) -> Array:
        return _transformed_solve(
            lambda w: _Impulses._solve_real(factors, w), lambda w: _Impulses._solve_complex(factors, w), residual
        )

    @staticmethod
    def filter(factors, step: _Step, bU: Array, bV: Array) -> tuple[Array, Array]:
        """`(I + tau K^T K / real eigenvalue)^{-1} b` with `K b = S (b_U V^T + U b_V^T)`."""
        seen = step.s[:, None] * (bU @ step.V.T + step.U @ bV.T)
        solved = step.s[:, None] * _Impulses._solve_real(factors, seen)
        tau = step.tau / _REAL
        return bU - tau * (solved @ step.V), bV - tau * (solved.T @ step.U)

    @staticmethod
    def guess(slopes: Array, tau: Array, step: _Step) -> Array:
        return tau * slopes

    @staticmethod
    def slopes(x: Array, step: _Step) -> Array:
        return x / step.tau


class _Stages:
    """The step with the stages (3, r + m, k) themselves as unknowns and the whole Jacobian, for k < min(r, m).

    E does not vanish there, so impulses grow with the step. Such a network is narrow, and its Jacobian small.
    """

    strictness = 0.001
    # Nothing caps the steps of narrow networks: measured errors are that much larger at the same estimate.
    caution = 6.0

    @staticmethod
    def stages(x: Array, step: _Step) -> tuple[Array, Array]:
        r = step.U.shape[0]
        return x[:, :r], x[:, r:]

    @staticmethod
    def carried(U: Array, V: Array) -> Array:
        """What goes from step to step: the imbalance of the start."""
        return imbalance(U, V)

    @staticmethod
    def end(x: Array, Us: Array, Vs: Array, step: _Step, carried: Array) -> tuple[Array, Array, Array, Array]:
        """The state after the step, projected onto the surface of the imbalance, and whether it got there."""
        del x, step
        U, V = Us[-1], Vs[-1]
        for _ in range(3):
            # Each squares the defect.
            U, V = project(U, V, carried)
        defect = norm(jax.lax.stop_gradient(imbalance(U, V) - carried)) / jax.lax.stop_gradient(norm(U, V) ** 2)
        return U, V, defect < 1e3 * jnp.finfo(U.dtype).eps, carried

    @staticmethod
    def residual(x: Array, Us: Array, Vs: Array, step: _Step) -> Array:
        forces = jnp.concatenate(step.force(Us, Vs), axis=1)
        return jnp.concatenate([step.U, step.V]) + _combine(_TABLEAU, forces) - x

    @staticmethod
    def jacobian(step: _Step) -> Array:
        """The Jacobian of `step.force`, of size (r + m) k."""
        U, V = step.U, step.V
        r, shape = U.shape[0], (U.shape[0] + V.shape[0], U.shape[1])

        def force(z):
            Z = z.reshape(shape)
            return jnp.concatenate(step.force(Z[:r], Z[r:])).ravel()

        return jax.jacfwd(force)(jnp.concatenate([U, V]).ravel())

    @staticmethod
    def factor(step: _Step):
        J = _Stages.jacobian(step)
        one = jnp.eye(J.shape[0], dtype=J.dtype)
        factors = []
        for eigenvalue in (_REAL, _COMPLEX):
            kind = J.dtype if eigenvalue is _REAL else jax.lax.complex(J, J).dtype
            matrix = one.astype(kind) - J.astype(kind) / jnp.asarray(eigenvalue, kind)
            factors.append(jax.scipy.linalg.lu_factor(matrix))
        return tuple(factors)

    @staticmethod
    def newton(factors, residual: Array) -> Array:
        def solve(lu):
            return lambda w: jax.scipy.linalg.lu_solve(lu, w.ravel()).reshape(w.shape)

        return _transformed_solve(solve(factors[0]), solve(factors[1]), residual)

    @staticmethod
    def filter(factors, step: _Step, bU: Array, bV: Array) -> tuple[Array, Array]:
        b = jnp.concatenate([bU, bV])
        b = jax.scipy.linalg.lu_solve(factors[0], b.ravel()).reshape(b.shape)
        return b[: bU.shape[0]], b[bU.shape[0] :]

    @staticmethod
    def guess(slopes: Array, tau: Array, step: _Step) -> Array:
        return jnp.concatenate([step.U, step.V]) + tau * _combine(_TABLEAU, slopes)

    @staticmethod
    def slopes(x: Array, step: _Step) -> Array:
        Us, Vs = _Stages.stages(x, step)
        return jnp.concatenate(step.force(Us, Vs), axis=1) / step.tau


def _iterate(form, step: _Step, factors, guess: Array, target: Array, contraction: Array):
    """Newton's method with frozen factors: unknowns, whether they converged, and the contraction that was seen.

    Stops when the distance still to go, `theta/(1 - theta) |dZ|`, is below `target`; gives up when it cannot get there.
    """

    def go_on(carry):
        _, _, _, _, iterations, done, failed = carry
        return ~done & ~failed & (iterations < MAX_ITERATIONS)

    def improve(carry):
        x, (Us, Vs), before, theta, iterations, _, _ = carry
        x = x + form.newton(factors, form.residual(x, Us, Vs, step))
        new = form.stages(x, step)
        size = norm(new[0] - Us, new[1] - Vs) / 3**0.5
        first = iterations == 0
        theta = jnp.where(first, jnp.maximum(theta, 1e-3) ** 0.8, size / jnp.where(before > 0, before, 1))
        left = theta / jnp.where(theta < 1, 1 - theta, 1) * size
        done = (theta < 1) & (left <= target)
        remaining = theta ** (MAX_ITERATIONS - 1 - iterations).astype(theta.dtype) * left
        failed = ~jnp.isfinite(size) | (~first & ((theta >= 1) | (remaining > target)) & ~done)
        return x, new, size, theta, iterations + 1, done, failed

    no = jnp.zeros((), bool)
    start = (guess, form.stages(guess, step), jnp.zeros_like(target), contraction, jnp.zeros((), jnp.int32), no, no)
    x, _, _, theta, _, done, _ = jax.lax.while_loop(go_on, improve, start)
    return x, done, theta


def _solution(form):
    """The unknowns as a differentiable function of the step: the iteration once, its derivative by the implicit function
    theorem at the end of it."""

    @jax.custom_jvp
    def solution(step: _Step, converged: Array, factors) -> Array:
        return converged

    @solution.defjvp
    def derivative(primals, tangents):
        (step, converged, factors), (step_dot, _, _) = primals, tangents

        def residual(x, step):
            return form.residual(x, *form.stages(x, step), step)

        _, right = jax.jvp(lambda step: residual(converged, step), (step,), (step_dot,))
        _, forward = jax.linearize(lambda x: residual(x, step), converged)
        preconditioner = lambda b: form.newton(factors, b)  # noqa: E731
        dot = _linear_solve(lambda v: -forward(v), preconditioner, right)
        return converged, dot

    return solution


def _linear_solve(operator: Callable, preconditioner: Callable, right: Array) -> Array:
    """Solves a linear system by the iteration that the step's own Newton method is, to round-off; works in reverse mode."""
    eps = jnp.finfo(right.dtype).eps

    def refine(operator, preconditioner, right):
        def go_on(carry):
            _, size, before, total, iterations = carry
            # Ends at round-off: 4 eps, or where corrections no longer shrink, close to it.
            stalled = (size > before / 2) & (size <= 1e3 * eps * total)
            return (size > 4 * eps * total) & ~stalled & (iterations < 100)

        def improve(carry):
            x, size, _, _, iterations = carry
            correction = preconditioner(right - operator(x))
            x = x + correction
            return x, norm(correction), size, norm(x), iterations + 1

        one = jnp.ones((), right.dtype)
        return jax.lax.while_loop(go_on, improve, (jnp.zeros_like(right), one, 4 * one, one, 0))[0]

    def transpose_solve(transposed, right):
        (backward,) = (jax.linear_transpose(preconditioner, right),)
        return refine(transposed, lambda b: backward(b)[0], right)

    return jax.lax.custom_linear_solve(
        operator, right, solve=lambda f, b: refine(f, preconditioner, b), transpose_solve=transpose_solve
    )


_solve_impulses, _solve_stages = _solution(_Impulses), _solution(_Stages)


def is_dense(U: Float[Array, "r k"], V: Float[Array, "m k"]) -> bool:
    """Whether the network is so narrow that its error cannot vanish: k < min(r, m)."""
    return U.shape[1] < min(U.shape[0], V.shape[0])


def dense_jacobian(
    U: Float[Array, "r k"], V: Float[Array, "m k"], problem: LeastSquares
) -> tuple[Float[Array, "d d"], Float[Array, " d"]]:
    """The Jacobian of the velocity, of size d = (r + m) k, and the velocity."""
    step = _Step(U, V, problem.singular_values, problem.Ytil, problem.scale)
    return _Stages.jacobian(step), jnp.concatenate(step.force(U, V)).ravel()


# -- the imbalance -------------------------------------------------------------------------------------------------------


def imbalance(U: Float[Array, "r k"], V: Float[Array, "m k"]) -> Float[Array, "k k"]:
    """D = U1^T U1 - V^T V in the reduced coordinates."""
    return U.T @ U - V.T @ V


@jax.custom_jvp
def _lyapunov(G: Float[Array, "k k"], R: Float[Array, "k k"]) -> Float[Array, "k k"]:
    """C with `C G + G C = R`, for positive semidefinite G; zero where G is."""
    return _lyapunov_solve(*jnp.linalg.eigh(G), R)


def _lyapunov_solve(g: Array, Q: Array, R: Array) -> Array:
    sums = jnp.maximum(g[:, None] + g[None, :], 0)
    least = 8 * g.shape[0] ** 0.5 * jnp.finfo(g.dtype).eps * jnp.max(sums)
    inverse = jnp.where(sums > least, 1 / jnp.where(sums > least, sums, 1), 0)
    return Q @ (inverse * (Q.T @ R @ Q)) @ Q.T


@_lyapunov.defjvp
def _lyapunov_jvp(primals, tangents):
    (G, R), (dG, dR) = primals, tangents
    spectrum = jnp.linalg.eigh(G)
    C = _lyapunov_solve(*spectrum, R)
    return C, _lyapunov_solve(*spectrum, dR - C @ dG - dG @ C)


def pseudo_orthogonal(R: Float[Array, "p p"], r: int) -> tuple[Float[Array, "p p"], Float[Array, ""]]:
    """The member Q of O(r, p - r), `Q^T J Q = J`, that belongs to a nearby R, and the norm of `J R^T J R - I`.

    Newton and Schulz' iteration `Q <- Q (3 I - J Q^T J Q)/2`, four times: it converges quadratically, from 1e-2 to round-off.
    """
    signs = jnp.where(jnp.arange(R.shape[0]) < r, 1.0, -1.0).astype(R.dtype)
    one = jnp.eye(R.shape[0], dtype=R.dtype)

    def defect(Q):
        return signs[:, None] * (Q.T @ (signs[:, None] * Q)) - one

    X = defect(R)
    first = jax.lax.stop_gradient(norm(X))
    Q = R - R @ X / 2
    for _ in range(3):
        Q = Q - Q @ defect(Q) / 2
    return Q, first


def project(
    U: Float[Array, "r k"], V: Float[Array, "m k"], D: Float[Array, "k k"]
) -> tuple[Float[Array, "r k"], Float[Array, "m k"]]:
    """The nearby factors with imbalance D: `dZ = J Z C`, `C G + G C = D - (U^T U - V^T V)`, `G = Z^T Z`.

    To first order `U V^T` does not change.
    """
    C = _lyapunov(U.T @ U + V.T @ V, D - imbalance(U, V))
    return U + U @ C, V - V @ C


# -- the solver ----------------------------------------------------------------------------------------------------------


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
        weights = _lagrange(np.concatenate([[0.0], _NODES]), at[None])[0].astype(self.Us.dtype)
        return with_weights(self.y, jnp.tensordot(weights, self.Us, axes=1), jnp.tensordot(weights, self.Vs, axes=1))


def _lagrange(nodes: np.ndarray, at: Array) -> Array:
    """Values at `at` of the Lagrange polynomials of `nodes`, shape (len(at), len(nodes))."""
    columns = []
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

    A diffrax solver for the flow of a `TwoLayer` on a restricted problem, or of a reduced one, under least squares;
    `gradient_flow(..., solver="radau")` is the usual way in. The state is the network's moving weights, `args` a tuple that
    begins with the problem.

    **Args:** `tolerance`, the norm-wise relative tolerance of a step; it also says when the inner iteration ends. Use with
    `NormController(tolerance)`, which caps the step where E is not yet small.

    **Notes:** the cost of a step is m factorizations of size r, an eigenvalue problem of size k = min(h, r + m), and no
    matrix larger than that; for k < min(r, m), where the error cannot vanish, one of size (r + m) k. Steps that do not
    converge have an infinite error estimate. What it is not for: a penalty on the imbalance acts on the columns of Z, so a step
    is no longer a member of O(r, m); a link function makes E a function of the samples; tied layers have a closed form where
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
            form, _ = _form(U, V)
            slope = form.slopes(step.error(U, V), step) if form is _Impulses else jnp.concatenate(step.force(U, V))
            slopes = jax.lax.stop_gradient(jnp.stack([slope] * 3))
            one = jnp.ones((), U.dtype)
            return _Memory(slopes, one, one, form.carried(U, V))

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        del terms, made_jump
        with jax.default_matmul_precision("highest"):
            return self._step(t1 - t0, y0, args[0], solver_state)

    def _step(self, length: Array, y0, problem: LeastSquares, memory: _Memory):
        U, V = weights_of(y0)
        length = length.astype(U.dtype)
        form, solution = _form(U, V)
        step = _step(U, V, problem, length)
        fixed, known = jax.lax.stop_gradient(step), jax.lax.stop_gradient(memory)
        size = norm(fixed.U, fixed.V)
        factors = form.factor(fixed)
        guess = form.guess(_combine_at(known, fixed, length), fixed.tau, fixed)
        resolution = 20 * jnp.finfo(U.dtype).eps * fixed.s[0] / fixed.s[-1]
        target = jnp.maximum(form.strictness * self.tolerance, resolution).astype(U.dtype) * size
        x, converged, contraction = _iterate(form, fixed, factors, guess, target, known.contraction)
        converged = converged & jnp.all(jnp.isfinite(x))
        # A step that did not converge is thrown away; its unknowns must not reach derivatives.
        x = jnp.where(converged, x, form.guess(jnp.zeros_like(x), fixed.tau, fixed))
        x = solution(step, x, factors)
        Us, Vs = form.stages(x, step)
        U1, V1, conserved, carried = form.end(x, Us, Vs, step, memory.carried)
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

    def _error(self, form, step: _Step, factors, stages, size: Array) -> tuple[Array, Array]:
        """The filtered difference to an embedded method of order 3; filtered once more where it is too large."""
        Us, Vs = stages
        weights = jnp.asarray(_ERROR, Us.dtype)
        differences = jnp.tensordot(weights, Us - step.U, axes=1), jnp.tensordot(weights, Vs - step.V, axes=1)

        def estimate(U, V):
            total = (a + b for a, b in zip(step.force(U, V), differences, strict=True))
            return tuple(part / _REAL for part in form.filter(factors, step, *total))

        once = estimate(step.U, step.V)
        twice = estimate(step.U + once[0], step.V + once[1])
        again = (norm(*once) > self.tolerance * size) & jnp.isfinite(norm(*twice))
        return tuple(jnp.where(again, b, a) for a, b in zip(once, twice, strict=True))


def _step(U: Array, V: Array, problem: LeastSquares, length: Array) -> _Step:
    return _Step(U, V, problem.singular_values, problem.Ytil, length * problem.scale)


def _form(U: Array, V: Array):
    if is_dense(U, V):
        return _Stages, _solve_stages
    return _Impulses, _solve_impulses


def _combine_at(memory: _Memory, step: _Step, length: Array) -> Array:
    """The last step's slopes, extrapolated to the stages of this one."""
    # Far extrapolation (after a step cut short) would be worse than none.
    at = 1 + jnp.asarray(_NODES, length.dtype) * jnp.minimum(length / memory.length, _FARTHEST)
    return jnp.tensordot(_lagrange(_NODES, at).astype(length.dtype), memory.slopes, axes=1)
