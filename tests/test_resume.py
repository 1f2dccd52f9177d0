"""A sweep killed at random moments ends with the same bits as an undisturbed one, and goes on with its own data only."""

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from sweeps import sweep

import lindyn_jax as ld
from lindyn_jax.ensemble import StoreError, SweepStore, open_reductions
from lindyn_jax.init import Gaussian
from lindyn_jax.studies import fit_lambda0 as fits
from lindyn_jax.studies import lemma11, theorem12
from lindyn_jax.studies.completion import Completion, Settings

SCRIPT = """
import sys, time
import quick
import jax
jax.config.update("jax_enable_x64", True)
from sweeps import sweep

sweep(sys.argv[2], sys.argv[1], lambda done, total: time.sleep(0.1))
"""


@pytest.mark.parametrize(
    ("study", "kills"), [("draws", 1), ("lemma11", 1), ("lemma11", 2), ("completion", 2), ("theorem12", 2)]
)
def test_a_sweep_that_is_killed_ends_with_the_same_bits(study, kills, tmp_path, rng):
    script = tmp_path / "sweep.py"
    script.write_text(SCRIPT)
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])}
    # Without a stop and to its end in this process, killed in others.
    sweep(study, tmp_path / "whole")
    killed = tmp_path / "killed"
    progress = [0]
    total = ld.open_sweep(tmp_path / "whole")["computed"].size
    for _ in range(kills):
        process = subprocess.Popen([sys.executable, str(script), str(killed), study], env=paths)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            done = int(ld.open_sweep(killed)["computed"].sum()) if killed.exists() else 0
            if done > progress[-1]:
                break
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL
        progress.append(int(ld.open_sweep(killed)["computed"].sum()))
    # Each run was interrupted in the middle, and a second one went on from the first.
    assert all(before < after < total for before, after in pairwise(progress))
    sweep(study, killed)
    whole, resumed = ld.open_sweep(tmp_path / "whole"), ld.open_sweep(killed)
    assert bool(resumed["computed"].all())
    assert set(whole.variables) == set(resumed.variables)
    for name in whole.variables:
        assert whole[name].values.tobytes() == resumed[name].values.tobytes(), name
    whole, resumed = open_reductions(tmp_path / "whole"), open_reductions(killed)
    for name in whole.variables:
        assert whole[name].values.tobytes() == resumed[name].values.tobytes(), name


class Asked(Exception):
    """What a study asked of `run_ensemble`."""


def asked(monkeypatch, module, call):
    def ask(*arguments, **options):
        raise Asked(options)

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["lindyn_jax.studies.study"], "run_ensemble", ask)
        with pytest.raises(Asked) as seen:
            call()
    return seen.value.args[0]["settings"]


X, Y = np.random.default_rng(0).normal(size=(3, 8)), np.random.default_rng(1).normal(size=(3, 2))


def wide(size):
    return lambda key: ld.init.gaussian(8, 2, 40, std=size, key=key)


