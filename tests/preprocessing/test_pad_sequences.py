"""Sequences of different lengths: padding, masks, and warnings of truncation."""

import pickle
import warnings

import keras
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

from skstack import KerasClassifier
from skstack.preprocessing import PadSequences

SIDES = st.sampled_from(["pre", "post"])
RAGGED = [np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0, 6.0]])]


def sequences(lengths, n_channels, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, n_channels)) for n in lengths]


@pytest.fixture
def vowels(shared_data):
    """640 utterances of Japanese vowels, 12 channels, 7 to 29 steps, and their nine speakers."""
    table = shared_data("japanese_vowels")
    channels = [name for name in table.columns if name.startswith("lpc")]
    cases = [case for _, case in table.groupby(["split", "case"], sort=False)]
    X = [case[channels].to_numpy() for case in cases]
    return X, np.array([case["speaker"].iloc[0] for case in cases])


def quietly(action):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return action()


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    n_channels=st.integers(1, 3),
    length=st.none() | st.integers(1, 12),
    padding=SIDES,
    truncating=SIDES,
    value=st.sampled_from([0.0, -1.0, 7.5]),
)
def test_it_pads_and_truncates_like_keras(lengths, n_channels, length, padding, truncating, value):
    X = sequences(lengths, n_channels)
    pad = PadSequences(length=length, padding=padding, truncating=truncating, value=value)
    expected = keras.utils.pad_sequences(
        X, maxlen=length, dtype="float32", padding=padding, truncating=truncating, value=value
    )
    result = quietly(lambda: pad.fit_transform(X))
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(quietly(lambda: pad.transform(X)), expected)


@given(
    X=st.lists(st.lists(st.integers(1, 2**31 - 1), min_size=1, max_size=9), min_size=1),
    length=st.none() | st.integers(1, 12),
    padding=SIDES,
    truncating=SIDES,
)
def test_token_ids_stay_integers_padded_with_zero(X, length, padding, truncating):
    pad = PadSequences(length=length, padding=padding, truncating=truncating, value=5.0)
    expected = keras.utils.pad_sequences(
        X, maxlen=length, padding=padding, truncating=truncating, value=0
    )
    result = quietly(lambda: pad.fit_transform(X))
    assert result.dtype == np.int32
    assert pad.n_channels_ is None
    np.testing.assert_array_equal(result, expected)


def test_japanese_vowels_learn_their_length_and_the_mask_finds_the_steps(vowels):
    X, _ = vowels
    pad = PadSequences().fit(X[:270])
    assert (pad.length_, pad.n_channels_) == (max(len(x) for x in X[:270]), 12)
    with pytest.warns(UserWarning, match=f"more than length={pad.length_} steps; up to 3 steps"):
        padded = pad.transform(X)
    mask = np.asarray(keras.layers.Masking().compute_mask(padded))
    lengths = np.minimum([len(x) for x in X], pad.length_)
    np.testing.assert_array_equal(mask, np.arange(pad.length_) < lengths[:, None])
    np.testing.assert_array_equal(padded[mask][: len(X[0])], X[0].astype(np.float32))


@pytest.mark.slow
def test_a_search_over_a_masked_network_learns_the_speakers(vowels):
    X, y = vowels
    few = np.flatnonzero(y <= 3)
    X, y = [X[i] for i in few], y[few]
    network = keras.Sequential(
        [keras.layers.Masking(0.0), keras.layers.GRU(16), keras.layers.Dense(3)]
    )
    network = KerasClassifier(network, epochs=8, learning_rate=0.01, random_state=0)
    model = make_pipeline(PadSequences(length=29), network)
    search = GridSearchCV(model, {"padsequences__padding": ["pre", "post"]}, cv=2, refit=False)
    assert min(search.fit(X, y).cv_results_["mean_test_score"]) > 0.9


