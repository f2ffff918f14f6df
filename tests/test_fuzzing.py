"""Whatever is passed in: a working network, or a clear refusal before anything is trained.

`make test-all` draws some hundred cases, the same ones each time; `make fuzz` draws thousands of
new ones (the profile "thorough", registered in `conftest.py`).
"""

import contextlib
import copy
import datetime
import decimal
import fractions
import io
import pickle
import re
import tempfile
import traceback
import warnings

import joblib
import keras
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import event, note, settings
from hypothesis import given as given_that
from hypothesis import strategies as st
from imblearn.over_sampling import SMOTE, RandomOverSampler
from scipy import sparse
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.metrics import make_scorer, r2_score
from sklearn.model_selection import KFold, ShuffleSplit
from sklearn.preprocessing import RobustScaler, StandardScaler

from skstack import (
    FineTune,
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
    StackedKerasRegressor,
)
from skstack._training import train as steps
from skstack.inspection import ColumnProfile
from skstack.networks import (
    MLP,
    Autoencoder,
    PiecewiseLinear,
    RealMLP,
    SequenceEncoder,
    TabM,
    recipe,
)

pytestmark = pytest.mark.slow

N_ROWS = 24
rng = np.random.default_rng(0)
X = rng.normal(size=(N_ROWS, 3)).astype(np.float32)
Y = np.arange(N_ROWS) % 2
TARGET = X[:, 0] + 0.1 * Y
SMALL = MLP(4)


@recipe
def narrow(spec, *, units=4, rate=0.0, activation="relu"):
    inputs = spec.inputs()
    x = keras.layers.Dense(units, activation=activation)(spec.join(inputs))
    x = keras.layers.Dropout(rate)(x)
    return keras.Model(inputs, spec.outputs(x))


@recipe
def broken(spec, *, returns=None):
    return returns(spec) if callable(returns) else returns


# -- What may come of a call ---------------------------------------------------------------------

# What scikit-learn says of arguments without naming them.
SYNONYMS = {
    "X": r"\bX\b|sample|feature|array|[cC]olumn|dtype|convert|Complex data|sparse|rank|shape|"
    r"\brows\b|\bfolds\b|float\(\) argument",
    "y": r"\by\b|target|label|class|sample|convert|array|Complex data|dtype",
    "sample_weight": r"weight|sample|array|convert|Complex data|float\(\) argument",
}
# Warnings that are documented: scikit-learn's own about data, and ours about engines and folds.
TOLD = re.compile(
    r"number of unique classes is greater than 50%|least populated class|column-vector y|"
    r"X has feature names, but|X does not have valid feature names|__array__ implementation|"
    r"training rows lack the classes|Gradients do not exist|This network is trained step by step|"
    r"y has one 1 in each row|float32 has steps of|holds values of type \w+, but was fitted on"
)
FOREIGN = ("keras", "tensorflow", "h5py")
REFUSALS = (ValueError, TypeError, NotFittedError)
# Only training itself can find these out.
FOUND_WHILE_TRAINING = (
    r"The loss became|The weights .* became infinite|returned shape|"
    r"failed on \d+ training rows|the table has categorical columns"
)


class Outcome:
    """What came of a call: a value or a refusal; anything else is an AssertionError."""

    def __init__(self, action, blamed):
        self.value = self.error = None
        begun = []
        original = steps._run

        def spy(*args):
            begun.append(1)
            return original(*args)

        steps._run = spy
        try:
            with (
                warnings.catch_warnings(record=True) as told,
                contextlib.redirect_stdout(io.StringIO()),
            ):
                warnings.simplefilter("always")
                self.value = action()
        except Exception as error:
            self.error = error
        finally:
            steps._run = original
        for warning in told:
            assert TOLD.search(str(warning.message)), f"an unknown warning: {warning}"
        if self.error is not None:
            self._judge(blamed, begun)
        event("refused" if self.error is not None else "accepted")

    def _judge(self, blamed, begun):
        error, said = self.error, f"{type(self.error).__name__}: {self.error}"
        whole = "".join(traceback.format_exception(error))
        assert isinstance(error, REFUSALS), whole
        assert not type(error).__module__.startswith(FOREIGN), whole
        last = list(traceback.walk_tb(error.__traceback__))[-1][0].f_globals["__name__"]
        assert not last.startswith(FOREIGN), f"raised inside {last}\n{whole}"
        assert blamed, f"nothing was wrong, but: {whole}"
        late = re.search(FOUND_WHILE_TRAINING, said)
        named = any(re.search(SYNONYMS.get(name, rf"\b{name}\b"), said) for name in blamed)
        assert late or named, f"none of {sorted(blamed)} is named\n{whole}"
        assert late or not begun, f"refused after training had begun\n{whole}"


