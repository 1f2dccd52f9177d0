"""What one would write without this package, side by side with it in one run: NumPy, PyTorch, SciPy, plain JAX and diffrax.

`python -m pytest benchmarks/test_peers.py -n 0 -s` prints the ratios and writes results/peers.json and results/ratios.md.
Peers that would take hours run a part of their steps, whose number is known, and are scaled: `scaled` in the rows says from what.
PyTorch is used where it is installed. In every pair both sides are checked to give the same numbers first.
"""

import json
import subprocess
import sys
import time

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import claim, record, seconds
from scipy.integrate import solve_ivp

import lindyn_jax as ld
from lindyn_jax import data, exact
from lindyn_jax.ensemble import BLOCK
from lindyn_jax.studies import lemma11

ROWS: list[dict] = []


@pytest.fixture(autouse=True, scope="module")
def results():
    yield
    print(record("peers", ROWS))


def add(study: str, method: str, taken: float, **more) -> float:
    ROWS.append({"study": study, "method": method, "seconds": taken, **more})
    print(ROWS[-1], flush=True)
    return taken


# -- M22 Fig. 7 by descent, h = 1e4 --------------------------------------------------------------------------------------

STEP, WIDTH, PART, BATCH = 5e-3, 10_000, 40, 4


def numpy_descent(X, Y, U, V, steps):
    U, V = U.copy(), V.copy()
    for _ in range(steps):
        G = -2 / len(X) * X.T @ (Y - X @ (U @ V.T))
        U, V = U - STEP * G @ V, V - STEP * G.T @ U
    return U @ V.T


def torch_descent(X, Y, U, V, steps):
    import torch

    X, Y = torch.as_tensor(X), torch.as_tensor(Y)
    U, V = (torch.as_tensor(weights).clone().requires_grad_() for weights in (U, V))
    optimizer = torch.optim.SGD([U, V], lr=STEP)
    for _ in range(steps):
        optimizer.zero_grad()
        (torch.sum((Y - X @ (U @ V.T)) ** 2) / len(X)).backward()
        optimizer.step()
    return (U @ V.T).detach().numpy()


def torch_descents(X, Y, U, V, steps):
    """A batch of trials: U and V have a leading axis."""
    import torch

    X, Y, U, V = (torch.as_tensor(a) for a in (X, Y, U, V))
    loss = lambda U, V: torch.sum((Y - X @ (U @ V.T)) ** 2) / len(X)  # noqa: E731
    gradients = torch.func.vmap(torch.func.grad(loss, (0, 1)))
    for _ in range(steps):
        GU, GV = gradients(U, V)
        U, V = U - STEP * GU, V - STEP * GV
    return (U @ V.mT).numpy()


def test_descent_of_figure_7_at_width_1e4():
    drawn = data.gaussian()
    problem = ld.LeastSquares(drawn.X, drawn.Y, scale="averaged")
    optimizer = ld.plain_descent(STEP)

    def to_the_end(key):
        start = ld.init.gaussian_core(problem, float(WIDTH), alpha=0.5, key=key)
        out = ld.gradient_descent(start, problem, 200_000, optimizer=optimizer, stop=1e-6, observables=())
        return out.stats["num_steps"], out.ok

    core = jax.jit(to_the_end)
    steps, ok = core(jax.random.key(0))
    assert bool(ok)
    ours = add("Fig. 7", "drawn core", seconds(lambda: core(jax.random.key(0))), steps=int(steps))
    start = ld.init.gaussian(problem.num_inputs, 1, WIDTH, alpha=0.5, key=jax.random.key(1))
    arrays = [np.array(a) for a in (drawn.X, drawn.Y, start.U, start.V)]
    reduced = ld.gradient_descent(start, problem, PART, optimizer=optax.sgd(STEP)).final.product()

    @jax.jit
    def plain(X, Y, U, V):
        loss = lambda U, V: jnp.sum((Y - X @ (U @ V.T)) ** 2) / len(X)  # noqa: E731

        def step(weights, _):
            return jax.tree.map(lambda w, g: w - STEP * g, weights, jax.grad(loss, (0, 1))(*weights)), None

        U, V = jax.lax.scan(step, (U, V), length=PART)[0]
        return U @ V.T

    peers = {"NumPy": lambda: numpy_descent(*arrays, PART), "plain JAX, jitted": lambda: plain(*arrays)}
    try:
        import torch  # noqa: F401

        peers["PyTorch, autograd"] = lambda: torch_descent(*arrays, PART)
        X, Y, U, V = arrays
        batch = [np.stack([weights] * BATCH) for weights in (U, V)]
        peers["PyTorch, vmap"] = lambda: torch_descents(X, Y, *batch, PART)
    except ImportError:
        print("PyTorch is not installed: left out")
    for name, run in peers.items():
        out = run()
        trials = len(out) if np.ndim(out) == 3 else 1
        np.testing.assert_allclose(out, np.broadcast_to(reduced, np.shape(out)), atol=1e-12)
        scaled = seconds(run, 2) / trials / PART * int(steps)
        add("Fig. 7", f"{name}, full size", scaled, trials=trials, scaled=f"{PART} of {int(steps)} steps")
        claim(
            f"fig7 {name}",
            scaled / ours,
            None if name.startswith("plain JAX") else 1000,
            f"a trial of M22 Fig. 7 by descent, h = 1e4, against {name} at full size",
        )


