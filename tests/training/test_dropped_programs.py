"""Nothing of a dropped program stays: no graph, and no session, which holds what XLA compiled."""

import gc

import keras
import pytest
import tensorflow as tf

from skstack._base.lru_cache import LRUCache
from skstack._training import predict
from skstack._training.config import TrainConfig
from skstack._training.initial_weights import initial_variables
from skstack._training.program import Pool
from skstack._training.train import train
from skstack._training.variables import OwnSession


def alive():
    """How many graphs and sessions there are; each pass over all objects takes long."""
    gc.collect()
    kinds = [type(each) for each in gc.get_objects()]
    return [
        sum(issubclass(each, kind) for each in kinds) for kind in (tf.Graph, tf.compat.v1.Session)
    ]


@pytest.fixture
def fit_once(blueprint, binary_rows, monkeypatch):
    """A function that trains and predicts with a new architecture, and drops all it made."""

    def fit(units, engine="xla", *, predicts=True, **settings):
        def build():
            i = {"numeric": keras.Input((6,), name="numeric")}
            x = keras.layers.Dense(units, activation="relu")(i["numeric"])
            return keras.Model(i, keras.layers.Dense(1, activation="sigmoid")(x))

        network, rows = blueprint(build, key=("dropped", units)), binary_rows()
        plan = TrainConfig("binary_crossentropy", engine=engine, epochs=2, seed=0, **settings)
        validation = rows if "patience" in settings else None
        with monkeypatch.context() as patched:
            patched.setattr("skstack._training.train.POOL", Pool())
            patched.setattr(predict, "_PREDICTORS", LRUCache(64))
            start = initial_variables(network, 0)
            fit = train(network, start, rows, plan, validation=validation)
            for n_rows in (1, 20_000) if predicts else ():
                fit.network.outputs(binary_rows(n_rows).inputs)

    return fit


@pytest.mark.slow(first=1)
@pytest.mark.parametrize(
    "fits",
    [
        [("xla", {}), ("stepwise", {"patience": 1, "metrics": ["accuracy"]})],
        [("stepwise", {})],
        [("graph", {})],
        [("xla", {"patience": 1})],
        [("xla", {"metrics": ["accuracy"]})],
        [("graph", {"optimizer": keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True)})],
        [("graph", {"optimizer": keras.optimizers.AdamW(clipnorm=1.0, weight_decay=0.1)})],
    ],
)
def test_graphs_and_sessions_of_dropped_programs_are_released(fit_once, fits):
    def fit_all(units):
        for engine, settings in fits:  # predictions do not depend on the settings
            fit_once(units, engine, predicts=not settings, **settings)

    fit_all(5)
    before = alive()
    fit_all(6)
    graphs, sessions = alive()
    assert graphs <= before[0]  # others may end meanwhile
    assert sessions <= before[1]


@pytest.mark.slow
@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="no session on a GPU")
@pytest.mark.parametrize(("engine", "n_sessions"), [("graph", 0), ("xla", 1)])
def test_what_xla_compiles_runs_in_a_session(fit_once, monkeypatch, engine, n_sessions):
    """That of the training: predictions are not compiled."""
    made = []
    start = OwnSession.__init__

    def counted(self, *args, **kwargs):
        made.append(self)
        start(self, *args, **kwargs)

    monkeypatch.setattr(OwnSession, "__init__", counted)
    fit_once(8, engine)
    assert len(made) == n_sessions
