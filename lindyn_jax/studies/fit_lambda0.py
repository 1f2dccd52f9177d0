"""Monte Carlo study of T21's Fig. 2: which lambda0 makes the homogeneous solution follow the flow of a Gaussian start.

A trial draws a start, integrates its flow, fits lambda0 for either sign, and integrates the wide limit's flow beside it.
Starts are drawn in reduced form, so that a width of 1e5 costs what one of 50 does.
"""

import math
from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import _checks, init
from .. import observables as obs
from .._text import counted
from ..models import WideLimit
from ..problems import LeastSquares, factorization
from ..statistics import AbstractReduction, Count, Moments, standard_error
from ._grid import check_grid, floats
from .study import Choices, Options, Shown, Study, Table, data_notes

SIGNS = ("positive", "negative")
PATHS = ("flow", "homogeneous", "wide limit")

ATTRIBUTES: dict[str, dict[str, Any]] = {
    "width": {"long_name": "hidden width h", "units": "1"},
    "lambda0": {
        "long_name": "fitted imbalance level",
        "units": "1",
        "convention": "over lambda0 >= 0 and over lambda0 <= 0",
    },
    "objective": {"long_name": "J: squared distance of the paths over [0, T], relative to the flow's", "units": "1"},
    "curvature": {"long_name": "second derivative of J at the minimum", "units": "1"},
    "lambda0_error": {"long_name": "error of lambda0 by quadrature and integration", "units": "1"},
    "at_edge": {"long_name": "whether this sign has no minimum of its own"},
    "objective_at_zero": {"long_name": "J at lambda0 = 0", "units": "1"},
    "wide_objective": {"long_name": "J of the wide-limit flow", "units": "1"},
    "horizon": {"long_name": "T: first time of the relative error", "units": "1"},
    "time": {"long_name": "times of the paths", "units": "1"},
    "error": {"long_name": "relative error ||E||_F / ||Ytil||_F along the paths", "units": "1"},
    "singular_values": {"long_name": "singular values of Phi1^T Theta along the paths", "units": "1"},
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

    std: Annotated[float, "Standard deviation of the entries of U and V."] = 1.0
    draw_target: Annotated[bool, "A target of its own for every trial."] = False
    horizon: Annotated[
        float | None, "T, the time up to which paths are compared.", Shown("the first time of --relative-error")
    ] = None
    relative_error: Annotated[float, "Relative error of the flow that ends the horizon."] = 1e-3
    method: Annotated[
        str,
        "How paths are found; riccati: slower, any start; flow: integrated, any data.",
        Choices(("closed", "riccati", "flow")),
    ] = "closed"
    nodes: Annotated[int, "Intervals of the quadrature, a multiple of 4."] = 48


class FitLambda0(Study):
    """Which homogeneous imbalance lambda0 follows the flow of Gaussian starts best, for either sign (T21 Fig. 2).

    **Fields:** `problem`, matrix factorization or data with isotropic inputs (any data with `method="flow"`); `widths`;
    `settings`. With a width below r + m all widths take the slower closed form, which serves dependent rows.
    """

    problem: LeastSquares
    widths: Annotated[tuple[float, ...], "LO:HI:COUNT (log-spaced) or a list; 1 to 1e12."] = (50.0, 100.0, 200.0)
    settings: Settings = Settings()

    name, attributes, dims = "fit-lambda0", ATTRIBUTES, DIMS
    options: ClassVar[Options] = {
        "data": ("factorization", None),
        "trials": (20, "Starts at each width."),
        "keep_trials": None,
        "precision": None,
    }

    def grid(self):
        return {"width": self.widths}

    def check(self) -> None:
        """Refuses at once what cannot be studied.

        **Raises:** `ValueError` for widths outside 1 to 1e12, not whole, or too small to come down to the relative error; a
        standard deviation, horizon or relative error that is not positive; a target that is drawn for data with inputs; an
        unknown method, or one whose closed form does not hold for these data; nodes that are not a multiple of 4.
        """
        from ..fits.lambda0 import METHODS, check_isotropic

        problem, settings, least = self.problem, self.settings, min(self.widths)
        check_grid(self.widths, [0.5], 0.1)
        for name in ("std", "relative_error", "horizon"):
            value = getattr(settings, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"The setting {name} must be a positive number, but is {value:g}.")
        _checks.check_choice(settings.method, "method", METHODS)
        check_isotropic(problem, settings.method)
        if settings.nodes < 4 or settings.nodes % 4:
            raise ValueError(f"The setting nodes must be a multiple of 4, but is {settings.nodes}.")
        if settings.draw_target and problem.X is not None:
            raise ValueError(
                "A target of its own for every trial needs matrix factorization, and not data with inputs."
            )
        if settings.horizon is None and not settings.draw_target:
            s = np.linalg.svd(np.asarray(problem.Ytil), compute_uv=False)
            if not s[0] > 0:
                raise ValueError("The target is zero, so that no relative error ends the flow: give a horizon.")
            best = np.sqrt(np.sum(s[int(least) :] ** 2) / np.sum(s**2))
            if best >= settings.relative_error:
                raise ValueError(
                    f"A network of width {least:g} comes down to a relative error of {best:.3g} at best, and not to "
                    f"{settings.relative_error:g}: give a horizon, or larger widths."
                )

    def trial(self, key, width) -> dict[str, Array]:
        from ..fits import fit_lambda0, lambda0_path
        from ..flow import gradient_flow

        problem, settings = self.problem, self.settings
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
            method=self._method(),
            nodes=settings.nodes,
        )
        homogeneous = lambda0_path(mine, start.U1, start.V, fit.best_lambda0, fit, method=self._method())
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

    def reductions(self) -> dict[str, AbstractReduction]:
        """Moments of what is summarised, of either sign where there are two, and counts of what is compared."""
        r, m, widths = self.problem.rank, self.problem.num_outputs, jnp.asarray(self.widths)

        def root(value):
            return Moments(lambda outputs: jnp.sqrt(value(outputs)))

        def signs(value):
            # Trials come last.
            return Moments(lambda outputs: jnp.moveaxis(value(outputs), -1, -2), ("width", "sign"))

        def levels(outputs):
            spectrum = outputs["imbalance_spectrum"]
            return jnp.stack([jnp.mean(spectrum[..., :r], axis=-1), jnp.mean(spectrum[..., -m:], axis=-1)], axis=-1)

        def better(outputs):
            return outputs["objective"][..., 1] < outputs["objective"][..., 0]

        return {
            "lambda0": signs(lambda outputs: outputs["lambda0"]),
            "over_width": signs(lambda outputs: outputs["lambda0"] / widths[:, None, None]),
            "over_spectrum": signs(lambda outputs: outputs["lambda0"] / levels(outputs)),
            "root": root(lambda outputs: jnp.min(outputs["objective"], axis=-1)),
            "root_positive": root(lambda outputs: outputs["objective"][..., 0]),
            "root_negative": root(lambda outputs: outputs["objective"][..., 1]),
            "root_zero": root(lambda outputs: outputs["objective_at_zero"]),
            "root_wide": root(lambda outputs: outputs["wide_objective"]),
            "negative_better": Count(lambda outputs: better(outputs) & outputs["ok"]),
            "wide_better": Count(
                lambda outputs: (outputs["wide_objective"] < jnp.min(outputs["objective"], axis=-1)) & outputs["ok"]
            ),
            "edges": Count(lambda outputs: jnp.any(outputs["at_edge"], axis=-1) & outputs["ok"]),
            "trials": Count("ok"),
        }

    def recorded(self) -> dict[str, Any]:
        return {**super().recorded(), "method": self._method()}

    def axis_names(self):
        return {"sign": SIGNS, "path": PATHS}

    def labelled(self, dataset):
        return label(dataset)

    def summarise(self, dataset):
        """Means over the trials, beside the spectrum of Q0 and the wide limit.

        **Args:** `dataset`, from `run`.

        **Returns:** an `xarray.Dataset` over width (and sign): `lambda0_mean`, `lambda0_sd`, `lambda0_se`; `over_width`, the mean
        of lambda0/h; `over_spectrum`, the mean of lambda0 over the mean eigenvalue of its sign of Q0; `root`, the mean of sqrt J
        of the better sign, with `root_sd`, `root_positive` and `root_negative`; `negative_better`, how often that is the negative
        one; `root_zero`, of lambda0 = 0; `root_wide`, of the wide limit; `wide_better`, how often that is closer than the better
        lambda0; `trials`, how many were fitted, and `edges`, how many of them have no minimum of some sign.
        """
        reduced = self.reduced(dataset)
        summary = reduced[["edges", "trials"]].assign_coords(sign=list(SIGNS))
        count = summary["trials"]
        for name in ("negative_better", "wide_better"):
            summary[name] = reduced[name] / count
        for name, reduction in self.reductions().items():
            if reduction.merging == "moments":
                dims, moments = reduced[name].dims[:-1], reduced[name].values
                mean = "lambda0_mean" if name == "lambda0" else name
                summary[mean] = (dims, np.where(moments[..., 0] > 0, moments[..., 1], np.nan))
                if name in ("lambda0", "root"):
                    few = moments[..., 0] < 2
                    error = np.where(few, np.nan, standard_error(moments))
                    summary[f"{name}_sd"] = (dims, error * np.sqrt(moments[..., 0]))
        return summary.assign(lambda0_se=summary["lambda0_sd"] / np.sqrt(count))

    def table(self, summary) -> list[Table | str]:
        signs = ("positive", "negative")
        rows = []
        for width in summary["width"].values:
            row = summary.sel(width=width)
            value = lambda name, row=row, **at: float(row[name].sel(**at))  # noqa: E731
            rows.append(
                [
                    f"{width:g}",
                    *(f"{value('lambda0_mean', sign=s):.5g} ({value('lambda0_sd', sign=s):.2g})" for s in signs),
                    *(
                        ", ".join(f"{value(name, sign=s):.4g}" for s in signs)
                        for name in ("over_width", "over_spectrum")
                    ),
                    f"{value('root'):.4g} ({value('root_sd'):.1g})",
                    f"{value('negative_better'):.2f}",
                    f"{value('root_zero'):.3g}",
                    f"{value('root_wide'):.3g}",
                    f"{value('wide_better'):.2f}",
                ]
            )
        columns = ("width", "lambda0 > 0", "lambda0 < 0", "/h", "/Q0", "sqrt J", "neg. better", "J at 0")
        title = (
            "Fitted lambda0, mean (sd), both signs; sqrt J of homogeneous imbalance (better sign) and of the wide limit"
        )
        parts: list[Table | str] = [Table(title, (*columns, "wide limit", "wide better"), rows, tight=False)]
        failed = int(summary["trials"].max() - summary["trials"].min()), int(summary["edges"].sum())
        if any(failed):
            parts.append(
                f"{failed[0]} starts more failed at one width than at another; {failed[1]} fits have no minimum of one sign."
            )
        better = [
            f"{width:g}" for width in summary["width"].values if float(summary["wide_better"].sel(width=width)) > 0.5
        ]
        where = f"width {', '.join(better)}." if better else "no width here."
        parts.append(f"The wide limit is closer to the flow than homogeneous imbalance for most starts at {where}")
        return parts

    def draw(self, dataset, summary, title: str):
        from .. import plots

        return plots.fit_lambda0(dataset, summary, title)

    def notes(self, trials: int, source: str, description: str) -> list[tuple[str, str]]:
        fits = f"{counted({'width': len(self.widths), 'start': trials})} with entries N(0, {self.settings.std:g}^2)"
        return [*data_notes(self.problem, description), ("fits", fits)]

    def title(self, source: str, done: int) -> str:
        sizes = f"{self.problem.rank} x {self.problem.num_outputs}"
        return f"{source}, {sizes}: {done} starts with entries N(0, {self.settings.std:g}$^2$)"

    def kept(self, keep_trials: bool) -> str:
        return "every start"

    def held(self, trials: int, keep_trials: bool) -> tuple[int | float, str, str] | None:
        r, m = self.problem.rank, self.problem.num_outputs
        each = (self.settings.nodes + 1) * (3 * min(r, m) + 4) + r + m
        what = f"{trials} starts at {len(self.widths)} widths"
        return 3 * each * len(self.widths) * trials, what, "choose fewer"

    def _method(self) -> str:
        narrow = min(self.widths) < self.problem.rank + self.problem.num_outputs
        return "riccati" if self.settings.method == "closed" and narrow else self.settings.method


def run(problem: LeastSquares, widths, trials: int, *, settings: Settings = Settings(), **options: Any):  # noqa: B008
    """`FitLambda0(problem, widths, settings).run(trials, **options)`, see there."""
    return FitLambda0(problem, floats(widths), settings).run(trials, **options)


def summarise(dataset, problem: LeastSquares):
    """`FitLambda0.summarise` of a dataset from `run` or `open_sweep`."""
    return FitLambda0(problem, floats(dataset["width"])).summarise(dataset)


def label(dataset):
    """The dataset with names on the axes of signs and paths, which stores of earlier versions do not hold.

    **Args:** `dataset`, as from `open_sweep`.
    """
    return dataset.assign_coords(sign=list(SIGNS), path=list(PATHS))
