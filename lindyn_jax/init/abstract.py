"""What a start as an object is: drawn for a problem from a key, told by a label, and refused where it does not exist."""

import dataclasses
import math
from abc import abstractmethod

import equinox as eqx
import jax

from .. import _checks
from ..models import AbstractModel, Reduction
from ..problems import LeastSquares
from ._parts import Key, Number, check_stds, pair_of, stds_of
from .gaussians import gaussian_core

Numbers = Number | tuple[Number, ...]


class AbstractStart(eqx.Module):
    """Where a trajectory begins, as an object. Its fields are what it is told by; `draw` is all that one of your own needs.

    Example:

        >>> class Identity(ld.init.AbstractStart):
        ...     h: int
        ...
        ...     def draw(self, problem, *, key):
        ...         return ld.TwoLayer(jnp.eye(problem.num_inputs, self.h), jnp.eye(problem.num_outputs, self.h))
        >>> start = Identity(2).draw(ld.factorization(jnp.eye(2)), key=jax.random.key(0))
        >>> Identity(2).label(), float(jnp.trace(start.product()))
        ('identity, h = 2', 2.0)
    """

    @abstractmethod
    def draw(self, problem: LeastSquares, *, key: Key) -> AbstractModel:
        """The network that a trajectory begins with."""

    def check(self, problem: LeastSquares) -> None:
        """Refuses, in a `ValueError`, what does not exist for this problem; by default nothing."""

    def scales(self) -> tuple[Number, Number] | None:
        """Standard deviations of the entries of U and V in the Gaussian draw that it begins with; `None` without one."""
        return None

    def label(self) -> str:
        """A few words that tell this start from others."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        words = [f"{name} = {listed(value)}" for name, value in values.items() if value is not None]
        return ", ".join([type(self).__name__.lower(), *words])


class AbstractGaussianStart(AbstractStart):
    """A start that begins with a Gaussian draw in its reduced form, so that the width is a number and costs nothing.

    Starts with the same key, width and `std_U std_V` have the same product: what differs is the imbalance alone.

    **Fields:** `h`, the width, a whole number from 1 to 1e12; `std`, of the entries (a number, or one for U and one for V, of
    which one may be zero), or `alpha`, the exponent in N(0, h^{-2 alpha}): 0.5 where neither is given. All may be traced.

    Example:

        >>> problem, key = ld.factorization(jnp.eye(2)), jax.random.key(0)
        >>> gaussian, balanced = ld.init.Gaussian(100, std=0.1), ld.init.Balanced(100, std=0.1)
        >>> gaussian.scales(), balanced.scales()
        ((0.1, 0.1), (0.1, 0.1))
        >>> difference = gaussian.draw(problem, key=key).product() - balanced.draw(problem, key=key).product()
        >>> bool(jnp.linalg.norm(difference) < 1e-10)
        True
    """

    h: eqx.AbstractVar[Number]
    std: eqx.AbstractVar[Numbers | None]
    alpha: eqx.AbstractVar[Number | None]

    @abstractmethod
    def design(self, problem: LeastSquares, gaussian: Reduction) -> Reduction:
        """The start that begins with this Gaussian core."""

    def least_width(self, problem: LeastSquares) -> tuple[int, str]:
        """The least width of such a start, and why."""
        return 1, "1"

    def scales(self) -> tuple[Number, Number]:
        """Standard deviations of the entries of U and V in the Gaussian draw."""
        if self.std is not None:
            return pair_of(self.std)
        alpha = 0.5 if self.alpha is None else self.alpha
        if _checks.is_traced(self.h, alpha):
            return stds_of(None, alpha, self.h)
        std = float(self.h) ** -float(alpha)
        return std, std

    def draw(self, problem: LeastSquares, *, key: Key) -> Reduction:
        """The start in its reduced form, with k = r + m columns (k = min(h, r + m) of the Gaussian one) in a basis of its own."""
        self.check(problem)
        return self.design(problem, gaussian_core(problem, self.h, std=self.scales(), key=key))

    def check(self, problem: LeastSquares) -> None:
        """Refuses a width out of range, both `std` and `alpha`, and weights that are not positive, vanish or overflow."""
        if not _checks.is_traced(self.h):
            check_width(self.h)
            least, why = self.least_width(problem)
            if float(self.h) < least:
                kind = type(self).__name__.lower()
                raise ValueError(f"A start of kind {kind} needs a width of at least {why} = {least}, not {self.h:g}.")
        if _checks.is_traced(*jax.tree.leaves(self)):
            return
        if self.std is not None and self.alpha is not None:
            raise ValueError("Give only one of `std` and `alpha`: the scale of the start by value or by exponent.")
        if self.alpha is not None:
            _checks.check_positive(self.alpha, "alpha")
        stds = self.scales() if self.std is None else check_stds(self.scales())
        check_sizes(stds)
        if self.std is not None and min(float(std) for std in stds if std) < 1e-100:
            raise ValueError(
                f"With standard deviations of {listed(self.std)} the squares of the weights vanish: the start is the saddle at "
                "zero, which gradients never leave. Use a larger one."
            )
        alpha = 0.5 if self.alpha is None else self.alpha
        if self.std is None and alpha * math.log10(self.h) > 100:
            raise ValueError(
                f"With alpha = {alpha:g} and h = {self.h:g} the weights h^(-alpha) vanish: the start is the saddle at zero, "
                "which gradients never leave. Use a smaller exponent."
            )

    def label(self) -> str:
        text = f"{type(self).__name__.lower()}, h = {self.h:g}"
        if self.std is not None:
            return f"{text}, std = {listed(self.std)}"
        return f"{text}, alpha = {0.5 if self.alpha is None else self.alpha:g}"


def listed(value) -> str:
    """One number or several, with commas between them, as labels show them."""
    try:
        return ", ".join(f"{number:g}" for number in _checks.as_tuple(value)) or str(value)
    except (TypeError, ValueError):
        return str(value)


def check_width(h) -> None:
    if not (1 <= float(h) <= 1e12 and float(h) == round(float(h))):
        raise ValueError(f"The width must be a whole number from 1 to 1e12, but is {h:g}.")


def check_sizes(values) -> None:
    if max(map(abs, values)) > 1e30:
        raise ValueError(
            "The start has weights above 1e30, whose loss is no number that can be followed: choose units in which they are "
            "closer to 1."
        )
