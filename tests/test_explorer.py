"""The page of closed forms: its numbers are the library's, and it opens from disk, on a phone and by keyboard."""

import csv
import io
import itertools
import json
import math
from pathlib import Path

import browser
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lindyn_jax as ld
from lindyn_jax import exact, theory

PAGE = Path(__file__).parent.parent / ".docs/extra/explorer/index.html"
RTOL = 1e-10


@pytest.fixture(scope="module")
def chromium():
    with browser.opened() as one:
        yield one


@pytest.fixture(scope="module")
def page(chromium):
    page = chromium.visit(PAGE.as_uri())
    yield page
    assert not page.problems


def computed(page, call, rows):
    """A function of laws.js at rows of arguments; what is not finite comes back as text."""
    script = f"{json.dumps(rows)}.map((row) => laws.{call}(...row))"
    text = page.run(
        f"JSON.stringify({script}, (key, x) => typeof x === 'number' && !Number.isFinite(x) ? String(x) : x)"
    )
    numbers = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}
    return [_floats(each, numbers) for each in json.loads(text)]


def _floats(value, numbers):
    if isinstance(value, dict):
        return {name: _floats(each, numbers) for name, each in value.items()}
    return numbers.get(value, value) if isinstance(value, str) else value


# Ordinary starts, aligned and opposed, on the saddle and its stable manifold, at the target, and of every sign and size.
SIGMAS = (0.0, 0.3, 1.0, -2.0, 1e-9, 1e3)
STARTS = (
    (0.5, 0.1),
    (0.1, -0.5),
    (-2.0, 0.3),
    (0.2, 0.2),
    (1.0, 1.0),
    (1e-12, 1e-12),
    (0.7, -0.7),
    (0.0, 0.0),
    (0.0, 1.5),
)
MODES = [
    (sigma, *start, t) for sigma, start, t in itertools.product(SIGMAS, STARTS, (0.0, 1e-6, 0.4, 3.0, 40.0, 1e6, 1e200))
]


def test_modes_are_those_of_the_library_at_any_time_from_any_start(page):
    found = computed(page, "mode", MODES)
    expected = jax.jit(lambda *arguments: exact.mode(*arguments)[:2])(*map(jnp.asarray, zip(*MODES, strict=True)))
    for name, values in zip("uv", expected, strict=True):
        np.testing.assert_allclose([each[name] for each in found], values, rtol=RTOL)
    rows = [(sigma, u0 * v0, t) for sigma, u0, v0, t in MODES]
    sigma, x0, t = (np.array(each) for each in zip(*rows, strict=True))
    np.testing.assert_allclose(computed(page, "linear", rows), x0 * np.exp(-t) - sigma * np.expm1(-t), rtol=RTOL)


def test_the_time_to_half_is_when_the_library_is_half_way(page):
    rows = [(*row[:3], share) for row in MODES[::7] for share in (0.5, 0.01)]
    times = np.array(computed(page, "modeTime", rows))
    sigma, u0, v0, share = (np.array(each) for each in zip(*rows, strict=True))
    # Where it never comes, the library says that the mode does not reach its target.
    arrives = np.asarray(exact.mode_limit(sigma, u0, v0).applies)
    moves = (sigma != u0 * v0) & arrives
    assert np.array_equal(np.isfinite(times), arrives | (sigma == u0 * v0))
    at = np.asarray(jax.jit(lambda *a: exact.mode(*a).x)(*map(jnp.asarray, (sigma, u0, v0, np.where(moves, times, 0)))))
    distance = (sigma - u0 * v0) * share
    np.testing.assert_allclose((sigma - at)[moves], distance[moves], rtol=RTOL * 10, atol=1e-15)
    assert moves.sum() > 60


