"""Rows and targets in every container that people have, and refusals by name of what cannot be."""

import numpy as np
import pandas as pd
import polars
import pytest
import scipy.sparse
from _models import FIT, SMALL, binary
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from skstack import (
    FineTune,
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
    StackedKerasRegressor,
)
from skstack.networks import MLP, Autoencoder

data = load_breast_cancer()
X = np.round(data.data[:120, :4]).clip(0, 120).astype(np.float32)
y = data.target[:120]
FAST = {"epochs": 2, "batch_size": 64, "random_state": 0}

ESTIMATORS = {
    "KerasClassifier": KerasClassifier(MLP((4,)), **FAST),
    "KerasRegressor": KerasRegressor(MLP((4,)), **FAST),
    "KerasAutoencoder": KerasAutoencoder(Autoencoder((4,)), **FAST),
    "KerasFeatureTransformer": KerasFeatureTransformer(
        KerasClassifier(MLP((4,)), **FAST), cv=2, passthrough=True, random_state=0
    ),
    "StackedKerasClassifier": StackedKerasClassifier(
        KerasClassifier(MLP((4,)), **FAST),
        downstream=KerasClassifier(MLP((4,)), **FAST),
        blend=False,
        cv=2,
        random_state=0,
    ),
    "StackedKerasRegressor": StackedKerasRegressor(
        KerasRegressor(MLP((4,)), **FAST),
        downstream=KerasRegressor(MLP((4,)), **FAST),
        blend=False,
        cv=2,
        random_state=0,
    ),
}
each = pytest.mark.parametrize("name", ESTIMATORS)


def outcome(fitted, rows):
    for method in ("predict_proba", "predict", "transform"):
        if hasattr(fitted, method):
            return np.asarray(getattr(fitted, method)(rows), dtype=np.float64)
    raise AssertionError("nothing to ask")


@pytest.fixture(scope="module")
def expected():
    return {name: outcome(clone(e).fit(X, y), X) for name, e in ESTIMATORS.items()}


def memmap(values, folder):
    written = np.memmap(folder / "rows", dtype=values.dtype, mode="w+", shape=values.shape)
    written[:] = values
    written.flush()
    return np.memmap(folder / "rows", dtype=values.dtype, mode="r", shape=values.shape)


def read_only(values):
    values = values.copy()
    values.setflags(write=False)
    return values


def strided(values):
    wide = np.zeros((values.shape[0] * 2, values.shape[1] * 3), dtype=values.dtype)
    wide[::2, ::3] = values
    return wide[::2, ::3]


CONTAINERS = {
    "list": lambda X: X.tolist(),
    "tuple": lambda X: tuple(map(tuple, X.tolist())),
    "Fortran": np.asfortranarray,
    "read-only": read_only,
    "strided": strided,
    "reversed twice": lambda X: X[::-1].copy()[::-1],
    "object": lambda X: X.astype(object),
    "csr_array": scipy.sparse.csr_array,
    "csc_matrix": scipy.sparse.csc_matrix,
    "coo_array": scipy.sparse.coo_array,
    "pandas": lambda X: pd.DataFrame(X, columns=list("abcd")),
    "pandas Int64": lambda X: pd.DataFrame(X.astype(int), columns=list("abcd")).astype("Int64"),
    "pandas Float32": lambda X: pd.DataFrame(X, columns=list("abcd")).astype("Float32"),
    "pandas, any index": lambda X: pd.DataFrame(
        X, columns=list("abcd"), index=pd.MultiIndex.from_product([list("xyz"), range(40)])
    ),
    "pandas, index twice": lambda X: pd.DataFrame(X, columns=list("abcd"), index=[7] * len(X)),
    "pandas, mixed numbers": lambda X: pd.DataFrame(X, columns=list("abcd")).astype(
        {"a": "int16", "b": "float64", "c": "Int32"}
    ),
    "polars": lambda X: polars.DataFrame(X, schema=list("abcd")),
    **{dtype: lambda X, dtype=dtype: X.astype(dtype) for dtype in (
        "float16", "float64", "int8", "int16", "int32", "int64", "uint8", "uint64"
    )},
}  # fmt: skip


def _case(container, name):
    """Both stacks read their rows in one way: one of them shows what each container becomes."""
    again = name == "StackedKerasRegressor" and container not in ("list", "csr_array", "polars")
    return pytest.param(container, name, marks=pytest.mark.slow if again else ())


