"""Stiff flows: digits against an independent method, and a family of condition numbers 1 to 1e8 against the usual solvers.

`python -m pytest benchmarks/test_stiff.py -n 0 -s` prints the tables and writes results/stiff.json, results/stiff_digits.json,
results/stiff_family.json and results/stiff.png. Every peer has `BUDGET` seconds for each problem; one that needs more is
reported as such.

The reference is SciPy's BDF at a tight tolerance with linear algebra of its own (`StructuredBDF`): another formula, another
step control, Newton's method on the weights in place of impulses, and no projection.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from common import RESULTS, record, seconds
from scipy.integrate import BDF, solve_ivp
from scipy.linalg import cho_factor, cho_solve

import lindyn_jax as ld
from lindyn_jax import data

BUDGET = 20.0
CONDITIONS = (1.0, 1e2, 1e4, 1e6, 1e8)
RTOL = 1e-6


# -- the independent method ----------------------------------------------------------------------------------------------


class StructuredBDF(BDF):
    """SciPy's BDF for `Z' = f(Z)`, with `-K^T K` as its Jacobian, `K b = S (b_U V^T + U b_V^T)`, factored column by column."""

    def __init__(self, s, Y, Z, horizon, rtol):
        self.s, self.Y, self.shape = s, Y, Z.shape
        jacobian = lambda t, z: _Jacobian(z.reshape(self.shape))  # noqa: E731
        first = rtol**0.5 / (s[0] ** 2 * np.sum(Z**2))
        options = {"rtol": rtol, "atol": 1e-3 * rtol, "first_step": min(first, horizon)}
        super().__init__(self._velocity, 0.0, Z.ravel(), horizon, jac=jacobian, **options)
        self.lu, self.solve_lu, self.I = self._factor, self._solve, _Identity()

    def _validate_jac(self, jac, sparsity):
        def counted(t, z):
            self.njev += 1
            return jac(t, z)

        return counted, jac(0.0, self.y)

    def _velocity(self, t, z):
        Z = z.reshape(self.shape)
        U, V = Z[: len(self.s)], Z[len(self.s) :]
        SE = self.s[:, None] * (self.Y - self.s[:, None] * (U @ V.T))
        return np.concatenate([SE @ V, SE.T @ U]).ravel()

    def _factor(self, matrix):
        self.nlu += 1
        c, U, V = matrix.factor, matrix.Z[: len(self.s)], matrix.Z[len(self.s) :]
        g, Q = np.linalg.eigh(V @ V.T)
        SU, factors = self.s[:, None] * U, []
        for value in g:
            N = np.eye(len(self.s)) + c * (SU @ SU.T + max(value, 0) * np.diag(self.s**2))
            scale = 1 / np.sqrt(np.diag(N))
            factors.append((cho_factor(scale[:, None] * N * scale), scale))
        return c, U, V, Q, factors

    def _solve(self, factored, b):
        c, U, V, Q, factors = factored
        bU, bV = np.split(b.reshape(self.shape), [len(self.s)])
        right = self.s[:, None] * (bU @ V.T + U @ bV.T) @ Q
        solved = np.stack(
            [
                scale * cho_solve(factor, scale * column)
                for (factor, scale), column in zip(factors, right.T, strict=True)
            ]
        )
        solved = self.s[:, None] * (solved.T @ Q.T)
        return np.concatenate([bU - c * solved @ V, bV - c * solved.T @ U]).ravel()


class _Jacobian:
    """What SciPy needs of a matrix here: `I - c J`."""

    __array_ufunc__ = None

    def __init__(self, Z, factor=1.0):
        self.Z, self.factor = Z, factor

    def __rmul__(self, c):
        return _Jacobian(self.Z, c)


class _Identity:
    def __sub__(self, scaled):
        return scaled


def independent_path(problem, start, ts, rtol):
    """Z at `ts`, shape (T, r + m, k), by `StructuredBDF`."""
    Z = np.concatenate([start.U1, start.V])
    solver = StructuredBDF(np.asarray(problem.singular_values), np.asarray(problem.Ytil), Z, ts[-1], rtol)
    path = []
    while len(path) < len(ts):
        # SciPy's table of differences starts uninitialized: it may overflow in entries that are never read.
        with np.errstate(invalid="ignore", over="ignore"):
            message = solver.step()
        assert solver.status != "failed", message
        between = solver.dense_output()
        while len(path) < len(ts) and ts[len(path)] <= solver.t:
            path.append(between(ts[len(path)]).reshape(Z.shape))
    return np.stack(path)


def errors(path, exact, problem):
    """Largest relative errors along a path: of the weights, and of the product against the norm of Theta_hat."""
    r = problem.rank
    product = lambda Z: Z[:, :r] @ np.swapaxes(Z[:, r:], 1, 2)  # noqa: E731
    weights = np.linalg.norm(path - exact, axis=(1, 2)) / np.linalg.norm(exact, axis=(1, 2))
    products = np.linalg.norm(product(path) - product(exact), axis=(1, 2)) / np.linalg.norm(problem.reduced_theta_hat)
    return float(np.max(weights)), float(np.max(products))


def stacked(models):
    return np.concatenate([models.U1, models.V], axis=1)


# -- digits --------------------------------------------------------------------------------------------------------------


def test_digits_in_a_second_and_against_an_independent_method():
    rows = []
    for samples in (200, None):
        drawn = data.load("digits", samples=samples, centre=True)
        problem = ld.LeastSquares(drawn.X, drawn.Y)
        start = ld.init.gaussian_core(problem, 1000, alpha=0.5, key=jax.random.key(0))

        def flow(start, problem=problem):
            return ld.gradient_flow(start, problem, jnp.array([1e4]), rtol=RTOL, stop=1e-12, observables=())

        out = jax.block_until_ready(flow(start))
        assert bool(out.ok) and bool(out.stats["implicit"])
        end = float(out.stats["final_time"])
        ts = np.logspace(np.log10(end) - 9, np.log10(end), 10)
        path = ld.gradient_flow(
            start, problem, ts, rtol=RTOL, solver="radau", keep_models=True, observables=("imbalance_drift",)
        )
        begin = time.perf_counter()
        exact = independent_path(problem, start, ts, 1e-8)
        taken = time.perf_counter() - begin
        looser = errors(independent_path(problem, start, ts, 1e-6), exact, problem)
        weights, products = errors(stacked(path.models), exact, problem)
        excess = ld.observables.excess_loss(out.final, problem) / ld.observables.excess_loss(start, problem)
        rows.append(
            {
                "samples": problem.num_samples,
                "rank": problem.rank,
                "outputs": problem.num_outputs,
                "condition": float(problem.condition),
                "tolerance": RTOL,
                "excess_ratio": float(excess),
                "steps": int(out.stats["num_steps"]),
                "rejected": int(out.stats["num_rejected"]),
                "seconds_warm": seconds(lambda flow=flow, start=start: flow(start)),
                "drift": float(ld.observables.imbalance_drift(out.final, problem, start)),
                "drift_along_path": float(np.max(path.observables["imbalance_drift"])),
                "path_error_weights": weights,
                "path_error_product": products,
                "reference_seconds": taken,
                "reference_moved_by_its_tolerance": looser,
            }
        )
        print(rows[-1], flush=True)
    print(record("stiff_digits", rows))
    for row in rows:
        assert row["excess_ratio"] <= 1e-12 and max(row["drift"], row["drift_along_path"]) < 1e-12
        assert max(row["path_error_weights"], row["path_error_product"]) < 1e-6


# -- condition numbers ---------------------------------------------------------------------------------------------------


def family(condition, n=25, r=20, m=5):
    """X^T X with singular values spaced evenly in the logarithm, targets of unit size; 625 unknowns at any width."""
    rng = np.random.default_rng(0)
    W, _ = np.linalg.qr(rng.normal(size=(r, r)))
    Phi1, _ = np.linalg.qr(rng.normal(size=(n, r)))
    X = W * np.logspace(0, -np.log10(condition) / 2, r) @ Phi1.T
    return ld.LeastSquares(X, X @ rng.normal(size=(n, m)) / np.sqrt(n), rank=r)


def within_budget(solver, start, problem, horizon):
    """A solve by diffrax with as many steps as the budget allows, from the measured time of a step; compiled beforehand."""

    def timed(steps):
        def flow(start):
            return ld.gradient_flow(
                start,
                problem,
                jnp.asarray([horizon]),
                solver=solver,
                rtol=RTOL,
                atol=1e-9,
                max_steps=steps,
                observables=(),
            )

        compiled = jax.jit(flow).lower(start).compile()
        begin = time.perf_counter()
        out = jax.block_until_ready(compiled(start))
        return out, time.perf_counter() - begin

    steps = 16
    out, taken = timed(steps)
    # The first steps may be slow ones to time: a second attempt where the first left more than half of the budget.
    for _ in range(2):
        if bool(out.ok) or taken > BUDGET / 2:
            break
        steps = int(np.clip(steps * BUDGET / taken, 16, 1e7))
        out, taken = timed(steps)
    return out, taken


class OutOfBudget(Exception):
    pass


def scipy_solve(method, start, problem, horizon):
    """SciPy's solver with the analytic Jacobian: end state or None, steps so far, seconds."""
    s, Y = np.asarray(problem.singular_values), np.asarray(problem.Ytil)
    r, k = start.U1.shape
    m = Y.shape[1]
    begin, reached = time.perf_counter(), [0.0, 0]

    def velocity(t, z):
        if time.perf_counter() - begin > BUDGET:
            raise OutOfBudget
        reached[0], reached[1] = max(reached[0], t), reached[1] + 1
        Z = z.reshape(r + m, k)
        SE = s[:, None] * (Y - s[:, None] * (Z[:r] @ Z[r:].T))
        return np.concatenate([SE @ Z[r:], SE.T @ Z[:r]]).ravel()

    def jacobian(t, z):
        Z = z.reshape(r + m, k)
        U, V = Z[:r], Z[r:]
        SE = s[:, None] * (Y - s[:, None] * (U @ V.T))
        s2, one = s**2, np.eye(k)
        J = np.zeros((r + m, k, r + m, k))
        J[:r, :, :r] = np.einsum("i,ab,ij->iajb", -s2, V.T @ V, np.eye(r))
        J[:r, :, r:] = np.einsum("ij,ab->iajb", SE, one) - np.einsum("i,ib,ja->iajb", s2, U, V)
        J[r:, :, :r] = np.transpose(J[:r, :, r:], (2, 3, 0, 1))
        J[r:, :, r:] = np.einsum("ab,ij->iajb", -(U.T @ (s2[:, None] * U)), np.eye(m))
        return J.reshape((r + m) * k, (r + m) * k)

    Z = np.concatenate([start.U1, start.V]).ravel()
    try:
        solution = solve_ivp(
            velocity, (0.0, horizon), Z, method=method, jac=jacobian, rtol=RTOL, atol=1e-9, t_eval=[horizon]
        )
    except OutOfBudget:
        return None, reached, BUDGET
    return (solution.y[:, -1].reshape(r + m, k) if solution.success else None), reached, time.perf_counter() - begin


def processor_seconds(call, repeats=10):
    """Least processor time of a call after one warm-up: on a shared machine wall time measures the others."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        jax.block_until_ready(call())
        times.append(time.process_time() - begin)
    return min(times)


def test_steps_grow_by_eight_a_decade_and_time_by_less_than_six_over_eight():
    rows = []
    for condition in CONDITIONS:
        problem = family(condition)
        start = ld.init.gaussian_core(problem, 1000, alpha=0.5, key=jax.random.key(0))

        def flow(start=start, problem=problem, condition=condition):
            return ld.gradient_flow(start, problem, np.array([14 * condition]), solver="radau", rtol=RTOL)

        out = flow()
        assert bool(out.ok)
        drift = float(ld.observables.imbalance_drift(out.final, problem, start))
        row = {"condition": condition, "steps": int(out.stats["num_steps"]), "drift": drift}
        rows.append({**row, "processor_seconds": processor_seconds(flow), "seconds": seconds(flow, 10)})
        print(rows[-1], flush=True)
        assert drift < 1e-12
    per_decade = (rows[-1]["steps"] - rows[0]["steps"]) / 8
    ratio = rows[-1]["processor_seconds"] / rows[0]["processor_seconds"]
    rows.append({"tolerance": RTOL, "steps_per_decade": per_decade, "processor_time_ratio": ratio})
    print(rows[-1], record("stiff_family", rows))
    assert per_decade < 10 and ratio < 6


def test_time_and_steps_of_the_usual_solvers():
    rows = []
    for condition in CONDITIONS:
        problem = family(condition)
        start = ld.init.gaussian_core(problem, 1000, alpha=0.5, key=jax.random.key(0))
        horizon = 14 * condition  # the slowest rate is 2 s_r^2: the excess loss falls by 1e-12 and more
        exact = independent_path(problem, start, np.array([horizon]), 1e-9)

        def add(name, out, taken, condition=condition, problem=problem, exact=exact, **more):
            row = {"condition": condition, "solver": name, "finished": out is not None, "seconds": taken, **more}
            if out is not None:
                row["error"] = errors(out[None], exact, problem)[0]
            rows.append(row)
            print(row, flush=True)

        radau = lambda start=start, problem=problem, horizon=horizon: ld.gradient_flow(  # noqa: E731
            start,
            problem,
            np.array([horizon]),
            solver="radau",
            rtol=RTOL,
            observables=("excess_loss", "imbalance_drift"),
        )
        out = radau()
        add(
            "radau (this package)",
            np.concatenate([out.final.U1, out.final.V]),
            seconds(radau, 5),
            steps=int(out.stats["num_steps"]),
            drift=float(out.final_observables["imbalance_drift"]),
            excess_ratio=float(out.final_observables["excess_loss"] / ld.observables.excess_loss(start, problem)),
        )
        assert bool(out.ok)
        for name in ("tsit5", "dopri8", "kvaerno5"):
            out, taken = within_budget(name, start, problem, horizon)
            end = np.concatenate([out.final.U1, out.final.V]) if bool(out.ok) else None
            drift = float(ld.observables.imbalance_drift(out.final, problem, start)) if bool(out.ok) else None
            part = float(out.stats["final_time"]) / horizon
            add(name, end, taken, steps=int(out.stats["num_steps"]), part_of_horizon=part, drift=drift)
        for name in ("LSODA", "BDF", "Radau"):
            end, (reached, calls), taken = scipy_solve(name, start, problem, horizon)
            drift = None
            if end is not None:
                model = ld.Reduction(ld.TwoLayer(end[: problem.rank], end[problem.rank :]), 1000, problem.num_frozen)
                drift = float(ld.observables.imbalance_drift(model, problem, start))
            add(f"SciPy {name}", end, taken, calls=calls, part_of_horizon=reached / horizon, drift=drift)
    own = [row for row in rows if row["solver"].startswith("radau")]
    rows.append({"budget": BUDGET, "tolerance": RTOL})
    print(rows[-1], record("stiff", rows))
    table(rows[:-1])
    draw(rows[:-1])
    assert all(row["drift"] < 1e-12 and row["error"] < RTOL for row in own)


def table(rows):
    names = list(dict.fromkeys(row["solver"] for row in rows))
    print(f"\n{'seconds (steps)':<22}" + "".join(f"{condition:>16.0e}" for condition in CONDITIONS))
    for name in names:
        cells = []
        for row in (row for row in rows if row["solver"] == name):
            steps = f" ({row['steps']})" if "steps" in row else ""
            cells.append(f"{row['seconds']:.3g}{steps}" if row["finished"] else f"{row['part_of_horizon']:.0e} of it")
        print(f"{name:<22}" + "".join(f"{cell:>16}" for cell in cells))


def draw(rows):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), constrained_layout=True)
    for name, marker in zip(dict.fromkeys(row["solver"] for row in rows), "osD^vPX", strict=True):
        done = [row for row in rows if row["solver"] == name and row["finished"]]
        name = name if done else f"{name}: never in budget"
        style = {"linewidth": 2.5, "color": "black"} if name.startswith("radau") else {"linewidth": 1}
        style |= {"marker": marker, "label": name}
        right.loglog([row["condition"] for row in done], [row["seconds"] for row in done], **style)
        if done and "steps" in done[0]:
            left.loglog([row["condition"] for row in done], [row["steps"] for row in done], **style)
    right.axhline(BUDGET, linestyle=":", color="grey")
    right.text(1e8, BUDGET, "budget ", va="top", ha="right", color="grey")
    left.set(xlabel="condition number of $X^T X$", ylabel="steps", title="steps to the end of training")
    right.set(xlabel="condition number of $X^T X$", ylabel="seconds", title="time; lines end where the budget does")
    left.legend(frameon=False)
    right.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(RESULTS / "stiff.png", dpi=150)
    plt.close(figure)
