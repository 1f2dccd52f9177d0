"""What a user names becomes arrays, or one sentence that says why not. Files are written by the tests themselves."""

import ast
import gzip
import io
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lindyn_jax import data
from lindyn_jax.data import DataError, Dataset, autoencoder, describe, gaussian, load, low_rank, read_idx

IDX_CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def idx_bytes(array) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, IDX_CODES[array.dtype.name], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.fixture
def arrays(rng):
    return rng.normal(size=(6, 3)), rng.normal(size=(6, 2))


@pytest.fixture
def write(tmp_path):
    """Writes text, bytes or an array under a name and returns the path as a string."""

    def write(name, content):
        path = tmp_path / name
        if isinstance(content, np.ndarray):
            np.save(path, content)
        elif isinstance(content, dict):
            np.savez(path, **content)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


# -- bundled sets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "num_outputs"),
    [
        ("digits", (1797, 64), 10),
        ("iris", (150, 4), 3),
        ("wine", (178, 13), 3),
        ("breast-cancer", (569, 30), 2),
        ("semantic", (20, 20), 31),
        ("diabetes", (442, 10), 1),
        ("linnerud", (20, 3), 3),
        ("gaussian", (100, 500), 1),
    ],
)
def test_every_known_name_has_its_shape(name, shape, num_outputs):
    dataset = load(name)
    assert dataset.X.shape == shape and dataset.Y.shape == (shape[0], num_outputs)
    assert dataset.X.dtype == dataset.Y.dtype == np.float64
    assert dataset.name == name
    for names, count in ((dataset.feature_names, shape[1]), (dataset.target_names, num_outputs)):
        assert names is None or (len(names) == count and all(type(label) is str for label in names))


def test_every_known_name_is_tested_above():
    (mark,) = test_every_known_name_has_its_shape.pytestmark
    assert {case[0] for case in mark.args[1]} == set(data.KNOWN)


def test_classes_become_one_hot_columns_in_the_order_of_their_labels():
    from sklearn.datasets import load_digits

    Y = load("digits").Y
    assert np.all(Y.sum(axis=1) == 1) and set(np.unique(Y)) == {0.0, 1.0}
    bunch, digits = load_digits(), load("digits")
    assert np.array_equal(Y.argmax(axis=1), bunch.target)
    assert np.array_equal(digits.X, bunch.data) and list(digits.feature_names) == bunch.feature_names
    assert load("iris").target_names == ("setosa", "versicolor", "virginica")
    assert load("digits").target_names == tuple("0123456789")


def test_names_are_free_in_case_and_underscore():
    expected = load("breast-cancer")
    assert load("breast_cancer").name == load("Breast-Cancer").name == expected.name
    assert np.array_equal(load("breast_cancer").X, expected.X)


def test_missing_scikit_learn_is_reported_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DataError, match=r'`iris` comes with scikit-learn.*pip install "lindyn_jax\[data\]"'):
        load("iris")


def test_module_needs_only_numpy_and_jaxtyping():
    files = list(Path(data.__file__).parent.glob("*.py"))
    assert len(files) > 5
    statements = [node for path in files for node in ast.parse(path.read_text()).body]
    names = {alias.name for node in statements if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in statements if isinstance(node, ast.ImportFrom) and node.level == 0}
    assert {name for name in names if name.split(".")[0] not in sys.stdlib_module_names} == {"numpy", "jaxtyping"}


@pytest.mark.parametrize(
    ("given", "meant"), [("digit", "digits"), ("gausian", "gaussian"), ("brest cancer", "breast-cancer")]
)
def test_unknown_name_gets_a_suggestion_and_the_list(given, meant):
    with pytest.raises(
        DataError, match=rf"`{given}` is neither.*did you mean `{meant}`\?.*digits, iris, wine, breast-canc"
    ):
        load(given)


def test_unknown_name_close_to_none_gets_the_list_alone():
    with pytest.raises(DataError, match=r"neither a known name nor a file: the known names are digits, .*, gaussian"):
        load("qqqq")
    with pytest.raises(DataError, match="neither a known name nor a file"):
        load("")


# -- Gaussian data ---------------------------------------------------------------------------------------------------------


def test_gaussian_has_the_variances_of_the_paper():
    n, samples = 400, 500
    noisy, exact = gaussian(n=n, samples=samples, m=3), gaussian(n=n, samples=samples, m=3, noise=0)
    assert np.array_equal(noisy.X, exact.X)
    # Sample variances of k entries have relative standard error sqrt(2/k); five of them.
    assert abs(n * noisy.X.var() - 1) < 5 * np.sqrt(2 / noisy.X.size)
    noise = noisy.Y - exact.Y
    assert abs(noise.var() / 0.01**2 - 1) < 5 * np.sqrt(2 / noise.size)
    Theta, residual, rank, _ = np.linalg.lstsq(exact.X, exact.Y)
    assert rank == n and np.all(residual < 1e-20)  # rounding, squared and summed over 500 rows
    assert abs(n * Theta.var() - 1) < 5 * np.sqrt(2 / Theta.size)


