"""Tests run in 64-bit mode, with every public signature's shapes checked while they run."""

import gc
import os
import threading
from pathlib import Path

import jax
import jaxlib.version
import jaxtyping
import numpy as np
import pytest
from jax._src.interpreters import mlir

# Most programs of the suite run once or twice: half of its time is saved by compiling them with fewer optimizations of the
# machine code. Those of the computation itself (fusion, algebra) stay as users have them. XLA stops at flags that it does not
# know: the last two are given to the versions that were seen to have them.
flags = ["--xla_backend_optimization_level=0"]
if jaxlib.version.__version_info__ < (0, 10):
    flags += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
given = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = " ".join([given, *(flag for flag in flags if flag.split("=")[0] not in given)])

# Tracing makes and drops millions of small objects, none of which the collector frees: it may look less often.
gc.set_threshold(200_000, 50, 100)

jax.config.update("jax_enable_x64", True)

with jaxtyping.install_import_hook("lindyn_jax", "beartype.beartype"):
    import lindyn_jax  # noqa: F401

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


def pytest_collection_modifyitems(items):
    if jax.default_backend() == "cpu":
        skip = pytest.mark.skip(reason="needs an accelerator")
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """Frees compiled programs between files where they become many: those of the whole suite need too many memory maps."""
    yield
    maps = Path("/proc/self/maps")
    if not maps.exists() or len(maps.read_bytes().splitlines()) > 40_000:
        jax.clear_caches()


@pytest.fixture
def rng(request):
    """A generator seeded by the test's own name; the seed is printed so that a failure can be repeated."""
    seed = sum(ord(c) * 31**i for i, c in enumerate(request.node.name)) % 2**32
    print(f"seed of {request.node.name}: {seed}")
    return np.random.default_rng(seed)


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    return np.dtype(request.param)
