"""Rows that stand in two tables."""

import io
from decimal import Decimal

import numpy as np
import pandas as pd
import polars
import pytest
import scipy.sparse

from skstack.inspection import check_overlap
from skstack.inspection._fit_checks import _equal
from skstack.inspection._overlap import equal_cells, row_keys
from skstack.inspection._prepared import _differences

A = np.array([[1.0, 2.0], [3.0, 4.0], [3.0, 4.0], [np.nan, 5.0]])
B = np.array([[3.0, 4.0], [3.00001, 4.0], [7.0, 8.0], [np.nan, 5.0], [-0.0, 1.0]])


def test_exact_and_rounded_rows():
    found = check_overlap(A, B)
    assert found.exact_a.tolist() == [1, 2, 3]
    assert found.exact_b.tolist() == [0, 3]
    assert found.rounded_b.tolist() == [0, 1, 3]
    assert found
    assert "3 of 4 (75.0%) exactly" in repr(found)
    assert "3 of 5 (60.0%) to 4 digits" in repr(found)
    assert not check_overlap(A[:1], B)


def test_digits_are_counted_for_each_number():
    large = np.array([[1_000_000.0, 0.001], [2_000_000.0, 0.002]])
    near = large * [1 + 1e-6, 1 + 1e-6]
    assert len(check_overlap(large, near, digits=4).rounded_a) == 2
    assert len(check_overlap(large, near, digits=8).rounded_a) == 0
    assert len(check_overlap(large, near).exact_a) == 0


def test_negative_zero_is_zero_and_float32_is_rounded():
    assert len(check_overlap(np.zeros((1, 1)), np.array([[-0.0]])).exact_a) == 1
    values = np.random.default_rng(0).normal(size=(50, 3))
    found = check_overlap(values, values.astype(np.float32))
    assert len(found.exact_a) == 0
    assert len(found.rounded_a) >= 48


def test_columns_are_matched_by_name_in_any_container():
    one = pd.DataFrame({"job": ["vet", "cook", None], "age": [30, 40, 50]}, index=[7, 8, 9])
    other = pd.DataFrame({"age": [40.0, 50.0], "job": ["cook", None]})
    for frame in (other, polars.DataFrame({"age": [40.0, 50.0], "job": ["cook", None]})):
        found = check_overlap(one, frame)
        assert (found.exact_a.tolist(), found.exact_b.tolist()) == ([1, 2], [0, 1])
    sparse = scipy.sparse.csr_array(np.eye(3))
    assert check_overlap(sparse, np.eye(3).tolist()).exact_a.tolist() == [0, 1, 2]


def test_names_that_are_numbers_are_matched_with_those_of_a_file():
    table = pd.DataFrame(A)
    read_again = pd.read_csv(io.StringIO(table.to_csv(index=False)))[["1", "0"]]
    assert check_overlap(table, read_again).exact_a.tolist() == [0, 1, 2, 3]
    assert check_overlap(read_again, table).exact_b.tolist() == [0, 1, 2, 3]


def test_numbers_beside_words_in_lists_stay_numbers():
    found = check_overlap([["a", 1], ["b", 2], [None, 3]], [["b", 2.0], [None, 3]])
    assert (found.exact_a.tolist(), found.exact_b.tolist()) == ([1, 2], [0, 1])
    assert check_overlap([["b", 2]], pd.DataFrame({"job": ["b"], "age": [2.0]}))
    assert not check_overlap(np.zeros((0, 2)), A)


def test_columns_whose_values_cannot_be_equal_are_named():
    days = pd.date_range("2024-01-01", periods=3)
    table = pd.DataFrame({"age": [1, 2, 3], "day": days, "job": ["a", None, "b"], "none": None})
    same = table.astype({"age": object, "job": "category", "day": object})
    read_again = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    assert len(check_overlap(table, same).exact_a) == 3  # and no warning
    assert len(check_overlap(table, read_again).exact_a) == 3
    read_again["day"] = days.strftime("%d.%m.%Y")
    with pytest.warns(UserWarning, match=r"'day' \(dates in A, text in B\)\. Convert"):
        check_overlap(table, read_again)
    with pytest.warns(UserWarning, match=r"'age' \(text in A, numbers in B\)"):
        check_overlap(table.assign(age=["one", "two", "three"]), table)


