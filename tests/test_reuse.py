"""Programs are shared by all folds, candidates, clones and threads."""

import numpy as np
import pytest
from imblearn.over_sampling import SMOTE
from imblearn.pipeline import Pipeline
from joblib import parallel_backend
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_validate
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from skstack import KerasClassifier, KerasFeatureTransformer, StackedKerasClassifier
from skstack._training import predict
from skstack._training.program import POOL, Program
from skstack.networks import MLP

pytestmark = pytest.mark.xla  # reused programs are compiled with XLA

X, Y = make_classification(203, 5, n_informative=4, n_redundant=0, weights=[0.7], random_state=0)
WIDTHS = iter(range(50, 90))  # each test has networks that no other has compiled


class Counts:
    """Programs made, functions traced, and predictions compiled since the last look."""

    def __init__(self, monkeypatch):
        self.predictions = 0
        made = predict._Chunks.__init__

        def counted(chunks, *args, **kwargs):
            self.predictions += 1
            made(chunks, *args, **kwargs)

        monkeypatch.setattr(predict._Chunks, "__init__", counted)
        POOL._shared.clear()  # a full pool forgets, and the sum of all traces would shrink
        self._before = self._now()

    def _now(self):
        traces = sum(program.traces for program in POOL.programs())
        return np.array([POOL.made, traces, self.predictions])

    def new(self):
        now = self._now()
        before, self._before = self._before, now
        return (now - before).tolist()


@pytest.fixture
def counts(monkeypatch):
    return Counts(monkeypatch)


def network(**settings):
    given = {"epochs": 30, "batch_size": 32, "random_state": 0, "early_stopping": False}
    return KerasClassifier(MLP((next(WIDTHS),)), **{**given, **settings})


def pipeline(**settings):
    steps = [("scaler", StandardScaler()), ("sampler", "passthrough"), ("net", network(**settings))]
    return Pipeline(steps)


GRID = [  # a value of each is the pipeline's own
    {"net__learning_rate": [1e-3, 1e-2], "scaler": [StandardScaler(), MinMaxScaler()]},
    {"net__epochs": [25], "net__random_state": [1]},
    {"sampler": [SMOTE(random_state=0)]},
]


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("settings", [{}, {"early_stopping": True}], ids=["", "early stopping"])
def test_a_search_compiles_nothing_after_its_first_fit(settings, counts):
    estimator = pipeline(**settings)
    clone(estimator).fit(X[:150], Y[:150]).predict(X)
    made, traced, predictions = counts.new()
    assert made == predictions == 1
    assert traced >= 1
    GridSearchCV(estimator, GRID, cv=3).fit(X, Y)
    assert counts.new() == [0, 0, 0]


@pytest.mark.slow
def test_a_search_over_architectures_compiles_each_once(counts):
    widths = [(next(WIDTHS),) for _ in range(2)]
    grid = {"model__hidden_layer_sizes": widths, "learning_rate": [1e-3, 1e-2]}
    GridSearchCV(network(), grid, cv=3, refit=False).fit(X, Y)
    made, _, predictions = counts.new()
    assert (made, predictions) == (2, 2)


@pytest.mark.slow
def test_threads_share_what_one_of_them_compiled(counts):
    estimator = pipeline()
    expected = GridSearchCV(estimator, GRID, cv=3, refit=False).fit(X, Y).cv_results_
    made, traced, predictions = counts.new()
    assert (made, predictions) == (1, 1)
    again = pipeline().set_params(net__model=MLP((next(WIDTHS),)))
    with parallel_backend("threading"):
        GridSearchCV(again, GRID, cv=3, refit=False, n_jobs=4).fit(X, Y)
        assert counts.new() == [made, traced, predictions]
        found = GridSearchCV(estimator, GRID, cv=3, refit=False, n_jobs=4).fit(X, Y).cv_results_
    assert counts.new() == [0, 0, 0]
    np.testing.assert_array_equal(found["mean_test_score"], expected["mean_test_score"])


def test_a_stack_trains_its_folds_in_one_program_each(counts):
    stack = StackedKerasClassifier(
        [("a", KerasFeatureTransformer(network()))],
        downstream=network(),
        blend=False,
        cv=2,
        random_state=0,
    )
    stack.fit(X, Y)
    assert counts.new()[0] == 2
    alone = cross_val_predict(stack, X, Y, cv=2, method="predict_proba")
    counts.new()
    side_by_side = cross_val_predict(
        clone(stack).set_params(n_jobs=2), X, Y, cv=2, method="predict_proba"
    )
    assert counts.new() == [0, 0, 0]
    np.testing.assert_array_equal(side_by_side, alone)


def test_variable_sets_are_reused():
    estimator = network()
    with parallel_backend("threading"):
        cross_validate(estimator, X, Y, cv=8, n_jobs=2)
    (program,) = [
        p
        for p in POOL.programs()
        if estimator_units(estimator) in {getattr(e, "units", 0) for e in p.model.layers}
    ]
    assert isinstance(program, Program)
    owners = [program.layout, *(function for function, _ in program._functions.values())]
    idle = [len(owner.variable_sets.idle) for owner in owners if hasattr(owner, "variable_sets")]
    assert 1 <= sum(idle) <= 2


def estimator_units(estimator):
    return estimator.model.hidden_layer_sizes[0]
