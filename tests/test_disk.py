"""Tables on disk: what is learned from them, how much is read, and what files may do meanwhile.

Blocks and windows are made so small that the shared tables of 60 rows have several of them. The
reference is always the same fit in memory, on the same small windows.
"""

import os
import tracemalloc
import weakref

import joblib
import numpy as np
import pandas as pd
import pytest
from imblearn.over_sampling import SMOTE
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, RobustScaler

from skstack import (
    FineTune,
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
    StackedKerasRegressor,
)
from skstack._base import disk_table
from skstack._splits import folds
from skstack._training import program
from skstack._training.data import Orders
from skstack.inspection import ColumnProfile
from skstack.networks import Autoencoder, TabM
from skstack.preprocessing import _open_table, open_table
from tests._models import FIT, N_ROWS, SMALL, binary, mixed, regression


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    """Windows of 24 rows, pieces of at most 32, and nothing small enough to be read whole."""
    monkeypatch.setattr(disk_table, "BLOCK_ROWS", 8)
    monkeypatch.setattr("skstack._training.data.BLOCK_ROWS", 8)
    monkeypatch.setattr("skstack._training.data.BLOCKS_IN_WINDOW", 3)
    monkeypatch.setattr(disk_table, "BLOCKS_IN_WINDOW", 3)
    monkeypatch.setattr(disk_table, "SAMPLE_ROWS", 16)
    monkeypatch.setattr(disk_table, "_RUN_ROWS", 2)
    monkeypatch.setattr(disk_table, "_WHOLE_BYTES", 0)
    monkeypatch.setattr(program, "_PIECE_BYTES", 512)
    monkeypatch.setattr(_open_table, "_FEW_ROWS", 10)


@pytest.fixture
def on_disk(tmp_path):
    """Stores an array in a file and maps it."""

    def store(X, dtype=np.float32):
        path = tmp_path / "X.npy"
        np.save(path, np.asarray(X, dtype=dtype))
        return np.load(path, mmap_mode="r")

    return store


NETWORK = KerasClassifier(SMALL, **FIT)
STOPS = {"early_stopping": True, "epochs": 3, "validation_fraction": 0.2}
CLASSIFIERS = {
    "a number of epochs": NETWORK,
    "early stopping": KerasClassifier(SMALL, **{**FIT, **STOPS}),
    "metrics": KerasClassifier(SMALL, metrics=["accuracy"], **FIT),
    "Keras' own fit": KerasClassifier(SMALL, engine="keras", **FIT),
    "bins and quantiles": KerasClassifier(TabM((4,), n_members=2), **FIT),
    "bags": KerasClassifier(SMALL, n_bags=2, **FIT),
    "a stack": StackedKerasClassifier(
        [("one", NETWORK), ("two", NETWORK, [0, 2])], downstream=NETWORK, random_state=0, cv=3
    ),
    "a stack without a blend": StackedKerasClassifier(
        NETWORK, downstream=NETWORK, blend=False, passthrough=False, random_state=0, cv=3
    ),
    "open epochs": StackedKerasClassifier(
        NETWORK,
        downstream=KerasClassifier(SMALL, batch_size=32),
        scaler=RobustScaler(),
        blend=False,
        random_state=0,
        cv=3,
    ),
}


@pytest.mark.slow(first=3)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # after 100 epochs
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_fit_on_disk_has_the_bits_of_one_in_memory(name, on_disk):
    X, y = binary()
    X = X.astype(np.float32)
    stored = on_disk(X)
    inside, outside = clone(CLASSIFIERS[name]).fit(X, y), clone(CLASSIFIERS[name]).fit(stored, y)
    np.testing.assert_array_equal(outside.predict_proba(stored), inside.predict_proba(X))
    np.testing.assert_array_equal(outside.predict_proba(X), inside.predict_proba(X))


@pytest.mark.filterwarnings("ignore:.*needs all rows")
def test_codes_of_rows_sorted_by_class_stay_categories(on_disk):
    X, y = binary()
    order = np.argsort(y, kind="stable")  # the first chunks predict one class
    stored, X, y = on_disk(X[order]), X[order].astype(np.float32), y[order]
    coded = KerasFeatureTransformer(GaussianNB(), features=["outputs", "codes"], cv=3)
    expected = coded.fit_transform(X, y)
    pd.testing.assert_frame_equal(coded.fit_transform(stored, y), expected)
    pd.testing.assert_frame_equal(coded.transform(stored), coded.transform(X))


