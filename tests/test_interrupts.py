"""Ctrl-C: what of the training is kept, where the interrupt goes on, and that nothing is left."""

import math
import signal
import threading

import keras
import numpy as np
import pandas as pd
import pytest
from _models import SMALL, binary, regression
from imblearn.pipeline import Pipeline as SamplingPipeline
from sklearn.base import clone
from sklearn.ensemble import BaggingClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasMultiTask,
    KerasRegressor,
    StackedKerasClassifier,
)
from skstack._training import engines, interrupts, program
from skstack._training.monitor import TrainingMonitor
from skstack._training.program import POOL, CompiledFit

EPOCHS = 6
FIT = {"epochs": EPOCHS, "batch_size": 32, "random_state": 0}
X, Y = binary()
KEPT = "Training interrupted by user after epoch {} of 6"


@pytest.fixture(autouse=True)
def _first_interrupt(monkeypatch):
    """No test is within two seconds of the last one's interrupt."""
    monkeypatch.setattr(interrupts, "_last_time", -math.inf)


def interrupt():
    signal.raise_signal(signal.SIGINT)


def raise_interrupt():
    raise KeyboardInterrupt


class Interrupts(keras.callbacks.Callback):
    """Interrupts at an event of an epoch; ``armed`` is for all copies."""

    armed = True
    ended = 0

    def __init__(self, event="on_epoch_end", epoch=3, how=interrupt):
        super().__init__()
        self.event, self.epoch, self.how = event, epoch, how

    def _at(self, event, epoch):
        if Interrupts.armed and (event, epoch) == (self.event, self.epoch):
            self.how()

    def on_epoch_begin(self, epoch, logs=None):
        self._at("on_epoch_begin", epoch)

    def on_epoch_end(self, epoch, logs=None):
        self._at("on_epoch_end", epoch)

    def on_train_end(self, logs=None):
        Interrupts.ended += 1
        self._at("on_train_end", None)


@pytest.fixture(autouse=True)
def _armed(monkeypatch):
    monkeypatch.setattr(Interrupts, "armed", True)
    monkeypatch.setattr(Interrupts, "ended", 0)


def weights(estimator):
    return {name: array.tobytes() for name, array in estimator.network_.variables.items()}


def assert_same_fit(one, other):
    assert weights(one) == weights(other)
    assert one.n_iter_ == other.n_iter_
    assert one.history_ == other.history_
    assert one.validation_scores_ == other.validation_scores_


def classifier(**kwargs):
    return KerasClassifier(SMALL, **{**FIT, **kwargs})


# What is kept ------------------------------------------------------------------------------------


@pytest.mark.slow(first=4)
@pytest.mark.parametrize("how", [interrupt, raise_interrupt], ids=["signal", "raised"])
@pytest.mark.parametrize(
    ("event", "epoch", "n_kept"), [("on_epoch_end", 3, 4), ("on_epoch_begin", 3, 3)]
)
@pytest.mark.parametrize("engine", ["auto", "keras"])
def test_the_last_finished_epoch_is_kept(engine, event, epoch, n_kept, how):
    sound = classifier(engine=engine)
    interrupted = clone(sound).set_params(callbacks=[Interrupts(event, epoch, how)])
    with pytest.warns(UserWarning, match=KEPT.format(n_kept)):
        interrupted.fit(X, Y)
    assert Interrupts.ended == 1
    assert_same_fit(interrupted, clone(sound).set_params(epochs=n_kept).fit(X, Y))
    # Nothing is left of it.
    assert not POOL._lock.locked()
    Interrupts.armed = False
    whole = clone(sound).fit(X, Y)
    assert whole.n_iter_ == EPOCHS
    assert_same_fit(clone(interrupted).fit(X, Y), whole)


class MidEpoch(Interrupts):
    """Interrupts in the first batch of an epoch."""

    n_epochs = -1

    def on_epoch_begin(self, epoch, logs=None):
        self.n_epochs = epoch

    def on_train_batch_end(self, batch, logs=None):
        self._at("on_train_batch_end", self.n_epochs)


class Keeps(MidEpoch):
    """Changes the weights at the end of each epoch."""

    def on_epoch_end(self, epoch, logs=None):
        bias = self.model.trainable_variables[-1]
        bias.assign(bias * 0.5)


@pytest.mark.parametrize("kind", [MidEpoch, Keeps])
def test_an_epoch_that_has_only_begun_is_lost(kind):
    interrupted = classifier(callbacks=[kind("on_train_batch_end", 3)])
    with pytest.warns(UserWarning, match=KEPT.format(3)):
        interrupted.fit(X, Y)
    Interrupts.armed = False
    assert_same_fit(interrupted, clone(interrupted).set_params(epochs=3).fit(X, Y))