def frozen(value):
    """A deep picture of a value, to compare with later."""
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.shape, repr(value.tolist()))
    if isinstance(value, pd.DataFrame | pd.Series):
        return (
            repr(value.to_numpy().tolist()),
            repr(value.index.tolist()),
            repr(getattr(value, "dtypes", 0)),
        )
    if isinstance(value, pl.DataFrame | pl.Series):
        return (str(value.to_dict() if isinstance(value, pl.DataFrame) else value.to_list()),)
    if sparse.issparse(value):
        return (value.format, repr(value.toarray().tolist()))
    return repr(value)


def parameters(estimator):
    """Names, identities and looks of all parameters."""
    return {
        name: (id(value), frozen(value)) for name, value in estimator.get_params(deep=True).items()
    }


@contextlib.contextmanager
def unchanged(estimator, *passed):
    before = parameters(estimator), [frozen(value) for value in passed]
    yield
    assert parameters(estimator) == before[0]
    assert [frozen(value) for value in passed] == before[1]


def check_outputs(estimator, rows, n_rows):
    """Every method gives finite values of the right shape."""
    if hasattr(estimator, "predict"):
        assert len(estimator.predict(rows)) == n_rows
    if hasattr(estimator, "predict_proba"):
        p = np.asarray(estimator.predict_proba(rows))
        assert p.shape == (n_rows, len(estimator.classes_))
        assert np.isfinite(p).all()
        assert p.min() >= 0
        assert p.max() <= 1
    elif hasattr(estimator, "predict"):
        assert np.isfinite(estimator.predict(rows)).all()
    if hasattr(estimator, "transform"):
        table = estimator.transform(rows)
        assert table.shape == (n_rows, len(estimator.get_feature_names_out()))
        numbers = table.select_dtypes("number") if hasattr(table, "iloc") else table
        assert np.isfinite(np.asarray(numbers)).all()
    if isinstance(estimator, KerasAutoencoder):
        assert np.isfinite(estimator.reconstruction_error(rows)).all()
        assert estimator.inverse_transform(estimator.transform(rows)).shape[0] == n_rows


# -- Values, good and absurd ---------------------------------------------------------------------


FOLDER = tempfile.TemporaryDirectory()  # goes when the tests end


class Strange:
    def __repr__(self):
        return "Strange()"


def a_function(*args, **kwargs):
    raise KeyError("called")


