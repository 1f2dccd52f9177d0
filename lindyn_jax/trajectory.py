"""One result for flow, descent and closed forms: times, observables along the way, the final model, and how it ended."""

from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from . import _html
from ._checks import is_traced
from .models import AbstractModel

M = TypeVar("M", bound=AbstractModel)

FINISHED, STOPPED, STEP_LIMIT, DIVERGED, SOLVER_FAILED, NOT_CONVERGED, LOST = range(7)

RESULTS = {
    FINISHED: "finished: reached the last time or step",
    STOPPED: "stopped: reached the loss asked for",
    STEP_LIMIT: "step limit: ran out of steps before the end",
    DIVERGED: "diverged: weights or loss are not finite",
    SOLVER_FAILED: "solver failed: a step could not be completed",
    NOT_CONVERGED: "not converged: the limit was not reached to the accuracy asked for",
    LOST: "lost to round-off: round-off of the start, not the start, chose where the path went",
}


# What the numbers on a run are, in datasets.
STATS = {
    "final_time": {"long_name": "time of a flow, or step of descent, at which the run ended", "units": "1"},
    "num_steps": {"long_name": "steps of the solver", "units": "1"},
    "num_accepted": {"long_name": "steps that the solver accepted", "units": "1"},
    "num_rejected": {"long_name": "steps that the solver rejected and took again", "units": "1"},
    "implicit": {"long_name": "whether the solver was an implicit one"},
    "roundoff": {"long_name": "how far round-off has grown by the end, relative to all weights", "units": "1"},
}