def test_gaussian_is_repeated_by_its_seed_and_only_by_it():
    first, again, other = gaussian(seed=3), gaussian(seed=3), gaussian(seed=4)
    assert np.array_equal(first.X, again.X) and np.array_equal(first.Y, again.Y)
    assert not np.any(first.X == other.X)
    assert np.array_equal(load("gaussian").Y, gaussian().Y)


@pytest.mark.parametrize("size", ["n", "samples", "m"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True])
def test_gaussian_refuses_sizes_that_are_not_positive_whole_numbers(size, value):
    with pytest.raises(DataError, match=rf"`{size}` must be a whole number of at least 1, but is {value}"):
        gaussian(**{size: value})


def test_gaussian_refuses_negative_seed_and_noise():
    with pytest.raises(DataError, match="`seed` must be a whole number of at least 0, but is -1"):
        gaussian(seed=-1)
    for noise in (-0.1, np.nan, np.inf):
        with pytest.raises(DataError, match=f"`noise` must be a finite .* but is {noise}"):
            gaussian(noise=noise)


# -- autoencoders ----------------------------------------------------------------------------------------------------------


def test_autoencoder_has_its_inputs_as_targets_and_its_correlations_commute():
    dataset = autoencoder(load("wine", centre=True))
    assert dataset.Y is dataset.X and dataset.target_names == dataset.feature_names
    assert describe(dataset).endswith("columns centred; autoencoder: the targets are the inputs")
    # Sigma_xy = Sigma_x: round-off of the singular vectors, whose smallest singular values are 1e-8 of the largest.
    assert data.commutation(dataset.X, dataset.Y).delta_xy < 1e-13


def test_low_rank_data_lie_near_the_subspace_of_the_projector():
    (near, P), (inside, same) = low_rank(seed=2), low_rank(seed=2, noise=0)
    assert near.X.shape == (1000, 20) and near.Y is near.X and np.array_equal(P, same)
    assert np.allclose(P @ P, P, atol=1e-14) and np.allclose(P, P.T, atol=1e-15) and abs(np.trace(P) - 5) < 1e-13
    assert np.abs(inside.X @ P - inside.X).max() < 1e-13 * np.abs(inside.X).max() * 10
    outside = near.X - near.X @ P
    # 15 noisy directions of standard deviation 1e-3; sample variances have relative standard error sqrt(2/15000).
    assert abs(np.sum(outside**2) / (15_000 * 1e-6) - 1) < 5 * np.sqrt(2 / 15_000)
    rng = np.random.default_rng(2)
    B = rng.uniform(size=(20, 5))
    z = np.linalg.lstsq(B, inside.X.T)[0].T
    variances = np.array([4, 2, 1, 0.5, 0.25])
    assert np.abs(z.var(axis=0) / variances - 1).max() < 5 * np.sqrt(2 / 1000)


def test_low_rank_data_refuse_what_they_cannot_be():
    for variances in ((), (1.0,) * 4, (1.0, -1.0), (1.0, np.inf)):
        with pytest.raises(DataError, match="`variances` must be 1 to n = 3 positive numbers"):
            low_rank(n=3, variances=variances)
    with pytest.raises(DataError, match="`noise` must be a finite standard deviation of at least 0, but is -1"):
        low_rank(noise=-1)
    with pytest.raises(DataError, match="`n` must be a whole number of at least 1, but is 0"):
        low_rank(n=0)


# -- rows and centring -----------------------------------------------------------------------------------------------------


def test_subset_is_rows_in_their_order_repeated_by_the_seed():
    whole = load("linnerud")
    part, again = load("linnerud", samples=8), load("linnerud", samples=8)
    other = load("linnerud", samples=8, subset_seed=1)
    assert np.array_equal(part.X, again.X) and np.array_equal(part.Y, again.Y)
    assert not np.array_equal(part.X, other.X)
    rows = [
        np.flatnonzero((x == whole.X).all(axis=1) & (y == whole.Y).all(axis=1))
        for x, y in zip(part.X, part.Y, strict=True)
    ]
    assert all(len(row) == 1 for row in rows) and np.all(np.diff(np.ravel(rows)) > 0)
    assert np.array_equal(load("linnerud", samples=20, subset_seed=5).X, whole.X)


def test_centring_subtracts_the_means_of_the_rows_kept():
    raw, centred = load("iris", samples=20), load("iris", samples=20, centre=True)
    assert np.array_equal(centred.X, raw.X - raw.X.mean(axis=0))
    assert np.array_equal(centred.Y, raw.Y - raw.Y.mean(axis=0))
    assert np.abs(centred.X.mean(axis=0)).max() < 1e-14 and np.abs(centred.Y.mean(axis=0)).max() < 1e-15  # rounding


def test_subset_keeps_the_columns_of_labels_it_misses():
    assert load("digits", samples=3).Y.shape == (3, 10)


def test_numpy_integers_count():
    assert load("iris", samples=np.int64(5), subset_seed=np.uint8(2)).X.shape == (5, 4)


