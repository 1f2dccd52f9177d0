"""Losses of a network's outputs: what the data do goes through the singular value decomposition of the inputs, made once."""

from abc import abstractmethod
from functools import partial
from typing import Literal, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from .. import _checks
from .._public import public, sizes_of
from .base import Draw, SampledProblem, check_index, take

Problem = TypeVar("Problem", bound="OutputProblem")
LossScale = Literal["sum", "mean", "averaged"]


class OutputProblem(SampledProblem):
    r"""A loss of the outputs on data, `L(Theta) = q l(c X Theta, Y)`, with loss scale q and output scale c.

    A loss of your own is a subclass with `output_loss`. Only `Phi1^T Theta` enters, with the thin singular value decomposition
    `X = W S Phi1^T`: the other rows of the first layer get no gradient and are left out of what is moved.

    **Args:**

    - `X`: inputs, shape (N, n), or `None` for the identity, which is then never built.
    - `Y`: targets, shape (N, m).
    - `scale`: q, a positive number or the name of one: `"sum"` is 1, `"mean"` is 1/N, `"averaged"` is 2/N. May be traced.
    - `output_scale`: c > 0, a factor on the network's output; the same as scaling X. May be traced.
    - `rank`: rank of X. By default the number of singular values above `rank_rtol` times the largest. Must be given when X
        is traced.
    - `rank_rtol`: relative rank tolerance, default `8 sqrt(min(N, n))` times the machine epsilon of the dtype,
        which does not grow with the number of samples.

    **Raises:** `ValueError` for wrong shapes, NaN or infinity in concrete data, X = 0, or a scale that is not positive.

    Example:

        >>> class Margins(ld.OutputProblem):
        ...     def output_loss(self, outputs, Y):
        ...         return jnp.sum(jnp.logaddexp(0.0, -Y * outputs))
        >>> problem = Margins(jnp.eye(2), jnp.array([[1.0], [-1.0]]))
        >>> print(problem.loss(jnp.zeros((2, 1))))  # 2 log 2
        1.386
        >>> print(problem.loss_gradient(jnp.zeros((2, 1))).T)
        [[-0.5 0.5]]
    """

    X: Float[Array, "N n"] | None
    Y: Float[Array, "N m"]
    scale: Float[Array, ""]
    output_scale: Float[Array, ""]
    Phi1: Float[Array, "n r"] | None
    data_singular_values: Float[Array, " r"]
    inputs_mark: Float[Array, " r"] | None
    # W S, or `None` for X = I.
    design: Float[Array, "N r"] | None

    @public
    def __init__(
        self,
        X: Float[ArrayLike, "N n"] | None,
        Y: Float[ArrayLike, "N m"],
        *,
        scale: LossScale | Float[ArrayLike, ""] | int = 1.0,
        output_scale: Float[ArrayLike, ""] | int = 1.0,
        rank: int | None = None,
        rank_rtol: float | None = None,
    ):
        W = self._read(X, Y, scale, output_scale, rank, rank_rtol)
        self.design = None if W is None else W * self.data_singular_values

    def _read(
        self, X, Y, scale, output_scale, rank, rank_rtol, *, name: str = "Y", total: Array | None = None
    ) -> Float[Array, "N r"] | None:
        """Checks and keeps the data, and returns W. `name` is what the targets are called, `total` the weight of all samples."""
        Y = _checks.as_matrix(Y, name, "(N, m)")
        _checks.check_finite(Y, name)
        if X is None:
            dtype = Y.dtype
        else:
            X = _checks.as_matrix(X, "X", "(N, n)")
            _checks.check_finite(X, "X")
            if X.shape[0] != Y.shape[0]:
                raise ValueError(
                    f"Arguments `X` and `{name}` must have one row a sample, "
                    f"but `X` has {X.shape[0]} rows and `{name}` has {Y.shape[0]}."
                )
            dtype = jnp.result_type(X, Y)
            X, Y = X.astype(dtype), Y.astype(dtype)
        self.X, self.Y = X, Y
        self.scale = loss_scale(scale, Y.shape[0] if total is None else total).astype(dtype)
        _checks.check_positive(output_scale, "output_scale")
        self.output_scale = jnp.asarray(output_scale, dtype)
        if X is None:
            if rank is not None and rank != Y.shape[0]:
                raise ValueError(f"Argument `rank` must be {Y.shape[0]} for X = I, but is {rank}.")
            self.Phi1, self.inputs_mark, self.data_singular_values = None, None, jnp.ones(Y.shape[0], dtype)
            return None
        W, s, Phi1T = jnp.linalg.svd(X, full_matrices=False)
        r = rank_of(X, s, rank, rank_rtol)
        W, self.data_singular_values, self.Phi1, self.inputs_mark = _parts(W, s, Phi1T, r)
        return W

    @abstractmethod
    def output_loss(self, outputs: Float[Array, "N m"], Y: Float[Array, "N m"]) -> Float[Array, ""]:
        """The loss of the outputs, without the loss scale, summed over the samples; JAX differentiates it."""

    # -- sizes -------------------------------------------------------------------------------------------------------

    @property
    def num_samples(self) -> int:
        """N."""
        return self.Y.shape[0]

    @property
    def num_inputs(self) -> int:
        """n."""
        return self.Y.shape[0] if self.X is None else self.X.shape[1]

    @property
    def num_outputs(self) -> int:
        """m."""
        return self.Y.shape[1]

    @property
    def rank(self) -> int:
        """r, the rank of X."""
        return self.data_singular_values.shape[0]

    @property
    def dtype(self):
        return self.Y.dtype

    # -- spectrum ----------------------------------------------------------------------------------------------------

    @property
    def singular_values(self) -> Float[Array, " r"]:
        """s: the nonzero singular values of `output_scale * X`, descending."""
        return self.output_scale * self.data_singular_values

    @property
    def condition(self) -> Float[Array, ""]:
        """lambda_1 / lambda_r: the condition number of `X^T X` on the range it acts on."""
        return _condition(self.data_singular_values)

    # -- coordinates -------------------------------------------------------------------------------------------------

    def restrict(self: Problem) -> "tuple[Problem, Float[Array, 'n r'] | None]":
        if self.X is None:
            return self, None
        where = lambda problem: (problem.X, problem.Phi1, problem.inputs_mark)  # noqa: E731
        return eqx.tree_at(where, self, (self.design, None, None), is_leaf=lambda leaf: leaf is None), self.Phi1

    @property
    def frame(self) -> Float[Array, "n r"] | None:
        """Phi1, an orthonormal basis of the range of X^T; `None` for X = I."""
        return self.Phi1

    @property
    def coordinates(self) -> Float[Array, " r"] | None:
        return self.inputs_mark

    # -- loss --------------------------------------------------------------------------------------------------------

    def predict(self, Theta: Float[Array, "n m"]) -> Float[Array, "N m"]:
        """c X Theta, in the coordinates of the data as given."""
        return self.output_scale * (Theta if self.X is None else self.X @ Theta)

    def loss(self, Theta: Float[Array, "n m"]) -> Float[Array, ""]:
        """L(Theta), from X itself and not from its decomposition."""
        return self.scale * self.output_loss(self.output_scale * self._times(self.X, Theta), self.Y)

    def loss_gradient(self, Theta: Float[Array, "n m"]) -> Float[Array, "n m"]:
        """dL/dTheta, from X itself and not from its decomposition."""
        return self._gradient(self.X, Theta)

    def reduced_loss(self, Theta1: Float[Array, "r m"]) -> Float[Array, ""]:
        """L as a function of Theta1 = Phi1^T Theta, on which alone it depends."""
        return self.scale * self.output_loss(self.output_scale * self._times(self.design, Theta1), self.Y)

    def reduced_loss_gradient(self, Theta1: Float[Array, "r m"]) -> Float[Array, "r m"]:
        """dL/dTheta1."""
        return self._gradient(self.design, Theta1)

    @staticmethod
    def _times(X: Array | None, Theta: Array) -> Array:
        return Theta if X is None else X @ Theta

    def _gradient(self, X: Array | None, Theta: Array) -> Array:
        gradient = self.slopes(X, Theta)
        return gradient if X is None else X.T @ gradient

    # -- samples -------------------------------------------------------------------------------------------------------

    def slopes(self, X: Float[Array, "N r"] | None, Theta: Float[Array, "r m"]) -> Float[Array, "N m"]:
        """The derivative of the loss by `X Theta`, for inputs as they are or in the data's coordinates."""
        outputs = self.output_scale * self._times(X, Theta)
        return self.scale * self.output_scale * jax.grad(self.output_loss)(outputs, self.Y)

    def weighted_gradient(self, Theta: Float[Array, "n m"], a: Float[Array, " N"]) -> Float[Array, "n m"]:
        slopes = a[:, None] * self.slopes(self.X, Theta)
        return slopes if self.X is None else self.X.T @ slopes

    def rows(self: Problem, index: Int[Array, " B"]) -> Problem:
        self._refuse_own_rows()
        index = check_index(jnp.asarray(index), self.num_samples)
        X = jax.nn.one_hot(index, self.num_samples, dtype=self.dtype) if self.X is None else take(self.X, index)
        design = X if self.design is None else take(self.design, index)
        return self._with_samples(X, take(self.Y, index), design, self.scale * (self.num_samples / index.size), index)

    def fresh(self: Problem, X: Float[Array, "B n"], Y: Float[Array, "B m"]) -> Problem:
        """The problem of other samples in the same coordinates, with the loss `(q/B) sum_b l(c x_b^T Theta, y_b)`.

        Inputs must lie in the directions that this problem sees; other parts of them are lost where it is restricted.
        """
        X, Y = X.astype(self.dtype), Y.astype(self.dtype)
        return self._with_samples(X, Y, self.to_data(X.T).T, self.scale / X.shape[0], None)

    def noisy(self: Problem, draw: Draw) -> Problem:
        return eqx.tree_at(lambda problem: problem.Y, self, self.Y + draw(self.Y.shape, self.dtype))

    def _refuse_own_rows(self) -> None:
        """Refuses a kind of the user's that has arrays of its own with one row a sample, of which rows are not taken here."""
        package = str(__package__)
        if type(self).__module__.startswith(package):
            return
        ours = {
            name
            for base in type(self).__mro__
            if base.__module__.startswith(package)
            for name in vars(base).get("__annotations__", {})
        }
        for name, value in vars(self).items():
            if name not in ours and any(
                leaf.shape[:1] == (self.num_samples,) for leaf in jax.tree.leaves(value) if eqx.is_array(leaf)
            ):
                raise ValueError(
                    f"A {type(self).__name__} has rows of its own in `{name}`: give it a `rows(index)` that takes some of those."
                )

    def _with_samples(self: Problem, X, Y, design, scale, index: Int[Array, " B"] | None) -> Problem:
        """Other samples, those of these numbers or new ones."""
        where = lambda problem: (problem.X, problem.Y, problem.design, problem.scale)  # noqa: E731
        return eqx.tree_at(where, self, (X, Y, design, scale), is_leaf=lambda leaf: leaf is None)


