"""The kind of an object column follows from its values, in every part."""

import re
import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import onnxruntime
import pandas as pd
import polars as pl
import pytest
import sklearn
from _models import FIT, SMALL, binary
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skstack import (
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
    StackedKerasRegressor,
)
from skstack._base.atomic_fit import fit_scope
from skstack.inspection import ColumnProfile, check_overlap
from skstack.networks import MLP
from skstack.preprocessing._blocks import ColumnBlocks
from skstack.preprocessing._columns import resolve_object_columns
from skstack.preprocessing._passthrough import Passthrough

N = 300
RNG = np.random.default_rng(0)
NUMBERS = pd.DataFrame(RNG.normal(size=(N, 3)) * [1, 10, 1e4], columns=["a", "b", "c"])
TARGET = NUMBERS["a"] + NUMBERS["b"] / 10 - NUMBERS["c"] / 1e4
NEW = pd.DataFrame(RNG.normal(size=(N, 3)) * [1, 10, 1e4], columns=["a", "b", "c"])
NEW_TARGET = NEW["a"] + NEW["b"] / 10 - NEW["c"] / 1e4
LABELS = np.where(TARGET > 0, "yes", "no")

# Values of one column, and its kind.
CONTENTS = {
    "ints": ([1, 2, 3], "numeric"),
    "floats": ([1.5, 2.0, 3.0], "numeric"),
    "ints and floats": ([1, 2.5, 3], "numeric"),
    "None": ([1, None, 2.5], "numeric"),
    "NaN": ([1, np.nan, 2], "numeric"),
    "NA": ([pd.NA, 1, 2], "numeric"),
    "NaT": ([pd.NaT, 1, 2.5], "numeric"),
    "decimals": ([Decimal("1.5"), None, Decimal(2)], "numeric"),
    "decimals and floats": ([Decimal("1.5"), 1.0, None], "numeric"),
    "fractions": ([Fraction(1, 2), 1, 3], "numeric"),
    "NumPy's": ([np.float32(1), np.int8(2), np.uint64(2**63)], "numeric"),
    "large": ([2**70, 1, None], "numeric"),
    "gaps first": ([None] * 150 + [1.5], "numeric"),
    "bools": ([True, False, None], "categorical"),
    "bools and numbers": ([True, 2, 3], "categorical"),
    "words": (["a", "b", None], "categorical"),
    "digits": (["1", "2", "3"], "categorical"),
    "numbers and words": ([1, 2.5, "n/a"], "categorical"),
    "words last": ([None] * 150 + ["a"], "categorical"),
    "nothing": ([None, None, np.nan], "categorical"),
}


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("frame", ["pandas", "polars"])
def test_the_kind_of_object_columns_follows_their_values(name, frame):
    values, kind = CONTENTS[name]
    if frame == "polars":
        if {"NaN", "NA", "NaT"} & {name}:
            values = [None if pd.isna(value) else value for value in values]
        X = pl.DataFrame({"x": pl.Series(values, dtype=pl.Object), "y": np.ones(len(values))})
    else:
        X = pd.DataFrame({"x": pd.Series(values, dtype=object), "y": 1.0})
    blocks = ColumnBlocks(allow_nan=True).fit(X)
    assert [block.kind for block in blocks.blocks_][-1] == kind
    profiled = ColumnProfile.of(X).names
    assert profiled == (("x", "y") if kind == "numeric" else ("y",))
    if kind == "numeric":
        read = blocks.split(X)["numeric"][:, 0]
        expected = [np.nan if pd.isna(value) else float(value) for value in values]
        np.testing.assert_array_equal(read, np.asarray(expected, dtype=np.float32))
        again = ColumnBlocks(allow_nan=True).fit(pd.DataFrame({"x": expected, "y": 1.0}))
        np.testing.assert_array_equal(again.split(X)["numeric"][:, 0], read)
    else:
        assert blocks.split(X)["x"].max() <= len(values) + 1