@pytest.mark.parametrize(
    "others",
    [
        pd.Categorical(["b", "c"], ordered=True),
        pd.Categorical([None, "b"], categories=[3, "b"]),
        pd.Categorical([None, None]),
        ["b", "c"],
    ],
    ids=["ordered", "of two kinds", "missing", "none"],
)
def test_chunks_of_any_categories_are_joined(others):
    first = pd.Categorical(
        ["a", "b"], ordered=isinstance(others, pd.Categorical) and others.ordered
    )
    joined = disk_table.joined_frames([pd.DataFrame({"k": first}), pd.DataFrame({"k": others})])[
        "k"
    ]
    assert joined.dtype == "category"
    assert [each for each in joined if not pd.isna(each)] == [
        each for each in [*first, *others] if not pd.isna(each)
    ]


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("weighted", [False, True])
def test_regression_weights_and_float64_columns(weighted, on_disk):
    X, y = regression()
    weights = np.arange(N_ROWS) % 4 * 1.0 if weighted else None
    network = KerasRegressor(SMALL, **FIT)
    inside = clone(network).fit(X, y, sample_weight=weights)
    outside = clone(network).fit(on_disk(X, np.float64), y, sample_weight=weights)
    np.testing.assert_array_equal(outside.predict(X), inside.predict(X))
    stack = StackedKerasRegressor(network, downstream=network, random_state=0, cv=3)
    inside = clone(stack).fit(X, y, sample_weight=weights)
    outside = clone(stack).fit(on_disk(X, np.float64), y, sample_weight=weights)
    np.testing.assert_array_equal(outside.predict(X), inside.predict(X))


def test_an_autoencoder_learns_from_its_own_input_on_disk(on_disk):
    X = binary()[0].astype(np.float32)
    network = KerasAutoencoder(Autoencoder((3,), latent_size=2), **FIT)
    inside, outside = clone(network).fit(X), clone(network).fit(on_disk(X))
    np.testing.assert_array_equal(outside.transform(on_disk(X)), inside.transform(X))
    errors = outside.reconstruction_error(on_disk(X))
    np.testing.assert_array_equal(errors, inside.reconstruction_error(X))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"passthrough": True, "layers": "hidden_1", "features": ["outputs", "entropy"]},
        {"refit": False},
        {"cv": KFold(3, shuffle=True, random_state=1)},
    ],
    ids=str,
)
def test_out_of_fold_features_have_the_bits_of_those_in_memory(settings, on_disk):
    X, y = binary()
    X = X.astype(np.float32)
    make = KerasFeatureTransformer(NETWORK, random_state=0, **{"cv": 3, **settings})
    inside, outside = clone(make), clone(make)
    np.testing.assert_array_equal(outside.fit_transform(on_disk(X), y), inside.fit_transform(X, y))
    np.testing.assert_array_equal(outside.transform(on_disk(X)), inside.transform(X))
    assert list(outside.get_feature_names_out()) == list(inside.get_feature_names_out())


def test_large_features_are_in_files_that_leave_nothing_behind(on_disk, tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    X, y = binary()
    make = KerasFeatureTransformer(NETWORK, random_state=0, cv=3)
    features = make.fit_transform(on_disk(X), y)
    base = features
    while base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    assert not list(folder.iterdir())  # a file without a name is freed with the array


def test_a_full_disk_is_an_error_that_names_the_bytes(on_disk, monkeypatch):
    def full(file, offset, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    X, y = binary()
    transformer = KerasFeatureTransformer(NETWORK, random_state=0, cv=3)
    with pytest.raises(OSError, match=r"No space left on device: \d+ bytes for features of"):
        transformer.fit_transform(on_disk(X), y)
    assert not hasattr(transformer, "estimator_")


# The order of rows ---------------------------------------------------------------------------


def test_each_epoch_shuffles_blocks_and_rows_within_windows():
    orders = Orders(0, N_ROWS).next(2)
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(N_ROWS))
        blocks = [set(order[start : start + 24] // 8) for start in (0, 24, 48)]
        assert [len(each) for each in blocks] in ([3, 3, 2], [3, 4, 3], [3, 4, 2], [3, 3, 3])
        assert len(np.unique(np.diff(order))) > 20
    assert not np.array_equal(*orders)


def test_tables_of_one_window_are_shuffled_whole():
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(3)))
    np.testing.assert_array_equal(Orders(3, 24).next(1)[0], generator.permutation(24))


def test_the_number_of_rows_in_a_piece_does_not_matter(monkeypatch):
    X, y = binary()
    expected = clone(NETWORK).fit(X, y)
    monkeypatch.setattr(program, "_PIECE_BYTES", 2**20)
    again = clone(NETWORK).fit(X, y)
    assert again.loss_curve_ == expected.loss_curve_
    np.testing.assert_array_equal(again.predict_proba(X), expected.predict_proba(X))


def test_at_most_so_many_rows_of_a_large_table_are_held_out(monkeypatch):
    monkeypatch.setattr("skstack._splits.hold_out._MOST_HELD_OUT", 8)
    X, y = binary()
    seen = []
    table = KerasClassifier._table
    monkeypatch.setattr(
        KerasClassifier,
        "_table",
        lambda self, inputs, y, *args: seen.append(len(y)) or table(self, inputs, y, *args),
    )
    KerasClassifier(SMALL, **{**FIT, **STOPS}).fit(X, y)
    assert seen == [N_ROWS - 8, 8]


# How much is in memory -----------------------------------------------------------------------


def test_a_fit_keeps_a_small_part_of_the_rows_in_memory(tmp_path, monkeypatch):
    for name, value in (("BLOCK_ROWS", 2**10), ("SAMPLE_ROWS", 2**10)):
        monkeypatch.setattr(disk_table, name, value)
    monkeypatch.setattr("skstack._training.data.BLOCK_ROWS", 2**10)
    monkeypatch.setattr(program, "_PIECE_BYTES", 2**14)
    n = 60_000
    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.float32, (n, 40))
    for start in range(0, n, 2**12):
        part = X[start : start + 2**12]
        part[:] = np.random.default_rng(start).normal(size=part.shape)
    y = (X[:, 0] > 0).astype(np.int8)
    X.flush()
    network = KerasClassifier(SMALL, epochs=1, batch_size=256, random_state=0)
    network.fit(np.asarray(X[:512]), y[:512])  # compiles
    tracemalloc.start()
    try:
        network.fit(X, y)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < X.nbytes / 3


