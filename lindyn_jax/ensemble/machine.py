"""Processes, memory, random generators and versions: the machine that an ensemble runs on."""

import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import _checks

# Generators whose numbers under vmap depend on which keys are batched together.
UNBATCHED = ("rbg", "unsafe_rbg")


class Processes(NamedTuple):
    """Which of how many processes this one is. **Fields:** `index`, from 0; `count`."""

    index: int
    count: int


def join_processes(coordinator: str | None = None, count: int | None = None, index: int | None = None) -> Processes:
    """Finds out which of how many processes this one is; to be called before JAX is used.

    **Args:**

    - `coordinator`: `HOST:PORT` on the host of process 0. With it the processes meet through `jax.distributed`, which makes
        sure that there are as many as they think, and part again at once: from then on one that dies takes no other with it.
        Without it they do not meet.
    - `count`, `index`: number of processes and index of this one, from 0. By default those of the SLURM job step that this
        process belongs to; (1, 0) outside one.

    **Returns:** a `Processes`.

    **Raises:** `ValueError` when only one of count and index is given, for an index that is not one of count, or a coordinator
    without them.

    **Notes:** nothing else is agreed on here. The settings are: all processes write to one store, which belongs to the settings
    of the process that made it, and others are refused by `SweepStore.prepare`. A step of SLURM is what `srun` starts: in
    the batch script itself, and on a login node, there is one process.
    """
    step = "SLURM_STEP_NUM_TASKS" in os.environ and "SLURM_PROCID" in os.environ
    if count is None and index is None and step:
        count, index = int(os.environ["SLURM_STEP_NUM_TASKS"]), int(os.environ["SLURM_PROCID"])
    if (count is None) != (index is None):
        raise ValueError("Give both the number of processes and the index of this one, or neither.")
    if count is None or index is None:
        if coordinator is not None:
            raise ValueError(
                "A coordinator needs to know the number of processes and the index of this one: give both, or start the "
                "processes by srun."
            )
        count, index = 1, 0
    if count < 1 or not 0 <= index < count:
        raise ValueError(f"Process indices run from 0 to {count - 1} for {count} processes, but this one is {index}.")
    if coordinator is not None:
        jax.distributed.initialize(coordinator, count, index)
        # The devices of this process are settled by now and stay its own.
        jax.local_devices()
        jax.distributed.shutdown()
    return Processes(index, count)


def free_memory() -> float:
    """Bytes that are free on the fullest local device; for the devices of a CPU their share of the host's free memory."""
    devices = jax.local_devices()
    stats = [device.memory_stats() for device in devices]
    if all(entry and "bytes_limit" in entry for entry in stats):
        return float(min(entry["bytes_limit"] - entry.get("bytes_in_use", 0) for entry in stats))
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) / len(devices)
    except (AttributeError, ValueError, OSError):
        return float("inf")


def describe_environment() -> dict[str, Any]:
    """Versions, devices and precision, as stored beside results; no setting of a study, so that a resume may find others."""
    import platform
    from importlib.metadata import version

    packages = ("lindyn_jax", "jax", "jaxlib", "equinox", "diffrax", "optax", "numpy")
    device = jax.local_devices()[0]
    return {
        "versions": {"python": platform.python_version()} | {package: version(package) for package in packages},
        "backend": jax.default_backend(),
        "device": device.device_kind,
        "devices": len(jax.local_devices()),
        "float": str(jnp.result_type(float)),
        "generator": generator_of(jax.random.key(0)),
        "matmul_precision": str(_checks.jax_setting("jax_default_matmul_precision") or "default"),
    }


def generator_of(key) -> str:
    """The implementation that draws from a key, with what else decides its numbers."""
    if not (hasattr(key, "dtype") and hasattr(key, "shape")):
        raise ValueError(f"Argument `key` must be a key such as `jax.random.key(0)`, but is {key!r}.")
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    raw = jax.random.key_data(jax.random.key(0)).shape
    if key.shape != (() if typed else raw) or not (typed or key.dtype == jnp.uint32):
        raise ValueError(
            f"Argument `key` must be one key such as `jax.random.key(0)`, but has dtype {key.dtype} and shape {key.shape}."
        )
    name = str(jax.random.key_impl(key)) if typed else str(_checks.jax_setting("jax_default_prng_impl"))
    partitionable = name != "threefry2x32" or _checks.jax_setting("jax_threefry_partitionable")
    return name if partitionable else f"{name}, not partitionable"


def key_words(key) -> list[int]:
    data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    return np.asarray(data).tolist()
