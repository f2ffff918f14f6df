"""Does stacking help?
===================

Each branch of a stack against its downstream alone, on the same folds.

Calls of a Portuguese bank: who will subscribe? A network learns from the columns of the call. One
branch adds the predictions of a network for the client's columns, another the latent features and
reconstruction error of an autoencoder. `stacking_gain` scores the network alone, with each branch
and with both, and reports which differences exceed their noise. `--plot FILE` draws them.
"""

# sphinx_gallery_thumbnail_path = "runs/does_it_help.png"

import argparse
from pathlib import Path

import pandas as pd
from sklearn.model_selection import RepeatedStratifiedKFold

import skstack
from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    StackedKerasClassifier,
)
from skstack.inspection import stacking_gain

skstack.silence_tensorflow()

DATA = Path(__file__).resolve().parent / "data" / "bank_marketing.csv.gz"
CLIENT = ["age", "job", "marital", "education", "default", "housing", "loan"]


def read_calls(rows):
    """Strings as pandas categories; y is 1 if the client subscribed."""
    table = pd.read_csv(DATA, keep_default_na=False).sample(rows, random_state=0)
    y = (table.pop("y") == "yes").to_numpy(int)
    strings = table.select_dtypes(exclude="number").columns
    return table.astype(dict.fromkeys(strings, "category")).reset_index(drop=True), y


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="few rows and columns, two folds, two epochs"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the differences")
    options = parser.parse_args()
    rows, epochs, n_folds, n_repeats = (300, 2, 2, 1) if options.quick else (5000, 10, 5, 3)

    X, y = read_calls(rows)
    if options.quick:  # where all folds have the same categories, all fits share what is compiled
        kept = X.select_dtypes("number").columns.union(["default", "contact", "day_of_week"])
        X = X[kept]
    client = [column for column in CLIENT if column in X]
    call = [column for column in X.columns if column not in CLIENT]
    training = {"epochs": epochs, "batch_size": 128}
    anomaly = KerasFeatureTransformer(
        KerasAutoencoder(**training), features=["outputs", "reconstruction_error"]
    )
    stack = StackedKerasClassifier(
        upstream=[("client", KerasClassifier(**training), client), ("anomaly", anomaly, call)],
        downstream=KerasClassifier(**training),
        blend=False,
        passthrough=call,
        cv=3,
        random_state=0,
    )
    # Folds share training rows, which the corrected test takes into account: repeats help, but less
    # than new rows would.
    folds = RepeatedStratifiedKFold(n_splits=n_folds, n_repeats=n_repeats, random_state=0)
    gain = stacking_gain(stack, X, y, cv=folds, scoring="roc_auc")
    print(gain)
    if options.plot:
        gain.plot().figure_.savefig(options.plot, dpi=150)
        print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
