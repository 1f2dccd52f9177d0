"""The problem: data, the loss, and the coordinates in which the data become a list of singular values.

Every dynamics of this package sees the data only through `output_scale * X = W S Phi1^T`, its thin singular value
decomposition: the moving part of the first layer is `U1 = Phi1^T U`, the target is `Ytil = W^T Y`, and the excess loss is
`(q/2) ||Ytil - S U1 V^T||_F^2`. A `LeastSquares` computes these once.
"""

from collections.abc import Callable
from typing import ClassVar, TypeGuard, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from .. import _checks
from .._public import public
from .base import AbstractProblem, Draw
from .output import LossScale, OutputProblem
from .penalised import Penalised
from .penalty import ImbalancePenalty
from .squares import Squares


def sigmoid(Z: Array) -> Array:
    """`jax.nn.sigmoid` under a name by which it can be pickled."""
    return jax.nn.sigmoid(Z)


def tanh(Z: Array) -> Array:
    """`jnp.tanh` under a name by which it can be pickled."""
    return jnp.tanh(Z)


LINKS: dict[str, Callable[[Array], Array] | None] = {"identity": None, "sigmoid": sigmoid, "tanh": tanh}

Problem = TypeVar("Problem", bound="LeastSquares")


class LeastSquares(OutputProblem):
    r"""Least squares on data X and targets Y.

    `L(Theta) = (q/2) ||Y - link(c X Theta)||_F^2` with loss scale q, output scale c, and no link unless one is given.

    **Args:**

    - `X`: inputs, shape (N, n), or `None` for the identity (see `factorization`), which is then never built.
    - `Y`: targets, shape (N, m).
    - `scale`: q, a positive number or the name of one: `"sum"` is 1 (T21, M21, M22), `"mean"` is 1/N (G19), `"averaged"` is
        2/N (M22's experiments, whose loss is `||.||^2/N`). May be traced.
    - `output_scale`: c > 0, a factor on the network's output, such as M22's `1/sqrt(m h)`; the same as scaling X. All
        spectral quantities below are those of `c X`. May be traced.
    - `link`: an elementwise function on the network's output, or the name of one: `"identity"` (no link), `"sigmoid"` (T21
        Fig. 3) or `"tanh"`. With a link there is no closed-form minimum: `loss_star`, `theta_hat` and `excess_loss` raise an
        error. What the data do still goes through `X Phi1`, and the imbalance is still conserved by the flow.
    - `rank`: rank of X. By default the number of singular values above `rank_rtol` times the largest. Must be given when X
        is traced.
    - `rank_rtol`: relative rank tolerance, default `8 sqrt(min(N, n))` times the machine epsilon of the dtype,
        which does not grow with the number of samples.

    **Raises:** `ValueError` for wrong shapes, NaN or infinity in concrete data, X = 0, a scale that is not positive, a link
    that is no elementwise function, or a subclass that replaces anything of this class: another loss is another problem, which
    solvers and statements do not know.

    **Notes:** the data may be differentiated, but derivatives of the singular vectors exist only for distinct singular
    values; pass `reduce=False` to the solvers to differentiate with respect to data without that restriction.

    **Source:** M22 section 2.1 (the coordinates), G19 (2) (q = 1/N); the letters are those of the notation page.

    Example:

        >>> X, Y = jnp.array([[1.0, 1.0]]), jnp.array([[2.0]])
        >>> problem = ld.LeastSquares(X, Y)
        >>> print(problem.loss(jnp.zeros((2, 1))), problem.theta_hat.T, problem.rank, problem.singular_values)
        2.0 [[1. 1.]] 1 [1.414]
        >>> print(ld.LeastSquares(X, Y, link="tanh").loss(jnp.ones((2, 1))))  # (2 - tanh 2)^2/2
        0.5366
    """

    is_linear_in_targets: ClassVar[bool] = True

    Ytil: Float[Array, "r m"]
    residual: Float[Array, ""]
    link: Callable[[Array], Array] | None = eqx.field(static=True)

    @public
    def __init__(
        self,
        X: Float[ArrayLike, "N n"] | None,
        Y: Float[ArrayLike, "N m"],
        *,
        scale: LossScale | Float[ArrayLike, ""] | int = 1.0,
        output_scale: Float[ArrayLike, ""] | int = 1.0,
        link: Callable[[Array], Array] | str | None = None,
        rank: int | None = None,
        rank_rtol: float | None = None,
    ):
        _checks.refuse_overrides(type(self), LeastSquares)
        link = _named_link(link)
        W = self._read(X, Y, scale, output_scale, rank, rank_rtol)
        self.link = _elementwise(link, self.dtype)
        self.Ytil, self.residual = (self.Y, jnp.zeros((), self.dtype)) if W is None else _projected(W, self.Y)
        # Without a link the loss is a function of Ytil, however many samples there are.
        self.design = None if W is None or self.link is None else W * self.data_singular_values

    # -- regularization ----------------------------------------------------------------------------------------------

    def regularized(
        self,
        Lambda: Float[ArrayLike, "h h"] | Float[ArrayLike, ""] | int,
        weight: Float[ArrayLike, ""] | int = 1 / 8,
    ) -> Penalised:
        r"""This problem with the penalty `w ||D - Lambda||_F^2` on the imbalance `D = U1^T U1 - V^T V` of two-layer models.

        For `factorization(Y)`, lambda0 a number and the weight 1/8, `P = [U; V] [U; V]^T` solves `P' = A P + P A - P^2` with
        `A = [[lambda0/2 I, Y], [Y^T, -lambda0/2 I]]`. With loss scale q and output scale c the weight that does this is
        `q c^2/8`, and then `P' = A P + P A - q c^2 P^2`, `A = q [[c^2 lambda0/2 I, c Y], [c Y^T, -c^2 lambda0/2 I]]`.

        **Args:** `Lambda`, a number lambda0 for `lambda0 I` or a symmetric matrix of shape (h, h), and `weight`, w >= 0, both of
        which may be traced; see `ImbalancePenalty`.

        **Returns:** `Penalised(self, imbalance=ImbalancePenalty(Lambda, weight))`.

        **Raises:** `ValueError` as `ImbalancePenalty` does. Models that are not two-layer networks refuse such a problem, and the
        reduction of the width refuses a matrix Lambda, for which it is not exact.

        **Notes:** on the set D = Lambda, which the flow does not leave, the penalty and its gradient are zero and the flow is the
        plain one for every weight.

        **Source:** T21 Proposition 4 and (26).
        """
        return Penalised(self, imbalance=ImbalancePenalty(Lambda, weight))

    # -- spectrum ----------------------------------------------------------------------------------------------------

    @property
    def beyond(self) -> str | None:
        return None if self.link is None else "has a link function"

    @property
    def theta_hat(self) -> Float[Array, "n m"]:
        """Theta_hat = (c X)^+ Y, the minimum-norm solution."""
        return self.from_data(self.reduced_theta_hat)

    @property
    def reduced_theta_hat(self) -> Float[Array, "r m"]:
        """Phi1^T Theta_hat = S^{-1} Ytil."""
        self.refuse_link("theta_hat")
        return self.Ytil / self.singular_values[:, None]

    def restrict(self: Problem) -> "tuple[Problem, Float[Array, 'n r'] | None]":
        if self.X is None:
            return self, None
        if self.link is not None:
            return super().restrict()
        # As many samples as there are directions; the loss is less by that of the part of Y that no Theta reaches.
        small = (jnp.diag(self.data_singular_values), self.Ytil, None, None, jnp.zeros_like(self.residual))
        where = lambda problem: (problem.X, problem.Y, problem.Phi1, problem.inputs_mark, problem.residual)  # noqa: E731
        return eqx.tree_at(where, self, small, is_leaf=lambda leaf: leaf is None), self.Phi1

    # -- loss --------------------------------------------------------------------------------------------------------

    @property
    def loss_star(self) -> Float[Array, ""]:
        """L*, the least loss over all Theta."""
        self.refuse_link("loss_star")
        return self.scale / 2 * self.residual

    def predict(self, Theta: Float[Array, "n m"]) -> Float[Array, "N m"]:
        """link(c X Theta), in the coordinates of the data as given."""
        outputs = super().predict(Theta)
        return outputs if self.link is None else self.link(outputs)

    def loss(self, Theta: Float[Array, "n m"]) -> Float[Array, ""]:
        """L(Theta) = (q/2) ||Y - link(c X Theta)||_F^2, from X itself and not from its decomposition."""
        return self.scale / 2 * jnp.sum((self.Y - self.predict(Theta)) ** 2)

    def output_loss(self, outputs: Float[Array, "N m"], Y: Float[Array, "N m"]) -> Float[Array, ""]:
        return jnp.sum((Y - (outputs if self.link is None else self.link(outputs))) ** 2) / 2

    def error(self, Theta1: Float[Array, "r m"]) -> Float[Array, "r m"]:
        """E = Ytil - S Theta1, the error in the data's coordinates, for Theta1 = Phi1^T Theta."""
        self.refuse_link("error")
        return self.Ytil - self.singular_values[:, None] * Theta1

    def excess_loss(self, Theta1: Float[Array, "r m"]) -> Float[Array, ""]:
        """L - L* = (q/2) ||E||_F^2, without the cancellation of that difference."""
        self.refuse_link("excess_loss")
        return self.scale / 2 * jnp.sum(self.error(Theta1) ** 2)

    def reduced_loss(self, Theta1: Float[Array, "r m"]) -> Float[Array, ""]:
        """L as a function of Theta1 = Phi1^T Theta, on which alone it depends."""
        return super().reduced_loss(Theta1) if self.link is not None else self.excess_loss(Theta1) + self.loss_star

    def loss_gradient(self, Theta: Float[Array, "n m"]) -> Float[Array, "n m"]:
        """dL/dTheta; from X itself and not from its decomposition, where Theta is not in the data's coordinates already."""
        return self.reduced_loss_gradient(Theta) if self.frame is None else super().loss_gradient(Theta)

    def reduced_loss_gradient(self, Theta1: Float[Array, "r m"]) -> Float[Array, "r m"]:
        """dL/dTheta1; without a link it is `-q S E`, at a cost that does not depend on N or n."""
        if self.link is not None:
            return super().reduced_loss_gradient(Theta1)
        return -self.scale * self.singular_values[:, None] * self.error(Theta1)

    # -- samples -------------------------------------------------------------------------------------------------------

    def sampled(self) -> Squares:  # pyright: ignore[reportIncompatibleMethodOverride]
        return Squares(self, self.link)

    def rows(self, index: Int[Array, " B"]) -> Squares:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.sampled().rows(index)

    def noisy(self: Problem, draw: Draw) -> Problem:
        if self.link is not None:
            return super().noisy(draw)
        # Of noise on Y the loss sees `W^T noise`, which is noise of the same kind, at a cost that does not depend on N.
        noise = draw(self.Ytil.shape, self.dtype)
        whole = noise
        if self.X is not None:
            whole = self.X @ self.from_data(noise / self.data_singular_values[:, None])
        where = lambda problem: (problem.Y, problem.Ytil)  # noqa: E731
        return eqx.tree_at(where, self, (self.Y + whole, self.Ytil + noise))

    def refuse_link(self, name: str) -> None:
        """Refuses a problem with a link function, for `name`, which is about least squares.

        **Raises:** `ValueError` for a problem with a link.
        """
        if self.link is not None:
            raise ValueError(
                f"`{name}` is undefined for a problem with a link function: its least loss has no closed form. "
                "Use `loss`, or leave out `link`."
            )


