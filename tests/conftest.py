import os
from pathlib import Path

# Before anything imports TensorFlow or matplotlib.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["MPLBACKEND"] = "Agg"

import pandas as pd
import pytest
from hypothesis import HealthCheck, settings

# A first fit of an architecture takes seconds: neither deadlines nor health checks know that.
_PATIENT = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
settings.register_profile(
    "quick", max_examples=15, derandomize=True, stateful_step_count=8, database=None, **_PATIENT
)
settings.register_profile("thorough", max_examples=250, stateful_step_count=25, **_PATIENT)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

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
