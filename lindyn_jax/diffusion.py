r"""The limit of descent on batches and noisy labels for small steps, as a stochastic differential equation.

`dZ = -grad L dt + sqrt(eta) (covariance of the step's gradient)^{1/2} dW`, in the sense of Ito, with time t = eta k. The
covariance is never formed: with the gradients g_i of the losses of the samples a batch's noise is
`sum_i g_i (N dw_i - sum_j dw_j)`, for N independent Brownian motions, which is a weighted gradient and costs what a gradient
does; label noise is the gradient's change by `dB` on the targets. Both are matrices times the layers, so that the width is
reduced exactly, path by path.
"""

from collections.abc import Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Float

from . import _checks
from . import observables as obs
from ._driver import Run, run
from ._keyed import compiled
from ._public import public
from .flow import check_flow, result_code
from .noise import AbstractNoise, Key, LabelNoise, Minibatch, as_parts
from .problems import AbstractProblem
from .reduction import prepare
from .solvers import integrate
from .theory.stochastic import batch_spread
from .trajectory import M, Trajectory


@public
def stochastic_flow(
    model: M,
    problem: AbstractProblem,
    ts: Float[ArrayLike, " T"] | Sequence[float],
    *,
    noise: AbstractNoise | Sequence[AbstractNoise],
    step_size: Float[ArrayLike, ""],
    key: Key,
    substeps: int = 4,
    observables: obs.Observables = ("loss",),
    max_steps: int = 100_000,
    adjoint: diffrax.AbstractAdjoint | None = None,
    reduce: bool = True,
    keep_models: bool = False,
) -> Trajectory[M]:
    r"""The stochastic flow `dZ = -grad L dt + sqrt(eta) Sigma(Z)^{1/2} dW`, the limit of plain descent on batches.

    Sigma is the covariance of the gradient of one step: of a batch of B samples drawn with replacement
    `(1/B) (1/N sum_i (N g_i)(N g_i)^T - g g^T)`, `(N - B)/(N - 1)` of that without, plus what noise on the labels adds to it.

    **Args:**

    - `model`, `observables`, `max_steps`, `adjoint`, `reduce`, `keep_models`: as in `gradient_flow`.
    - `ts`: times at which to observe, shape (T,); k steps of descent are the time `eta k`.
    - `noise`: a `Minibatch`, a `LabelNoise`, or both as a tuple or a sum; their own keys are not used.
    - `step_size`: eta, that of the descent whose limit it is; may be traced.
    - `key`: that of the Brownian motion.
    - `substeps`: Euler-Maruyama steps, each of time `eta/substeps`.

    **Returns:** a `Trajectory`. One path; use `jax.vmap` over keys for more.

    **Raises:** `ValueError` for no noise or one that has no such limit (`Online`, batches in epochs or of given indices), a
    problem without samples, labels that no Gaussian noise enters linearly, a step size that is not positive, and as
    `gradient_flow`.

    **Notes:** mean and covariance are those of descent to O(eta) and O(eta^2) (weak order one). The method has strong order
    1/2. Times between its steps are interpolated linearly: take multiples of `eta/substeps`. Full size and reduced form
    follow the same path for the same key. Derivatives are those of a path with its steps held.

    **Source:** Li, Tai and E (2017), with the covariance in matrix form, this package's own.

    Example:

        >>> problem, start, ts = ld.factorization(np.eye(1)), ld.LinearModel(np.zeros((1, 1))), np.arange(10.0, 200.0)
        >>> path = ld.stochastic_flow(start, problem, ts, noise=ld.LabelNoise(1.0), step_size=0.1, key=jax.random.key(0))
        >>> float(jnp.mean(path.observables["loss"])), 0.1 * 1.0**2 / 4  # mean over time, its limit
        (0.024, 0.025)
    """
    ts = check_flow(model, problem, ts)
    _checks.check_positive(step_size, "step_size")
    if substeps < 1:
        raise ValueError(f"Argument `substeps` must be at least 1, but is {substeps}.")
    if not max_steps >= 1:
        raise ValueError(f"Argument `max_steps` must be at least 1, but is {max_steps}.")
    diffusion = _diffusion(noise, problem)
    adjoint = diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint
    moved = prepare(model, problem, reduce)
    return _flow(
        moved,
        problem,
        ts,
        diffusion,
        jnp.asarray(step_size, ts.dtype),
        key,
        substeps,
        obs.resolve(observables),
        max_steps,
        adjoint,
        bool(reduce),
        moved is not model,
        bool(keep_models),
    )


class Constant(AbstractProblem):
    """The loss `<G, Theta>`, whose gradient is G wherever Theta is: what networks do with a gradient, they do with its noise."""

    G: Float[Array, "n m"]

    def __init__(self, G: Float[Array, "n m"]):
        self.G = G

    @property
    def num_inputs(self) -> int:
        return self.G.shape[0]

    @property
    def num_outputs(self) -> int:
        return self.G.shape[1]

    def loss(self, Theta: Float[Array, "n m"]) -> Float[Array, ""]:
        return jnp.sum(self.G * Theta)

    def loss_gradient(self, Theta: Float[Array, "n m"]) -> Float[Array, "n m"]:
        return self.G


