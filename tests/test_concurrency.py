"""Threads, processes and interrupted fits: results equal those of a single fit, none hangs."""

import os
import pickle
import random
import re
import signal
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from _fresh import run
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
)
from skstack._base.parallel import _Bits
from skstack._training.initial_weights import initial_variables
from skstack._training.isolation import preserve_rng
from skstack._training.program import POOL
from skstack.ensemble import GreedyEnsembleClassifier
from skstack.networks import MLP, Autoencoder
from skstack.networks._adopted import without_drawing
from tests._models import binary
from tests._records import Records, Task, marks

rng = np.random.default_rng(0)
X = rng.normal(size=(120, 5)).astype(np.float32)
Y = (X[:, 0] + 0.3 * rng.normal(size=120) > 0).astype(int)
TARGET = 100 + 9 * X[:, 0]


def frozen():
    i = keras.Input((5,))
    x = keras.layers.Dense(4, activation="tanh", name="inner")(i)
    model = keras.Model(i, keras.layers.Dense(1, activation="sigmoid")(x))
    return KerasFeatureTransformer(model, layers="inner", features="outputs", passthrough=True)


def stack(**settings):
    return StackedKerasClassifier(
        [
            ("risk", KerasClassifier(MLP(6, dropout=0.2), epochs=2)),
            ("odd", KerasAutoencoder(Autoencoder(4), epochs=2)),
        ],
        downstream=KerasClassifier(MLP(5), epochs=2),
        cv=3,
        random_state=0,
        **settings,
    )


MAKERS = {
    "classifier": lambda: KerasClassifier(MLP(7, dropout=0.3), epochs=3, random_state=0),
    "regressor": lambda: KerasRegressor(MLP(8), epochs=3, random_state=1),
    "autoencoder": lambda: KerasAutoencoder(Autoencoder(6, noise=0.2), epochs=3, random_state=2),
    "frozen": frozen,
    "stack": stack,
}


def target_of(estimator):
    return TARGET if isinstance(estimator, KerasRegressor) else Y


def all_outputs(estimator):
    """Results of every method, in one list of arrays."""
    given = [estimator.transform(X)] if hasattr(estimator, "transform") else []
    if hasattr(estimator, "predict"):
        given.append(estimator.predict(X))
    if hasattr(estimator, "predict_proba"):
        given.append(estimator.predict_proba(X))
    if isinstance(estimator, KerasAutoencoder):
        given += [estimator.inverse_transform(given[0]), estimator.reconstruction_error(X)]
    return given


def fitted_outputs(estimator):
    return all_outputs(clone(estimator).fit(X, target_of(estimator)))