# -- Lemma 11 ------------------------------------------------------------------------------------------------------------


# All cores, as the command runs it: as many devices as there are cores, which is settled when JAX starts. The time of a trial
# is that of many less that of few, compilation taken out.
PROGRAM = """
import json, time
from lindyn_jax.cli._common import configure
configure()
import jax
from lindyn_jax.ensemble import run_ensemble
from lindyn_jax.studies import lemma11
trial = lemma11.Lemma11(lemma11.sizes(20, 5, 2)).trial
level = lambda key, width: {"level_ratio": trial(key, 0.5, width)["level_ratio"]}
times, counts = [], (2**17, 2**20)
for count in counts:
    begin = time.perf_counter()
    run_ensemble(level, {"width": [1000.0]}, count, key=jax.random.key(0), chunk=2**17, batch="blocks")
    times.append(time.perf_counter() - begin)
print(json.dumps([len(jax.local_devices()), (times[1] - times[0]) / (counts[1] - counts[0])]))
"""


def test_statistics_of_lemma_11_at_width_1000():
    n, r, m, h, trials = 20, 5, 2, 1000, 2**15
    trial = lemma11.Lemma11(lemma11.sizes(n, r, m)).trial
    batch = jax.jit(
        lambda keys: jax.lax.map(lambda key: trial(key, 0.5, float(h))["level_ratio"], keys, batch_size=BLOCK)
    )
    keys = jax.random.split(jax.random.key(0), trials)
    one = seconds(lambda: batch(keys)) / trials
    add("Lemma 11", "drawn cores, in blocks, one core", one, trials=trials)
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    devices, ours = json.loads(ended.stdout)
    add("Lemma 11", f"drawn cores, in blocks, {devices} cores", ours, trials=2**20)

    def level(values):
        # Delta from the eigenvalues of D, all of them or the r + m that are not zero.
        values = np.sort(values)[::-1]
        return max(values[r - 1], 0) + max(-values[-m], 0)

    def full(rng):
        U, V = rng.normal(size=(n, h)) / h**0.5, rng.normal(size=(m, h)) / h**0.5
        U1 = U[:r]
        return level(np.linalg.eigvalsh(U1.T @ U1 - V.T @ V))

    def small(rng):
        U, V = rng.normal(size=(n, h)) / h**0.5, rng.normal(size=(m, h)) / h**0.5
        Z = np.concatenate([U[:r], V])
        L = np.linalg.cholesky(Z @ Z.T)
        return level(np.linalg.eigvalsh(L.T @ (np.array([1.0] * r + [-1.0] * m)[:, None] * L)))

    assert abs(full(np.random.default_rng(1)) - small(np.random.default_rng(1))) < 1e-12
    rng = np.random.default_rng(0)
    sample = np.array([small(rng) for _ in range(2000)])
    drawn = np.asarray(batch(keys))
    difference = abs(sample.mean() - drawn.mean()) / np.hypot(sample.std() / 2000**0.5, drawn.std() / trials**0.5)
    assert difference < 4, "both draw the same law"
    for name, run, count, claimed in (("h x h", full, 8, 3000), ("small Gram", small, 2000, 30)):
        begin = time.perf_counter()
        for _ in range(count):
            run(rng)
        taken = add("Lemma 11", f"NumPy, {name}", (time.perf_counter() - begin) / count, trials=count)
        says = f"Lemma 11 statistics at h = 1000, against NumPy with {name}"
        claim(f"lemma11 {name}", taken / ours, claimed, f"{says}; ours on {devices} cores, NumPy as it is")
        claim(f"lemma11 {name}, one core", taken / one, None, f"{says}; ours on one core")


# -- batched flows of mixed difficulty -----------------------------------------------------------------------------------


