"""How good predictions are with default settings, on real tables. See README.md in this folder.

``python benchmarks/quality.py [--only NAME ...] [--tables NAME ...] [--seeds N] [--all-rows]``

Each table is split 64/16/20 for each seed. At most 10,000 of the training rows are used; the 16 %
stay unused by contestants that hold out rows by themselves. Results are added to a JSON file, and
what it already holds is not run again.
"""

import argparse
import importlib.metadata
import json
import platform
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.compose import (
    TransformedTargetRegressor,
    make_column_selector,
    make_column_transformer,
)
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score, root_mean_squared_error
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

FOLDER = Path(__file__).resolve().parent
DATA = FOLDER.parents[1] / "shared" / "data"
TABLES = {
    "adult": "income",
    "bank_full": "y",
    "credit_g": "class",
    "default_credit": "default",
    "mammography": "class",
    "magic": "class",
    "letter": "letter",
    "pendigits": "digit",
    "satimage": "classes",
    "california_housing": "median_house_value",
    "abalone": "rings",
    "wine_quality": "quality",
}
REGRESSION = {"california_housing", "abalone", "wine_quality"}
MOST_ROWS = 10_000


def table(name, folder):
    """X, a DataFrame of numbers and categories without missing values, and y."""
    X = pd.read_csv(folder / f"{name}.csv.gz")
    X = X.drop(columns=[column for column in ("split", "pool") if column in X])
    y = X.pop(TABLES[name]).to_numpy()
    for column in X:
        if X[column].dtype.kind not in "iuf":
            X[column] = X[column].fillna("missing").astype("category")
    return X.fillna(X.median(numeric_only=True)), y


def split(y, seed, *, classify, all_rows):
    """Row numbers for training and for the score."""
    rows = np.arange(len(y))
    rest, test = train_test_split(
        rows, test_size=0.2, random_state=seed, stratify=y if classify else None
    )
    train, _ = train_test_split(
        rest, test_size=0.2, random_state=seed, stratify=y[rest] if classify else None
    )
    if len(train) > MOST_ROWS and not all_rows:
        train = np.random.default_rng(seed).choice(train, MOST_ROWS, replace=False)
    return train, test


# Contestants: a function of (classify, seed, categorical columns) that returns an estimator. -----


def skstack_tabm(classify, seed, _):
    """The default network."""
    from skstack import KerasClassifier, KerasRegressor

    return (KerasClassifier if classify else KerasRegressor)(random_state=seed)


def skstack_mlp(classify, seed, _):
    """One network of the same size, trained for as long."""
    from skstack.networks import MLP

    model = MLP((128, 128), dropout=0.1)
    return skstack_tabm(classify, seed, _).set_params(model=model, batch_size=256)


def _stack(classify, seed, categorical, network, **settings):
    from skstack import StackedKerasClassifier, StackedKerasRegressor

    boosting = hist_gradient_boosting(classify, seed, categorical)
    return (StackedKerasClassifier if classify else StackedKerasRegressor)(
        [("boosting", boosting), ("network", network)], random_state=seed, **settings
    )


def skstack_stack(classify, seed, categorical):
    """Gradient boosting and the default network, blended; all of it with default settings."""
    return _stack(classify, seed, categorical, skstack_tabm(classify, seed, categorical))


def skstack_stack_of_mlp(classify, seed, categorical):
    """The same with one small network, and a downstream like it."""
    network = skstack_mlp(classify, seed, categorical)
    return _stack(classify, seed, categorical, network, downstream=network)


def hist_gradient_boosting(classify, seed, _):
    kind = HistGradientBoostingClassifier if classify else HistGradientBoostingRegressor
    return kind(random_state=seed)


def _encoded(estimator):
    categories = make_column_selector(dtype_include="category")
    return make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), categories),
            remainder=StandardScaler(),
            sparse_threshold=0,
        ),
        estimator,
    )


def linear(classify, seed, _):
    return _encoded(LogisticRegression(max_iter=1000) if classify else RidgeCV())


def mlp(classify, seed, _):
    if classify:
        return _encoded(MLPClassifier(random_state=seed))
    scaled = TransformedTargetRegressor(
        MLPRegressor(random_state=seed), transformer=StandardScaler()
    )
    return _encoded(scaled)  # otherwise it predicts about 0 for house prices


def lightgbm(classify, seed, _):
    from lightgbm import LGBMClassifier, LGBMRegressor

    return (LGBMClassifier if classify else LGBMRegressor)(random_state=seed, verbose=-1, n_jobs=1)


def xgboost(classify, seed, _):
    from xgboost import XGBClassifier, XGBRegressor

    kind = XGBClassifier if classify else XGBRegressor
    return kind(random_state=seed, enable_categorical=True, n_jobs=1)


def catboost(classify, seed, categorical):
    from catboost import CatBoostClassifier, CatBoostRegressor

    kind = CatBoostClassifier if classify else CatBoostRegressor
    return kind(
        random_state=seed,
        cat_features=categorical,
        verbose=0,
        allow_writing_files=False,
        thread_count=1,
    )


