import os
from pathlib import Path

# Before anything imports TensorFlow or matplotlib.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["MPLBACKEND"] = "Agg"

import pandas as pd
import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def shared_data():
    """A function that reads one of the larger data sets beside the checkout, or skips the test."""

    def read(name):
        path = SHARED_DATA / f"{name}.csv.gz"
        if not path.exists():
            pytest.skip(f"the data set {name!r} does not lie beside the checkout (shared/data)")
        return pd.read_csv(path)

    return read