@jax.jit
def _projected(W: Float[Array, "N r"], Y: Float[Array, "N m"]) -> tuple[Float[Array, "r m"], Float[Array, ""]]:
    """Ytil, and the square of what is left of Y."""
    Ytil = W.T @ Y
    return Ytil, jnp.sum((Y - W @ Ytil) ** 2)


def is_least_squares(problem: AbstractProblem) -> TypeGuard[LeastSquares]:
    """Whether a problem is least squares, with all that follows from it, to a type checker as well."""
    return problem.is_quadratic


@public
def factorization(
    Y: Float[ArrayLike, "n m"],
    *,
    scale: LossScale | Float[ArrayLike, ""] | int = 1.0,
    output_scale: Float[ArrayLike, ""] | int = 1.0,
) -> LeastSquares:
    """Matrix factorization, `L = (q/2) ||Y - c U V^T||_F^2`: least squares with X = I_n, which is never built.

    **Args:** `Y`, shape (n, m); `scale` and `output_scale` as in `LeastSquares`, with N = n.

    **Raises:** as `LeastSquares`.

    **Source:** T21 (11).

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> print(problem.loss(jnp.zeros((2, 2))), problem.loss_star, problem.condition)
        2.5 0.0 1.0
        >>> print(problem.theta_hat)
        [[2. 0.]
         [0. 1.]]
    """
    return LeastSquares(None, Y, scale=scale, output_scale=output_scale)