def assert_same_bits(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


# -- Predictions -----------------------------------------------------------------------------------


@pytest.mark.slow(first=2)
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_sixteen_threads_predict_the_same_as_one(make):
    estimator = make().fit(X, target_of(make()))
    expected = fitted_outputs(make()) if make is not frozen else all_outputs(estimator)
    fresh = clone(estimator).fit(X, target_of(estimator))  # has predicted nothing yet
    start = threading.Barrier(16)

    def work(_):
        start.wait()
        return all_outputs(fresh)

    with ThreadPoolExecutor(16) as pool:
        for found in pool.map(work, range(16)):
            assert_same_bits(found, expected)


def test_concurrent_access_to_model_builds_one_model():
    classifier = MAKERS["classifier"]().fit(X, Y)
    start = threading.Barrier(8)

    def work(_):
        start.wait()
        return classifier.model_

    with ThreadPoolExecutor(8) as pool:
        assert len({id(model) for model in pool.map(work, range(8))}) == 1
    network = MAKERS["classifier"]().fit(X, Y).network_
    first = keras.Sequential()
    # Another thread finishes while the second is running.
    assert network.public(lambda model: network.public(lambda _: first) and model) is first
    old = classifier.model_
    assert classifier.fit(X, Y).model_ is not old


class Pause(keras.callbacks.Callback):
    """Halts a fit after its first epoch; the events belong to the class, for it is copied."""

    reached, released = threading.Event(), threading.Event()

    def on_epoch_end(self, epoch, logs=None):
        Pause.reached.set()
        Pause.released.wait(60)


@pytest.mark.slow(first=2)
@pytest.mark.parametrize("name", ["classifier", "regressor", "autoencoder", "stack"])
def test_predictions_during_a_refit_use_the_previous_fit(name):
    estimator = MAKERS[name]().fit(X, target_of(MAKERS[name]()))
    before = all_outputs(estimator)
    where = "downstream__callbacks" if name == "stack" else "callbacks"
    estimator.set_params(**{where: [Pause()]})
    Pause.reached.clear()
    Pause.released.clear()
    other_rows = np.hstack([X, X]) * 5
    y = target_of(estimator)
    other = y * 1000 if name == "regressor" else np.where(y, "yes", "no")
    refit = threading.Thread(target=estimator.fit, args=(other_rows, other))
    refit.start()
    assert Pause.reached.wait(60)
    assert_same_bits(all_outputs(estimator), before)
    Pause.released.set()
    refit.join()
    assert estimator.n_features_in_ == 10
    with pytest.raises(ValueError, match="5 features"):
        all_outputs(estimator)


@pytest.mark.parametrize("name", ["classifier", "regressor"])
def test_a_running_prediction_uses_one_fit(name, monkeypatch):
    estimator = MAKERS[name]().fit(X, target_of(MAKERS[name]()))
    before, outputs = estimator.predict(X), estimator.network_.outputs
    y = target_of(estimator)

    def refitted_meanwhile(*args):
        made = outputs(*args)
        estimator.fit(X, y * 1000 if name == "regressor" else np.where(y, "yes", "no"))
        return made

    monkeypatch.setattr(estimator.network_, "outputs", refitted_meanwhile)
    np.testing.assert_array_equal(estimator.predict(X), before)
    assert not np.array_equal(estimator.predict(X), before)


# -- Fits ------------------------------------------------------------------------------------------


def candidates():
    """Estimators of several architectures, seeds and settings."""
    return [
        KerasClassifier(MLP(units, dropout=dropout), epochs=3, random_state=seed, batch_size=size)
        for units, dropout, size, seed in [(4, 0.0, 32, 0), (7, 0.3, 32, 0), (7, 0.3, 32, 1)]
    ] + [MAKERS["regressor"](), MAKERS["autoencoder"]()]


@pytest.mark.xla
def test_concurrent_fits_in_threads_equal_a_single_fit():
    expected = [fitted_outputs(estimator) for estimator in candidates()]
    found = Parallel(8, backend="threading")(map(delayed(fitted_outputs), candidates() * 2))
    for each, wanted in zip(found, expected * 2, strict=True):
        assert_same_bits(each, wanted)


@pytest.mark.slow
@pytest.mark.xla
def test_concurrent_fits_in_workers_and_threads_equal_a_single_fit():
    expected = [fitted_outputs(estimator) for estimator in candidates()]
    in_threads = []

    def work():
        in_threads.extend(
            Parallel(8, backend="threading")(map(delayed(fitted_outputs), candidates()))
        )

    threads = threading.Thread(target=work)
    threads.start()
    in_workers = Parallel(2, backend="loky")(map(delayed(fitted_outputs), candidates()))
    threads.join()
    for found, wanted in zip(in_workers + in_threads, expected * 2, strict=True):
        assert_same_bits(found, wanted)


def test_predictions_beside_fits_of_the_same_architecture():
    classifier = MAKERS["classifier"]().fit(X, Y)
    expected = all_outputs(classifier)
    others = [clone(classifier).set_params(random_state=seed) for seed in range(4)]
    with ThreadPoolExecutor(8) as pool:
        fits = [pool.submit(other.fit, X, Y) for other in others]
        found = [pool.submit(all_outputs, classifier) for _ in range(20)]
        for future in found:
            assert_same_bits(future.result(), expected)
        for future in fits:
            future.result()
    for other in others:
        assert_same_bits(all_outputs(other), fitted_outputs(other))


def test_scores_do_not_depend_on_the_number_of_threads():
    classifier = MAKERS["classifier"]()
    serial = cross_val_score(classifier, X, Y, cv=3, scoring="neg_log_loss")
    with_jobs = Parallel(2, backend="threading")(
        delayed(cross_val_score)(classifier, X, Y, cv=3, scoring="neg_log_loss") for _ in range(2)
    )
    for scores in with_jobs:
        np.testing.assert_array_equal(scores, serial)


class ToFile:
    """A callback of scikit-learn that appends paths of tasks to a file, from any process."""

    max_propagation_depth = None

    def __init__(self, path):
        self.path = path

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        names = []
        while context is not None:
            names.append(context.task_name)
            context = context.parent
        with open(self.path, "a") as file:
            file.write(f"{os.getpid()} {' > '.join(names[::-1])}\n")


# A process that fits starts TensorFlow, which takes as long as many other tests.
@pytest.mark.slow(first=1)
@pytest.mark.parametrize("n_processes", [1, 2])
def test_scores_do_not_depend_on_the_backend(n_processes, tmp_path):
    """And callbacks are told what other processes do."""
    n_epochs, path, rows = MAKERS["classifier"]().epochs, tmp_path / "tasks.txt", np.arange(len(X))
    epochs, cv = ([n_epochs], [(rows, rows)]) if n_processes == 1 else ([1, n_epochs], 3)
    search = GridSearchCV(
        MAKERS["classifier"](), {"epochs": epochs}, cv=cv, scoring="neg_log_loss", refit=False
    )
    serial = clone(search).fit(X, Y)
    search.set_params(n_jobs=2)
    if told := hasattr(search, "set_callbacks"):  # from scikit-learn 1.9
        search.set_callbacks(ToFile(path))
    with parallel_config("loky"):
        search.fit(X, Y)
    scores = [name for name in serial.cv_results_ if name.endswith("_test_score")]
    for name in scores:
        np.testing.assert_array_equal(search.cv_results_[name], serial.cv_results_[name])
    if told:
        pids, _, tasks = zip(
            *(line.partition(" ") for line in path.read_text().splitlines()), strict=True
        )
        n_tasks = sum(epochs) * search.n_splits_
        assert tasks.count("fit > search > fit > epoch") == n_tasks
        assert {pid for pid, task in zip(pids, tasks, strict=True) if "epoch" in task} - {
            str(os.getpid())
        }


class Process(ClassifierMixin, BaseEstimator):
    """Records the process in which it was fitted."""

    def fit(self, X, y):
        self.classes_, self.process_ = np.unique(y), os.getpid()
        return self

    def decision_function(self, X):
        return np.full(len(X), float(self.process_))

    def predict(self, X):
        return self.classes_[np.zeros(len(X), int)]


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_folds_are_fitted_in_threads_with_any_backend(n_jobs):
    """A fold in another worker would compile again, or meet other versions."""
    X, y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
    with parallel_config("loky", n_jobs=2):
        found = KerasFeatureTransformer(Process(), n_jobs=n_jobs).fit_transform(X, y)
    np.testing.assert_array_equal(found, os.getpid())


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_parts_inside_a_parallel_search_stay_in_its_threads(backend, tmp_path):
    """Two candidates at a time with four folds each are two threads at work, and not eight."""
    inner = KerasFeatureTransformer(Records(tmp_path), cv=3, n_jobs=4)
    outer = StackedKerasClassifier(
        [("features", inner)], downstream=Records(tmp_path), cv=3, n_jobs=4, scaler=None
    )
    pipeline = make_pipeline(Task(tmp_path), outer)
    with parallel_config(backend):
        cross_val_score(pipeline, X, Y, cv=3, n_jobs=2)
    tasks = marks(tmp_path, "task")
    assert 1 <= len(tasks) <= 2
    assert marks(tmp_path, "fit") <= tasks


def test_outside_of_a_parallel_search_folds_run_in_threads_of_their_own(tmp_path):
    features = KerasFeatureTransformer(Records(tmp_path), cv=3, n_jobs=2, refit=False)
    cross_val_score(make_pipeline(features, Records(tmp_path)), X, Y, cv=2)
    threads = marks(tmp_path, "fit")
    assert (os.getpid(), threading.get_ident()) in threads  # the last step
    assert len(threads) > 1


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_numbers_of_rows_are_sent_as_bits_where_that_is_less(dtype):
    rows = np.delete(np.arange(10_000, dtype=dtype), slice(300, 500))
    sent = _Bits.of(rows)
    assert len(pickle.dumps(sent)) < 0.1 * len(pickle.dumps(rows))
    np.testing.assert_array_equal(sent.rows(), rows)
    assert sent.rows().dtype == dtype


@pytest.mark.parametrize(
    "value",
    [
        np.array([2, 1]),
        np.array([1, 1]),
        np.array([0, 10**9]),
        np.array([-1, 0]),
        np.array([], int),
        np.arange(3.0),
        np.eye(2, dtype=int),
        None,
        "fold 1 of 3",
    ],
    ids=repr,
)
def test_all_else_is_sent_as_it_is(value):
    assert _Bits.of(value) is value


def test_a_stack_is_bit_identical_with_and_without_threads():
    expected = fitted_outputs(stack())
    assert_same_bits(fitted_outputs(stack(n_jobs=4)), expected)


@pytest.fixture
def half_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


class Policy(ClassifierMixin, BaseEstimator):
    """Remembers the dtype policy under which it was fitted."""

    seen = []

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.seen.append(keras.config.dtype_policy().name)
        return self

    def predict_proba(self, X):
        return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))


