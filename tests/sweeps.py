"""The sweeps that are killed in test_resume, in a file of their own: the processes that are killed import nothing else."""

import jax
import numpy as np

import lindyn_jax as ld
from lindyn_jax.statistics import Moments
from lindyn_jax.studies import lemma11, theorem12
from lindyn_jax.studies.completion import Completion

TRIALS = 20


def drawn(key, width):
    draw = jax.random.normal(key, (2,)) * width
    return {"draw": draw, "least": draw.min()}


def sweep(study, store, progress=None):
    if study == "draws":
        options = {"reductions": {"least_moments": Moments("least")}, "chunk": 2, "keep_trials": True}
        ld.run_ensemble(
            drawn, {"width": [2.0, 3.0]}, TRIALS, key=jax.random.key(4), store=store, progress=progress, **options
        )
        return
    rng = np.random.default_rng(0)
    problem = ld.LeastSquares(rng.normal(size=(3, 8)), rng.normal(size=(3, 1)))
    if study == "completion":
        options = {"shape": (6.0, 5.0), "rank": 1, "depths": ("2",), "scales": (1e-2,), "widths": (20.0,)}
        run = Completion(fractions=(0.6, 0.8), **options).run
        run(TRIALS, seed=4, store=store, chunk=2, keep_trials=True, progress=progress)
        return
    run = {"lemma11": lemma11, "theorem12": theorem12}[study].run
    run(problem, [1e2, 1e6], [0.5, 0.4], TRIALS, seed=4, store=store, chunk=2, keep_trials=True, progress=progress)
