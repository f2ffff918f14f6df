"""Three tables and three networks that the tests share.

Compilation is what tests cost. Fits on these tables, with these networks and ``FIT``, share the
compiled programs of a worker: all have at most 64 rows, in tables, folds and batches. Use others
only where the point of a test needs them. Tables are functions: each call returns a new copy.
"""

import keras
import numpy as np
import pandas as pd
from sklearn.model_selection import KFold
from sklearn.preprocessing import TargetEncoder

from skstack._base.sklearn import ENCODER_TAKES_FOLDS
from skstack.networks import MLP, recipe

N_ROWS = 60
N_FEATURES = 4
FIT = {"epochs": 2, "batch_size": 32, "random_state": 0}
COLUMNS = ["a", "b", "c", "d"]


def _numbers():
    """Four columns: noise of unit variance, about another mean each."""
    return np.random.default_rng(0).normal([0, 1, 2, 3], size=(N_ROWS, N_FEATURES))


def binary(frame=False):
    """Return X of shape (60, 4) and y of 0 and 1, separable but for noise; 30 rows of each."""
    X = _numbers()
    score = X[:, 0] + X[:, 1] - X[:, 2] + np.random.default_rng(1).normal(0, 0.3, N_ROWS)
    y = (score > np.median(score)).astype(int)
    return (pd.DataFrame(X, columns=COLUMNS) if frame else X), y


def mixed(gap=False):
    """Return a frame of four numbers, strings ("job") and bools ("member"); y of three words.

    With ``gap``, one number is missing.
    """
    X = pd.DataFrame(_numbers(), columns=COLUMNS)
    rng = np.random.default_rng(2)
    X["job"] = rng.permutation(np.repeat(["cook", "driver", "vet"], N_ROWS // 3))
    X["member"] = rng.random(N_ROWS) < 0.5
    if gap:
        X.loc[3, "b"] = np.nan
    third = (X["a"] + (X["job"] == "vet")).rank().to_numpy() // (N_ROWS / 3 + 1e-9)
    return X, np.array(["low", "middle", "high"])[third.astype(int)]


def regression(n_targets=1, frame=False):
    """Return X of shape (60, 4) and y of shape (60,) or (60, n_targets), linear but for noise."""
    X = _numbers()
    weights = np.random.default_rng(3).normal(size=(N_FEATURES, n_targets))
    y = X @ weights + np.random.default_rng(4).normal(0, 0.1, (N_ROWS, n_targets))
    return (pd.DataFrame(X, columns=COLUMNS) if frame else X), y[:, 0] if n_targets == 1 else y


def target_encoder(**settings):
    """Return a TargetEncoder with three folds that are not shuffled."""
    if ENCODER_TAKES_FOLDS:
        return TargetEncoder(cv=KFold(3), **settings)
    return TargetEncoder(cv=3, shuffle=False, **settings)


SMALL = MLP((4,))
"""The network of all estimators whose network does not matter."""


@recipe
def two_layers(spec, *, hidden=6, code=3):
    """Return a network whose layers "hidden" and "code" have names to take features from."""
    inputs = spec.inputs()
    x = keras.layers.Dense(hidden, "relu", name="hidden")(spec.join(inputs))
    x = keras.layers.Dense(code, "tanh", name="code")(x)
    return keras.Model(inputs, spec.outputs(x))


def keras_model(units=1, activation="sigmoid", *, compiled=False):
    """Return a functional model of Keras: N_FEATURES columns, the layers "hidden" and "output"."""
    columns = keras.Input((N_FEATURES,), name="columns")
    x = keras.layers.Dense(5, "relu", name="hidden")(columns)
    model = keras.Model(columns, keras.layers.Dense(units, activation, name="output")(x))
    if compiled:
        losses = {"sigmoid": "binary_crossentropy", "softmax": "sparse_categorical_crossentropy"}
        model.compile("adam", losses.get(activation, "mse"))
    return model
