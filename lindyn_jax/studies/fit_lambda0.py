"""Monte Carlo study of T21's Fig. 2: which lambda0 makes the homogeneous solution follow the flow of a Gaussian start.

A trial draws a start, integrates its flow, fits lambda0 for either sign, and integrates the wide limit's flow beside it.
Starts are drawn in reduced form, so that a width of 1e5 costs what one of 50 does.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import _checks, init
from .. import observables as obs
from ..ensemble import masked, run_ensemble
from ..fits import fit_lambda0, lambda0_path
from ..fits.lambda0 import METHODS, check_isotropic
from ..flow import gradient_flow
from ..models import WideLimit
from ..problem import LeastSquares, factorization
from ._grid import check_grid
from ._record import of_problem

SIGNS = ("positive", "negative")
PATHS = ("flow", "homogeneous", "wide limit")

ATTRIBUTES: dict[str, dict[str, Any]] = {
    "width": {"long_name": "hidden width h", "units": "1"},
    "lambda0": {"long_name": "fitted imbalance level", "convention": "over lambda0 >= 0 and over lambda0 <= 0"},
    "objective": {"long_name": "J: squared distance of the paths over [0, T], relative to the flow's"},
    "curvature": {"long_name": "second derivative of J at the minimum"},
    "lambda0_error": {"long_name": "error of lambda0 by quadrature and integration"},
    "at_edge": {"long_name": "whether this sign has no minimum of its own"},
    "objective_at_zero": {"long_name": "J at lambda0 = 0"},
    "wide_objective": {"long_name": "J of the wide-limit flow"},
    "horizon": {"long_name": "T: first time of the relative error"},
    "time": {"long_name": "times of the paths"},
    "error": {"long_name": "relative error ||E||_F / ||Ytil||_F along the paths"},
    "singular_values": {"long_name": "singular values of Phi1^T Theta along the paths"},
    "ok": {"long_name": "whether the flow reached its horizon and both signs converged"},
}
DIMS = {
    **dict.fromkeys(("lambda0", "objective", "curvature", "lambda0_error", "at_edge"), ("sign",)),
    "imbalance_spectrum": ("eigenvalue",),
    "time": ("node",),
    "error": ("path", "node"),
    "singular_values": ("path", "node", "mode"),
}


class Settings(NamedTuple):
    """How the fit is done.

    **Fields:** `std`, of the entries of the start; `draw_target`, whether every trial has a target of its own, with entries
    N(0, 1) and the size of the problem's; `horizon` and `relative_error`, `method`, `nodes` as in `fit_lambda0`.
    """

    std: float = 1.0
    draw_target: bool = False
    horizon: float | None = None
    relative_error: float = 1e-3
    method: str = "closed"
    nodes: int = 48


def make_trial(problem: LeastSquares, settings: Settings) -> Callable[..., dict[str, Array]]:
    """The trial function `(key, width) -> outputs`; the outputs are described in `ATTRIBUTES`."""

    def trial(key, width):
        key_target, key_start = jax.random.split(key)
        mine = problem
        if settings.draw_target:
            Y = jax.random.normal(key_target, problem.Y.shape, problem.dtype)
            mine = factorization(Y, scale=problem.scale, output_scale=problem.output_scale)
        start = init.gaussian_core(mine, width, std=settings.std, num_frozen=0, key=key_start)
        fit = fit_lambda0(
            mine,
            start.U1,
            start.V,
            width=width,
            horizon=settings.horizon,
            relative_error=settings.relative_error,
            method=settings.method,
            nodes=settings.nodes,
        )
        homogeneous = lambda0_path(mine, start.U1, start.V, fit.best_lambda0, fit, method=settings.method)
        wide = gradient_flow(
            WideLimit(mine.from_data(start.product()), settings.std**2 * width),
            mine,
            fit.ts,
            observables={"product": obs.reduced_product},
            solver="tsit5",
            rtol=1e-8,
        )
        paths = jnp.stack([fit.product, homogeneous, wide.observables["product"]])
        errors = jnp.sqrt(jnp.sum((mine.Ytil - mine.singular_values[:, None] * paths) ** 2, axis=(2, 3)))
        size = jnp.sqrt(jnp.sum(mine.Ytil**2))
        return {
            "lambda0": fit.lambda0,
            "objective": fit.objective,
            "curvature": fit.curvature,
            "lambda0_error": fit.lambda0_error,
            "at_edge": fit.at_edge,
            "objective_at_zero": fit.at_zero,
            "wide_objective": fit.mismatch(wide.observables["product"]),
            "horizon": fit.horizon,
            "imbalance_spectrum": obs.imbalance_spectrum(start, mine),
            "time": fit.ts,
            "error": errors / jnp.where(size > 0, size, 1),
            "singular_values": jnp.linalg.svd(paths, compute_uv=False),
            "ok": fit.ok & wide.ok,
        }

    return trial


def check(problem: LeastSquares, widths, settings: Settings) -> None:
    """Refuses at once what cannot be studied.

    **Raises:** `ValueError` for widths outside 1 to 1e12, not whole, or too small to come down to the relative error; a standard
    deviation, horizon or relative error that is not positive; a target that is drawn for data with inputs; an unknown method, or
    one whose closed form does not hold for these data; nodes that are not a multiple of 4.
    """
    check_grid(widths, [0.5], 0.1)
    for name in ("std", "relative_error", "horizon"):
        value = getattr(settings, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"The setting {name} must be a positive number, but is {value:g}.")
    _checks.check_choice(settings.method, "method", METHODS)
    check_isotropic(problem, settings.method)
    if settings.nodes < 4 or settings.nodes % 4:
        raise ValueError(f"The setting nodes must be a multiple of 4, but is {settings.nodes}.")
    if settings.draw_target and problem.X is not None:
        raise ValueError("A target of its own for every trial needs matrix factorization, and not data with inputs.")
    if settings.horizon is None and not settings.draw_target:
        s = np.linalg.svd(np.asarray(problem.Ytil), compute_uv=False)
        if not s[0] > 0:
            raise ValueError("The target is zero, so that no relative error ends the flow: give a horizon.")
        least = np.sqrt(np.sum(s[int(min(widths)) :] ** 2) / np.sum(s**2))
        if least >= settings.relative_error:
            raise ValueError(
                f"A network of width {min(widths):g} comes down to a relative error of {least:.3g} at best, and not to "
                f"{settings.relative_error:g}: give a horizon, or larger widths."
            )


def run(
    problem: LeastSquares,
    widths,
    trials: int,
    *,
    seed: int = 0,
    settings: Settings = Settings(),  # noqa: B008
    record: Mapping[str, Any] | None = None,
    **options: Any,
):
    """Runs the study.

    **Args:** `problem`, matrix factorization or data with isotropic inputs (any data with `method="flow"`); `widths`; `trials`
    at each of them; `seed` of the starts; `settings`; `record`, further entries for the stored settings; `options` go to
    `run_ensemble` (`store`, `chunk`, `batch`, `progress`, `process`).

    **Returns:** an `xarray.Dataset` over (width, trial); see `ATTRIBUTES`.

    **Raises:** as `check`, `fit_lambda0` and `run_ensemble`.

    **Notes:** with a width below r + m all widths take the slower closed form, which serves dependent rows.
    """
    widths = [float(width) for width in widths]
    check(problem, widths, settings)
    if settings.method == "closed" and min(widths) < problem.rank + problem.num_outputs:
        settings = settings._replace(method="riccati")
    dataset = run_ensemble(
        make_trial(problem, settings),
        {"width": widths},
        trials,
        key=jax.random.key(seed),
        dims=DIMS,
        attributes=ATTRIBUTES,
        settings={
            **(record or {}),
            "study": "fit_lambda0",
            "seed": seed,
            **of_problem(problem),
            **settings._asdict(),
        },
        **options,
    )
    return label(dataset)


def label(dataset):
    """The dataset with names on the axes of signs and paths, which a store does not hold.

    **Args:** `dataset`, as from `open_sweep`.
    """
    return dataset.assign_coords(sign=list(SIGNS), path=list(PATHS))


def summarise(dataset, problem: LeastSquares):
    """Means over the trials, beside the spectrum of Q0 and the wide limit.

    **Args:** `dataset`, from `run`; `problem`.

    **Returns:** an `xarray.Dataset` over width (and sign): `lambda0_mean`, `lambda0_sd`, `lambda0_se`; `over_width`, the mean of
    lambda0/h; `over_spectrum`, the mean of lambda0 over the mean eigenvalue of its sign of Q0; `root`, the mean of sqrt J of the
    better sign, with `root_sd`, `root_positive` and `root_negative`; `negative_better`, how often that is the negative one;
    `root_zero`, of lambda0 = 0; `root_wide`, of the wide limit; `wide_better`, how often that is closer than the better lambda0;
    `trials`, how many were fitted, and `edges`, how many of them have no minimum of some sign.
    """
    import xarray as xr

    values = masked(dataset)
    h = values["width"]
    count = dataset["ok"].astype(bool).sum("trial")
    lambda0, objective = values["lambda0"], values["objective"]
    best = objective.min("sign")
    spectrum = values["imbalance_spectrum"]
    r, m = problem.rank, problem.num_outputs
    levels = xr.concat(
        [
            spectrum.isel(eigenvalue=slice(0, r)).mean("eigenvalue"),
            spectrum.isel(eigenvalue=slice(-m, None)).mean("eigenvalue"),
        ],
        dim=values["sign"],
    )
    root = np.sqrt(best)
    seen = dataset["ok"].astype(bool)
    summary = xr.Dataset(
        {
            "lambda0_mean": lambda0.mean("trial"),
            "lambda0_sd": lambda0.std("trial", ddof=1) if dataset.sizes["trial"] > 1 else lambda0.std("trial") * np.nan,
            "over_width": (lambda0 / h).mean("trial"),
            "over_spectrum": (lambda0 / levels).mean("trial"),
            "root": root.mean("trial"),
            "root_sd": root.std("trial", ddof=1) if dataset.sizes["trial"] > 1 else root.std("trial") * np.nan,
            "root_positive": np.sqrt(objective.sel(sign="positive")).mean("trial"),
            "root_negative": np.sqrt(objective.sel(sign="negative")).mean("trial"),
            "root_zero": np.sqrt(values["objective_at_zero"]).mean("trial"),
            "root_wide": np.sqrt(values["wide_objective"]).mean("trial"),
            "negative_better": ((objective.sel(sign="negative") < objective.sel(sign="positive")) & seen).sum("trial")
            / count,
            "wide_better": ((values["wide_objective"] < best) & seen).sum("trial") / count,
            "edges": (dataset["at_edge"].astype(bool).any("sign") & seen).sum("trial"),
            "trials": count,
        }
    )
    summary["lambda0_se"] = summary["lambda0_sd"] / np.sqrt(count)
    return summary.drop_vars([name for name in ("path",) if name in summary.coords]).load()