def test_the_length_is_learned_in_each_training_fold():
    X = sequences([2, 2, 2, 5, 5, 5], 1)
    flat = FunctionTransformer(lambda padded: padded.reshape(len(padded), -1))
    model = make_pipeline(PadSequences(), flat, LogisticRegression())
    folds = [([0, 1, 2], [2, 3, 4]), (range(6), range(6))]
    with pytest.warns(UserWarning, match="2 of 3 rows have more than length=2"):
        scores = cross_val_score(model, X, [0, 1, 0, 1, 0, 1], cv=folds, error_score="raise")
    assert len(scores) == 2


@pytest.mark.parametrize("kind", [list, tuple, pd.Series, "object array"])
def test_lists_tuples_series_and_object_arrays_are_the_same(kind):
    X = sequences([3, 1, 2], 2)
    given = np.empty(3, dtype=object)
    given[:] = X
    given = given if kind == "object array" else kind(X)
    np.testing.assert_array_equal(
        PadSequences().fit_transform(given), PadSequences().fit_transform(X)
    )


def test_cells_from_parquet_files_hold_numbers(tmp_path):
    X = pd.DataFrame({"steps": [x.tolist() for x in RAGGED]})
    X.to_parquet(tmp_path / "steps.parquet")
    read = pd.read_parquet(tmp_path / "steps.parquet")
    assert read["steps"][0].dtype == object  # arrays in arrays
    padded = np.stack(PadSequences().fit_transform(read)["steps"])
    np.testing.assert_array_equal(padded, PadSequences().fit_transform(RAGGED))


def test_an_array_of_equal_lengths_is_truncated_or_padded_like_a_list():
    X = np.random.default_rng(0).normal(size=(4, 3, 2))
    result = PadSequences(length=5).fit_transform(X)
    assert result.shape == (4, 5, 2)
    np.testing.assert_array_equal(result[:, :3], X.astype(np.float32))
    assert not result[:, 3:].any()


def test_series_of_floats_have_one_channel_and_integers_too_once_that_is_learned():
    pad = PadSequences().fit([[0.5, 1.5], [2.5]])
    assert (pad.length_, pad.n_channels_) == (2, 1)
    assert pad.transform([[7]]).tolist() == [[[7.0], [0.0]]]


# ---- frames ----------------------------------------------------------------------------------


def frame():
    return pd.DataFrame(
        {
            "amount": [1.0, 2.0, 3.0],
            "steps": [np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [5.0, 6.0]]), [[7.0, 8.0]]],
            "job": ["a", None, "b"],
            "words": [[4, 5, 6], [7], [8, 9]],
        },
        index=[10, 20, 30],
    )


def test_a_frame_keeps_its_index_its_order_and_its_other_columns():
    X = frame()
    pad = PadSequences().fit(X)
    result = pad.transform(X)
    assert pad.length_ == {"steps": 2, "words": 3}
    assert pad.n_channels_ == {"steps": 2, "words": None}
    assert (pad.n_features_in_, list(pad.feature_names_in_)) == (4, list(X.columns))
    assert list(pad.get_feature_names_out()) == list(X.columns) == list(result.columns)
    pd.testing.assert_frame_equal(result[["amount", "job"]], X[["amount", "job"]])
    assert np.stack(result["steps"]).tolist()[0] == [[1.0, 2.0], [0.0, 0.0]]
    words = np.stack(result["words"])
    assert (words.dtype, words.tolist()) == (np.int32, [[4, 5, 6], [7, 0, 0], [8, 9, 0]])


def test_only_the_named_columns_are_padded():
    X = frame()
    result = PadSequences("words").fit_transform(X)
    assert [len(cell) for cell in result["words"]] == [3, 3, 3]
    assert all(a is b for a, b in zip(result["steps"], X["steps"], strict=True))
    for columns in (["words"], [3], [False, False, False, True], lambda X: ["words"]):
        assert set(PadSequences(columns).fit(X).length_) == {"words"}