@pytest.mark.parametrize("engine", ["auto", "keras"])
def test_the_best_monitored_epoch_is_kept(engine):
    sound = classifier(engine=engine, early_stopping=True, learning_rate=0.05)
    data = {"X_val": X, "y_val": 1 - Y}  # what is learned is wrong there
    interrupted = clone(sound).set_params(callbacks=[Interrupts()])
    with pytest.warns(UserWarning, match="best finished epoch"):
        interrupted.fit(X, Y, **data)
    stopped = clone(sound).set_params(epochs=4).fit(X, Y, **data)
    assert_same_fit(interrupted, stopped)
    assert int(np.argmax(stopped.validation_scores_)) < 3
    assert weights(stopped) != weights(
        clone(sound).set_params(early_stopping=False, epochs=4).fit(X, Y)
    )


@pytest.mark.parametrize("stops", [False, True], ids=["whole", "early stopping"])
def test_a_fit_without_callbacks_is_interrupted_between_calls(stops, monkeypatch):
    monkeypatch.setattr(program, "_SECONDS_PER_CALL", 0.0)  # each call trains one batch of two
    sound = classifier()
    data = {"X_val": X[:20], "y_val": Y[:20]} if stops else {}
    expected = clone(sound).set_params(epochs=3).fit(X, Y, **data)
    whole = clone(sound).fit(X, Y, **data)
    calls, call = [], CompiledFit._call

    def counted(*args):
        calls.append(args)
        outputs = call(*args)
        if len(calls) == 8:
            interrupt()
        return outputs

    monkeypatch.setattr(CompiledFit, "_call", counted)
    interrupted = clone(sound)
    with pytest.warns(UserWarning, match=KEPT.format(3)):
        interrupted.fit(X, Y, **data)
    assert_same_fit(interrupted, expected)
    assert_same_fit(clone(sound).fit(X, Y, **data), whole)


def test_epochs_whose_end_was_not_handled_are_kept(monkeypatch):
    """Many epochs are trained by one call; their logs are recorded afterwards."""
    expected = classifier().fit(X, Y)
    end = TrainingMonitor.epoch_end

    def interrupting(self, *arguments):
        stops = end(self, *arguments)
        if self.n_epochs == 2:
            interrupt()
        return stops

    monkeypatch.setattr(TrainingMonitor, "epoch_end", interrupting)
    with pytest.warns(UserWarning, match=KEPT.format(6)):
        assert_same_fit(classifier().fit(X, Y), expected)


@pytest.mark.slow(first=1)
@pytest.mark.parametrize(
    ("sound", "y"),
    [
        (KerasRegressor(SMALL), regression()[1]),
        (KerasAutoencoder(), None),
        (KerasMultiTask(SMALL), pd.DataFrame({"kind": Y, "amount": X[:, 0]})),
    ],
    ids=["regressor", "autoencoder", "several targets"],
)
def test_every_network_estimator_keeps_its_training(sound, y):
    interrupted = clone(sound).set_params(**FIT, callbacks=[Interrupts()])
    with pytest.warns(UserWarning, match=KEPT.format(4)):
        interrupted.fit(X, y)
    assert interrupted.n_iter_ == 4
    if y is None:
        interrupts._last_time = -math.inf
        with pytest.warns(UserWarning, match=KEPT.format(4)):
            clone(interrupted).fit_transform(X)


def test_a_warm_start_keeps_what_it_added():
    sound = classifier(warm_start=True)
    expected = clone(sound).fit(X, Y).set_params(epochs=4).fit(X, Y)
    interrupted = clone(sound).fit(X, Y).set_params(callbacks=[Interrupts()])
    with pytest.warns(UserWarning, match=KEPT.format(4)):
        interrupted.fit(X, Y)
    assert weights(interrupted) == weights(expected)


def test_the_fit_of_a_subclass_is_that_of_its_user():
    class Own(KerasClassifier):
        def fit(self, X, y):
            return super().fit(X, y)

    with pytest.warns(UserWarning, match=KEPT.format(4)):
        Own(SMALL, **FIT, callbacks=[Interrupts()]).fit(X, Y)


# Where the interrupt goes on ---------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["auto", "keras"])
@pytest.mark.parametrize("fitted", [False, True], ids=["new", "fitted before"])
def test_an_interrupt_before_the_first_epoch_ends_is_raised(engine, fitted):
    estimator = classifier(engine=engine, callbacks=[Interrupts("on_epoch_begin", 0)])
    if fitted:
        Interrupts.armed = False
        estimator.fit(X, Y)
        Interrupts.armed = True
        before = weights(estimator)
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(X[:, :3], np.where(Y, "yes", "no"))
    if fitted:
        assert weights(estimator) == before
        assert set(estimator.predict(X)) <= {0, 1}
    else:
        assert not hasattr(estimator, "classes_")


