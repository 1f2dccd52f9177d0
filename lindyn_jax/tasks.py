"""Tasks one after another: continual and reversal learning by flow, descent or closed form, with forgetting and transfer."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from . import _checks, trajectory
from . import observables as obs
from ._public import public, role_of
from .descent import gradient_descent, plain_descent
from .exact import homogeneous_condition, linear
from .exact.riccati import checked_factors
from .flow import gradient_flow
from .models import AbstractModel, LinearModel, SymmetricFactors, TwoLayer
from .problems import AbstractProblem
from .problems.least_squares import is_least_squares
from .reduction import check_fits
from .trajectory import Trajectory


class Passage(eqx.Module):
    """What became of a network that went through a sequence of K tasks.

    **Fields:**

    - `Theta`: shape (K + 1, n, m), at the start and at the end of each task; (K + 1, r, m) of a core drawn at a width.
    - `losses`: shape (K + 1, K), the loss of every task there.
    - `ts`: shape (K, T), times (numbers of steps, for descent by an optimizer) since the start, of each task from its begin
        to its end.
    - `curves`: shape (K, T, K), the loss of every task at these times; infinite where a run did not get to.
    - `paths`: the `Trajectory` of each task, with its observables; none of a closed form.
    - `final`: the network at the end.
    - `result`: the code of `trajectory.RESULTS` of the first task that failed, or of the last.

    Example:

        >>> one, two = (ld.factorization(jnp.diag(jnp.array(targets))) for targets in ([2.0, 1.0], [1.0, 2.0]))
        >>> start = ld.TwoLayer(0.1 * jnp.eye(2), 0.1 * jnp.eye(2))
        >>> passage = ld.sequence([(one, 3.0), (two, 3.0)]).flow(start)
        >>> print(passage.forgetting[1, 0], passage.transfer[1])
        0.9793 1.256
        >>> print(jax.vmap(jnp.diag)(passage.Theta))  # at the start, and after each task
        [[0.01 0.01 ]
         [1.998 0.8030]
         [1.001 2.000]]
    """

    Theta: Float[Array, "_ n m"]
    losses: Float[Array, "_ K"]
    ts: Float[Array, "K T"]
    curves: Float[Array, "K T K"]
    paths: tuple[Trajectory, ...]
    final: AbstractModel
    result: Array

    @property
    def ok(self) -> Bool[Array, ""]:
        """Whether every task ended as asked."""
        return self.result <= trajectory.STOPPED

    @property
    def forgetting(self) -> Float[Array, "K K"]:
        """Row i, column j: by how much task i has raised the loss of an earlier task j since j ended; zero for j >= i."""
        ended: Any = self.losses[1:]
        earlier = jnp.tri(len(ended), k=-1, dtype=ended.dtype)
        return earlier * (ended - jnp.diagonal(ended))

    @property
    def transfer(self) -> Float[Array, " K"]:
        """By how much the tasks before it have lowered the loss of each task when it begins; zero for the first."""
        return self.losses[0] - jnp.diagonal(self.losses[:-1])


class TaskLosses(eqx.Module):
    """The losses of several problems at one state, whose arrays are arguments of compiled programs."""

    tasks: tuple[AbstractProblem, ...]

    def __call__(self, model: AbstractModel, problem: AbstractProblem) -> Float[Array, " K"]:
        return jnp.stack([obs.loss(model, task) for task in self.tasks])


class TaskSequence(eqx.Module):
    """Tasks, each for a time; made by `sequence`. `flow`, `descent` and `closed_form` take a network through them.

    **Fields:** `tasks`, the problems; `durations`, shape (K,).

    Example:

        >>> one, two = ld.factorization(jnp.array([[2.0]])), ld.factorization(jnp.array([[-1.0]]))
        >>> tasks = ld.sequence([(one, 1.0), (two, 1.0)])
        >>> passage = tasks.closed_form(ld.LinearModel(jnp.zeros((1, 1))))
        >>> print(tasks.durations, passage.Theta.ravel())  # 2 (1 - 1/e), then 1/e of the way back is left
        [1. 1.] [ 0. 1.264 -0.1670]
    """

    tasks: tuple[AbstractProblem, ...]
    durations: Float[Array, " K"]

    def flow(
        self, model: AbstractModel, *, points: int = 2, observables: obs.Observables = (), **options: Any
    ) -> Passage:
        """Gradient flow through all tasks; each begins where the one before ended.

        **Args:** `model`, the start, which fits every task: a core drawn at a width needs tasks on the same inputs; `points`,
        how many times to observe in each task, its begin and end among them; `observables` and `options` as in
        `gradient_flow`, the observables of the task at hand.

        **Returns:** a `Passage`.

        **Raises:** `ValueError` as `gradient_flow` does, and for a network that does not fit one of the tasks.

        **Notes:** differentiable in starts, targets and durations as `gradient_flow` is.

        **Source:** Braun et al. (2022).
        """
        share, functions = self._prepared(model, points, observables)

        def through(model: AbstractModel, task: AbstractProblem, i: int) -> tuple[Array, Trajectory]:
            ts = self.durations[i] * share
            return ts, gradient_flow(model, task, ts, observables=functions, **options)

        return self._passed(model, through, self._begins())

    def descent(
        self,
        model: AbstractModel,
        *,
        step_size: float | None = None,
        optimizer: optax.GradientTransformation | None = None,
        points: int = 2,
        observables: obs.Observables = (),
        **options: Any,
    ) -> Passage:
        """Gradient descent through all tasks, with an optimizer that starts anew for each.

        **Args:** either `step_size`, of plain descent, each task taking the nearest whole number of steps to
        `duration/step_size`, at least one; or `optimizer`, any of optax, durations being numbers of steps; `model`, `points`,
        `observables` as in `flow`; `options` as in `gradient_descent`.

        **Returns:** a `Passage`, whose `ts` are times for a `step_size` and numbers of steps for an `optimizer`.

        **Raises:** `ValueError` as `gradient_descent` does, unless exactly one of `step_size` and `optimizer` is given, for
        durations that are traced, or numbers of steps that are not whole.
        """
        share, functions = self._prepared(model, points, observables)
        if (step_size is None) == (optimizer is None):
            raise ValueError("Give exactly one of `step_size`, for plain descent, and `optimizer`.")
        if _checks.is_traced(self.durations, step_size):
            raise ValueError("Durations and `step_size` of descent must be known before compiling, but are traced.")
        unit, moves = 1.0, optimizer
        if step_size is not None:
            _checks.check_positive(step_size, "step_size")
            unit, moves = float(step_size), plain_descent(step_size)
        lengths = np.asarray(self.durations, float) / unit
        counts = np.maximum(np.round(lengths), 1).astype(int)
        if step_size is None and np.any(lengths != counts):
            raise ValueError(f"Durations are numbers of steps for an `optimizer`, but are {lengths.tolist()}.")
        if np.min(counts) < points - 1:
            raise ValueError(
                f"Argument `points` must be at most {np.min(counts) + 1}, one more than the steps of a task, but is {points}."
            )

        settings: Any = {"optimizer": moves, "observables": functions, **options}

        def through(model: AbstractModel, task: AbstractProblem, i: int) -> tuple[Array, Trajectory]:
            numbers = np.round(np.asarray(share, float) * counts[i]).astype(int)
            path = gradient_descent(model, task, int(counts[i]), save_at=numbers, **settings)
            return jnp.asarray(unit * numbers, self.durations.dtype), path

        begins = unit * np.concatenate([[0], np.cumsum(counts)[:-1]])
        return self._passed(model, through, jnp.asarray(begins, self.durations.dtype))

    def closed_form(self, model: AbstractModel, *, points: int = 2) -> Passage:
        """The flow through all tasks without a solver, where its solution is known: exact at any duration.

        - `TwoLayer` of homogeneous imbalance, `U^T U - V^T V = lambda0 I` (`init.balanced`), for data with X^T X a multiple
          of I; each task leaves the imbalance as it is, so that the next begins as the first.
        - `SymmetricFactors`, any start, for `factorization`.
        - `LinearModel`, any start and data.

        **Args:** `model`, `points` as in `flow`.

        **Returns:** a `Passage` without paths. Hidden layers of `final` are fixed up to a rotation.

        **Raises:** `ValueError` for another kind of network or of problem, and a known start of another imbalance; where it is
        traced, numbers are NaN.

        **Notes:** accuracy and derivatives, second ones too, are those of `exact.riccati` and `exact.linear`.

        **Source:** T21 Proposition 5 and 1, from task to task; Braun et al. (2022) for lambda0 = 0.
        """
        share, _ = self._prepared(model, points, ())
        solve = _solution(model)
        begins, here, states = self._begins(), model, []
        for i, task in enumerate(self.tasks):
            along: Any = solve(here, task, self.durations[i] * share)
            here = jax.tree.map(lambda leaf: leaf[-1], along)
            states.append(along)
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        seen = TaskLosses(self.tasks)
        curves = jax.vmap(jax.vmap(lambda state: seen(state, self.tasks[0])))(stacked)
        Theta = jax.vmap(lambda state: state.product())(jax.tree.map(lambda leaf: leaf[:, -1], stacked))
        ok = jnp.all(jnp.isfinite(curves))
        code = jnp.where(ok, trajectory.FINISHED, trajectory.SOLVER_FAILED).astype(jnp.int32)
        return Passage(
            jnp.concatenate([model.product()[None], Theta]),
            jnp.concatenate([curves[0, :1], curves[:, -1]]),
            begins[:, None] + self.durations[:, None] * share,
            curves,
            (),
            here,
            code,
        )

    def _begins(self) -> Float[Array, " K"]:
        return jnp.concatenate([jnp.zeros(1, self.durations.dtype), jnp.cumsum(self.durations)[:-1]])

    def _prepared(self, model: AbstractModel, points: int, observables: obs.Observables):
        """Shares of a task's time at which to observe, and functions to observe by."""
        if role_of(model) != "model":
            raise ValueError(f"Argument `model` must be a model of this package, but is a {type(model).__name__}.")
        if _checks.check_count(points, "points") < 2:
            raise ValueError(f"Argument `points` must be at least 2, begin and end, but is {points}.")
        for task in self.tasks:
            check_fits(model, task)
        functions = {**obs.resolve(observables), "task_losses": TaskLosses(self.tasks)}
        return jnp.linspace(0, 1, points, dtype=self.durations.dtype), functions

    def _passed(self, model: AbstractModel, through, begins: Float[Array, " K"]) -> Passage:
        products, ts, paths = [model.product()], [], []
        for i, task in enumerate(self.tasks):
            times, path = through(model, task, i)
            model = path.final
            products.append(model.product())
            ts.append(begins[i] + times)
            paths.append(path)
        curves = jnp.stack([path.observables["task_losses"] for path in paths])
        ends = [path.final_observables["task_losses"] for path in paths]
        code = paths[-1].result
        for path in reversed(paths):
            code = jnp.where(path.ok, code, path.result)
        losses = jnp.stack([curves[0, 0], *ends])
        return Passage(jnp.stack(products), losses, jnp.stack(ts), curves, tuple(paths), model, code)