# Each value makes other numbers than the first one; the last bit of one entry does.
SMALL = 1 + 2**-52
DATA = {
    "given": ld.LeastSquares(X, Y),
    "targets": ld.LeastSquares(X, Y * SMALL),
    "inputs": ld.LeastSquares(X * SMALL, Y),
    "shape": ld.LeastSquares(X.reshape(3, 8)[:, :7], Y),
    "precision": ld.LeastSquares(X.astype(np.float32), Y.astype(np.float32)),
    "loss scale": ld.LeastSquares(X, Y, scale=1.25),
    "output scale": ld.LeastSquares(X, Y, output_scale=1.25),
    "rank": ld.LeastSquares(X, Y, rank=2),
    "no inputs": ld.factorization(Y),
}
PRECISE = {"std": 0.1234567, "other std": 0.1234568}
STUDIES = {
    "theorem12": {name: lambda p=p: theorem12.run(p, [100.0], [0.5], 2) for name, p in DATA.items() if p.num_frozen},
    "fit_lambda0": {
        name: lambda p=p: fits.run(p, [100.0], 2, settings=fits.Settings(method="flow", horizon=1.0))
        for name, p in DATA.items()
    },
    "audit": {
        **{
            name: lambda p=p: ld.studies.audit(p, Gaussian(100), 2, horizon=1.0, dynamics=["flow"])
            for name, p in DATA.items()
        },
        **{
            name: lambda s=s: ld.studies.audit(DATA["given"], Gaussian(100, std=s), 2, horizon=1.0, dynamics=["flow"])
            for name, s in PRECISE.items()
        },
        **{
            name: lambda s=s: ld.studies.audit(
                DATA["given"], {"mine": wide(s)}, 2, horizon=1.0, dynamics=["flow"], rtol=1e-9
            )
            for name, s in {"function": 0.1, "other function": 0.10001}.items()
        },
    },
    "completion": {
        name: lambda options=options: Completion(fractions=(0.6,), **options).run(2)
        for name, options in {
            "given": {},
            "shape": {"shape": (20.0, 21.0)},
            "rank": {"rank": 3},
            "stop": {"settings": Settings(stop=1e-4)},
            "target": {"target": X},
            "other target": {"target": X * (1 + np.eye(3, 8) * 1e-15)},
            "missing": {"target": np.where(np.eye(3, 8) > 0, np.nan, X)},
        }.items()
    },
    "lemma11": {
        "given": lambda: lemma11.run(lemma11.sizes(8, 3, 2), [100.0], [0.5], 2),
        "size": lambda: lemma11.run(lemma11.sizes(9, 3, 2), [100.0], [0.5], 2),
        "delta": lambda: lemma11.run(lemma11.sizes(8, 3, 2), [100.0], [0.5], 2, settings=lemma11.Settings(0.2)),
        "precision": lambda: lemma11.run(DATA["precision"], [100.0], [0.5], 2),
        # What a caller records hides nothing.
        "record": lambda: lemma11.run(lemma11.sizes(9, 3, 2), [100.0], [0.5], 2, record={"n": 8, "data": "mine"}),
    },
}


@pytest.mark.filterwarnings("ignore:.*float32.*")
@pytest.mark.parametrize("name", STUDIES)
def test_studies_of_other_numbers_have_other_settings(name, monkeypatch, tmp_path):
    seen = {}
    for label, call in STUDIES[name].items():
        settings = asked(monkeypatch, name, call)
        assert as_stored(settings) == as_stored(asked(monkeypatch, name, call))
        equal = [other for other, known in seen.items() if known == as_stored(settings)]
        assert not equal, f"{label} is recorded as {equal}"
        seen[label] = as_stored(settings)


def as_stored(settings):
    """Settings as a store holds and compares them."""
    from lindyn_jax.ensemble.records import plain

    return str(plain(settings))


def test_fit_lambda0_does_not_go_on_with_other_data(tmp_path, monkeypatch):
    call = STUDIES["fit_lambda0"]
    SweepStore(tmp_path / "s").prepare({}, {}, asked(monkeypatch, "fit_lambda0", call["given"]), {}, 2, 2)
    with pytest.raises(StoreError, match="data_sha256 is"):
        fits.run(DATA["targets"], [100.0], 2, settings=fits.Settings(method="flow", horizon=1.0), store=tmp_path / "s")


def test_simulate_records_all_that_its_numbers_depend_on(monkeypatch):
    module = sys.modules["lindyn_jax.studies.simulate"]
    # What is compared is what is recorded.
    flow = SimpleNamespace(stats={"num_steps": 1}, result=0)
    monkeypatch.setattr(module, "_draw", lambda problem, start, *, key: wide(0.1)(key))
    monkeypatch.setattr(module, "_rows", lambda *arguments: ({"time": np.array([0, 0.1])}, {"loss": np.ones(2)}))
    monkeypatch.setattr(sys.modules["lindyn_jax.flow"], "gradient_flow", lambda *arguments, **options: flow)

    def recorded(problem, start, **options):
        attributes = ld.studies.simulate(problem, start, horizon=0.1, points=2, observables=["loss"], **options).attrs
        return {name: value for name, value in attributes.items() if name != "environment"}

    given = recorded(DATA["given"], Gaussian(100, std=0.1))
    assert given == recorded(DATA["given"], Gaussian(100, std=0.1))
    for other in (
        recorded(DATA["targets"], Gaussian(100, std=0.1)),
        recorded(DATA["given"], Gaussian(100, std=0.1000001)),
        recorded(DATA["given"], Gaussian(100, std=0.1), rtol=1e-7),
    ):
        assert other != given
    first, second = (wide(size)(jax.random.key(0)) for size in (0.1, 0.10000000001))
    assert recorded(DATA["given"], first) != recorded(DATA["given"], second)
