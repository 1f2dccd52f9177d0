"""What a theorem says, in one form: its number, whether its hypotheses hold, and what else it speaks of by name."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, PyTree

from . import _html


class Statement(eqx.Module):
    """What a theorem says of these arguments, and whether its hypotheses hold.

    A pytree: `jax.vmap` makes one statement of many, `jax.jit` returns it.

    **Fields:**

    - `value`: the number that is stated.
    - `applies`: whether the hypotheses hold, and nothing else. Where they do not, `value` is what the formula gives, or zero.
    - What a theorem speaks of besides, each under its own name, which the function that states it explains. Where `value` has a
        name of its own in the paper, it is found under that as well: `sharp_distance(...).rms` is its `value`.

    Example:

        >>> found = ld.theory.tied_acceleration(0.5, 0.01)
        >>> float(found.value), bool(found.applies)
        (2.0, True)
        >>> float(found.rate), float(found.linear_rate), bool(found.faster)
        (2.0, 1.0, True)
    """

    value: PyTree
    applies: Bool[Array, "..."]
    more: dict[str, PyTree]
    name: str | None = eqx.field(static=True)

    def __init__(self, value: PyTree, applies: Bool[ArrayLike, "..."], *, name: str | None = None, **more: PyTree):
        self.value, self.applies, self.more, self.name = value, jnp.asarray(applies), more, name

    def _repr_html_(self) -> str:
        values = {self.name or "value": self.value, "applies": self.applies, **self.more}
        rows = [(name, _html.number(value), _html.laid_out(value)) for name, value in values.items()]
        return _html.card(type(self).__name__, [], ("", "number", "type"), rows)

    def __getattr__(self, name: str) -> Any:
        # Asked for what is no field; while a copy is being made there are no fields yet.
        own, more = vars(self).get("name"), vars(self).get("more", {})
        if name == own is not None:
            return self.value
        if name in more:
            return more[name]
        names = ", ".join(f"`{known}`" for known in ("value", *([own] if own else []), "applies", *more))
        raise AttributeError(f"This statement has no `{name}`: it has {names}.")