ABSURD = {
    "None": None,
    "zero": 0,
    "minus one": -1,
    "half": 0.5,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "large": 1e300,
    "larger": 10**30,
    "tiny": 1e-320,
    "empty string": "",
    "word": "aut0",
    "unicode": "größe🙂",
    "path": "no/such/file.keras",
    "bytes": b"adam",
    "complex": 1 + 2j,
    "object": Strange(),
    "class": int,
    "own class": KerasClassifier,
    "callback class": keras.callbacks.EarlyStopping,
    "builtin": len,
    "function": a_function,
    "set": {1, 2},
    "dict": {"a": 1},
    "empty dict": {},
    "empty list": [],
    "empty tuple": (),
    "nested list": [[1, [2]], None],
    "list of a string": ["a"],
    "list of an object": [Strange()],
    "NumPy int": np.int64(3),
    "NumPy float": np.float32(0.25),
    "NumPy bool": np.bool_(True),
    "NumPy NaN": np.float64("nan"),
    "0-d array": np.array(2),
    "array": np.array([1, 2]),
    "array of NaN": np.array([np.nan]),
    "array of words": np.array(["a", "b"]),
    "object array": np.array([None, "a", 1], dtype=object),
    "fraction": fractions.Fraction(1, 3),
    "decimal": decimal.Decimal("0.1"),
    "NA": pd.NA,
    "NaT": pd.NaT,
    "date": datetime.datetime(2020, 1, 1),
    "series": pd.Series([1, 2]),
    "frame": pd.DataFrame({"a": [1]}),
    "estimator": DummyClassifier(),
    "scaler": StandardScaler(),
    "layer": keras.layers.Dense(2),
    "optimizer": keras.optimizers.SGD(0.1),
    "a loss": keras.losses.MeanSquaredError(),
    "a metric": keras.metrics.MeanAbsoluteError(),
    "true": True,
    "false": False,
}
GOOD = {
    "model": [None, SMALL, narrow(units=3)],
    "optimizer": ["adam", "sgd", keras.optimizers.SGD(0.01), "auto"],
    "learning_rate": ["auto", 0.01, np.float32(0.01), 1],
    "clipnorm": [None, 1, np.float32(0.5)],
    "loss": ["auto", keras.losses.MeanSquaredError(), keras.losses.MeanAbsoluteError],
    "metrics": [None, ["mae"], [keras.metrics.MeanSquaredError]],
    "standardize_target": ["auto", True, False],
    "epochs": [1, np.int64(2), "auto"],
    "batch_size": [8, np.int32(32), 10**9, "auto"],
    "early_stopping": ["auto", False, True, np.bool_(False)],
    "validation_fraction": [0.3, np.float64(0.5)],
    "n_iter_no_change": [1, 5],
    "tol": [0, 1e-4],
    "early_stopping_metric": ["loss", "mse", "mae"],
    "callbacks": [None, [], [keras.callbacks.EarlyStopping(monitor="loss")]],
    "categorical_features": ["from_dtype", None, [], [0], [True, False, False]],
    "inputs": [None, {"left": [0]}, [[0, 1]], {"numeric": [0]}, {"a b": slice(0, 2)}, "prefix"],
    "input_shape": [None, (3,), (3, 1), (1, 3, 1), {"numeric": (3,)}, {"left": (1,)}, (4,)],
    "n_hash_buckets": [None, 1, 100],
    "imputer": [None, SimpleImputer(), SimpleImputer(strategy="median", add_indicator=True)],
    "n_bags": [1, 2],
    "warm_start": [False, True],
    "engine": ["auto", "keras"],
    "random_state": [None, 0, np.int64(7), np.random.RandomState(0)],
    "verbose": [0, 1, True],
    "class_weight": [None, "balanced", {0: 1, 1: 2.5}],
    "sampler": [None, RandomOverSampler(), SMOTE(k_neighbors=2)],
    "prior_correction": [False, True],
    "layers": [None, "output", ["output"], ("latent",)],
    "features": [None, "outputs", ["outputs", "reconstruction_error"], "log_odds"],
    "pooling": ["mean", "flatten", "auto"],
    "passthrough": [False, True, [0], "all"],
    "cv": [2, KFold(2), ShuffleSplit(2)],
    "refit": [True, False],
    "memory": [None, FOLDER.name, joblib.Memory(FOLDER.name, verbose=0)],
    "trained_on": [None, ColumnProfile.of(np.eye(4))],
    "passes_y": [True, False],
    "n_jobs": [None, 1, 2],
    "downstream": [None, DummyClassifier(), KerasClassifier(SMALL, epochs=1)],
    "fine_tune": [None, FineTune(epochs=1), FineTune(epochs=1, layers=1)],
    "scaler": [None, "standard", RobustScaler(), PCA(1), StandardScaler],
    "blend": ["auto", True, False, np.bool_(True)],
    "blend_scoring": [None, "roc_auc", "neg_mean_absolute_error", make_scorer(r2_score)],
    "blend_parts": [None, ["risk", "downstream"], ("level", "downstream"), ["risk"], ["x", "y"]],
    "calibration": [None, "temperature"],
    "n_repeats": [1, 2, np.int64(2)],
    "upstream": [
        None,
        KerasAutoencoder(Autoencoder(4), epochs=1),
        [],
        PCA(2),
        [("a",)],
        [()],
        [(1, PCA(2))],
        [("a", None)],
        [("a", PCA(2), [0, 9])],
        [("a", PCA(2), ["b"])],
        ("a", PCA(2)),
        [("a", "drop")],
        [("a", PCA)],
        "model.keras",
    ],
    # Recipes.
    "hidden_layer_sizes": [4, (4,), [], np.array([4, 4]), (4, 3)],
    "activation": ["relu", "tanh", keras.activations.gelu, None],
    "dropout": [0, 0.5],
    "noise": [0, 0.5],
    "l2": [0, 1e-3],
    "batch_normalization": [False, True],
    "scaling": ["standard", None],
    "numeric_embedding": [None, PiecewiseLinear(3, 2)],
    "label_smoothing": [0, 0.1],
    "schedule": ["coslog4", "flat_cos", None],
    "n_members": [2, 1],
    "mini": [False, True],
    "latent_size": ["auto", 2],
    "units": [4, 3, (4, 2)],
    "layer": ["gru", "lstm", "conv1d"],
    "bidirectional": [False, True],
    "kernel_size": [1, 3],
    "mask_value": [0.0, None, -1],
    "rate": [0.0, 0.5],
    "returns": [lambda spec: narrow.function(spec), lambda spec: keras.Sequential()],
}
# It would train for years; is a folder like any other; is called with X, which builds it; only
# training on it tells.
LEFT_OUT = {
    "epochs": {"larger"},
    "n_repeats": {"larger"},
    "memory": {"empty string", "word", "unicode", "path"},
    "passthrough": {"layer", "a metric"},
    "rate": {"decimal"},
}


