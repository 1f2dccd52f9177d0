"""Losses that are functions of the user's."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp


def as_tree(function: Callable) -> Any:
    """A function as a tree of its numbers."""
    return function if isinstance(function, (eqx.Module, jax.tree_util.Partial)) else jax.tree_util.Partial(function)


def check_number(function: Callable, name: str, given: jax.ShapeDtypeStruct, count: int, words: str) -> None:
    """Refuses a function that makes anything but a real number of `count` arrays such as `given`, in `words`."""
    one = "them" if count > 1 else "one"
    try:
        made = jax.eval_shape(function, *[given] * count)
    except Exception as error:
        raise ValueError(
            f"Argument `{name}` must be a function of {words} of shape {given.shape}, but fails for {one}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if getattr(made, "shape", None) != () or not jnp.issubdtype(made.dtype, jnp.floating):
        raise ValueError(
            f"Argument `{name}` must make a real number of {words} of shape {given.shape}, but makes {made}."
        )
