import copy
import datetime
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from imblearn.over_sampling import SMOTENC
from scipy import sparse
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer

from skstack.networks import Block
from skstack.preprocessing._blocks import ColumnBlocks


@pytest.fixture
def people():
    return pd.DataFrame(
        {
            "age": [31, 40, 56, 23],
            "job": ["vet", None, "cook", "vet"],
            "pay": [1.5, 2.5, 0.0, -1.0],
            "smokes": [True, False, True, True],
        }
    )


def test_numeric_block_first_then_categories_in_column_order(people):
    blocks = ColumnBlocks().fit(people)
    assert blocks.blocks_ == (
        Block("numeric", "numeric", (2,), None, "float32"),
        Block("job", "categorical", (), 4, "int32"),
        Block("smokes", "categorical", (), 4, "int32"),
    )
    assert blocks.columns_ == {"numeric": ["age", "pay"], "job": ["job"], "smokes": ["smokes"]}
    assert blocks.categories_ == {"job": ["cook", "vet"], "smokes": [False, True]}


def test_split_gives_float32_numbers_and_int32_codes(people):
    arrays = ColumnBlocks().fit(people).split(people)
    assert list(arrays) == ["numeric", "job", "smokes"]
    assert arrays["numeric"].dtype == np.float32
    assert arrays["numeric"].flags.c_contiguous
    np.testing.assert_array_equal(arrays["numeric"], people[["age", "pay"]])
    assert arrays["job"].dtype == np.int32
    assert arrays["job"].tolist() == [3, 1, 2, 3]
    assert arrays["smokes"].tolist() == [3, 2, 3, 3]


@pytest.mark.parametrize(
    "convert",
    [
        lambda s: s.astype("category"),
        lambda s: s.astype(object),
        pytest.param(
            lambda s: s.astype("str"),
            marks=pytest.mark.skipif(
                pd.__version__ < "3", reason="pandas 2 turns a missing value into the word 'None'"
            ),
        ),
        lambda s: s.astype("string"),
        lambda s: s.astype(pd.ArrowDtype(__import__("pyarrow").string())),
        lambda s: s.astype("category").cat.add_categories(["unused"]),
        lambda s: s.astype(pd.CategoricalDtype(["vet", "cook"], ordered=True)),
    ],
)
def test_string_dtypes_of_pandas_are_equivalent(people, convert):
    reference = ColumnBlocks().fit(people)
    converted = people.assign(job=convert(people["job"]))
    blocks = ColumnBlocks().fit(converted)
    assert blocks.blocks_ == reference.blocks_
    for fitted in (blocks, reference):
        for X in (people, converted):
            assert fitted.split(X)["job"].tolist() == [3, 1, 2, 3]


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical, pl.Enum(["vet", "none", "cook"])])
def test_polars_is_read_like_pandas(people, dtype):
    frame = pl.from_pandas(people).with_columns(pl.col("job").cast(dtype))
    blocks, reference = ColumnBlocks().fit(frame), ColumnBlocks().fit(people)
    assert blocks.blocks_ == reference.blocks_
    for name, array in blocks.split(frame).items():
        np.testing.assert_array_equal(array, reference.split(people)[name])
        assert array.dtype == reference.split(people)[name].dtype


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([True, None, False], dtype="boolean"),
        pd.Series([True, None, False], dtype=object),
        pd.Series([True, None, False], dtype="bool[pyarrow]"),
        pl.Series([True, None, False]),
    ],
    ids=["nullable", "object", "pyarrow", "polars"],
)
def test_booleans_with_missing_values(column):
    frame = pl.DataFrame if isinstance(column, pl.Series) else pd.DataFrame
    blocks = ColumnBlocks().fit(frame({"b": column}))
    assert blocks.split(frame({"b": column}))["b"].tolist() == [3, 1, 2]


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT])
def test_missing_values_are_a_category_of_their_own(missing):
    X = pd.DataFrame({"a": pd.Series(["x", missing, "y"], dtype=object)})
    assert ColumnBlocks().fit(X).split(X)["a"].tolist() == [2, 1, 3]
    clean = pd.DataFrame({"a": ["x", "x", "y"]})  # also where training rows had none
    assert ColumnBlocks().fit(clean).split(X)["a"].tolist() == [2, 1, 3]


