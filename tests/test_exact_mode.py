"""One mode in closed form: reference values, 50-digit values near the saddle, the flow, derivatives, degenerate draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Compiled, integrated, load_cases, relative_error, tolerance
from jaxtyping import TypeCheckError

import lindyn_jax as ld

exact = Compiled(ld.exact)

CASES = {name: case for name, case in load_cases("t21").items() if case["formula"] == "prop3_eq17"}
E = 2.0**-20

# (sigma, u0, v0, t), u, v: to 17 digits, computed with 60 digits and more from e^{tA} r0/sqrt(1 + r0^T K r0). All
# arguments are exact in float32 as well.
HARD = (
    ((1.5, 1.0, 0.25, 0.75), 1.3157000644324598, 0.89082358497492582),
    ((1.5, 0.25, -1.0, 0.75), -0.67659062673073974, -1.1812175397359689),
    ((-1.5, 0.5, 1.25, 3.0), -0.99017421942781410, 1.5142473327760828),
    ((0.25, 2.0, 1.5, 4.0), 1.3361181966476343, 0.18764816922348663),
    ((2.0, 4.0, 0.5, 1.0), 4.0, 0.5),
    # On the saddle's stable manifold, and close to it.
    ((1.0, 1.0, -1.0, 4.0), 0.012952198750198576, -0.012952198750198576),
    ((1.0, 1.0, -1.0, 30.0), 6.6168386570538806e-14, -6.6168386570538806e-14),
    ((1.0, 1.0, -1.0 + E, 2.0), 0.096142651706375004, -0.096132731831619217),
    ((1.0, 1.0, -1.0 + E, 16.0), 0.98636032402777458, 0.98635935716576094),
    ((1.0, -1.0, 1.0 + E, 64.0), 0.99999952316272811, 1.0000004768374993),
    ((1.0, E, -E * (1 - E), 24.0), 0.012044984267702342, 0.012044984267702270),
    # Tiny starts.
    ((2.0, E * E, E * E, 8.0), 8.0818704376386176e-6, 8.0818704376386176e-6),
    ((1.0, E, 0.0, 32.0), 1.0000000000002270, 0.99999999999977227),
    # No target: exponential and algebraic decay.
    ((0.0, 1.5, 0.5, 8.0), 1.4142135623730960, 5.3049590110667404e-8),
    ((0.0, 0.5, 0.5, 1.0e6), 0.00070710607408082700, 0.00070710607408082700),
    ((0.0, 0.5, -0.5, 1.0e6), 0.00070710607408082700, -0.00070710607408082700),
    ((0.0, 0.75, 0.0, 1.0e6), 0.75, 0.0),
    # A tiny target.
    ((E, 1.0, 0.0, 1.0e6), 1.0000000000004547, 9.5367431640581632e-7),
    ((E, 1.0, -1.0, 4096.0), 0.011026295704512458, -0.011026295704512458),
    ((E, E, E, 4.0), 9.5367795438852652e-7, 9.5367795438852652e-7),
    # A stiff start of the other sign.
    ((0.5, 64.0, -32.0, 2.0**-12), 57.038272798961489, -13.467166141722247),
    ((1.0, 64.0, -32.0, 2.0**-7), 55.425628778758668, 0.018042193909223586),
    ((0.0, 2.0, -1.0, 0.125), 1.8443735999173317, -0.63380910065414599),
)

# (sigma, u0, v0, t) where a textbook form is 0/0 or has no derivative, and some ordinary ones.
DEGENERATE = np.array(
    [
        (1.2, 0.7, 0.7, 0.8),  # lambda = 0
        (1.2, 0.7, -0.7, 0.8),  # on the saddle's stable manifold
        (0.6, 0.8, 0.75, 1.0),  # x0 = sigma
        (0.49, 0.7, 0.7, 2.0),  # x0 = sigma, lambda = 0
        (0.0, 0.7, 0.4, 1.3),  # sigma = 0
        (0.0, 0.5, 0.5, 1.3),  # mu = 0
        (0.0, 0.5, -0.5, 1.3),
        (1.1, 0.0, 0.0, 0.9),  # the saddle itself
        (0.0, 0.0, 0.0, 1.0),
        (-0.9, 0.6, 0.3, 1.1),
        (1.5, 1.2, 0.0, 0.2),
        (0.7, 0.3, -1.9, 1.6),
        (1.0, 1.5, 1.5, 0.25),  # on the border of the two forms, mu t/2 = 1/4
    ]
)


def weights(arguments):
    return jnp.stack(exact.mode(*arguments))


def flow(arguments, ts):
    """(u, v) of the integrated flow at the times `ts`, shape (T, 2)."""
    sigma, u0, v0 = arguments[:3]
    problem, start = ld.factorization(sigma[None, None]), ld.TwoLayer(u0[None, None], v0[None, None])
    observables = {"weights": lambda model, problem: jnp.stack([model.U[0, 0], model.V[0, 0]])}
    options = {"rtol": 1e-11, "atol": 1e-13, "reduce": False, "max_steps": 4096}
    return ld.gradient_flow(start, problem, ts, observables=observables, **options).observables["weights"]


def by_scipy(starts, ts, rates=1.0):
    """(u, v) of the instances `starts`, of columns sigma, u0, v0, at the times `ts` over their rates: shape (K, T, 2)."""
    sigma, u0, v0 = np.asarray(starts).T[:, :, None, None]
    scale = np.reshape(rates, (-1, 1, 1))
    # The time of each in units of its own: scaled gradients.
    path = integrated(lambda Theta: (Theta - sigma) / scale, u0, v0, ts, 1e-13)
    return np.stack([layer[:, :, 0, 0].T for layer in path], axis=-1)


def draw(rng, size):
    """Targets and starts of every sign; one in five aligned with lambda = 0, one in ten with x0 = sigma."""
    sigma, u0, v0 = rng.normal(size=(3, size)) * [[1.5], [1.2], [1.2]]
    kind = rng.random(size)
    v0 = np.where(kind < 0.1, u0, np.where(kind < 0.2, -u0, v0))
    sigma = np.where((kind > 0.2) & (kind < 0.3), u0 * v0, np.where((kind > 0.3) & (kind < 0.35), 0, sigma))
    return np.stack([sigma, u0, v0], axis=1)


def test_modes_agree_with_the_reference(dtype):
    for name, case in CASES.items():
        sigma, u0, v0 = (np.asarray(case["inputs"][key], dtype) for key in ("sigma", "u0", "v0"))
        solution = exact.mode(sigma, u0, v0, np.asarray(case["times"], dtype))
        assert solution.u.dtype == dtype
        for key in ("u", "v", "x"):
            assert relative_error(getattr(solution, key), case["expected"][key]) < tolerance(dtype), (name, key)
        rate, constant = exact.mode_rate(sigma, u0, v0), exact.mode_constant(sigma, u0, v0)
        assert relative_error(rate.value, case["rate"]) < tolerance(dtype), name
        assert bool(rate.applies) == bool(constant.applies) == ("C" in case), name
        assert relative_error(constant.value, case.get("C", 0.0)) < tolerance(dtype), name


def test_every_digit_is_right_near_the_saddle_and_without_a_target(dtype):
    arguments = np.array([case[0] for case in HARD], dtype).T
    solution = exact.mode(*arguments)
    for value, expected in ((solution.u, [case[1] for case in HARD]), (solution.v, [case[2] for case in HARD])):
        expected = np.array(expected)
        error = np.abs(np.asarray(value, float) - expected) / np.where(expected == 0, 1, np.abs(expected))
        # 8 units in the last place, times what a last-place change of t does to a decaying weight: mu t up to 60.
        assert np.all(error < 32 * np.finfo(dtype).eps), (error / np.finfo(dtype).eps).round(1)
    product = np.prod([[case[1] for case in HARD], [case[2] for case in HARD]], axis=0)
    assert np.allclose(solution.x, product, rtol=64 * float(np.finfo(dtype).eps), atol=0)


def test_time_zero_gives_the_start_exactly(rng, dtype):
    sigma, u0, v0 = draw(rng, 50).T.astype(dtype)
    u, v = exact.mode(sigma, u0, v0, 0.0)
    assert np.array_equal(u, u0) and np.array_equal(v, v0)


def test_a_vector_of_times_is_a_loop_over_times(rng):
    sigma, u0, v0 = draw(rng, 1)[0]
    ts = np.array([0.0, 1e-3, 0.4, 7.0, 1e6])
    together = exact.mode(sigma, u0, v0, ts)
    alone = [exact.mode(sigma, u0, v0, t) for t in ts]
    assert np.array_equal(together.u, [solution.u for solution in alone])
    assert np.array_equal(together.v, [solution.v for solution in alone])
    mapped = jax.vmap(exact.mode, (None, None, None, 0))(sigma, u0, v0, ts)
    assert relative_error(mapped.x, together.x) < 1e-15


def test_symmetries_of_the_mode_hold(rng):
    sigma, u0, v0 = draw(rng, 40).T
    u, v = exact.mode(sigma, u0, v0, 0.8)
    for other, back in (
        (exact.mode(sigma, v0, u0, 0.8), lambda a, b: (b, a)),
        (exact.mode(sigma, -u0, -v0, 0.8), lambda a, b: (-a, -b)),
        (exact.mode(-sigma, u0, -v0, 0.8), lambda a, b: (a, -b)),
    ):
        assert relative_error(back(*other), (u, v)) < 1e-15


def test_imbalance_is_conserved_and_time_adds_up(rng):
    sigma, u0, v0 = draw(rng, 60).T
    half = exact.mode(sigma, u0, v0, 0.6)
    whole = exact.mode(sigma, u0, v0, 1.5)
    again = exact.mode(sigma, half.u, half.v, 0.9)
    assert relative_error(whole.u**2 - whole.v**2, u0**2 - v0**2) < tolerance(np.float64)
    # Stopping on the way loses what round-off grows to near the saddle, e^{mu t/2} < 1e3.
    assert relative_error(jnp.stack(again), jnp.stack(whole)) < 1e-12


def test_the_product_follows_the_corrected_formula(rng):
    sigma, u0, v0 = draw(rng, 200).T
    t, lam, x0 = 1.1, u0**2 - v0**2, u0 * v0
    mu, rho = np.sqrt(4 * sigma**2 + lam**2), np.sqrt(4 * x0**2 + lam**2)
    used = (mu > 0.05) & (mu * t < 15)
    sigma, u0, v0, lam, x0, mu, rho = (a[used] for a in (sigma, u0, v0, lam, x0, mu, rho))
    assert used.sum() > 120
    denominator = 1 + rho / mu * np.sinh(mu * t) + (lam**2 + 4 * sigma * x0) / mu**2 * (np.cosh(mu * t) - 1)
    expected = sigma + (x0 - sigma) / denominator
    # The printed form itself cancels: its error is the growth e^{15} of round-off at the most.
    assert relative_error(exact.mode(sigma, u0, v0, t).x, expected) < 1e-10


def test_time_derivative_is_the_velocity(rng):
    sigma, u0, v0 = draw(rng, 300).T
    t = rng.uniform(0.01, 4, 300)
    point, velocity = jax.jit(lambda t: jax.jvp(lambda t: exact.mode(sigma, u0, v0, t), (t,), (jnp.ones_like(t),)))(t)
    error = sigma - point.x
    assert relative_error(velocity.u, error * point.v) < tolerance(np.float64)
    assert relative_error(velocity.v, error * point.u) < tolerance(np.float64)


def test_modes_agree_with_the_integrated_flow(rng):
    instances, ts = draw(rng, 48), np.array([0.1, 0.7, 3.0])
    solution = exact.mode(*instances.T[:, :, None], np.tile(ts, (48, 1)))
    assert np.max(np.abs(np.stack(solution, axis=-1) - by_scipy(instances, ts))) < 1e-9


def test_large_times_give_the_stated_limit(rng, dtype):
    sigma, u0, v0 = draw(rng, 100).T.astype(dtype)
    limit = exact.mode_limit(sigma, u0, v0)
    late = exact.mode(sigma, u0, v0, 1e6)
    saddle = (np.abs(u0) == np.abs(v0)) & (sigma * u0 * v0 < 0)
    assert np.array_equal(limit.applies, ~saddle) and 0 < saddle.sum() < 50
    assert relative_error(jnp.where(limit.applies, limit.value.x, sigma), sigma) < tolerance(dtype)
    # Without a target and imbalance the weights fall like (2 t)^{-1/2}.
    slow = (sigma == 0) & (np.abs(u0) == np.abs(v0))
    assert relative_error(jnp.where(slow, 0, late.u), jnp.where(slow, 0, limit.value.u)) < tolerance(dtype)
    assert relative_error(jnp.where(slow, 0, late.v), jnp.where(slow, 0, limit.value.v)) < tolerance(dtype)


def test_limits_without_the_hypothesis_are_zero():
    sigma, u0, v0 = np.array([(1.3, 0.5, -0.5), (-0.7, 0.4, 0.4), (0.9, 0.0, 0.0), (0.0, 0.6, -0.6)]).T
    limit = exact.mode_limit(sigma, u0, v0)
    assert np.array_equal(limit.applies, [False, False, False, True])
    assert not np.any(limit.value.u) and not np.any(limit.value.v)
    assert not np.any(exact.mode_rate(sigma, u0, v0).applies)
    assert not np.any(exact.mode_constant(sigma, u0, v0).applies)
    assert np.max(np.abs(exact.mode(sigma, u0, v0, 1e6).x)) < 1e-6


def test_measured_rates_and_constants_of_the_flow_are_the_stated_ones():
    starts = np.array(
        [(1.5, 1.0, 0.25), (1.5, 1.0, -0.5), (-1.25, 1.0, 0.5), (0.5, 0.6, 0.6), (0.3, 2.0, 0.5), (0.0, 1.2, 0.4)]
    )
    rate, constant = exact.mode_rate(*starts.T), exact.mode_constant(*starts.T)
    assert np.all(rate.applies) and np.all(constant.applies)
    rate, constant = np.asarray(rate.value), np.asarray(constant.value)
    error = starts[:, :1] - np.prod(by_scipy(starts, np.array([11.0, 15.0]), rate), axis=-1)
    measured = np.log(error[:, 0] / error[:, 1]) / 4
    assert np.max(np.abs(measured - 1)) < 1e-3
    amplitude = error[:, 1] * np.exp(15.0)
    assert np.max(np.abs(amplitude / (2 * rate**2 * constant) - 1)) < 1e-3


def test_the_rate_fails_on_the_saddle_and_without_a_target():
    t = np.array([1e3, 1e4])
    algebraic = exact.mode(0.0, 0.5, 0.5, t).x
    assert relative_error(algebraic, 0.25 / (1 + 0.5 * t)) < 1e-15
    saddle = exact.mode(0.5, 1.0, -1.0, np.array([10.0, 14.0])).x
    # It goes to 0, at the same rate.
    assert abs(np.log(saddle[0] / saddle[1]) / 4 - 1.0) < 1e-3


def test_first_and_second_derivatives_agree_with_central_differences(rng):
    points = np.concatenate([draw(rng, 40), rng.uniform(0.05, 3, (40, 1))], axis=1)
    points = np.concatenate([DEGENERATE, points, [(0.8, 0.6, 0.2, 0.0), (0.8, 0.0, 0.0, 0.0)]])
    # A smaller step for what is of fourth order in the error of the second derivative.
    step = 3e-6
    shifts = step * np.concatenate([np.zeros((1, 4)), np.eye(4), -np.eye(4)])

    def with_value(function):
        def both(a):
            answer = function(a)
            return (answer, answer) if function is weights else (answer[0], answer)

        return jax.jacfwd(both, has_aux=True)

    stacked = jax.jit(jax.vmap(with_value(with_value(weights))))((points[:, None, :] + shifts).reshape(-1, 4))
    second, (first, value) = jax.tree.map(lambda x: np.asarray(x).reshape(len(points), 9, *x.shape[1:]), stacked)
    for derivative, lower in ((first, value), (second, first)):
        expected = np.moveaxis(lower[:, 1:5] - lower[:, 5:], 1, -1) / (2 * step)
        assert np.max(np.abs(derivative[:, 0] - expected) / np.maximum(1, np.abs(expected))) < 1e-6


def test_gradients_at_the_saddle_are_those_of_the_linearised_flow(dtype):
    sigma, t = np.array([1.1, -0.4, 2.0], dtype), np.array([0.9, 0.3, 8.0], dtype)
    gradient = jax.jit(jax.vmap(jax.jacfwd(weights)))(jnp.stack([sigma, 0 * t, 0 * t, t], axis=1))[:, :, 1:3]
    expected = np.moveaxis([[np.cosh(sigma * t), np.sinh(sigma * t)], [np.sinh(sigma * t), np.cosh(sigma * t)]], 2, 0)
    assert relative_error(gradient / expected, np.ones((3, 2, 2))) < tolerance(dtype)


def flow_in_pieces(arguments):
    """The flow at the time `arguments[3]` in eight runs: from an equilibrium one run is one step, too long for a derivative."""
    sigma, t = arguments[0], arguments[3:] / 8

    def piece(weights, _):
        return flow(jnp.concatenate([sigma[None], weights]), t)[0], None

    return jax.lax.scan(piece, arguments[1:3], None, length=8)[0]


@pytest.mark.slow
def test_gradients_agree_with_those_through_the_integrated_flow(rng):
    points = jnp.array(np.concatenate([DEGENERATE, np.c_[draw(rng, 15), rng.uniform(0.1, 2, 15)]]))
    mix = jnp.array(rng.normal(size=(len(points), 2)))
    by_flow = jax.grad(lambda arguments, mix: jnp.dot(mix, flow_in_pieces(arguments)))
    closed = jax.grad(lambda arguments, mix: jnp.dot(mix, weights(arguments)))
    expected = jax.jit(jax.vmap(by_flow))(points, mix)
    error = jnp.abs(jax.jit(jax.vmap(closed))(points, mix) - expected)
    assert jnp.max(error / jnp.maximum(1, jnp.abs(expected))) < 1e-7


def test_ten_thousand_degenerate_draws_give_no_nan(rng, dtype):
    tiny = [1e-300, 1e-160, 1e-20, 1e-8] if dtype == np.float64 else [1e-37, 1e-30, 1e-20, 1e-5]
    sizes, size = np.array([0.0, 0.5, 1.0, 2.0, 1e3, *tiny]), 10_000
    sigma, u0, v0 = rng.choice([-1, 1], (3, size)) * rng.choice(sizes, (3, size))
    kind = rng.random(size)
    v0 = np.where(kind < 0.2, u0, np.where(kind < 0.4, -u0, v0))
    sigma = np.where((kind > 0.4) & (kind < 0.5), u0 * v0, sigma)
    t = rng.choice([0.0, tiny[0], 1e-8, 1e-3, 0.5, 1.0, 10.0, 300.0, 1e3, 1e6], size)
    draws = jnp.array(np.stack([sigma, u0, v0, t], axis=1), dtype)

    def everything(arguments):
        limit, constant = exact.mode_limit(*arguments[:3]), exact.mode_constant(*arguments[:3])
        solution = exact.mode(*arguments)
        numbers = (*solution, solution.x, *limit.value, exact.mode_rate(*arguments[:3]).value, constant.value)
        numbers = jnp.stack(numbers)
        return numbers, numbers

    gradients, values = jax.jit(jax.vmap(jax.jacrev(everything, has_aux=True)))(draws)
    assert values.dtype == gradients.dtype == dtype
    for name, array in (("value", values), ("gradient", gradients)):
        bad = ~np.isfinite(np.asarray(array)).reshape(size, -1).all(axis=1)
        assert not bad.any(), (name, np.asarray(draws)[bad][:5])


def test_the_derivative_on_the_saddle_saturates_instead_of_overflowing():
    gradient = jax.jit(jax.vmap(jax.grad(lambda u0, t: exact.mode(1.0, u0, -1.0, t).u), (None, 0)))
    moderate, extreme = gradient(1.0, jnp.array([200.0, 1e6]))
    # Of order e^{mu t/2} while that can be held.
    assert 0.1 < moderate / np.exp(200.0) < 1
    assert 1e100 < extreme < 1e140


def test_dtype_follows_the_arrays_and_not_python_numbers():
    assert exact.mode(1.0, np.float32(0.5), jnp.float32(0.25), 2).u.dtype == jnp.float32
    assert exact.mode(1, 2, 3, 4).u.dtype == jnp.float64


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="Argument `t` must not be negative"):
        ld.exact.mode(1.0, 0.5, 0.5, -1.0)
    with pytest.raises(ValueError, match="Argument `u0` must be finite"):
        ld.exact.mode(1.0, np.array([0.5, np.nan]), 0.5, 1.0)
    with pytest.raises(TypeCheckError):
        ld.exact.mode(1.0, 0.5, 1j, 1.0)
