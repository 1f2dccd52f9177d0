"""Programs that are compiled and lowered in little time, for tests and the programs that they start."""

import gc
import os
import threading
import types

import equinox.internal
import jax
import jax.numpy as jnp
import jaxlib.version
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
