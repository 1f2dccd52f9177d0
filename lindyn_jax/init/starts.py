"""Starts as objects that are drawn in their reduced form, so that the width is a number.

`studies.simulate`, `studies.audit`, ensembles and the command line draw from them.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .. import _checks
from ..models import Reduction, TwoLayer
from ..problems import LeastSquares, factorization
from ._parts import Key, Number
from .abstract import AbstractGaussianStart, AbstractStart, Numbers, check_sizes, check_width, listed
from .designed import balanced, with_imbalance
from .modes import spectral
from .scalings import scaling


class Gaussian(AbstractGaussianStart):
    """Independent Gaussian entries. **Fields:** as `AbstractGaussianStart`. **Source:** M22 section 4.2.

    Example:

        >>> problem = ld.factorization(jnp.eye(2))
        >>> start = ld.init.Gaussian(10**9, alpha=0.5).draw(problem, key=jax.random.key(0))
        >>> print(ld.observables.imbalance_spectrum(start, problem).round(2))
        [ 1.  1. -1. -1.]
    """

    h: Number
    std: Numbers | None = None
    alpha: Number | None = None

    def design(self, problem: LeastSquares, gaussian: Reduction) -> Reduction:
        return gaussian


class Balanced(AbstractGaussianStart):
    """`D = lambda0 I` with the product of the Gaussian start of the same scale and key, also outside the range of the data.

    **Fields:** as `AbstractGaussianStart`, with h >= min(r, m); `lambda0`, by default 0: with other ones every hidden direction
    has that imbalance, so that h <= r if it is positive and h <= m if it is negative. A traced one serves widths up to
    min(r, m). A traced width that is too large gives NaN. **Source:** M22 section 5.2; `balanced`.

    Example:

        >>> problem = ld.factorization(jnp.eye(2))
        >>> start = ld.init.Balanced(2, std=0.1, lambda0=0.5).draw(problem, key=jax.random.key(0))
        >>> print(ld.observables.imbalance_spectrum(start, problem)[:2].round(4))
        [0.5 0.5]
    """

    h: Number
    std: Numbers | None = None
    alpha: Number | None = None
    lambda0: Number = 0.0

    def least_width(self, problem: LeastSquares) -> tuple[int, str]:
        return (1, "1") if self._is_imbalanced() else (min(problem.rank, problem.num_outputs), "min(r, m)")

    def check(self, problem: LeastSquares) -> None:
        super().check(problem)
        _checks.check_finite(self.lambda0, "lambda0")
        most, words = self._most(problem)
        if self._is_imbalanced() and not _checks.is_traced(self.h) and float(self.h) > most:
            value = "that is traced" if _checks.is_traced(self.lambda0) else f"= {self.lambda0:g}"
            sign = ", of a sign that is not known," if _checks.is_traced(self.lambda0) else ""
            raise ValueError(
                f"A start with `lambda0` {value} needs a width of at most {words} = {most}, for every hidden direction has "
                f"that imbalance{sign or ','} not {self.h:g}."
            )
        if _checks.is_traced(*jax.tree.leaves(self)):
            return
        if self._is_imbalanced():
            check_sizes([math.sqrt(abs(self.lambda0))])
        elif 0 in self.scales():
            raise ValueError(
                "The product of the start is zero, and so are balanced layers of it: that is the saddle at zero, which "
                "gradients never leave. Give both layers weights, or an imbalance `lambda0`."
            )

    def design(self, problem: LeastSquares, gaussian: Reduction) -> Reduction:
        size = problem.rank + problem.num_outputs
        if self._is_imbalanced():
            most = self._most(problem)[0]
            core = balanced(_seen(problem), gaussian.product(), most, lambda0=self.lambda0)
            # The directions that the width has, and NaN for more than can be.
            width: Any = gaussian.width
            live: Any = jnp.where(width <= most, jnp.arange(most) < width, jnp.nan)
            core = TwoLayer(*(jnp.pad(live * W, ((0, 0), (0, size - most))) for W in (core.U, core.V)))
        else:
            core = balanced(_seen(problem), gaussian.product(), size)
        frozen = None if gaussian.frozen is None else gaussian.frozen_product(problem)
        if frozen is not None:
            # As far as the row space of the inside product allows.
            frozen = frozen @ jnp.linalg.pinv(core.V.T)
        return Reduction(core, gaussian.width, problem.num_frozen, frozen, coordinates=problem.coordinates)

    def label(self) -> str:
        return f"{super().label()}, D = {self.lambda0:g} I" if self._is_imbalanced() else super().label()

    def _is_imbalanced(self) -> bool:
        return _checks.is_traced(self.lambda0) or bool(self.lambda0 != 0)

    def _most(self, problem: LeastSquares) -> tuple[int, str]:
        """The largest width that has this imbalance, and its name."""
        r, m = problem.rank, problem.num_outputs
        if _checks.is_traced(self.lambda0):
            return min(r, m), "min(r, m)"
        return (r, "r") if self.lambda0 > 0 else (m, "m")


class Imbalance(AbstractGaussianStart):
    """The product of the Gaussian start of the same scale and key with the eigenvalues of D prescribed; U2 = 0.

    **Fields:** as `AbstractGaussianStart`, with h >= r + m (a traced one that is smaller gives NaN); the eigenvalues are
    `positive` (r of them) and `-negative` (m of them); a number stands for as many equal ones. **Source:** M22 Appendix C.

    Example:

        >>> problem = ld.factorization(jnp.eye(2))
        >>> start = ld.init.Imbalance(100, positive=(3.0, 2.0), negative=1.0).draw(problem, key=jax.random.key(0))
        >>> print(ld.observables.imbalance_spectrum(start, problem).round(4))
        [ 3.  2. -1. -1.]
    """

    h: Number
    positive: Numbers = 1.0
    negative: Numbers = 1.0
    std: Numbers | None = None
    alpha: Number | None = None

    def least_width(self, problem: LeastSquares) -> tuple[int, str]:
        return problem.rank + problem.num_outputs, "r + m"

    def check(self, problem: LeastSquares) -> None:
        super().check(problem)
        if _checks.is_traced(*jax.tree.leaves(self)):
            return
        check_sizes(map(math.sqrt, map(abs, (*_checks.as_tuple(self.positive), *_checks.as_tuple(self.negative)))))
        for values, name, size in (
            (self.positive, "positive", problem.rank),
            (self.negative, "negative", problem.num_outputs),
        ):
            if len(_checks.as_tuple(values)) not in (1, size):
                raise ValueError(
                    f"Argument `{name}` must be one number or {size} of them, but has {len(_checks.as_tuple(values))}."
                )
            if not all(math.isfinite(value) and value >= 0 for value in _checks.as_tuple(values)):
                raise ValueError(
                    f"Argument `{name}` must have finite entries of at least 0 (its sign is understood), but is {values}."
                )

    def design(self, problem: LeastSquares, gaussian: Reduction) -> Reduction:
        r, m = problem.rank, problem.num_outputs
        positive, negative = (
            jnp.broadcast_to(jnp.asarray(_checks.as_tuple(values), problem.dtype), (size,))
            for values, size in ((self.positive, r), (self.negative, m))
        )
        core = with_imbalance(_seen(problem), gaussian.product(), positive, negative, r + m)
        width: Any = gaussian.width
        enough = jnp.where(width >= r + m, 1, jnp.nan)
        return _inside(problem, TwoLayer(enough * core.U, enough * core.V), gaussian.width)

    def label(self) -> str:
        return f"{super().label()}, D = +{listed(self.positive)}, -{listed(self.negative)}"


class Scaled(AbstractStart):
    """A Gaussian start in a scaling that goes by a name. **Fields:** `scaling`, one of `SCALINGS`; `h`, the width, 1 to 1e12.

    Example:

        >>> problem = ld.factorization(jnp.eye(2))
        >>> start = ld.init.Scaled("mup", 10**9).draw(problem, key=jax.random.key(0))
        >>> print(ld.observables.imbalance_spectrum(start, problem).round(2))
        [ 0.5  0.5 -1.  -1. ]
    """

    scaling: str = eqx.field(static=True)
    h: Number

    def check(self, problem: LeastSquares) -> None:
        self._gaussian(problem).check(problem)

    def draw(self, problem: LeastSquares, *, key: Key) -> Reduction:
        return self._gaussian(problem).draw(problem, key=key)

    def label(self) -> str:
        return f"{self.scaling}, h = {self.h:g}"

    def _gaussian(self, problem: LeastSquares) -> Gaussian:
        return Gaussian(self.h, std=scaling(self.scaling, problem.num_inputs, self.h, problem.num_outputs).std)


class Spectral(AbstractStart):
    """Aligned with the singular vectors of X^T Y; U2 = 0.

    **Fields:** `h`, the width, 1 to 1e12; `u0`, `v0`, strengths of the modes, largest singular value first; a number stands for
    min(r, m, h) equal ones. **Source:** T21 Prop. 3.

    Example:

        >>> problem = ld.factorization(jnp.eye(2))
        >>> start = ld.init.Spectral(100, u0=(0.3, 0.2), v0=0.1).draw(problem, key=jax.random.key(0))
        >>> print(ld.observables.singular_values(start, problem).round(4))
        [0.03 0.02]
    """

    h: Number
    u0: Numbers = 0.1
    v0: Numbers = 0.1

    def check(self, problem: LeastSquares) -> None:
        if _checks.is_traced(*jax.tree.leaves(self)):
            return
        check_width(self.h)
        strengths = (*_checks.as_tuple(self.u0), *_checks.as_tuple(self.v0))
        check_sizes(strengths)
        most = int(min(problem.rank, problem.num_outputs, float(self.h)))
        lengths = {len(_checks.as_tuple(values)) for values in (self.u0, self.v0)} - {1}
        if len(lengths) > 1 or any(length > most for length in lengths):
            raise ValueError(
                f"Arguments `u0` and `v0` must be one number each, or lists of one length up to min(r, m, h) = {most}."
            )
        if not all(math.isfinite(value) for value in strengths):
            raise ValueError("Arguments `u0` and `v0` must be finite numbers.")
        if not any(strengths):
            raise ValueError("The start is the saddle U = 0, V = 0, which gradients never leave: give it weights.")

    def draw(self, problem: LeastSquares, *, key: Key) -> Reduction:
        self.check(problem)
        r, m = problem.rank, problem.num_outputs
        u0, v0 = _checks.as_tuple(self.u0), _checks.as_tuple(self.v0)
        size = max(len(u0), len(v0)) if len(u0) + len(v0) > 2 else int(min(r, m, float(self.h)))
        u0, v0 = (jnp.broadcast_to(jnp.asarray(values, problem.dtype), (size,)) for values in (u0, v0))
        # In the data's coordinates X^T Y is S Ytil.
        return _inside(problem, spectral(problem.singular_values[:, None] * problem.Ytil, u0, v0, r + m), self.h)


# By the names of the command line.
STARTS: dict[str, type[AbstractStart]] = {
    "gaussian": Gaussian,
    "balanced": Balanced,
    "spectral": Spectral,
    "imbalance": Imbalance,
}


def _seen(problem: LeastSquares) -> LeastSquares:
    """Matrix factorization in the data's coordinates, which the designs are made in."""
    return factorization(jnp.zeros((problem.rank, problem.num_outputs), problem.dtype))


def _inside(problem: LeastSquares, core: TwoLayer, h) -> Reduction:
    """A start without a part outside the range of the data."""
    frozen, k = None, core.V.shape[1]
    if problem.num_frozen > 0:
        frozen = jnp.zeros((min(k, problem.num_frozen), k), core.V.dtype)
    return Reduction(core, h, problem.num_frozen, frozen, coordinates=problem.coordinates)
