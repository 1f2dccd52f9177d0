"""The equations of one implicit step: their unknowns, Newton's method on them, and derivatives of their solution.

A form of a step says what is unknown: impulses, or the stages themselves for narrow networks. See `radau`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from .group import imbalance, project, pseudo_orthogonal
from .roundoff import norm
from .steps import AnyStep

# -- the tableau ---------------------------------------------------------------------------------------------------------

_ROOT6 = np.sqrt(6)
NODES = np.array([(4 - _ROOT6) / 10, (4 + _ROOT6) / 10, 1.0])
TABLEAU = np.array(
    [
        [(88 - 7 * _ROOT6) / 360, (296 - 169 * _ROOT6) / 1800, (-2 + 3 * _ROOT6) / 225],
        [(296 + 169 * _ROOT6) / 1800, (88 + 7 * _ROOT6) / 360, (-2 - 3 * _ROOT6) / 225],
        [(16 - _ROOT6) / 36, (16 + _ROOT6) / 36, 1 / 9],
    ]
)
ERROR = np.array([-13 - 7 * _ROOT6, -13 + 7 * _ROOT6, -1.0]) / 3


def _transformation() -> tuple[np.ndarray, np.ndarray, float, complex]:
    """T, its inverse, and the real and complex eigenvalue of the inverse tableau: `A^{-1} T = T blockdiag(real, complex)`."""
    values, vectors = np.linalg.eig(np.linalg.inv(TABLEAU))
    real, pair = int(np.argmin(np.abs(np.imag(values)))), int(np.argmax(np.imag(values)))
    first, second = vectors[:, real], vectors[:, pair]
    T = np.stack([np.real(first), np.real(second), -np.imag(second)], axis=1)
    return T, np.linalg.inv(T), float(values[real].real), complex(values[pair])


_T, _T_INVERSE, REAL, COMPLEX = _transformation()

MAX_ITERATIONS = 12


# -- one step as functions of its parameters -----------------------------------------------------------------------------


def _combine(matrix: np.ndarray, stages: Array) -> Array:
    """`sum_j matrix_ij stages_j` over the leading axis."""
    return jnp.tensordot(jnp.asarray(matrix, stages.dtype), stages, axes=1, precision="highest")


def transformed_solve(solve_real: Callable, solve_complex: Callable, residual: Array) -> Array:
    """`(I + tau A (x) N)^{-1}` on three stages, from its solves with `I + tau N / eigenvalue`, real and complex."""
    w1, w2, w3 = _combine(_T_INVERSE, residual)
    pair = solve_complex(jax.lax.complex(w2, w3))
    return _combine(_T, jnp.stack([solve_real(w1), pair.real, pair.imag]))


class Factors(NamedTuple):
    """LU factors, and the order of the rows, which `jax.scipy.linalg.lu_solve` would find again in each solve."""

    lu: Shaped[Array, "*batch n n"]
    order: Int[Array, "*batch n"]

    @classmethod
    def of(cls, matrix: Shaped[Array, "*batch n n"]) -> "Factors":
        lu, _, order = jax.lax.linalg.lu(matrix)
        return cls(lu, order)

    def solve(self, right: Shaped[Array, "*batch n c"], transposed: bool = False) -> Shaped[Array, "*batch n c"]:
        def triangular(right, lower):
            options = {"left_side": True, "lower": lower, "unit_diagonal": lower, "transpose_a": transposed}
            return jax.lax.linalg.triangular_solve(self.lu, right, **options)

        if transposed:
            return jnp.take_along_axis(
                triangular(triangular(right, False), True), jnp.argsort(self.order)[..., None], axis=-2
            )
        return triangular(triangular(jnp.take_along_axis(right, self.order[..., None], axis=-2), True), False)


def small_solve(matrix: Array, right: Array) -> Array:
    """`matrix^{-1} right` by LU, 16 columns at a time.

    With more, LAPACK's triangular solve wakes threads of its own, which fight with those of the batch for the cores.
    """
    factors = Factors.of(jax.lax.stop_gradient(matrix))

    def solve(transposed):
        def apply(_, right):
            size, columns = right.shape
            blocks = -(-columns // 16)
            padded = jnp.pad(right, ((0, 0), (0, 16 * blocks - columns)))
            parts = padded.reshape(size, blocks, 16).swapaxes(0, 1)
            batch = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (blocks, *leaf.shape)), factors)
            solved = batch.solve(parts, transposed)
            return solved.swapaxes(0, 1).reshape(size, 16 * blocks)[:, :columns]

        return apply

    return jax.lax.custom_linear_solve(lambda x: matrix @ x, right, solve(False), solve(True))


class Impulses:
    """The step with the impulses `Lam` (3, r, m) as unknowns, for k >= min(r, m): E can vanish."""

    strictness = 0.03
    caution = 1.0

    @staticmethod
    def stages(x: Array, step: AnyStep) -> tuple[Array, Array]:
        """The stages (3, r, k) and (3, m, k) that belong to the impulses: one linear system of size 3m, or 3r if smaller."""
        if step.V.shape[0] <= step.U.shape[0]:
            return Impulses._linear_stages(step.s[:, None] * x, step.U, step.V)
        V, U = Impulses._linear_stages(jnp.swapaxes(step.s[:, None] * x, -1, -2), step.V, step.U)
        return U, V

    @staticmethod
    def _linear_stages(B: Array, U: Array, V: Array) -> tuple[Array, Array]:
        """`U_i = U + sum_j a_ij B_j V_j`, `V_i = V + sum_j a_ij B_j^T U_j`, by eliminating the U_i."""
        A = jnp.asarray(TABLEAU, V.dtype)
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
    def end(x: Array, step: AnyStep, carried: Array) -> tuple[tuple[Array, Array], tuple[Array, Array], Array, Array]:
        """The stages, the state after the step, with its imbalance, whether that worked, and what is carried along.

        Given the impulses the step is linear, `Z_i = R_i Z_0`, and R_3 is nearly in O(r, m): its nearby member of that group
        (the polar factor for the form J, by products alone) keeps the imbalance to round-off and moves Z as little as the step
        errs.
        """
        r, m = step.U.shape[0], step.V.shape[0]
        one = jnp.eye(r + m, dtype=x.dtype)
        R = jnp.concatenate(Impulses.stages(x, step._replace(U=one[:r], V=one[r:])), axis=1)
        Q, defect = pseudo_orthogonal(R[-1], r)
        Z = jnp.concatenate([step.U, step.V])
        stages, after = R @ Z, Q @ Z
        return (stages[:, :r], stages[:, r:]), (after[:r], after[r:]), defect < 1e-2, carried

    @staticmethod
    def residual(x: Array, Us: Array, Vs: Array, step: AnyStep) -> Array:
        return step.tau * step.error(Us, Vs) - x

    @staticmethod
    def factor(step: Any):
        """Factors of `I + tau (M + g_j S^2) / eigenvalue` for each eigenvalue g_j of `V V^T`, `M = S U U^T S`."""
        g, Q = jnp.linalg.eigh(step.V @ step.V.T)
        SU = step.s[:, None] * step.U
        # A rounded-off negative g is a zero one.
        N = SU @ SU.T + jnp.maximum(g, 0)[:, None, None] * jnp.diag(step.s**2)
        one = jnp.eye(N.shape[-1], dtype=N.dtype)

        # Symmetric diagonal scaling: rows of N differ by the condition number of X^T X.
        def scaled(size, *parts):
            scale = jnp.sqrt(1 + size * jnp.diagonal(N, axis1=-2, axis2=-1))
            both = scale[:, :, None] * scale[:, None, :]
            return [part / both for part in parts], scale

        tau = step.tau / REAL
        (real,), real_scale = scaled(tau, one + tau * N)
        factor = jnp.linalg.cholesky(real)
        # Where that fails the step is thrown away, but derivatives pass through here.
        factor = jnp.where(jnp.isfinite(factor), factor, one)
        # Real and imaginary parts by themselves: a division by a complex number takes several times as long.
        inverse = 1 / COMPLEX
        pair, pair_scale = scaled(
            step.tau * abs(inverse), one + step.tau * inverse.real * N, step.tau * inverse.imag * N
        )
        return Q, (factor, real_scale), (Factors.of(jax.lax.complex(*pair)), pair_scale)

    @staticmethod
    def _solve_real(factors, right: Array) -> Array:
        Q, (L, scale), _ = factors
        columns = (right @ Q).T / scale
        solved = jax.scipy.linalg.cho_solve((L, True), columns[..., None])[..., 0]
        return (solved / scale).T @ Q.T

    @staticmethod
    def _solve_complex(factors, right: Array) -> Array:
        Q, _, (lu, scale) = factors
        columns = jax.lax.complex((right.real @ Q).T / scale, (right.imag @ Q).T / scale)
        solved = lu.solve(columns[..., None])[..., 0]
        return jax.lax.complex((solved.real / scale).T @ Q.T, (solved.imag / scale).T @ Q.T)

    @staticmethod
    def newton(factors, residual: Array) -> Array:
        return transformed_solve(
            lambda w: Impulses._solve_real(factors, w), lambda w: Impulses._solve_complex(factors, w), residual
        )

    @staticmethod
    def filter(factors, step: Any, bU: Array, bV: Array) -> tuple[Array, Array]:
        """`(I + tau K^T K / real eigenvalue)^{-1} b` with `K b = S (b_U V^T + U b_V^T)`."""
        seen = step.s[:, None] * (bU @ step.V.T + step.U @ bV.T)
        solved = step.s[:, None] * Impulses._solve_real(factors, seen)
        tau = step.tau / REAL
        return bU - tau * (solved @ step.V), bV - tau * (solved.T @ step.U)

    @staticmethod
    def guess(slopes: Array, tau: Array, step: AnyStep) -> Array:
        return tau * slopes

    @staticmethod
    def slopes(x: Array, step: AnyStep) -> Array:
        return x / step.tau


class Stages:
    """The step with the stages (3, r + m, k) themselves as unknowns and the whole Jacobian, for k < min(r, m).

    E does not vanish there, so impulses grow with the step. Such a network is narrow, and its Jacobian small.
    """

    strictness = 0.001
    # Nothing caps the steps of narrow networks: measured errors are that much larger at the same estimate.
    caution = 6.0

    @staticmethod
    def stages(x: Array, step: AnyStep) -> tuple[Array, Array]:
        r = step.U.shape[0]
        return x[:, :r], x[:, r:]

    @staticmethod
    def carried(U: Array, V: Array) -> Array:
        """What goes from step to step: the imbalance of the start."""
        return imbalance(U, V)

    @staticmethod
    def end(x: Array, step: AnyStep, carried: Array) -> tuple[tuple[Array, Array], tuple[Array, Array], Array, Array]:
        """The stages, the state after the step, projected onto the surface of the imbalance, and whether it got there."""
        Us, Vs = Stages.stages(x, step)
        U, V = Us[-1], Vs[-1]
        for _ in range(3):
            # Each squares the defect.
            U, V = project(U, V, carried)
        defect = norm(jax.lax.stop_gradient(imbalance(U, V) - carried)) / jax.lax.stop_gradient(norm(U, V) ** 2)
        return (Us, Vs), (U, V), defect < 1e3 * jnp.finfo(U.dtype).eps, carried

    @staticmethod
    def residual(x: Array, Us: Array, Vs: Array, step: AnyStep) -> Array:
        forces = jnp.concatenate(step.force(Us, Vs), axis=1)
        return jnp.concatenate([step.U, step.V]) + _combine(TABLEAU, forces) - x

    @staticmethod
    def jacobian(step: AnyStep) -> Array:
        """The Jacobian of `step.force`, of size (r + m) k."""
        U, V = step.U, step.V
        r, shape = U.shape[0], (U.shape[0] + V.shape[0], U.shape[1])

        def force(z):
            Z = z.reshape(shape)
            return jnp.concatenate(step.force(Z[:r], Z[r:])).ravel()

        return jax.jacfwd(force)(jnp.concatenate([U, V]).ravel())

    @staticmethod
    def factor(step: Any):
        J = Stages.jacobian(step)
        one = jnp.eye(J.shape[0], dtype=J.dtype)
        factors = []
        for eigenvalue in (REAL, COMPLEX):
            kind = J.dtype if eigenvalue is REAL else jax.lax.complex(J, J).dtype
            matrix = one.astype(kind) - J.astype(kind) / jnp.asarray(eigenvalue, kind)
            factors.append(Factors.of(matrix))
        return tuple(factors)

    @staticmethod
    def newton(factors, residual: Array) -> Array:
        def solve(lu):
            return lambda w: lu.solve(w.reshape(-1, 1)).reshape(w.shape)

        return transformed_solve(solve(factors[0]), solve(factors[1]), residual)

    @staticmethod
    def filter(factors, step: Any, bU: Array, bV: Array) -> tuple[Array, Array]:
        b = jnp.concatenate([bU, bV])
        b = factors[0].solve(b.reshape(-1, 1)).reshape(b.shape)
        return b[: bU.shape[0]], b[bU.shape[0] :]

    @staticmethod
    def guess(slopes: Array, tau: Array, step: AnyStep) -> Array:
        return jnp.concatenate([step.U, step.V]) + tau * _combine(TABLEAU, slopes)

    @staticmethod
    def slopes(x: Array, step: AnyStep) -> Array:
        Us, Vs = Stages.stages(x, step)
        return jnp.concatenate(step.force(Us, Vs), axis=1) / step.tau


def iterate(form, step: AnyStep, factors, guess: Array, target: Array, contraction: Array):
    """Newton's method with frozen factors: unknowns, whether they converged, and the contraction that was seen.

    Stops when the distance still to go, `theta/(1 - theta) |dZ|`, is below `target`; gives up when it cannot get there.
    """

    def go_on(carry):
        _, _, _, _, iterations, done, failed = carry
        return ~done & ~failed & (iterations < MAX_ITERATIONS)

    def improve(carry):
        before: Array
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


def solution_of(form):
    """The unknowns as a differentiable function of the step: the iteration once, its derivative by the implicit function
    theorem at the end of it."""

    @jax.custom_jvp
    def solution(step: AnyStep, converged: Array, factors) -> Array:
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


def is_dense(U: Float[Array, "r k"], V: Float[Array, "m k"]) -> bool:
    """Whether the network is so narrow that its error cannot vanish: k < min(r, m)."""
    return U.shape[1] < min(U.shape[0], V.shape[0])