def test_unseen_categories_get_code_zero(people):
    blocks = ColumnBlocks().fit(people)
    new = people.assign(job=["king", "cook", "", None])
    assert blocks.split(new)["job"].tolist() == [0, 2, 0, 1]


def test_unused_levels_are_unknown():
    levels = pd.CategoricalDtype(["a", "b", "c"])
    blocks = ColumnBlocks().fit(pd.DataFrame({"x": pd.Series(["c", "a"], dtype=levels)}))
    assert blocks.categories_ == {"x": ["a", "c"]}
    new = pd.DataFrame({"x": pd.Series(["b", "c"], dtype=levels)})
    assert blocks.split(new)["x"].tolist() == [0, 3]


def test_number_categories_compare_by_value():
    blocks = ColumnBlocks(["x"]).fit(pd.DataFrame({"x": [3, 1, 2]}))
    assert blocks.split(pd.DataFrame({"x": [1.0, 3.0, 2.5]}))["x"].tolist() == [2, 4, 0]
    assert blocks.split(pd.DataFrame({"x": [1.0, None]}))["x"].tolist() == [2, 1]
    assert blocks.split(pl.DataFrame({"x": [1, None]}))["x"].tolist() == [2, 1]
    assert blocks.split(pd.DataFrame({"x": pd.Categorical([1, 3])}))["x"].tolist() == [2, 4]


@pytest.mark.parametrize("values", [[2, "a", 1, "b", None], [("b",), 1, "a", (2,), None]])
def test_categories_of_mixed_types_are_sorted(values):
    X = pd.DataFrame({"a": pd.Series(values, dtype=object)})
    codes = ColumnBlocks().fit(X).split(X)["a"]
    assert sorted(codes) == [1, 2, 3, 4, 5]
    back = X.iloc[::-1]
    np.testing.assert_array_equal(ColumnBlocks().fit(back).split(X)["a"], codes)


def test_values_without_a_hash_are_refused():
    X = pd.DataFrame({"tags": [["a"], ["b"]]})
    with pytest.raises(TypeError, match="tags"):
        ColumnBlocks().fit(X)


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"when": pd.to_datetime(["2020-01-01", "2021-01-01"])}),
        pd.DataFrame({"when": pd.to_timedelta([1, 2])}),
        pd.DataFrame({"when": pd.period_range("2020", periods=2)}),
        pd.DataFrame({"when": pd.Series([datetime.date(2020, 1, 1)], dtype="date32[pyarrow]")}),
        pl.DataFrame({"when": [datetime.date(2020, 1, 1)]}),
        pl.DataFrame({"when": [{"day": 1.0}, {"day": 2.0}]}),
    ],
)
def test_dates_and_similar_types_are_refused_by_name(frame):
    with pytest.raises(ValueError, match=r"'when'.*numbers first.*categorical_features"):
        ColumnBlocks().fit(frame)
    if isinstance(frame, pd.DataFrame):  # unless they are meant as categories
        assert ColumnBlocks(["when"]).fit(frame).blocks_[0].cardinality == len(frame) + 2


# Arrays


