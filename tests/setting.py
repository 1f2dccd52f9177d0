"""What tests run in: 64-bit mode, every public signature's shapes checked while they run, and programs compiled in little time.

Imported before anything else by the processes that run tests.
"""

import functools
import inspect
import os

import jax
import jaxtyping
import numpy as np
import quick  # noqa: F401

jax.config.update("jax_enable_x64", True)

# Processes that run tests are told the width of the terminal, which what is printed would follow.
os.environ.pop("COLUMNS", None)


ARRAYS = (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct)


class Unseen(Exception):
    """An argument of which it is not known what its check depends on."""


def kind_of(value):
    """All that a check of an argument depends on: its type, with the shape of an array, the value of a word or a whole number."""
    if isinstance(value, ARRAYS):
        return type(value), value.shape, value.dtype
    if isinstance(value, (tuple, list)):
        return type(value), *map(kind_of, value)
    if isinstance(value, (dict, set, frozenset)):
        raise Unseen
    return (type(value), value) if isinstance(value, (str, int, type(None))) else type(value)


def checked_once(typechecker, jaxtyped=jaxtyping.jaxtyped):
    """`jaxtyped` for functions that are called with arguments of the same kinds again and again: one check of each will do.

    Checked every time they are called, they take a quarter of the time in which a flow is traced.
    """

    def decorate(function):
        # It looks at who calls it.
        if getattr(function, "__qualname__", "") == "__getattr__":
            return function
        checked = jaxtyped(typechecker=typechecker)(function)
        if not inspect.isfunction(function):
            return checked
        seen = set()

        @functools.wraps(function)
        def call(*args, **kwargs):
            try:
                kinds = (*map(kind_of, args), *kwargs, *map(kind_of, kwargs.values()))
                if kinds in seen:
                    return function(*args, **kwargs)
            except Unseen:
                return checked(*args, **kwargs)
            answer = checked(*args, **kwargs)
            seen.add(kinds)
            return answer

        return call

    return decorate


jaxtyping.jaxtyped = checked_once
with jaxtyping.install_import_hook("lindyn_jax", "beartype.beartype"):
    import lindyn_jax

    # Modules are imported, and so checked, with the first name that is asked for.
    lindyn_jax.__all__

# What is defined at import is checked. Functions inside of functions would be decorated whenever those are called, which takes
# longer than tracing them.
jaxtyping.jaxtyped = lambda **_: lambda function: function