def networks(**changes):
    return {
        "classifier": KerasClassifier(SMALL, epochs=1, random_state=0),
        "regressor": KerasRegressor(SMALL, epochs=1, random_state=0),
        "autoencoder": KerasAutoencoder(Autoencoder(4, latent_size=2), epochs=1, random_state=0),
    }


def estimators():
    risk = KerasClassifier(SMALL, epochs=1)
    level = KerasRegressor(SMALL, epochs=1)
    return {
        **networks(),
        "transformer": KerasFeatureTransformer(risk, cv=2, random_state=0),
        "unsupervised transformer": KerasFeatureTransformer(
            KerasAutoencoder(Autoencoder(4, latent_size=2), epochs=1), cv=2, random_state=0
        ),
        "stacked classifier": StackedKerasClassifier(
            [("risk", risk)], downstream=clone(risk), cv=2, random_state=0
        ),
        "stacked regressor": StackedKerasRegressor(
            [("level", level)], downstream=clone(level), cv=2, random_state=0
        ),
    }


KINDS = list(estimators())
every_kind = pytest.mark.parametrize("kind", KINDS)
# Nearly every example of these tests compiles another network: few of them in `make test-all`.
few_if_quick = settings(max_examples=5) if settings().max_examples <= 15 else settings()


def target_of(kind):
    return TARGET if "regressor" in kind else Y


@st.composite
def changes(draw, names, most=2):
    """Some parameters with other values: {name: (label, value)}."""
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, max_size=most, unique=True))
    drawn = {}
    for name in chosen:
        labels = [label for label in ABSURD if label not in LEFT_OUT.get(name, ())]
        good = range(len(GOOD[name]))
        label = draw(st.one_of(st.sampled_from(good), st.sampled_from(labels)))
        drawn[name] = GOOD[name][label] if isinstance(label, int) else ABSURD[label]
        note(f"{name} = {drawn[name]!r}")
    return drawn


def n_rows_of(rows):
    shape = getattr(rows, "shape", None)
    return shape[0] if isinstance(shape, tuple) and shape else N_ROWS


def fit_and_check(estimator, rows, y, blamed, **passed):
    """Fit and use; refused or fine, and nothing is changed. Returns whether it was accepted."""
    with unchanged(estimator, rows, y, *passed.values()):
        outcome = Outcome(lambda: estimator.fit(rows, y, **passed), blamed)
    if outcome.error is None:
        used = Outcome(lambda: check_outputs(estimator, rows, n_rows_of(rows)), set())
        assert used.error is None
    return outcome.error is None


@every_kind
@few_if_quick
@given_that(data=st.data())
def test_constructor_parameters(kind, data):
    estimator = estimators()[kind]
    names = sorted(set(estimator.get_params(deep=False)))
    drawn = data.draw(changes(names))
    sound = estimator.get_params(deep=False)
    estimator.set_params(**drawn)
    y = target_of(kind)
    # A sound value may not go with the data or with another parameter; it is named all the same.
    if not fit_and_check(estimator, X, y, set(drawn)):
        estimator.set_params(**{name: sound[name] for name in drawn})
        assert fit_and_check(estimator, X, y, set())


