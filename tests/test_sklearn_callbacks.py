"""Callbacks of scikit-learn: the tree of tasks, stops, errors, and what estimators keep of them."""

import contextlib
import io
import os
import pickle
import warnings

import numpy as np
import pytest
import sklearn
from _models import FIT, SMALL, binary, regression
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skstack
from skstack import (
    FineTune,
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
)
from skstack._base import progress
from skstack.ensemble import GreedyEnsembleRegressor

X, Y = binary()
EPOCHS = FIT["epochs"]

try:
    import sklearn.callback
except ImportError:

    def test_set_callbacks_names_the_version_that_it_needs():
        for estimator in (KerasClassifier(), StackedKerasClassifier(), KerasFeatureTransformer()):
            with pytest.raises(AttributeError, match=r"scikit-learn 1\.9"):
                estimator.set_callbacks()
            assert not hasattr(estimator, "set_callbacks")

    pytest.skip("scikit-learn below 1.9 has no callbacks", allow_module_level=True)


class Recorder:
    """Records hooks with contexts, and each task as a path of names; it is not propagated."""

    def __init__(self, stop_after=None, fail_at=None):
        self.stop_after, self.fail_at = stop_after, fail_at
        self.begun, self.ended, self.lives = [], [], []

    def setup(self, estimator, context):
        self.root = context
        self.lives.append("setup")

    def teardown(self, estimator, context):
        self.lives.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.begun.append(context)

    def on_fit_task_end(self, estimator, context):
        self.ended.append(context)
        if context.task_name == self.fail_at:
            raise RuntimeError("the callback fails")
        return context.task_name.startswith("epoch") and context.task_id == self.stop_after

    def names(self, context=None):
        """Names of tasks by depth: a list of (name, names of its tasks)."""
        context = self.root if context is None else context
        name = context.task_name
        if context.source_task_name is not None:
            name = f"{context.source_task_name}: {context.estimator_name}"
        children = sorted(context._children_map.values(), key=lambda each: each.task_id)
        return name, [self.names(child) for child in children]


class Propagated(Recorder):
    """Reaches estimators at any depth."""

    max_propagation_depth = None


def network(**parameters):
    return KerasClassifier(SMALL, **{**FIT, **parameters})


def stack(**parameters):
    branches = [("a", network()), ("b", GaussianNB())]
    settings = {"downstream": network(), "cv": 2, "blend": False, "random_state": 0}
    return StackedKerasClassifier(branches, **{**settings, **parameters})


def recorded(estimator, X=X, y=Y, recorder=None):
    """The recorder of a fit, in which each task has begun and ended once, in this order."""
    recorder = Propagated() if recorder is None else recorder
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimator.set_callbacks(recorder).fit(X, y)
    assert recorder.lives == ["setup", "teardown"]
    begun, ended = (list(map(id, each)) for each in (recorder.begun, recorder.ended))
    assert sorted(begun) == sorted(ended)
    assert len(set(begun)) == len(begun)
    assert recorder.begun[0] is recorder.ended[-1] is recorder.root
    assert set(begun) <= set(map(id, recorder.root))
    for context in recorder.root:
        assert len(context._children_map) == context.max_subtasks
    return recorder


def leaves(*names):
    return [(name, []) for name in names]


EPOCH_TASKS = leaves(*["epoch"] * EPOCHS)


@pytest.mark.slow(first=3)
@pytest.mark.parametrize("engine", ["auto", "keras"])
@pytest.mark.parametrize("make", [KerasClassifier, KerasRegressor, KerasAutoencoder])
def test_tasks_of_a_network_are_its_epochs(make, engine):
    recorder = recorded(make(SMALL, engine=engine, **FIT) if make is not KerasAutoencoder
                        else make(engine=engine, **FIT))  # fmt: skip
    assert recorder.names() == ("fit", EPOCH_TASKS)
    assert [context.task_id for context in recorder.ended] == [0, 1, 0]


def test_tasks_of_bags_are_their_epochs():
    estimator = network(n_bags=3)
    recorder = recorded(estimator)
    bags = [(f"bag {number} of 3", EPOCH_TASKS) for number in (1, 2, 3)]
    assert recorder.names() == ("fit", bags)
    assert not any(
        "callback" in name for bag in estimator.bags_ for name in vars(bag) if name[0] == "_"
    )


