"""A pretrained autoencoder
========================

It provides features: its inner layer, or its error alone.

An autoencoder is trained in plain Keras on images of digits without fours, and saved. The task is
to detect fours, one image in ten, among images that the autoencoder has never seen, with only a
hundred labels: from the pixels alone, from the pixels and the layer `encoder_output`, and from the
reconstruction error alone. (Fours have the largest error if none were in training; for other digits
the error is less informative.) `--plot FILE` draws that error.
"""

# sphinx_gallery_thumbnail_path = "runs/pretrained_autoencoder.png"

import skstack

skstack.silence_tensorflow()  # before Keras is imported

import argparse
import tempfile
from pathlib import Path

import keras
import numpy as np
from imblearn.over_sampling import SMOTE
from imblearn.pipeline import make_pipeline
from scipy.stats import sem
from scipy.stats import t as t_distribution
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.preprocessing import StandardScaler

from skstack import KerasClassifier, KerasFeatureTransformer


def pretrain(images, path, epochs):
    """Train an autoencoder in plain Keras, save it, and return its scaler."""
    scaler = StandardScaler().fit(images)
    inputs = keras.Input((images.shape[1],))
    x = keras.layers.Dense(48, activation="relu")(inputs)
    x = keras.layers.Dense(12, name="encoder_output")(x)
    x = keras.layers.Dense(48, activation="relu")(x)
    model = keras.Model(inputs, keras.layers.Dense(images.shape[1])(x))
    model.compile(keras.optimizers.Adam(3e-3), "mse")
    scaled = scaler.transform(images)
    model.fit(scaled, scaled, epochs=epochs, batch_size=32, verbose=0)
    model.save(path)
    return scaler


def verdict(gain):
    """Mean gain with its 95 % interval over training sets that share no rows."""
    half = t_distribution.ppf(0.975, len(gain) - 1) * sem(gain)
    result = "within noise" if abs(gain.mean()) <= half else "more than noise"
    low, high = gain.mean() - half, gain.mean() + half
    return f"{gain.mean():+.3f} (95 % interval {low:+.3f} to {high:+.3f}): {result}"


def plot(errors, y, path):
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
    bins = np.geomspace(errors.min(), errors.max(), 40)
    for label, name, colour in ((0, "other digits", "#0072B2"), (1, "fours", "#D55E00")):
        ax.hist(errors[y == label], bins, alpha=0.6, color=colour, label=name)
    ax.set(xscale="log", yscale="log", ylabel="images")
    ax.set_xlabel("reconstruction error: mean square over the scaled pixels of an image")
    ax.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few epochs, two training sets")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the errors into a file")
    options = parser.parse_args()
    keras.utils.set_random_seed(0)

    # The autoencoder was trained on other rows than those evaluated here.
    images, digits = load_digits(return_X_y=True)
    old, new = slice(0, 900), slice(900, None)
    X, y = images[new], (digits[new] == 4).astype(int)
    print(
        f"{len(X)} images to score, {y.mean():.1%} are fours; {len(X) // 9} at a time are labelled"
    )

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "autoencoder.keras"
        scaler = pretrain(images[old][digits[old] != 4], path, 5 if options.quick else 60)

        # A network that was trained on scaled columns is placed after its scaler. Both are frozen;
        # all later steps are fitted in each fold, SMOTE on training rows only.
        frozen_scaler = FrozenEstimator(scaler)
        latent = KerasFeatureTransformer(path, layers="encoder_output", passthrough=True)
        error = KerasFeatureTransformer(path, features="reconstruction_error")
        network = KerasClassifier(epochs=3 if options.quick else 30, random_state=0)
        rest = (StandardScaler(), SMOTE(random_state=0), network)
        models = {
            "pixels": make_pipeline(frozen_scaler, *rest),
            "pixels + encoder_output": make_pipeline(frozen_scaler, latent, *rest),
            "reconstruction error": make_pipeline(
                frozen_scaler, error, StandardScaler(), SMOTE(random_state=0), LogisticRegression()
            ),
        }
        # Inverted folds: train on few rows, test on all others.
        folds = StratifiedKFold(9, shuffle=True, random_state=0).split(X, y)
        folds = [(few, others) for others, few in folds][: 2 if options.quick else 9]
        scores = {
            name: cross_val_score(model, X, y, scoring="average_precision", cv=folds)
            for name, model in models.items()
        }
        errors = error.fit_transform(scaler.transform(X)).ravel()

    print("\naverage precision, mean ± standard deviation over the training sets")
    for name, values in scores.items():
        print(f"{name:<24} {values.mean():.3f} ± {values.std(ddof=1):.3f}")
    print(f"{'chance':<24} {y.mean():.3f}")
    gain = scores["pixels + encoder_output"] - scores["pixels"]
    print(f"\nWhat encoder_output adds: {verdict(gain)}")
    if options.plot:
        plot(errors, y, options.plot)
        print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