def test_polars_stays_polars_with_arrays_as_cells():
    X = pl.DataFrame(
        {
            "words": [[4, 5, 6], [7]],
            "amount": [1.0, 2.0],
            "steps": [[[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]]],
        }
    )
    result = PadSequences().fit_transform(X)
    assert result.columns == X.columns
    assert str(result["words"].dtype) == "Array(Int32, shape=(3,))"
    assert result["words"].to_numpy().tolist() == [[4, 5, 6], [7, 0, 0]]
    assert result["steps"].to_numpy().tolist()[0] == [[1.0, 2.0], [0.0, 0.0]]
    assert result["amount"].equals(X["amount"])
    with pytest.raises(ValueError, match=r"X\['words'\]: rows \[1\] are missing"):
        PadSequences("words").fit(pl.DataFrame({"words": [[1], None]}))


@pytest.mark.parametrize("wanted", ["pandas", "polars"])
@pytest.mark.parametrize("given", ["pandas", "polars"])
def test_set_output_chooses_the_frame(given, wanted):
    X = frame().reset_index(drop=True).drop(columns="steps")
    X = X if given == "pandas" else pl.from_pandas(X)
    result = PadSequences().set_output(transform=wanted).fit_transform(X)
    assert isinstance(result, pd.DataFrame if wanted == "pandas" else pl.DataFrame)
    assert list(result.columns) == ["amount", "job", "words"]
    assert np.stack(list(result["words"].to_numpy())).tolist()[1] == [7, 0, 0]
    assert list(result["job"])[2] == "b"


def test_set_output_leaves_lists_arrays():
    with config_context(transform_output="pandas"):
        assert PadSequences().fit_transform(RAGGED).shape == (2, 2, 2)
    pad = PadSequences().fit(frame()).fit(RAGGED)
    of_frames = ("get_feature_names_out", "n_features_in_", "feature_names_in_")
    assert [name for name in of_frames if hasattr(pad, name)] == []


def test_a_frame_with_other_columns_is_refused():
    pad = PadSequences().fit(frame())
    with pytest.raises(ValueError, match="feature names should match"):
        pad.transform(frame().rename(columns={"job": "trade"}))
    with pytest.raises(ValueError, match="fitted on a DataFrame"):
        pad.transform(RAGGED)
    with pytest.raises(ValueError, match=r"X is a DataFrame, but .* fitted on a list"):
        PadSequences().fit(RAGGED).transform(frame())
    with pytest.raises(ValueError, match=r"no column whose cells are arrays.*\['amount', 'job'\]"):
        PadSequences().fit(frame()[["amount", "job"]])
    with pytest.raises(ValueError, match="columns='trade' selects no columns"):
        PadSequences("trade").fit(frame())
    with pytest.raises(TypeError, match=r"X\['amount'\]: rows \[0, 1, 2\] hold no sequence"):
        PadSequences(["amount"]).fit(frame())


# ---- warnings --------------------------------------------------------------------------------


def test_truncated_training_rows_warn_once():
    pad = PadSequences(length=2, truncating="pre")
    message = r"X: 2 of 3 rows have more than length=2 steps; up to 3 .* dropped at the beginning"
    with pytest.warns(UserWarning, match=message) as record:
        pad.fit_transform(sequences([5, 3, 2], 1))
    assert len(record) == 1