def test_tasks_of_a_transformer_are_its_fits():
    of_fit = [(f"{name}: KerasClassifier", EPOCH_TASKS) for name in ("all rows",)]
    assert recorded(KerasFeatureTransformer(network(), cv=2)).names() == ("fit", of_fit)
    recorder = Propagated()
    own = KerasFeatureTransformer(make_pipeline(StandardScaler(), network()), cv=2, n_jobs=2)
    own.set_callbacks(recorder).fit_transform(X, Y)
    labels = ("all rows", "fold 1 of 2", "fold 2 of 2")
    tasks = [(f"{label}: KerasClassifier", EPOCH_TASKS) for label in labels]
    assert recorder.names() == ("fit", tasks)
    # Fits without folds, as scikit-learn counts them.
    assert recorded(KerasFeatureTransformer(GaussianNB(), cv=2, refit=False)).names() == (
        "fit",
        leaves("fold 1 of 2", "fold 2 of 2"),
    )


def tree_of_stack(name="fit"):
    labels = ("all rows", "fold 1 of 2", "fold 2 of 2")
    folds = [(f"{label}: KerasClassifier", EPOCH_TASKS) for label in labels]
    return name, [
        ("branch 'a': KerasFeatureTransformer", folds),
        ("branch 'b': KerasFeatureTransformer", leaves(*labels)),
        ("downstream: KerasClassifier", EPOCH_TASKS),
    ]


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_tasks_of_a_stack_are_branches_folds_and_epochs(n_jobs):
    own = stack(n_jobs=n_jobs)
    assert recorded(own).names() == tree_of_stack()
    kept = [*vars(own), *vars(own.downstream_), *vars(own.upstream_[0][1].estimator_)]
    assert kept.count("_skl_callbacks") == 1  # those that the user has set
    assert not {"_parent_callback_ctx", "_callback_fit_ctx"} & set(kept)


