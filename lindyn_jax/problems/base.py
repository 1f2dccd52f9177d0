"""What every problem is: a differentiable loss of the end-to-end matrix."""

import inspect
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .. import _checks, _html
from .._public import role_of, sizes_of

if TYPE_CHECKING:
    from .penalised import Penalised


class AbstractProblem(eqx.Module):
    """A differentiable loss of the end-to-end matrix Theta, shape (n, m).

    A problem of your own is a subclass with `num_inputs`, `num_outputs` and `loss`. Flow, descent, the reduction of the width,
    ensembles and the observables that do not ask for least squares then take it; statements and closed forms refuse it.

    **Fields:** `num_inputs`, n, and `num_outputs`, m: whole numbers, as fields or properties.

    **Notes:** the loss is differentiated by JAX unless `loss_gradient` is written out. Where whole directions of the inputs never
    get a gradient, `restrict` leaves them out.

    Example:

        >>> class Fourth(ld.AbstractProblem):
        ...     Y: jax.Array
        ...     num_inputs = 2
        ...     num_outputs = 2
        ...
        ...     def loss(self, Theta):
        ...         return jnp.sum((Theta - self.Y) ** 4) / 4
        >>> print(Fourth(jnp.diag(jnp.array([2.0, 1.0]))).loss_gradient(jnp.zeros((2, 2))))
        [[-8. 0.]
         [ 0. -1.]]
    """

    # Whether noise on the targets enters the gradient linearly.
    is_linear_in_targets: ClassVar[bool] = False

    num_inputs: eqx.AbstractVar[int]
    num_outputs: eqx.AbstractVar[int]

    def _repr_html_(self) -> str:
        sizes = [("inputs", self.num_inputs), ("outputs", self.num_outputs), ("samples", self.num_samples)]
        line = ", ".join(f"{name}: {size}" for name, size in sizes if size is not None)
        return _html.card(type(self).__name__, [line], ("array", "type", "size"), _html.arrays_of(self))

    def __check_init__(self):
        # Gradients, reduced forms and restrictions of the kinds of this package are written out for their own loss.
        for base in type(self).__mro__[1:]:
            ours = base.__module__.startswith(str(__package__)) and issubclass(base, AbstractProblem)
            if ours and not inspect.isabstract(base):
                _checks.refuse_overrides(type(self), base)

    @abstractmethod
    def loss(self, Theta: Float[Array, "n m"]) -> Float[Array, ""]:
        """L(Theta)."""

    def loss_gradient(self, Theta: Float[Array, "n m"]) -> Float[Array, "n m"]:
        """dL/dTheta."""
        return jax.grad(self.loss)(Theta)

    def hessian_vector(self, Theta: Float[Array, "n m"], direction: Float[Array, "n m"]) -> Float[Array, "n m"]:
        """The second derivative of L applied to a direction, which is that of dL/dTheta along it."""
        return jax.jvp(self.loss_gradient, (Theta,), (direction,))[1]

    def restrict(self) -> "tuple[AbstractProblem, Float[Array, 'n r'] | None]":
        """The problem of `Theta1 = Phi1^T Theta`, on which alone the loss depends, and Phi1, or `None` for all of it.

        Its loss may differ from this one's by a number that does not depend on Theta.
        """
        return self, None

    def restrict_outputs(self) -> "tuple[AbstractProblem, Float[Array, 'm s'] | None]":
        """The problem of `Theta Psi1`, on which alone the loss depends, and Psi1, or `None` for all of it."""
        return self, None

    # -- samples -------------------------------------------------------------------------------------------------------

    @property
    def num_samples(self) -> int | None:
        """N, of how many losses of samples this one is the sum; `None` where it is not known to be one."""
        return None

    def sampled(self) -> "AbstractProblem":
        """This problem as a sum over samples, in the same coordinates: what batches are taken from.

        **Raises:** `ValueError` for a problem that is not known to be such a sum.
        """
        raise ValueError(
            f"Batches are taken from the samples of a problem, but a {type(self).__name__} is not known to be a sum over samples."
        )

    def rows(self, index: Int[Array, " B"]) -> "AbstractProblem":
        """The problem of some samples in the coordinates of all, whose mean over uniform batches is this one.

        Its loss is `(N/B) sum_{i in index} (loss of sample i)`, weights and scale included: for `scale="averaged"` it is the
        mean over the batch, `||Y_B - X_B Theta||_F^2 / B`. A sample that comes twice counts twice.

        **Args:** `index`, numbers of samples from 0 to N - 1, which may be traced: of one that is out of range the loss is NaN.

        **Raises:** `ValueError` for a problem that is not known to be a sum over samples, or concrete numbers out of range.
        """
        return self.sampled().rows(index)

    def weighed(self, a: Float[Array, " N"]) -> "AbstractProblem":
        """The problem in which the loss of sample i counts a_i times.

        **Raises:** `ValueError` unless the losses of the samples are known one by one.
        """
        raise ValueError(
            f"A {type(self).__name__} does not know the losses of its samples one by one, so that some cannot be left out: take "
            "batches of one size, without `largest`."
        )

    def noisy(self, draw: "Draw") -> "AbstractProblem":
        """The problem with noise on its targets: `draw(shape, dtype)` makes it.

        **Raises:** `ValueError` for a problem whose targets are no numbers to which noise can be added.
        """
        raise ValueError(
            f"Label noise is added to targets that are numbers, but a {type(self).__name__} has no such targets."
        )

    # -- coordinates -------------------------------------------------------------------------------------------------

    @property
    def dtype(self):
        """The floating-point type of the problem's own numbers, the default one if it has none."""
        leaves = jax.tree.leaves(eqx.filter(self, eqx.is_inexact_array))
        return jnp.result_type(*leaves) if leaves else jnp.result_type(float)

    @property
    def rank(self) -> int:
        """r, the number of directions of the inputs in which the loss depends on Theta."""
        frame = self.frame
        return self.num_inputs if frame is None else frame.shape[1]

    @property
    def num_frozen(self) -> int:
        """n - r, the number of input directions that the loss does not see: the rows of U2."""
        return self.num_inputs - self.rank

    @property
    def beyond(self) -> str | None:
        """What it is or has that least squares has not, in words such as "has a link function"; `None` for least squares."""
        return f"is a {type(self).__name__}"

    @property
    def is_quadratic(self) -> bool:
        """Whether this is least squares, with all that follows from it."""
        return self.beyond is None

    @property
    def penalty(self) -> "Penalised | None":
        """This problem if it has terms on the weights, or `None`."""
        return None

    @property
    def plain(self) -> "AbstractProblem":
        """The problem without terms on the weights."""
        return self

    @property
    def singular_values(self) -> Float[Array, " r"]:
        """Those of the inputs that Theta acts on, descending; ones where the loss is a function of Theta itself."""
        return jnp.ones(self.rank, self.dtype)

    @property
    def frame(self) -> Float[Array, "n r"] | None:
        """Phi1, an orthonormal basis of the directions of the inputs that the loss sees; `None` for all of them."""
        return self.restrict()[1]

    @property
    def coordinates(self) -> Float[Array, " r"] | None:
        """Numbers that tell the coordinates of these data from those of others; `None` for the inputs' own."""
        return None

    def to_data(self, U: Float[Array, "n k"]) -> Float[Array, "r k"]:
        """Phi1^T U: the rows that move."""
        return U if self.frame is None else self.frame.T @ U

    def from_data(self, U1: Float[Array, "r k"]) -> Float[Array, "n k"]:
        """Phi1 U1: moving rows back in the inputs' coordinates."""
        return U1 if self.frame is None else self.frame @ U1

    def reduced_loss(self, Theta1: Float[Array, "r m"]) -> Float[Array, ""]:
        """L as a function of Theta1 = Phi1^T Theta, on which alone it depends."""
        return self.loss(self.from_data(Theta1))

    def reduced_loss_gradient(self, Theta1: Float[Array, "r m"]) -> Float[Array, "r m"]:
        """dL/dTheta1."""
        return self.restrict()[0].loss_gradient(Theta1)

    def refuse_terms(self, name: str) -> None:
        """Refuses a problem with terms on the weights, for `name`, which is about the loss alone.

        **Raises:** `ValueError` where `penalty` is not `None`.
        """
        if self.penalty is not None:
            self.penalty.refuse_link(name)

    def refuse_link(self, name: str) -> None:
        """Refuses a problem that is not least squares, for `name`, which is about least squares.

        **Raises:** `ValueError` unless `is_quadratic`.
        """
        if not self.is_quadratic:
            raise ValueError(
                f"`{name}` is defined for least squares, but the problem is a {type(self).__name__}, whose least loss is not "
                "known: use `loss`."
            )