@pytest.mark.parametrize(
    ("container", "name"),
    [_case(container, name) for container in [*CONTAINERS, "memmap"] for name in ESTIMATORS],
)
def test_containers_give_the_same_predictions_and_are_unchanged(
    name, container, expected, tmp_path
):
    if container == "memmap":
        rows = memmap(X, tmp_path)
    else:
        rows = CONTAINERS[container](X)
    before = rows.copy() if hasattr(rows, "copy") else rows
    if hasattr(rows, "clone"):
        before = rows.clone()
    fitted = clone(ESTIMATORS[name]).fit(rows, y)
    np.testing.assert_allclose(outcome(fitted, rows), expected[name], rtol=2e-5, atol=2e-5)
    if scipy.sparse.issparse(rows):
        assert (rows != before).nnz == 0
    elif hasattr(rows, "equals"):
        assert rows.equals(before)
    else:
        np.testing.assert_array_equal(rows, before)


TARGETS = {
    "list": lambda y: y.tolist(),
    "Series, any index": lambda y: pd.Series(y, index=np.arange(120)[::-1] + 5),
    "Series, Int64": lambda y: pd.Series(y, dtype="Int64"),
    "polars": polars.Series,
    "read-only": read_only,
    "strided": lambda y: np.repeat(y, 2)[::2],
    "int8": lambda y: y.astype(np.int8),
    "float": lambda y: y.astype(float),
}


@pytest.mark.parametrize("target", [*TARGETS])
@each
def test_containers_of_targets(name, target, expected):
    fitted = clone(ESTIMATORS[name]).fit(X, TARGETS[target](y))
    np.testing.assert_allclose(outcome(fitted, X), expected[name], rtol=2e-5, atol=2e-5)


LABELS = {
    "bool": y == 1,
    "boolean": pd.Series(y == 1, dtype="boolean"),
    "object strings": np.where(y == 1, "yes", "no").astype(object),
    "str": pd.Series(np.where(y == 1, "yes", "no")),
    "category": pd.Series(np.where(y == 1, "yes", "no")).astype(
        pd.CategoricalDtype(["yes", "never", "no"])
    ),
    "polars strings": polars.Series(np.where(y == 1, "yes", "no")),
}


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("name", ["KerasClassifier", "StackedKerasClassifier"])
def test_labels_of_every_type(name, labels, expected):
    fitted = clone(ESTIMATORS[name]).fit(X, LABELS[labels])
    assert len(fitted.classes_) == 2
    np.testing.assert_allclose(outcome(fitted, X), expected[name], rtol=2e-5, atol=2e-5)
    assert set(fitted.predict(X).tolist()) <= set(fitted.classes_.tolist())


# Mixed columns -------------------------------------------------------------------------------

MIXED = pd.DataFrame(
    {
        "age": X[:, 0],
        "job": pd.Series(np.array(["cook", "vet", "smith"])[np.arange(120) % 3]),
        "grade": pd.Categorical(
            np.array(["b", "a"])[np.arange(120) % 2], categories=["c", "b", "a", "unused"]
        ),
        "member": np.arange(120) % 5 == 0,
    }
)


def mixed_polars():
    return polars.DataFrame(
        {
            "age": MIXED["age"].to_numpy(),
            "job": polars.Series(MIXED["job"].tolist(), dtype=polars.String),
            "grade": polars.Series(
                MIXED["grade"].astype(str).tolist(), dtype=polars.Enum(["c", "b", "a", "unused"])
            ),
            "member": MIXED["member"].to_numpy(),
        }
    )


@pytest.mark.slow(first=3)
@each
def test_mixed_columns_of_pandas_and_polars(name):
    if name == "KerasAutoencoder":
        pytest.skip("rebuilt categories are tested in test_autoencoder.py")
    found = []
    for frame in (
        MIXED,
        MIXED.astype({"age": "Float64", "member": "boolean", "job": "category"}),
        MIXED.astype({"job": object}),
        mixed_polars(),
    ):
        fitted = clone(ESTIMATORS[name]).fit(frame, y)
        if name == "KerasFeatureTransformer":
            made = fitted.transform(frame)
            assert made.shape == (120, 5)
            found.append(np.asarray(made.iloc[:, 0], dtype=float))
        else:
            found.append(outcome(fitted, frame))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["KerasClassifier", "StackedKerasRegressor"])
def test_categories_at_prediction_are_matched_by_value(name):
    fitted = clone(ESTIMATORS[name]).fit(MIXED, y)
    expected = outcome(fitted, MIXED)
    reordered = MIXED.assign(
        grade=MIXED["grade"].cat.set_categories(["a", "b"]), job=MIXED["job"].astype("category")
    )
    np.testing.assert_array_equal(outcome(fitted, reordered), expected)
    strange = MIXED.assign(job="astronaut", grade=None)
    assert np.isfinite(outcome(fitted, strange)).all()