@pytest.mark.parametrize("dtype", [object, "string", "category"])
@pytest.mark.parametrize("container", [pd.DataFrame, polars.from_pandas])
def test_text_of_a_file_is_compared_with_numbers_and_dates(dtype, container):
    typed = pd.DataFrame(
        {
            "age": [3, 40, 2**60 + 1],
            "price": [0.1, 1e-7, np.nan],
            "paid": [True, False, True],
            "day": pd.to_datetime(["2020-01-01", None, "2021-06-30"]),
            "at": pd.to_datetime(["2020-01-01T12:00+02:00"] * 3, utc=True),
        }
    )
    file = io.StringIO(typed.to_csv(index=False))
    texts = pd.read_csv(file, dtype=str).astype(dtype)
    texts.loc[1, "at"] = "2020-01-01T05:00:00-05:00" if dtype != "category" else texts["at"][1]
    for one, other in ((typed, container(texts)), (container(texts), typed)):
        found = check_overlap(one, other)
        assert found.exact_a.tolist() == found.exact_b.tolist() == [0, 1, 2]
    assert not check_overlap(typed, container(texts.assign(age=["4", "41", "n/a"])))
    assert not check_overlap(typed.assign(age=[4, 41, 2**60]), container(texts))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (pd.DataFrame({"age": [1], "town": ["x"]}), r"not in both are \['job', 'town'\]"),
        (np.zeros((2, 3)), "A has 2 columns and B has 3"),
        (np.zeros(3), r"shape \(3,\)"),
    ],
)
def test_tables_that_do_not_match(other, message):
    one = pd.DataFrame({"age": [1], "job": ["y"]})
    with pytest.raises(ValueError, match=message):
        check_overlap(one, other)


@pytest.mark.parametrize("digits", [0, 16, 2.5, True, None])
def test_invalid_digits_are_refused(digits):
    with pytest.raises(ValueError, match="digits="):
        check_overlap(A, B, digits=digits)


def test_duplicates_of_mammography_are_found(shared_data):
    frame = shared_data("mammography")
    features = frame.iloc[:, :6]
    first, rest = features.iloc[::2], features.iloc[1::2]
    found = check_overlap(first, rest)
    expected = first.merge(rest.drop_duplicates(), how="left", indicator=True)["_merge"] == "both"
    np.testing.assert_array_equal(found.exact_a, np.flatnonzero(expected))
    assert len(found.exact_a) > 1000


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (pd.Categorical([1, 2, None]), [1.0, np.nan, 3.0], [0, 2]),
        (pd.Categorical(["x", "y"]), ["y", "z"], [1]),
        (np.array([1, None, 1.0], dtype=object), [7.0, 1.0], [0, 2]),
        (pd.array([1, None], dtype="Int64"), np.float32([1, np.nan]), [0, 1]),
        (pd.array([True, None], dtype="boolean"), [True, None], [0, 1]),
        ([None, "x"], ["None", "y"], []),
        (np.array(["x", 1], dtype=object), np.array([1.0, "z"], dtype=object), [1]),
    ],
    ids=["numbers", "words", "objects", "nullable", "booleans", "missing", "mixed"],
)
def test_values_are_compared_regardless_of_dtype(one, other, expected):
    A, B = pd.DataFrame({"a": one}), pd.DataFrame({"a": other})
    for digits in (4, 12):
        found = check_overlap(A, B, digits=digits)
        assert found.exact_a.tolist() == expected
        assert found.rounded_a.tolist() == expected
    assert check_overlap(B, A).exact_b.tolist() == expected