@pytest.mark.parametrize("make", [MLP, TabM, RealMLP, Autoencoder, SequenceEncoder, narrow, broken])
@few_if_quick
@given_that(data=st.data())
def test_parameters_of_recipes(make, data):
    names = sorted(make().get_params())
    drawn = data.draw(changes(names))
    owner = KerasAutoencoder if make is Autoencoder else KerasClassifier
    estimator = owner(make(), epochs=1, random_state=0)
    if make is SequenceEncoder:
        estimator.set_params(input_shape=(3, 1))
        drawn.setdefault("units", 4)
    if "hidden_layer_sizes" in names and "hidden_layer_sizes" not in drawn:
        drawn["hidden_layer_sizes"] = 4
    estimator.set_params(**{f"model__{name}": value for name, value in drawn.items()})
    blamed = {*drawn, "broken"} if make is broken else set(drawn)
    if not fit_and_check(estimator, X, Y, blamed):
        sound = estimator.model.get_params(deep=False)
        sound.update({name: GOOD[name][0] for name in drawn})
        estimator.set_params(model=make(**sound))
        assert fit_and_check(estimator, X, Y, set())


# -- Data ------------------------------------------------------------------------------------------

FRAME = pd.DataFrame(X.astype(float), columns=["a", "größe", "c d/e"])


def with_value(value, dtype=np.float64):
    table = X.astype(dtype)
    table[3, 1] = value
    return table


def with_column(values, **settings):
    return FRAME.assign(c=pd.Series(values, **settings))


def read_only():
    table = X.copy()
    table.setflags(write=False)
    return table


def matrix():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return np.asmatrix(X)