@pytest.mark.parametrize("samples", [0, -3, 2.0, 2.5, True])
def test_samples_must_be_a_positive_whole_number(samples):
    with pytest.raises(DataError, match=rf"`samples` must be a whole number of at least 1, but is {samples}"):
        load("iris", samples=samples)


def test_subset_seed_must_be_a_whole_number():
    with pytest.raises(DataError, match="`subset_seed` must be a whole number of at least 0, but is -1"):
        load("iris", samples=3, subset_seed=-1)


def test_more_samples_than_rows_are_refused_with_both_numbers():
    with pytest.raises(DataError, match=r"asks for 151 rows, but iris has only 150: ask for at most 150[.]$"):
        load("iris", samples=151)
    with pytest.raises(DataError, match=r"asks for 101 rows, but gaussian has only 100: .*draw more with `gaussian\("):
        load("gaussian", samples=101)


def test_description_says_in_one_line_what_was_done():
    line = describe(load("iris", samples=20, subset_seed=7, centre=True))
    assert line == (
        "iris: 20 samples, 4 inputs, 3 outputs; scikit-learn's iris, four measurements of iris flowers in cm; "
        "targets: the species, one-hot; 20 of 150 rows, subset seed 7; columns centred"
    )
    one = describe(Dataset(np.ones((1, 1)), np.ones((1, 1)), "one", "ones"))
    assert one == "one: 1 sample, 1 input, 1 output; ones"
    assert all("\n" not in describe(load(name)) for name in data.KNOWN)


# -- npz and npy -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["npz", "compressed", "pair", "path", "gzipped pair"])
def test_numpy_files_come_back_exactly(kind, arrays, write, tmp_path):
    X, Y = arrays
    if kind == "compressed":
        np.savez_compressed(tmp_path / "data.npz", X=X, Y=Y)
        spec = str(tmp_path / "data.npz")
    elif kind == "pair":
        spec = f"{write('X.npy', X)}, {write('Y.npy', Y)}"
    elif kind == "gzipped pair":
        paths = []
        for name, array in (("X", X), ("Y", Y)):
            buffer = io.BytesIO()
            np.save(buffer, array)
            paths.append(write(f"{name}.npy.gz", gzip.compress(buffer.getvalue())))
        spec = ",".join(paths)
    else:
        spec = write("data.npz", {"X": X, "Y": Y, "notes": np.zeros(2)})
        spec = Path(spec) if kind == "path" else spec
    dataset = load(spec)
    assert np.array_equal(dataset.X, X) and np.array_equal(dataset.Y, Y)
    assert dataset.name == {"pair": "X.npy,Y.npy", "gzipped pair": "X.npy.gz,Y.npy.gz"}.get(kind, "data.npz")


@pytest.mark.parametrize("dtype", ["int32", "bool", "float16", "float32", ">f8", "uint8"])
def test_real_dtypes_become_float64_and_a_vector_of_targets_one_column(dtype, write):
    X, Y = np.eye(3).astype(dtype), np.array([1, 0, 1]).astype(dtype)
    dataset = load(write("data.npz", {"X": X, "Y": Y}))
    assert dataset.X.dtype == dataset.Y.dtype == np.float64 and dataset.X.dtype.isnative
    assert np.array_equal(dataset.X, np.eye(3)) and np.array_equal(dataset.Y, [[1.0], [0.0], [1.0]])


@pytest.mark.parametrize(
    ("X", "Y", "message"),
    [
        (np.ones(3), np.ones(3), r"`X` of file .*data.npz` must have shape \(N, n\), but has shape \(3,\)"),
        (np.ones((3, 2, 2)), np.ones(3), r"`X` of file .* must have shape \(N, n\), but has shape \(3, 2, 2\)"),
        (np.ones((3, 2)), np.ones((3, 1, 1)), r"`Y` of file .* must have shape \(N, m\), but has shape \(3, 1, 1\)"),
        (np.ones((3, 2)), np.float64(1), r"`Y` of file .* must have shape \(N, m\), but has shape \(\)"),
        (np.ones((0, 2)), np.ones(0), r"`X` of file .* is empty: it must have shape \(N, n\), but has \(0, 2\)"),
        (np.ones((3, 2)), np.ones((3, 0)), r"`Y` of file .* is empty: .* but has \(3, 0\)"),
        (np.ones((3, 2)), np.ones(4), "`X` and `Y` of file .* one row a sample, but have 3 and 4 rows"),
        (np.ones((3, 2), complex), np.ones(3), "`X` of file .* must hold real numbers, but has dtype complex128"),
        (np.ones((3, 2)), np.array(["a", "b", "c"]), "`Y` of file .* must hold real numbers, but has dtype <U1"),
    ],
)
def test_wrong_arrays_are_named_with_what_was_expected_and_given(X, Y, message, write):
    with pytest.raises(DataError, match=message):
        load(write("data.npz", {"X": X, "Y": Y}))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("letter", ["X", "Y"])