def test_an_array_is_matched_with_a_dataframe_by_position():
    frame = pd.DataFrame({"age": [1, 2], "income": [3, 4]})
    assert check_overlap(frame, [[2.0, 4.0]]).exact_a.tolist() == [1]
    assert check_overlap([[2.0, 4.0]], frame).exact_b.tolist() == [1]


def test_a_column_that_is_numeric_in_one_table_only_is_still_compared_rounded():
    A = pd.DataFrame({"a": ["x", "y"], "b": [1.0, 2.0]})
    B = pd.DataFrame({"a": [1.0, 2.0], "b": [1.0, 2.0]})
    with pytest.warns(UserWarning, match=r"'a' \(text in A, numbers in B\)"):
        assert not check_overlap(A, B)


def test_missing_categories_are_missing_and_not_empty_text():
    text = pd.DataFrame({"job": ["a", None, ""]})
    for one, other in ((text.astype("category"), text), (text, text.astype("category"))):
        assert check_overlap(one, other[1:]).exact_a.tolist() == [1, 2]
        assert check_overlap(one, other[2:]).exact_a.tolist() == [2]


def test_overlap_of_two_bank_campaigns(shared_data):
    """Mixed columns in another order; what a merge finds, and none of what it does not."""
    calls = shared_data("bank_full").drop(columns="y")
    a, b = calls.iloc[:12_000], calls.iloc[7_000:18_000][calls.columns[::-1]]
    found = check_overlap(a, b.astype({"age": float, "job": "category"}))
    merged = a.merge(b.drop_duplicates(), how="left", indicator=True)["_merge"] == "both"
    np.testing.assert_array_equal(found.exact_a, np.flatnonzero(merged))
    assert len(found.exact_a) >= 5000


# Whole numbers that float64 has no room for ---------------------------------------------------

LARGE = [2**53, 2**53 + 1, 2**62 + 1, 2**62 + 3, 2**63 - 1]
FORMS = {
    "int64": lambda values: np.array(values, dtype=np.int64),
    "uint64": lambda values: np.array(values, dtype=np.uint64),
    "Int64": lambda values: pd.array(values, dtype="Int64"),
    "gaps": lambda values: pd.array([*values[:-1], None], dtype="Int64"),
    "arrow": lambda values: pd.array(values, dtype="int64[pyarrow]"),
    "objects": lambda values: pd.Series(values, dtype=object),
    "decimals": lambda values: pd.Series(list(map(Decimal, values)), dtype=object),
    "mixed": lambda values: pd.Series([*values[:-1], "x"], dtype=object),
    "category": lambda values: pd.Categorical(values),
}


@pytest.mark.parametrize("one", FORMS)
@pytest.mark.parametrize("other", FORMS)
def test_large_integers_are_compared_exactly(one, other):
    A, B = pd.DataFrame({"a": FORMS[one](LARGE)}), pd.DataFrame({"a": FORMS[other](LARGE)})
    alike = set(range(5))
    if {"gaps", "mixed"} & {one, other}:  # the last is another there
        alike -= set() if one == other else {4}
    found = check_overlap(A, B)
    assert found.exact_a.tolist() == sorted(alike)
    assert found.rounded_a.tolist() == sorted(alike)
    near = pd.DataFrame({"a": FORMS[other]([value + 1 for value in LARGE[:-1]] + [7])})
    expected = [4] if one == other and one in ("gaps", "mixed") else []
    assert check_overlap(A, near).exact_a.tolist() == [1, *expected]


