"""Searches and cross-fits on workers of dask (`make test-engines`)."""

import os

import numpy as np
import pytest
from joblib import parallel_config
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline

from skstack import KerasFeatureTransformer
from skstack.ensemble import GreedyEnsembleClassifier
from tests._models import binary
from tests.engines.parts import (
    Parcel,
    Records,
    Task,
    arrivals,
    assert_same_search,
    marks,
    network,
    search,
    stack,
)

distributed = pytest.importorskip("distributed", reason="dask is missing: make test-engines")
pytestmark = pytest.mark.xla  # workers compile as those of users do

X, Y = binary()


def cluster(**settings):
    """A cluster on this machine whose copies of tables stay where they are sent."""
    import dask

    with dask.config.set({"distributed.scheduler.active-memory-manager.start": False}):
        return distributed.LocalCluster(dashboard_address=":0", **settings)


@pytest.fixture(scope="module")
def two_processes():
    with cluster(n_workers=2, threads_per_worker=1) as own, distributed.Client(own) as client:
        yield client


@pytest.fixture(scope="module")
def two_threads():
    settings = {"n_workers": 1, "threads_per_worker": 2, "processes": False}
    with cluster(**settings) as own, distributed.Client(own) as client:
        yield client


@pytest.fixture(params=["two_processes", "two_threads"])
def client(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def serial():
    return search().set_params(n_jobs=None).fit(X, Y)


def long():
    """Return rows whose numbers take more bytes than what dask sends along with a task."""
    return np.random.default_rng(0).normal(size=(1_000, 3)), np.arange(1_000) % 2


def compiled():
    from skstack._training.program import POOL

    return POOL.made


def test_a_search_equals_the_serial_one(client, serial):
    with parallel_config("dask", client=client):
        assert_same_search(search().fit(X, Y), serial, X)


def test_each_worker_compiles_a_network_once(two_processes):
    with parallel_config("dask", client=two_processes):
        search().fit(X, Y)
        before = two_processes.run(compiled)
        found = search().fit(X, Y)
    assert two_processes.run(compiled) == before
    n_networks = 2 + 1  # upstream networks of two sizes, and the downstream
    assert max(before.values()) <= n_networks
    assert np.isfinite(found.best_score_)


@pytest.mark.parametrize("settings", [{}, {"blend": "auto"}, {"n_jobs": 2}])
def test_a_stack_equals_the_serial_one(client, settings):
    expected = stack(**settings).fit(X, Y).predict_proba(X)
    with parallel_config("dask", client=client):
        found = stack(**settings).fit(X, Y)
    np.testing.assert_array_equal(found.predict_proba(X), expected)


def test_bags_and_ensembles_equal_those_of_one_process(two_processes):
    members = [("one", network(n_bags=2)), ("two", network(learning_rate=0.1))]
    ensemble = GreedyEnsembleClassifier(members, cv=3)
    expected = [each.fit(X, Y).predict_proba(X) for each in (members[0][1], ensemble)]
    with parallel_config("dask", client=two_processes):
        found = [each.fit(X, Y).predict_proba(X) for each in (members[0][1], ensemble)]
    np.testing.assert_array_equal(found, expected)


def test_folds_run_on_workers_and_tables_are_sent_once(two_processes, tmp_path):
    model = Records(tmp_path, sent=Parcel(tmp_path))
    expected = KerasFeatureTransformer(model, cv=6, refit=False).fit_transform(X, Y)
    np.testing.assert_array_equal(expected.shape, (len(X), 1))
    for path in tmp_path.iterdir():
        path.unlink()
    with parallel_config("dask", client=two_processes):
        found = KerasFeatureTransformer(model, cv=6, refit=False).fit_transform(X, Y)
    np.testing.assert_array_equal(found, expected)
    workers = set(two_processes.run(os.getpid).values())
    assert {process for process, _ in marks(tmp_path, "fit")} <= workers
    assert arrivals(tmp_path) == dict.fromkeys(workers, 1)


def test_what_is_nested_in_a_task_stays_in_its_thread(client, tmp_path):
    features = KerasFeatureTransformer(Records(tmp_path), cv=4, n_jobs=4)
    pipeline = make_pipeline(Task(tmp_path), features, Records(tmp_path))
    candidates = GridSearchCV(pipeline, {"records__value": [0, 1]}, cv=3, n_jobs=-1, refit=False)
    with parallel_config("dask", client=client):
        candidates.fit(X, Y)
    tasks = marks(tmp_path, "task")
    assert marks(tmp_path, "fit") <= tasks
    assert len(tasks) <= 2


def test_a_search_repeats_the_tasks_of_a_killed_worker(two_processes, tmp_path):
    X, y = long()
    folds = list(StratifiedKFold(3).split(X, y))
    grid = {"value": [0, 1, 2]}

    settings = {"cv": folds, "refit": False, "n_jobs": -1}
    serial = GridSearchCV(Records(tmp_path), grid, **{**settings, "n_jobs": None}).fit(X, y)
    found = GridSearchCV(Records(tmp_path, dies=True), grid, **settings)
    rows = [rows for fold in folds for rows in fold]
    with parallel_config("dask", client=two_processes, scatter=[X, y, *rows, found]):
        found.fit(X, y)
    assert (tmp_path / "died").exists()
    scores, expected = (each.cv_results_["mean_test_score"] for each in (found, serial))
    np.testing.assert_array_equal(scores, expected)


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_cross_fit_repeats_the_folds_of_a_killed_worker(n_workers, tmp_path):
    """Also where it had the only copy of the table."""
    features = KerasFeatureTransformer(Records(tmp_path, dies=False), cv=4, refit=False)
    expected = features.fit_transform(*long())
    features.set_params(model__dies=True)
    settings = {"n_workers": n_workers, "threads_per_worker": 2}
    with cluster(**settings) as own, distributed.Client(own) as client:  # noqa: SIM117
        with parallel_config("dask", client=client):
            found = features.fit_transform(*long())
    np.testing.assert_array_equal(found, expected)
    assert (tmp_path / "died").exists()


class Fails(Records):
    """Cannot be fitted."""

    def fit(self, X, y):
        raise ValueError("these rows are not for me")


def test_errors_on_workers_name_the_part(two_processes):
    with (
        parallel_config("dask", client=two_processes),
        pytest.raises(ValueError, match=r"fold 1 of 3: these rows are not for me"),
    ):
        KerasFeatureTransformer(Fails(), cv=3, refit=False).fit(X, Y)