@sizes_of.register
def _(problem: OutputProblem) -> dict[str, int]:
    return {"N": problem.num_samples, "n": problem.num_inputs, "m": problem.num_outputs, "r": problem.rank}


@partial(jax.jit, static_argnums=3)
def _parts(W: Array, s: Array, Phi1T: Array, r: int) -> tuple[Array, Array, Array, Array]:
    """What is kept of a decomposition: r singular values with their vectors, and the mark of those of the inputs."""
    Phi1 = Phi1T[:r].T
    return W[:, :r], s[:r], Phi1, mark(Phi1)


@jax.jit
def _condition(s: Array) -> Array:
    return (s[0] / s[-1]) ** 2


def mark(Phi1: Float[Array, "n r"]) -> Float[Array, " r"]:
    """Numbers that tell a basis from others."""
    return jnp.cos(jnp.arange(Phi1.shape[0], dtype=Phi1.dtype)) @ jax.lax.stop_gradient(Phi1)


def loss_scale(scale: LossScale | Float[ArrayLike, ""] | int, num_samples: int | Array) -> Array:
    """q, by a number or the name of one; `num_samples` may be their total weight."""
    if _checks.is_name(scale):
        named = {"sum": 1.0, "mean": 1.0 / num_samples, "averaged": 2.0 / num_samples}
        _checks.check_choice(scale, "scale", tuple(named))
        scale = named[scale]
    _checks.check_positive(scale, "scale")
    return jnp.asarray(scale, jnp.result_type(float))