def test_large_integers_beside_floats():
    whole, floats = pd.DataFrame({"a": LARGE}), pd.DataFrame({"a": np.array(LARGE, float)})
    assert check_overlap(whole, floats).exact_a.tolist() == [0]
    assert check_overlap(floats, whole).exact_b.tolist() == [0]
    beyond = pd.DataFrame({"a": pd.Series([2**64, 2**64 - 1, -(2**70)], dtype=object)})
    top = pd.DataFrame({"a": np.array([2**64 - 1, 0], dtype=np.uint64)})
    assert check_overlap(beyond, top).exact_a.tolist() == [1]
    assert check_overlap(beyond, pd.DataFrame({"a": [2.0**64]})).exact_a.tolist() == [0]
    negative = pd.DataFrame({"a": [-(2**62) - 1, -(2**53) - 1]})
    assert check_overlap(negative, negative - 1).exact_a.tolist() == []
    assert check_overlap(negative, negative.astype(object)).exact_a.tolist() == [0, 1]
    texts = pd.DataFrame({"a": list(map(str, LARGE))})
    near = pd.DataFrame({"a": [str(value + 1) for value in LARGE]})
    assert check_overlap(texts, near).exact_a.tolist() == [1]


# Rounded rows -----------------------------------------------------------------------------------


def draw(kind, who):
    rng = np.random.default_rng({"a": 1, "b": 2}[who])
    normal = rng.normal(size=(400, 3))
    return {
        "lognormal": np.exp(3 * normal),
        "normal": normal,
        "tiny": 1e-12 * normal,
        "seconds": 1.7e9 + 1e5 * normal,
        "far from 0": 1e6 + normal,
        "tails": rng.standard_cauchy((400, 3)),
        "constant": normal * [1, 1, 0] + 5,
    }[kind]


KINDS = ["lognormal", "normal", "tiny", "seconds", "far from 0", "tails", "constant"]


@pytest.mark.parametrize("kind", KINDS)
def test_independent_tables_do_not_overlap(kind):
    assert len(check_overlap(draw(kind, "a"), draw(kind, "b")).rounded_a) <= 1


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        *((kind, "%.10g") for kind in ("lognormal", "normal", "tiny", "tails", "constant")),
        *((kind, "%.6g") for kind in ("lognormal", "normal", "tiny", "tails", "constant")),
        *((kind, "%.3f") for kind in KINDS if kind != "tiny"),
        ("seconds", "%.0f"),
        ("normal", "%.2f"),
    ],
)
def test_copies_that_were_rounded_for_a_file_are_found(kind, form):
    original, file = draw(kind, "a"), io.StringIO()
    pd.DataFrame(original).to_csv(file, index=False, float_format=form)
    file.seek(0)
    copy = pd.read_csv(file).to_numpy()
    found = check_overlap(original, copy)
    assert min(len(found.rounded_a), len(found.rounded_b)) >= 0.9 * len(original)
    assert len(check_overlap(draw(kind, "b"), copy).rounded_a) <= 2


RATES = {
    "one": np.full(200, 0.19),
    "one, a sum of rounded ones": np.where(np.arange(200) % 2, 0.3, 0.1 + 0.2),
    "one for most rows": np.where(np.arange(200) % 5, 0.19, 0.07),
    "one, far from zero": np.full(200, 1e6 / 3),
}


@pytest.mark.parametrize("rates", RATES.values(), ids=RATES.keys())
def test_a_column_of_one_value_hides_no_rounded_copies(rates):
    X = np.column_stack([np.random.default_rng(0).normal(size=(200, 4)), rates])
    for copies in (X.astype(np.float32), X.round(6)):
        assert len(check_overlap(copies, X).rounded_a) > 190
    assert len(check_overlap(X + np.float64([0, 0, 0, 0, 0.1 * rates[0]]), X).rounded_a) < 10


TOKENS = [[i, i + 1, i + 2][: 1 + i % 3] for i in range(60)]
WAVES = np.random.default_rng(0).normal(size=(60, 3))