@public
def sequence(tasks: Sequence[tuple[Any, Any]]) -> TaskSequence:
    """Tasks that a network learns one after another, such as `sequence([(one, 2.0), (other, 2.0)])`.

    **Args:** `tasks`, pairs of a problem and how long it lasts: a time of the flow, or a number of steps of an optimizer.
    Problems have the same numbers of inputs and outputs; durations are positive and may be traced.

    **Returns:** a `TaskSequence`, whose methods `flow`, `descent` and `closed_form` take a start through it.

    **Raises:** `ValueError` for no task, an entry that is no such pair, problems of other sizes, or durations that are not
    positive.

    **Source:** Braun et al. (2022).

    Example:

        >>> one, two = (ld.factorization(jnp.diag(jnp.array(targets))) for targets in ([2.0, 1.0], [1.0, 2.0]))
        >>> start = ld.TwoLayer(0.1 * jnp.eye(2), 0.1 * jnp.eye(2))
        >>> passage = ld.sequence([(one, 3.0), (two, 3.0)]).flow(start)
        >>> print(jnp.round(passage.losses, 4))  # of both tasks, at the start and after each
        [[2.470 2.470]
         [0.0194 1.214 ]
         [0.9987 0. ]]
    """
    pairs = list(tasks)
    if not pairs:
        raise ValueError("Argument `tasks` must hold at least one pair (problem, duration).")
    problems, durations = [], []
    for i, pair in enumerate(pairs):
        problem: Any = None
        duration = None
        with contextlib.suppress(TypeError, ValueError):
            problem, duration = pair
        if role_of(problem) != "problem":
            raise ValueError(f"Argument `tasks` must hold pairs (problem, duration), but tasks[{i}] is {pair!s:.60}.")
        duration = _checks.as_float(duration, f"tasks[{i}][1]")
        if duration.ndim:
            raise ValueError(f"The duration tasks[{i}][1] must be a number, but has shape {duration.shape}.")
        _checks.check_positive(duration, f"tasks[{i}][1]")
        first, sizes = ((one.num_inputs, one.num_outputs) for one in (*problems[:1], problem, problem)[:2])
        if sizes != first:
            raise ValueError(
                f"All tasks must have as many inputs and outputs as the first, {first}, but that of tasks[{i}] has {sizes}."
            )
        problems.append(problem)
        durations.append(duration)
    dtype = jnp.result_type(*(problem.dtype for problem in problems))
    return TaskSequence(tuple(problems), jnp.stack([duration.astype(dtype) for duration in durations]))