def _named_link(link: Callable[[Array], Array] | str | None) -> Callable[[Array], Array] | None:
    if link is None or (_checks.is_name(link) and link in LINKS):
        return None if link is None else LINKS[link]
    if not callable(link):
        names = ", ".join(map(repr, LINKS))
        raise ValueError(f"Argument `link` must be an elementwise function or one of {names}, but is {link!r}.")
    pairs = ((jax.nn.sigmoid, sigmoid), (jnp.tanh, tanh))
    return next((ours for theirs, ours in pairs if link is theirs), link)


def _elementwise(link: Callable[[Array], Array] | None, dtype) -> Callable[[Array], Array] | None:
    """The link, after making sure that it takes arrays of any shape to arrays of that shape."""
    if link is None or any(link is known for known in LINKS.values()):
        return link
    for shape in ((), (2, 3), (3, 2)):
        given = jax.ShapeDtypeStruct(shape, dtype)
        try:
            returned = jax.eval_shape(link, given)
        except Exception as error:
            raise ValueError(
                "Argument `link` must be an elementwise function of arrays of any shape, but fails for one of shape "
                f"{shape}: {type(error).__name__}."
            ) from error
        if (getattr(returned, "shape", None), getattr(returned, "dtype", None)) != (given.shape, given.dtype):
            raise ValueError(f"Argument `link` must be an elementwise function, but makes {returned} of {given}.")
    return link
