"""One network with the same settings in skstack, scikeras, plain Keras and scikit-learn."""

import warnings
from itertools import pairwise

import numpy as np
from harness import one_thread
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.utils import ClassifierTags


def table(n_rows, n_columns, seed=0):
    """Standardised float32 columns and two classes, of which one has a third of the rows."""
    X, y = make_classification(
        n_rows,
        n_columns,
        n_informative=min(10, n_columns),
        n_redundant=0,
        weights=[0.67],
        random_state=seed,
    )
    return StandardScaler().fit_transform(X).astype(np.float32), y


def ours(hidden, epochs, batch_size, **parameters):
    from skstack import KerasClassifier
    from skstack.networks import MLP

    settings = {"learning_rate": 1e-3, "early_stopping": False, **parameters}
    return KerasClassifier(
        MLP(hidden_layer_sizes=hidden), epochs=epochs, batch_size=batch_size, **settings
    )


def keras_model(n_columns=30, hidden=(64,)):
    import keras

    layers = [keras.layers.Dense(units, activation="relu") for units in hidden]
    return keras.Sequential(
        [keras.Input((n_columns,)), *layers, keras.layers.Dense(1, activation="sigmoid")]
    )


def scikeras(hidden, epochs, batch_size, n_columns=30, learning_rate=1e-3, **parameters):
    from scikeras.wrappers import KerasClassifier

    class Tagged(KerasClassifier):
        """Told to be a classifier, which scikit-learn from 1.6 on does not see by itself."""

        def __sklearn_tags__(self):
            tags = super().__sklearn_tags__()
            tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags()
            return tags

    # random_state is left out: scikeras would switch the whole process to deterministic kernels.
    return Tagged(
        keras_model,
        model__n_columns=n_columns,
        model__hidden=hidden,
        loss="binary_crossentropy",
        optimizer="adam",
        optimizer__learning_rate=learning_rate,
        epochs=epochs,
        batch_size=batch_size,
        verbose=0,
        **parameters,
    )


def wrapped(hidden, epochs, batch_size):
    import keras
    from keras.wrappers import SKLearnClassifier

    def build(X, y, loss):
        layers = [keras.layers.Dense(units, activation="relu") for units in hidden]
        outputs = keras.layers.Dense(2, activation="softmax")
        model = keras.Sequential([keras.Input(X.shape[1:]), *layers, outputs])
        model.compile(keras.optimizers.Adam(1e-3), loss)
        return model

    return SKLearnClassifier(
        build,
        model_kwargs={"loss": "categorical_crossentropy"},
        fit_kwargs={"epochs": epochs, "batch_size": batch_size, "verbose": 0},
    )


def plain_keras(X, y, hidden, epochs, batch_size):
    import keras

    model = keras_model(X.shape[1], hidden)
    model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")
    model.fit(X, y.reshape(-1, 1).astype("float32"), batch_size, epochs, verbose=0)
    return model


class QuietMLPClassifier(MLPClassifier):
    """As many epochs as asked for is what is wanted; one BLAS thread is its best."""

    def fit(self, X, y):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return one_thread(super().fit)(X, y)


def mlp(hidden, epochs, batch_size, **parameters):
    return QuietMLPClassifier(
        hidden,
        max_iter=epochs,
        batch_size=batch_size,
        n_iter_no_change=epochs + 1,
        alpha=0.0,
        **{"learning_rate_init": 1e-3, **parameters},
    )


class BareLoop:
    """The same arithmetic written by hand: all epochs of one network in one XLA program.

    Adam, shuffled batches, the last one of an epoch masked; weights in, weights out.
    """

    def __init__(self, n_rows, n_columns, hidden, batch_size):
        import tensorflow as tf

        self.n_rows, self.n_steps = n_rows, -(-n_rows // batch_size)
        self.batch_size = batch_size
        sizes = [n_columns, *hidden, 1]
        self.shapes = [s for a, b in pairwise(sizes) for s in ((a, b), (b,))]
        batch, n_steps, n_weights = batch_size, self.n_steps, len(self.shapes)

        def logits(x, weights):
            for layer in range(0, n_weights, 2):
                x = x @ weights[layer] + weights[layer + 1]
                x = tf.nn.relu(x) if layer < n_weights - 2 else x
            return x

        def step(i, total, t, state, X, y, order):
            index = tf.slice(order, [i * batch], [batch])
            real = tf.cast(i * batch + tf.range(batch) < n_rows, tf.float32)
            x, target = tf.gather(X, index), tf.gather(y, index)
            weights = state[:n_weights]
            with tf.GradientTape() as tape:
                tape.watch(weights)
                losses = tf.nn.sigmoid_cross_entropy_with_logits(target, logits(x, weights))
                loss = tf.reduce_sum(losses[:, 0] * real) / tf.reduce_sum(real)
            gradients = tape.gradient(loss, weights)
            t = t + 1.0
            rate = 1e-3 * tf.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            means = [
                m + 0.1 * (g - m)
                for m, g in zip(state[n_weights : 2 * n_weights], gradients, strict=True)
            ]
            squares = [
                v + 0.001 * (g * g - v)
                for v, g in zip(state[2 * n_weights :], gradients, strict=True)
            ]
            moved = [
                w - rate * m / (tf.sqrt(v) + 1e-7)
                for w, m, v in zip(weights, means, squares, strict=True)
            ]
            return i + 1, total + loss, t, [*moved, *means, *squares]

        def run(X, y, orders, *state):
            def epoch(e, total, t, state):
                _, total, t, state = tf.while_loop(
                    lambda i, *_: i < n_steps,
                    lambda i, total, t, state: step(i, total, t, state, X, y, orders[e]),
                    (0, 0.0, t, state),
                )
                return e + 1, total, t, state

            _, total, _, state = tf.while_loop(
                lambda e, *_: e < orders.shape[0], epoch, (0, 0.0, 0.0, list(state))
            )
            return [total / n_steps, *state]

        self._run = tf.function(run, jit_compile=True, autograph=False)

    def fit(self, X, y, epochs, seed):
        """Train; return the mean loss of the last epoch."""
        rng = np.random.default_rng(seed)
        orders = np.zeros((epochs, self.n_steps * self.batch_size), np.int32)
        for order in orders:
            order[: self.n_rows] = rng.permutation(self.n_rows)
        limits = [np.sqrt(6 / sum(shape)) if len(shape) == 2 else 0.0 for shape in self.shapes]
        weights = [
            rng.uniform(-limit, limit, shape).astype(np.float32)
            for limit, shape in zip(limits, self.shapes, strict=True)
        ]
        state = [*weights, *(np.zeros_like(w) for w in weights + weights)]
        loss, *state = self._run(X, y.reshape(-1, 1).astype(np.float32), orders, *state)
        self.weights = [array.numpy() for array in state[: len(weights)]]
        return float(loss)
