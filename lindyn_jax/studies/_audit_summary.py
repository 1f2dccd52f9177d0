"""Statistics over the starts of an audit, and the tables of them."""

import math
from collections.abc import Sequence

import numpy as np

from ..statistics import frequency as exact_frequency
from .study import Table

Number = float | int
LOSS_STATEMENTS = ("theorem3", "corollary4", "corollary5", "corollary6")
RATE_STATEMENTS = ("lemma7", "proposition1", "theorem3")
NAMES = {
    "lemma7": "Lemma 7",
    "proposition1": "Prop. 1",
    "theorem3": "Theorem 3",
    "corollary4": "Cor. 4 (M21 Thm. 1)",
    "corollary5": "Cor. 5",
    "corollary6": "Cor. 6",
}


def summarise(dataset, ratio: Number = 1e-2):
    """Statistics over the starts of an audit.

    **Args:** `dataset`, from `audit`; `ratio`, of excess losses, for `time_to_ratio`.

    **Returns:** an `xarray.Dataset` over (case, dynamics) and where it makes sense statement and time:

    - `applies`, `local_rate_applies`, `tightness_attained` and `tightness_applies`: frequencies, with exact 95% intervals
        (`..._low`, `..._high`);
    - `loss_crossed`, `rate_crossed`: how many trials cross a bound whose hypotheses hold, with `..._low`, `..._high` of the
        frequency;
    - `rate_tightness`, bound over rate at every time at which the losses of half of the starts are resolved, and
        `loss_tightness` over all times, of trials in which the statement applies: `..._median`, `..._low` (5%), `..._high`
        (95%), `..._largest`;
    - `excess_loss`, `loss_bound`, `rate`, `rate_bound`: medians at every time, the last two as far as `rate_tightness` goes;
    - `imbalance_plus`, `imbalance_minus`, `imbalance_level`, `local_rate`, `drift`: medians;
    - `time_to_ratio`: median time at which the excess loss is `ratio` of its start, infinity if it never is;
    - `trials`, `failures`.

    Quantiles are by the nearest rank.
    """
    import xarray as xr

    if not 0 < ratio < 1:
        raise ValueError(f"Argument `ratio` is one of excess losses and must lie in (0, 1), but is {ratio:g}.")
    if "computed" in dataset.coords:
        dataset = dataset.isel(trial=np.flatnonzero(dataset["computed"].values))
    dataset = dataset.load().transpose("case", "trial", "dynamics", "statement", "rate_statement", "time", ...)
    good = dataset["succeeded"].astype(bool)
    counts = good.sum("trial")
    summary = xr.Dataset(
        coords={name: dataset[name] for name in ("case", "dynamics", "statement", "rate_statement", "time")}
    )

    def frequency(name, events, trials, count=False):
        trials = xr.broadcast(trials, events.isel(trial=0, drop=True))[0]
        happened = events.sum("trial").transpose(*trials.dims)
        value, low, high = exact_frequency(happened.values, trials.values)
        summary[name] = happened if count else (trials.dims, value)
        summary[f"{name}_low"], summary[f"{name}_high"] = (trials.dims, low), (trials.dims, high)

    frequency("applies", dataset["applies"].astype(bool) & good, counts)
    started = xr.full_like(dataset["imbalance_level"].isel(trial=0, drop=True), dataset.sizes["trial"])
    for name in ("local_rate_applies", "tightness_applies", "tightness_attained"):
        frequency(name, dataset[name].astype(bool), started)
    for name in ("loss_crossed", "rate_crossed"):
        frequency(name, dataset[name].astype(bool) & good, counts, count=True)

    def quantiles(name, values, over):
        for suffix, q in (("_low", 0.05), ("_median", 0.5), ("_high", 0.95)):
            summary[name + suffix] = _quantile(values, q, over)
        summary[f"{name}_largest"] = _quantile(values, 1.0, [*over, *({"time"} - set(over))])

    resolved = good & (dataset["excess_loss"] > 100 * dataset["resolution"])
    # Where only a few paths are left, they are the slowest ones and stand for nobody else.
    resolved = resolved & (2 * resolved.sum("trial") >= counts)
    quantiles("rate_tightness", (dataset["rate_bound"] / dataset["rate"]).where(resolved), ["trial"])
    spoken = dataset["applies"].astype(bool) & good
    quantiles("loss_tightness", dataset["loss_tightness"].where(spoken), ["trial", "time"])
    for name, kept in (("excess_loss", good), ("loss_bound", spoken), ("rate", resolved), ("rate_bound", resolved)):
        summary[name] = _quantile(dataset[name].where(kept), 0.5, ["trial"])
    for name in ("imbalance_plus", "imbalance_minus", "imbalance_level", "local_rate"):
        summary[name] = dataset[name].median("trial")
    summary["drift"] = _quantile(dataset["imbalance_drift"].isel(time=-1).where(good), 0.5, ["trial"])
    times = np.apply_along_axis(
        _crossing, -1, dataset["excess_loss"].transpose(..., "time").values, dataset["time"].values, ratio
    )
    times = xr.DataArray(times, dims=("case", "trial", "dynamics"))
    summary["time_to_ratio"] = _quantile(times.where(good), 0.5, ["trial"])
    summary["trials"] = xr.full_like(counts, dataset.sizes["trial"])
    summary["failures"] = summary["trials"] - counts
    for name in summary.data_vars:
        summary[name].attrs = {}
    summary.attrs = {"ratio": float(ratio), "interval": "95%"}
    return summary


