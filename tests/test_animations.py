"""Moving pictures: what is drawn, frame by frame, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from lindyn_jax import plots


def test_a_trajectory_becomes_a_moving_picture(tmp_path):
    ts = np.linspace(0, 1, 9)
    curves = np.stack([ts, ts**2], axis=1)
    matrices = {"items $": np.einsum("t,ij->tij", ts, np.eye(3) - 0.5)}
    path = plots.animate(tmp_path / "a.gif", ts, curves, matrices, law=curves, labels=("one", "two_$"), frames=3)
    assert [file.name for file in tmp_path.iterdir()] == ["a.gif"]
    picture = Image.open(path)
    assert picture.n_frames == 3
    frames = []
    for i in range(3):
        picture.seek(i)
        frames.append(np.asarray(picture.convert("RGB"), float))
    # The matrix is on the right, darker from frame to frame, and points are added on the left.
    half = frames[0].shape[1] * 2 // 3
    darkness = [255 - frame[:, half:].mean() for frame in frames]
    assert 2 * darkness[0] < darkness[1] < darkness[2] / 1.5
    assert np.any(frames[1][:, :half] != frames[0][:, :half])


def test_what_is_no_trajectory_is_refused_and_leaves_no_file(tmp_path):
    ts, curves = np.linspace(0, 1, 4), np.zeros((4, 2))
    path = tmp_path / "a.gif"
    for match, call in {
        "at least two times": lambda: plots.animate(path, ts[:1], curves[:1], {}),
        "`ts` has 4 times, but `curves` has 3": lambda: plots.animate(path, ts, curves[:3], {}),
        "`ts` has 4 times, but `x` has 2": lambda: plots.animate(path, ts, curves, {"x": np.zeros((2, 3, 3))}),
        "`labels` must hold 2 names": lambda: plots.animate(path, ts, curves, {}, labels=("a",)),
    }.items():
        with pytest.raises(ValueError, match=match):
            call()
    assert not list(tmp_path.iterdir())