class Diffusion(eqx.Module):
    """The noise of a step's gradient, divided by the root of the step size.

    **Fields:** `samples`, the problem of which batches are taken, or `None`; `factor`, by which the noise of independent
    samples is multiplied; `std`, that of the labels, or `None`; `shapes`, those of the Brownian motions.
    """

    samples: Any
    factor: Float[Array, ""]
    std: Float[Array, ""] | None
    shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)

    def gradient(self, whole, problem: AbstractProblem, Theta: Array, motion: tuple[Array, ...]) -> Array:
        """The noise of dL/dTheta for increments of the Brownian motions."""
        motions, parts = list(motion), []
        if self.samples is not None:
            dw = motions.pop(0)
            small: Any = whole.parts(self.samples)[1]
            parts.append(self.factor.astype(Theta.dtype) * small.weighted_gradient(Theta, len(dw) * dw - jnp.sum(dw)))
        if self.std is not None:
            dB = self.std.astype(Theta.dtype) * motions.pop(0)

            def noisy(noise):
                return whole.parts(problem.plain.noisy(lambda shape, dtype: noise))[1].loss_gradient(Theta)

            parts.append(jax.jvp(noisy, (jnp.zeros_like(dB),), (dB,))[1])
        return sum(parts[1:], parts[0])


class Path(diffrax.VirtualBrownianTree):
    """A Brownian path that does not look, at run time, whether it is asked within its interval."""

    def _evaluate(self, r):
        return jax.tree.map(lambda key, shape: self._evaluate_leaf(key, r, shape), self.key, self.shape)


def _diffusion(noise, problem: AbstractProblem) -> Diffusion:
    parts = as_parts(noise)
    if not parts:
        raise ValueError(
            "Argument `noise` must be a Minibatch or a LabelNoise, but there is none: use `gradient_flow`."
        )
    samples, factor, std, amplified, shapes = None, jnp.zeros(()), None, 1.0, []
    for part in parts:
        if isinstance(part, Minibatch):
            if part.indices is not None or part.replace == "epoch":
                what = "given indices" if part.indices is not None else "epochs"
                raise ValueError(f"`stochastic_flow` is the limit of independent batches, but those of {what} are not.")
            N, samples = part.check_size(problem), problem.plain.sampled()
            factor = jnp.sqrt(jnp.asarray(batch_spread(part.number, N, part.replace is True)) / N)
            # The noise of B labels, each of which counts N/B times.
            amplified = jnp.sqrt(jnp.asarray(N / part.number))
            shapes.append((N,))
        elif isinstance(part, LabelNoise):
            if not problem.plain.is_linear_in_targets:
                raise ValueError(
                    "`stochastic_flow` takes label noise where the gradient is linear in the targets, as for least squares, but "
                    f"the problem is a {type(problem).__name__}."
                )
            problem.noisy(lambda shape, dtype: shapes.append(shape) or jnp.zeros(shape, dtype))
            std = part.std * amplified
        else:
            raise ValueError(
                f"`stochastic_flow` is the limit of a Minibatch or a LabelNoise, but `noise` has a {type(part).__name__}."
            )
    return Diffusion(samples, factor, std, tuple(shapes))


@compiled
def _flow(
    model, problem, ts, diffusion, eta, key, substeps, functions, max_steps, adjoint, reduce, lifted, keep_models
) -> Trajectory:
    def advance(whole, observe):
        start, small = whole.parts(problem)
        moving, fixed = eqx.partition(start, start.moving())

        def pushed(y, problem):
            return eqx.filter(eqx.combine(y, fixed).velocity(problem), start.moving())

        def drift(t, y, args):
            with jax.default_matmul_precision("highest"):
                return pushed(y, small)

        def spread(t, y, args):
            def mapped(motion):
                with jax.default_matmul_precision("highest"):
                    Theta = eqx.combine(y, fixed).product()
                    return pushed(y, Constant(jnp.sqrt(eta) * diffusion.gradient(whole, problem, Theta, motion)))

            return lx.FunctionLinearOperator(mapped, structures)

        def at(t, y):
            terms = problem.penalty
            return whole.with_core(eqx.combine(y, fixed), None if terms is None else terms.remainder(t))

        def seen(t, y, args):
            return observe(at(t, y), problem)

        structures = tuple(jax.ShapeDtypeStruct(shape, ts.dtype) for shape in diffusion.shapes)
        # The steps are where they are: a Brownian path has no derivative in time.
        dt = jax.lax.stop_gradient(eta) / substeps
        zero = jnp.zeros((), ts.dtype)
        make: Any = Path
        unit = make(0.0, 1.0, tol=0.5, shape=structures, key=key)
        motion = eqx.tree_at(lambda path: (path.t0, path.t1, path.tol), unit, (zero, ts[-1], dt / 2 / ts[-1]))
        solution = integrate(
            diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(spread, motion)),
            diffrax.Euler(),
            ts[-1],
            moving,
            None,
            controller=diffrax.ConstantStepSize(),
            first=jnp.minimum(dt, ts[-1]),
            observe=(ts, seen),
            max_steps=max_steps,
            adjoint=adjoint,
        )
        final = at(solution.time, solution.y)
        stats = {"final_time": solution.time, "num_steps": solution.num_steps}
        return Run(ts, solution.observed, final, result_code(solution.result, final), stats)

    return run(model, problem, functions, advance, reduce=reduce, lifted=lifted, keep_models=keep_models)
