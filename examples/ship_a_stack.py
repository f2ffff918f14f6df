"""Exporting a stack
=================

Train a stack, export it as one network, and compare the predictions of every runtime.

The table is raw: strings, numbers, and categories that are not in the training rows. The exported
model takes the same raw columns and returns the same probabilities, without skstack, scikit-learn
or pandas.
"""

import skstack

skstack.silence_tensorflow()  # before Keras is imported

import argparse
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from skstack.networks import MLP

DATA = Path(__file__).resolve().parent / "data" / "bank_marketing.csv.gz"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rows, one epoch")
    parser.add_argument("--output", type=Path, default=Path("shipped"), help="folder")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    rows, epochs = (800, 1) if options.quick else (4000, 10)

    calls = pd.read_csv(DATA, keep_default_na=False).sample(rows, random_state=0)
    y = calls.pop("y").to_numpy()
    train, new = slice(0, rows * 3 // 4), slice(rows * 3 // 4, None)

    # Upstream: an anomaly score and a first prediction; downstream learns from both and X.
    autoencoder = skstack.KerasAutoencoder(epochs=epochs)
    stack = skstack.StackedKerasClassifier(
        upstream=[
            (
                "anomaly",
                skstack.KerasFeatureTransformer(autoencoder, features="reconstruction_error"),
            ),
            ("risk", skstack.KerasClassifier(MLP(hidden_layer_sizes=(32,)), epochs=epochs)),
        ],
        downstream=skstack.KerasClassifier(MLP(hidden_layer_sizes=(32,)), epochs=epochs),
        cv=3,
        random_state=0,
    ).fit(calls[train], y[train])
    expected = stack.predict_proba(calls[new])

    # One model whose layers are category lookup, both upstream networks, scaler and downstream.
    model = stack.to_keras()
    model.summary(line_length=110)
    model.save(options.output / "stack.keras")
    inputs = stack.keras_inputs(calls[new])
    loaded = keras.models.load_model(options.output / "stack.keras")
    predictions = {"keras": loaded.predict(inputs, verbose=0)}

    # The same for runtimes without Keras and skstack.
    stack.export(options.output / "saved_model")
    predictions["saved_model"] = by_tensorflow(options.output / "saved_model", inputs)
    try:
        import onnxruntime
    except ImportError:
        print("onnxruntime is not installed: pip install 'skstack[onnx]'")
    else:
        stack.export(options.output / "stack.onnx", format="onnx")
        session = onnxruntime.InferenceSession(options.output / "stack.onnx")
        predictions["onnxruntime"] = session.run(None, inputs)[0]

    worst = 0.0
    for runtime, values in predictions.items():
        difference = float(np.abs(values - expected).max())
        worst = max(worst, difference)
        print(f"{runtime:<12} largest difference from predict_proba: {difference:.1e}")
    return 0 if worst < 1e-5 else 1


def by_tensorflow(folder, inputs):
    import tensorflow as tf

    served = tf.saved_model.load(str(folder)).signatures["serving_default"]
    return served(**{name: tf.constant(rows) for name, rows in inputs.items()})["output_0"].numpy()


if __name__ == "__main__":
    sys.exit(main())
