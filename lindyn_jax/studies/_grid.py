"""What the studies over widths and exponents ask of their grid."""

import math
from collections.abc import Sequence


def floats(values) -> tuple[float, ...]:
    """An axis of the grid."""
    return tuple(float(value) for value in values)


def check_grid(widths: Sequence[float], alphas: Sequence[float], delta: float) -> None:
    """Refuses a grid that cannot be drawn.

    **Raises:** `ValueError` for widths outside 1 to 1e12 or not whole, exponents that are not finite, positive numbers, starts
    whose squared weights underflow, or a failure probability delta outside (0, 1).
    """
    for width in widths:
        if not (1 <= width <= 1e12 and float(width) == round(width)):
            raise ValueError(f"Widths must be whole numbers from 1 to 1e12, but one is {width:g}.")
    for alpha in alphas:
        if not (math.isfinite(alpha) and alpha > 0):
            raise ValueError(f"Exponents must be positive numbers, but one is {alpha:g}.")
    if max(widths) > 1 and max(alphas) * math.log10(max(widths)) > 100:
        raise ValueError(
            f"With alpha = {max(alphas):g} and h = {max(widths):g} the weights h^(-alpha) vanish: the start is the saddle at "
            "zero, which gradients never leave. Use a smaller exponent."
        )
    if not 0 < delta < 1:
        raise ValueError(f"The failure probability delta must lie in (0, 1), but is {delta:g}.")