def test_flows_of_mixed_difficulty():
    # Condition numbers of X^T X from 1 to 1e4 and widths from 1e2 to 1e6 in one batch: 32 flows to a millionth of the loss.
    count, r, m, rtol, stop = 32, 5, 2, 1e-8, 1e-6
    rng = np.random.default_rng(0)
    s = np.stack([np.logspace(0, -np.log10(kappa) / 2, r) for kappa in np.geomspace(1, 1e4, count)])
    Y = s[:, :, None] * rng.normal(size=(count, r, m))
    widths = rng.permutation(np.geomspace(1e2, 1e6, count))
    base = ld.LeastSquares(np.diag(s[1]), Y[1], rank=r)
    keys = jax.random.split(jax.random.key(0), count)
    starts = jax.jit(jax.vmap(lambda key, h: ld.init.gaussian_core(base, h, alpha=0.5, key=key)))(keys, widths)
    horizons = 50 / s[:, -1] ** 2

    def package(solver):
        def one(arguments):
            start, s, Y, horizon = arguments
            problem = eqx.tree_at(lambda p: (p.data_singular_values, p.Ytil), base, (s, Y))
            ts = horizon[None]
            out = ld.gradient_flow(
                start, problem, ts, solver=solver, rtol=rtol, stop=stop, observables=(), max_steps=10_000_000
            )
            return out.final.product(), out.ok, out.stats["num_steps"]

        return jax.jit(lambda *batch: jax.lax.map(one, batch))

    def raw(start, s, Y, horizon):
        def velocity(t, y, args):
            U, V = y
            SE = s[:, None] * (Y - s[:, None] * (U @ V.T))
            return SE @ V, SE.T @ U

        def excess(y):
            return jnp.sum((Y - s[:, None] * (y[0] @ y[1].T)) ** 2)

        y0 = (start.U1, start.V)
        target = stop * excess(y0)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(velocity),
            diffrax.Tsit5(),
            0.0,
            horizon,
            None,
            y0,
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=1e-9),
            event=diffrax.Event(lambda t, y, args, **kwargs: excess(y) <= target),
            max_steps=10_000_000,
            throw=False,
        )
        U, V = (leaf[-1] for leaf in solution.ys)
        return U @ V.T, jnp.ones((), bool), solution.stats["num_steps"]

    runs = {
        "this package, mapped": package("auto"),
        "this package's tsit5, mapped": package("tsit5"),
        "vmap(diffeqsolve), Tsit5": jax.jit(jax.vmap(raw)),
    }
    taken = {}
    for name, run in runs.items():
        product, ok, steps = run(starts, s, Y, horizons)
        residual = np.linalg.norm(Y - s[:, :, None] * np.asarray(product), axis=(1, 2))
        begin = np.linalg.norm(Y - s[:, :, None] * np.asarray(starts.U1 @ jnp.swapaxes(starts.V, 1, 2)), axis=(1, 2))
        assert np.all(ok) and np.all(residual <= 1.0001 * stop**0.5 * begin)
        taken[name] = add(
            "mixed batch", name, seconds(lambda run=run: run(starts, s, Y, horizons), 1), steps=_spread(steps)
        )
    lock_step, ours, explicit = taken["vmap(diffeqsolve), Tsit5"], *list(taken.values())[:2]
    claim("mixed batch", lock_step / ours, 5, "32 flows, condition numbers 1 to 1e4, against vmap(diffeqsolve)")
    claim("mixed batch explicit", lock_step / explicit, None, "the same by the same explicit method, mapped")


def _spread(steps) -> list[int]:
    return [int(np.min(steps)), int(np.median(steps)), int(np.max(steps))]


# -- stiff digits --------------------------------------------------------------------------------------------------------