def test_nan_and_infinity_are_located(letter, bad, arrays, write):
    given = dict(zip("XY", arrays, strict=True))
    given[letter][4, 1] = given[letter][5, 0] = bad
    with pytest.raises(
        DataError, match=rf"`{letter}` of file .* 2 of its entries .* first is {bad} in row 4, column 1, count"
    ):
        load(write("data.npz", given), samples=1)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"x": np.ones(2), "Y": np.ones(2)}, "must hold arrays `X` and `Y`, but has no `X`: it holds `x`, `Y`"),
        ({"X": np.ones(2), "labels": np.ones(2)}, "but has no `Y`: it holds `X`, `labels`"),
        ({}, "but has no `X` and no `Y`: it holds nothing"),
    ],
)
def test_npz_without_the_arrays_says_what_it_holds(held, message, write):
    with pytest.raises(DataError, match=message):
        load(write("data.npz", held))


def test_damaged_npz_files_are_one_sentence(arrays, write):
    path = Path(write("whole.npz", dict(zip("XY", arrays, strict=True))))
    raw = path.read_bytes()
    flipped = bytearray(raw)
    flipped[len(raw) // 4] ^= 0xFF
    for content in (raw[: len(raw) // 2], bytes(flipped), b"PK\x03\x04"):
        with pytest.raises(
            DataError, match=r"`.*bad.npz` cannot be read as an npz archive \(\w+\): it is damaged, incomplete"
        ):
            load(write("bad.npz", content))
    buffer = io.BytesIO()
    np.save(buffer, arrays[0])
    for content in (b"", b"not an archive", buffer.getvalue()):
        with pytest.raises(DataError, match=r"bad\.npz` is not an npz archive: write it with `numpy.savez"):
            load(write("bad.npz", content))


def test_every_truncated_file_is_a_data_error(arrays, write):
    X, Y = arrays
    whole = Path(write("whole.npz", {"X": X, "Y": Y})).read_bytes()
    array = Path(write("X.npy", X)).read_bytes()
    labels, images = write("labels", idx_bytes(np.arange(6, dtype=np.uint8))), idx_bytes(np.ones((6, 2, 2), np.uint8))
    for raw, pattern in (
        (whole, "{}"),
        (array, "{}," + labels),
        (images, "{}," + labels),
        (gzip.compress(images), "{}," + labels),
    ):
        for length in range(0, len(raw), max(1, len(raw) // 40)):
            with pytest.raises(DataError):
                load(pattern.format(write("cut.npz", raw[:length])))


def test_python_objects_are_never_unpickled(write):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("a pickle was loaded",)

    objects = np.array([[Trap()]], dtype=object)
    message = "holds Python objects, which are never loaded"
    with pytest.raises(DataError, match=message):
        load(write("data.npz", {"X": objects, "Y": np.ones(1)}))
    with pytest.raises(DataError, match=message):
        load(f"{write('X.npy', objects)},{write('Y.npy', np.ones(1))}")


# -- IDX -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gz"])
def test_idx_images_are_flattened_raw_and_labels_one_hot(compress, rng, write):
    images = rng.integers(0, 256, (5, 4, 3)).astype(np.uint8)
    labels = np.array([7, 0, 2, 7, 0], np.uint8)
    dataset = load(
        f"{write('images-idx3-ubyte', compress(idx_bytes(images)))},{write('labels-idx1-ubyte', compress(idx_bytes(labels)))}"
    )
    assert dataset.X.dtype == np.float64 and np.array_equal(dataset.X, images.reshape(5, 12))
    assert np.array_equal(dataset.Y, [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]])
    assert dataset.target_names == ("0", "2", "7")
    assert dataset.name == "images-idx3-ubyte,labels-idx1-ubyte"
    assert dataset.description == "IDX images, flattened, raw values; targets: IDX labels, one-hot"


@pytest.mark.parametrize("dtype", IDX_CODES)
def test_idx_entries_of_every_type_are_big_endian(dtype, write):
    values = np.array([[1, 2], [100, 120], [3, 4]], dtype) * np.array(1 if "u" in dtype else -1, dtype)
    dataset = load(f"{write('values', idx_bytes(values))},{write('Y.npy', np.ones(3))}")
    assert np.array_equal(dataset.X, values.astype(float)) and dataset.X.dtype.isnative
    assert np.array_equal(dataset.Y, np.ones((3, 1)))


def test_idx_targets_that_are_not_whole_numbers_stay_numbers(write):
    values = np.array([0.5, -2.25, 3.0], np.float32)
    dataset = load(f"{write('X.npy', np.eye(3))},{write('values', idx_bytes(values))}")
    assert np.array_equal(dataset.Y, values[:, None]) and dataset.target_names is None


def test_wrong_idx_files_are_named(write):
    images, labels = np.ones((3, 2, 2), np.uint8), np.arange(3, dtype=np.uint8)
    good_images, good_labels = write("images", idx_bytes(images)), write("labels", idx_bytes(labels))
    cases = [
        (
            good_labels,
            good_images,
            r"IDX file `.*labels` must hold one image .* but has shape \(3,\): name the images first",
        ),
        (
            good_images,
            good_images,
            r"IDX file `.*images` must hold one label .* but has shape \(3, 2, 2\): name the images",
        ),
        (
            good_images,
            write("four", idx_bytes(np.arange(4, dtype=np.uint8))),
            "one row a sample, but have 3 and 4 rows",
        ),
        (
            write("short", idx_bytes(images)[:-1]),
            good_labels,
            r"its shape is \(3, 2, 2\), which takes 12 bytes, but holds 11",
        ),
        (
            write("long", idx_bytes(images) + b"\0"),
            good_labels,
            "takes 12 bytes, but holds 13: it is damaged or incomplete",
        ),
        (
            write("type", b"\0\0\x0a\1\0\0\0\0"),
            good_labels,
            "`.*type` cannot be read as an IDX file: its header is damaged",
        ),
        (
            write("head", b"\0\0\x08\3\0\0"),
            good_labels,
            "`.*head` cannot be read as an IDX file: its header is damaged",
        ),
        (write("none", b"\0\0\x08\0\1"), good_labels, "`.*none` cannot be read as an IDX file: its header is damaged"),
        (
            write("empty", idx_bytes(np.ones((0, 2, 2), np.uint8))),
            good_labels,
            r"`X` of .* is empty: .* but has \(0, 4\)",
        ),
        (write("words", "words"), good_labels, "`.*words` is neither an npy array nor an IDX file"),
        (good_images, write("nothing", b""), "`.*nothing` is neither an npy array nor an IDX file"),
        (
            write("cut.gz", gzip.compress(idx_bytes(images))[:-9]),
            good_labels,
            r"`.*cut.gz` cannot be read as a gzip file \(",
        ),
    ]
    for first, second, message in cases:
        with pytest.raises(DataError, match=message):
            load(f"{first},{second}")


@pytest.mark.parametrize("dtype", IDX_CODES)
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gz"])
def test_idx_arrays_come_back_in_shape_type_and_value(dtype, compress, rng, write):
    array = (100 * rng.normal(size=(3, 2, 4))).astype(dtype)
    read = read_idx(Path(write("array", compress(idx_bytes(array)))))
    assert read.dtype == array.dtype and read.dtype.isnative and np.array_equal(read, array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is not an IDX file: such a file starts with two zero bytes, this one with b''"),
        (b"\x93NUMPY", r"this one with b'\\x93N'"),
        (b"\x08\x03\0\0", r"starts with two zero bytes, this one with b'\\x08\\x03'"),
        (b"\0\0\x08", r"header is damaged \(it has 4 bytes or more, but the file has 3\)"),
        (b"\0\0\x0a\1\0\0\0\0", r"type code 0x0a is none of 0x08, 0x09, 0x0b, 0x0c, 0x0d, 0x0e\)"),
        (b"\0\0\x08\0", r"header is damaged \(it has no axes\)"),
        (b"\0\0\x08\3\0\0\0\1", r"header is damaged \(3 axes take 16 bytes, but the file has 8\)"),
        (b"\0\0\x08\1\0\0\0\5abc", r"its shape is \(5,\), which takes 5 bytes, but holds 3"),
        (b"\x1f\x8b\0\0", r"cannot be read as a gzip file \("),
    ],
)
def test_idx_files_with_a_wrong_header_or_length_say_what_is_wrong(content, message, write):
    with pytest.raises(DataError, match=message):
        read_idx(write("bad", content))
    with pytest.raises(DataError, match=r"`.*none` cannot be read: No such file"):
        read_idx("none")


# -- csv -------------------------------------------------------------------------------------------------------------------

TABLE = "size, weight ,species,price\n1,2.5,owl,10\n-3,4e2,cat,20\n\n0.5, 6 ,owl,30\n"


def test_csv_columns_are_features_unless_they_are_targets(write):
    path = write("table.csv", "a,b,c,d\n1,2,3,4\n5,6,7,8\n")
    dataset = load(path, targets="d,b")
    assert np.array_equal(dataset.X, [[1, 3], [5, 7]]) and np.array_equal(dataset.Y, [[4, 2], [8, 6]])
    assert dataset.feature_names == ("a", "c") and dataset.target_names == ("d", "b")
    assert dataset.name == "table.csv" and "targets: columns d, b" in dataset.description
    assert np.array_equal(load(Path(path), targets=["d", "b"]).Y, dataset.Y)
    assert np.array_equal(load(path, targets=" d , b,").Y, dataset.Y)


def test_one_csv_column_of_words_becomes_one_hot_sorted_by_label(write):
    dataset = load(
        write("table.csv", TABLE.replace(",price", "").replace(",10", "").replace(",20", "").replace(",30", "")),
        targets="species",
    )
    assert np.array_equal(dataset.X, [[1, 2.5], [-3, 400], [0.5, 6]])
    assert np.array_equal(dataset.Y, [[0, 1], [1, 0], [0, 1]]) and dataset.target_names == ("cat", "owl")
    assert dataset.feature_names == ("size", "weight")


def test_csv_of_a_spreadsheet_is_read(write):
    text = '\ufeffname one,"b, c",y\r\n"1",2,3\r\n4,"5",6\r\n'
    dataset = load(write("Table.CSV", text), targets="b, c")
    assert dataset.feature_names == ("name one", "y")
    assert np.array_equal(dataset.X, [[1, 3], [4, 6]]) and np.array_equal(dataset.Y, [[2], [5]])


@pytest.mark.parametrize(
    ("text", "targets", "message"),
    [
        (TABLE, None, "needs `targets`, the names of its target columns, out of `size`, `weight`, `species`, `price`"),
        (TABLE, " , ", "needs `targets`, .* out of `size`, `weight`, `species`, `price`"),
        (TABLE, [], "needs `targets`"),
        (
            TABLE,
            "prize",
            "no column `prize` to be a target: did you mean `price`.* `size`, `weight`, `species`, `price`",
        ),
        ("hops,height (cm)\n1,2\n", "height", r"did you mean `height \(cm\)`"),
        (TABLE, "price,qq", "no column `qq` to be a target: its columns are `size`"),
        (TABLE, "price,price", "`targets` names column `price` more than once"),
        (TABLE, "price", "Column `species` .* must hold numbers, but line 2 holds 'owl': leave the column out"),
        (TABLE, "species,price", "Column `species` .* line 2 holds 'owl': several target columns must all be numbers"),
        ("a,y\n1,3\n2,x\n", "y", "Column `y` .* line 3 holds 'x': labels must all be words or all be numbers"),
        ("a,y\n1_0,3\n", "y", "Column `a` .* line 2 holds '1_0'"),
        ("a,b\n1,2\n", "a,b", "no columns left to be features: `targets` names all 2 of them"),
        ("a,b,a,b,c\n1,2,3,4,5\n", "c", "more than one column named `a`, `b`"),
        (",a,y\n0,1,2\n", "y", "does not name its column 1: name it in the header or remove it"),
        ("1,2,3\n4,5,6\n", "3", "has no header: its first line must name the columns, but holds only numbers"),
        ("a,y\n1,2\n3\n", "y", "must have 2 cells in each row, as in its header, but line 3 has 1"),
        ("a,y\n\n1,2\n3,4,5\n", "y", "but line 4 has 3"),
        ("a,y\n1,2\n,4\n", "y", "empty cell in column `a`, line 3"),
        ("a,y\n1,owl\n2,\n", "y", "empty cell in column `y`, line 3"),
        (
            "a,y\n1,2\n\n3,nan\n4,inf\n",
            "y",
            r"`Y` of .* 2 of its entries .* nan in row 1, column 0, .* \(column `y`, line 4\)",
        ),
        ("a,b,y\n1,-inf,2\n", "y", r"`X` of .* first is -inf in row 0, column 1, .* \(column `b`, line 2\)"),
        ("", "y", "is empty: its first line must name the columns"),
        ("\n\n", "y", "is empty: its first line must name the columns"),
        ("a,y\n", "y", "is empty: it has a header, but no rows"),
        ('a,y\n1,"2\n', "y", "cannot be read as csv: line 2 is malformed"),
        (b"a,y\n1,\xff\n", "y", r"cannot be read as a csv file in UTF-8 \(UnicodeDecodeError\)"),
    ],
)
def test_wrong_csv_files_are_refused_in_one_sentence(text, targets, message, write):
    with pytest.raises(DataError, match=message) as raised:
        load(write("table.csv", text), targets=targets)
    assert "\n" not in str(raised.value)


def test_targets_belong_to_csv_files_alone(arrays, write):
    path = write("data.npz", dict(zip("XY", arrays, strict=True)))
    for spec in ("iris", path, f"{path},{path}", "gaussian"):
        with pytest.raises(
            DataError, match=r"`targets` names columns of a csv file, but the data are `.*`: leave it out"
        ):
            load(spec, targets="y")


def test_names_that_break_lines_are_escaped_in_messages_and_descriptions(write):
    path = write("table.csv", 'a,"y\n\x1b[1m"\n1,2\n')
    with pytest.raises(DataError, match=r"`y\\n\\x1b\[1m`"):
        load(path, targets="z")
    assert r"column y\n\x1b[1m" in describe(load(path, targets="y\n\x1b[1m"))


# -- names of files --------------------------------------------------------------------------------------------------------


def test_missing_files_folders_and_unknown_formats_are_named(write, tmp_path, arrays):
    array = write("X.npy", arrays[0])
    cases = [
        (str(tmp_path / "none.npz"), "`.*none.npz` does not exist"),
        ("none.csv", "`none.csv` does not exist"),
        (f"{tmp_path}/none", "`.*none` does not exist"),
        (f"{array},{tmp_path}/none.npy", "File `[^,]*none.npy` does not exist"),
        ("iris,wine", "File `iris` does not exist"),
        (str(tmp_path), "is a folder: name a file in it"),
        (f"{array},{tmp_path}", "cannot be read: Is a directory"),
        (
            array,
            "X.npy` is neither .npz nor .csv: .* two npy or IDX files with a comma between them, such as `X.npy,Y.npy`",
        ),
        (f"{array},{array},{array}", "must name two files, .* one comma between them, but names 3"),
        (f"{array},", "must name two files, .* but names 1"),
        ("a\0b.npz", "does not exist"),
        ("x" * 5000 + ".npz", "does not exist"),
    ]
    for spec, message in cases:
        with pytest.raises(DataError, match=message):
            load(spec)


def test_file_with_the_name_of_a_set_is_reached_by_its_path(write, arrays, monkeypatch, tmp_path):
    write("iris", "not data")
    monkeypatch.chdir(tmp_path)
    assert load("iris").X.shape == (150, 4)
    for spec in ("./iris", Path("iris")):
        with pytest.raises(DataError, match=r"neither \.npz nor \.csv"):
            load(spec)


def test_home_folder_and_commas_in_file_names_are_understood(write, arrays, monkeypatch, tmp_path):
    X, Y = arrays
    write("a,b.npz", {"X": X, "Y": Y})
    write("X.npy", X), write("Y.npy", Y)
    monkeypatch.setenv("HOME", str(tmp_path))
    for spec in ("~/a,b.npz", "~/X.npy,~/Y.npy"):
        assert np.array_equal(load(spec).X, X)


# -- csv as spreadsheets write it -----------------------------------------------------------------------------------------

ROWS = [["gewicht", "größe", "y"], ["0.25", "-1.5", "3"], ["1e-3", "2", "-0.125"], ["4", "5.75", "6"]]


def table_text(separator=",", decimal="."):
    return "\n".join(separator.join(cell.replace(".", decimal) for cell in row) for row in ROWS) + "\n"


@pytest.mark.parametrize(
    "raw",
    [
        table_text(";").encode(),
        table_text("\t").encode(),
        table_text("|").encode(),
        table_text(" ").encode(),
        table_text("   ").encode(),
        table_text(";", ",").encode(),
        table_text("\t", ",").encode(),
        ("sep=;\n" + table_text(";", ",")).encode(),
        ("sep=,\n" + table_text(",")).encode(),
        ("sep=#\r\n" + table_text("#")).encode("utf-8-sig"),
        table_text(";", ",").encode("utf-16"),
        table_text(",").encode("utf-16-be"),
        table_text("\t").encode("utf-16-le"),
        table_text(",").encode("utf-32"),
        table_text(",").encode("latin-1"),
        table_text(";", ",").encode("cp1252"),
        table_text(",").replace("\n", "\r\n").encode(),
        table_text(", ").encode(),
        table_text('","', ",").replace("\n", '"\n"').removesuffix('"').join(['"', ""]).encode(),
    ],
)
def test_separators_decimal_commas_and_encodings_are_found_out(raw, write):
    dataset = load(write("table.csv", raw), targets="y")
    assert dataset.X.tolist() == [[0.25, -1.5], [1e-3, 2], [4, 5.75]] and dataset.Y.ravel().tolist() == [3, -0.125, 6]
    assert dataset.feature_names == ("gewicht", "größe")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"a;b,c\n1;2,3\n4;5,6\n", "can be read with commas or semicolons between cells: say which by a first line"),
        (b"a;y\n1,500;2\n3,250;4\n", "'1,500' in line 2, whose comma may be of decimals or of thousands"),
        (b"a;y\n1,5;2.5\n", r"holds '1,5' in line 2 and '2.5' elsewhere"),
        (b"a:y\n1:2\n", "needs `targets`|no column `y`"),
        (b"a,y\n1,owl\n2,NA\n3,cat\n", "no value in column `y`, line 3, which holds 'NA'"),
        (b"a,y\n1,owl\nN/A,cat\n", "no value in column `a`, line 3, which holds 'N/A'"),
        (b"a,y\n1,\x81\xfe\n", r"cannot be read as a csv file in UTF-8 \(UnicodeDecodeError\)"),
        (b"\x89PNG\x00\x00\x01\x00\x02", "is no text"),
        (b"a,y\n1,\x01\n", "holds control characters and is no text"),
        (b"sep=xx\na,y\n1,2\n", "states its separator as 'xx'"),
    ],
)
def test_tables_with_two_readings_or_missing_values_are_refused(raw, message, write):
    with pytest.raises(DataError, match=message) as raised:
        load(write("table.csv", raw), targets="y")
    assert "\n" not in str(raised.value)