# Noise of a shape and a dtype.
Draw = Callable[[tuple[int, ...], Any], Array]


class SampledProblem(AbstractProblem):
    """A loss that is a sum over samples, with the samples at hand."""

    @abstractmethod
    def rows(self, index: Int[Array, " B"]) -> "SampledProblem": ...

    @abstractmethod
    def weighted_gradient(self, Theta: Float[Array, "n m"], a: Float[Array, " N"]) -> Float[Array, "n m"]:
        """`sum_i a_i g_i`, with g_i the gradient of the loss of sample i: for ones that of the loss."""

    def sampled(self) -> "SampledProblem":
        return self


def times_weights(problem: Any, a: Float[Array, " N"]) -> Any:
    """A problem with a field of weights, in which sample i counts a_i times."""
    weights = a if problem.weights is None else a * problem.weights
    return eqx.tree_at(lambda tree: tree.weights, problem, weights, is_leaf=lambda leaf: leaf is None)


def check_index(index: Int[Array, " B"], num_samples: int) -> Int[Array, " B"]:
    """Numbers of samples; those that are traced and out of range are made to point beyond the last one."""
    if index.ndim != 1 or index.size == 0 or not jnp.issubdtype(index.dtype, jnp.integer):
        raise ValueError(
            f"Argument `index` must be whole numbers of shape (B,) with B >= 1, but has shape {index.shape} and dtype "
            f"{index.dtype}."
        )
    if not _checks.is_traced(index):
        values = np.asarray(index)
        bad = np.flatnonzero((values < 0) | (values >= num_samples))
        if len(bad):
            raise ValueError(
                f"Argument `index` must lie between 0 and {num_samples - 1}, but is {values[bad[0]]} at index {bad[0]}."
            )
    return jnp.where(index < 0, num_samples, index)


def take(array: Array, index: Int[Array, " B"]) -> Array:
    """Some rows of an array, NaN for those beyond the last."""
    return array.at[index].get(mode="fill", fill_value=jnp.nan)


@sizes_of.register
def _(problem: AbstractProblem) -> dict[str, int]:
    return {"n": problem.num_inputs, "m": problem.num_outputs, "r": problem.rank}


role_of.register(AbstractProblem, lambda problem: "problem")