def test_stiff_digits():
    drawn = data.load("digits", samples=200, centre=True)
    problem = ld.LeastSquares(drawn.X, drawn.Y)
    start = ld.init.gaussian_core(problem, 1000, alpha=0.5, key=jax.random.key(0))
    flow = lambda: ld.gradient_flow(start, problem, jnp.array([1e4]), rtol=1e-6, stop=1e-12, observables=())  # noqa: E731
    out = flow()
    horizon = float(out.stats["final_time"])
    ours = add("stiff digits", "this package", seconds(flow, 5), steps=int(out.stats["num_steps"]))
    explicit = {}
    for name in ("tsit5", "dopri8", "lie"):
        # Late enough for the step to be at the limit of stability, where it stays: the second half of 1500 steps.
        times, taken = [], []
        for steps in (750, 1500):
            run = jax.jit(
                lambda start, name=name, steps=steps: ld.gradient_flow(
                    start,
                    problem,
                    jnp.array([horizon]),
                    solver=name,
                    rtol=1e-6,
                    atol=1e-8,
                    max_steps=steps,
                    observables=(),
                )
            )
            part = run(start)
            times.append(float(part.stats["final_time"]))
            taken.append(seconds(lambda run=run: run(start), 2))
        reached = times[1]
        implicit = ld.gradient_flow(start, problem, jnp.array([reached]), solver="radau", rtol=1e-6).final.product()
        gap = jnp.linalg.norm(part.final.product() - implicit) / jnp.linalg.norm(implicit)
        assert gap < 1e-5, f"{name} and the implicit solver differ by {gap:.1e} at t = {reached:.3g}"
        explicit[name] = taken[1] + (taken[1] - taken[0]) / (times[1] - times[0]) * (horizon - reached)
        add("stiff digits", f"{name} (explicit)", explicit[name], scaled=f"from 1500 steps, to t = {reached:.3g}")
    claim("digits explicit", min(explicit.values()) / ours, 1000, "stiff digits, against the best explicit solver")
    s, Y, (r, k) = np.asarray(problem.singular_values), np.asarray(problem.Ytil), start.U1.shape
    budget, taken = 60.0, {}
    for method in ("BDF", "Radau", "LSODA"):
        begin, reached = time.perf_counter(), [0.0]

        def velocity(t, z, begin=begin, reached=reached):
            if time.perf_counter() - begin > budget:
                raise TimeoutError
            reached[0] = max(reached[0], t)
            U, V = z[: r * k].reshape(r, k), z[r * k :].reshape(-1, k)
            SE = s[:, None] * (Y - s[:, None] * (U @ V.T))
            return np.concatenate([(SE @ V).ravel(), (SE.T @ U).ravel()])

        z = np.concatenate([np.ravel(start.U1), np.ravel(start.V)])
        try:
            end = solve_ivp(velocity, (0, horizon), z, method, rtol=1e-6, atol=1e-8).y[:, -1]
            taken[method], more = time.perf_counter() - begin, {}
            product = end[: r * k].reshape(r, k) @ end[r * k :].reshape(-1, k).T
            np.testing.assert_allclose(product, out.final.product(), atol=1e-4 * np.linalg.norm(product))
        except TimeoutError:
            taken[method], more = budget, {"unfinished": f"at t = {reached[0]:.3g} of {horizon:.3g}"}
        add("stiff digits", f"SciPy {method}", taken[method], unknowns=len(z), **more)
    claim(
        "digits implicit",
        min(taken.values()) / ours,
        10,
        f"stiff digits, against SciPy's implicit solvers ({budget:g} s each, unfinished ones counted as that)",
    )


# -- closed forms --------------------------------------------------------------------------------------------------------


def test_closed_form_at_one_time_and_at_128():
    rng = np.random.default_rng(0)
    n, m, h, count = 5, 10, 50, 64
    Y = jnp.asarray(rng.normal(size=(n, m)))
    U, V = jnp.asarray(rng.normal(size=(count, n, h))), jnp.asarray(rng.normal(size=(count, m, h)))
    lambda0 = jnp.linspace(-3, 3, count)
    end = 10.0

    def closed(ts):
        return jax.jit(lambda U, V, l: jax.lax.map(lambda a: exact.homogeneous_product(Y, *a, ts), (U, V, l)))

    def integrated(ts, rtol):
        def one(a):
            U, V, l = a
            out = ld.gradient_flow(
                ld.TwoLayer(U, V),
                ld.factorization(Y).regularized(l),
                ts,
                observables={"product": lambda model, problem: model.product()},
                solver="dopri8",
                rtol=rtol,
                atol=rtol / 10,
            )
            return out.observables["product"]

        return jax.jit(lambda U, V, l: jax.lax.map(one, (U, V, l)))

    for points, claimed in ((1, 50), (128, None)):
        ts = jnp.linspace(end / points, end, points)
        exact_one, flow = closed(ts), integrated(ts, 1e-12)
        error = float(jnp.max(jnp.abs(exact_one(U, V, lambda0) - flow(U, V, lambda0))))
        assert error < 1e-9
        ours = add("closed form", f"closed form at {points} times", seconds(lambda f=exact_one: f(U, V, lambda0)))
        taken = seconds(lambda f=flow: f(U, V, lambda0), 1)
        add("closed form", f"Dopri8 at 1e-12, {points} times", taken, difference=error)
        claim(
            f"closed form {points}",
            taken / ours,
            claimed,
            f"homogeneous closed form (5 x 10, h = 50) at {points} points in time, against Dopri8",
        )


# -- the number of inputs ------------------------------------------------------------------------------------------------


def test_cost_does_not_depend_on_the_number_of_inputs():
    times = []
    for n in (100, 1_000, 10_000, 100_000):
        rng = np.random.default_rng(0)
        X = rng.normal(size=(20, n)) / n**0.5
        problem = ld.LeastSquares(X, X @ rng.normal(size=(n, 2)))
        run = jax.jit(
            lambda keys, problem=problem: jax.lax.map(
                lambda key: ld.limit(ld.init.gaussian_core(problem, 1e4, alpha=0.5, key=key), problem).V, keys
            )
        )
        keys = jax.random.split(jax.random.key(0), 32)
        times.append(add("inputs", f"n = {n}", seconds(lambda run=run, keys=keys: run(keys)) / 32))
    assert max(times) / min(times) < 3