def test_acceleration_is_that_of_the_library(page):
    rows = sorted({row[:3] for row in MODES})
    found = computed(page, "acceleration", rows)
    arguments = [jnp.asarray(each) for each in zip(*rows, strict=True)]
    expected = theory.mode_acceleration(*arguments)
    np.testing.assert_allclose([each["rate"] for each in found], expected.rate, rtol=RTOL)
    assert [each["applies"] for each in found] == expected.applies.tolist()
    assert [each["faster"] for each in found] == expected.faster.tolist()
    np.testing.assert_allclose([each["least"] for each in found], theory.least_imbalance(arguments[0]), rtol=RTOL)
    # Weights of a given product and imbalance have them.
    pairs = [(x0, level) for x0 in (0.0, 0.3, -2.0, 1e-9) for level in (0.0, 1.5, -3.0, 1e-8)]
    for (x0, level), (u, v) in zip(pairs, computed(page, "weights", pairs), strict=True):
        size = u * u + v * v
        np.testing.assert_allclose([u * v, (u - v) * (u + v)], [x0, level], rtol=1e-14, atol=1e-15 * size)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_deep_modes_and_their_times_are_those_of_the_library(page, depth):
    rows = [
        (sigma, s0, t, depth)
        for sigma in (0.0, 0.3, 1.0, -2.0, 50.0)
        for s0 in (1e-8, 0.1, 0.3, 1.0, 4.0)
        for t in (0.0, 1e-3, 0.5, 3.0, 200.0)
    ]
    sigma, s0, t = (jnp.asarray(each) for each in list(zip(*rows, strict=True))[:3])
    expected = jax.jit(lambda *a: exact.deep_mode(a[0], 1.0, *a[1:], depth))(sigma, s0, t)
    np.testing.assert_allclose(computed(page, "deep", rows), expected, rtol=RTOL, atol=1e-290)
    there = [(a, b, b + share * (a - b), depth) for a, b, *_ in rows[::5] for share in (0.5, 0.99)]
    arguments = [jnp.asarray(each) for each in list(zip(*there, strict=True))[:3]]
    times = jax.jit(lambda a, b, c: exact.deep_mode_time(a, 1.0, b, c, depth))(*arguments)
    np.testing.assert_allclose(computed(page, "deepTime", there), times, rtol=1e-9)
    assert np.isfinite(times).sum() > 10


@pytest.mark.parametrize(("n", "r", "m", "kappa"), [(14, 5, 2, 1.0), (9, 2, 4, 30.0)])
def test_sharp_law_and_bound_are_those_of_the_library(page, n, r, m, kappa):
    names = ("sigma", "alpha", "h", "delta")
    cases = [
        dict(zip(names, each, strict=True), n=n, r=r, m=m, kappa=kappa)
        for each in itertools.product((0.0, 1.3), (0.2, 0.35, 0.5, 0.8), (3.0, 1e3, 1e12), (0.1, 1e-6))
    ]
    found = computed(page, "wide", [[case] for case in cases])
    X = np.zeros((r, n))
    X[range(r), range(r)] = [math.sqrt(kappa), *[1.0] * (r - 1)]
    for sigma in (0.0, 1.3):
        problem = ld.LeastSquares(X, X @ (sigma * np.eye(n, m)))
        chosen = [i for i, case in enumerate(cases) if case["sigma"] == sigma]
        h, alpha, delta = (np.array([cases[i][name] for i in chosen]) for name in ("h", "alpha", "delta"))
        law, bound = jax.jit(
            lambda h, alpha, delta, problem=problem: (
                theory.sharp_distance(problem, h, alpha),
                theory.theorem12(problem, h, alpha, delta),
            )
        )(h, alpha, delta)
        expected = {
            "rms": law.rms,
            "level": law.level,
            "wideEnough": law.applies,
            "logBound": bound.log_bound,
            "logWidth": bound.log_width,
            "w": bound.w,
            "h0": bound.h0,
            "applies": bound.applies,
        }
        for name, values in expected.items():
            np.testing.assert_allclose([found[i][name] for i in chosen], values, rtol=RTOL, err_msg=name)


def numbers(page):
    return json.loads(page.run("document.getElementById('numbers').textContent"))


def test_an_address_sets_all_and_the_page_tells_the_librarys_numbers(chromium):
    cases = ((1.5, 0.2, 0.1, -2.0, 1.7), (0, 0.5, -0.25, 0.3, 1e6), (-0.5, 1, -0.5, 0, 0))
    page, told = chromium.visit(PAGE.as_uri()), []
    for case in cases:
        address = "&".join(f"{name}={x}" for name, x in zip(("sigma", "u0", "v0", "lambda0", "t"), case, strict=True))
        page.run(f"location.hash = '{address}&depth=5&s0=0.2'")
        page.wait(f"JSON.parse(document.getElementById('numbers').textContent).parameters.u0 === {case[1]}")
        told.append(numbers(page))
    sigma, u0, v0, level, t = (jnp.asarray(each, float) for each in zip(*cases, strict=True))
    starts = jnp.array([[each["imbalance"][name] for each in told] for name in ("u0", "v0")])
    mode, moved, deep = jax.jit(
        lambda: (exact.mode(sigma, u0, v0, t), exact.mode(sigma, *starts, t), exact.deep_mode(sigma, 1.0, 0.2, t, 5))
    )()
    for panel, expected in (("mode", mode), ("imbalance", moved)):
        for name in "uvx":
            np.testing.assert_allclose([each[panel][name] for each in told], getattr(expected, name), rtol=RTOL)
    np.testing.assert_allclose([each["deep"]["s"] for each in told], deep, rtol=RTOL)
    np.testing.assert_allclose([each["imbalance"]["rate"] for each in told], np.hypot(2 * sigma, level), rtol=RTOL)
    assert not page.problems


