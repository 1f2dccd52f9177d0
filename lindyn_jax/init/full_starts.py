"""Starts as objects that are drawn at full size: those of two layers that have no reduced draw, and those of deep networks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .. import _checks
from ..models import AbstractModel, DeepLinear, TwoLayer
from ..problems import LeastSquares
from ._parts import Key, Number, Std
from .abstract import AbstractStart, Numbers
from .deep import deep_aligned, deep_balanced, deep_gaussian, deep_isometric, deep_orthogonal, deep_residual
from .gaussians import gaussian_with_imbalance, invariant
from .modes import aligned


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


def _layers(problem: LeastSquares, widths: tuple[int, ...]) -> tuple[int, ...]:
    return (problem.num_inputs, *widths, problem.num_outputs)


def _strengths(d: Numbers, count: int, problem: LeastSquares) -> Array:
    values = _checks.as_tuple(d)
    return jnp.asarray(values * count if len(values) == 1 else values, problem.dtype)