def test_categorical_features_take_precedence_over_values():
    X = pd.DataFrame({"x": pd.Series([3, 1, 3], dtype=object), "k": pd.Categorical([7, 8, 7])})
    assert ColumnBlocks(["x"]).fit(X[["x"]]).categories_ == {"x": [1, 3]}
    assert ColumnBlocks().fit(X).categories_ == {"k": [7, 8]}
    assert ColumnBlocks(inputs={"own": ["x"]}).fit(X).blocks_[0].kind == "numeric"
    assert ColumnBlocks(n_hash_buckets=1).fit(X).blocks_[0].kind == "numeric"


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            pd.Series([1, "n/a", 2.5], dtype=object),
            r"'a' is read as numbers.* 'n/a' in row 1",
        ),
        (pd.Series(["x", "y", "1"]), r"'a' is read as numbers.* 'x' in row 0 \(2 rows hold no"),
        (pd.Series([1, pd.NA, 2], dtype=object), r"contains NaN. Found in columns \['a'\]"),
        (pd.Series([1, 10**400, 2], dtype=object), r"infinity.*\['a'\]"),
        (pl.Series(["1", "2", "z"]), r"'a' is read as numbers, but holds 'z' in row 2"),
    ],
)
def test_strings_in_a_numeric_column_are_refused_by_name(column, message):
    blocks = ColumnBlocks().fit(NUMBERS[["a"]])
    frame = pl.DataFrame if isinstance(column, pl.Series) else pd.DataFrame
    with pytest.raises(ValueError, match=message):
        blocks.split(frame({"a": column}))


# Estimators ---------------------------------------------------------------------------------------


def regressor(**settings):
    recipe = MLP(hidden_layer_sizes=(16,))
    return KerasRegressor(recipe, **{"epochs": 20, "random_state": 0, **settings})


def test_networks_learn_the_same_from_numbers_in_object_columns():
    reference = regressor().fit(NUMBERS, TARGET)
    found = regressor().fit(NUMBERS.astype(object), TARGET)
    expected = reference.predict(NEW)
    assert reference.score(NEW, NEW_TARGET) > 0.9
    for rows in (NEW, NEW.astype(object), NEW.convert_dtypes(), pl.from_pandas(NEW)):
        np.testing.assert_array_equal(found.predict(rows), expected)
    assert found.input_profile_.names == ("a", "b", "c")
    filled = SimpleImputer(strategy="most_frequent").set_output(transform="pandas")
    imputed = make_pipeline(filled, regressor()).fit(NUMBERS.astype(object), TARGET)
    np.testing.assert_array_equal(imputed.predict(NEW.astype(object)), expected)
    model = found.to_keras()
    given = found.keras_inputs(NEW.astype(object))
    np.testing.assert_allclose(model(given)[:, 0], expected, rtol=1e-5, atol=1e-5)


def mixed(X):
    """One column of words, and one of numbers in objects, some missing."""
    gaps = X["b"].astype(object).where(np.arange(len(X)) % 9 > 0, None)
    return X.assign(b=gaps, job=np.resize(["vet", "cook", "king"], len(X)))


@pytest.mark.slow
def test_stacks_and_files_read_numbers_in_object_columns(tmp_path):
    stack = StackedKerasRegressor(
        [
            ("net", regressor(imputer=SimpleImputer(), epochs=2), ["a", "b", "job"]),
            ("kept", KerasFeatureTransformer(regressor(epochs=2), passthrough=True), ["a", "c"]),
        ],
        downstream=regressor(imputer=SimpleImputer(), epochs=2),
        passthrough=["b", "c", "job"],
        blend=False,
        cv=2,
        random_state=0,
    )
    objects = mixed(NUMBERS).astype({"a": object, "c": object})
    floats = objects.astype({"a": float, "b": float, "c": float})
    found, expected = (clone_fitted(stack, X) for X in (objects, floats))
    new = mixed(NEW)
    np.testing.assert_array_equal(found.predict(new), expected.predict(new.astype({"b": float})))
    assert found.transform(new).dtypes.astype(str).tolist() == ["float32"] * 6 + ["category"]
    found.export(tmp_path / "it.onnx", format="onnx")
    session = onnxruntime.InferenceSession(tmp_path / "it.onnx")
    inputs = {name: np.asarray(v) for name, v in found.keras_inputs(new).items()}
    (values,) = session.run(None, inputs)
    np.testing.assert_allclose(values[:, 0], found.predict(new), rtol=1e-4, atol=1e-4)


def clone_fitted(stack, X):
    from sklearn.base import clone

    return clone(stack).fit(X, TARGET)


def test_overlap_compares_numbers_in_object_columns():
    one = NUMBERS.astype(object)
    assert len(check_overlap(one, NUMBERS).exact_a) == N
    assert not check_overlap(one, NEW)


# What all rows say, holds for each fold ----------------------------------------------------------