def test_what_is_typed_or_moved_by_keys_is_in_the_address_and_mistakes_are_named(chromium):
    page = chromium.visit(PAGE.as_uri())
    before = numbers(page)["parameters"]
    page.run("document.querySelector('#mode [data-slider=sigma]').focus()")
    for kind in ("keyDown", "keyUp"):
        page.ask("Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight", windowsVirtualKeyCode=39)
    moved = numbers(page)["parameters"]["sigma"]
    assert moved > before["sigma"] and page.run("location.hash") == f"#sigma={moved}"
    # All controls of one number move together.
    assert page.run("document.querySelector('#wide [data-name=sigma]').value") == str(moved)

    def typed(name, text):
        field = f"document.querySelector('[data-name={name}]')"
        page.run(f"{field}.value = '{text}', {field}.dispatchEvent(new Event('input'))")
        return page.run(f"{field}.closest('section').querySelector('.wrong').textContent")

    assert typed("depth", 2.5).endswith("must be a whole number of at least 1 and at most 1000.")
    assert typed("delta", 1).endswith("must be a number above 0 and below 1.")
    assert numbers(page)["parameters"] == before | {"sigma": moved}
    assert typed("depth", 5) == typed("delta", 0.2) == ""
    assert typed("r", 20) == "The rank r = 20 must be at most n = 14."
    page.run("location.hash = '#u0=1.25&depth=0&log=1&theme=dark'")
    page.wait("document.documentElement.dataset.theme === 'dark'")
    assert numbers(page)["parameters"] == before | {"u0": 1.25}
    assert "whole number" in page.run("document.querySelector('#deep .wrong').textContent")
    assert page.run("document.getElementById('log').checked")
    assert not page.problems


def test_saved_curves_are_the_librarys(chromium):
    page = chromium.visit(f"{PAGE.as_uri()}#sigma=1&u0=0.3&v0=0.05")
    first, *rows = csv.reader(io.StringIO(page.run("explorer.csv('mode')")))
    assert first == ["time t", "x = uv, two layers", "x, one layer", "u", "v"] and len(rows) == 300
    values = np.array(rows, float).T
    at = exact.mode(1.0, 0.3, 0.05, values[0])
    np.testing.assert_allclose(values[[1, 3, 4]], [at.x, at.u, at.v], rtol=RTOL)
    # The last point is where all but a hundredth of the way is gone.
    assert 0.99 < values[1, -1] < 1
    # Of two charts one after the other.
    assert page.run("explorer.csv('imbalance')").count("\n\n") == 1
    assert not page.problems


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_nothing_is_scrolled_sideways_and_every_control_has_a_name(chromium, dark):
    page = chromium.visit(f"{PAGE.as_uri()}#sigma=1e-7&u0=-1e-9&h=1e200&kappa=1e9&s0=0", width=390, dark=dark)
    assert page.overflow() == 0
    unnamed = (
        "Array.from(document.querySelectorAll('input'), i => !(i.labels?.length || i.ariaLabel)).filter(Boolean).length"
    )
    assert page.run(unnamed) == 0
    assert page.run("document.querySelectorAll('svg[role=img]').length") == 5
    background = page.run("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(20, 23, 26)" if dark else "rgb(255, 255, 255)")
    # Colours, dashes and names are as many as curves; nothing drawn has a NaN in it.
    assert (
        page.run(
            "Array.from(document.querySelectorAll('path'), p => p.getAttribute('d')).some(d => /NaN|Infinity/.test(d))"
        )
        is False
    )
    page.resize(1366)
    assert page.overflow() == 0
    assert not page.problems
    page.close()
