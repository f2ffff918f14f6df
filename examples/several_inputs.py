"""Several networks, several inputs
================================

A picture and a word, each read by its own network.

1. Cheques. A digit is written twice, as a picture (scikit-learn's digits, half of each covered by a
   stamp) and as a word (simulated: about half of the letters are replaced). 128 features of the
   picture and 64 of the word, from two saved networks, are joined with a plain column. The network
   downstream has one input for each of the three, and first reduces the picture's features.
2. Calls of a bank. A saved network has two inputs, for columns of the call and of the economy: they
   are assigned by name, by order, or by the prefix of the column names.

`--plot FILE` draws cheques and scores.
"""

# sphinx_gallery_thumbnail_path = "runs/several_inputs.png"

import skstack

skstack.silence_tensorflow()  # before Keras is imported

import argparse
import tempfile
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from scipy.stats import t as t_distribution
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
from sklearn.preprocessing import StandardScaler

from skstack import KerasClassifier, KerasFeatureTransformer, StackedKerasClassifier
from skstack.networks import MLP, recipe

DATA = Path(__file__).resolve().parent / "data" / "bank_marketing.csv.gz"
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CALL = ["age", "campaign", "pdays", "previous"]
ECONOMY = ["emp.var.rate", "cons.price.idx", "cons.conf.idx", "euribor3m", "nr.employed"]


def cheques():
    """A table with columns of pictures (8, 8, 1), letters (5,) and numbers; and the digits."""
    rng = np.random.default_rng(0)
    images, digits = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1) / 16
    ink = images.sum(axis=(1, 2, 3))  # of the whole digit
    for image in images:
        half = np.s_[4:] if rng.random() < 0.5 else np.s_[:4]
        image[half if rng.random() < 0.5 else (slice(None), half)] = 0
    letters = np.array([[ord(c) - 96 if c != " " else 0 for c in w.ljust(5)] for w in WORDS])
    letters = letters[digits]  # 1 for a to 26 for z; 0 is padding
    wrong = (rng.random(letters.shape) < 0.5) & (letters > 0)
    letters[wrong] = rng.integers(1, 27, size=wrong.sum())
    return pd.DataFrame({"image": list(images), "text": list(letters), "ink": ink}), digits


def pretrain(layers, X, y, path, epochs):
    """Train a network in plain Keras and save it."""
    model = keras.Sequential([*layers, keras.layers.Dense(10, activation="softmax")])
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy")
    model.fit(X, y, epochs=epochs, batch_size=32, verbose=0)
    model.save(path)


@recipe
def reader(spec, *, width=32, dropout=0.2):
    """One input for the picture's features, one for the word's, one for plain columns."""
    inputs = spec.inputs()  # {"image": (128,), "text": (64,), "numeric": (1,)}
    image = keras.layers.Dropout(dropout)(inputs["image"])
    image = keras.layers.Dense(width, activation="relu", name="image_reduced")(image)
    x = keras.layers.Concatenate()([image, inputs["text"], inputs["numeric"]])
    x = keras.layers.Dense(width, activation="relu", name="latent")(x)
    return keras.Model(inputs, spec.outputs(x))


@recipe
def two_branches(spec, *, width=16):
    """One branch for each input, concatenated before the output."""
    inputs = spec.inputs()
    branches = [
        keras.layers.Dense(width, activation="relu", name=f"of_{name}")(
            spec.join({name: inputs[name]})  # standardised
        )
        for name in inputs
    ]
    return keras.Model(inputs, spec.outputs(keras.layers.Concatenate()(branches)))


def table_of(scores, title):
    print(f"\n{title}, mean ± standard deviation over the test folds")
    for name, values in scores.items():
        print(f"{name:<30} {values.mean():.3f} ± {values.std(ddof=1):.3f}")


def verdict(gain, n_test_of_train):
    """Mean gain with its 95 % interval, widened as folds share rows (Nadeau and Bengio, 2003)."""
    k = len(gain)
    half = t_distribution.ppf(0.975, k - 1) * gain.std(ddof=1) * np.sqrt(1 / k + n_test_of_train)
    result = "within noise" if abs(gain.mean()) <= half else "more than noise"
    low, high = gain.mean() - half, gain.mean() + half
    return f"{gain.mean():+.3f} (95 % interval {low:+.3f} to {high:+.3f}): {result}"


def read_cheques(folder, epochs, folds):
    """Join the features of two saved networks; both were trained on the first 900 cheques only."""
    X, y = cheques()
    old, new = slice(0, 900), slice(900, None)
    rows = X[old]
    pretrain(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu", name="features"),
        ],
        *(np.stack(rows["image"]), y[old], folder / "images.keras", epochs),
    )
    pretrain(
        [
            keras.Input((5,), dtype="int32"),
            keras.layers.Embedding(27, 8),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu", name="features"),
        ],
        *(np.stack(rows["text"]), y[old], folder / "text.keras", epochs),
    )
    X, y = X[new].reset_index(drop=True), y[new]

    image = KerasFeatureTransformer(folder / "images.keras", layers="features")
    text = KerasFeatureTransformer(folder / "text.keras", layers="features")
    upstream = [("image", image, ["image"]), ("text", text, ["text"])]
    settings = {"passthrough": ["ink"], "random_state": 0}
    plain = KerasClassifier(MLP(32), epochs=epochs)
    # "prefix" groups columns by the prefix of their names: image__features_0, text__features_0.
    separate = KerasClassifier(reader(), inputs="prefix", epochs=epochs)
    models = {
        "picture": StackedKerasClassifier(upstream[:1], downstream=plain, **settings),
        "word": StackedKerasClassifier(upstream[1:], downstream=plain, **settings),
        "both, one input": StackedKerasClassifier(upstream, downstream=plain, **settings),
        "both, separate inputs": StackedKerasClassifier(upstream, downstream=separate, **settings),
    }
    scores = {name: cross_val_score(model, X, y, cv=folds) for name, model in models.items()}
    table_of(scores, f"accuracy on {len(X)} cheques")
    fitted = models["both, separate inputs"].fit(X, y)
    shapes = {name: tensor.shape for name, tensor in fitted.downstream_.model_.input.items()}
    print(f"inputs of the last network: {shapes}")
    return X, y, scores


