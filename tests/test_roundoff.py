"""Paths that round-off has chosen are said to be: starts whose flow ends in a saddle, and modes smaller than round-off."""

import jax
import numpy as np
import pytest

import lindyn_jax as ld
from lindyn_jax import trajectory

rng = np.random.default_rng(25)
Y, A = rng.normal(size=(3, 3)) + 2 * np.eye(3), rng.normal(size=(3, 4))


@pytest.mark.parametrize("solver", ["tsit5", "lie", "radau"])
def test_a_saddle_left_by_round_off_alone_is_no_result(solver):
    # U = -V stays so (THEORY 7) and tends to zero; a start of rank one keeps its rank.
    column = rng.normal(size=(1, 4))
    lost = ld.TwoLayer(A, -A), ld.TwoLayer(A[:, :1] @ column, Y[:, :1] @ column)
    problem = ld.factorization(Y + Y.T)
    run = lambda model, ts: ld.gradient_flow(model, problem, ts, solver=solver)  # noqa: E731
    for start in lost:
        out = run(start, np.array([30.0]))
        assert int(out.result) == trajectory.LOST and not bool(out.ok) and out.stats["roundoff"] > 1e-3
    # Before round-off has grown, the same path is a result; and so is one that starts beside it.
    early = run(lost[0], np.array([1.0]))
    assert bool(early.ok) and early.stats["roundoff"] < 1e-9
    beside = run(ld.TwoLayer(A, -A + 1e-6 * Y @ A), np.array([30.0]))
    assert bool(beside.ok) and 1e-13 < beside.stats["roundoff"] < 1e-7


@pytest.mark.parametrize("width", [4, 40], ids=["as it is", "reduced"])
@pytest.mark.parametrize("std", [1.0, 1e-8, 1e-30])
def test_a_gaussian_start_however_small_is_not_lost_when_all_is_learned(std, width):
    start = ld.init.gaussian(3, 3, width, std=std, key=jax.random.key(1))
    time = (10 - 2 * np.log(std)) / np.linalg.svd(Y)[1][-1]
    out = ld.gradient_flow(start, ld.factorization(Y), np.array([time]), solver="tsit5")
    assert bool(out.ok) and out.stats["roundoff"] < 1e-6 and out.observables["loss"][-1] < 1e-6


def test_a_mode_that_is_smaller_than_round_off_when_its_turn_comes_is_lost_while_it_is_learned():
    sigma = np.array([4.0, 1.0])
    Q = np.array([[0.6, -0.8], [0.8, 0.6]])
    problem = ld.factorization(Q * sigma @ Q.T)
    for size, lost in ((1e-8, False), (1e-30, True)):
        # The second mode is half learned; by then the first has been for three times as long.
        time = np.log(1 / size**2) / 4
        early = time / 4
        for ts, expected in (
            ([early, time], lost),
            ([time, 3 * time], lost),
            ([early, 3 * time], False),
            ([early, time / 2], False),
        ):
            out = ld.gradient_flow(ld.SymmetricFactors(size * np.eye(2)), problem, np.array(ts), solver="tsit5")
            assert (int(out.result) == trajectory.LOST) == expected
            x = sigma / (1 + (sigma / size**2 - 1) * np.exp(-4 * sigma * ts[-1]))
            error = np.max(np.abs(np.asarray(out.final.product()) - Q * x @ Q.T))
            # What is lost is wrong, and what is not is right.
            assert error < 1e-6 or (expected and ts[-1] == time)
    assert int(out.result) == trajectory.FINISHED


def test_auto_decides_by_a_traced_start_as_by_a_known_one():
    # Wide imbalanced layers: the weights make it stiff, and data of condition 10 do not.
    problem = ld.LeastSquares(
        np.random.default_rng(3).normal(size=(4, 7)), np.random.default_rng(4).normal(size=(4, 2))
    )
    ts = np.array([1e-4, 4.0])

    def run(h):
        start = ld.init.gaussian_core(problem, h, std=(0.1, 1e-3), key=jax.random.key(0))
        out = ld.gradient_flow(start, problem, ts)
        return out.ok, out.observables["loss"], out.stats["num_steps"], out.stats["implicit"]

    eager, batch = run(1e6), jax.jit(jax.vmap(run))(np.array([1e6, 1e2]))
    wide, narrow = (jax.tree.map(lambda x, i=i: x[i], batch) for i in (0, 1))
    for ok, loss, steps, implicit in (eager, wide):
        assert bool(ok) and bool(implicit) and int(steps) < 60
        np.testing.assert_allclose(loss[0], eager[1][0], rtol=1e-6)
        # What is left of it is round-off.
        assert loss[1] < 1e-20 * loss[0]
    assert bool(narrow[0]) and not bool(narrow[3])