@pytest.mark.parametrize(
    "X",
    [
        np.arange(6.0).reshape(3, 2),
        np.arange(6).reshape(3, 2),
        np.arange(6.0).reshape(3, 2).astype(object),
        np.asfortranarray(np.arange(6.0, dtype=np.float32).reshape(3, 2)),
        [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]],
        sparse.csr_matrix(np.arange(6.0).reshape(3, 2)),
        sparse.csc_array(np.arange(6.0).reshape(3, 2)),
        pd.DataFrame({"a": [0, 2, 4], "b": [1.0, 3.0, 5.0]}),
        pd.DataFrame({"a": [0, 2, 4], "b": [1.0, 3.0, 5.0]}, dtype="Float64"),
        pl.DataFrame({"a": [0, 2, 4], "b": [1.0, 3.0, 5.0]}),
    ],
)
def test_numbers_of_every_dtype_become_one_float32_block(X):
    blocks = ColumnBlocks().fit(X)
    assert blocks.blocks_ == (Block("numeric", "numeric", (2,), None, "float32"),)
    array = blocks.split(X)["numeric"]
    assert isinstance(array, np.ndarray)
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(array, np.arange(6).reshape(3, 2))
    np.testing.assert_array_equal(blocks.table({"numeric": array}), array)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((2, 3, 4), "sequence"), ((2, 3, 4, 1), "tensor"), ((2, 1, 1, 1, 1), "tensor")],
)
def test_arrays_of_more_dimensions(shape, kind):
    X = np.random.default_rng(0).normal(size=shape)
    blocks = ColumnBlocks().fit(X)
    assert blocks.blocks_ == (Block(kind, kind, shape[1:], None, "float32"),)
    arrays = blocks.split(X.tolist())
    np.testing.assert_array_equal(arrays[kind], X.astype(np.float32))
    assert arrays[kind].dtype == np.float32
    np.testing.assert_array_equal(blocks.table(arrays), arrays[kind])
    with pytest.raises(ValueError, match="fitted on rows of shape"):
        blocks.split(X[:, :, :0])
    with pytest.raises(ValueError, match="categorical_features"):
        ColumnBlocks([0]).fit(X)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.array([[1.0, np.nan]]), "Input X contains NaN"),
        (np.array([[1.0, np.inf]]), "Input X contains infinity"),
        (np.array([[1.0, 1e300]]), "Input X contains infinity or a value too large"),
        (np.array([[1.0, 1j]]), "Complex data not supported"),
        (np.array([1.0, 2.0]), "Expected 2D array, got 1D array"),
        (np.zeros((0, 2)), r"Found array with 0 sample\(s\)"),
        (np.zeros((2, 0)), r"0 feature\(s\)"),
        (np.array([["a", "b"]], dtype=object), "could not convert string to float"),
        (sparse.csr_matrix([[1.0, np.nan]]), "Input X contains NaN"),
        (np.full((1, 2, 2), np.nan), "Input X contains NaN"),
        (pd.DataFrame({"a": [1.0, None]}), "Input X contains NaN"),
        (pd.DataFrame({"a": [1, None]}, dtype="Int64"), "contains NaN"),
        (pd.DataFrame({"a": [1.0, None]}, dtype="double[pyarrow]"), "contains NaN"),
        (pd.DataFrame({"a": [1.0, None], "b": ["x", "y"]}), "Input X contains NaN"),
        (pd.DataFrame({"a": [1.0, np.inf], "b": ["x", "y"]}), "Input X contains infinity"),
        (pl.DataFrame({"a": [1, None]}), "contains NaN"),
        (pl.DataFrame({"a": [1, None], "b": ["x", "y"]}), "contains NaN"),
        (pd.DataFrame({"b": ["x"]}).iloc[:0], r"0 sample\(s\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_values_that_check_array_refuses(X, message):
    with pytest.raises(ValueError, match=message):
        ColumnBlocks().fit(X).split(X)


def test_another_number_of_columns_is_refused(people):
    blocks = ColumnBlocks().fit(people)
    with pytest.raises(ValueError, match="X has 3 features, but was fitted on 4 features"):
        blocks.split(people.iloc[:, :3])
    with pytest.raises(ValueError, match="X has 3 features"):
        ColumnBlocks().fit(np.zeros((2, 2))).split(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="3 dimensions"):
        ColumnBlocks().fit(np.zeros((2, 2))).split(np.zeros((2, 2, 2)))


def test_invalid_rows_are_refused_at_prediction(people):
    blocks = ColumnBlocks().fit(people)
    with pytest.raises(ValueError, match="NaN"):
        blocks.split(people.assign(pay=np.nan))


# categorical_features


@pytest.mark.parametrize("categorical", [[0, 2], [True, False, True], np.array([2, 0]), (0, 2)])
def test_categories_of_arrays_by_position_or_mask(categorical):
    X = np.array([[5.0, 0.5, np.nan], [7.0, 1.5, 1.0], [5.0, 2.5, 0.0]])
    blocks = ColumnBlocks(categorical).fit(X)
    assert [block.name for block in blocks.blocks_] == ["numeric", "x0", "x2"]
    arrays = blocks.split(X)
    assert arrays["x0"].tolist() == [2, 3, 2]
    assert arrays["x2"].tolist() == [1, 3, 2]
    np.testing.assert_array_equal(arrays["numeric"], X[:, [1]])
    table = blocks.table(arrays)
    assert list(table.columns) == ["x0", "x1", "x2"]
    np.testing.assert_array_equal(table.astype(float), X)


def test_object_arrays_may_hold_named_categories():
    X = np.array([["cook", 1.5], [None, 2.5], ["vet", 0.5]], dtype=object)
    arrays = ColumnBlocks([0]).fit(X).split(X)
    assert arrays["x0"].tolist() == [2, 1, 3]
    np.testing.assert_array_equal(arrays["numeric"][:, 0], [1.5, 2.5, 0.5])


def test_categories_of_sparse_matrices():
    X = sparse.csr_matrix([[0.0, 1.0], [2.0, 3.0]])
    assert ColumnBlocks([0]).fit(X).split(X)["x0"].tolist() == [2, 3]


@pytest.mark.parametrize("categorical", [["job", "age"], [0, 1], [True, True, False, False]])
def test_only_listed_columns_are_categorical(people, categorical):
    numbers = people.drop(columns="smokes").assign(flag=[True, False, True, False])
    blocks = ColumnBlocks(categorical).fit(numbers)
    assert [block.name for block in blocks.blocks_] == ["numeric", "age", "job"]
    np.testing.assert_array_equal(blocks.split(numbers)["numeric"][:, 1], [1, 0, 1, 0])


def test_none_treats_every_column_as_numeric(people):
    numbers = people[["age", "smokes"]]
    assert ColumnBlocks(None).fit(numbers).blocks_[0].shape == (2,)
    with pytest.raises(ValueError, match="'job' is read as numbers, but holds 'vet' in row 0"):
        ColumnBlocks(None).fit(people).split(people.assign(job="vet"))


@pytest.mark.parametrize(
    ("categorical", "X"),
    [
        ("auto", "frame"),
        ("job", "frame"),
        (["job", "wage"], "frame"),
        (["job"], "array"),
        ([0, 4], "frame"),
        ([-1], "array"),
        ([True, False], "array"),
        ([0.5], "array"),
        (["job", 0], "frame"),
        (3, "array"),
        ({"job": 1}, "frame"),
        ([[0, 1]], "array"),
    ],
)
def test_categorical_features_without_a_column_are_refused(people, categorical, X):
    X = people if X == "frame" else np.zeros((3, 4))
    with pytest.raises(ValueError, match="categorical_features"):
        ColumnBlocks(categorical).fit(X)


def test_an_empty_list_means_no_categories():
    assert ColumnBlocks([]).fit(np.zeros((2, 2))).blocks_[0].shape == (2,)


# Names


def test_names_fit_keras_and_are_unique():
    columns = ["a/b", "a b", "", "numeric", "__x", "größe", "output", 7, "a_b"]
    X = pd.DataFrame([["v"] * len(columns)], columns=columns)
    blocks = ColumnBlocks().fit(X)
    names = [block.name for block in blocks.blocks_]
    assert names == ["a_b", "a_b_1", "column", "numeric_1", "x", "gr__e", "output_1", "7", "a_b_2"]
    assert [blocks.columns_[name] for name in names] == [[column] for column in columns]
    assert list(blocks.table(blocks.split(X)).columns) == columns


def test_names_are_accepted_by_keras():
    keras = pytest.importorskip("keras")
    columns = ["a/b", "größe", "__x", "7 up", "numeric", ".", "a.b", "\n"]
    blocks = ColumnBlocks().fit(pd.DataFrame([["v"] * len(columns)], columns=columns))
    inputs = {b.name: keras.Input((), name=b.name, dtype="int32") for b in blocks.blocks_}
    model = keras.Model(inputs, keras.layers.Add()(list(inputs.values())))
    assert model({name: np.ones(2, np.int32) for name in inputs}).shape == (2,)


# like


def test_like_keeps_codes_and_drops_missing_categories(people):
    whole = ColumnBlocks().fit(people)
    fold = ColumnBlocks().fit(people.iloc[[0, 1, 3]], like=whole)
    assert fold.blocks_ == whole.blocks_
    assert fold.split(people)["job"].tolist() == [3, 1, 0, 3]
    assert fold.split(people)["smokes"].tolist() == [3, 2, 3, 3]
    assert whole.split(people)["job"].tolist() == [3, 1, 2, 3]
    table = fold.table(fold.split(people))
    assert table.dtypes.equals(whole.table(whole.split(people)).dtypes)


def test_missing_values_are_encoded_in_a_fold_without_any(people):
    fold = ColumnBlocks().fit(people.iloc[[0, 2]], like=ColumnBlocks().fit(people))
    assert fold.split(people)["job"].tolist() == [3, 1, 2, 3]


def test_like_of_like_only_drops_categories(people):
    whole = ColumnBlocks().fit(people)
    fold = ColumnBlocks().fit(people.iloc[[0, 1]], like=whole)
    inner = ColumnBlocks().fit(people, like=fold)
    assert inner.split(people)["job"].tolist() == [3, 1, 0, 3]


def test_like_keeps_kinds_where_dtypes_differ(people):
    whole = ColumnBlocks(["age"]).fit(people[["age", "pay"]])
    fold = ColumnBlocks().fit(people[["age", "pay"]].head(2), like=whole)
    assert fold.split(people[["age", "pay"]])["age"].tolist() == [3, 4, 0, 0]
    numbers = np.arange(4.0).reshape(2, 2)
    assert ColumnBlocks().fit(numbers, like=ColumnBlocks().fit(numbers)).split(numbers)


# table


def test_table_is_the_inverse_of_split(people):
    blocks = ColumnBlocks().fit(people)
    table = blocks.table(blocks.split(people))
    assert list(table.columns) == list(people.columns)
    assert table["age"].dtype == table["pay"].dtype == np.float32
    assert table["job"].dtype == pd.CategoricalDtype(["cook", "vet"])
    assert table["job"].isna().tolist() == [False, True, False, False]
    assert table["smokes"].tolist() == people["smokes"].tolist()
    unseen = blocks.table(blocks.split(people.assign(job="king")))
    assert unseen["job"].isna().all()
    again = ColumnBlocks().fit(table)
    assert again.blocks_ == blocks.blocks_
    for name, array in again.split(table).items():
        np.testing.assert_array_equal(array, blocks.split(people)[name])


@pytest.mark.parametrize("levels", [["a", "b", "c"], [1, 2, 3], [True, False], [0.5, 1.5]])
@pytest.mark.parametrize("gaps", [False, True])
def test_smotenc_and_gradient_boosting_accept_the_table(levels, gaps):
    rng = np.random.default_rng(0)
    column = rng.choice(np.array(levels, dtype=object), 120)
    if gaps:
        column[::7] = None
    X = pd.DataFrame({"n": rng.normal(size=120), "c": column, "m": rng.normal(size=120)})
    X = X.astype({"c": "category"})
    y = np.arange(120) % 5 == 0
    blocks = ColumnBlocks().fit(X)
    table = blocks.table(blocks.split(X))
    HistGradientBoostingClassifier(max_iter=2, categorical_features="from_dtype").fit(table, y)
    new, _ = SMOTENC("auto", random_state=0).fit_resample(table, y)
    assert new.dtypes.equals(table.dtypes)
    assert len(new) > len(table)
    assert ColumnBlocks().fit(new).blocks_ == blocks.blocks_
    assert new["c"].isna().any() == gaps


# Manners


def test_nothing_is_changed(people):
    categorical = ["job", "smokes"]
    before = people.copy(deep=True)
    blocks = ColumnBlocks(categorical).fit(people)
    blocks.table(blocks.split(people))
    pd.testing.assert_frame_equal(people, before)
    assert categorical == ["job", "smokes"]
    mask = np.array([True, False])
    ColumnBlocks(mask).fit(np.zeros((2, 2)))
    assert mask.tolist() == [True, False]


@pytest.mark.parametrize("copied", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy])
def test_copies_split_equally(people, copied):
    blocks = ColumnBlocks().fit(people.head(3), like=ColumnBlocks().fit(people))
    for name, array in copied(blocks).split(people).items():
        np.testing.assert_array_equal(array, blocks.split(people)[name])


