"""Columns of any table: which are numbers, and their values."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from skstack.preprocessing._columns import as_numbers, as_table, plain_numbers

PLAIN = pd.DataFrame(
    {
        "float": [0.5, 1.5],
        "small": np.array([1, 2], dtype=np.int8),
        "word": ["a", "b"],
        "flag": [True, False],
        "nullable": pd.array([1, None], dtype="Int64"),
        "half": np.array([0.5, 1.5], dtype=np.float16),
        "object": np.array([1, 2], dtype=object),
        "coded": pd.Categorical([1, 2]),
    }
)


def test_numpys_numbers_of_pandas_need_no_look_at_the_values():
    assert plain_numbers(PLAIN).tolist() == [True, True, *[False] * 6]
    assert not plain_numbers(as_table(pl.from_pandas(PLAIN[["float", "word"]]))).any()
    assert not plain_numbers(PLAIN[["float"]].to_numpy()).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_of_a_frame_are_those_of_its_array(dtype):
    frame = PLAIN[["float", "small"]]
    before = frame.copy()
    numbers = as_numbers(frame, dtype=dtype)
    assert numbers.dtype == dtype
    assert numbers.flags.c_contiguous
    np.testing.assert_array_equal(numbers, as_numbers(frame.to_numpy(), dtype=dtype))
    numbers[:] = 0
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_number_that_is_not_finite_is_reported_with_its_column(value):
    frame = PLAIN[["float", "small"]].assign(other=[1.0, value])
    with pytest.raises(ValueError, match=r"Found in columns \['other'\]"):
        as_numbers(frame)
    if np.isnan(value):
        assert np.isnan(as_numbers(frame, allow_nan=True)[1, 2])
        return
    gap = frame.assign(small=[np.nan, 1.0])  # which an imputer fills, unlike the other column
    for allow_nan in (False, True):
        message = r"Found in columns \['other'\]; make these values missing first"
        with pytest.raises(ValueError, match=message):
            as_numbers(gap, allow_nan=allow_nan)