def test_thousands_of_columns_are_not_all_named(write):
    names = [f"column{i}" for i in range(4_000)]
    path = write("table.csv", ",".join(names) + "\n" + ",".join("1" * 4_000) + "\n")
    with pytest.raises(DataError, match="and 3988 more") as raised:
        load(path, targets=None)
    assert len(str(raised.value)) < 600
    with pytest.raises(DataError, match=r"did you mean `column77`.* and 3988 more"):
        load(path, targets="column77 x")
    assert load(path, targets=names[:3_000]).Y.shape == (1, 3_000)


def test_members_of_an_archive_that_are_no_arrays_are_named(tmp_path):
    path = tmp_path / "own.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("X", "not an array")
        archive.writestr("Y", "nor this")
    with pytest.raises(DataError, match=r"Member `X` of file .* is no array"):
        load(path)


@pytest.mark.parametrize(("depth", "branching"), [(1, 2), (3, 2), (2, 3)])
def test_modes_of_a_tree_are_in_closed_form(depth, branching):
    tree = data.hierarchy(depth, branching)
    Y, count = tree.dataset.Y, branching**depth
    assert tree.dataset.X.shape == (count, count) and Y.shape == (count, sum(branching**l for l in range(depth + 1)))
    np.testing.assert_allclose(tree.items * tree.sigma @ tree.features.T, Y, atol=1e-13)
    for vectors in (tree.items, tree.features):
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(count), atol=1e-13)
    np.testing.assert_allclose(np.linalg.svd(Y, compute_uv=False)[:count], tree.sigma, rtol=1e-12)
    # Broad distinctions are the strongest.
    assert np.all(np.diff(tree.sigma) <= 0) and np.all(np.diff(tree.levels) >= 0)