class Trajectory(eqx.Module, Generic[M]):
    """What a solver returns.

    **Fields:**

    - `ts`: shape (T,), the times (flow) or step numbers (descent) asked for.
    - `observables`: name -> array of shape (T, ...). Slots after the end of a stopped or failed run hold infinity,
        and so do those of a descent from where its weights or loss are not finite on.
    - `final`: the model at the end, of the kind that was passed in; at the stopping point if it was stopped.
    - `final_observables`: the observables of `final`, without a time axis; infinity where the run diverged.
    - `result`: a code of `trajectory.RESULTS`, as an integer array so that it can be mapped over and stored.
    - `stats`: numbers on the run: `final_time` (of descent, the step of the test that ended it, one in eight), `num_steps`,
        and for flows `num_accepted`, `num_rejected`, `implicit`, whether the solver was an implicit one, and `roundoff`, how
        far round-off has grown by the end, relative to all weights.
    - `models`: the models at `ts`, stacked, if `keep_models=True`; otherwise `None`.

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> start = ld.TwoLayer(0.1 * jnp.eye(2), 0.1 * jnp.eye(2))
        >>> flow = ld.gradient_flow(start, problem, [0.0, 1.0, 2.0])
        >>> print(bool(flow.ok), ld.RESULTS[int(flow.result)])
        True finished: reached the last time or step
        >>> print(flow.ts, flow.observables["loss"], flow.final_observables["loss"])
        [0. 1. 2.] [2.470 1.664 0.2155] 0.2155
    """

    ts: Float[Array, " T"] | Int[Array, " T"]
    observables: dict[str, Array]
    final: M
    final_observables: dict[str, Array]
    result: Int[Array, ""]
    stats: dict[str, Array]
    models: Any = None

    @property
    def ok(self) -> Bool[Array, ""]:
        """Whether the run finished or was stopped where asked; anything else must be masked in statistics."""
        return self.result <= STOPPED

    def to_xarray(self):
        """The observables as a labelled dataset, with their units, over `time` of a flow or `step` of descent.

        **Returns:** an `xarray.Dataset`; axes of vectors are called `NAME_index`, those of a batch `run_0`, `run_1`, ...; `ok`
        and `result` say how each run ended, `final_time`, `num_steps` and the others of `stats` when and after what. Values at
        times after the end of a run that was stopped or failed are infinite, as the attribute `after_end` says.

        **Raises:** `ValueError` inside of jit or vmap.
        """
        import xarray as xr

        from .observables import attributes

        if is_traced(*jax.tree.leaves(self)):
            raise ValueError(
                "A trajectory inside of jit or vmap has no numbers yet: make a dataset of what these return."
            )
        ts, batch = np.asarray(self.ts), tuple(f"run_{axis}" for axis in range(np.ndim(self.result)))
        kind = "step" if np.issubdtype(ts.dtype, np.integer) else "time"
        if ts.ndim > 1 and not np.all(ts == ts.reshape(-1, ts.shape[-1])[0]):
            raise ValueError("The runs of this batch have other times each: make a dataset of one at a time.")
        words = {"time": ("time of the flow", "1"), "step": ("number of steps", "1")}[kind]
        times = (kind, ts.reshape(-1, ts.shape[-1])[0], dict(zip(("long_name", "units"), words, strict=True)))
        arrays, described = {}, attributes()
        for name, value in self.observables.items():
            inner = value.ndim - len(batch) - 1
            own = (f"{name}_index",) if inner == 1 else tuple(f"{name}_index_{axis}" for axis in range(inner))
            facts = {**described.get(name, {}), "after_end": "infinity: values after final_time were not computed"}
            arrays[name] = ((*batch, kind, *own), np.asarray(value), facts)
        for name, value in self.stats.items():
            if name not in arrays:
                arrays[name] = (batch, np.asarray(value), STATS.get(name, {}))
        meanings = "; ".join(f"{code}: {text}" for code, text in RESULTS.items())
        arrays["result"] = (batch, np.asarray(self.result), {"long_name": "how the run ended", "convention": meanings})
        arrays["ok"] = (batch, np.asarray(self.ok), {"long_name": "whether it ended as asked"})
        return xr.Dataset(arrays, coords={kind: times}, attrs={"model": type(self.final).__name__})

    def _repr_html_(self) -> str:
        facts, rows = self._described()
        lines = [f"{name}: {text}" for name, text in facts]
        return _html.card(self._heading, lines, ("observable", "type", "first", "at the end"), rows)

    def __repr__(self) -> str:
        facts, rows = self._described()
        told = [
            f"  {name:<20} {kind}" + (f"  {first} -> {last} at the end" if first else "")
            for name, kind, first, last in rows
        ]
        return "\n".join([self._heading, *(f"  {name:<7} {text}" for name, text in facts), *told])

    @property
    def _heading(self) -> str:
        traced = " (traced)" if is_traced(*jax.tree.leaves(self)) else ""
        return f"Trajectory of {type(self.final).__name__}{traced}"

    def _described(self) -> tuple[list[tuple[str, str]], list[tuple[str, ...]]]:
        """Facts about the run, and a row for each observable: its name, its type, and the first and last of single numbers."""
        if is_traced(*jax.tree.leaves(self)):
            return [], []
        result, ts = np.asarray(self.result), np.asarray(self.ts)
        codes = {code: RESULTS[code] for code in np.unique(result).tolist()}
        ended = ", ".join(f"{np.sum(result == code)} {text.split(':')[0]}" for code, text in codes.items())
        facts = [("batch", f"{result.shape}: {ended}")] if result.ndim else [("result", codes[int(result)])]
        facts.append(("times", f"{ts.shape[-1]} from {ts.min():g} to {ts.max():g}"))
        numbers = {name: _html.number(value) for name, value in self.stats.items()}
        facts.append(("stats", ", ".join(f"{name} {text}" for name, text in numbers.items() if text)))
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(self) if eqx.is_array(leaf))
        facts.append(("memory", f"{size / 1024:.1f} KiB"))
        rows = [
            (
                name,
                _html.laid_out(value),
                *map(_html.number, (value[0], self.final_observables[name]) if value.ndim == 1 else ("", "")),
            )
            for name, value in self.observables.items()
        ]
        return [fact for fact in facts if fact[1]], rows


def failed_to_inf(written: Bool[Array, ""], value: Array) -> Array:
    """`value` where the slot was reached, infinity (the largest integer, for integers) where it was not."""
    if jnp.issubdtype(value.dtype, jnp.inexact):
        return jnp.where(written, value, jnp.inf)
    if jnp.issubdtype(value.dtype, jnp.integer):
        return jnp.where(written, value, jnp.iinfo(value.dtype).max)
    return jnp.where(written, value, False)
