"""Bank marketing: a stack and its baselines
=========================================

Who will subscribe? A stack against its baselines, on calls of a Portuguese bank. The stack has
three branches: gradient boosting, a network, and an autoencoder whose reconstruction error is high
for unusual calls. The weights of its parts are learned from out-of-fold predictions. Its networks
are smaller than the default ones, so that the script takes a few minutes.

Every model is tuned by a grid search on the training rows of each outer fold, and scored on the
rows that neither its search nor its training has seen. `make demo` runs this in a few minutes;
`--quick` uses few rows, columns and epochs, to check that everything runs.
"""

# sphinx_gallery_thumbnail_path = "runs/bank_marketing.png"

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import joblib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import t as t_distribution
from sklearn.base import clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import skstack
from skstack.networks import MLP

skstack.silence_tensorflow()

DATA = Path(__file__).resolve().parent / "data" / "bank_marketing.csv.gz"
METRICS = {
    "average precision": average_precision_score,
    "ROC AUC": roc_auc_score,
    "log loss": log_loss,
}
STACK = "stack"
RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "quality.json"
PARTS = {
    "skstack stack of MLP and boosting": "stack",
    "skstack MLP": "its network",
    "HistGradientBoosting": "its boosting",
}


def read_calls(rows):
    """Strings as pandas categories; y is 1 if the client subscribed."""
    table = pd.read_csv(DATA, keep_default_na=False).sample(rows, random_state=0)
    y = (table.pop("y") == "yes").to_numpy(int)
    strings = table.select_dtypes(exclude="number").columns
    return table.astype(dict.fromkeys(strings, "category")).reset_index(drop=True), y


def contestants(epochs, batch_size):
    """Each model with the grid that its search may try."""
    training = {"epochs": epochs, "batch_size": batch_size}
    boosting = HistGradientBoostingClassifier(random_state=0)

    # The branches provide out-of-fold features; one more network learns from them and the table.
    autoencoder = skstack.KerasFeatureTransformer(
        skstack.KerasAutoencoder(**training), features=["outputs", "reconstruction_error"]
    )
    stack = skstack.StackedKerasClassifier(
        upstream=[
            ("anomaly", autoencoder),
            ("risk", skstack.KerasClassifier(MLP(hidden_layer_sizes=(32,)), **training)),
            ("boosting", boosting),
        ],
        downstream=skstack.KerasClassifier(
            MLP(hidden_layer_sizes=(64, 32)), early_stopping=True, **training
        ),
        cv=3,
        random_state=0,
    )
    # The same downstream network, with the same grid, on the table alone.
    network = clone(stack.downstream).set_params(random_state=0)
    categories, numbers = (make_column_selector(dtype_include=d) for d in ("category", "number"))
    linear = make_pipeline(
        make_column_transformer(
            (StandardScaler(), numbers), (OneHotEncoder(handle_unknown="ignore"), categories)
        ),
        LogisticRegression(max_iter=2000),
    )
    return {
        STACK: (stack, {"boosting__learning_rate": [0.03, 0.1]}),
        "one network": (network, {"model__dropout": [0.0, 0.3], "learning_rate": [0.001, 0.003]}),
        "gradient boosting": (boosting, {"learning_rate": [0.03, 0.1], "max_leaf_nodes": [7, 31]}),
        "logistic regression": (linear, {"logisticregression__C": [0.01, 0.1, 1.0, 10.0]}),
    }


def search_for(model, grid):
    folds = StratifiedKFold(2, shuffle=True, random_state=1)
    return GridSearchCV(model, grid, scoring="average_precision", cv=folds)


def compare(X, y, models, n_folds):
    """Nested cross-validation: one row of scores for each model and outer fold."""
    folds = list(StratifiedKFold(n_folds, shuffle=True, random_state=0).split(X, y))
    scores = []
    for name, (model, grid) in models.items():
        start = time.perf_counter()
        for fold, (train, test) in enumerate(folds):
            search = search_for(model, grid).fit(X.iloc[train], y[train])
            positive = search.predict_proba(X.iloc[test])[:, 1]
            row = {metric: score(y[test], positive) for metric, score in METRICS.items()}
            scores.append({"model": name, "fold": fold, **row})
        print(f"  {name:<20} {time.perf_counter() - start:5.0f} s", flush=True)
    return pd.DataFrame(scores)


def verdict(scores, metric):
    """One sentence: the stack against the best baseline, fold by fold.

    Folds share training rows, so the interval is widened as Nadeau and Bengio (2003) do.
    """
    by_model = scores.pivot(index="fold", columns="model", values=metric)
    if metric == "log loss":
        by_model = -by_model  # so that higher is better
    stack = by_model.pop(STACK)
    best = by_model.mean().idxmax()
    gain = stack - by_model[best]
    k = len(gain)
    half = t_distribution.ppf(0.975, k - 1) * gain.std() * np.sqrt(1 / k + 1 / (k - 1))
    result = "no significant difference"
    if abs(gain.mean()) > half:
        result = "the stack is better" if gain.mean() > 0 else "the stack is worse"
    return (
        f"{metric}: {result}.\n    Against {best} {gain.mean():+.4f} (95 % interval "
        f"{gain.mean() - half:+.4f} to {gain.mean() + half:+.4f}), better in "
        f"{(gain > 0).sum()} of {k} folds."
    )


