"""Moving pictures: what is drawn, frame by frame, and what is refused."""

import matplotlib
import numpy as np
import pytest
from matplotlib.animation import FFMpegWriter
from PIL import Image

from lindyn_jax import plots


def test_a_trajectory_becomes_a_moving_picture(tmp_path):
    ts = np.linspace(0, 1, 9)
    curves = np.stack([ts, ts**2], axis=1)
    matrices = {"items $": np.einsum("t,ij->tij", ts, np.eye(3) - 0.5)}
    path = plots.animate(
        tmp_path / "a.gif", ts, curves, matrices, law=curves, labels=("one", "two_$"), frames=3, size=(5, 3)
    )
    assert [file.name for file in tmp_path.iterdir()] == ["a.gif"]
    picture = Image.open(path)
    assert picture.n_frames == 3 and picture.size == (400, 240)
    frames = []
    for i in range(3):
        picture.seek(i)
        frames.append(np.asarray(picture.convert("RGB"), float))
    # The matrix is on the right, darker from frame to frame, and points are added on the left.
    half = frames[0].shape[1] * 2 // 3
    darkness = [255 - frame[:, half:].mean() for frame in frames]
    assert 2 * darkness[0] < darkness[1] < darkness[2] / 1.5
    assert np.any(frames[1][:, :half] != frames[0][:, :half])


@pytest.mark.skipif(not FFMpegWriter.isAvailable(), reason="needs the program ffmpeg")
def test_a_trajectory_becomes_a_film_where_ffmpeg_is(tmp_path):
    ts = np.linspace(0, 1, 9)
    path = plots.animate(tmp_path / "a.mp4", ts, ts[:, None], {}, frames=3)
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]
    # The box of its kind comes first in a file of this format.
    assert path.read_bytes()[4:8] == b"ftyp"


def test_what_is_no_trajectory_is_refused_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, "animation.ffmpeg_path", "no-such-ffmpeg")
    ts, curves = np.linspace(0, 1, 4), np.zeros((4, 2))
    path = tmp_path / "a.gif"
    for match, call in {
        "must end in .gif or .mp4, but is": lambda: plots.animate(tmp_path / "a.webp", ts, curves, {}),
        "program ffmpeg, which is not there": lambda: plots.animate(tmp_path / "a.mp4", ts, curves, {}),
        "at least two times": lambda: plots.animate(path, ts[:1], curves[:1], {}),
        "`ts` has 4 times, but `curves` has 3": lambda: plots.animate(path, ts, curves[:3], {}),
        "`ts` has 4 times, but `x` has 2": lambda: plots.animate(path, ts, curves, {"x": np.zeros((2, 3, 3))}),
        "`labels` must hold 2 names": lambda: plots.animate(path, ts, curves, {}, labels=("a",)),
    }.items():
        with pytest.raises(ValueError, match=match):
            call()
    assert not list(tmp_path.iterdir())