def test_threads_of_an_ensemble_keep_the_callers_dtype_policy(half_precision):
    X, y = binary()
    Policy.seen.clear()
    GreedyEnsembleClassifier([("a", Policy()), ("b", Policy())], n_jobs=2).fit(X, y)
    assert set(Policy.seen) == {"mixed_bfloat16"}


@pytest.mark.slow
def test_threads_of_a_stack_keep_the_callers_dtype_policy(half_precision):
    expected = fitted_outputs(stack())
    assert_same_bits(fitted_outputs(stack(n_jobs=4)), expected)


class Containers(TransformerMixin, BaseEstimator):
    """Notes in what kind of table its fold comes, which scikit-learn's settings decide."""

    seen = []

    def fit(self, X, y=None):
        Containers.seen.append(
            type(clone(KerasAutoencoder(Autoencoder(3), epochs=1)).fit_transform(X)).__name__
        )
        return self

    def transform(self, X):
        return np.asarray(X)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


def test_threads_of_a_cross_fit_keep_scikit_learns_settings():
    Containers.seen.clear()
    with config_context(transform_output="pandas"):
        KerasFeatureTransformer(Containers(), cv=3, n_jobs=3).fit_transform(X, Y)
    assert Containers.seen == ["DataFrame"] * 4


# -- Seeds -----------------------------------------------------------------------------------------


