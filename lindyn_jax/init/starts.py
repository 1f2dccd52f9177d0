"""Starts as objects: what is drawn for a problem from a key, told apart by a label and refused where it does not exist.

`studies.simulate`, `studies.audit`, ensembles and the command line draw from them. A start of your own is one class:

    class Identity(ld.init.AbstractStart):
        h: int

        def draw(self, problem, *, key):
            return ld.TwoLayer(jnp.eye(problem.num_inputs, self.h), jnp.eye(problem.num_outputs, self.h))
"""

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .. import _checks
from ..models import AbstractModel, DeepLinear, Reduction, TwoLayer
from ..problems import LeastSquares, factorization
from ._parts import Key, Number, Std, check_stds, pair_of, stds_of
from .deep import deep_aligned, deep_balanced, deep_gaussian, deep_isometric, deep_orthogonal, deep_residual
from .designed import balanced, with_imbalance
from .gaussians import gaussian_core, gaussian_with_imbalance, invariant
from .modes import aligned, spectral
from .scalings import scaling

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
        >>> isinstance(balanced, ld.init.AbstractGaussianStart), gaussian.scales()
        (True, (0.1, 0.1))
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
        if _checks.is_traced(*jax.tree.leaves(self)):
            return
        _check_width(self.h)
        least, why = self.least_width(problem)
        if float(self.h) < least:
            kind = type(self).__name__.lower()
            raise ValueError(f"A start of kind {kind} needs a width of at least {why} = {least}, not {self.h:g}.")
        if self.std is not None and self.alpha is not None:
            raise ValueError("Give only one of `std` and `alpha`: the scale of the start by value or by exponent.")
        if self.alpha is not None:
            _checks.check_positive(self.alpha, "alpha")
        stds = self.scales() if self.std is None else check_stds(self.scales())
        _check_sizes(stds)
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
    min(r, m). **Source:** M22 section 5.2; `balanced`.

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
        if _checks.is_traced(*jax.tree.leaves(self)):
            return
        _checks.check_finite(self.lambda0, "lambda0")
        if not self._is_imbalanced():
            if 0 in self.scales():
                raise ValueError(
                    "The product of the start is zero, and so are balanced layers of it: that is the saddle at zero, which "
                    "gradients never leave. Give both layers weights, or an imbalance `lambda0`."
                )
            return
        _check_sizes([math.sqrt(abs(self.lambda0))])
        most, words = self._most(problem)
        if float(self.h) > most:
            raise ValueError(
                f"A start with `lambda0` = {self.lambda0:g} needs a width of at most {words} = {most}, for every "
                f"hidden direction has that imbalance, not {self.h:g}."
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

    **Fields:** as `AbstractGaussianStart`, with h >= r + m; the eigenvalues are `positive` (r of them) and `-negative` (m of
    them); a number stands for as many equal ones. **Source:** M22 Appendix C.

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
        _check_sizes(map(math.sqrt, map(abs, (*_as_tuple(self.positive), *_as_tuple(self.negative)))))
        for values, name, size in (
            (self.positive, "positive", problem.rank),
            (self.negative, "negative", problem.num_outputs),
        ):
            if len(_as_tuple(values)) not in (1, size):
                raise ValueError(
                    f"Argument `{name}` must be one number or {size} of them, but has {len(_as_tuple(values))}."
                )
            if not all(math.isfinite(value) and value >= 0 for value in _as_tuple(values)):
                raise ValueError(
                    f"Argument `{name}` must have finite entries of at least 0 (its sign is understood), but is {values}."
                )

    def design(self, problem: LeastSquares, gaussian: Reduction) -> Reduction:
        r, m = problem.rank, problem.num_outputs
        positive, negative = (
            jnp.broadcast_to(jnp.asarray(_as_tuple(values), problem.dtype), (size,))
            for values, size in ((self.positive, r), (self.negative, m))
        )
        core = with_imbalance(_seen(problem), gaussian.product(), positive, negative, r + m)
        return _inside(problem, core, gaussian.width)

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
        _check_width(self.h)
        strengths = (*_as_tuple(self.u0), *_as_tuple(self.v0))
        _check_sizes(strengths)
        most = int(min(problem.rank, problem.num_outputs, float(self.h)))
        lengths = {len(_as_tuple(values)) for values in (self.u0, self.v0)} - {1}
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
        u0, v0 = _as_tuple(self.u0), _as_tuple(self.v0)
        size = max(len(u0), len(v0)) if len(u0) + len(v0) > 2 else int(min(r, m, float(self.h)))
        u0, v0 = (jnp.broadcast_to(jnp.asarray(values, problem.dtype), (size,)) for values in (u0, v0))
        # In the data's coordinates X^T Y is S Ytil.
        return _inside(problem, spectral(problem.singular_values[:, None] * problem.Ytil, u0, v0, r + m), self.h)


class Aligned(AbstractStart):
    """G19's vanishing start. **Fields:** `h` and `d` as in `aligned`, d a number for min(n, m, h) equal ones.

    Example:

        >>> start = ld.init.Aligned(2, d=3.0).draw(ld.factorization(jnp.eye(2)), key=jax.random.key(0))
        >>> print(jnp.linalg.svd(start.product(), compute_uv=False).round(5), np.exp(-6.0).round(5))
        [0.00248 0.00248] 0.00248
    """

    h: int
    d: Numbers

    def draw(self, problem: LeastSquares, *, key: Key) -> TwoLayer:
        d = _strengths(self.d, min(problem.num_inputs, problem.num_outputs, self.h), problem)
        return aligned(problem, d, self.h, key=key)


class Invariant(AbstractStart):
    """A Gaussian start on the orthogonal invariant set. **Fields:** `h`, `std` or `alpha` as in `invariant`.

    Example:

        >>> problem = ld.LeastSquares(jnp.array([[1.0, 2.0]]), jnp.array([[2.0]]))
        >>> start = ld.init.Invariant(8, std=0.1).draw(problem, key=jax.random.key(0))
        >>> bool(ld.observables.frozen_product_norm(start, problem) < 1e-10)
        True
    """

    h: int
    std: Std | None = None
    alpha: Number | None = None

    def draw(self, problem: LeastSquares, *, key: Key) -> TwoLayer:
        return invariant(problem, self.h, std=self.std, alpha=self.alpha, key=key)


class GaussianWithImbalance(AbstractStart):
    """A Gaussian start for as many inputs as outputs. **Fields:** `h`, `std`, `imbalance` as in `gaussian_with_imbalance`.

    Example:

        >>> problem = ld.factorization(jnp.eye(2))
        >>> start = ld.init.GaussianWithImbalance(8, std=0.1, imbalance=4.6).draw(problem, key=jax.random.key(0))
        >>> float(jnp.linalg.norm(start.U.T @ start.U - start.V.T @ start.V))
        4.6
    """

    h: int
    std: Number
    imbalance: Number

    def check(self, problem: LeastSquares) -> None:
        if problem.num_inputs != problem.num_outputs:
            raise ValueError(
                f"This start needs as many inputs as outputs, but there are {problem.num_inputs} and {problem.num_outputs}."
            )

    def draw(self, problem: LeastSquares, *, key: Key) -> TwoLayer:
        self.check(problem)
        options = {"std": self.std, "imbalance": self.imbalance, "dtype": problem.dtype, "key": key}
        return gaussian_with_imbalance(problem.num_inputs, self.h, **options)


class DeepGaussian(AbstractStart):
    """Independent entries in every layer. **Fields:** `widths` of the hidden layers; `std` as in `deep_gaussian`.

    Example:

        >>> start = ld.init.DeepGaussian((100, 100)).draw(ld.factorization(jnp.eye(2)), key=jax.random.key(0))
        >>> [round(float(W.std()), 2) for W in start.layers]
        [0.7, 0.1, 0.1]
    """

    widths: tuple[int, ...]
    std: Numbers | None = None

    def draw(self, problem: LeastSquares, *, key: Key) -> DeepLinear:
        return deep_gaussian(_layers(problem, self.widths), std=self.std, dtype=problem.dtype, key=key)


class DeepOrthogonal(AbstractStart):
    """Orthogonal middle layers. **Fields:** `widths` of the hidden layers, all equal; `std`, `gain` as in `deep_orthogonal`.

    Example:

        >>> problem = ld.factorization(jnp.eye(2))
        >>> start = ld.init.DeepOrthogonal((2, 2), std=0.1, gain=0.5).draw(problem, key=jax.random.key(0))
        >>> print(jnp.linalg.svd(start.layers[1], compute_uv=False).round(4))
        [0.5 0.5]
    """

    widths: tuple[int, ...]
    std: Std
    gain: Numbers = 1.0

    def draw(self, problem: LeastSquares, *, key: Key) -> DeepLinear:
        sizes = _layers(problem, self.widths)
        return deep_orthogonal(sizes, std=self.std, gain=self.gain, dtype=problem.dtype, key=key)


class DeepIsometric(AbstractStart):
    """Isometries in every layer. **Fields:** `widths` of the hidden layers; `gain` as in `deep_isometric`.

    Example:

        >>> start = ld.init.DeepIsometric((2, 2), gain=0.5).draw(ld.factorization(jnp.eye(2)), key=jax.random.key(0))
        >>> print(jnp.linalg.svd(start.product(), compute_uv=False).round(4))
        [0.125 0.125]
    """

    widths: tuple[int, ...]
    gain: Numbers = 1.0

    def draw(self, problem: LeastSquares, *, key: Key) -> DeepLinear:
        return deep_isometric(_layers(problem, self.widths), gain=self.gain, dtype=problem.dtype, key=key)


class DeepResidual(AbstractStart):
    """Layers close to the identity. **Fields:** `widths` of the hidden layers; `std` as in `deep_residual`.

    Example:

        >>> start = ld.init.DeepResidual((2, 2), std=0.0).draw(ld.factorization(jnp.eye(2)), key=jax.random.key(0))
        >>> print(start.product())
        [[1. 0.]
         [0. 1.]]
    """

    widths: tuple[int, ...]
    std: Number

    def draw(self, problem: LeastSquares, *, key: Key) -> DeepLinear:
        return deep_residual(_layers(problem, self.widths), std=self.std, dtype=problem.dtype, key=key)


class DeepBalanced(AbstractStart):
    """No imbalance, and the product of `DeepGaussian(widths, std)` of the same key. **Fields:** as there.

    Example:

        >>> problem, key = ld.factorization(jnp.eye(2)), jax.random.key(0)
        >>> start = ld.init.DeepBalanced((2, 2)).draw(problem, key=key)
        >>> [bool(jnp.linalg.norm(D) < 1e-10) for D in start.imbalances()]
        [True, True]
    """

    widths: tuple[int, ...]
    std: Numbers | None = None

    def draw(self, problem: LeastSquares, *, key: Key) -> DeepLinear:
        key, key_frames = jax.random.split(key)
        product = DeepGaussian(self.widths, self.std).draw(problem, key=key).product()
        return deep_balanced(problem, product, self.widths, key=key_frames)


class DeepAligned(AbstractStart):
    """A vanishing start of any depth. **Fields:** `widths` of the hidden layers; `d` as in `deep_aligned`, or one number.

    Example:

        >>> start = ld.init.DeepAligned((2, 2), d=1.0).draw(ld.factorization(jnp.eye(2)), key=jax.random.key(0))
        >>> print(jnp.linalg.svd(start.product(), compute_uv=False).round(4), np.exp(-3.0).round(4))
        [0.0498 0.0498] 0.0498
    """

    widths: tuple[int, ...]
    d: Numbers

    def draw(self, problem: LeastSquares, *, key: Key) -> DeepLinear:
        d = _strengths(self.d, min(problem.num_inputs, problem.num_outputs, *self.widths), problem)
        return deep_aligned(problem, d, self.widths, key=key)


class FromFunction(AbstractStart):
    """What a function of a key returns. **Fields:** `function`.

    Example:

        >>> start = ld.init.FromFunction(lambda key: ld.TwoLayer(0.1 * jnp.eye(2), 0.1 * jnp.eye(2)))
        >>> print(start.draw(ld.factorization(jnp.eye(2)), key=jax.random.key(0)).product())
        [[0.01 0.  ]
         [0.   0.01]]
    """

    function: Callable

    def draw(self, problem: LeastSquares, *, key: Key) -> AbstractModel:
        return self.function(key)

    def label(self) -> str:
        return getattr(self.function, "__name__", "a function")


# By the names of the command line.
STARTS: dict[str, type[AbstractStart]] = {
    "gaussian": Gaussian,
    "balanced": Balanced,
    "spectral": Spectral,
    "imbalance": Imbalance,
}


def listed(value) -> str:
    """One number or several, with commas between them, as labels show them."""
    try:
        return ", ".join(f"{number:g}" for number in _as_tuple(value)) or str(value)
    except (TypeError, ValueError):
        return str(value)


def _as_tuple(values) -> tuple:
    return _checks.as_tuple(values)


def _check_width(h) -> None:
    if not (1 <= float(h) <= 1e12 and float(h) == round(float(h))):
        raise ValueError(f"The width must be a whole number from 1 to 1e12, but is {h:g}.")


def _check_sizes(values) -> None:
    if max(map(abs, values)) > 1e30:
        raise ValueError(
            "The start has weights above 1e30, whose loss is no number that can be followed: choose units in which they are "
            "closer to 1."
        )


def _layers(problem: LeastSquares, widths: tuple[int, ...]) -> tuple[int, ...]:
    return (problem.num_inputs, *widths, problem.num_outputs)


def _strengths(d: Numbers, count: int, problem: LeastSquares) -> Array:
    values = _checks.as_tuple(d)
    return jnp.asarray(values * count if len(values) == 1 else values, problem.dtype)


def _seen(problem: LeastSquares) -> LeastSquares:
    """Matrix factorization in the data's coordinates, which the designs are made in."""
    return factorization(jnp.zeros((problem.rank, problem.num_outputs), problem.dtype))


def _inside(problem: LeastSquares, core: TwoLayer, h) -> Reduction:
    """A start without a part outside the range of the data."""
    frozen, k = None, core.V.shape[1]
    if problem.num_frozen > 0:
        frozen = jnp.zeros((min(k, problem.num_frozen), k), core.V.dtype)
    return Reduction(core, h, problem.num_frozen, frozen, coordinates=problem.coordinates)