TABLES = {
    "float64": X.astype(np.float64),
    "float16": X.astype(np.float16),
    "long double": X.astype(np.longdouble),
    "int": (X * 9).astype(int),
    "int8": (X * 9).astype(np.int8),
    "bool": X > 0,
    "big endian": X.astype(">f8"),
    "Fortran": np.asfortranarray(X),
    "strided": np.repeat(X, 2, axis=0)[::2],
    "read-only": read_only(),
    "list": X.tolist(),
    "list of tuples": list(map(tuple, X.tolist())),
    "list of arrays": list(X),
    "object array of numbers": X.astype(object),
    "array of digits": np.where(X > 0, "1", "2"),
    "array of words": np.where(X > 0, "a", "b"),
    "object array of words": np.where(X > 0, "a", X.astype(object)),
    "object array with None": with_value(None, object),
    "masked": np.ma.masked_greater(X, 1.0),
    "matrix": matrix(),
    "frame": FRAME,
    "frame of polars": pl.DataFrame(FRAME.to_dict("list")),
    "frame with other index": FRAME.set_index(np.arange(N_ROWS)[::-1] * 7),
    "frame with repeated index": FRAME.set_index(np.zeros(N_ROWS, int)),
    "frame with int names": pd.DataFrame(X),
    "frame with mixed names": pd.DataFrame(X, columns=["a", 1, None]),
    "frame with our names": pd.DataFrame(X, columns=["numeric", "output", "latent"]),
    "frame with twin names": pd.DataFrame(X, columns=["a", "a", "b"]),
    "frame with levels of names": pd.DataFrame(
        X, columns=pd.MultiIndex.from_product([["a"], ["b", "c", "d"]])
    ),
    "frame of int8": (FRAME * 9).astype("int8"),
    "frame of nullable numbers": FRAME.convert_dtypes(),
    "frame of sparse columns": FRAME.astype(pd.SparseDtype(float, 0.0)),
    "frame with NaN": FRAME.mask(FRAME > 1.5),
    "frame with NA": FRAME.convert_dtypes().mask(FRAME > 1.5),
    "frame with words": with_column(list("abc") * 8),
    "frame with missing words": with_column(["a", None, "ü"] * 8),
    "frame with categories": with_column(list("abc") * 8, dtype="category"),
    "frame with ordered categories": with_column(pd.Categorical([1, 2, None] * 8, ordered=True)),
    "frame with bools": with_column([True, False] * 12),
    "frame with mixed objects": with_column([1, "a", None, 2.5] * 6, dtype=object),
    "frame with lists": with_column([[1], [2]] * 12),
    "frame with sets": with_column([{1}, {2}] * 12),
    "frame with dicts": with_column([{"a": 1}] * 24),
    "frame with bytes": with_column([b"a", b"b"] * 12),
    "frame with decimals": with_column([decimal.Decimal("0.5")] * 24),
    "frame with complex": with_column([1j, 2j] * 12),
    "frame with dates": with_column(pd.date_range("2020", periods=24)),
    "frame with time zones": with_column(pd.date_range("2020", periods=24, tz="UTC")),
    "frame with spans": with_column(pd.to_timedelta(range(24), unit="D")),
    "frame with periods": with_column(pd.period_range("2020", periods=24)),
    "frame with intervals": with_column(pd.interval_range(0, 24)),
    "frame without rows": FRAME.iloc[:0],
    "frame without columns": FRAME[[]],
    "frame of one column": FRAME[["a"]],
    "frame of words only": pd.DataFrame({"w": list("abc") * 8}),
    "polars with words": pl.DataFrame({"a": X[:, 0], "w": ["a", "b", None] * 8}),
    "polars with dates": pl.DataFrame({"a": X[:, 0], "d": [datetime.date(2020, 1, 1)] * 24}),
    "polars with lists": pl.DataFrame({"a": X[:, 0], "l": [[1]] * 24}),
    "polars with structs": pl.DataFrame({"a": X[:, 0], "s": [{"k": 1}] * 24}),
    "polars with nulls": pl.DataFrame({"a": [1.0, None] * 12}),
    "lazy polars": pl.LazyFrame({"a": X[:, 0]}),
    "series": FRAME["a"],
    "CSR": sparse.csr_array(X),
    "CSC": sparse.csc_matrix(X),
    "COO": sparse.coo_array(X),
    "sparse with NaN": sparse.csr_array(with_value(np.nan)),
    "NaN": with_value(np.nan),
    "infinity": with_value(-np.inf),
    "too large for float32": with_value(1e300),
    "nearly too large": with_value(3e38),
    "squares overflow": with_value(1e25),
    "tiny": np.full_like(X, 1e-40, dtype=np.float64),
    "constant": np.full_like(X, 1e6),
    "large offset": X.astype(np.float64) + 1e12,
    "complex": X + 1j,
    "dates": np.full((24, 3), "2020-01-01", "datetime64[D]"),
    "spans": np.full((24, 3), 1, "timedelta64[D]"),
    "bytes": np.full((24, 3), b"a"),
    "digits as bytes": np.full((24, 3), b"1"),
    "records": np.zeros(24, [("a", "f4"), ("b", "f4")]),
    "ragged": [[1.0, 2.0, 3.0]] * 23 + [[1.0]],
    "one dimension": X[:, 0],
    "three dimensions": X.reshape(24, 3, 1),
    "four dimensions": X.reshape(24, 3, 1, 1),
    "0-d": np.array(1.0),
    "no rows": X[:0],
    "no columns": X[:, :0],
    "one row": X[:1],
    "two rows": X[:2],
    "None": None,
    "string": "X",
    "number": 3,
    "object": Strange(),
    "dict": {"a": [1.0] * 24},
    "set": {1.0, 2.0},
    "generator": (row for row in ()),
    "class": np.ndarray,
    "empty list": [],
    "list of None": [None] * 24,
    "list of dicts": [{"a": 1}] * 24,
}
TARGETS = {
    "ints": Y,
    "floats": Y.astype(float),
    "int8": Y.astype(np.int8),
    "unsigned": Y.astype(np.uint64) + 2**63,
    "bools": Y.astype(bool),
    "words": np.where(Y, "ja", "nö"),
    "objects": np.where(Y, "ja", "nö").astype(object),
    "bytes": np.where(Y, b"a", b"b"),
    "list": Y.tolist(),
    "tuple": tuple(Y.tolist()),
    "three classes": np.arange(N_ROWS) % 3,
    "classes far apart": np.where(Y, 10**15, -5),
    "as many classes as rows": np.arange(N_ROWS),
    "a class with one row": np.r_[np.zeros(N_ROWS - 1), 1].astype(int),
    "series": pd.Series(Y, index=np.arange(N_ROWS)[::-1]),
    "categorical": pd.Series(np.where(Y, "a", "b"), dtype="category"),
    "nullable": pd.Series(Y, dtype="Int64"),
    "nullable with NA": pd.Series([1, None] * 12, dtype="Int64"),
    "strings of pandas": pd.Series(["a", "b"] * 12),
    "strings with missing ones": pd.Series(["a", None] * 12),
    "frame": pd.DataFrame({"y": Y}),
    "polars": pl.Series(Y),
    "words of polars": pl.Series(["a", "b"] * 12),
    "column": Y[:, None],
    "row": Y[None, :],
    "indicator": np.c_[Y, 1 - Y],
    "constant indicator": np.ones((N_ROWS, 2), int),
    "sparse indicator": sparse.csr_array(np.c_[Y, 1 - Y]),
    "two outputs": np.c_[TARGET, -TARGET],
    "two outputs of classes": np.c_[np.arange(N_ROWS) % 3, Y],
    "lists of labels": [["a"], ["a", "b"]] * 12,
    "tuples": [("a", 1), ("b", 2)] * 12,
    "constant": np.ones(N_ROWS, int),
    "NaN": np.where(Y, np.nan, 1.0),
    "infinity": np.where(Y, np.inf, 1.0),
    "None among them": np.where(Y, None, "a"),
    "mixed": np.array([1, "a"] * 12, dtype=object),
    "mixed numbers": np.array([1, 2.0] * 12, dtype=object),
    "continuous": TARGET,
    "huge": TARGET.astype(float) * 1e300,
    "too large for float32": TARGET.astype(float) * 1e39,
    "tiny": TARGET.astype(float) * 1e-310,
    "large offset": TARGET.astype(float) + 1e12,
    "complex": TARGET + 1j,
    "dates": pd.date_range("2020", periods=24).to_numpy(),
    "dates of pandas": pd.Series(pd.date_range("2020", periods=24)),
    "spans": pd.Series(pd.to_timedelta(range(24), unit="D")),
    "decimals": [decimal.Decimal(1), decimal.Decimal(2)] * 12,
    "three dimensions": Y.reshape(24, 1, 1),
    "no columns": np.empty((24, 0)),
    "too short": Y[:-1],
    "empty": Y[:0],
    "None": None,
    "number": 1,
    "string": "y",
    "dict": {"y": 1},
    "set": {0, 1},
    "object": Strange(),
    "class": int,
}
WEIGHTS = {
    "None": None,
    "ones": np.ones(N_ROWS),
    "ints": np.arange(N_ROWS),
    "list": [1.0] * N_ROWS,
    "series": pd.Series(np.ones(N_ROWS), index=np.arange(N_ROWS)[::-1]),
    "polars": pl.Series([1.0] * N_ROWS),
    "number": 2.0,
    "bools": Y.astype(bool),
    "one class": Y.astype(float),
    "zeros": np.zeros(N_ROWS),
    "negative": -np.ones(N_ROWS),
    "NaN": np.full(N_ROWS, np.nan),
    "infinity": np.full(N_ROWS, np.inf),
    "huge": np.full(N_ROWS, 1e308),
    "large": np.full(N_ROWS, 1e300),
    "tiny": np.full(N_ROWS, 1e-320),
    "one tiny": np.r_[np.ones(N_ROWS - 1), 1e-300],
    "too short": np.ones(3),
    "column": np.ones((N_ROWS, 1)),
    "words": np.full(N_ROWS, "a"),
    "string": "balanced",
    "complex": np.ones(N_ROWS) + 1j,
    "objects": [Strange()] * N_ROWS,
    "dict": {0: 1, 1: 2},
    "empty": [],
    "0-d": np.array(1.0),
}


