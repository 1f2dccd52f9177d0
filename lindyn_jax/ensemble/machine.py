"""Memory, random generators and versions: the machine that an ensemble runs on."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import _checks

# Generators whose numbers under vmap depend on which keys are batched together.
UNBATCHED = ("rbg", "unsafe_rbg")


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
