"""States of an LSTM, feature maps of a CNN
========================================

Outputs of higher rank as features.

Two networks are trained in plain Keras and saved: an LSTM that recognises nine speakers by their
vowels, and a CNN that recognises the digits 0 to 6. A linear classifier then learns from few
labelled rows: voices recorded on another occasion, and the digits 7 to 9, which the CNN has never
seen. Its features are the states, an array of shape (steps, units) for each voice, and the maps, of
shape (height, width, channels) for each image: flattened, or pooled over all axes but the last.
Padded steps are ignored by pooling and are zero when flattened. `--plot FILE` draws states and
scores.
"""

# sphinx_gallery_thumbnail_path = "runs/states_and_maps.png"

import skstack

skstack.silence_tensorflow()  # before Keras is imported

import argparse
import tempfile
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from scipy.stats import sem
from scipy.stats import t as t_distribution
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skstack import KerasFeatureTransformer
from skstack.preprocessing import PadSequences

DATA = Path(__file__).resolve().parent / "data" / "japanese_vowels.csv.gz"
POOLINGS = ("mean", "max", "last", "flatten")


def read_voices():
    """Voices of unequal length, padded with zeros: (640, 29, 12); who speaks; the occasion."""
    table = pd.read_csv(DATA)
    voices = [rows for _, rows in table.groupby(["split", "utterance"])]
    padded = PadSequences().fit_transform([rows.filter(like="lpc").to_numpy() for rows in voices])
    about = pd.DataFrame([rows[["speaker", "split"]].iloc[0] for rows in voices])
    return padded, about["speaker"].to_numpy() - 1, about["split"].to_numpy()


def pretrain_lstm(X, y, path, epochs):
    """An LSTM as usual; Masking marks the padded steps."""
    model = keras.Sequential(
        [
            keras.Input(X.shape[1:]),
            keras.layers.Masking(0.0),
            keras.layers.LSTM(32, return_sequences=True, name="states"),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(9, activation="softmax"),
        ]
    )
    train(model, X, y, path, epochs)


def pretrain_cnn(X, y, path, epochs):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Rescaling(1 / 16),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.Conv2D(24, 3, activation="relu", name="maps"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(7, activation="softmax"),
        ]
    )
    train(model, X, y, path, epochs)


def train(model, X, y, path, epochs):
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(X, y, epochs=epochs, batch_size=32, verbose=0)
    model.save(path)


def few_labelled(y, n_folds, used):
    """Inverted folds: train on one part, test on all others."""
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=0).split(y, y)
    return [(few, others) for others, few in folds][:used]


def compare(title, raw, transformers, X, y, folds):
    """Accuracy of a linear classifier on what each transformer makes of X."""
    linear = (StandardScaler(), LogisticRegression(max_iter=1000))
    scores = {raw: cross_val_score(make_pipeline(*linear), X.reshape(len(X), -1), y, cv=folds)}
    widths = {raw: X[0].size}
    for name, transformer in transformers.items():
        scores[name] = cross_val_score(make_pipeline(transformer, *linear), X, y, cv=folds)
        widths[name] = transformer.fit_transform(X[:1]).shape[1]
    print(f"\n{title}: accuracy from {len(folds[0][0])} labelled rows, ± standard deviation")
    for name, values in scores.items():
        spread = values.std(ddof=1)
        print(f"{name:<12} {widths[name]:>4} columns {values.mean():.3f} ± {spread:.3f}")
    best = max(transformers, key=lambda name: scores[name].mean())
    print(f"What {best!r}, the best of four here, adds: {verdict(scores[best] - scores[raw])}")
    return scores


def verdict(gain):
    """Mean gain with its 95 % interval over training sets that share no rows."""
    half = t_distribution.ppf(0.975, len(gain) - 1) * sem(gain)
    result = "within noise" if abs(gain.mean()) <= half else "more than noise"
    low, high = gain.mean() - half, gain.mean() + half
    return f"{gain.mean():+.3f} (95 % interval {low:+.3f} to {high:+.3f}): {result}"


def plot(states, compared, path):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
    real = states.any(axis=2)
    shown = np.ma.masked_array(states[:, :, 0], ~real)[np.argsort(real.sum(axis=1))]
    look = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1, "interpolation": "nearest"}
    image = axes[0].imshow(shown, aspect="auto", **look)
    axes[0].set(title="the first unit; grey: padding", facecolor="#cccccc")
    axes[0].set(xlabel="step", ylabel="utterances by length")
    figure.colorbar(image, ax=axes[0], label="state")
    for ax, (title, scores) in zip(axes[1:], compared.items(), strict=True):
        middle = [values.mean() for values in scores.values()]
        spread = [values.std(ddof=1) for values in scores.values()]
        ax.errorbar(middle, range(len(scores)), xerr=spread, fmt="o", color="#0072B2", capsize=3)
        ax.set(title=title, xlabel="accuracy, ± standard deviation")
        ax.set_yticks(range(len(scores)), scores)
        ax.invert_yaxis()
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few epochs, two training sets")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw states and scores")
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    epochs, used = (2, 2) if options.quick else (30, 9)

    with tempfile.TemporaryDirectory() as folder:
        # States. The padded voices already have the shape that the LSTM takes.
        lstm = Path(folder) / "lstm.keras"
        X, speaker, occasion = read_voices()
        old = occasion == "train"
        pretrain_lstm(X[old], speaker[old], lstm, epochs)
        X, y = X[~old], speaker[~old]
        by_pooling = {
            pooling: KerasFeatureTransformer(lstm, layers="states", pooling=pooling)
            for pooling in POOLINGS
        }
        states = by_pooling["flatten"].fit_transform(X).reshape(len(X), X.shape[1], -1)
        real = X.any(axis=2)
        print(f"states {states.shape}; {(~real).mean():.0%} of the steps are padding")
        print(f"states of padding are zero: {not states[~real].any()}", end="; ")
        means = np.array([rows[on].mean(axis=0) for rows, on in zip(states, real, strict=True)])
        same = np.allclose(means, by_pooling["mean"].fit_transform(X), atol=1e-6)
        print(f"'mean' is the mean over real steps alone: {same}")
        folds = few_labelled(y, 9, used)
        compared = {"another occasion": compare("states", "raw steps", by_pooling, X, y, folds)}
        own = keras.models.load_model(lstm).predict(X, verbose=0).argmax(axis=1)
        error = sem(own == y)
        print(
            f"The LSTM's own predictions, without new labels: {(own == y).mean():.3f} ± {error:.3f}"
        )

        # Maps. The table has 64 columns; `input_shape` reshapes a row for the CNN.
        cnn = Path(folder) / "cnn.keras"
        X, digit = load_digits(return_X_y=True)
        old = digit <= 6
        pretrain_cnn(X[old].reshape(-1, 8, 8, 1), digit[old], cnn, epochs)
        X, y = X[~old], digit[~old]
        by_pooling = {
            pooling: KerasFeatureTransformer(
                cnn, layers="maps", pooling=pooling, input_shape=(8, 8, 1)
            )
            for pooling in POOLINGS
        }
        folds = few_labelled(y, 18, used)
        compared["new digits"] = compare("maps", "raw pixels", by_pooling, X, y, folds)

    if options.plot:
        plot(states, compared, options.plot)
        print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
