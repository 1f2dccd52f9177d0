"""When Proposition 1 cannot be improved: of all networks with a given imbalance and product, is one as slow as it says?"""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Key

from .. import _checks
from .._finite import of_finite_numbers, of_finite_state
from .._public import public
from .._statement import Statement
from ..init import with_imbalance
from ..models import AbstractModel, TwoLayer
from ..problems import LeastSquares
from .imbalance import hidden_width, imbalance, moving_layers, moving_spectrum


@public
@of_finite_state
def tightness(model: AbstractModel, problem: LeastSquares, *, rtol: float | None = None) -> Statement:
    r"""Whether Proposition 1 is attained over all networks with this imbalance `D` and this product `W = U1 V^T`.

    Hypotheses: `h >= r + m`, Sigma_x a multiple of the identity. Then the bound is attained if r != m, or r = m = 1, or
    sigma_m(W) is zero or repeated, or Delta+ = Delta- = 0. If none of these holds and D has exactly r positive and m
    negative eigenvalues, it is not.

    **Args:**

    - `model`, `problem`.
    - `rtol`: what counts as equal or zero, relative to the largest singular value of W, and for eigenvalues of D to that of
        U1 U1^T (positive ones) or V V^T (negative ones); default 1000 times the machine epsilon.

    **Returns:** a `Statement` on `attained`, whether some network with this D and W attains the bound, for some error;
    `strict`, whether none does and this is proved.

    **Raises:** `ValueError` for a problem with a link, or a model that does not fit it.

    **Notes:** two eigenvalue conditions compete for the same column pair when r = m: the least eigenvalue of V V^T wants
    sigma_m with the largest positive and the least negative eigenvalue of D, that of U1 U1^T wants it the other way round.

    **Source:** M22 appendix C, with its conditions completed.

    Example:

        >>> problem = ld.factorization(np.diag([2.0, 0.5]))
        >>> positive, negative = np.array([2.0, 1.0]), np.array([1.5, 0.5])
        >>> found = ld.theory.tightness(ld.theory.tight_start(problem, problem.Y, positive, negative, 4), problem)
        >>> bool(found.attained), bool(found.strict)
        (False, True)
    """
    problem.refuse_link("tightness")
    U1, V = moving_layers(model, problem)
    r, m = U1.shape[0], V.shape[0]
    if rtol is None:
        rtol = 1000 * float(jnp.finfo(V.dtype).eps)
    s = problem.singular_values
    applies = (hidden_width(model, problem) >= r + m) & (s[0] - s[-1] <= rtol * s[0])
    # Each side of the spectrum has its own layer's scale: the small layer's eigenvalues are exact on their own scale.
    above = rtol * jnp.linalg.svd(U1, compute_uv=False)[0] ** 2
    below = rtol * jnp.linalg.svd(V, compute_uv=False)[0] ** 2
    if r != m or r == 1:
        attained = jnp.asarray(True)
    else:
        values = jnp.linalg.svd(U1 @ V.T, compute_uv=False)
        small = rtol * values[0]
        plus, minus, _ = imbalance(model, problem)
        homogeneous = (plus <= above) & (minus <= below)
        attained = (values[-1] <= small) | (values[-2] - values[-1] <= small) | homogeneous
    spectrum = moving_spectrum(model, problem)
    full = (jnp.sum(spectrum > above) == r) & (jnp.sum(spectrum < -below) == m)
    return Statement(attained, applies, name="attained", strict=~attained & full)