network = classifier(callbacks=[Interrupts()])
CALLERS = {
    "Pipeline": make_pipeline(StandardScaler(), network),
    "imblearn": SamplingPipeline([("scale", StandardScaler()), ("net", network)]),
    "bags": classifier(callbacks=[Interrupts()], n_bags=2),
    "BaggingClassifier": BaggingClassifier(network, n_estimators=2),
    "VotingClassifier": VotingClassifier([("a", network), ("b", network)], voting="soft"),
    "GridSearchCV": GridSearchCV(network, {"learning_rate": [0.01, 0.1]}, cv=2),
    "KerasFeatureTransformer": KerasFeatureTransformer(network, cv=2),
    "upstream": StackedKerasClassifier([("a", network)], downstream=classifier(), cv=2),
    "downstream": StackedKerasClassifier(KerasAutoencoder(epochs=2), downstream=network, cv=2),
}


@pytest.mark.parametrize("caller", CALLERS)
def test_the_interrupt_ends_what_called_the_fit(caller):
    estimator = clone(CALLERS[caller])
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(X, Y)
    if not isinstance(estimator, BaggingClassifier | VotingClassifier | GridSearchCV):
        with pytest.raises(NotFittedError):
            check_is_fitted(estimator)


def test_a_stack_that_was_fitted_before_stays_as_it_was():
    stack = clone(CALLERS["upstream"]).set_params(random_state=0)
    Interrupts.armed = False
    expected = stack.fit(X, Y).predict_proba(X)
    Interrupts.armed = True
    with pytest.raises(KeyboardInterrupt):
        stack.fit(X[:40, ::-1], Y[:40])
    assert np.array_equal(stack.predict_proba(X), expected)
    Interrupts.armed = False
    assert np.array_equal(clone(stack).fit(X, Y).predict_proba(X), expected)


def test_the_interrupt_ends_a_cross_validation():
    with pytest.raises(KeyboardInterrupt):
        cross_val_score(network, X, Y, cv=2)


def test_a_fit_in_another_thread_is_not_interrupted_by_the_user():
    outcome = []

    def fit():
        with pytest.raises(KeyboardInterrupt):
            classifier(callbacks=[Interrupts(how=raise_interrupt)]).fit(X, Y)
        outcome.append(True)

    thread = threading.Thread(target=fit)
    thread.start()
    thread.join()
    assert outcome == [True]


class FromAnotherThread(keras.callbacks.Callback):
    """Interrupts the main thread, once."""

    sent = False

    def on_epoch_end(self, epoch, logs=None):
        if not FromAnotherThread.sent:
            FromAnotherThread.sent = True
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads here")
@pytest.mark.parametrize("engine", ["auto", "keras"])
def test_threads_that_train_folds_end_with_the_interrupt(engine, monkeypatch):
    monkeypatch.setattr(FromAnotherThread, "sent", False)
    monkeypatch.setattr(engines, "_STEPS_WORTH_XLA", {"masked": 10**9, "exact": 10**9})
    endless = classifier(engine=engine, epochs=10**6, callbacks=[FromAnotherThread()])
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        KerasFeatureTransformer(endless, cv=2, refit=False, n_jobs=2).fit(X, Y)
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive()


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def monotonic(self):
        return self.now


def test_the_second_interrupt_within_two_seconds_is_raised(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(interrupts, "time", clock)
    with pytest.warns(UserWarning, match=KEPT.format(4)):
        clone(network).fit(X, Y)
    clock.now += 1.9
    with pytest.raises(KeyboardInterrupt):
        clone(network).fit(X, Y)
    clock.now += 2.1
    with pytest.warns(UserWarning, match=KEPT.format(4)):
        clone(network).fit(X, Y)


@pytest.mark.parametrize("engine", ["auto", "keras"])
def test_an_interrupt_while_the_training_is_ended_is_raised(engine):
    estimator = classifier(engine=engine)
    expected = clone(estimator).fit(X, Y)
    twice = [Interrupts(), Interrupts("on_train_end", None)]
    with pytest.raises(KeyboardInterrupt):
        estimator.set_params(callbacks=twice).fit(X, Y)
    assert not hasattr(estimator, "classes_")
    assert_same_fit(estimator.set_params(callbacks=None).fit(X, Y), expected)


class MidValidation(keras.callbacks.Callback):
    """Interrupts the second validation."""

    n = 0

    def on_test_batch_end(self, batch, logs=None):
        self.n += 1
        if Interrupts.armed and self.n == 2:
            interrupt()


def test_an_interrupted_validation_leaves_no_rows_to_the_next_fit():
    sound = classifier(callbacks=[MidValidation()])
    Interrupts.armed = False
    expected = clone(sound).fit(X, Y, X_val=X[:20], y_val=Y[:20])
    Interrupts.armed = True
    with pytest.warns(UserWarning, match=KEPT.format(1)):
        clone(sound).fit(X, Y, X_val=X[20:], y_val=1 - Y[20:])
    Interrupts.armed = False
    assert_same_fit(clone(sound).fit(X, Y, X_val=X[:20], y_val=Y[:20]), expected)