def test_rows_are_freed_before_others_are_read(on_disk):
    read = []

    def arrays(rows):
        assert not [array for array in read if array() is not None]
        made = {"numeric": rows.copy()}
        read.append(weakref.ref(made["numeric"]))
        return made

    shared = disk_table.SharedRows(disk_table.on_disk(on_disk(binary()[0])), arrays)
    for rows in (np.arange(9), np.arange(4)):
        assert shared.read(rows) is shared.read(rows)
    assert len(read) == 2


def test_folds_of_a_large_table_are_made_when_asked_for():
    y = np.arange(N_ROWS) % 3 % 2
    X = np.zeros((N_ROWS, 1))
    for cv in (3, KFold(4), KFold(4, shuffle=True, random_state=0)):
        pairs = folds.folds_of(cv, X, y, classifier=True)
        assert isinstance(pairs, folds._Parts)
        expected = list(folds._splitter(cv, y, True, None).split(X, y))
        assert len(pairs) == len(expected)
        for own, other in zip(pairs, expected, strict=True):
            for side, rows in zip(own, other, strict=True):
                np.testing.assert_array_equal(side, rows)


@pytest.mark.parametrize("kind", ["in part", "another order", "twice"])
def test_other_folds_of_a_large_table_stay_as_they_are(kind):
    rows = np.arange(N_ROWS)
    halves = [(rows[:30], rows[30:]), (rows[30:], rows[:30])]
    cv = {
        "in part": halves[:1],
        "another order": [halves[0], (rows[:29:-1], rows[:30])],
        "twice": [*halves, (rows[:40], rows[40:])],
    }[kind]
    pairs = folds.folds_of(cv, np.zeros((N_ROWS, 1)), None, classifier=False)
    assert len(pairs) == len(cv)
    for own, other in zip(pairs, cv, strict=True):
        for side, expected in zip(own, other, strict=True):
            np.testing.assert_array_equal(side, expected)


# Files of Arrow and Parquet ------------------------------------------------------------------


def store_frame(X, kind, tmp_path):
    """Store a DataFrame in a file, or in a folder of two; return the path."""
    if kind == "feather":
        X.to_feather(tmp_path / "X.feather", chunksize=16)
        return tmp_path / "X.feather"
    if kind == "parquet":
        X.to_parquet(tmp_path / "X.parquet", row_group_size=16)
        return tmp_path / "X.parquet"
    folder = tmp_path / "X"
    folder.mkdir()
    X.iloc[:25].to_parquet(folder / "0.parquet")
    X.iloc[25:].to_parquet(folder / "1.parquet")
    return folder


