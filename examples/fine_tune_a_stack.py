"""Fine-tuning a stack
===================

Joint fine-tuning of a stack: where it helps, and where it does not.

One network learns from the columns of the client, another from those of the call and the economy;
a third one learns from both. `--quick` uses few rows, epochs and folds, to check that everything
runs.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold, cross_validate

import skstack
from skstack import FineTune, KerasClassifier, KerasFeatureTransformer, StackedKerasClassifier
from skstack.networks import MLP

skstack.silence_tensorflow()

DATA = Path(__file__).resolve().parent / "data" / "bank_marketing.csv.gz"

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--quick", action="store_true", help="few rows, columns and epochs, two folds")
quick = parser.parse_args().quick

calls = pd.read_csv(DATA, keep_default_na=False, nrows=600 if quick else None)
strings = calls.columns[[not pd.api.types.is_numeric_dtype(dtype) for dtype in calls.dtypes]]
calls = calls.astype(dict.fromkeys(strings.drop("y"), "category"))
y = (calls.pop("y") == "yes").to_numpy(int)
client_columns = ["age", "job", "marital", "education", "default", "housing", "loan"]
if quick:  # where all folds have the same categories, all fits share what is compiled
    calls = calls.drop(columns=client_columns[1:4])
    del client_columns[1:4]
call_columns = [column for column in calls if column not in client_columns]

training = {"batch_size": 64, "early_stopping": False}
network = KerasClassifier(MLP((32, 16)), epochs=1 if quick else 5, **training)
# The calls are in time order, and the economy changed over time: shuffle.
shuffled = StratifiedKFold(3, shuffle=True, random_state=0)
inner = KerasFeatureTransformer(network, layers="hidden_2", cv=shuffled)


def stack(upstream, fine_tune):
    return StackedKerasClassifier(
        [("client", upstream, client_columns), ("call", upstream, call_columns)],
        downstream=KerasClassifier(MLP((16,)), epochs=2 if quick else 10, **training),
        blend=False,
        passthrough=False,
        cv=shuffled,
        fine_tune=fine_tune,
        random_state=0,
    )


tuning = FineTune(3 if quick else 20, learning_rate=1e-3, upstream_lr_multiplier=0.3)
contestants = {
    "predictions, in stages": stack(network, None),
    "predictions, tuned": stack(network, tuning),
    "inner layers, in stages": stack(inner, None),
    "inner layers, tuned": stack(inner, tuning),
    "one network on all columns": KerasClassifier(
        MLP((32, 16)), epochs=2 if quick else 10, random_state=0, **training
    ),
}

folds = StratifiedKFold(2 if quick else 3, shuffle=True, random_state=0)
print(f"{len(y)} calls, {y.mean():.1%} of them successful; {folds.n_splits} folds\n")
print(f"{'upstream features':28} log loss   ROC AUC   kept")
for name, model in contestants.items():
    results = cross_validate(
        model, calls, y, cv=folds, scoring=["neg_log_loss", "roc_auc"], return_estimator=True
    )
    loss, auc = -results["test_neg_log_loss"].mean(), results["test_roc_auc"].mean()
    kept = [model.fine_tuned_ for model in results["estimator"] if hasattr(model, "fine_tuned_")]
    n_kept = f"{np.sum(kept)} of {len(kept)}" if name.endswith("tuned") else "-"
    print(f"{name:28} {loss:.4f}     {auc:.4f}    {n_kept}")
