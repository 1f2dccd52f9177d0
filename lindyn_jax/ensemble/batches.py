"""The compiled batch: all grid points times the trials of a chunk, over the local devices, and their reductions."""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

Trial = Callable[..., Mapping[str, Array]]
BATCHES = ("auto", "map", "vmap", "blocks")
BLOCK = 256


def _array(name: str, value) -> Array:
    """An output as an array, or a refusal in one sentence."""
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError):
        fields = ", such as `.value`," if hasattr(value, "applies") else ""
        raise ValueError(
            f"Output `{name}` of the trial function must be an array of numbers, but is a {type(value).__name__}: return each "
            f"of its numbers{fields} as an output of its own."
        ) from None


class Runner:
    """The compiled batch: trials `start .. start + chunk` at every grid point, and their reductions."""

    def __init__(self, trial: Trial, grid: Mapping[str, np.ndarray], key, chunk: int, batch: str, reductions):
        devices = jax.local_devices()
        self.chunk, self.batch = chunk, batch
        mesh = np.meshgrid(*grid.values(), indexing="ij")
        dtype = jnp.result_type(float)
        self.points = {name: values.ravel().astype(dtype) for name, values in zip(grid, mesh, strict=True)}
        self.count = len(next(iter(self.points.values())))
        # One call computes all points under map, one point under vmap: trials of one point are alike in difficulty.
        self.size = chunk if batch == "vmap" else chunk * self.count
        # A block is the same whatever the devices: it goes to one of them as a whole.
        block = BLOCK if batch == "blocks" else 1
        whole = len(devices) * block
        self.padded = -(-self.size // whole) * whole
        # Dealt out in turn, so that every device gets its share of the hard grid points.
        self.deal = np.arange(self.padded).reshape(-1, len(devices), block).swapaxes(0, 1).ravel()
        self.home = devices[0]

        def one(arguments):
            index, point = arguments
            outputs = trial(jax.random.fold_in(key, index), **point)
            known = hasattr(outputs, "items")
            if not known or not outputs:
                what = "an empty one" if known else f"a {type(outputs).__name__}"
                raise ValueError(
                    f"The trial function must return a dictionary of arrays, but returned {what}: return its numbers by "
                    'name, such as {"loss": loss}.'
                )
            outputs = {name: _array(name, value) for name, value in outputs.items()}
            for name, value in outputs.items():
                if jnp.issubdtype(value.dtype, jax.dtypes.extended):
                    raise ValueError(f"Output `{name}` has dtype {value.dtype}: return numbers.")
            if "ok" not in outputs:
                finite = [jnp.all(jnp.isfinite(v)) for v in outputs.values() if jnp.issubdtype(v.dtype, jnp.inexact)]
                outputs["ok"] = jnp.all(jnp.stack(finite)) if finite else jnp.ones((), bool)
            return outputs

        def many(indices, points):
            if batch == "vmap":
                return jax.vmap(lambda i, p: one((i, p)))(indices, points)
            return jax.lax.map(one, (indices, points), batch_size=None if batch == "map" else BLOCK)

        if len(devices) > 1:
            axis = jax.sharding.PartitionSpec("device")
            self.sharding = jax.sharding.NamedSharding(jax.sharding.Mesh(np.array(devices), ("device",)), axis)
            many = jax.shard_map(many, mesh=self.sharding.mesh, in_specs=(axis, axis), out_specs=axis, check_vma=False)
        else:
            self.sharding = self.home
        lowered = jax.jit(many).lower(*self._arguments(0, slice(0, self.size)))
        self.outputs = {
            name: jax.ShapeDtypeStruct(value.shape[1:], value.dtype) for name, value in lowered.out_info.items()
        }
        self._lowered = lowered
        collect = np.argsort(self.deal)[: self.size]
        shape = tuple(len(values) for values in grid.values())

        def gather(pieces):
            # On one device and in the order of the trials: what follows is the same program for any number of devices.
            whole = {name: jnp.concatenate([piece[name][collect] for piece in pieces]) for name in self.outputs}
            return {name: value.reshape(self.count, chunk, *value.shape[1:]) for name, value in whole.items()}

        def reduce(outputs, present):
            outputs = {name: value.reshape(*shape, *value.shape[1:]) for name, value in outputs.items()}
            ok = outputs["ok"]

            def seen(value):
                if not jnp.issubdtype(value.dtype, jnp.floating):
                    return value
                return jnp.where(ok.reshape(*ok.shape, *(1,) * (value.ndim - ok.ndim)), value, jnp.nan)

            outputs = {name: seen(value) for name, value in outputs.items()}
            inside = jnp.arange(chunk) < present
            return {name: reduction(outputs, inside) for name, reduction in reductions.items()}

        self._gather, self._reduce = jax.jit(gather), jax.jit(reduce)
        whole = {
            name: jax.ShapeDtypeStruct((self.count, chunk, *output.shape), output.dtype)
            for name, output in self.outputs.items()
        }
        self.reduced = jax.eval_shape(reduce, whole, jax.ShapeDtypeStruct((), jnp.int32))

    @functools.cached_property
    def compiled(self):
        """The program, made when it is first asked for."""
        return self._lowered.compile()

    @property
    def memory(self) -> float:
        """Bytes that a chunk needs on the device it is gathered on, the copy in the order of the trials included."""
        analysis = self.compiled.memory_analysis()
        needed = 0
        if analysis is not None:
            needed = analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + analysis.output_size_in_bytes
        each = sum(int(np.prod(output.shape)) * output.dtype.itemsize for output in self.outputs.values())
        return float(needed + 3 * self.chunk * self.count * each)

    def _arguments(self, start: int, part: slice):
        trial = start + np.arange(self.chunk)
        indices = np.tile(trial, self.count)[part].astype(np.uint32)
        points = {name: np.repeat(values, self.chunk)[part] for name, values in self.points.items()}
        pad = [(0, self.padded - self.size)]
        arguments = jax.tree.map(lambda x: np.pad(x, pad, mode="edge")[self.deal], (indices, points))
        return jax.device_put(arguments, self.sharding)

    def __call__(self, start: int, present: int) -> tuple[dict[str, Array], dict[str, np.ndarray]]:
        """Outputs of shape (points, chunk, ...), of which `present` trials count, and their reductions."""
        parts = [slice(begin, begin + self.size) for begin in range(0, self.chunk * self.count, self.size)]
        pieces = [self.compiled(*self._arguments(start, part)) for part in parts]
        outputs = self._gather(jax.device_put(pieces, self.home))
        return outputs, self.reductions_of(outputs, present)

    def reductions_of(self, outputs: Mapping[str, Array | np.ndarray], present: int) -> dict[str, np.ndarray]:
        """The reductions of outputs of shape (points, chunk, ...), of which `present` trials count."""
        reduced = self._reduce(jax.device_put(dict(outputs), self.home), jnp.int32(present))
        return {name: np.asarray(value) for name, value in reduced.items()}