KINDS = ["feather", "parquet", "folder"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_columns_of_all_kinds_are_read_by_name(kind, tmp_path):
    pytest.importorskip("pyarrow")
    X, y = mixed()
    X["level"] = pd.Categorical(X["job"].str.upper())
    path = store_frame(X.assign(y=y), kind, tmp_path)
    table = open_table(path)
    assert table.columns == [*X.columns, "y"]
    assert table.shape == (N_ROWS, X.shape[1] + 1)
    assert table["y"].tolist() == y.tolist()
    pd.testing.assert_frame_equal(table[list(X.columns)].in_memory(), X)
    assert table.head().shape == (5, X.shape[1] + 1)
    pd.testing.assert_frame_equal(table[list(X.columns)].head(12), X.head(12))
    rows = np.array([41, 3, 59, 24, 25])
    some = table[rows][["level", "a"]].in_memory()
    pd.testing.assert_frame_equal(
        some.reset_index(drop=True), X.iloc[rows][["level", "a"]].reset_index(drop=True)
    )
    assert len(table[table["a"].to_numpy() > 0]) == (X["a"] > 0).sum()

    inputs = open_table(path, columns=list(X.columns))
    for estimator in (NETWORK, CLASSIFIERS["a stack"]):
        inside, outside = clone(estimator).fit(X, y), clone(estimator).fit(inputs, y)
        assert outside.feature_names_in_.tolist() == list(X.columns)
        np.testing.assert_array_equal(outside.predict_proba(inputs), inside.predict_proba(X))


UNLIKE_BATCHES = {
    "categories": [["a", "b"] * 15, ["c", None, "d"] * 10],
    "no categories first": [[None] * 30, ["c", "a", "d"] * 10],
    "words": [["a", "b"] * 15, ["c", None, "d"] * 10],
    "views of words": [["a", "b"] * 15, ["c", None, "d"] * 10],
    "bools": [[True, False] * 15, [None, True, False] * 10],
    "integers": [[1, 2] * 15, [None, None, 3] * 10],
}


@pytest.mark.parametrize("kind", UNLIKE_BATCHES)
def test_batches_that_are_not_alike_make_one_table(kind, tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import feather, parquet

    parts = [arrow.array(part) for part in UNLIKE_BATCHES[kind]]
    if "categories" in kind:
        parts = [part.cast(arrow.string()).dictionary_encode() for part in parts]
    if "views" in kind:  # as Polars writes them
        parts = [part.cast(arrow.string_view()) for part in parts]
    whole = arrow.table({"x": np.arange(60.0), "other": arrow.chunked_array(parts)})
    expected = whole.to_pandas()
    feather.write_feather(whole, tmp_path / "X.feather", chunksize=16)
    parquet.write_table(whole, tmp_path / "X.parquet", row_group_size=13)
    (tmp_path / "X").mkdir()
    for number, start in enumerate((0, 30)):
        parquet.write_table(whole.slice(start, 30), tmp_path / "X" / f"{number}.parquet")
    rows = np.array([41, 3, 59, 24, 24])
    for name in ("X.feather", "X.parquet", "X"):
        table = open_table(tmp_path / name)
        for some, own in ((rows, expected.iloc[rows]), (slice(25, 40), expected[25:40])):
            pd.testing.assert_frame_equal(
                table[some].in_memory().reset_index(drop=True),
                own.reset_index(drop=True),
                check_dtype=False,
                check_categorical=False,
            )


def test_a_column_of_decimals_holds_numbers_even_if_the_first_are_missing(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import feather

    prices = arrow.array([None] * 20 + list(range(40))).cast(arrow.decimal128(21, 2))
    feather.write_feather(arrow.table({"price": prices}), tmp_path / "X.feather")
    assert open_table(tmp_path / "X.feather").head()["price"].dtype == np.float64


def test_an_index_that_pandas_stored_is_no_column(tmp_path):
    pytest.importorskip("pyarrow")
    X = mixed()[0]
    for kind, frame in (("feather", X), ("parquet", X.set_index("d")), ("folder", X[X["a"] > 0])):
        assert "d" not in open_table(store_frame(frame[["a", "b"]], kind, tmp_path)).columns
    assert open_table(tmp_path / "X").columns == ["a", "b"]


@pytest.mark.parametrize("kind", ["npy", "feather", "parquet"])
def test_tables_without_rows_can_be_read(kind, tmp_path):
    path = tmp_path / "X.npy"
    if kind == "npy":
        np.save(path, np.zeros((0, 4)))
    else:
        pytest.importorskip("pyarrow")
        path = store_frame(binary(frame=True)[0][:0], kind, tmp_path)
    table = open_table(path)
    assert table.head().shape == table[[]].in_memory().shape == np.asarray(table).shape == (0, 4)


def test_other_files_in_a_folder_are_left_alone(tmp_path):
    pytest.importorskip("pyarrow")
    X, _ = mixed()
    path = store_frame(X, "folder", tmp_path)
    for name in ("._0.parquet", "_metadata.parquet", "notes.txt"):
        (path / name).write_bytes(b"something else")
    (path / "more.parquet").mkdir()
    assert open_table(path).shape == X.shape


def test_missing_numbers_are_imputed_from_disk_as_in_memory(tmp_path):
    pytest.importorskip("pyarrow")
    from sklearn.impute import SimpleImputer

    X, y = mixed(gap=True)
    table = open_table(store_frame(X, "feather", tmp_path))
    network = KerasClassifier(SMALL, imputer=SimpleImputer(strategy="median"), **FIT)
    inside, outside = clone(network).fit(X, y), clone(network).fit(table, y)
    np.testing.assert_array_equal(outside.predict_proba(table), inside.predict_proba(X))
    with pytest.raises(ValueError, match="NaN"):
        clone(NETWORK).fit(table, y)


def by_name():
    """A downstream of scikit-learn that selects columns by name."""
    columns = make_column_transformer(
        (OneHotEncoder(), ["job"]), ("passthrough", ["a", "risk__proba_1"])
    )
    return make_pipeline(columns, LogisticRegression())


STACKS = {
    "scaled": {"blend": False},
    "scaled in another way": {"blend": False, "scaler": RobustScaler()},
    "fine-tuned": {"blend": False, "scaler": None, "fine_tune": FineTune(epochs=1)},
    "rows held out": {"blend": False, "downstream": "stops early"},
    "blended, a downstream of scikit-learn": {"scaler": None, "downstream": "by name"},
}


@pytest.mark.filterwarnings("ignore:(?s).*needs all rows in memory:UserWarning")
@pytest.mark.parametrize("rows_in_window", [64, pytest.param(24, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", STACKS)
def test_a_stack_on_disk_with_categories_is_that_in_memory(
    name, rows_in_window, tmp_path, monkeypatch
):
    """A table of one window is read whole by some parts, but is a table on disk for all."""
    monkeypatch.setattr(disk_table, "BLOCKS_IN_WINDOW", rows_in_window // 8)
    frame, _ = mixed()
    frame, y = frame.drop(columns="member"), binary()[1]
    frame.to_feather(tmp_path / "table.feather")
    table, settings = open_table(tmp_path / "table.feather"), dict(STACKS[name])
    downstream = settings.pop("downstream", None)
    if downstream == "stops early":
        settings["downstream"] = KerasClassifier(SMALL, **FIT, early_stopping=True)
    else:
        settings["downstream"] = by_name() if downstream else KerasClassifier(SMALL, **FIT)
    risk = KerasClassifier(SMALL, **{**FIT, "epochs": 8, "learning_rate": 0.05})
    stack = StackedKerasClassifier([("risk", risk)], cv=2, random_state=0, **settings)
    expected, fit = clone(stack), clone(stack)
    features = expected.fit_transform(frame, y)
    pd.testing.assert_frame_equal(fit.fit_transform(table, y), features)
    if name == "scaled":
        again = clone(stack).fit(table, y)
        np.testing.assert_array_equal(again.predict_proba(frame), fit.predict_proba(frame))
    assert fit.blend_weights_ == expected.blend_weights_
    pd.testing.assert_frame_equal(fit.transform(table), expected.transform(frame))
    for rows in (table, frame):
        np.testing.assert_array_equal(fit.predict_proba(rows), expected.predict_proba(frame))
        np.testing.assert_array_equal(fit.predict(rows), expected.predict(frame))


def test_searches_and_splitters_of_scikit_learn_take_tables(tmp_path):
    pytest.importorskip("pyarrow")
    X, y = mixed()
    table = open_table(store_frame(X, "folder", tmp_path))
    expected = cross_val_score(NETWORK, X, y, cv=2)
    np.testing.assert_array_equal(cross_val_score(NETWORK, table, y, cv=2), expected)
    grid = {"learning_rate": [1e-3, 1e-1]}
    inside = GridSearchCV(NETWORK, grid, cv=2).fit(X, y)
    outside = GridSearchCV(NETWORK, grid, cv=2).fit(table, y)
    assert outside.best_params_ == inside.best_params_
    np.testing.assert_array_equal(outside.predict_proba(X), inside.predict_proba(X))


def test_an_unpacked_file_is_removed_with_its_table(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    X, _ = mixed()
    table = open_table(store_frame(X, "parquet", tmp_path))
    table.head()
    assert not list(folder.iterdir())
    table[20:30].in_memory()
    assert len(list(folder.iterdir())) == 1
    del table
    assert not list(folder.iterdir())


def test_the_reader_of_a_worker_process_reads_the_same_rows(tmp_path):
    import pickle

    pytest.importorskip("pyarrow")
    X, _ = mixed()
    for kind in KINDS:
        table = open_table(store_frame(X, kind, tmp_path))
        table[20:30].in_memory()
        other = pickle.loads(pickle.dumps(table[30:]))
        pd.testing.assert_frame_equal(other.in_memory(), table[30:].in_memory())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "missing.npy", "does not exist"),
        (lambda path: path, "a folder without .parquet files"),
        (lambda path: (path / "X.csv").write_text("a,b") and path / "X.csv", "not supported"),
    ],
    ids=["missing", "an empty folder", "another kind"],
)
def test_what_is_not_a_table_is_refused(make, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        open_table(make(tmp_path))


def test_arrays_that_are_no_tables_are_refused(tmp_path):
    for name, array, message in (
        ("one", np.zeros(3), r"shape \(3,\)"),
        ("cube", np.zeros((2, 2, 2)), r"shape \(2, 2, 2\)"),
        ("words", np.array([["a"]]), "dtype <U1"),
        ("objects", np.array([[None]], dtype=object), "cannot be read"),
        ("columns", np.asfortranarray(np.zeros((4, 3))), "by columns"),
    ):
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(ValueError, match=message):
            open_table(tmp_path / f"{name}.npy")
    (tmp_path / "empty.npy").touch()
    np.savez(tmp_path / "several.npz", np.zeros((4, 3)))
    (tmp_path / "several.npz").rename(tmp_path / "several.npy")
    for name in ("empty", "several"):
        with pytest.raises(ValueError, match="cannot be read"):
            open_table(tmp_path / f"{name}.npy")


@pytest.mark.parametrize("kind", ["npy", *KINDS])
def test_a_file_that_was_cut_off_is_refused(kind, tmp_path):
    if kind == "npy":
        path = tmp_path / "X.npy"
        np.save(path, np.zeros((50, 3)))
    else:
        pytest.importorskip("pyarrow")
        path = store_frame(mixed()[0], kind, tmp_path)
    file = path / "1.parquet" if kind == "folder" else path
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match="cut off"):
        open_table(path)


def test_a_mask_is_not_read_as_positions_of_columns(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.eye(2))
    with pytest.raises(TypeError, match=r"columns=\[True, False\] must be a list of names"):
        open_table(path, columns=[True, False])


@pytest.mark.slow(first=2)
@pytest.mark.parametrize("kind", ["parquet", "feather"])
@pytest.mark.parametrize("integer", ["Int64", "UInt64", "Int8"])
def test_integers_with_gaps_stay_integers(kind, integer, tmp_path):
    pytest.importorskip("pyarrow")
    X, y = binary(frame=True)
    largest = np.iinfo(integer.lower()).max
    X["shop"] = pd.Series([largest - number % 3 for number in range(len(X))], dtype=integer)
    X.loc[X.index[5], "shop"] = pd.NA
    table = open_table(store_frame(X, kind, tmp_path))
    pd.testing.assert_series_equal(table[:]["shop"], X["shop"], check_index=False)
    settings = {**FIT, "categorical_features": ["shop"]}
    of_disk, of_memory = (KerasClassifier(SMALL, **settings).fit(each, y) for each in (table, X))
    found, expected = (each.blocks_.categories_ for each in (of_disk, of_memory))
    assert repr(found) == repr(expected)


def test_columns_and_schemas_are_checked_when_a_table_is_opened(tmp_path):
    pytest.importorskip("pyarrow")
    X, _ = mixed()
    path = store_frame(X, "folder", tmp_path)
    with pytest.raises(ValueError, match=r"columns holds \['aa'\], which are not among"):
        open_table(path, columns=["aa"])
    for columns in ("a", 3):
        with pytest.raises(TypeError, match="must be a list of names"):
            open_table(path, columns=columns)
    for columns in (["a", "a"], []):
        with pytest.raises(ValueError, match="at least one column, and none twice"):
            open_table(path, columns=columns)
    with pytest.raises(KeyError, match="'nope' is not a column"):
        open_table(path)["nope"]
    X.drop(columns="b").to_parquet(path / "2.parquet")
    with pytest.raises(ValueError, match=r"another schema .*it lacks \['b'\]"):
        open_table(path)
    X.astype({"b": str}).to_parquet(path / "2.parquet")
    with pytest.raises(ValueError, match=r"'b' is .* in place of double"):
        open_table(path)


@pytest.mark.parametrize("kind", ["npy", "feather", "parquet"])
@pytest.mark.parametrize("change", ["cut", "written", "gone"])
def test_a_file_that_changes_while_it_is_in_use_is_an_error(kind, change, tmp_path):
    X, y = binary(frame=True)
    path = tmp_path / "X.npy"
    if kind == "npy":
        np.save(path, np.ascontiguousarray(X))
    else:
        pytest.importorskip("pyarrow")
        path = store_frame(X, kind, tmp_path)
    table = open_table(path)
    fitted = clone(NETWORK).fit(table, y)
    rows = table.in_memory()
    before = fitted.predict_proba(rows)
    if change == "cut":
        path.write_bytes(path.read_bytes()[:300])
    elif change == "written":
        path.write_bytes(path.read_bytes() + b"more")
    else:
        path.unlink()
    with pytest.raises(ValueError, match=r"changed while|can no longer be read|cut off"):
        fitted.fit(table, y)
    np.testing.assert_array_equal(fitted.predict_proba(rows), before)


def test_rows_and_columns_that_do_not_exist_are_refused(on_disk):
    table = disk_table.on_disk(on_disk(binary()[0]))
    for key, error in (
        ([N_ROWS], IndexError),
        (np.ones(3, bool), IndexError),
        ([0.5], TypeError),
        ((0, 1, 2), TypeError),
        ((slice(None), 0), TypeError),
    ):
        with pytest.raises(error):
            table[key]
    with pytest.raises(IndexError, match="Row -61 is not in this table of 60 rows"):
        table[[-61, 3]]
    assert table[5:9, :].shape == (4, 4)
    rows = table[[0] * 200][np.array([-1, 5], dtype=np.int8)]
    np.testing.assert_array_equal(np.asarray(rows), binary()[0][[0, 0]].astype("f4"))
    with pytest.raises(KeyError, match="not a column"):
        table["a"]
    np.testing.assert_array_equal(np.asarray(table[[-1, 0]]), binary()[0][[-1, 0]].astype("f4"))
    assert table[::7].shape == (9, 4)


# Memory maps ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "view",
    [
        lambda X: X[10:50],
        lambda X: X[:, 1:],
        lambda X: X[::2],
        lambda X: X[5:].T[:3].T,
        lambda X: X.astype(">f8").view(np.memmap),
    ],
    ids=["rows", "columns", "steps", "transposed", "swapped"],
)
@pytest.mark.parametrize("mode", ["r", "c", "r+"])
def test_any_view_of_a_memory_map_has_its_own_rows(view, mode, tmp_path):
    path = tmp_path / "X.npy"
    np.save(path, binary()[0])
    X = np.load(path, mmap_mode=mode)
    if mode != "r":
        X[20] = 7.0  # with "c" not in the file
    part = view(X)
    table = disk_table.on_disk(part)
    np.testing.assert_array_equal(np.asarray(table), np.asarray(part))
    rows = np.array([3, 17, 4])
    np.testing.assert_array_equal(np.asarray(table[rows]), np.asarray(part)[rows])


def test_a_memory_map_keeps_its_rows_when_its_file_is_replaced_or_removed(tmp_path):
    X = binary()[0]
    for name in ("other.npy", "X.npy"):
        np.save(tmp_path / name, X + (name == "other.npy"))
    stored = np.load(tmp_path / "X.npy", mmap_mode="r")
    os.replace(tmp_path / "other.npy", tmp_path / "X.npy")
    np.testing.assert_array_equal(np.asarray(disk_table.on_disk(stored)[[3, 1]]), X[[3, 1]])
    os.remove(tmp_path / "X.npy")
    np.testing.assert_array_equal(np.asarray(disk_table.on_disk(stored)[[3, 1]]), X[[3, 1]])


def test_the_profile_of_a_wide_table_reads_few_of_its_rows(on_disk, monkeypatch):
    monkeypatch.setattr(disk_table, "SAMPLE_ROWS", N_ROWS)
    monkeypatch.setattr(disk_table, "_GLANCED_BYTES", 16 * 10)
    table = disk_table.on_disk(on_disk(binary()[0]))
    assert ColumnProfile.of(table, sample_weight=np.ones(N_ROWS)).n_rows == 10


@pytest.mark.parametrize("row_bytes", [0, 120, 1_024, 40_000, 10**9])
def test_runs_of_rows_are_spread_over_all_rows(row_bytes, monkeypatch):
    monkeypatch.undo()  # the sizes of users
    n_rows = 3 * 10**6 + 7
    rows = disk_table.runs_of_rows(n_rows, row_bytes)
    assert len(rows) == max(min(2**17, 2**27 // max(row_bytes, 1)), 1)
    assert np.all(np.diff(rows) > 0)
    assert rows[0] >= 0
    assert rows[-1] < n_rows
    if len(rows) > 1_000:
        share, _ = np.histogram(rows, 20, range=(0, n_rows))
        assert share.min() > 0.9 * len(rows) / 20


@pytest.mark.parametrize("n_rows", [1_500, 1_999, 2_000, 4_000])
def test_runs_of_wide_rows_end_with_the_last_rows(n_rows, monkeypatch):
    monkeypatch.undo()
    rows = disk_table.runs_of_rows(n_rows, 2**27 // 1_000)  # runs of one row
    assert len(rows) == 1_000
    assert rows[-1] >= n_rows - n_rows // 1_000 - 1
    if n_rows % 1_000 == 0:
        np.testing.assert_array_equal(rows, np.arange(1_000) * (n_rows // 1_000))


@pytest.mark.parametrize("n_rows", [0, 1, 1_000])
def test_few_rows_are_not_sampled(n_rows, monkeypatch):
    monkeypatch.undo()
    assert disk_table.runs_of_rows(n_rows, 40) is None


# What needs all rows -------------------------------------------------------------------------

NEEDS_ALL_ROWS = {
    "sampler": (KerasClassifier(SMALL, sampler=SMOTE(random_state=0), **FIT), "sampler=SMOTE"),
    "sampler of a stack": (
        StackedKerasClassifier(
            NETWORK, downstream=NETWORK, sampler=SMOTE(random_state=0), blend=False, cv=2
        ),
        "sampler=SMOTE",
    ),
    "branch": (
        StackedKerasClassifier(
            [("trees", HistGradientBoostingClassifier(max_iter=2))], downstream=NETWORK, cv=2
        ),
        "The branch 'trees'",
    ),
    "downstream": (
        StackedKerasClassifier(
            NETWORK, downstream=HistGradientBoostingClassifier(max_iter=2), cv=2
        ),
        "downstream=HistGradientBoosting",
    ),
}


@pytest.mark.parametrize("name", NEEDS_ALL_ROWS)
def test_parts_that_need_all_rows_say_so_before_training(name, on_disk, monkeypatch):
    estimator, says = NEEDS_ALL_ROWS[name]
    estimator = clone(estimator).set_params(random_state=0)
    X, y = binary()
    X = X.astype(np.float32)
    inside = clone(estimator).fit(X, y)
    with pytest.warns(UserWarning, match=rf"{says}.*needs all rows in memory, about 960 bytes"):
        outside = clone(estimator).fit(on_disk(X), y)
    np.testing.assert_array_equal(outside.predict_proba(X), inside.predict_proba(X))

    def train(*args, **settings):
        raise AssertionError("trained")

    monkeypatch.setattr("skstack._training.train.train", train)
    monkeypatch.setattr(os, "sysconf", lambda name: 1)
    with pytest.raises(ValueError, match=f"{says}.*less memory"):
        clone(estimator).fit(on_disk(X), y)


# Results in files ----------------------------------------------------------------------------


def test_out_writes_predictions_and_features_into_a_file(on_disk, tmp_path):
    X, y = binary()
    stored = on_disk(X)
    words = np.array(["no", "indeed"], dtype=object)[y]
    network = clone(NETWORK).fit(X, words)
    for method, result in (
        (network.predict_proba, network.predict_proba(X)),
        (network.predict, network.predict(X)),
    ):
        for rows in (stored, X):
            written = method(rows, out=tmp_path / "out.npy")
            assert isinstance(written, np.memmap)
            np.testing.assert_array_equal(written, result)
        np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), result)
    filled = np.zeros((N_ROWS, 2), np.float32)
    assert network.predict_proba(stored, out=filled) is filled
    np.testing.assert_array_equal(filled, network.predict_proba(X))


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (3, TypeError, "out=3 must be the path"),
        ("file.csv", ValueError, "must end in .npy"),
        (np.zeros((3, 2), np.float32), ValueError, r"out has shape \(3, 2\)"),
        (np.zeros((N_ROWS, 2), np.int8), ValueError, "dtype int8; expected"),
        (np.broadcast_to(np.float32(0), (N_ROWS, 2)), ValueError, "read-only"),
        ("missing/out.npy", FileNotFoundError, "out='missing/out.npy' cannot be written: No such"),
    ],
    ids=["number", "another kind", "shape", "dtype", "read-only", "no folder"],
)
def test_an_invalid_out_is_refused(out, error, message):
    X, y = binary()
    network = clone(NETWORK).fit(X, y)
    with pytest.raises(error, match=message):
        network.predict_proba(X, out=out)


@pytest.mark.parametrize("columns", [None, range(4)], ids=["all columns", "named columns"])
def test_the_file_that_is_read_is_no_out(columns, tmp_path):
    X, y = binary()
    path = tmp_path / "X.npy"
    np.save(path, X)
    network = clone(NETWORK).fit(X, y)
    table = np.load(path, mmap_mode="r") if columns is None else open_table(path, columns=columns)
    for rows in (table, table[:5]):
        with pytest.raises(ValueError, match=r"X.npy' is the file that X is read from"):
            network.predict_proba(rows, out=str(path))
    np.testing.assert_array_equal(np.load(path), X)


def test_a_prediction_that_fails_leaves_no_file(on_disk, tmp_path):
    X, y = binary()
    network = clone(NETWORK).fit(X, y)
    X[40] = np.nan
    before = set(tmp_path.iterdir())
    stored = on_disk(X)
    with pytest.raises(ValueError, match="NaN"):
        network.predict_proba(stored, out=tmp_path / "out.npy")
    assert {path.name for path in set(tmp_path.iterdir()) - before} == {"X.npy"}


# Runs that are resumed -----------------------------------------------------------------------


def test_a_run_that_was_stopped_repeats_no_finished_branch(on_disk, tmp_path, monkeypatch):
    from skstack._training import train as module

    X, y = binary()
    stored = on_disk(X)
    branch = KerasFeatureTransformer(NETWORK, memory=str(tmp_path / "memory"), cv=3)
    stack = StackedKerasClassifier(
        [("one", branch), ("two", branch, [0, 2])], downstream=NETWORK, blend=False, random_state=0
    )
    expected = clone(stack).set_params(one__memory=None, two__memory=None).fit(X, y)
    fits, train = [], module.train

    def stops(*args, **settings):
        fits.append(1)
        if len(fits) == 6:  # four of the first branch, and one of the second
            raise KeyboardInterrupt
        return train(*args, **settings)

    monkeypatch.setattr(module, "train", stops)
    with pytest.raises(KeyboardInterrupt):
        clone(stack).fit(stored, y)
    again = clone(stack).fit(stored, y)
    assert len(fits) == 6 + 4 + 1
    np.testing.assert_array_equal(again.predict_proba(X), expected.predict_proba(X))
    os.utime(stored.filename, ns=(1, 1))
    clone(stack).fit(np.load(stored.filename, mmap_mode="r"), y)
    assert len(fits) == 6 + 4 + 1 + 9


def test_partial_fit_trains_on_a_stream_of_rows():
    X, y = binary()
    network = clone(NETWORK)
    for start in range(0, N_ROWS, 20):
        rows = slice(start, start + 20)
        network.partial_fit(X[rows], y[rows], classes=[0, 1])
    assert network.score(X, y) > 0.4


def test_joblib_pickles_a_table_without_its_rows(on_disk):
    table = disk_table.on_disk(on_disk(binary()[0]))
    assert len(joblib.hash(table)) == len(joblib.hash(table[10:]))
    assert joblib.hash(table) != joblib.hash(table[10:])
