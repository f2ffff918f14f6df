import numpy as np
import pytest

from skstack._training.config import TrainingData


class FunctionBlueprint:
    """A network that a function builds; private programs when it has no key."""

    def __init__(self, function, key="the function"):
        self.function = function
        self.key = function if key == "the function" else key

    def build(self):
        return self.function()


@pytest.fixture
def blueprint():
    return FunctionBlueprint


@pytest.fixture
def binary_rows():
    """A function that makes rows of a separable binary task."""

    def make(n_rows=75, n_features=6, weights=False, seed=0):
        generator = np.random.default_rng(seed)
        x = generator.normal(size=(n_rows, n_features)).astype("float32")
        y = (x[:, :2].sum(axis=1, keepdims=True) > 0).astype("float32")
        w = generator.uniform(0.2, 3.0, size=n_rows) if weights else None
        return TrainingData({"numeric": x}, y, w)

    return make


def pytest_collection_modifyitems(items):
    # Keras converts its variables in a way that NumPy 2 warns of; TensorFlow has yet to follow.
    ignore = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
    for item in items:
        item.add_marker(ignore)
