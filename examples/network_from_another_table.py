"""A network from another table
============================

A network that was trained on one table, used on another: frozen, continued, or not at all.

Calls of a bank: table A holds calls to the working population; table B, the one of interest, holds
the few calls to students and pensioners. `--quick` uses few epochs, to check that everything
runs.
"""

import argparse
from pathlib import Path

import pandas as pd
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_score

import skstack
from skstack import KerasClassifier, StackedKerasClassifier
from skstack.inspection import check_overlap
from skstack.networks import MLP

skstack.silence_tensorflow()

DATA = Path(__file__).resolve().parent / "data" / "bank_marketing.csv.gz"

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--quick", action="store_true", help="few epochs, few folds")
quick = parser.parse_args().quick
epochs = 2 if quick else 20
training = {"batch_size": 64, "early_stopping": False, "random_state": 0}

calls = pd.read_csv(DATA, keep_default_na=False)
strings = calls.columns[[not pd.api.types.is_numeric_dtype(dtype) for dtype in calls.dtypes]]
calls = calls.astype(dict.fromkeys(strings.drop(["y", "job"]), "category"))
in_b = calls.pop("job").isin(["student", "retired"])
A, B = calls[~in_b], calls[in_b]
X_a, y_a = A.drop(columns="y"), (A["y"] == "yes").to_numpy(int)
X_b, y_b = B.drop(columns="y"), (B["y"] == "yes").to_numpy(int)

# A frozen network that has seen test rows leaks, and no later step can undo it.
overlap = check_overlap(X_a, X_b)
print(overlap)
seen = X_b.index[overlap.rounded_b]
X_b, y_b = X_b.drop(index=seen), pd.Series(y_b, B.index).drop(seen).to_numpy()
print(f"{len(X_b)} rows of B are left, none of them seen by the network\n")

# Trained on A and then fixed: `FrozenEstimator` stays fitted when it is cloned.
frozen = FrozenEstimator(KerasClassifier(MLP((32, 16)), epochs=epochs, **training).fit(X_a, y_a))

scratch = KerasClassifier(MLP((32, 16)), epochs=epochs, **training)
continued = KerasClassifier(frozen, epochs=max(epochs // 4, 1), **training)  # from A's weights
downstream = KerasClassifier(MLP((16,)), epochs=epochs, **training)

contestants = {
    "B alone, from scratch": scratch,
    "A's network, continued on B": continued,
    "stack on A's frozen network": StackedKerasClassifier(
        [("a", frozen)], downstream=downstream, random_state=0
    ),
    "stack on A's network, continued": StackedKerasClassifier(
        [("a", continued)], downstream=downstream, cv=3, random_state=0
    ),
}

folds = StratifiedKFold(2 if quick else 5, shuffle=True, random_state=0)
print("ROC AUC on B")
print(f"{'A alone, unchanged':34} {roc_auc_score(y_b, frozen.predict_proba(X_b)[:, 1]):.3f}")
for name, model in contestants.items():
    scores = cross_val_score(model, X_b, y_b, cv=folds, scoring="roc_auc")
    print(f"{name:34} {scores.mean():.3f} (folds {scores.min():.3f} to {scores.max():.3f})")
