"""A problem from a function."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._public import public
from .base import AbstractProblem


class CustomProblem(AbstractProblem):
    """Any differentiable function of the end-to-end matrix.

    **Args:** `loss`, a function (n, m) -> number that JAX can differentiate; numbers that are to be traced or differentiated
    belong into its arguments by `jax.tree_util.Partial(function, numbers)` or into a callable `eqx.Module`; `num_inputs`, n, and
    `num_outputs`, m.

    **Raises:** `ValueError` for sizes that are not positive, or a function that makes something else of such a matrix.

    **Notes:** a new function is compiled anew, and so is one defined again; a `Partial` of one function is not.

    **Example:** `CustomProblem(lambda Theta: jnp.sum(jnp.log(jnp.cosh(Theta - Y))), 4, 3)`.
    """

    function: Any
    num_inputs: int = eqx.field(static=True)
    num_outputs: int = eqx.field(static=True)

    @public
    def __init__(self, loss: Callable, num_inputs: int, num_outputs: int):
        for name, size in (("num_inputs", num_inputs), ("num_outputs", num_outputs)):
            if size < 1:
                raise ValueError(f"Argument `{name}` must be at least 1, but is {size}.")
        self.num_inputs, self.num_outputs = int(num_inputs), int(num_outputs)
        is_tree = isinstance(loss, (eqx.Module, jax.tree_util.Partial))
        self.function = loss if is_tree else jax.tree_util.Partial(loss)
        given = jax.ShapeDtypeStruct((self.num_inputs, self.num_outputs), self.dtype)
        try:
            made = jax.eval_shape(self.function, given)
        except Exception as error:
            raise ValueError(
                f"Argument `loss` must be a function of a matrix of shape {given.shape}, but fails for one: "
                f"{type(error).__name__}: {error}"
            ) from error
        if getattr(made, "shape", None) != () or not jnp.issubdtype(made.dtype, jnp.floating):
            raise ValueError(
                f"Argument `loss` must make a real number of a matrix of shape {given.shape}, but makes {made}."
            )

    def loss(self, Theta: Float[Array, "n m"]) -> Float[Array, ""]:
        return self.function(Theta)
