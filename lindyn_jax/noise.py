r"""What makes the loss of a step of descent another than the problem's own: batches, fresh samples, noise on the targets.

A noise makes the problem of every step: `problem_k = draw(problem, k)`, in the coordinates of the whole. The gradient that
descent then takes is that of an ordinary problem, a matrix times the layers, so that the width is reduced exactly, and in the
data's coordinates a batch costs B x r. All that is random comes from `fold_in(key, step)`: where a run is observed, stopped or
cut into blocks does not change it.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray, UInt32

from . import _checks
from ._public import public
from .problems import AbstractProblem, LeastSquares
from .problems._functions import as_tree

Key = PRNGKeyArray | UInt32[Array, "2"]
# Beyond this many pairs of a batch for each sample, all samples are shuffled for it, as costs less then.
PAIRS = 256


class AbstractNoise(eqx.Module):
    """What makes the problem of every step of descent.

    A noise of your own is a subclass with `draw`, and `prepare` where it needs samples. `a + b`, or `(a, b)`, is both.
    """

    # What it acts on: one noise of each kind at a time.
    acts_on: ClassVar[str] = "samples"

    def prepare(self, problem: AbstractProblem, steps: int, is_reduced: bool) -> AbstractProblem:
        """The problem in the form that `draw` takes, made once, after making sure that the two go together.

        **Raises:** `ValueError` where they do not.
        """
        return problem

    def start(self, problem: AbstractProblem) -> Any:
        """What `draw` keeps from step to step; by default nothing."""
        return None

    @abstractmethod
    def draw(self, problem: AbstractProblem, state: Any, step: Int[Array, ""]) -> tuple[AbstractProblem, Any]:
        """The problem of a step, and what is kept for the next one."""

    def __add__(self, other: "AbstractNoise | Sequence[AbstractNoise]") -> "tuple[AbstractNoise, ...]":
        return (*as_parts(self), *as_parts(other))

    def __radd__(self, other: "Sequence[AbstractNoise]") -> "tuple[AbstractNoise, ...]":
        return (*as_parts(other), *as_parts(self))


class FullBatch(AbstractNoise):
    """All samples at every step: no noise.

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> start = ld.TwoLayer(0.1 * jnp.eye(2), 0.1 * jnp.eye(2))
        >>> path = ld.gradient_descent(start, problem, 20, optimizer=optax.sgd(0.1), noise=ld.FullBatch())
        >>> print(path.observables["loss"])  # as without noise
        [2.470 0.2350]
    """

    @public
    def __init__(self):
        pass

    def draw(self, problem, state, step):
        return problem, state


class Minibatch(AbstractNoise):
    """A batch of B samples at every step, `L_B = (N/B) sum_{i in batch} (loss of sample i)`, whose mean is the loss itself.

    With `scale="averaged"` that is the mean over the batch, `||Y_B - X_B Theta||_F^2 / B`. Samples are rows of X and Y,
    observed entries of a `MatrixCompletion` (row by row), measurements of a `MatrixSensing`.

    **Args:**

    - `size`: B, static. May be left out where `indices` are given. With `largest` it is a number that may be traced, one for each
        trial of a batch or of an ensemble.
    - `key`: for the batches; step k draws from `fold_in(key, k)`. `stochastic_flow` has a key of its own and needs none here.
    - `replace`: `False`: each batch is a uniform set of B different samples; `True`: B independent samples; `"epoch"`: the
        samples are shuffled and used up in turn, then shuffled again. What N is not a multiple of B by is left out of an epoch,
        other samples each time.
    - `indices`: numbers of samples, shape (steps, B) or more steps, instead of random ones. Of traced ones that are out of
        range the loss is NaN.
    - `largest`: the largest size, static: so many samples are drawn, of which the first `size` count. Of a traced size that is
        no whole number from 1 to `largest` the loss is NaN.

    **Raises:** `ValueError` for a size below 1, or above N without replacement; for indices out of range or too few; for neither
    a key nor indices in descent; for a problem that is not a sum over samples, or, with `largest`, one whose losses of samples
    are not known one by one.

    **Notes:** weights and scale are kept: a batch of weighted samples counts them with their weights, times N/B. With `largest`
    batches are the same as without for the same key, unless without replacement the largest has more than 16 sqrt(N) samples,
    and a step costs what one on the largest batch does.

    Example:

        >>> problem = ld.LeastSquares(jnp.array([[1.0, 0.0], [1.0, 1.0]]), jnp.array([[2.0], [1.0]]))
        >>> start, batches = ld.LinearModel(jnp.zeros((2, 1))), ld.Minibatch(1, key=jax.random.key(0))
        >>> path = ld.gradient_descent(start, problem, 200, optimizer=ld.plain_descent(0.2), noise=batches)
        >>> print(path.final.product().T)  # the solution: where all samples are fitted no noise is left
        [[ 2.000 -1.000]]
    """

    size: int = eqx.field(static=True)
    key: Key | None
    replace: bool | str = eqx.field(static=True)
    indices: Int[Array, "K B"] | None
    # How many of the drawn samples count; `None` for all.
    count: Float[Array, ""] | None

    @public
    def __init__(
        self,
        size: int | Float[ArrayLike, ""] | None = None,
        *,
        key: Key | None = None,
        replace: bool | Literal["epoch"] = False,
        indices: Int[ArrayLike, "K B"] | None = None,
        largest: int | None = None,
    ):
        if replace not in (True, False):
            _checks.check_choice(replace, "replace", ("epoch",))
        if indices is not None:
            array = jnp.asarray(indices)
            if array.ndim != 2 or 0 in array.shape or not jnp.issubdtype(array.dtype, jnp.integer):
                raise ValueError(
                    "Argument `indices` must be whole numbers of shape (steps, B), but has shape "
                    f"{array.shape} and dtype {array.dtype}."
                )
            if size not in (None, array.shape[1]):
                raise ValueError(
                    f"Argument `size` must be {array.shape[1]} for `indices` of shape {array.shape}, but is {size}."
                )
            indices, size = array, array.shape[1]
        if size is None:
            raise ValueError("One of the arguments `size` and `indices` must be given, but neither is.")
        if largest is not None and indices is not None:
            raise ValueError("Argument `largest` is about batches that are drawn, but `indices` are given.")
        drawn: Any = size if largest is None else largest
        if _checks.is_traced(drawn) or not math.isfinite(drawn) or drawn != int(drawn) or drawn < 1:
            name = "size" if largest is None else "largest"
            raise ValueError(f"Argument `{name}` must be a static whole number of at least 1, but is {drawn}.")
        self.size, self.key, self.indices = int(drawn), key, indices
        self.count = None if largest is None else _count(size, self.size)
        self.replace = replace if replace == "epoch" else bool(replace)

    def check_size(self, problem: AbstractProblem) -> int:
        """N, after making sure that there are enough samples."""
        num_samples = problem.num_samples
        if num_samples is None:
            problem.sampled()
            raise ValueError(f"A {type(problem).__name__} does not say how many samples it has: give it `num_samples`.")
        if self.indices is None and self.replace is not True and self.size > num_samples:
            name = "size" if self.count is None else "largest"
            raise ValueError(
                f"Argument `{name}` must be at most the number of samples, {num_samples}, without replacement, but is "
                f"{self.size}."
            )
        return num_samples

    @property
    def number(self) -> int | Float[Array, ""]:
        """B, the number of samples that count."""
        return self.size if self.count is None else self.count

    def prepare(self, problem, steps, is_reduced):
        num_samples = self.check_size(problem)
        if self.indices is None:
            if self.key is None:
                raise ValueError("A Minibatch needs a `key`, or the `indices` of its samples, but has neither.")
        else:
            if len(self.indices) < steps:
                raise ValueError(
                    f"Argument `indices` must have a row for each of the {steps} steps, but has {len(self.indices)}."
                )
            if not _checks.is_traced(self.indices):
                values = np.asarray(self.indices)
                bad = np.argwhere((values < 0) | (values >= num_samples))
                if len(bad):
                    where = tuple(int(i) for i in bad[0])
                    raise ValueError(
                        f"Argument `indices` must lie between 0 and {num_samples - 1}, but is {values[where]} at index {where}."
                    )
        sampled = problem.sampled()
        if self.count is not None:
            sampled.weighed(jnp.ones(num_samples, problem.dtype))
        return sampled

    def start(self, problem):
        is_epoch = self.replace == "epoch" and self.indices is None
        return jnp.zeros(problem.num_samples, jnp.int32) if is_epoch else None

    def draw(self, problem, state, step):
        if self.indices is not None:
            return problem.rows(self.indices[step]), state
        index, state = self._index(self.check_size(problem), state, step)
        if self.count is None:
            return problem.rows(index), state
        # All are taken, and those that count make up for the others; a size that is none makes all of them NaN.
        counts = ~(jnp.arange(self.size) >= self.count)
        weights = jnp.where(counts, self.size / self.count, 0).astype(problem.dtype)
        return problem.rows(index).weighed(weights), state

    def _index(self, N: int, state, step: Int[Array, ""]) -> tuple[Int[Array, " B"], Any]:
        """The samples of a step, of which the first ones are those of a smaller batch."""
        # There is a key, as `prepare` has seen.
        root: Any = self.key
        B, count = self.size, self.count
        if self.replace == "epoch":
            number = B if count is None else jnp.nan_to_num(count, nan=1.0).astype(jnp.int32)
            epoch, place = step // (N // number), step % (N // number)
            shuffled = lambda: jax.random.permutation(jax.random.fold_in(root, epoch), N).astype(jnp.int32)  # noqa: E731
            state = jax.lax.cond(place == 0, shuffled, lambda: state)
            return state[jnp.minimum(place * number + jnp.arange(B), N - 1)], state
        key = jax.random.fold_in(root, step)
        if self.replace:
            return jax.random.randint(key, (B,), 0, N, jnp.int32), state
        return _subset(key, N, B), state


class LabelNoise(AbstractNoise):
    """Fresh Gaussian noise of variance `std^2` on every target, anew at every step.

    **Args:** `std`, delta >= 0, in units of the targets; may be traced. `key`: step k draws from it and k;
    `stochastic_flow` has a key of its own and needs none here.

    **Raises:** `ValueError` for a negative `std`, without a key in descent, or for a problem whose targets are classes or counts.

    **Notes:** of all samples of a `LeastSquares` without a link the gradient sees `W^T noise` alone, r x m numbers of the same
    variance, which is what is drawn: the cost does not depend on N. After a `Minibatch` the targets of the batch are noisy.

    **Source:** Blanc, Gupta, Valiant and Valiant (2020); see `theory.label_noise_loss`.

    Example:

        >>> problem, start = ld.factorization(jnp.zeros((30, 30))), ld.LinearModel(jnp.zeros((30, 30)))
        >>> noise = ld.LabelNoise(0.1, key=jax.random.key(0))
        >>> path = ld.gradient_descent(start, problem, 200, optimizer=ld.plain_descent(0.5), noise=noise)
        >>> print(path.observables["loss"][-1])
        1.504
        >>> print(30**2 / 2 * 0.5 * 0.1**2 / (2 - 0.5))  # its stationary mean, (n m/2) eta delta^2/(2 - eta)
        1.500
    """

    std: Float[Array, ""]
    key: Key | None
    acts_on: ClassVar[str] = "targets"

    @public
    def __init__(self, std: Float[ArrayLike, ""] | int, *, key: Key | None = None):
        std = _checks.as_float(std, "std")
        if std.ndim or (not _checks.is_traced(std) and not 0 <= float(std) < np.inf):
            raise ValueError(f"Argument `std` must be a finite number of at least 0, but is {std}.")
        self.std, self.key = std, key

    def prepare(self, problem, steps, is_reduced):
        if self.key is None:
            raise ValueError("A LabelNoise needs a `key`, but has none.")
        problem.noisy(jnp.zeros)
        return problem

    def draw(self, problem, state, step):
        # Another stream than that of batches, which may have the same key.
        root: Any = self.key
        key = jax.random.fold_in(jax.random.fold_in(root, 1), step)

        def noise(shape: tuple[int, ...], dtype) -> Array:
            return self.std.astype(dtype) * jax.random.normal(key, shape, dtype)

        return problem.noisy(noise), state


class Online(AbstractNoise):
    """Fresh samples at every step, `L_B = (q/B) sum_b l(c x_b^T Theta, y_b)`: each is seen once.

    The loss of samples is that of the problem, which is what is observed and what `stop` is about. For inputs of second moment
    `E[x x^T] = X^T X`, and targets of its best Theta, the mean gradient is that of least squares on X.

    **Args:** `sampler`, a function of a key that makes B inputs and targets, shapes (B, n) and (B, m), such as a `Teacher`;
    numbers in it that are to be traced belong into a callable `eqx.Module`. `key`: step k draws from `fold_in(key, k)`.

    **Raises:** `ValueError` for samples of other shapes, a problem that is not one of inputs and outputs, or, unless
    `reduce=False`, inputs in directions that the problem's own data do not see.

    Example:

        >>> Theta = jnp.array([[2.0], [1.0]])
        >>> samples = ld.Online(ld.Teacher(Theta, 4), key=jax.random.key(0))
        >>> start, problem = ld.LinearModel(jnp.zeros((2, 1))), ld.factorization(Theta)
        >>> path = ld.gradient_descent(start, problem, 200, optimizer=ld.plain_descent(0.2), noise=samples)
        >>> print(path.final.product().T)
        [[2. 1.]]
    """

    sampler: Any
    key: Key

    @public
    def __init__(self, sampler: Callable, *, key: Key):
        self.sampler, self.key = as_tree(sampler), key

    def prepare(self, problem, steps, is_reduced):
        name, problem = type(problem.plain).__name__, problem.sampled()
        if not hasattr(problem.plain, "fresh"):
            raise ValueError(
                f"Online samples are inputs and targets, of which a {name} has none: take a `Minibatch` of it."
            )
        try:
            X, Y = jax.eval_shape(self.sampler, self.key)
            sizes = X.shape[1:], Y.shape[1:]
        except Exception as error:
            raise ValueError(
                "Argument `sampler` must be a function of a key that makes inputs and targets, but fails: "
                f"{type(error).__name__}: {error}"
            ) from error
        expected = (problem.num_inputs,), (problem.num_outputs,)
        if sizes != expected or X.shape[0] != Y.shape[0] or X.shape[0] < 1:
            raise ValueError(
                f"Argument `sampler` must make arrays of shapes (B, {problem.num_inputs}) and (B, {problem.num_outputs}), "
                f"but makes {X.shape} and {Y.shape}."
            )
        known = self.sampler.stays(problem) if isinstance(self.sampler, Teacher) else False
        if is_reduced and problem.rank < problem.num_inputs and not known:
            raise ValueError(
                f"Online inputs may have all {problem.num_inputs} directions, but the reduction keeps the {problem.rank} that "
                "the problem's own data see: pass `reduce=False`, or a problem whose data see all of them."
            )
        return problem

    def draw(self, problem, state, step):
        data: Any = problem
        return data.fresh(*self.sampler(jax.random.fold_in(self.key, step))), state


class Teacher(eqx.Module):
    """Gaussian inputs and the targets of a linear map: `x ~ N(0, F F^T)`, `y = Theta^T x`, B of them for a key.

    **Args:** `Theta`, shape (n, m); `size`, B; `factor`, F, shape (n, k), by default the identity.

    **Raises:** `ValueError` for shapes that do not fit each other, or a size below 1.

    **Notes:** for `Online(Teacher(Theta, 16), key=key)`; noise on its targets is `+ LabelNoise(std, key=key)`.

    Example:

        >>> X, Y = ld.Teacher(jnp.array([[2.0], [1.0]]), 1000)(jax.random.key(0))
        >>> print(X.shape, ld.LeastSquares(X, Y).theta_hat.T)
        (1000, 2) [[2. 1.]]
    """

    Theta: Float[Array, "n m"]
    factor: Float[Array, "n k"] | None
    size: int = eqx.field(static=True)

    @public
    def __init__(self, Theta: Float[ArrayLike, "n m"], size: int = 1, *, factor: Float[ArrayLike, "n k"] | None = None):
        self.Theta = _checks.as_matrix(Theta, "Theta", "(n, m)")
        self.factor = None if factor is None else _checks.as_matrix(factor, "factor", "(n, k)").astype(self.Theta.dtype)
        if size != int(size) or size < 1:
            raise ValueError(f"Argument `size` must be a whole number of at least 1, but is {size}.")
        self.size = int(size)

    @classmethod
    def of(cls, problem: LeastSquares, size: int = 1) -> "Teacher":
        """The teacher whose mean loss is that of a least squares problem: `E[x x^T] = c^2 X^T X`, `Theta = Theta_hat`.

        The problem of the samples is one with output scale 1.
        """
        factor = problem.from_data(jnp.diag(problem.data_singular_values))
        return cls(problem.theta_hat, size, factor=factor)

    def __call__(self, key: Key) -> tuple[Float[Array, "B n"], Float[Array, "B m"]]:
        n = len(self.Theta) if self.factor is None else self.factor.shape[1]
        X = jax.random.normal(key, (self.size, n), self.Theta.dtype)
        X = X if self.factor is None else X @ self.factor.T
        return X, X @ self.Theta

    def stays(self, problem: AbstractProblem) -> bool:
        """Whether all inputs are known to lie in the directions that a problem sees."""
        Phi1 = problem.frame
        if Phi1 is None:
            return True
        if self.factor is None or _checks.is_traced(self.factor, Phi1):
            return False
        F, Phi1 = np.asarray(self.factor, np.float64), np.asarray(Phi1, np.float64)
        outside = np.linalg.norm(F - Phi1 @ (Phi1.T @ F))
        return bool(outside <= 100 * float(jnp.finfo(self.factor.dtype).eps) * np.linalg.norm(F))


class Prepared(eqx.Module):
    """Noise and the problem that it is drawn on."""

    parts: tuple[AbstractNoise, ...]
    problem: AbstractProblem

    def start(self) -> tuple:
        """What is kept from step to step, at the start."""
        return tuple(part.start(self.problem) for part in self.parts)

    def draw(self, states: tuple, step: Int[Array, ""]) -> tuple[AbstractProblem, tuple]:
        """The problem of a step."""
        problem, kept = self.problem, []
        for part, state in zip(self.parts, states, strict=True):
            problem, state = part.draw(problem, state, step)
            kept.append(state)
        return problem, tuple(kept)


def as_parts(noise: Any) -> tuple[AbstractNoise, ...]:
    """Noises in the order in which they act, those that do nothing left out.

    **Raises:** `ValueError` for what is no noise, or two of a kind.
    """
    given = () if noise is None else _checks.as_tuple(noise)
    if not all(isinstance(part, AbstractNoise) for part in given):
        raise ValueError(
            "Argument `noise` must be a noise such as `Minibatch(16, key=key)`, a tuple of noises, or None, but is "
            f"{type(noise).__name__}."
        )
    parts = sorted(
        (part for part in given if not isinstance(part, FullBatch)), key=lambda part: part.acts_on == "targets"
    )
    kinds = [part.acts_on for part in parts]
    for kind in set(kinds):
        if kinds.count(kind) > 1:
            names = " and ".join(type(part).__name__ for part in parts if part.acts_on == kind)
            raise ValueError(f"Only one noise may act on the {kind}, but {names} do.")
    return tuple(parts)


def prepare_noise(noise, problem: AbstractProblem, steps: int, is_reduced: bool) -> Prepared | None:
    """Noise as descent takes it; `None` where there is none."""
    parts = as_parts(noise)
    for part in parts:
        problem = part.prepare(problem, steps, is_reduced)
    return Prepared(parts, problem) if parts else None


def _count(size: Any, largest: Any) -> Float[Array, ""]:
    """How many of the drawn samples count; NaN for a traced number that is no size."""
    count = _checks.as_float(size, "size")
    if count.ndim:
        raise ValueError(f"Argument `size` must be a number, but has shape {count.shape}.")
    is_size = (count >= 1) & (count <= largest) & (count == jnp.round(count))
    if not _checks.is_traced(count, largest) and not is_size:
        raise ValueError(f"Argument `size` must be a whole number from 1 to `largest`, {largest}, but is {count:g}.")
    return jnp.where(is_size, count, jnp.nan)


def _subset(key: Key, N: int, B: int) -> Int[Array, " B"]:
    """B different whole numbers below N, all sets of them in all orders equally likely."""
    if B * B > PAIRS * N:
        return jax.random.permutation(key, N)[:B].astype(jnp.int32)
    return picked(jax.random.randint(key, (B,), 0, N - jnp.arange(B), jnp.int32), N)


def picked(places: Int[Array, " B"], N: int) -> Int[Array, " B"]:
    """What the shuffle of Fisher and Yates draws from the whole numbers below N, which are never laid out.

    Draw i takes what lies at one of the first N - i places and puts there what lies at the last of these. What that is follows
    from the earlier draws, without a loop over them.
    """
    B = len(places)
    i = jnp.arange(B, dtype=jnp.int32)

    def latest(wanted: Int[Array, " B"]) -> Int[Array, " B"]:
        """For each draw the latest of the earlier ones that took from this place, -1 if none did."""
        return jnp.max(jnp.where((places == wanted[:, None]) & (i < i[:, None]), i, -1), axis=1)

    # Draw i moved what lay at place N - 1 - i: its own number, or what an earlier draw had moved there, and so on.
    source = latest(N - 1 - i)
    source = jnp.where(source < 0, i, source)
    for _ in range((B - 1).bit_length()):
        source = source[source]
    same = latest(places)
    return jnp.where(same < 0, places, N - 1 - source[same])