def test_the_index_has_no_influence(people):
    blocks = ColumnBlocks().fit(people)
    labelled = people.set_axis([9, 9, 3, 1])
    for name, array in blocks.split(labelled).items():
        np.testing.assert_array_equal(array, blocks.split(people)[name])


@pytest.mark.parametrize("copy", [True, False])
def test_an_imputer_that_copies_nothing_changes_no_row_and_no_indicator(copy):
    X = np.array([[1, np.nan], [np.nan, 2], [3, 4]], dtype=np.float32)
    before = X.copy()
    blocks = ColumnBlocks(imputer=SimpleImputer(add_indicator=True, copy=copy)).fit(X)
    numbers = blocks.split(X)["numeric"]
    assert numbers.tolist() == [[1, 3, 0, 1], [2, 2, 1, 0], [3, 4, 0, 0]]
    assert np.array_equal(X, before, equal_nan=True)


@pytest.mark.parametrize("strategy", ["mean", "median", "most_frequent"])
def test_a_column_whose_values_all_have_weight_zero_is_imputed_as_an_empty_one(strategy):
    X, weights = np.array([[5, 1], [np.nan, 2], [np.nan, 4]]), np.array([0.0, 1.0, 2.0])
    imputer = SimpleImputer(strategy=strategy)
    blocks = ColumnBlocks(imputer=imputer).fit(X, sample_weight=weights)
    assert blocks.split(X)["numeric"][:, 0].tolist() == [5, 0, 0]