def test_a_real_step_that_looks_like_padding_is_refused_while_fitting():
    X = [[[1.0, 0.0]], [[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [2.0, 2.0]]]
    with pytest.raises(ValueError, match=r"rows \[1, 2\] hold steps .* value=0\.0.* mask_value"):
        PadSequences().fit(X)
    assert PadSequences(value=-1).fit_transform(X)[1].tolist() == [[1.0, 1.0], [0.0, 0.0]]
    with pytest.raises(ValueError, match=r"rows \[0\] .* value=0\.1"):  # equal in float32
        PadSequences(value=0.1).fit([[np.float32(0.1)]])


def test_a_truncated_step_may_look_like_padding():
    X = [[1.0, 0.0], [2.0]]
    pad = PadSequences(length=1)
    assert quietly(lambda: pad.fit_transform(X)).tolist() == [[[1.0]], [[2.0]]]


def test_a_real_step_that_looks_like_padding_warns_in_transform():
    pad = PadSequences().fit(RAGGED)
    with pytest.warns(UserWarning, match=r"X: rows \[1\] hold steps .* value=0\.0"):
        pad.transform([RAGGED[0], [[0.0, 0.0], [1.0, 1.0]]])


OK = np.ones((2, 2))
REFUSED = {
    "empty": (np.ones((0, 2)), ValueError, "have no steps"),
    "empty list": ([], ValueError, "have no steps"),
    "None": (None, ValueError, "are missing"),
    "a float NaN": (float("nan"), ValueError, "are missing"),
    "pandas.NA": (pd.NA, ValueError, "are missing"),
    "NaN": ([[1.0, np.nan]], ValueError, "hold NaN, infinity"),
    "infinity": ([[1.0, np.inf]], ValueError, "hold NaN, infinity"),
    "beyond float32": ([[1.0, 1e39]], ValueError, "hold .* too large for float32"),
    "channels": (np.ones((2, 3)), ValueError, r"have 3 channels, but row 0 had 2"),
    "univariate": ([1.0, 2.0], ValueError, r"have 1 channels, but row 0 had 2"),
    "a string": ("abc", TypeError, "hold no sequence"),
    "a number": (3.0, TypeError, "hold no sequence"),
    "strings": (["a", "b"], TypeError, "hold values that are not numbers"),
    "None inside": ([[1.0, None]], TypeError, "hold values that are not numbers"),
    "complex": (np.ones((1, 2), complex), TypeError, "hold values that are not numbers"),
    "dates": (np.zeros((1, 2), "M8[s]"), TypeError, "hold values that are not numbers"),
    "ragged": ([[1.0, 2.0], [3.0]], ValueError, "are ragged"),
    "three axes": (np.ones((1, 2, 2)), ValueError, "have neither the shape"),
}


@pytest.mark.parametrize(("cell", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_invalid_sequences_are_refused_by_row(cell, error, message):
    with pytest.raises(error, match=rf"^X: rows \[1, 3\] {message}"):
        PadSequences().fit([OK, cell, OK, cell])
    with pytest.raises(error, match=r"^X: rows \[1\] "):
        PadSequences().fit([OK]).transform([OK, cell])


@pytest.mark.parametrize("word", [0, -3, 2**31, 2**63])
def test_invalid_token_ids_are_refused_by_row(word):
    ids = [np.array([1, 2]), np.array([3, word], dtype=np.uint64 if word > 0 else np.int64)]
    with pytest.raises(ValueError, match=r"X: rows \[1\] hold token ids outside of 1 to 2147"):
        PadSequences().fit(ids)
    with pytest.raises(ValueError, match=r"X: rows \[1\] hold token ids outside of 1 to 2147"):
        PadSequences().fit([[5]]).transform(ids)


def test_ids_and_channels_of_fit_hold_in_transform():
    with pytest.raises(ValueError, match=r"rows \[1\] hold values other than token ids"):
        PadSequences().fit([[1, 2]]).transform([[3], [0.5]])
    with pytest.raises(ValueError, match=r"rows \[0, 1\] have 3 channels, but the training rows"):
        PadSequences().fit(RAGGED).transform(sequences([1, 2], 3))


@pytest.mark.parametrize("n_rows", [7, 8])
def test_an_error_names_five_rows_and_counts_the_others(n_rows):
    with pytest.raises(ValueError, match=rf"rows \[0, 1, 2, 3, 4\] and {n_rows - 5} more are"):
        PadSequences().fit([None] * n_rows)


@pytest.mark.parametrize("X", [np.ones((3, 4)), np.ones((3, 4)).tolist()])
def test_a_table_is_not_an_array_of_sequences(X):
    if isinstance(X, list):  # in a list, each row says for itself that it is a sequence
        assert PadSequences().fit_transform(X).shape == (3, 4, 1)
        return
    with pytest.raises(ValueError, match=r"array of shape \(3, 4\); expected sequences"):
        PadSequences().fit(X)


@pytest.mark.parametrize("X", ["abc", 3, {"a": [1]}, None])
def test_inputs_without_rows_are_refused(X):
    with pytest.raises(TypeError, match=f"X is a {type(X).__name__}; expected a list"):
        PadSequences().fit(X)


def test_no_rows_are_refused():
    for X in ([], np.ones((0, 2, 3))):
        with pytest.raises(ValueError, match=r"0 sample\(s\)"):
            PadSequences().fit(X)
        with pytest.raises(ValueError, match=r"0 sample\(s\)"):
            PadSequences().fit(RAGGED).transform(X)


@pytest.mark.parametrize(
    "wrong",
    [
        {"length": 0},
        {"length": 2.0},
        {"padding": "both"},
        {"truncating": None},
        {"value": np.nan},
        {"value": np.inf},
        {"value": "0"},
        {"columns": 3.5},
    ],
    ids=str,
)
def test_wrong_parameters_are_named(wrong):
    with pytest.raises(ValueError, match=f"The '{next(iter(wrong))}' parameter of PadSequences"):
        PadSequences(**wrong).fit(RAGGED)


def test_a_value_that_float32_cannot_hold_is_refused():
    with pytest.raises(ValueError, match=r"value=1e\+39; expected a number that float32 can hold"):
        PadSequences(value=1e39).fit(RAGGED)


# ---- manners ---------------------------------------------------------------------------------


def test_nothing_that_was_passed_is_changed():
    lists, X = sequences([3, 1, 2], 2), frame()
    before, frame_before = pickle.dumps(lists), pickle.dumps(X)
    result = PadSequences().fit_transform(lists)
    padded = PadSequences().fit_transform(X)
    result += 1
    for cell in padded["steps"]:
        cell += 1
    padded["amount"] = 0.0
    assert pickle.dumps(lists) == before
    assert pickle.dumps(X) == frame_before


def test_a_failed_fit_keeps_the_earlier_state():
    pad = PadSequences().fit(RAGGED)
    with pytest.raises(ValueError, match="are missing"):
        pad.fit([[1.0, 2.0, 3.0], None])
    assert (pad.length_, pad.n_channels_) == (2, 2)
    assert pad.transform(RAGGED).shape == (2, 2, 2)


def test_a_pickled_copy_is_fitted_and_a_clone_is_not():
    X = frame()
    pad = PadSequences(["steps", "words"], padding="pre", value=-1.0).fit(X)
    again = pickle.loads(pickle.dumps(pad)).transform(X)
    np.testing.assert_array_equal(np.stack(again["steps"]), np.stack(pad.transform(X)["steps"]))
    assert clone(pad).get_params() == pad.get_params()
    with pytest.raises(NotFittedError):
        clone(pad).transform(X)


@pytest.mark.parametrize(
    "check",
    [
        "check_estimator_cloneable",
        "check_estimator_tags_renamed",
        "check_valid_tag_types",
        "check_estimator_repr",
        "check_no_attributes_set_in_init",
        "check_do_not_raise_errors_in_init_or_set_params",
        "check_mixin_order",
        "check_parameters_default_constructible",
        "check_get_params_invariance",
        "check_set_params",
        "check_param_validation",
        "check_set_output_transform",
    ],
)
def test_scikit_learn_checks_that_need_no_table(check):
    """The others fit tables of numbers, which the tags say it does not take."""
    getattr(estimator_checks, check)("PadSequences", PadSequences())