def plot(scores, path):
    """Every outer fold as a point, every mean as a diamond."""
    names = list(scores["model"].unique())[::-1]
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.3), sharey=True, layout="constrained")
    for ax, metric in zip(axes, METRICS, strict=True):
        for height, name in enumerate(names):
            values = scores.loc[scores["model"] == name, metric].to_numpy()
            colour = "#D55E00" if name == STACK else "#0072B2"  # Okabe and Ito's
            spread = np.linspace(-0.15, 0.15, len(values))
            ax.plot(values, height + spread, "o", color=colour, alpha=0.4, markersize=5)
            ax.plot(values.mean(), height, "D", color=colour, markersize=9, markeredgecolor="w")
            label = (values.mean(), height + 0.24)
            ax.annotate(f"{values.mean():.3f}", label, ha="center", fontsize=9)
        better = "lower is better" if metric == "log loss" else "higher is better"
        ax.set(title=metric, xlabel=better, ylim=(-0.4, len(names) - 0.4))
        ax.set_yticks(range(len(names)), names)
        ax.grid(axis="x", alpha=0.3)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
    n_folds = scores["fold"].nunique()
    figure.suptitle(f"Bank marketing: {n_folds} outer folds (points), their mean (diamonds)")
    figure.savefig(path, dpi=150)


def on_all_tables():
    """Losses of a stack and its two parts on twelve tables, of benchmarks/quality.py; or None."""
    if not RESULTS.exists():
        return None
    results = pd.DataFrame(json.loads(RESULTS.read_text(encoding="utf-8")))
    results["loss"] = results["log_loss"].fillna(results["rmse"])
    losses = results.pivot(index=["table", "seed"], columns="contestant", values="loss")
    losses = losses.reindex(columns=list(PARTS)).dropna().rename(columns=PARTS)
    return losses.groupby("table").mean()


def check_saved(model, X, folder):
    """Whether a saved model, loaded in a new process, gives bit-equal predictions."""
    joblib.dump(model, folder / "model.joblib")
    joblib.dump(X, folder / "rows.joblib")
    code = (
        "import joblib, numpy, skstack; skstack.silence_tensorflow(); "
        "p = joblib.load('model.joblib').predict_proba(joblib.load('rows.joblib')); "
        "numpy.save('predictions.npy', p)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    return np.array_equal(model.predict_proba(X), np.load(folder / "predictions.npy"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick",
        action="store_true",
        help="few rows and columns, two folds, two epochs, one candidate",
    )
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    rows, n_folds, epochs, batch_size = (600, 2, 2, 32) if options.quick else (5000, 5, 12, 128)

    X, y = read_calls(rows)
    if options.quick:  # columns with the same categories in every fold share one compiled network
        kinds = X.select_dtypes("category")
        rare = [name for name in kinds if kinds[name].value_counts().min() < rows // 6]
        X = X.drop(columns=rare)
    print(f"{len(X)} calls, {X.shape[1]} columns, {y.mean():.1%} subscribed; {n_folds} outer folds")
    models = contestants(epochs, batch_size)
    if options.quick:  # one candidate
        models = {
            name: (model, {parameter: values[-1:] for parameter, values in grid.items()})
            for name, (model, grid) in models.items()
        }
    scores = compare(X, y, models, n_folds)

    table = scores.drop(columns="fold").groupby("model", sort=False).agg(["mean", "std"])
    cells = {m: [f"{a:.3f} ± {s:.3f}" for a, s in table[m].to_numpy()] for m in METRICS}
    print("\nmean ± standard deviation over the outer folds")
    print(pd.DataFrame(cells, index=list(table.index)).to_string())
    for metric in METRICS:
        by_fold = scores.pivot(index="model", columns="fold", values=metric).loc[list(models)]
        print(f"\n{metric} in each outer fold\n{by_fold.round(3).to_string(header=False)}")
    print("\nThe stack against the best baseline (positive = the stack is better)")
    for metric in METRICS:
        print(" ", verdict(scores, metric))
    plot(scores, options.output / "bank_marketing.png")
    print(f"\nplot: {options.output / 'bank_marketing.png'}")

    search = search_for(*models[STACK]).fit(X, y)
    print(f"the stack's best settings on all rows: {search.best_params_}")
    weights = search.best_estimator_.blend_weights_.items()
    print("weights of its parts:", ", ".join(f"{part} {weight:.2f}" for part, weight in weights))
    equal = check_saved(search.best_estimator_, X.head(500), options.output)
    print(f"saved, loaded in a new process: predictions bit-equal: {equal}")

    losses = on_all_tables()
    if losses is not None and len(losses):
        better = losses["stack"] < losses[["its network", "its boosting"]].min(axis=1)
        print(
            "\nOne table tells little. On the tables of benchmarks/quality.py, means over splits\n"
            "(log loss or RMSE, lower is better; default settings of boosting and stack):"
        )
        print(losses.assign(better=np.where(better, "yes", "no")).round(4).to_string())
        print(f"The stack is better than both of its parts on {better.sum()} of {len(better)}.")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