def test_dates_are_refused_where_fit_saw_numbers():
    X = pd.DataFrame({"a": [1.0, 2.0], "b": [3, 4]})
    blocks = ColumnBlocks().fit(X)
    dates = X.assign(b=pd.to_datetime(["2020-01-01", "2021-01-01"]))
    periods = X.assign(b=pd.period_range("2020", periods=2, freq="D"))
    for rows in (dates, dates.assign(a=dates["b"]), dates.assign(b=dates["b"].diff()), periods):
        with pytest.raises(ValueError, match=r"Column '[ab]' has dtype (dateti|timed|period)"):
            blocks.split(rows)
    with pytest.raises(ValueError, match="Column 'b' has dtype Date"):
        blocks.split(pl.from_pandas(dates))


@pytest.mark.parametrize(
    "levels",
    [["cook", "vet"], [1, 2], [0.5, 0.25], [False, True], [1.0, 2.0**53], [2**63 - 1, 0]],
    ids=str,
)
def test_a_sampler_keeps_unseen_categories_apart_from_missing_ones(levels):
    column = pd.Series([*levels, None], dtype=object)
    blocks = ColumnBlocks(["job"]).fit(pd.DataFrame({"job": column, "age": [1.0, 2.0, 3.0]}))
    codes = {"job": np.array([0, 1, 2, 3], np.int32), "numeric": np.ones((4, 1), np.float32)}
    again = blocks.split_again(blocks.table(codes, for_sampler=True))
    assert again["job"].tolist() == [0, 1, 2, 3]
    assert blocks.split_again(blocks.table(codes))["job"].tolist() == [1, 1, 2, 3]