def labels(table):
    return st.sampled_from(list(table))


def mostly(default, table):
    """The default half of the time, so that one bad thing comes alone."""
    return st.one_of(st.just(default), labels(table))


@every_kind
@few_if_quick
@given_that(data=st.data())
def test_data(kind, data):
    estimator = estimators()[kind]
    table = data.draw(mostly("float64", TABLES), label="X")
    target = data.draw(mostly("sound", TARGETS), label="y")
    weight = data.draw(mostly("None", WEIGHTS), label="sample_weight")
    rows, weights = TABLES[table], WEIGHTS[weight]
    y = TARGETS.get(target, target_of(kind))
    if target == "sound" and n_rows_of(rows) in (0, 1, 2):
        y = y[: len(rows)]
    blamed = {
        name
        for name, label, fine in (
            ("X", table, "float64"),
            ("y", target, "sound"),
            ("sample_weight", weight, "None"),
        )
        if label != fine
    }
    # "X and y have inconsistent lengths" may be either's fault.
    fit_and_check(estimator, rows, y, blamed, sample_weight=weights)


FITTED = {}


def fitted(kind, form):
    """An estimator fitted on an array or a frame; predictions change nothing in it."""
    if (kind, form) not in FITTED:
        rows = {"array": X, "frame": FRAME, "words": TABLES["frame with words"]}[form]
        FITTED[kind, form] = estimators()[kind].fit(rows, target_of(kind))
    return FITTED[kind, form]