class Kinds(KerasRegressor):
    """Notes which columns were categories in each fit."""

    seen = []

    def _blocks_of(self, X, like=None, weights=None):
        blocks = super()._blocks_of(X, like, weights)
        self.seen.append(sorted(blocks.categories_))
        return blocks


def test_a_fold_does_not_change_the_kind_of_a_column():
    """Words in a few rows of one fold; the other folds hold numbers alone."""
    rare = pd.Series(RNG.integers(0, 5, N)).astype(object)
    rare.iloc[:3] = "many"
    gone = pd.Series(RNG.normal(size=N)).astype(object)
    gone.iloc[100:] = None  # some folds hold nothing
    X = NUMBERS.assign(rare=rare, gone=gone)[["a", "rare", "gone"]]
    folds = [(np.r_[100:N], np.r_[:100]), (np.r_[:100], np.r_[100:N])]
    network = Kinds(MLP(hidden_layer_sizes=(2,)), epochs=1, random_state=0, imputer=SimpleImputer())
    inner = StackedKerasRegressor(
        [("r", Ridge(), ["a"])], downstream=network, passthrough=["rare", "gone"], cv=2
    )
    same = FunctionTransformer(lambda X: X)
    for model in (network, inner, make_pipeline(same, network)):
        Kinds.seen.clear()
        KerasFeatureTransformer(model, cv=folds, random_state=0, n_jobs=2).fit_transform(X, TARGET)
        assert {tuple(kinds) for kinds in Kinds.seen} == {("rare",)}
    Kinds.seen.clear()
    network.set_params(early_stopping=True, validation_fraction=0.5).fit(X, TARGET)
    assert Kinds.seen == [["rare"]]


def test_kinds_of_columns_are_reset_in_each_fit():
    words = pd.DataFrame({"x": pd.Series([1, "a"], dtype=object)})
    numbers = pd.DataFrame({"x": pd.Series([1, 2], dtype=object)})
    with fit_scope():
        resolve_object_columns(words)
        assert ColumnBlocks().fit(numbers).blocks_[0].kind == "categorical"
        resolve_object_columns(numbers)  # an inner fit does not say otherwise
        assert ColumnBlocks().fit(numbers).blocks_[0].kind == "categorical"
    assert ColumnBlocks().fit(numbers).blocks_[0].kind == "numeric"
    assert Passthrough().fit(numbers).blocks_.blocks_[0].kind == "numeric"


# Categories that nothing can be learned from -----------------------------------------------------

TEXT = [f"row {place}" for place in range(N)]
ROUNDED = NUMBERS["a"].round(2)
WARNED = {
    "text": (TEXT, "'x' has 300 categories in 300 rows"),
    "identifiers": (pd.Categorical(range(N)), "'x' has 300 categories in 300 rows"),
    "doubled text": ([*TEXT[:150], *TEXT[:150]], "'x' has 150 categories in 300 rows"),
    "with gaps": ([None, *TEXT[1:]], "'x' has 299 categories in 299 rows"),
    "days": (pd.Series(pd.date_range("2020", periods=N)).astype(object), "'x' has 300 categories"),
    "one n/a": (["n/a", *map(str, ROUNDED[1:])], "and 'n/a' as strings.*to_numeric.*coerce"),
    "some n/a": (np.where(np.arange(N) % 25, ROUNDED.astype(str), "?"), "and '[?]' as strings"),
    "objects and n/a": (["unknown", *ROUNDED[1:]], "and 'unknown' as objects"),
    "ages and n/a": (["n/a", *RNG.integers(18, 70, N - 1)], "and 'n/a' as objects"),
    "whole numbers and n/a": (["-", *map(str, RNG.integers(0, 90, N - 1))], "and '-' as strings"),
    "digits": (ROUNDED.astype(str), "different numbers as strings.*to_numeric"),
}