@pytest.mark.parametrize(
    ("cells", "copies"),
    [
        (TOKENS, [np.array(cell) for cell in TOKENS]),
        (TOKENS, [tuple(map(float, cell)) for cell in TOKENS]),
        (WAVES.tolist(), list(WAVES)),
        ([[cell, cell] for cell in WAVES], [np.stack([cell, cell]) for cell in WAVES]),
        ([(1.0, np.nan)] * 60, [[1, None]] * 60),
    ],
    ids=["arrays", "tuples of floats", "lists", "arrays of arrays", "missing"],
)
def test_numbers_in_cells_are_compared_by_value(cells, copies):
    A, B = pd.DataFrame({"cell": cells}), pd.DataFrame({"cell": copies})
    assert len(check_overlap(A, B).exact_a) == 60
    A["cell"] = A["cell"].map(lambda cell: [-1.0, *cell[1:]])
    assert len(check_overlap(A, B).exact_a) == 0


WORDS = [[f"w{i}", f"w{i + 1}, w{i}"][: 1 + i % 2] for i in range(60)]
RAGGED = [[[i], [i, 0.5]] for i in range(60)]


@pytest.mark.parametrize(
    ("cells", "copies"),
    [
        (WORDS, [np.array(cell) for cell in WORDS]),
        (WORDS, [tuple(map(np.str_, cell)) for cell in WORDS]),
        (
            [[[i], [i, 0.5]] for i in range(60)],
            [(np.array([i]), [float(i), 0.5]) for i in range(60)],
        ),
        ([["1", None]] * 60, [("1", None)] * 60),
    ],
    ids=["arrays of words", "tuples of words", "ragged", "words and missing"],
)
def test_other_items_in_cells_are_compared_by_value(cells, copies):
    A, B = pd.DataFrame({"cell": cells}), pd.DataFrame({"cell": copies})
    assert len(check_overlap(A, B).exact_a) == 60
    A["cell"] = A["cell"].map(lambda cell: ["other", *cell[1:]])
    assert len(check_overlap(A, B).exact_a) == 0


def test_words_that_are_not_printed_tell_rows_apart():
    words = np.full((2, 2000), "same")
    words[1, 1000] = "other"
    A, B = (pd.DataFrame({"cell": [row]}) for row in words)
    assert not check_overlap(A, B)
    assert not equal_cells(A["cell"], B["cell"]).any()


def test_numbers_in_cells_are_rounded():
    A = pd.DataFrame({"cell": list(WAVES)})
    for copies in (WAVES.astype(np.float32), WAVES.round(6)):
        overlap = check_overlap(A, pd.DataFrame({"cell": copies.tolist()}))
        assert len(overlap.exact_a) == 0
        assert len(overlap.rounded_a) > 55


@pytest.mark.parametrize("container", [list, pd.Categorical])
def test_numbers_that_are_not_printed_tell_rows_apart(container):
    framed = np.zeros((2, 20, 40, 40))
    framed[:, :, 3:-3, 3:-3] = np.random.default_rng(0).random((2, 20, 34, 34))
    A, B = (pd.DataFrame({"picture": list(pictures)}) for pictures in framed)
    assert not check_overlap(A, B)
    assert len(check_overlap(A, A.copy()).exact_a) == 20
    short = [tuple(wave) for wave in WAVES]
    near = [tuple(wave * (1 + 1e-10)) for wave in WAVES]
    A, B = (pd.DataFrame({"wave": container(waves)}) for waves in (short, near))
    assert len(check_overlap(A, B).exact_a) == 0
    with np.printoptions(precision=2):
        assert len(check_overlap(A, B).exact_a) == 0
    assert len(check_overlap(A, A.copy()).exact_a) == 60


def test_integers_are_not_rounded():
    ids = np.arange(1_000_000, 1_000_400)
    for make in (np.asarray, lambda x: x.astype(float), lambda x: x.astype(object)):
        A, B = pd.DataFrame({"id": make(ids)}), pd.DataFrame({"id": make(ids + 400)})
        assert not check_overlap(A, B)
    assert len(check_overlap(pd.DataFrame({"id": ids}), pd.DataFrame({"id": ids})).exact_a) == 400