# Index and names -----------------------------------------------------------------------------


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize(
    "name", ["KerasAutoencoder", "KerasFeatureTransformer", "StackedKerasClassifier"]
)
def test_the_index_is_kept(name, early_stopping):
    frame = MIXED.set_axis([f"row {number}" for number in range(120)], axis=0)
    if name == "KerasAutoencoder":
        frame = frame[["age"]].assign(more=X[:, 1])
    estimator = clone(ESTIMATORS[name]).set_output(transform="pandas")
    if name.startswith("Stacked"):
        estimator.set_params(downstream__early_stopping=early_stopping)
    crossed, table = estimator.fit_transform(frame, y), estimator.transform(frame)
    assert crossed.index.equals(frame.index)
    assert table.index.equals(frame.index)
    assert crossed.columns.equals(table.columns)
    if "age" in crossed:
        assert np.corrcoef(crossed["age"], frame["age"])[0, 1] > 0.999


@pytest.fixture(scope="module")
def by_names():
    """Name -> estimator that was fitted on named columns."""
    frame = pd.DataFrame(X, columns=list("abcd"))
    return {name: clone(estimator).fit(frame, y) for name, estimator in ESTIMATORS.items()}


@each
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame[["b", "a", "c", "d"]], "order"),
        (lambda frame: frame.drop(columns="c"), "c"),
        (lambda frame: frame.assign(e=1.0), "e"),
        (lambda frame: frame.rename(columns={"a": "alpha"}), "alpha"),
    ],
    ids=["another order", "missing", "extra", "renamed"],
)
def test_other_columns_are_refused_by_name(name, change, message, by_names):
    frame = pd.DataFrame(X, columns=list("abcd"))
    with pytest.raises(ValueError, match=rf"(?s)feature names.*{message}"):
        outcome(by_names[name], change(frame))


def frame_with(**columns):
    return pd.DataFrame(X, columns=list("abcd")).assign(**columns)


REFUSED = {
    "twice": (pd.DataFrame(X, columns=list("abca")), r"duplicate column names.*'a'"),
    "NaN": (frame_with(c=np.r_[np.nan, X[1:, 2]]), r"NaN.*columns \['c'\]"),
    "NA": (frame_with(b=pd.array([None, *X[1:, 1]], dtype="Float64")), r"NaN.*columns \['b'\]"),
    "null": (polars.DataFrame({"a": [None, *X[1:, 0].tolist()]}), r"NaN.*columns \['a'\]"),
    "infinity": (frame_with(d=np.r_[np.inf, X[1:, 3]]), r"infinity.*columns \['d'\]"),
    "dates": (frame_with(a=pd.date_range("2020", periods=120)), r"Column 'a' has dtype datetime"),
    "complex": (X.astype(complex), "[Cc]omplex"),
    "one dimension": (X[:, 0], "1D|one-dimensional|2D"),
    "no rows": (X[:0], "0 sample"),
    "no columns": (X[:, :0], "0 feature"),
    "words": (np.array([["a", "b"]] * 120), "(?s)string|convert|numeric|'a'"),
    "NaN in an array": (np.where(X[0, 0] == X, np.nan, X), "X contains NaN"),
}


@each
@pytest.mark.parametrize("what", REFUSED)
def test_invalid_rows_are_refused(name, what):
    rows, message = REFUSED[what]
    with pytest.raises((ValueError, TypeError), match=message):
        clone(ESTIMATORS[name]).fit(rows, y[: len(rows)])


def test_columns_with_integer_names():
    frame = pd.DataFrame(X)
    fitted = clone(ESTIMATORS["StackedKerasClassifier"]).fit(frame, y)
    assert not hasattr(fitted, "feature_names_in_")
    assert fitted.predict(frame).shape == (120,)
    by_place = StackedKerasClassifier(
        [("a", LogisticRegression(max_iter=1000), [0, 2])], downstream=LogisticRegression(), cv=2
    ).fit(X, y)
    assert by_place.score(X, y) > 0.7


@pytest.mark.parametrize("fine_tune", [None, FineTune(epochs=1)], ids=["", "fine-tuned"])
def test_X_val_is_read_like_X(fine_tune):
    """A list has no shape, and its columns no names: a stack reads X_val once, as it reads X."""
    X, y = binary()
    network = KerasClassifier(SMALL, **FIT)
    stack = StackedKerasClassifier(
        [("risk", network)],
        downstream=clone(network).set_params(early_stopping=True),
        cv=2,
        random_state=0,
        fine_tune=fine_tune,
    )
    train, rest = slice(0, 40), slice(40, None)
    expected = clone(stack).fit(X[train], y[train], X_val=X[rest], y_val=y[rest])
    given = {"X_val": X[rest].tolist(), "y_val": y[rest].tolist()}
    same = clone(stack).fit(X[train], y[train], **given)
    np.testing.assert_array_equal(same.predict_proba(X), expected.predict_proba(X))