@pytest.mark.parametrize("names", [(0, 5), (0, 2), (0.5, 1.5), (("u", "a"), ("u", "b"))])
def test_names_of_columns_that_are_no_strings_stay_so_beside_indicators(names):
    X = pd.DataFrame({0: [1.0, np.nan, 3.0], 5: ["a", "b", "a"]}).set_axis(list(names), axis=1)
    blocks = ColumnBlocks(imputer=SimpleImputer(add_indicator=True)).fit(X)
    table = blocks.table(blocks.split(X), for_sampler=True)
    assert table.columns.tolist() == [*names, 3 if names == (0, 2) else 2]
    again = blocks.split_again(table)
    assert again["numeric"].tolist() == [[1, 0], [2, 1], [3, 0]]


def test_words_of_a_category_column_that_is_read_as_numbers_are_named():
    X = pd.DataFrame({"a": [1.0, 2.0], "job": pd.Categorical(["cook", "vet"])})
    message = "Column 'job' is read as numbers, but holds 'cook'"
    with pytest.raises(ValueError, match=f"{message}.*name it in `categorical_features`"):
        ColumnBlocks([0]).fit(X).split(X)
    with pytest.raises(ValueError, match=r"holds 'cook' in row 0\. Convert it first"):
        ColumnBlocks(None).fit(X).split(X.assign(job=["cook", "7"]))