def test_tasks_of_a_blend_are_the_fits_without_folds():
    own = stack(blend=True, cv=3, downstream=GaussianNB(), n_jobs=2)
    own.upstream = [("a", GaussianNB()), ("own", KerasFeatureTransformer(GaussianNB(), cv=2))]
    _, (a, with_own_folds, *rest) = recorded(own).names()
    assert [name for name, _ in a[1]][4:] == [
        f"without folds {pair} of 3" for pair in ("1 and 2", "1 and 3", "2 and 3")
    ]
    without = "without fold 1 of 3: KerasFeatureTransformer"
    assert with_own_folds[1][3] == (without, leaves("all rows", "fold 1 of 2", "fold 2 of 2"))
    assert [name.partition(":")[0] for name, _ in rest] == [
        "downstream",
        *(f"downstream, without fold {number} of 3" for number in (1, 2, 3)),
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*more epochs might improve it")
def test_fine_tuning_and_the_search_for_epochs_are_tasks():
    tuned = stack(fine_tune=FineTune(epochs=2, early_stopping=False))
    tuned.upstream = [("a", network())]
    assert recorded(tuned).names()[1][-1] == ("fine-tuning", EPOCH_TASKS)
    recorder = Propagated()
    is_open = stack(downstream=KerasClassifier(SMALL, batch_size=32, n_iter_no_change=2))
    is_open.set_callbacks(recorder).fit(X, Y)
    labels = [name.partition(":")[0] for name, _ in recorder.names()[1]]
    assert labels[2:] == [
        *(f"epochs of the downstream, fit {number} of 3" for number in (1, 2, 3)),
        "downstream",
    ]


def test_tasks_of_an_ensemble_are_estimators_and_folds():
    X, y = regression()
    own = GreedyEnsembleRegressor([("a", Ridge()), ("b", KerasRegressor(SMALL, **FIT))], cv=2)
    recorder = Propagated()
    own.set_callbacks(recorder).fit(X, y)
    names = [name.partition(":")[0] for name, _ in recorder.names()[1]]
    assert names[:4] == ["a, fold 1 of 2", "a, fold 2 of 2", "b, fold 1 of 2", "b, fold 2 of 2"]
    assert names[4] == "a, all rows"
    fitted = [("a", Ridge().fit(X, y))]
    own = GreedyEnsembleRegressor(fitted, cv="prefit")
    assert recorded(own, X, y).names() == ("fit", [])


def test_tasks_of_a_search_reach_the_epochs():
    recorder = recorded(GridSearchCV(stack(), {"downstream__epochs": [EPOCHS]}, cv=2))
    split = tree_of_stack("candidate-split-evaluation: StackedKerasClassifier")
    refit = tree_of_stack("refit-with-best-params: StackedKerasClassifier")
    assert recorder.names() == ("fit", [("search", [split, split]), refit])


def test_propagation_ends_at_the_depth_of_the_callback():
    recorder = Propagated()
    recorder.max_propagation_depth = 1
    stack().set_callbacks(recorder).fit(X, Y)
    names = {context.task_name for context in recorder.begun if context.source_task_name is None}
    assert "fold 1 of 2" in names
    assert sum(context.task_name == "epoch" for context in recorder.begun) == EPOCHS  # downstream's
    alone = Recorder()
    stack().set_callbacks(alone).fit(X, Y)
    assert [context.task_name for context in alone.begun] == [
        "fit", "branch 'a'", "branch 'b'", "downstream",
    ]  # fmt: skip


def test_callbacks_of_a_part_see_the_whole_tree():
    recorder = Recorder()
    own = stack()
    own.upstream[0][1].set_callbacks(recorder)
    own.fit(X, Y)
    assert recorder.lives == ["setup", "teardown"] * 3
    assert sum(context.task_name == "epoch" for context in recorder.ended) == 3 * EPOCHS
    assert recorder.root.parent.parent.estimator_name == "StackedKerasClassifier"
    own.upstream[0][1].set_callbacks(Propagated())
    with pytest.raises(TypeError, match="auto-propagated callbacks"):
        own.fit(X, Y)


STOPPED = [{}, {"verbose": 1}, {"engine": "keras"}, {"early_stopping": True}]


@pytest.mark.parametrize("settings", STOPPED, ids=str)
def test_a_callback_stops_training_after_an_epoch(settings):
    stopped = network(epochs=9, **settings).set_callbacks(Recorder(stop_after=2))
    stopped.fit(X, Y)
    assert stopped.n_iter_ == len(stopped.loss_curve_) == 3
    shorter = network(epochs=3, **settings).fit(X, Y)
    np.testing.assert_array_equal(stopped.predict_proba(X), shorter.predict_proba(X))
    assert stopped.history_ == shorter.history_


@pytest.mark.parametrize("engine", ["auto", "keras"])
def test_many_epochs_are_one_task(engine, monkeypatch):
    monkeypatch.setattr(progress, "_MOST_TASKS_OF_EPOCHS", 2)
    settings = {"epochs": 5, "engine": engine}
    names = ["epochs 1 to 3", "epochs 4 to 5"]
    assert recorded(network(**settings)).names() == ("fit", leaves(*names))
    bags = recorded(network(n_bags=2, **settings)).names()
    assert bags == ("fit", [(f"bag {number} of 2", leaves(*names)) for number in (1, 2)])
    stopped = network(**settings).set_callbacks(Recorder(stop_after=0)).fit(X, Y)
    assert stopped.n_iter_ == 3
    early = Recorder()
    ended = network(**settings, early_stopping=True, tol=100.0, n_iter_no_change=1)
    ended.set_callbacks(early).fit(X, Y)
    assert ended.n_iter_ == 2
    assert early.begun[-1] is early.ended[0]  # the task of three epochs, of which two were trained
    # Who needs estimators hears of each epoch.
    fitted = Fitted()
    network(**settings).set_callbacks(fitted).fit(X, Y)
    assert [name for name, *_ in fitted.seen] == ["epoch"] * 5 + ["fit"]


def test_a_stop_in_a_stack_leaves_a_valid_stack():
    own = stack().set_callbacks(Propagated(stop_after=0)).fit(X, Y)
    assert own.downstream_.n_iter_ == own.upstream_[0][1].estimator_.n_iter_ == 1
    assert own.predict(X).shape == Y.shape


def test_an_error_tears_down_and_leaves_the_estimator_as_it_was():
    for estimator in (network(), stack(), KerasFeatureTransformer(network(), cv=2)):
        recorder = Propagated(fail_at="epoch")
        with pytest.raises(RuntimeError, match="the callback fails"):
            estimator.set_callbacks(recorder).fit(X, Y)
        assert recorder.lives == ["setup", "teardown"]
        assert not {"_callback_fit_ctx", "_skl_callbacks_to_teardown"} & set(vars(estimator))
        assert not estimator.__sklearn_is_fitted__()


class Fitted(Propagated):
    """Keeps the data of tasks, and the predictions of estimators as far as they are fitted."""

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None,
                        fitted_estimator=None):  # fmt: skip
        super().on_fit_task_end(estimator, context)
        self.seen = [*getattr(self, "seen", ()), (context.task_name, len(X), y, metadata)]
        self.predictions = [*getattr(self, "predictions", ()), fitted_estimator.predict_proba(X)]