def test_columns_of_few_values_do_not_affect_the_comparison():
    rng = np.random.default_rng(0)
    sex, one = rng.integers(0, 2, (400, 1)), np.ones((400, 1))
    A, B = (np.hstack([np.exp(3 * rng.normal(size=(400, 2))), sex, one]) for _ in range(2))
    assert not check_overlap(A, B)
    assert len(check_overlap(A, np.round(A, 6)).rounded_a) >= 380


def test_equal_instants_in_different_time_zones_are_equal():
    utc = pd.Series(pd.date_range("2020-01-01", periods=4, freq="31h", tz="UTC"))
    naive = pd.Series(pd.to_datetime(["2020-01-01", "2020-02-03"]))
    parts = pd.Series(
        pd.to_datetime(
            [
                *["2020-01-01", "1815-06-18 11:35", "2020-01-01 00:00:07", None],
                *["2020-01-01 00:00:07.25", "2020-01-01 00:00:07.000000001"],
            ],
            format="ISO8601",
        )
    )
    texts = [
        "2020-01-01T12:00+02:00",
        "2020-01-01T05:00:00-05",
        "2020-01-01",
        "2020-01-01T10Z",
        "?",
    ]
    texts = pd.Series(texts)
    aware = pd.Series(pd.to_datetime(["2020-01-01T10:00Z"] * 3 + [None], utc=True))
    for A, B, same in [
        (utc, utc.dt.tz_convert("Asia/Tokyo"), 4),
        (utc, utc.dt.tz_convert("Asia/Tokyo").astype(object), 4),
        (utc, utc.dt.tz_localize(None).dt.tz_localize("Asia/Tokyo"), 0),
        (naive, naive.dt.date, 2),
        (naive, naive.dt.as_unit("s"), 2),
        (parts, parts.astype(object), 6),
        (parts.dt.tz_localize("Asia/Tokyo"), parts.dt.tz_localize("Asia/Tokyo").astype(object), 6),
        (parts, parts.dt.tz_localize("UTC"), 1),  # the missing one
        (aware, texts, 3),
        (naive, texts, 1),
    ]:
        overlap = check_overlap(pd.DataFrame({"at": A}), pd.DataFrame({"at": B}))
        assert len(overlap.exact_a) == same


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_keys_of_rows_are_the_same_in_every_container(dtype):
    X = np.random.default_rng(0).normal(size=(50, 4))
    X[3, 1], X[4, 2], X[5, 2] = np.nan, -0.0, 0.0
    frame = pd.DataFrame(X)
    keys = row_keys(X, dtype=dtype)
    assert len(np.unique(keys)) == len(X)
    assert not np.isin(row_keys(X[:, ::-1], dtype=dtype), keys).any()
    others = (frame, frame.astype(object), frame.astype({0: "Float64"}), X.tolist())
    for other in (*others, np.asfortranarray(X), scipy.sparse.csr_array(X)):
        np.testing.assert_array_equal(row_keys(other, dtype=dtype), keys)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_whole_numbers_have_one_key_in_every_dtype(dtype):
    X = np.random.default_rng(0).integers(0, 9, (50, 4))
    frame = pd.DataFrame(X)
    keys = row_keys(X, dtype=dtype)
    for other in (
        X.astype(float),
        X.astype("uint8"),
        frame,
        frame.astype(object),
        frame.astype({0: float}),
    ):
        np.testing.assert_array_equal(row_keys(other, dtype=dtype), keys)


def test_array_cells_of_two_fits_are_compared_but_for_rounding():
    before = np.random.default_rng(0).normal(size=(4, 2000))
    after = before.copy()
    after[:2, 1000] += 1
    A, B = (pd.DataFrame({"cell": list(cells)}) for cells in (before, after))
    assert _differences(A, B) == {"cell": 0.5}
    assert not _equal(A, B)
    near = pd.DataFrame({"cell": (before * (1 + 1e-12)).tolist()})
    assert _differences(A, near) == {}
    assert _equal(A, near)
