"""Predictions as features
=======================

The output of a network for one table, next to the columns of another.

Two tables describe the same calls of a bank: one the client, the other the call. A network learns
from the client's table who will subscribe. Its probabilities, log-odds, entropy and margin are
joined to the columns of the call, from which the final model learns. While fitting, each of these
features comes from a network that was not trained on its row. `--plot FILE` draws them.
"""

# sphinx_gallery_thumbnail_path = "runs/predictions_as_features.png"

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t as t_distribution
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score

import skstack
from skstack import KerasClassifier, KerasFeatureTransformer, StackedKerasClassifier

skstack.silence_tensorflow()

DATA = Path(__file__).resolve().parent / "data" / "bank_marketing.csv.gz"
CLIENT = ["age", "job", "marital", "education", "default", "housing", "loan"]


def read_tables(rows):
    """Two tables with a common index, in different orders, and the target; 1 = subscribed."""
    table = pd.read_csv(DATA, keep_default_na=False).sample(rows, random_state=0)
    table.index.name = "call"
    target = (table.pop("y") == "yes").astype(int)
    strings = table.select_dtypes(exclude="number").columns
    table = table.astype(dict.fromkeys(strings, "category"))
    calls = table.drop(columns=CLIENT).sample(frac=1, random_state=1)
    return table[CLIENT], calls, target


def verdict(gain, n_test_of_train):
    """Mean gain with its 95 % interval, widened as folds share rows (Nadeau and Bengio, 2003)."""
    k = len(gain)
    half = t_distribution.ppf(0.975, k - 1) * gain.std(ddof=1) * np.sqrt(1 / k + n_test_of_train)
    result = "within noise" if abs(gain.mean()) <= half else "more than noise"
    low, high = gain.mean() - half, gain.mean() + half
    return f"{gain.mean():+.3f} (95 % interval {low:+.3f} to {high:+.3f}): {result}"


def plot(table, y, path):
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
    bins = np.linspace(table["client__log_odds_1"].min(), table["client__log_odds_1"].max(), 40)
    for label, name, colour in ((0, "did not", "#0072B2"), (1, "subscribed", "#D55E00")):
        values = table.loc[y == label, "client__log_odds_1"]
        ax.hist(values, bins, density=True, alpha=0.6, color=colour, label=name)
    ax.set(xlabel="log-odds from the client's table, out-of-fold and scaled", ylabel="density")
    ax.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rows and columns, two folds")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the log-odds into a file")
    options = parser.parse_args()
    rows, epochs = (600, 2) if options.quick else (5000, 10)

    # Join the two tables by their index, in the row order of the target.
    clients, calls, target = read_tables(rows)
    if options.quick:  # where all folds have the same categories, all fits share what is compiled
        clients = clients[["age", "default"]]
        calls = calls.drop(columns=["month", "poutcome"])
    X = calls.join(clients, validate="one_to_one").loc[target.index]
    y = target.to_numpy()
    print(f"{len(X)} calls, {clients.shape[1]} columns of the client, {calls.shape[1]} of the call")

    network = KerasClassifier(epochs=epochs, batch_size=128)
    client = KerasFeatureTransformer(
        network, features=["outputs", "log_odds", "entropy", "margin"], cv=3
    )
    stack = StackedKerasClassifier(
        upstream=[("client", client, list(clients.columns))],
        downstream=network,
        blend=False,  # to see what the downstream gains
        passthrough=list(calls.columns),  # the client's columns are seen as predictions only
        random_state=0,
    )
    network = KerasClassifier(epochs=epochs, batch_size=128, random_state=0)
    n_folds, n_repeats = (2, 1) if options.quick else (5, 2)
    folds = RepeatedStratifiedKFold(n_splits=n_folds, n_repeats=n_repeats, random_state=0)
    scores = {
        name: cross_val_score(model, table, y, scoring="roc_auc", cv=folds)
        for name, model, table in (
            ("the call alone", network, X[list(calls.columns)]),
            ("the call + predictions", stack, X),
            ("both tables, one network", network, X),
        )
    }
    print("\nROC AUC, mean ± standard deviation over the test folds")
    for name, values in scores.items():
        print(f"{name:<24} {values.mean():.3f} ± {values.std(ddof=1):.3f}")
    predictions = scores.pop("the call + predictions")
    print("\nThe call + predictions against")
    for name, values in scores.items():
        print(f"  {name}: {verdict(predictions - values, 1 / (n_folds - 1))}")

    # The input of the downstream network: scaled out-of-fold predictions and the call's columns.
    table = stack.set_output(transform="pandas").fit_transform(X, y)
    print(f"\n{table.iloc[:3, :6].to_string()}")
    if options.plot:
        plot(table, y, options.plot)
        print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
