"""Drawing: functions `f(ax, data)` on axes, and the house style as a context.

Colours are those of Okabe and Ito, told apart by the colour-blind. For print, what is compared differs in its markers as well,
and the quantities drawn of each in their line styles.
"""

from .animations import animate, similarity
from .audits import (
    audit,
    hypotheses_and_tightness,
    losses_and_bounds,
    losses_on_a_linear_scale,
    rates_and_bounds,
    tightness_against_time,
)
from .completion import completion, error_against, frequency_against, ratio_against
from .curves import losses, modes, spectrum
from .fits import fit_lambda0, mismatch_against_width, path_errors, path_singular_values
from .house import COLOURS as COLOURS
from .house import MARKERS as MARKERS
from .house import legend_below as legend_below
from .house import literal, save, style
from .house import mark as mark
from .house import ribbon as ribbon
from .phases import phase_diagram, phase_map, phases
from .trajectories import observables_against_time, trajectory
from .widths import distance_against_width, events_against_width, lemma11, ratios_against_width, theorem12

__all__ = [
    "animate",
    "audit",
    "completion",
    "distance_against_width",
    "error_against",
    "events_against_width",
    "fit_lambda0",
    "frequency_against",
    "hypotheses_and_tightness",
    "lemma11",
    "literal",
    "losses",
    "losses_and_bounds",
    "losses_on_a_linear_scale",
    "mismatch_against_width",
    "modes",
    "observables_against_time",
    "path_errors",
    "path_singular_values",
    "phase_diagram",
    "phase_map",
    "phases",
    "rates_and_bounds",
    "ratio_against",
    "ratios_against_width",
    "save",
    "similarity",
    "spectrum",
    "style",
    "theorem12",
    "tightness_against_time",
    "trajectory",
]
