"""Predictions: one row, and a million."""

import os
import tempfile

import numpy as np
from contestants import ours, scikeras, table
from harness import compared, one_thread, scenario, turns

SETTINGS = ((64,), 1, 128)
BATCH = 2**14  # rows that a fused model gets at once


@scenario("predict-one-row", target={"scikeras": 100})
def one_row(quick):
    """`predict_proba` of one row of 30 columns, 20 times."""
    X, y = table(2000, 30)
    models = {
        "skstack": ours(*SETTINGS),
        **defaults(),
        "scikeras": scikeras(*SETTINGS),
    }
    row = X[:1]

    def many(model):
        model.fit(X, y)

        def predict(_):
            for _ in range(20):
                model.predict_proba(row)

        return predict

    contestants = {name: many(model) for name, model in models.items()}
    seconds, _ = turns(contestants, rounds=3 if quick else 15)
    return compared(seconds)


def defaults():
    """The default network, and a plain one, after two epochs."""
    from skstack import KerasClassifier
    from skstack.networks import MLP

    return {
        "skstack, TabM()": KerasClassifier(epochs=2, random_state=0),
        "skstack, MLP()": KerasClassifier(MLP(), epochs=2, random_state=0),
    }


@scenario("predict-100000-rows")
def many_rows(quick):
    """`predict_proba` of 100,000 rows x 30 by the default network and by `MLP()`."""
    X, y = table(2000, 30)
    rows = np.random.default_rng(0).standard_normal((100_000, 30), dtype=np.float32)
    models = {name: model.fit(X, y) for name, model in defaults().items()}
    contestants = {
        name: lambda _, model=model: model.predict_proba(rows) for name, model in models.items()
    }
    seconds, _ = turns(contestants, rounds=2 if quick else 7)
    return compared(seconds)


@scenario("transform-million-rows", target={"Model.predict, batches of 1024": 10})
def million_rows(quick):
    """Features of 32 units for 1,000,000 rows x 30, by `KerasFeatureTransformer.transform`."""
    import keras
    from sklearn.frozen import FrozenEstimator

    from skstack import KerasFeatureTransformer

    n = 200_000 if quick else 1_000_000
    X = np.random.default_rng(0).standard_normal((n, 30), dtype=np.float32)
    small, y = table(2000, 30)
    network = ours((64, 32), 1, 128).fit(small, y)
    transformer = KerasFeatureTransformer(FrozenEstimator(network), layers="hidden_2")
    transformer.fit(small, y)
    inner = keras.Model(network.model_.input, network.model_.get_layer("hidden_2").output)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "rows.npy")
        np.save(path, X)
        mapped = np.load(path, mmap_mode="r+")

        def from_disk(turn):
            mapped[::1000, 0] = turn  # features of rows seen before are cached
            return transformer.transform(mapped)

        seconds, returned = turns(
            {
                "skstack": lambda _: transformer.transform(X),
                "skstack, numpy.memmap": from_disk,
                "Model.predict, batches of 1024": lambda _: inner.predict(
                    X, batch_size=1024, verbose=0
                ),
                "numpy, one thread": one_thread(lambda _: by_hand(inner, X)),
            },
            rounds=2 if quick else 7,
        )
    found, expected = returned["skstack"], returned["Model.predict, batches of 1024"]
    return compared(seconds, figures={"largest difference": float(np.abs(found - expected).max())})


@scenario("fused-model", target={"predict_proba": 1})
def fused_model(quick):
    """Probabilities of a whole stack for 1,000,000 rows x 30: one fused graph, and the stack."""
    import tensorflow as tf

    from skstack import KerasAutoencoder, StackedKerasClassifier

    n = 100_000 if quick else 1_000_000
    X = np.random.default_rng(0).standard_normal((n, 30), dtype=np.float32)
    small, y = table(2000, 30)
    stack = StackedKerasClassifier(
        [("latent", KerasAutoencoder(epochs=1)), ("risk", ours((32,), 1, 128))],
        downstream=ours((64, 32), 1, 128),
        blend=False,
        cv=2,
        random_state=0,
    ).fit(small, y)
    model = stack.to_keras()
    compiled = tf.function(model, jit_compile=True, autograph=False)
    contestants = {
        "fused, tf.function with XLA": lambda _: in_batches(
            lambda rows: compiled(tf.constant(rows)).numpy(), X
        ),
        "fused, Model.predict": lambda _: model.predict(X, batch_size=BATCH, verbose=0),
        "predict_proba": lambda _: stack.predict_proba(X),
    }
    with tempfile.TemporaryDirectory() as folder:
        stack.export(os.path.join(folder, "saved_model"))
        served = tf.saved_model.load(os.path.join(folder, "saved_model"))
        signature = served.signatures["serving_default"]
        contestants["fused, SavedModel"] = lambda _: in_batches(
            lambda rows: signature(features=tf.constant(rows))["output_0"].numpy(), X
        )
        try:
            import onnxruntime
        except ImportError:
            pass
        else:
            stack.export(os.path.join(folder, "stack.onnx"), format="onnx")
            session = onnxruntime.InferenceSession(os.path.join(folder, "stack.onnx"))
            contestants["fused, onnxruntime"] = lambda _: in_batches(
                lambda rows: session.run(None, {"features": rows})[0], X
            )
        seconds, returned = turns(contestants, rounds=2 if quick else 5)
    expected = returned["predict_proba"]
    differences = {
        f"largest difference, {name}": float(np.abs(found - expected).max())
        for name, found in returned.items()
        if name != "predict_proba"
    }
    return compared(seconds, figures=differences)


def in_batches(predict, X):
    starts = range(0, len(X), BATCH)
    return np.concatenate([predict(X[start : start + BATCH]) for start in starts])


def by_hand(model, X):
    for layer in model.layers:
        weights = layer.get_weights()
        if weights and weights[0].ndim == 2:
            X = np.maximum(X @ weights[0] + weights[1], 0.0)
    return X