def _pytabkit(kind, classify, seed):
    import pytabkit

    estimator = getattr(pytabkit, f"{kind}_{'Classifier' if classify else 'Regressor'}")
    return estimator(random_state=seed, device="cpu", n_threads=1)


def pytabkit_realmlp(classify, seed, _):
    return _pytabkit("RealMLP_TD", classify, seed)


def pytabkit_tabm(classify, seed, _):
    return _pytabkit("TabM_D", classify, seed)


CONTESTANTS = {
    "skstack TabM": (skstack_tabm, "skstack"),
    "skstack stack": (skstack_stack, "skstack"),
    "skstack MLP": (skstack_mlp, "skstack"),
    "skstack stack of MLP and boosting": (skstack_stack_of_mlp, "skstack"),
    "HistGradientBoosting": (hist_gradient_boosting, "scikit-learn"),
    "LightGBM": (lightgbm, "lightgbm"),
    "XGBoost": (xgboost, "xgboost"),
    "CatBoost": (catboost, "catboost"),
    "MLPClassifier": (mlp, "scikit-learn"),
    "pytabkit RealMLP-TD": (pytabkit_realmlp, "pytabkit"),
    "pytabkit TabM": (pytabkit_tabm, "pytabkit"),
    "linear": (linear, "scikit-learn"),
}


def run(contestant, name, seed, options):
    """Scores and seconds of one fit."""
    make, package = CONTESTANTS[contestant]
    X, y = table(name, options.data)
    classify = name not in REGRESSION
    if classify:
        y = np.unique(y, return_inverse=True)[1]
    train, test = split(y, seed, classify=classify, all_rows=options.all_rows)
    categorical = list(X.select_dtypes("category"))
    estimator = make(classify, seed, categorical)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(X.iloc[train], y[train])
    seconds = time.perf_counter() - start
    result = {
        "contestant": contestant,
        "table": name,
        "seed": seed,
        "rows": len(train),
        "seconds": round(seconds, 2),
        "version": f"{package} {importlib.metadata.version(package)}",
        "machine": platform.machine(),
    }
    score = _regression_score if not classify else _classification_score
    result |= score(estimator, X.iloc[test], y[test])
    if parts := getattr(estimator, "named_upstream_", None):
        losses = _losses(estimator, X.iloc[test], y[test], classify)
        result["parts"] = {}
        for part, branch in parts.items():
            difference = losses - _losses(branch.estimator_, X.iloc[test], y[test], classify)
            result["parts"][part] = {
                **score(branch.estimator_, X.iloc[test], y[test]),
                "difference": float(difference.mean()),
                "standard_error": float(difference.std(ddof=1) / len(test) ** 0.5),
            }
    return result


def _losses(estimator, X, y, classify):
    """Log loss or squared error of each row."""
    if not classify:
        return (y - np.ravel(estimator.predict(X))) ** 2
    return -np.log(_probabilities(estimator, X)[np.arange(len(y)), y])


def _probabilities(estimator, X):
    p = np.asarray(estimator.predict_proba(X), dtype=np.float64)
    p /= p.sum(axis=1, keepdims=True)
    return np.clip(p, np.finfo(np.float64).eps, 1)


def _regression_score(estimator, X, y):
    return {"rmse": float(root_mean_squared_error(y, np.ravel(estimator.predict(X))))}


def _classification_score(estimator, X, y):
    p = _probabilities(estimator, X)
    scores = {"log_loss": float(log_loss(y, p, labels=np.arange(p.shape[1])))}
    if p.shape[1] == 2:
        scores["auc"] = float(roc_auc_score(y, p[:, 1]))
    return {**scores, "accuracy": float(accuracy_score(y, p.argmax(axis=1)))}


def means(results):
    """Loss (log loss or RMSE) and seconds by table and contestant.

    Means over the splits of a table on which all of its contestants were run. A contestant that was
    run on fewer splits than another is left out.
    """
    frame = pd.DataFrame(results)
    n_splits = frame.groupby("contestant")["contestant"].transform("size")
    frame = frame[n_splits == n_splits.max()]
    split = ["table", "seed", "rows"]
    each = frame.groupby(split)["contestant"].transform("nunique")
    frame = frame[each == frame.groupby("table")["contestant"].transform("nunique")].copy()
    frame["loss"] = frame.get("log_loss", np.nan)
    if "rmse" in frame:
        frame["loss"] = frame["loss"].fillna(frame["rmse"])
    return frame.pivot_table(index="table", columns="contestant", values=["loss", "seconds"])