def rank_calls(folder, rows, epochs, folds):
    """A saved network with two inputs, assigned in three ways, and one that is trained here."""
    table = pd.read_csv(DATA)[[*CALL, *ECONOMY, "y"]].sample(2 * rows, random_state=0)
    y = (table.pop("y") == "yes").to_numpy().astype(int)
    scaler = StandardScaler().set_output(transform="pandas").fit(table[:rows])
    X = scaler.transform(table)  # a network trained on scaled columns comes after its scaler

    call, economy = keras.Input((4,), name="call"), keras.Input((5,), name="economy")
    of_call = keras.layers.Dense(8, activation="relu", name="of_call")(call)
    of_economy = keras.layers.Dense(8, activation="relu", name="of_economy")(economy)
    x = keras.layers.Concatenate()([of_call, of_economy])
    model = keras.Model([call, economy], keras.layers.Dense(1, activation="sigmoid")(x))
    model.compile("adam", "binary_crossentropy")
    old = X[:rows]
    model.fit([old[CALL], old[ECONOMY]], y[:rows], epochs=epochs, batch_size=64, verbose=0)
    model.save(folder / "calls.keras")
    X, raw, y = X[rows:], table[rows:], y[rows:]

    # By name, by the order of the model's inputs, by the prefix of the column names.
    renamed = {name: f"call__{name}" for name in CALL}
    renamed |= {name: f"economy__{name}" for name in ECONOMY}
    network = KerasFeatureTransformer(folder / "calls.keras", layers=["of_call", "of_economy"])
    features = {
        how: clone(network).set_params(inputs=inputs).fit_transform(table)
        for how, inputs, table in (
            ("a dict", {"economy": ECONOMY, "call": CALL}, X),
            ("a list", [CALL, ECONOMY], X),
            ('"prefix"', "prefix", X[[*ECONOMY, *CALL]].rename(columns=renamed)),
        )
    }
    first = features["a dict"]
    same = all(np.array_equal(first, other) for other in features.values())
    print(f"\ncolumns by {', '.join(features)}: equal features {first.shape}: {same}")

    settings = {"epochs": epochs, "batch_size": 64, "random_state": 0}
    inputs = {"call": CALL, "economy": ECONOMY}
    models = {
        "calls, one input": KerasClassifier(MLP(32), **settings),
        "calls, two inputs": KerasClassifier(two_branches(), inputs=inputs, **settings),
    }
    scores = {
        name: cross_val_score(model, raw, y, scoring="roc_auc", cv=folds)
        for name, model in models.items()
    }
    table_of(scores, f"ROC AUC on {len(raw)} calls")
    return scores


def plot(X, y, scores, path):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplot_mosaic(
        [["0", "1", "2", "s"], ["3", "4", "5", "s"]],
        width_ratios=[1, 1, 1, 3.2],
        figsize=(9, 3),
        layout="constrained",
    )
    for row in range(6):
        word = "".join(chr(96 + code) if code else "" for code in X["text"][row])
        axes[str(row)].imshow(X["image"][row], cmap="gray_r", vmin=0, vmax=1)
        axes[str(row)].set(xticks=[], yticks=[], title=f"“{word}” ({y[row]})")
    middle = [values.mean() for values in scores.values()]
    spread = [values.std(ddof=1) for values in scores.values()]
    ax = axes["s"]
    ax.errorbar(middle, range(len(scores)), xerr=spread, fmt="o", color="#0072B2", capsize=3)
    ax.set_yticks(range(len(scores)), scores)
    ax.set(xlabel="accuracy, ± standard deviation over folds", ylim=(len(scores) - 0.5, -0.5))
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rows, few epochs, two folds")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw cheques and scores")
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    rows, epochs, n_folds, n_repeats = (300, 2, 2, 1) if options.quick else (3000, 20, 5, 2)
    folds = RepeatedStratifiedKFold(n_splits=n_folds, n_repeats=n_repeats, random_state=0)

    with tempfile.TemporaryDirectory() as folder:
        X, y, scores = read_cheques(Path(folder), epochs, folds)
        calls = rank_calls(Path(folder), rows, epochs, folds)

    own, one = scores["both, separate inputs"], scores["both, one input"]
    print("\nWhat is gained")
    for what, gain in {
        "by adding the word": one - scores["picture"],
        "by separate inputs, cheques": own - one,
        "by separate inputs, calls": calls["calls, two inputs"] - calls["calls, one input"],
    }.items():
        print(f"  {what}: {verdict(gain, 1 / (n_folds - 1))}")
    if options.plot:
        plot(X, y, scores, options.plot)
        print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