@every_kind
@given_that(data=st.data())
def test_rows_at_prediction_time(kind, data):
    form = data.draw(st.sampled_from(["array", "frame", "words"]), label="fitted on")
    table = data.draw(labels(TABLES), label="X")
    estimator, rows = fitted(kind, form), TABLES[table]
    with unchanged(estimator, rows):
        method = data.draw(
            st.sampled_from(
                [m for m in ("predict", "predict_proba", "transform") if hasattr(estimator, m)]
            )
        )
        outcome = Outcome(lambda: getattr(estimator, method)(rows), {"X"})
    if outcome.error is None:
        assert len(outcome.value) == n_rows_of(rows)
        check_outputs(
            estimator,
            {"array": X, "frame": FRAME, "words": TABLES["frame with words"]}[form],
            N_ROWS,
        )


# -- What is done in a row -------------------------------------------------------------------------

WIDE = np.hstack([X, X])
ROWS = {"sound": X, "wide": WIDE, "NaN": TABLES["NaN"], "words": TABLES["frame with words"]}
SETTINGS = [
    ("epochs", 2),
    ("epochs", 0),
    ("batch_size", 8),
    ("loss", "mae?"),
    ("warm_start", True),
    ("random_state", 1),
    ("model__hidden_layer_sizes", 3),
    ("model__hidden_layer_sizes", "many"),
    ("model__dropuot", 0.1),
    ("moddel__dropout", 0.1),
    ("model__activation__rate", 1),
    ("model", None),
    ("__", 1),
    ("", 1),
]
ACTIONS = st.one_of(
    st.tuples(st.just("fit"), st.sampled_from(list(ROWS))),
    st.tuples(st.just("partial_fit"), st.sampled_from(list(ROWS))),
    st.tuples(st.just("use"), st.sampled_from(list(ROWS))),
    st.tuples(st.just("set"), st.sampled_from(SETTINGS)),
    st.tuples(st.sampled_from(["clone", "pickle", "copy"]), st.none()),
)


class Life:
    """An estimator, and the rows of its last good fit: those it must be able to use."""

    def __init__(self, estimator, y):
        self.estimator, self.y, self.known, self.before = estimator, y, None, None

    def fit(self, form, method="fit"):
        fit = getattr(self.estimator, method)
        blamed = {"X", "epochs", "loss", "hidden_layer_sizes"}
        if Outcome(lambda: fit(ROWS[form], self.y), blamed).error is None:
            self.known, self.before = form, None
        self.use(self.known)

    def partial_fit(self, form):
        self.fit(form, "partial_fit")

    def use(self, form):
        method = getattr(self.estimator, "predict", getattr(self.estimator, "transform", None))
        outcome = Outcome(lambda: method(ROWS[form or "sound"]), {"X", "fitted"})
        if self.known is None:
            assert isinstance(outcome.error, NotFittedError)
        elif form == self.known:
            assert outcome.error is None
            # Neither a refused fit nor new parameters change what is predicted.
            if self.before is not None:
                np.testing.assert_array_equal(outcome.value, self.before)
            self.before = outcome.value

    def set(self, setting):
        name, value = setting
        told = Outcome(
            lambda: self.estimator.set_params(**{name: value}), {name, *name.split("__")}
        )
        if told.error is None:
            self.use(self.known)

    def clone(self, _):
        self.estimator, self.known, self.before = clone(self.estimator), None, None

    def pickle(self, _):
        self.estimator = pickle.loads(pickle.dumps(self.estimator))
        self.use(self.known)

    def copy(self, _):
        self.estimator = copy.deepcopy(self.estimator)
        self.use(self.known)


@pytest.mark.parametrize("kind", ["classifier", "regressor", "autoencoder"])
@few_if_quick
@given_that(actions=st.lists(ACTIONS, min_size=3, max_size=10))
def test_lives_of_estimators(kind, actions):
    life = Life(estimators()[kind], target_of(kind))
    for name, argument in actions:
        getattr(life, name)(argument)