# -- solutions in closed form: (start, problem, ts) -> states at these times, with one more axis on every leaf ------------


@functools.singledispatch
def _solution(model: AbstractModel) -> Callable:
    raise ValueError(
        "A sequence has a closed form for a TwoLayer of homogeneous imbalance, SymmetricFactors and a LinearModel, but the model "
        f"is a {type(model).__name__}: use `flow`."
    )


@_solution.register
def _(model: LinearModel) -> Callable:
    return lambda model, problem, ts: jax.vmap(LinearModel)(linear(problem, model.Theta, ts))


@_solution.register
def _(model: SymmetricFactors) -> Callable:
    def solve(model: SymmetricFactors, problem: AbstractProblem, ts: Array) -> SymmetricFactors:
        q, s, target = _isotropic(problem)
        if problem.frame is not None:
            raise ValueError("The closed form of tied layers is that of `factorization`: use `flow` for other data.")
        A = q * s * (target + target.T)
        return jax.vmap(SymmetricFactors)(checked_factors(A, 4 * q * s**2, model.U, ts))

    return solve


@_solution.register
def _(model: TwoLayer) -> Callable:
    U, V = model.U, model.V
    # No other width than this has an imbalance of the same sign in every direction.
    narrow = model.width <= max(U.shape[0], V.shape[0])
    lambda0 = (jnp.sum(U**2) - jnp.sum(V**2)) / model.width if narrow else jnp.zeros((), U.dtype)
    applies = homogeneous_condition(U, V, lambda0).applies
    if not _checks.is_traced(applies) and not applies:
        raise ValueError(
            "A sequence of two layers has a closed form for U^T U - V^T V = lambda0 I, which this start has for no number "
            "lambda0: start from `init.balanced`, or use `flow`."
        )
    lambda0 = jnp.where(applies, lambda0, jnp.nan)

    def solve(model: TwoLayer, problem: AbstractProblem, ts: Array) -> TwoLayer:
        q, s, target = _isotropic(problem)
        U1 = problem.to_data(model.U)
        n, m = target.shape
        level = q * s**2 * lambda0 / 2
        cross = q * s * target
        A = jnp.block([[level * jnp.eye(n, dtype=U1.dtype), cross], [cross.T, -level * jnp.eye(m, dtype=U1.dtype)]])
        L = checked_factors(A, q * s**2, jnp.concatenate([U1, model.V]), ts, n=n)
        return jax.vmap(lambda L: TwoLayer(problem.from_data(L[:n]), L[n:]))(L)

    return solve


def _isotropic(problem: AbstractProblem) -> tuple[Array, Array, Float[Array, "n m"]]:
    """q, s and Ytil of least squares whose inputs have n singular values, all of them s."""
    if not is_least_squares(problem) or problem.penalty is not None:
        raise ValueError("A sequence has a closed form for least squares without a link or terms on the weights.")
    s = problem.singular_values
    equal = jnp.max(s) - jnp.min(s) <= 100 * jnp.finfo(s.dtype).eps * jnp.max(s)
    if problem.num_frozen > 0 or not (_checks.is_traced(equal) or equal):
        raise ValueError(
            "Two layers have a closed form for data with X^T X a multiple of the identity, such as `factorization`: use `flow`."
        )
    return jnp.asarray(problem.scale, s.dtype), jnp.where(equal, jnp.mean(s), jnp.nan), problem.Ytil
