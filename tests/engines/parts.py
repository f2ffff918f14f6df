"""Estimators that the workers of a cluster fit, and the search that they share."""

import os
from pathlib import Path

import numpy as np
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB

from skstack import KerasClassifier, StackedKerasClassifier
from tests._models import FIT, SMALL
from tests._records import Records, Task, marks  # noqa: F401 - tests import all parts from here


def network(**settings):
    return KerasClassifier(SMALL, **{**FIT, **settings})


def stack(**settings):
    """Return a stack of a network, a model of scikit-learn and a network downstream."""
    branches = [("network", network()), ("bayes", GaussianNB())]
    return StackedKerasClassifier(branches, downstream=network(), cv=3, random_state=0, **settings)


def search(**settings):
    """Return an unfitted search of a small stack: two architectures and two learning rates."""
    grid = {
        "network__model__hidden_layer_sizes": [(4,), (3,)],
        "downstream__learning_rate": [1e-3, 1e-1],
    }
    return GridSearchCV(stack(), grid, cv=3, n_jobs=-1, **settings)


def assert_same_search(found, expected, X):
    """Assert that two searches differ in times only."""
    results, wanted = found.cv_results_, expected.cv_results_
    assert results.keys() == wanted.keys()
    for name in wanted:
        if "_time" not in name and not name.startswith("param"):
            np.testing.assert_array_equal(results[name], wanted[name], err_msg=name)
    assert repr(results["params"]) == repr(wanted["params"])
    assert found.best_params_ == expected.best_params_
    np.testing.assert_array_equal(found.predict_proba(X), expected.predict_proba(X))


class Parcel:
    """Counts, by process, how often it arrives."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        return _arrived, (self.folder,)


def _arrived(folder):
    with open(Path(folder, f"arrived-{os.getpid()}"), "a") as file:
        file.write("once\n")
    return Parcel(folder)


def arrivals(folder):
    """How often a `Parcel` has arrived in each other process."""
    counts = {
        int(path.name.split("-")[1]): len(path.read_text().splitlines())
        for path in Path(folder).glob("arrived-*")
    }
    counts.pop(os.getpid(), None)  # where the results go
    return counts
