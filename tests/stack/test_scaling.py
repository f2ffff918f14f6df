import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    RobustScaler,
    StandardScaler,
)

from skstack._base.atomic_fit import fit_scope
from skstack._stack.scaling import Scaling


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "a": rng.normal(5, 3, 40).astype(np.float32),
            "job": pd.Categorical(rng.choice(["x", "y", None], 40)),
            "b": rng.normal(-2, 0.1, 40).astype(np.float32),
        },
        index=np.arange(40)[::-1],
    )


def test_numbers_are_scaled_and_categories_keep_their_positions(table):
    scaled = Scaling("standard").fit(table).transform(table)
    assert list(scaled.columns) == ["a", "job", "b"]
    pd.testing.assert_index_equal(scaled.index, table.index)
    pd.testing.assert_series_equal(scaled["job"], table["job"])
    reference = StandardScaler().fit_transform(table[["a", "b"]])
    np.testing.assert_allclose(scaled[["a", "b"]], reference, rtol=1e-6)
    assert scaled["a"].dtype == scaled["b"].dtype == np.float32


@pytest.mark.parametrize("scaler", ["standard", RobustScaler(), make_pipeline(MinMaxScaler())])
def test_arrays_stay_arrays(scaler):
    X = np.random.default_rng(0).normal(3, 2, size=(30, 3))
    scaling = Scaling(scaler).fit(X[:20])
    scaled = scaling.transform(X)
    assert isinstance(scaled, np.ndarray)
    assert scaled.dtype == np.float32
    reference = StandardScaler() if scaler == "standard" else scaler
    np.testing.assert_allclose(scaled, reference.fit(X[:20]).transform(X), rtol=1e-4, atol=1e-5)


def test_none_does_not_scale(table):
    scaling = Scaling(None).fit(table)
    assert scaling.scaler_ is None
    pd.testing.assert_frame_equal(scaling.transform(table), table)
    scaled = scaling.transform(np.eye(2))
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled, np.eye(2))


def test_a_table_of_categories_has_nothing_to_scale(table):
    scaling = Scaling("standard").fit(table[["job"]])
    assert scaling.scaler_ is None
    categories = table[["job"]]
    scaled = scaling.transform(categories)
    pd.testing.assert_frame_equal(scaled, categories)
    assert scaled is not categories


def test_integer_categories_are_not_scaled():
    table = pd.DataFrame({"n": [0.0, 2.0], "c": pd.Categorical([1, 5])})
    scaled = Scaling().fit(table).transform(table)
    assert scaled["c"].tolist() == [1, 5]
    assert scaled["n"].tolist() == [-1.0, 1.0]


def test_weights_reach_a_scaler_that_supports_them(table):
    X = table[["a", "b"]].to_numpy()
    weights = np.arange(40.0)
    reference = StandardScaler().fit(X, sample_weight=weights)
    for scaler in ("standard", StandardScaler()):
        np.testing.assert_allclose(
            Scaling(scaler).fit(X, sample_weight=weights).scaler_.mean_, reference.mean_
        )


def test_rows_of_weight_zero_are_not_scaled_on(table):
    X = table[["a", "b"]].to_numpy()
    zero = np.r_[0.0, np.ones(39)]
    for scaler in (RobustScaler(), MinMaxScaler()):
        found = Scaling(scaler).fit(np.vstack([[1e9, 1e9], X[1:]]), sample_weight=zero)
        expected = clone(scaler).fit(X[1:].astype(np.float32)).transform(X)
        np.testing.assert_allclose(found.transform(X), expected, rtol=1e-5, atol=1e-6)


def test_a_scaler_without_weights_warns_in_fit(table):
    X = table[["a", "b"]].to_numpy()
    with (
        fit_scope(),
        pytest.warns(UserWarning, match=r"RobustScaler\(\) does not support sample_weight"),
    ):
        Scaling(RobustScaler()).fit(X, sample_weight=np.arange(40.0))
    with fit_scope():  # a range is that of repeated rows, too
        Scaling(MinMaxScaler()).fit(X, sample_weight=np.arange(40.0))


def test_moments_are_those_of_the_rows_of_fit(table):
    one = Scaling().fit(table.head(10)).transform(table.head(10))
    spoilt = table.assign(a=np.r_[table["a"][:10], np.full(30, 1e6)])
    scaling = Scaling().fit(spoilt.head(10))
    scaling.transform(spoilt)
    pd.testing.assert_frame_equal(scaling.transform(table.head(10)), one)


@pytest.mark.parametrize(
    "scaler",
    [PCA(1), OneHotEncoder(handle_unknown="ignore"), FunctionTransformer(lambda X: X[:5])],
)
def test_another_shape_is_refused(scaler):
    X = np.random.default_rng(0).normal(size=(9, 2))
    with pytest.raises(ValueError, match=r"scaler=.*shape"):
        Scaling(scaler).fit(X).transform(X)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_values_out_of_float32_range_are_refused(value):
    scaler = FunctionTransformer(lambda X: X.astype(float) * value)
    with pytest.raises(ValueError, match=r"scaler=.*NaN"):
        Scaling(scaler).fit(np.ones((2, 2))).transform(np.ones((2, 2)))


def test_sparse_results_become_dense():
    scaled = Scaling(FunctionTransformer(sparse.csr_matrix)).fit(np.eye(3)).transform(np.eye(3))
    np.testing.assert_array_equal(scaled, np.eye(3))


@pytest.mark.parametrize("output", ["pandas", "polars"])
def test_dataframes_from_the_scaler_are_read_by_position(table, output):
    scaler = StandardScaler().set_output(transform=output)
    scaled = Scaling(scaler).fit(table).transform(table)
    pd.testing.assert_frame_equal(scaled, Scaling().fit(table).transform(table))


def test_the_scaler_sees_column_names(table):
    scaler = Scaling().fit(table).scaler_
    assert scaler.feature_names_in_.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("scaler", "error"),
    [
        ("minmax", ValueError),
        (StandardScaler, TypeError),
        (3, TypeError),
        (np.log1p, TypeError),
        (object(), TypeError),
    ],
)
def test_invalid_scalers_are_refused_by_name(scaler, error):
    with pytest.raises(error, match=r"scaler.*expected None"):
        Scaling(scaler)


class Scribbler(TransformerMixin, BaseEstimator):
    """Writes into what it gets."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        np.multiply(X, 0, out=X)
        return X


@pytest.mark.parametrize("scaler", [StandardScaler(copy=False), Scribbler(), "standard", None])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_is_changed(table, scaler, dtype):
    X = table[["a", "b"]].to_numpy().astype(dtype)
    before = X.copy()
    scaled = Scaling(scaler).fit(X).transform(X)
    np.testing.assert_array_equal(X, before)
    scaled[:] = 0
    np.testing.assert_array_equal(X, before)
    if isinstance(scaler, StandardScaler):
        frame = table.copy(deep=True)
        Scaling(scaler).fit(table).transform(table)
        pd.testing.assert_frame_equal(table, frame)
        assert not hasattr(scaler, "mean_")