@public
@of_finite_numbers
def tight_pairing(
    positive: Float[ArrayLike, " r"], negative: Float[ArrayLike, " m"], sigma: Float[ArrayLike, " k"]
) -> tuple[Float[Array, " r"], Float[Array, " m"]]:
    """The order in which eigenvalues of D should meet singular values of W for the slowest network of 2 x 2 blocks.

    **Args:** `positive`, the r eigenvalues of D that are not negative; `negative`, sizes of the m that are not positive, both
    nonnegative, in any order; `sigma`, singular values of W, descending, k = min(r, m).

    **Returns:** both lists reordered: entry i of each belongs with `sigma[i]`, entries beyond k are left alone.

    **Raises:** `ValueError` for a `sigma` of the wrong length.

    **Notes:** for r = m some pair has the least eigenvalue of U1 U1^T, which rises with a and falls with b, and some pair
    that of V V^T, for which it is the other way round; both rise with sigma. Of all pairings the slowest is one of three: the
    two extreme pairs crossed, with either of them at sigma_m, or the two least eigenvalues together at sigma_m. Where the
    bound cannot be attained (see `tightness`) it is the slowest network of 2 x 2 blocks, not proved to be so among all.

    **Source:** M22 appendix C.

    Example:

        >>> positive, negative, sigma = np.array([3.0, 2.0, 1.0]), np.array([2.0, 1.0]), np.array([2.0, 0.5])
        >>> [order.tolist() for order in ld.theory.tight_pairing(positive, negative, sigma)]
        [[2.0, 3.0, 1.0], [2.0, 1.0]]
    """
    positive, negative = _checks.as_float(positive, "positive"), _checks.as_float(negative, "negative")
    sigma = _checks.as_float(sigma, "sigma")
    r, m = positive.shape[0], negative.shape[0]
    if sigma.shape != (min(r, m),):
        raise ValueError(f"Argument `sigma` must have shape ({min(r, m)},), but has shape {sigma.shape}.")
    a, b = jnp.sort(positive)[::-1], jnp.sort(negative)[::-1]
    if r > m:
        # sigma_m with the largest a and the least b; the least a stays alone.
        return jnp.concatenate([a[1:m], a[:1], a[m:]]), b
    if r < m:
        return a, jnp.concatenate([b[1:r], b[:1], b[r:]])
    if r == 1:
        return a, b
    # The last two entries meet sigma_{m-1} and sigma_m.
    least_a_first, least_b_first = (jnp.concatenate([x[1:-1], x[-1:], x[:1]]) for x in (a, b))
    largest_a_first, largest_b_first = (jnp.concatenate([x[1:-1], x[:1], x[-1:]]) for x in (a, b))
    designs = ((a, b), (least_a_first, largest_b_first), (largest_a_first, least_b_first))
    best = jnp.argmin(jnp.stack([_least_sum(*design, sigma) for design in designs]))
    a, b = (jnp.stack(choices)[best] for choices in zip(*designs, strict=True))
    return a, b


@public
def tight_start(
    problem: LeastSquares,
    Theta: Float[ArrayLike, "n m"],
    positive: Float[ArrayLike, " r"],
    negative: Float[ArrayLike, " m"],
    h: int,
    *,
    key: Key[Array, ""] | None = None,
) -> TwoLayer:
    """A network with given imbalance and product that attains Proposition 1's bound wherever one exists.

    **Args:**

    - `problem`: Sigma_x should be a multiple of the identity.
    - `Theta`: end-to-end matrix, shape (n, m), of which the part that the data see is used.
    - `positive`, `negative`: the eigenvalues of D are `positive` and `-negative`, in any order.
    - `h`: width, at least r + m.
    - `key`: rotates the columns; without it the first r + m are used as they are.

    **Returns:** a `TwoLayer`. With the target from `adversarial_target` its instantaneous rate is the bound itself.

    **Raises:** `ValueError` as `init.with_imbalance` does.

    **Source:** M22 appendix C.

    Example:

        >>> problem = ld.factorization(np.diag([2.0, 0.5]))
        >>> model = ld.theory.tight_start(problem, problem.Y, np.array([2.0, 1.0]), np.array([1.5, 0.5]), 4)
        >>> hard = ld.factorization(ld.theory.adversarial_target(model, problem))
        >>> float(ld.theory.rate_bound(model, problem).value), float(ld.theory.instantaneous_rate(model, hard))
        (3.385, 3.606)
    """
    Theta = _checks.as_matrix(Theta, "Theta", "(n, m)")
    sigma = jnp.linalg.svd(problem.to_data(Theta), compute_uv=False)
    positive, negative = tight_pairing(positive, negative, sigma)
    return with_imbalance(problem, Theta, positive, negative, h, key=key)


def _least_sum(a: Array, b: Array, sigma: Array) -> Array:
    """lambda_r(U1 U1^T) + lambda_m(V V^T) of the block design that pairs these lists in order."""
    root = jnp.hypot(a + b, 2 * sigma)
    return jnp.min(a - b + root) / 2 + jnp.min(b - a + root) / 2
