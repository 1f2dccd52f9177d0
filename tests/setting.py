"""What tests run in: 64-bit mode, every public signature's shapes checked while they run, and programs compiled in little time.

Imported before anything else by the processes that run tests.
"""

import functools
import gc
import inspect
import os
import threading
import types

import equinox.internal
import jax
import jax.numpy as jnp
import jaxlib.version
import jaxtyping
import numpy as np
from diffrax import _integrate
from jax._src.interpreters import mlir

# Most programs of the suite run once or twice: half of its time is saved by compiling them with fewer optimizations of the
# machine code. Those of the computation itself (fusion, algebra) stay as users have them. XLA stops at flags that it does not
# know: the last two are given to the versions that were seen to have them.
flags = ["--xla_backend_optimization_level=0"]
if jaxlib.version.__version_info__ < (0, 10):
    flags += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
given = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = " ".join([given, *(flag for flag in flags if flag.split("=")[0] not in given)])

# Commands keep their programs in the user's folder; those of the tests do not.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")
    jax.config.update("jax_enable_compilation_cache", False)

# Tracing makes and drops millions of small objects, none of which the collector frees: it may look less often.
gc.set_threshold(200_000, 50, 100)

# For the number a hundred places before the end diffrax calls `nextafter` as often, each time some thirty operations of XLA: a
# quarter of what it takes to compile a flow. A product is the same number, for what is positive.
if hasattr(_integrate, "eqxi"):
    _integrate.eqxi = types.ModuleType("eqxi")
    vars(_integrate.eqxi).update(vars(equinox.internal), prevbefore=lambda x: x * (1 - jnp.finfo(x.dtype).epsneg))

jax.config.update("jax_enable_x64", True)


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


class Contexts(threading.local):
    """Lets fifty programs in turn share what JAX makes anew for each before it lowers it: a fifth of what small ones take."""

    make, uses, context = staticmethod(mlir.make_ir_context), 0, None

    def __call__(self):
        try:
            mlir.ir.InsertionPoint.current
        except ValueError:
            pass
        else:
            # A program that is compiled while another is being lowered would be written into that one.
            return self.make()
        if self.uses % 50 == 0:
            self.context = self.make()
        self.uses += 1
        return self.context


if jaxlib.version.__version_info__ < (0, 10):
    mlir.make_ir_context = Contexts()