def test_trees_that_are_none_or_too_large_are_refused():
    for arguments, match in (
        ((0, 2), "`depth` must be"),
        ((2, 1), "`branching` must be"),
        ((40, 2), "more than 10000"),
    ):
        with pytest.raises(data.DataError, match=match):
            data.hierarchy(*arguments)


# -- teachers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [None, 40])
def test_a_teacher_is_made_of_the_decompositions_that_it_names(samples):
    made = data.teacher(n=8, m=5, spectrum=(3, 2, 0.5), variances=data.power_law(8, 1.5), samples=samples, seed=3)
    X, Y, E = made.dataset.X, made.dataset.Y, made.directions
    Sigma = (E * made.variances) @ E.T
    np.testing.assert_allclose(np.linalg.eigvalsh(Sigma)[::-1], np.arange(1.0, 9) ** -1.5, rtol=1e-12)
    np.testing.assert_allclose((made.left * made.sigma) @ made.right.T, made.Theta, atol=1e-14)
    np.testing.assert_allclose(X @ made.Theta, Y, atol=1e-13)
    np.testing.assert_allclose(Sigma @ made.Theta, (made.left * made.correlation) @ made.right.T, atol=1e-13)
    for frame in (made.left, made.right, E):
        np.testing.assert_allclose(frame.T @ frame, np.eye(frame.shape[1]), atol=1e-13)
    if samples is None:
        np.testing.assert_allclose(X.T @ X, Sigma, atol=1e-14)
        found = np.linalg.svd(X.T @ Y, compute_uv=False)
        np.testing.assert_allclose(found[:3], np.sort(made.correlation)[::-1], rtol=1e-12)
        assert found[3] < 1e-14
    else:
        assert X.shape == (40, 8)