class Building:
    """A network of two layers; something happens between them."""

    key = None

    def __init__(self, between=lambda: None):
        self.between = between

    def build(self):
        i = keras.Input((5,), name="numeric")
        x = keras.layers.Dense(4)(i)
        self.between()
        return keras.Model({"numeric": i}, keras.layers.Dense(1)(x))


def test_layers_built_in_other_threads_do_not_change_seeds():
    expected = initial_variables(Building(), 0)
    regressor = MAKERS["regressor"]().fit(X, TARGET)
    others, waiting = [], []

    def disturb():
        for make in (lambda: regressor.model_, without_drawing(lambda: None)):
            others.append(threading.Thread(target=make))
            others[-1].start()
            others[-1].join(0.5)
            waiting.append(others[-1].is_alive())

    found = initial_variables(Building(disturb), 0)
    assert waiting == [True, True]
    for thread in others:
        thread.join()
    for path, array in expected.items():
        np.testing.assert_array_equal(found[path], array)


def test_model_does_not_use_the_global_generator():
    regressor = MAKERS["regressor"]().fit(X, TARGET)
    state = random.getstate()
    assert regressor.model_.name == "mlp"
    assert random.getstate() == state


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads here")
def test_an_interrupted_build_restores_the_global_generator():
    escaped, ended = threading.Event(), threading.Event()
    main = threading.main_thread().ident

    def interrupt():
        signal.pthread_kill(main, signal.SIGINT)
        escaped.wait(0.5)
        ended.set()

    state = random.getstate()
    with pytest.raises(KeyboardInterrupt):
        initial_variables(Building(interrupt), 0)
    assert ended.is_set()
    escaped.set()
    assert random.getstate() == state
    with preserve_rng():  # the lock is free
        pass