def _quantile(values, q: float, over: Sequence[str]):
    """Quantile without NaN, by the nearest rank, so that infinity stays what it is; NaN where nothing is left."""
    import xarray as xr

    def nearest(array):
        flat = np.sort(array.reshape(*array.shape[: array.ndim - len(over)], -1), axis=-1)
        last = np.sum(~np.isnan(flat), axis=-1) - 1
        index = np.round(q * np.maximum(last, 0)).astype(int)
        return np.take_along_axis(flat, index[..., None], axis=-1)[..., 0]

    return xr.apply_ufunc(nearest, values, input_core_dims=[list(over)])


def _crossing(losses: np.ndarray, ts: np.ndarray, ratio: float) -> float:
    """When the loss falls below `ratio` of its start, with the logarithm interpolated linearly."""
    below = np.flatnonzero(losses <= ratio * losses[0])
    if below.size == 0:
        return math.inf
    i = below[0]
    high, low, target = (math.log(max(value, 1e-300)) for value in (losses[i - 1], losses[i], ratio * losses[0]))
    return float(ts[i - 1] + (ts[i] - ts[i - 1]) * (high - target) / (high - low))


def tables(summary) -> list[Table | str]:
    """The summary in two tables, and a sentence for each case."""
    dynamics = [str(name) for name in summary["dynamics"].values]
    ratio, end = summary.attrs["ratio"], float(summary["time"][-1])

    def number(value) -> str:
        return f"{float(value):.3g}" if math.isfinite(float(value)) else "-"

    def ratio_of(value) -> str:
        # Below that it is the round-off of a zero.
        return "0" if abs(float(value)) < 1e-12 else number(value)

    def share(row, name, never: str = "hypothesis not met") -> str:
        value, low, high = (float(row[name + end]) for end in ("", "_low", "_high"))
        return f"{f'{value:.2f}' if value > 0 else never} [{low:.2f}, {high:.2f}]"

    def crossed(row, name) -> list[str]:
        counts = [
            (int(row[name].sel(dynamics=d)), int((row["trials"] - row["failures"]).sel(dynamics=d))) for d in dynamics
        ]
        return [f"{happened} of {count}" for happened, count in counts]

    rows: list[list[str] | None] = []
    for case in summary["case"].values:
        row = summary.sel(case=case)
        times = [float(row["time_to_ratio"].sel(dynamics=d)) for d in dynamics]
        rows.append(
            [
                str(case),
                *(number(row[f"imbalance_{part}"]) for part in ("plus", "minus", "level")),
                number(row["local_rate"]),
                *(f"{t:.3g}" if math.isfinite(t) else f"> {end:.3g}" for t in times),
                " / ".join(f"{float(row['drift'].sel(dynamics=d)):.1e}" for d in dynamics),
                str(int(row["failures"].sum())),
            ]
        )
    to = (f"{d}: time to {ratio:g}" for d in dynamics)
    columns = ("case", "Delta+", "Delta-", "Delta", "rate (22)", *to, "drift of D", "failed")
    title = "Imbalance and speed (medians over the starts; rate (22): what Theorem 3 gives near the end)"
    parts: list[Table | str] = [Table(title, columns, rows, ("case",), tight=False)]
    rows = []
    for case in summary["case"].values:
        first = summary.sel(case=case, dynamics=dynamics[0])
        for index, statement in enumerate(RATE_STATEMENTS):
            row = first.sel(rate_statement=statement)
            path = row["rate_tightness_median"].values
            seen = path[[math.isfinite(value) for value in path]]
            rows.append(
                [
                    str(case) if index == 0 else "",
                    f"rate: {NAMES[statement]}",
                    "none needed",
                    ratio_of(path[0]),
                    ratio_of(seen[-1]) if len(seen) else "-",
                    ratio_of(row["rate_tightness_largest"]),
                    *crossed(summary.sel(case=case, rate_statement=statement), "rate_crossed"),
                ]
            )
        for statement in LOSS_STATEMENTS:
            row = first.sel(statement=statement)
            rows.append(
                [
                    "",
                    f"loss: {NAMES[statement]}",
                    "none needed" if statement == "theorem3" else share(row, "applies"),
                    "",
                    ratio_of(row["loss_tightness_median"]),
                    ratio_of(row["loss_tightness_largest"]),
                    *crossed(summary.sel(case=case, statement=statement), "loss_crossed"),
                ]
            )
        rows.append(None)
    columns = (
        "case",
        "statement",
        "hypothesis",
        "at 0",
        "at the end",
        "largest",
        *(f"crossed by {d}" for d in dynamics),
    )
    title = (
        f"Statements (tightness: bound / true along the {dynamics[0]}, medians over the starts; intervals: exact 95%)"
    )
    parts.append(Table(title, columns, rows, columns[:3], tight=False, named=2))
    for case in summary["case"].values:
        row = summary.sel(case=case)
        parts.append(
            f"{case}: the flow is known to converge, c(0) > 0, for {share(row, 'local_rate_applies', 'none')} of the starts; "
            f"Prop. 1 can be attained with this imbalance and product for {share(row, 'tightness_attained', 'none')}"
            + (
                "" if float(row["tightness_applies"]) == 1 else " (hypothesis of that not met: Sigma_x = I, h >= r + m)"
            ),
        )
    return parts