@pytest.mark.parametrize("engine", ["auto", "keras"])
def test_callbacks_get_rows_and_fitted_estimators(engine):
    recorder = Fitted()
    weights = np.linspace(1, 2, len(Y))
    words = np.array(["no", "yes"])[Y]
    estimator = network(engine=engine).set_callbacks(recorder)
    estimator.fit(X, words, sample_weight=weights)
    assert [(name, n) for name, n, _, _ in recorder.seen] == [("epoch", 60)] * 2 + [("fit", 60)]
    assert all(set(y) == {"no", "yes"} for _, _, y, _ in recorder.seen)
    np.testing.assert_array_equal(recorder.seen[0][3]["sample_weight"], weights)
    shorter = network(engine=engine, epochs=1).fit(X, words, sample_weight=weights)
    np.testing.assert_allclose(recorder.predictions[0], shorter.predict_proba(X), rtol=1e-6)
    for predictions in recorder.predictions[1:]:
        np.testing.assert_allclose(predictions, estimator.predict_proba(X), rtol=1e-6)


def test_callbacks_change_no_bits():
    own = stack(random_state=0).set_callbacks(Propagated()).fit(X, Y)
    np.testing.assert_array_equal(own.predict_proba(X), stack().fit(X, Y).predict_proba(X))


def test_clones_share_callbacks_pickles_keep_them_and_files_do_not(tmp_path):
    recorder = Recorder()
    for estimator in (network(), stack(), KerasFeatureTransformer(network())):
        assert clone(estimator.set_callbacks(recorder))._skl_callbacks == [recorder]
        assert isinstance(pickle.loads(pickle.dumps(estimator))._skl_callbacks[0], Recorder)
        assert not hasattr(clone(estimator.set_callbacks()), "_skl_callbacks")
    fitted = stack(downstream=LogisticRegression().set_callbacks(recorder))
    fitted.set_callbacks(recorder).fit(X, Y)
    skstack.save(fitted, tmp_path / "stack.skstack")
    loaded = skstack.load(tmp_path / "stack.skstack")
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    assert not hasattr(loaded, "_skl_callbacks")
    assert not hasattr(loaded.downstream_, "_skl_callbacks")
    assert fitted._skl_callbacks == [recorder]


def test_the_progress_bar_shows_each_level():
    pytest.importorskip("rich", reason="ProgressBar needs rich")
    output = io.StringIO()
    search = GridSearchCV(stack(), {"cv": [2]}, cv=2, refit=False)
    bar = sklearn.callback.ProgressBar(max_propagation_depth=None)
    with contextlib.redirect_stdout(output):
        os.environ["COLUMNS"] = "200"
        try:
            search.set_callbacks(bar).fit(X, Y)
        finally:
            del os.environ["COLUMNS"]
    lines = output.getvalue().splitlines()
    shown = [
        "GridSearchCV - search #0",
        "GridSearchCV - candidate-split-evaluation | StackedKerasClassifier - fit #0",
        "StackedKerasClassifier - branch 'a' | KerasFeatureTransformer - fit #0",
        "KerasFeatureTransformer - fold 1 of 2 | KerasClassifier - fit #1",
        "StackedKerasClassifier - downstream | KerasClassifier - fit #2",
    ]
    for text in shown:
        assert any(text in line and "100%" in line for line in lines), (text, lines)


def test_the_scoring_monitor_scores_each_epoch():
    monitor = sklearn.callback.ScoringMonitor(scoring="accuracy")
    estimator = network().set_callbacks(monitor).fit(X, Y)
    scores = [row["accuracy"] for row in monitor.get_logs().data]
    assert len(scores) == 1 + EPOCHS
    assert scores[0] == scores[-1] == estimator.score(X, Y)
