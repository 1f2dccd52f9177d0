r"""Test error of one layer along the flow, for data of large size: an integral over the Marchenko-Pastur law."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float, Real

from .. import _checks
from .._finite import of_finite_numbers
from .._public import public
from .._statement import Statement
from ..exact._common import as_floats

NODES = 1024


@public
@of_finite_numbers
def regression_errors(
    ts: Real[ArrayLike, " T"],
    ratio: Real[ArrayLike, ""],
    *,
    signal: Real[ArrayLike, ""] = 1.0,
    start: Real[ArrayLike, ""] = 0.0,
    noise: Real[ArrayLike, ""] = 0.0,
) -> Statement:
    r"""Test and training error of one layer along its gradient flow, in the limit of many samples and inputs.

    Inputs with entries N(0, 1/n), `y = x^T Theta* + noise epsilon` with entries of Theta* of standard deviation `signal`, a
    start with independent ones of `start`, and the loss (1/2) ||Y - X Theta||^2. With rho the density of the eigenvalues of
    X^T X,

        test(t) = noise^2 + (signal^2 + start^2) ((1 - ratio)_+ + int e^{-2 l t} rho(l) dl)
                  + noise^2 int (1 - e^{-l t})^2/l rho(l) dl,

    `rho(l) = sqrt((l_+ - l)(l - l_-))/(2 pi l)` between `l_+- = (sqrt(ratio) +- 1)^2`.

    **Args:** `ts`, times of at least 0, shape (T,); `ratio`, samples for each input, N/n, positive; `signal`, `start`, `noise`,
    standard deviations of at least 0. All may be traced.

    **Returns:** a `Statement` on the mean square error of an output on a new sample, noise included, shape (T,), also called
    `test`; `train`, that on the samples; `bias` and `variance`, the parts of `test` of signal and start and of the training
    noise; `applies`, whether the ratio is positive.

    **Raises:** `ValueError` for shapes that do not fit, numbers that are not finite, a ratio that is not positive, negative
    ones.

    **Notes:** to about 1e-12, at any time and ratio; at ratio 1 the error grows like t^{1/2} without end. Draws of n inputs
    have fluctuations of the order n^{-1/2} about it and a mean within 1/n.

    **Source:** Advani and Saxe (2017); Marchenko and Pastur (1967) for the density.

    Example:

        >>> found = ld.theory.regression_errors(np.array([0.0, 1.0, 1e6]), 2.0, noise=0.5)
        >>> found.test.tolist(), found.train.tolist()
        ([1.25, 0.4608, 0.5], [1.25, 0.1804, 0.125])
    """
    ts, ratio, signal, start, noise = as_floats(ts=ts, ratio=ratio, signal=signal, start=start, noise=noise)
    if ts.ndim != 1 or ts.shape[0] == 0:
        raise ValueError(f"Argument `ts` must have shape (T,), but has shape {ts.shape}.")
    numbers = {"ratio": ratio, "signal": signal, "start": start, "noise": noise}
    for name, value in numbers.items():
        if value.ndim:
            raise ValueError(f"Argument `{name}` must be a number, but has shape {value.shape}: use `jax.vmap`.")
    _checks.check_positive(ratio, "ratio")
    for name, value in {"ts": ts, **numbers}.items():
        _checks.check_not_negative(value, name)
    found: dict = _errors(ts, ratio, signal**2 + start**2, noise**2)
    return Statement(found.pop("test"), ratio > 0, name="test", **found)


@jax.jit
def _errors(ts, ratio, signal, noise) -> dict:
    angles, weights = (jnp.asarray(values, ts.dtype) for values in _angles())
    half, root = jnp.sin(angles / 2) ** 2, jnp.sqrt(ratio)
    # (ratio - 1)^2/(root + 1)^2: the least eigenvalue to full relative accuracy near ratio 1.
    least = ((ratio - 1) / (root + 1)) ** 2
    l = least + 4 * root * half
    # sin^2(angle)/l is the density in the angle, with 4 sin^2 cos^2 of half the angle in place of sin^2.
    mass = weights * (2 * ratio / math.pi) * 4 * half * jnp.cos(angles / 2) ** 2 / l
    decay = jnp.exp(-l * ts[:, None])
    # (1 - e^{-lt})^2/l stays in range for small l.
    learned = -jnp.expm1(-l * ts[:, None])
    unseen = jnp.maximum(1 - ratio, 0)
    bias = signal * (unseen + decay**2 @ mass)
    variance = noise * ((learned * (learned / l)) @ mass)
    residual = (decay**2 @ (mass * (signal * l + noise)) + noise * jnp.maximum(ratio - 1, 0)) / ratio
    return {"test": bias + variance + noise, "train": residual, "bias": bias, "variance": variance}


def _angles() -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Nodes and weights on (0, pi) that are dense at both ends on every scale down to 1e-20 (double exponential)."""
    u, step = np.linspace(-3.4, 3.4, NODES, retstep=True)
    share = 1 / (1 + np.exp(-math.pi * np.sinh(u)))
    other = 1 / (1 + np.exp(math.pi * np.sinh(u)))
    return math.pi * share, step * math.pi**2 * share * other * np.cosh(u)