def test_a_teacher_of_its_own_directions_does_not_know_the_correlation_and_noise_has_its_size():
    made = data.teacher(n=30, m=4, spectrum=(1, 1), samples=2000, aligned=False, noise=0.2, seed=1)
    assert made.correlation is None
    assert np.linalg.norm(made.directions[:, :2].T @ made.left, 2) < 0.9
    noise = made.dataset.Y - made.dataset.X @ made.Theta
    assert abs(noise.std() / 0.2 - 1) < 5 / np.sqrt(2 * noise.size)
    assert abs(made.dataset.X.std() - 1) < 0.02


def test_spiked_covariances_have_their_spikes():
    np.testing.assert_array_equal(data.spiked(5, (3, -0.5)), [4, 0.5, 1, 1, 1])
    for match, call in {
        "`spikes` must be at most n = 1 finite": lambda: data.spiked(1, (1, 1)),
        "above -1, but is": lambda: data.spiked(3, (-1,)),
        "`exponent` must be at least 0": lambda: data.power_law(3, -1),
        "no variance to vanish": lambda: data.power_law(1000, 200),
        r"`spectrum` must be 1 to min\(n, m\) = 2 positive": lambda: data.teacher(n=2, m=3),
        "`variances` must be n = 3 positive": lambda: data.teacher(n=3, m=3, variances=(1, 2)),
        "`noise` must be a finite standard deviation": lambda: data.teacher(noise=-1),
    }.items():
        with pytest.raises(DataError, match=match):
            call()


def test_the_semantic_table_tells_kinds_apart_before_their_members():
    table = data.semantic()
    assert table.X.shape == (20, 20) and table.Y.shape == (20, len(table.target_names)) and set(table.Y.flat) == {0, 1}
    assert len({tuple(row) for row in table.Y}) == 20
    items = np.linalg.svd(table.Y)[0]
    # The second mode, after what all have in common, sets plants apart from all else.
    plants = table.Y[:, table.target_names.index("needs light")] > 0
    assert plants.sum() == 6 and len(set(np.sign(items[plants, 1]))) == len(set(np.sign(items[~plants, 1]))) == 1
    assert items[plants, 1][0] * items[~plants, 1][0] < 0
    np.testing.assert_array_equal(load("Semantic").Y, table.Y)
