"""A problem from a function."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float

from .._public import public
from ._functions import as_tree, check_number
from .base import AbstractProblem


class CustomProblem(AbstractProblem):
    """Any differentiable function of the end-to-end matrix.

    **Args:** `loss`, a function (n, m) -> number that JAX can differentiate; numbers that are to be traced or differentiated
    belong into its arguments by `jax.tree_util.Partial(function, numbers)` or into a callable `eqx.Module`; `num_inputs`, n, and
    `num_outputs`, m.

    **Raises:** `ValueError` for sizes that are not positive, or a function that makes something else of such a matrix.

    **Notes:** a new function is compiled anew, and so is one defined again; a `Partial` of one function is not.

    Example:

        >>> Y = jnp.array([[1.0, -2.0]])
        >>> problem = ld.CustomProblem(lambda Theta: jnp.sum(jnp.log(jnp.cosh(Theta - Y))), 1, 2)
        >>> print(problem.loss(jnp.zeros((1, 2))), problem.loss_gradient(jnp.zeros((1, 2))))
        1.759 [[-0.7616  0.9640]]
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
        self.function = as_tree(loss)
        given = jax.ShapeDtypeStruct((self.num_inputs, self.num_outputs), self.dtype)
        check_number(self.function, "loss", given, 1, "a matrix")

    def loss(self, Theta: Float[Array, "n m"]) -> Float[Array, ""]:
        return self.function(Theta)
