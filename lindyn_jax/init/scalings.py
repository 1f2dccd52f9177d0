"""Scalings of Gaussian starts by the names that they go by, and how they depend on the width."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from .. import _checks
from .._public import public
from ._parts import Number


class Scaling(NamedTuple):
    """What a scaling means for two layers of one step size.

    **Fields:** `std`, standard deviations of the entries of U and of V; `exponents`, (a, b), with which they fall for large
    widths, like `h^{-a}` and `h^{-b}`; `step`, the step size, or the time, that stands for one of 1 in the scaling's own
    convention.

    Example:

        >>> scaling = ld.init.scaling("ntk", 2, 5000, 2)
        >>> tuple(float(std) for std in scaling.std), scaling.exponents, float(scaling.step)
        ((0.1, 0.1), (0.25, 0.25), 0.01)
    """

    std: tuple[Number, Number]
    exponents: tuple[float, float]
    step: Number


# Of n, h and m: variances of the entries of U and of V, exponents, and the step.
_SCALINGS: dict[str, tuple[Callable, tuple[float, float], Callable]] = {
    "xavier": (lambda n, h, m: (2 / (n + h), 2 / (h + m)), (0.5, 0.5), lambda n, h: 1.0),
    "he": (lambda n, h, m: (2 / n, 2 / h), (0.0, 0.5), lambda n, h: 1.0),
    "lecun": (lambda n, h, m: (1 / n, 1 / h), (0.0, 0.5), lambda n, h: 1.0),
    "ntk": (lambda n, h, m: ((n * h) ** -0.5, (n * h) ** -0.5), (0.25, 0.25), lambda n, h: (n * h) ** -0.5),
    "mup": (lambda n, h, m: (1 / (n * h), 1 / h), (0.5, 0.5), lambda n, h: 1.0),
}
SCALINGS = tuple(_SCALINGS)


@public
def scaling(name: str, n: Number, h: Number, m: Number) -> Scaling:
    """Standard deviations of the entries of U, shape (n, h), and of V, shape (m, h), by the name of a scaling.

    | name | its own convention | std of U | std of V | exponents of the width | step |
    |---|---|---|---|---|---|
    | xavier | variance 2/(fan-in + fan-out) | `(2/(n + h))^{1/2}` | `(2/(h + m))^{1/2}` | 1/2, 1/2 | 1 |
    | he | variance 2/fan-in | `(2/n)^{1/2}` | `(2/h)^{1/2}` | 0, 1/2 | 1 |
    | lecun | variance 1/fan-in | `n^{-1/2}` | `h^{-1/2}` | 0, 1/2 | 1 |
    | ntk | `(n h)^{-1/2} U V^T`, variances 1 | `(n h)^{-1/4}` | `(n h)^{-1/4}` | 1/4, 1/4 | `(n h)^{-1/2}` |
    | mup | variances 1/n and 1/h^2, steps times h and 1/h | `(n h)^{-1/2}` | `h^{-1/2}` | 1/2, 1/2 | 1 |

    The last two have multipliers, or other steps for each layer, which are taken into the weights here, so that both layers move
    at one rate and the product is the same at all times. The imbalance is of the order `h^{1 - 2a} - h^{1 - 2b}`: of order one
    where both exponents are 1/2, so that features are learned at any width, and growing with the width in the others, whose
    kernel then keeps its direction.

    **Args:** `name`, one of `SCALINGS`; the sizes, of which h may be traced.

    **Returns:** a `Scaling`, whose `std` is that of `init.gaussian(n, m, h, std=...)`; `init.Scaled(name, h)` is the start.

    **Raises:** `ValueError` for another name, or sizes that are not positive.

    **Source:** Glorot and Bengio (2010); He et al. (2015); LeCun et al. (1998); Jacot, Gabriel and Hongler (2018); Yang et al.
    (2022), for descent.

    Example:

        >>> for name in ld.init.SCALINGS:
        ...     std_U, std_V = ld.init.scaling(name, 2, 5000, 2).std
        ...     print(name, round(float(std_U), 4), round(float(std_V), 4))
        xavier 0.02 0.02
        he 1.0 0.02
        lecun 0.7071 0.0141
        ntk 0.1 0.1
        mup 0.01 0.0141
    """
    _checks.check_choice(name, "name", SCALINGS)
    for value, letter in ((n, "n"), (h, "h"), (m, "m")):
        _checks.check_positive(value, letter)
    variances, exponents, step = _SCALINGS[name]
    if _checks.is_traced(n, h, m):
        n, h, m = (jnp.asarray(value, jnp.result_type(float)) for value in (n, h, m))
    std_U, std_V = (variance**0.5 for variance in variances(n, h, m))
    return Scaling((std_U, std_V), exponents, step(n, h))