def rank_of(X: Array, s: Array, rank: int | None = None, rank_rtol: float | None = None) -> int:
    """The rank of inputs X with singular values s: what is asked for, or how many of them are not round-off."""
    if rank is None:
        if _checks.is_traced(s):
            raise ValueError(
                "The rank of a traced `X` is unknown: pass `rank=` inside jit, vmap, grad or a trial function, or build the "
                "problem outside, whose `X` is then a constant there."
            )
        values = np.asarray(s)
        if rank_rtol is None:
            # Round-off of entries moves singular values by eps ||X||_F at most, however long X is. The decomposition's own grows
            # with its length where it is made in float32: what is asked is the rank of the numbers given.
            rank_rtol = 8 * min(X.shape) ** 0.5 * float(jnp.finfo(X.dtype).eps)
            if values.dtype == np.float32:
                values = np.linalg.svd(np.asarray(X, np.float64), compute_uv=False)
        _checks.check_not_negative(rank_rtol, "rank_rtol")
        if values[0] == 0:
            raise ValueError("Argument `X` is zero: there is nothing to learn from it.")
        return int(np.sum(values > rank_rtol * values[0]))
    if not 1 <= rank <= min(X.shape):
        raise ValueError(f"Argument `rank` must lie between 1 and min(N, n) = {min(X.shape)}, but is {rank}.")
    return rank