# -- What goes wrong in the middle -----------------------------------------------------------------


class Fails(keras.callbacks.Callback):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise self.error


def test_a_failed_fit_changes_and_blocks_nothing():
    sound = MAKERS["classifier"]()
    expected = fitted_outputs(sound)
    fails = [Fails(OSError("disk full"))]
    unfitted = clone(sound).set_params(callbacks=fails)
    with pytest.raises(OSError, match="disk full"):
        unfitted.fit(X, Y)
    assert not hasattr(unfitted, "classes_")
    classifier = clone(sound).fit(X, Y).set_params(callbacks=fails)
    with pytest.raises(OSError, match="disk full"):
        classifier.fit(np.hstack([X, X]), np.where(Y, "yes", "no"))
    assert_same_bits(all_outputs(classifier), expected)
    assert not POOL._lock.locked()
    assert_same_bits(fitted_outputs(sound), expected)
    assert_same_bits(all_outputs(unfitted.set_params(callbacks=None).fit(X, Y)), expected)


class Dies(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.xla
def test_a_worker_killed_during_fit_raises_and_the_next_fit_works():
    classifier = MAKERS["classifier"]()
    doomed = clone(classifier).set_params(callbacks=[Dies()])
    with pytest.raises(TerminatedWorkerError):
        Parallel(2, backend="loky")([delayed(fitted_outputs)(doomed)])
    expected = fitted_outputs(classifier)
    (found,) = Parallel(2, backend="loky")([delayed(fitted_outputs)(classifier)])
    assert_same_bits(found, expected)


FORKS = """
    def text_of(error):
        return f"{type(error).__name__}: {error}"

    def by_os(work):
        read, write = os.pipe()
        if os.fork() == 0:
            try:
                message = f"no error: {work()}"
            except BaseException as error:
                message = text_of(error)
            os.write(write, message.encode())
            os._exit(0)
        os.close(write)
        return os.fdopen(read).read()

    def by_multiprocessing(work):
        with multiprocessing.get_context("fork").Pool(1) as pool:
            try:
                return f"no error: {pool.apply(work)}"
            except Exception as error:
                return text_of(error)

    def outcome(work):
        try:
            return f"no error: {work()}"
        except Exception as error:
            return text_of(error)

    def by_joblib(work):  # errors are returned: joblib may hang when it kills its other worker
        done = Parallel(2, backend="multiprocessing")(delayed(outcome)(work) for _ in range(2))
        return done[0] if done[0] == done[1] else f"not equal: {done}"
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_after_tensorflow_started_raises_instead_of_hanging(tmp_path):
    program = """
        import multiprocessing, os, warnings
        import numpy as np
        from joblib import Parallel, delayed, parallel_config
        from skstack import KerasClassifier, KerasFeatureTransformer, KerasRegressor
        from skstack import StackedKerasClassifier
        from skstack.networks import MLP

        warnings.simplefilter("ignore")
        X = np.random.default_rng(0).normal(size=(60, 3))
        y = np.arange(60) % 2
        fitted = KerasRegressor(MLP(3), epochs=1).fit(X, y)
        unfitted = [KerasClassifier(MLP(3, activation=abs), epochs=1), KerasFeatureTransformer(),
                    KerasClassifier(MLP(), optimizer="rmsprop"), StackedKerasClassifier()]

        def work_predict(): return fitted.predict(X)
        def work_model(): return fitted.model_
        def work_0(): return unfitted[0].fit(X, y)
        def work_1(): return unfitted[1].fit(X, y)
        def work_2(): return unfitted[2].fit(X, y)
        def work_3(): return unfitted[3].fit(X, y)
    """
    ending = """
        for work in (work_predict, work_model, work_0, work_1, work_2, work_3):
            print(by_os(work), flush=True)
        for fork in (by_multiprocessing, by_joblib):
            for work in (work_predict, work_3):
                print(fork(work), flush=True)
    """
    code = "".join(map(textwrap.dedent, (program, FORKS, ending)))
    lines = run(code, cwd=tmp_path).splitlines()
    assert len(lines) == 6 + 2 * 2
    forked = re.compile("RuntimeError: .*This process was forked after TensorFlow had started")
    assert all(forked.match(line) for line in lines), lines