@pytest.mark.parametrize("name", WARNED)
def test_categories_that_do_not_recur_warn(name):
    values, message = WARNED[name]
    X = pd.DataFrame({"x": values})
    with fit_scope(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for rows in (X, X.rename(columns={"x": "y"}), X):
            ColumnBlocks().fit(rows)
    assert len(caught) == 2  # of each name one
    assert re.search(message, str(caught[0].message))
    if name not in ("identifiers", "days"):
        objects = pl.DataFrame({"x": pl.Series(list(values), dtype=pl.Object)})
        with fit_scope(), pytest.warns(UserWarning, match=message):
            ColumnBlocks().fit(objects)


SILENT = {
    "few rows": pd.DataFrame({"x": TEXT[:40]}),
    "many categories": pd.DataFrame({"x": [f"zip {i % 140}" for i in range(N)]}),
    "codes of digits": pd.DataFrame({"x": [str(10_000 + i % 100) for i in range(N)]}),
    "codes": pd.DataFrame({"x": pd.Categorical(["n/a", *(i % 100 for i in range(N - 1))])}),
    "numbers": pd.DataFrame({"x": pd.Series(range(N), dtype=object)}),
    "few numbers and a word": pd.DataFrame({"x": ["other", *(i % 9 for i in range(N - 1))]}),
    "ages": pd.DataFrame({"x": [str(18 + i % 50) for i in range(N)]}),
}


@pytest.mark.parametrize("name", SILENT)
def test_ordinary_categories_do_not_warn(name):
    with fit_scope(), warnings.catch_warnings():
        warnings.simplefilter("error")
        ColumnBlocks().fit(SILENT[name])


def test_explicit_categories_and_hashes_do_not_warn():
    ages = pd.DataFrame({"x": ["n/a", *(i % 100 for i in range(N - 1))]})
    with fit_scope(), warnings.catch_warnings():
        warnings.simplefilter("error")
        ColumnBlocks(["x"]).fit(ages)
        ColumnBlocks(n_hash_buckets=8).fit(pd.DataFrame({"x": TEXT}))
    spoilt = pd.DataFrame({"x": WARNED["one n/a"][0]})
    with fit_scope(), pytest.warns(UserWarning, match="to_numeric"):  # hashed numbers are none
        ColumnBlocks(n_hash_buckets=8).fit(spoilt)


def small(**settings):
    return KerasClassifier(MLP(hidden_layer_sizes=(2,)), epochs=1, random_state=0, **settings)


@pytest.mark.slow
def test_one_fit_warns_once():
    X = NUMBERS.assign(text=TEXT, spoilt=WARNED["one n/a"][0])
    folded = KerasFeatureTransformer(small(), passthrough=True, cv=2, n_jobs=2)
    inner = StackedKerasClassifier(
        [("i", LogisticRegression(), ["a"])], downstream=small(), blend=False, cv=2
    )
    outer = StackedKerasClassifier(
        [("net", small()), ("kept", folded), ("inner", inner)],
        downstream=small(), cv=2, n_jobs=2, random_state=0,
    )  # fmt: skip
    for estimator in (small(), folded, outer):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fitted = estimator.fit(X, LABELS)
        messages = [str(each.message) for each in caught]
        assert [("'text'" in text, "'spoilt'" in text) for text in messages] == [
            (True, False),
            (False, True),
        ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted.predict(X)
        fitted.downstream_.keras_inputs(fitted.transform(X))


@pytest.mark.parametrize(
    ("fitted", "asked"),
    [([True, False], ["True", "False"]), ([0, 1], ["0", "1"]), (["0", "1"], [0, 1])],
)
def test_categories_of_another_type_warn(fitted, asked):
    frame = pd.DataFrame({"a": pd.Series(fitted * 30).astype("category")})
    other = pd.DataFrame({"a": pd.Series(asked * 3).astype("category")})
    network = KerasClassifier(MLP((2,)), epochs=1, random_state=0).fit(frame, [0, 1] * 30)
    with pytest.warns(UserWarning, match=r"Column 'a' holds values of type .* treated as unseen"):
        network.predict(other)
    network.predict(pd.DataFrame({"a": pd.Series(["new"] * 3).astype("category")}))


def test_dates_of_another_type_warn():
    days = pd.to_datetime(["2020-01-01", "2020-01-02"] * 30).to_series(name="a")
    frame = days.reset_index(drop=True).to_frame()
    network = KerasClassifier(MLP((2,)), epochs=1, categorical_features=["a"], random_state=0)
    network.fit(frame, [0, 1] * 30)
    with pytest.warns(UserWarning, match="type date, but was fitted on values of type Timestamp"):
        network.predict(pd.DataFrame({"a": frame["a"].dt.date}))
    network.predict(frame + pd.Timedelta(days=9))  # of the same type
    words = KerasClassifier(MLP((2,)), epochs=1, random_state=0)
    words.fit(pd.DataFrame({"a": ["x", "y"] * 30}), [0, 1] * 30)
    words.predict(pd.DataFrame({"a": np.array([np.str_("new")] * 3, dtype=object)}))


@pytest.mark.parametrize("empty", [pl.Null, pl.String], ids=str)
def test_a_column_without_any_value_is_categorical(empty):
    frame = pl.DataFrame({"a": np.arange(40.0), "b": pl.Series([None] * 40, dtype=empty)})
    network = KerasClassifier(MLP((2,)), epochs=1, random_state=0).fit(frame, [0, 1] * 20)
    assert list(network.blocks_.categories_) == ["b"]
    network.predict(frame)


@pytest.mark.parametrize("stacks", [False, True], ids=["transformer", "stack"])
def test_categories_pass_through_in_any_container(stacks):
    """polars has categories of strings alone: others must not become numbers."""
    X = NUMBERS[:60].assign(
        zip=pd.Categorical(np.arange(60) % 5 * 10),
        member=np.arange(60) % 3 == 0,
        job=pd.Categorical(list("uvw") * 20),
    )
    network = KerasClassifier(MLP(4), epochs=2, random_state=0)
    part = KerasFeatureTransformer(ColumnTransformer([("pca", PCA(2), ["a", "b"])]))
    step = part.set_params(passthrough=True)
    if stacks:
        branches = [("pca", PCA(2), ["a", "b"])]
        step = StackedKerasClassifier(
            branches, downstream=network, passthrough=True, cv=2, random_state=0
        )
    kinds, predictions = [], []
    for container in ("default", "pandas", "polars"):
        with sklearn.config_context(transform_output=container):
            fitted = make_pipeline(clone(step), network).fit(X, LABELS[:60])
            predictions.append(fitted.predict_proba(X))
            table = fitted[0].transform(X)
        kinds.append([block.kind for block in fitted[-1].blocks_.blocks_])
    assert kinds[0] == kinds[1] == kinds[2] == ["numeric", *["categorical"] * 3]
    np.testing.assert_allclose(predictions[1], predictions[0], atol=1e-6)
    np.testing.assert_allclose(predictions[2], predictions[0], atol=1e-6)
    (member,) = (name for name in table.columns if name.endswith("member"))
    assert table[member].to_list() == [str(int(each)) for each in X["member"]]


@pytest.mark.parametrize("levels", [[0.1, 0.3, 0.7], [100_000_000, 100_000_001, 7]], ids=str)
def test_categories_of_an_array_keep_their_precision(levels):
    """In float32 the first ones are unseen, and of the second ones two are equal."""
    X, y = binary(frame=True)
    X = X[["a", "b"]].assign(rate=pd.Categorical(np.resize(levels, len(X))))
    array = X.astype(float).to_numpy()
    network = KerasClassifier(SMALL, **FIT)
    p = network.fit(X, y).predict_proba(X)
    assert np.array_equal(network.blocks_.split(array)["rate"], network.blocks_.split(X)["rate"])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        assert np.array_equal(network.predict_proba(array), p)
        assert np.array_equal(network.predict_proba(array.tolist()), p)
        scores = [
            clone(network).fit(X, y, X_val=rows, y_val=y).validation_scores_ for rows in (X, array)
        ]
        assert scores[0] == scores[1]
        features = KerasFeatureTransformer(FrozenEstimator(network)).fit(X, y)
        assert np.array_equal(features.transform(array), features.transform(X))


def test_errors_of_validation_rows_name_them():
    X, y = binary(frame=True)
    rows = X.copy()
    rows.loc[3, "b"] = np.nan
    for train, val in ((X, rows), (X.to_numpy(), rows.to_numpy())):
        with pytest.raises(ValueError, match=r"^X_val: Input X contains NaN"):
            KerasClassifier(SMALL, **FIT).fit(train, y, X_val=val, y_val=y)


def test_frames_without_rows_and_arrays_of_dates_are_refused():
    X, y = binary(frame=True)
    network = KerasClassifier(SMALL, **FIT)
    with pytest.raises(TypeError, match=r"LazyFrame.*X\.collect\(\)"):
        network.fit(pl.from_pandas(X).lazy(), y)
    with pytest.raises(ValueError, match="X has dtype datetime64"):
        network.fit(np.full((60, 2), "2020-01-01", dtype="datetime64[s]"), y)
    network.set_params(imputer=SimpleImputer(missing_values=pd.NA))
    with pytest.raises(ValueError, match="treats only NaN as missing"):
        network.fit(X, y)
    frame = X.set_axis(pd.MultiIndex.from_product([["u"], X.columns]), axis=1)
    frame.iloc[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"Found in columns \[\('u', 'b'\)\]"):
        KerasClassifier(SMALL, **FIT).fit(frame, y)
