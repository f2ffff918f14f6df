"""Searches and cross-fits on workers of Ray (`make test-engines`)."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from joblib import parallel_config
from sklearn.model_selection import GridSearchCV

from skstack import KerasFeatureTransformer
from tests._models import binary
from tests.engines.parts import (
    Parcel,
    Records,
    arrivals,
    assert_same_search,
    marks,
    network,
    search,
    stack,
)

ray = pytest.importorskip("ray", reason="Ray is missing: make test-engines")
pytestmark = [
    pytest.mark.xla,  # workers compile as those of users do
    pytest.mark.filterwarnings("ignore::ResourceWarning:ray"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

X, Y = binary()


@pytest.fixture(scope="module", autouse=True)
def two_workers():
    from ray.util.joblib import register_ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    register_ray()
    yield
    ray.shutdown()


@pytest.fixture
def on_ray():
    with parallel_config("ray", n_jobs=2):
        yield


def test_a_search_equals_the_serial_one():
    serial = search().set_params(n_jobs=None).fit(X, Y)
    with parallel_config("ray"):
        assert_same_search(search().fit(X, Y), serial, X)


def test_a_stack_and_bags_equal_those_of_one_process():
    models = [stack(), stack(blend="auto", n_jobs=2), network(n_bags=2)]
    expected = [model.fit(X, Y).predict_proba(X) for model in models]
    with parallel_config("ray", n_jobs=2):
        found = [model.fit(X, Y).predict_proba(X) for model in models]
    np.testing.assert_array_equal(found, expected)


def test_folds_run_on_workers_and_tables_are_sent_once(on_ray, tmp_path):
    model = Records(tmp_path, sent=Parcel(tmp_path))
    KerasFeatureTransformer(model, cv=6, refit=False).fit_transform(X, Y)
    processes = {process for process, _ in marks(tmp_path, "fit")}
    assert os.getpid() not in processes
    assert set(arrivals(tmp_path)) == processes


def test_without_n_jobs_nothing_is_sent(tmp_path):
    """As for every estimator: with Ray joblib's n_jobs=None means 1."""
    with parallel_config("ray"):
        KerasFeatureTransformer(Records(tmp_path), cv=3, refit=False).fit(X, Y)
    assert {process for process, _ in marks(tmp_path, "fit")} == {os.getpid()}


def test_a_search_whose_worker_is_killed_ends_in_an_error(tmp_path):
    """Instead of waiting for ever."""

    def fit():
        candidates = GridSearchCV(Records(tmp_path, dies=True), {"value": [0, 1]}, cv=3, n_jobs=-1)
        with parallel_config("ray"):
            candidates.fit(X, Y)

    with ThreadPoolExecutor(1) as pool, pytest.raises(ray.exceptions.RayError, match="died"):
        pool.submit(fit).result(timeout=60)


def test_a_cross_fit_repeats_the_folds_of_a_killed_worker(on_ray, tmp_path):
    features = KerasFeatureTransformer(Records(tmp_path, dies=True), cv=4, refit=False)
    found = features.fit_transform(X, Y)
    assert (tmp_path / "died").exists()
    with parallel_config("threading", n_jobs=1):
        np.testing.assert_array_equal(found, features.fit_transform(X, Y))