def report(results):
    """Lines of a Markdown table: losses by table, mean rank, median seconds."""
    both = means(results)
    losses = both["loss"].reindex([name for name in TABLES if name in both.index])
    names = [name for name in CONTESTANTS if name in losses]
    losses = losses[names]
    complete = losses.dropna()
    yield "| table | " + " | ".join(names) + " |"
    yield "| --- |" + " ---: |" * len(names)
    for label, row in losses.iterrows():
        best = row.min()
        cells = [f"**{v:.5g}**" if v == best else f"{v:.5g}" for v in row]
        yield f"| {label} | " + " | ".join(cells) + " |"
    if len(complete):
        ranks = pd.DataFrame([rankdata(row) for row in complete.to_numpy()], columns=names).mean()
        yield "| mean rank | " + " | ".join(f"{ranks[name]:.2f}" for name in names) + " |"
    seconds = both["seconds"][names].median()
    yield "| median seconds | " + " | ".join(f"{seconds[name]:.3g}" for name in names) + " |"


def gains(results, contestant="skstack stack"):
    """Lines of a Markdown table: a stack beside its parts, fitted on the same rows.

    The last column is the mean difference of the losses of test rows from those of the best part,
    in standard errors of that (paired) mean: averages over the splits.
    """
    rows = []
    for each in results:
        if each["contestant"] == contestant:
            loss = "rmse" if each["table"] in REGRESSION else "log_loss"
            row = {"table": each["table"], "stack": each[loss]}
            for part, found in each["parts"].items():
                row[part] = found[loss]
                row[f"{part}: difference"] = found["difference"]
                row[f"{part}: standard error"] = found["standard_error"]
            rows.append(row)
    if not rows:
        return
    parts = [column for column in rows[0] if f"{column}: difference" in rows[0]]
    averages = pd.DataFrame(rows).groupby("table").mean()
    yield f"| table | {contestant} | " + " | ".join(parts) + " | standard errors |"
    yield "| --- |" + " ---: |" * (len(parts) + 2)
    for label in filter(set(averages.index).__contains__, TABLES):
        row = averages.loc[label]
        best = row[parts].idxmin()
        distance = row[f"{best}: difference"] / row[f"{best}: standard error"]
        cells = [f"{value:.5g}" for value in row[["stack", *parts]]]
        yield f"| {label} | " + " | ".join([*cells, f"{distance:+.1f}"]) + " |"


def draw(results, path):
    """Loss of each contestant by table, as a multiple of that of HistGradientBoosting."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    losses = means(results)["loss"]
    losses = losses.reindex([name for name in TABLES if name in losses.index])
    relative = losses.div(losses["HistGradientBoosting"], axis=0)
    names = [name for name in CONTESTANTS if name in relative and name != "HistGradientBoosting"]
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    for place, name in enumerate(names):
        own = name.startswith("skstack")
        x = np.arange(len(relative)) + 0.09 * (place - (len(names) - 1) / 2)
        axes.plot(x, relative[name], "o" if own else "x", label=name, ms=7 if own else 6)
    axes.set_xticks(np.arange(len(relative)), relative.index)
    axes.axhline(1, color="grey", lw=1)
    axes.set_ylim(0.55, 1.6)
    axes.set_ylabel("log loss or RMSE / that of HistGradientBoosting")
    axes.tick_params(axis="x", rotation=45)
    axes.legend(ncols=2)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of contestants")
    parser.add_argument("--tables", nargs="+", metavar="NAME", default=list(TABLES))
    parser.add_argument("--seeds", type=int, default=3, help="number of splits")
    parser.add_argument("--all-rows", action="store_true", help="train on all training rows")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the tables")
    parser.add_argument("--results", type=Path, default=FOLDER / "quality.json")
    parser.add_argument("--plot", type=Path, help="draw losses into this PNG")
    parser.add_argument(
        "--report", action="store_true", help="only print what is known (of --only)"
    )
    options = parser.parse_args()
    chosen = options.only or [name for name in CONTESTANTS if name.startswith("skstack")]
    for what, known in (("contestant", CONTESTANTS), ("table", TABLES)):
        for name in chosen if what == "contestant" else options.tables:
            if name not in known:
                parser.error(f"no {what} {name!r}; there are {', '.join(known)}")
    results = json.loads(options.results.read_text()) if options.results.exists() else []
    done = {(each["contestant"], each["table"], each["seed"], each["rows"]) for each in results}
    if not options.report:
        if not options.data.exists():
            parser.error(f"no folder {options.data}: pass that of the tables with --data")
        for seed in range(options.seeds):
            for name in options.tables:
                _, y = table(name, options.data)
                train, _ = split(
                    y, seed, classify=name not in REGRESSION, all_rows=options.all_rows
                )
                for contestant in chosen:
                    if (contestant, name, seed, len(train)) in done:
                        continue
                    result = run(contestant, name, seed, options)
                    results.append(result)
                    options.results.write_text(json.dumps(results, indent=1) + "\n")
                    print(json.dumps(result), flush=True)
    if options.only and options.report:
        results = [each for each in results if each["contestant"] in options.only]
    print("\n".join(report(results)))
    print("\n" + "\n".join(gains(results)))
    if options.plot:
        draw(results, options.plot)


if __name__ == "__main__":
    main()
