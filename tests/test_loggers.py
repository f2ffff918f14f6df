"""Loggers that people use: those of Keras, MLflow and Optuna."""

import csv
import importlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from _fresh import run
from _models import FIT, SMALL, binary
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skstack
from skstack import KerasClassifier, StackedKerasClassifier

X, Y = binary()


def network(**parameters):
    return KerasClassifier(SMALL, **{**FIT, **parameters})


def stack():
    return StackedKerasClassifier(
        [("a", network())], downstream=LogisticRegression(), cv=2, random_state=0
    )


@pytest.mark.parametrize("engine", ["auto", "keras"])
def test_csv_files_hold_the_history(engine, tmp_path):
    path = tmp_path / "epochs.csv"
    logger = keras.callbacks.CSVLogger(path)
    fitted = network(engine=engine, callbacks=[logger], early_stopping=True).fit(X, Y)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    for name in ("loss", "val_loss"):
        values = [float(row[name]) for row in rows]
        np.testing.assert_allclose(values, fitted.history_[name], rtol=1e-6)


@pytest.mark.parametrize("engine", ["auto", "keras"])
def test_tensorboard_gets_the_history(engine, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard, of the extra `dev`, is not installed")
    accumulators = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    logger = keras.callbacks.TensorBoard(tmp_path)
    fitted = network(engine=engine, callbacks=[logger]).fit(X, Y)
    events = accumulators.EventAccumulator(str(tmp_path / "train")).Reload()
    values = [tf.make_ndarray(event.tensor_proto) for event in events.Tensors("epoch_loss")]
    np.testing.assert_allclose(values, fitted.loss_curve_, rtol=1e-6)


def test_optuna_prunes_by_epoch():
    optuna = pytest.importorskip("optuna", reason="optuna is not installed")
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial):
        def report(epoch, logs):
            trial.report(logs["val_loss"], epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        fitted = network(
            epochs=3,
            early_stopping=True,
            learning_rate=trial.suggest_float("learning_rate", 1e-9, 0.1),
            callbacks=keras.callbacks.LambdaCallback(on_epoch_end=report),
        ).fit(X, Y)
        return min(fitted.history_["val_loss"])

    study = optuna.create_study(pruner=optuna.pruners.MedianPruner(1, 0))
    for rate in (0.1, 1e-9):
        study.enqueue_trial({"learning_rate": rate})
    study.optimize(objective, n_trials=2)
    good, bad = study.trials
    assert good.state.name == "COMPLETE"
    assert len(good.intermediate_values) == 3
    assert bad.state.name == "PRUNED"
    assert 1 <= len(bad.intermediate_values) < 3


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # one in a database needs more packages
    module = pytest.importorskip("mlflow", reason="mlflow is in no extra: pip install mlflow")
    module.set_tracking_uri((tmp_path / "runs").as_uri())
    module.set_experiment("tests")
    yield module
    module.sklearn.autolog(disable=True)


@pytest.mark.filterwarnings("ignore")  # of mlflow
def test_mlflow_logs_searches_and_pipelines_and_not_a_bare_stack(mlflow):
    mlflow.sklearn.autolog(log_models=False)
    GridSearchCV(stack(), {"downstream__C": [0.1, 1.0]}, cv=2).fit(X, Y)
    make_pipeline(StandardScaler(), stack()).fit(X, Y)
    n_runs = len(mlflow.search_runs(output_format="list"))
    runs = mlflow.search_runs(output_format="list", order_by=["start_time"])
    assert any("best_cv_score" in run.data.metrics for run in runs)
    assert any("stackedkerasclassifier__cv" in run.data.params for run in runs)
    stack().set_params(downstream=network()).fit(X, Y)
    assert len(mlflow.search_runs(output_format="list")) == n_runs


LOAD = """
import sys
import numpy as np, mlflow
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.sklearn.load_model(sys.argv[2])
np.save(sys.argv[4], model.predict_proba(np.load(sys.argv[3])))
"""


@pytest.mark.filterwarnings("ignore")  # of mlflow
def test_mlflow_models_are_loaded_in_a_fresh_process(mlflow, tmp_path):
    fitted = stack().fit(X, Y)
    with mlflow.start_run():
        info = mlflow.sklearn.log_model(fitted, name="stack", serialization_format="cloudpickle")
    rows, answer = tmp_path / "X.npy", tmp_path / "p.npy"
    np.save(rows, X)
    uri = mlflow.get_tracking_uri()
    run(LOAD, uri, info.model_uri, rows, answer)
    np.testing.assert_allclose(np.load(answer), fitted.predict_proba(X), rtol=1e-6)


@pytest.mark.slow
def test_the_greetings_of_tensorflow_are_silenced(tmp_path):
    code = "import skstack; skstack.silence_tensorflow(); from skstack import KerasClassifier\n"
    code += "KerasClassifier(epochs=1).fit([[0.0], [1.0]] * 4, [0, 1] * 4); print('fitted')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert (done.stdout, done.stderr) == ("fitted\n", "")
    skstack.silence_tensorflow()  # has no effect once TensorFlow is imported


IMPORTED = """
import gc, sys
from skstack._base.tensorflow_import import no_garbage_collection

def imported(mine, collects=True):
    (gc.enable if collects else gc.disable)()
    ran = []
    with no_garbage_collection():
        gc.callbacks.append(lambda phase, about: ran.append(about["generation"]))
        new = [[] for _ in range(100_000)]  # far more than start a collection
        gc.callbacks.pop()
    print(len(ran), gc.isenabled(), any(each is new for each in gc.get_objects(generation=2)),
        gc.get_freeze_count() > 0, any(each is mine for each in gc.get_objects()))

gc.unfreeze()
imported([])
imported([], collects=False)
mine = []
gc.freeze()
imported(mine)
"""


def test_no_garbage_is_collected_while_tensorflow_is_imported():
    """What the user has switched off, or frozen, stays so."""
    # Number of collections; afterwards: collects, new objects are old ones, some are frozen, mine
    # is not.
    assert run(IMPORTED).splitlines() == [
        "0 True True False True",
        "0 False True False True",
        "0 True False True False",
    ]
