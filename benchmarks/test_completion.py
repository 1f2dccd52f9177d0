"""A public completion experiment: 100 x 100, rank 5, 2000 entries observed, entries of the start 1e-3, two and three layers.

`python -m pytest benchmarks/test_completion.py -n 0 -s` runs this package beside loops of gradient descent at full size, NumPy's,
and PyTorch's where it is installed, from the same starts by the same steps, checks that they end at the same digits, and writes
results/completion.json. A thousand trials, each with a matrix, a mask and a start of its own, run as one batch of the ensemble
beside one of NumPy's.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import claim, record

import lindyn_jax as ld

SIZE, RANK, OBSERVED, ENTRIES = 100, 5, 2000, 1e-3
# Width, step and number of steps by depth.
CASES = {2: (1000, 0.01, 400), 3: (500, 3e-3, 4000)}
ROWS: list[dict] = []


@pytest.fixture(autouse=True, scope="module")
def results():
    yield
    print(record("completion", ROWS))


def drawn(key):
    key_left, key_right, key_mask = jax.random.split(key, 3)
    Y = jax.random.normal(key_left, (SIZE, RANK)) @ jax.random.normal(key_right, (RANK, SIZE))
    scores = jax.random.uniform(key_mask, Y.shape)
    mask = scores <= jnp.sort(scores.ravel())[OBSERVED - 1]
    return Y / jnp.sqrt(jnp.mean(Y**2)), mask


def full_size(depth: int, width: int):
    key = jax.random.key(1)
    if depth == 2:
        return ld.init.gaussian(SIZE, SIZE, width, std=ENTRIES, key=key)
    gain = ENTRIES * width**0.5
    return ld.init.deep_orthogonal((SIZE, *(width,) * (depth - 1), SIZE), std=ENTRIES, gain=gain, key=key)


def numpy_descent(Y, mask, layers, step, steps):
    layers = [W.copy() for W in layers]
    for _ in range(steps):
        ahead = [None, *layers[:1]]
        for W in layers[1:]:
            ahead.append(ahead[-1] @ W)
        behind = mask * (ahead[-1] - Y)
        for index in range(len(layers) - 1, -1, -1):
            gradient = behind if index == 0 else ahead[index].T @ behind
            behind = behind @ layers[index].T
            layers[index] = layers[index] - step * gradient
    return np.linalg.multi_dot(layers)


def torch_descent(Y, mask, layers, step, steps):
    import torch

    Y, mask = torch.as_tensor(Y), torch.as_tensor(mask)
    layers = [torch.as_tensor(W).clone().requires_grad_() for W in layers]
    optimizer = torch.optim.SGD(layers, lr=step)
    for _ in range(steps):
        optimizer.zero_grad()
        (torch.sum((mask * (torch.linalg.multi_dot(layers) - Y)) ** 2) / 2).backward()
        optimizer.step()
    return torch.linalg.multi_dot(layers).detach().numpy()


def numbers(problem, Y, Theta):
    return {"test_error": float(problem.test_error(Theta, Y)), "nuclear_norm": float(np.linalg.norm(Theta, "nuc"))}


@pytest.mark.parametrize("depth", CASES)
def test_descent_ends_at_the_digits_of_loops_at_full_size(depth):
    width, step, steps = CASES[depth]
    Y, mask = drawn(jax.random.key(0))
    problem, start = ld.MatrixCompletion(Y, mask), full_size(depth, width)
    optimizer = ld.plain_descent(step)

    def ours():
        return ld.gradient_descent(start, problem, steps, optimizer=optimizer, observables=()).final.product()

    Theta = np.asarray(ours())
    found = numbers(problem, Y, Theta)
    train = float(jnp.sqrt(2 * problem.loss(Theta)) / jnp.linalg.norm(jnp.where(mask, Y, 0)))
    begin = time.perf_counter()
    jax.block_until_ready(ours())
    taken = time.perf_counter() - begin
    ROWS.append({"depth": depth, "width": width, "method": "this package", "seconds": taken, "steps": steps, **found})
    ROWS[-1]["train_error"] = train
    print(ROWS[-1], flush=True)
    arrays = (np.array(Y), np.array(mask, float), [np.array(W) for W in start.layers])
    peers = {"NumPy": numpy_descent}
    try:
        import torch  # noqa: F401

        peers["PyTorch"] = torch_descent
    except ImportError:
        print("PyTorch is not installed: left out")
    for name, run in peers.items():
        begin = time.perf_counter()
        other = numbers(problem, Y, run(*arrays, step, steps))
        peer = time.perf_counter() - begin
        ROWS.append(
            {"depth": depth, "width": width, "method": f"{name}, full size", "seconds": peer, "steps": steps, **other}
        )
        print(ROWS[-1], flush=True)
        for number, value in found.items():
            np.testing.assert_allclose(other[number], value, rtol=1e-8, err_msg=f"{name} {number}")
        says = f"completion of 100 x 100 by descent, depth {depth}, h = {width}, against {name} at full size"
        claim(f"completion {depth} {name}", peer / taken, None, says)


# A short horizon: at full size a thousand of them take an hour or more.
TRIALS, BATCH_STEPS = 1000, 100


def trial(key, h):
    """One completion by descent, from a core of the law of a start of this width."""
    key_data, key_start = jax.random.split(key)
    Y, mask = drawn(key_data)
    problem = ld.MatrixCompletion(Y, mask)
    core = ld.init.gaussian_core(problem, h, std=ENTRIES, key=key_start)
    end = ld.gradient_descent(core, problem, BATCH_STEPS, optimizer=ld.plain_descent(CASES[2][1]), observables=()).final
    return {"test_error": problem.test_error(end.product(), Y), "loss": problem.loss(end.product())}


def test_a_thousand_trials_run_as_one_batch():
    width, step, _ = CASES[2]

    Y, mask = drawn(jax.random.key(0))
    layers = [np.array(W) for W in full_size(2, width).layers]
    begin = time.perf_counter()
    numpy_descent(np.array(Y), np.array(mask, float), layers, step, BATCH_STEPS)
    peer = time.perf_counter() - begin
    # What it takes to compile is among the seconds.
    begin = time.perf_counter()
    result = ld.run_ensemble(trial, {"h": [float(width)]}, TRIALS, key=jax.random.key(1), chunk=TRIALS)
    errors, losses = np.asarray(result["test_error"]), np.asarray(result["loss"])
    taken = time.perf_counter() - begin
    assert errors.size == TRIALS and np.all(np.isfinite(errors)) and np.all(losses < SIZE**2)
    mean = float(np.mean(errors))
    row = {"depth": 2, "width": width, "method": f"this package, {TRIALS} trials as one batch", "seconds": taken}
    ROWS.append({**row, "steps": BATCH_STEPS, "test_error": mean})
    ROWS.append(
        {"depth": 2, "width": width, "method": "NumPy, full size, one trial", "seconds": peer, "steps": BATCH_STEPS}
    )
    print(*ROWS[-2:], flush=True)
    says = f"a trial of completion of 100 x 100 in a batch of {TRIALS}, h = {width}, against NumPy at full size"
    claim("completion batch NumPy", TRIALS * peer / taken, None, says)
