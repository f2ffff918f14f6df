"""How well predictions are associated with a target, compared with chance."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm, rankdata
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def association(predictions, y, classification):
    """Mean one-versus-rest ROC AUC (chance: 0.5), or R2 (chance: 0).

    For classes, `predictions` are probabilities or decisions in the order of the labels.
    """
    y = np.asarray(y)
    if not classification:
        total = np.sum((y - y.mean()) ** 2)
        return 1 - np.sum((y - np.ravel(predictions)) ** 2) / total if total > 0 else 0.0
    labels = np.unique(y)
    predictions = np.asarray(predictions).reshape(len(y), -1)
    if len(labels) == 2:
        return _auc(predictions[:, -1], y == labels[1])
    return float(np.mean([_auc(predictions[:, k], y == label) for k, label in enumerate(labels)]))


def _auc(score, positive):
    n = positive.sum()
    n_rest = len(positive) - n
    return (rankdata(score)[positive].sum() - n * (n + 1) / 2) / (n * n_rest) if n * n_rest else 0.5


def beyond_chance(predictions, y, classification):
    """The association (for numbers, the correlation), its z-score under shuffled targets, and p.

    For two classes the AUC under chance has the variance of Mann & Whitney (Annals of Mathematical
    Statistics 18, 1947); for the mean over more classes the smallest variance of one class is used,
    so that z is too small rather than too large. A correlation has the standard deviation
    1 / sqrt(n - 1). The p-value is one-sided, of the normal distribution.
    """
    y = np.asarray(y)
    if classification:
        value = association(predictions, y, True)
        _, n = np.unique(y, return_counts=True)
        spread = np.sqrt((len(y) + 1) / (12.0 * n * (len(y) - n))).min() if len(n) > 1 else np.inf
        z = (value - 0.5) / spread
    else:
        predictions = np.ravel(predictions)
        varies = predictions.std() > 0 and y.std() > 0
        value = float(np.corrcoef(predictions, y)[0, 1]) if varies else 0.0
        z = value * np.sqrt(len(y) - 1)
    return float(value), float(z), float(norm.sf(z))


def out_of_fold_predictions(features, y, classification):
    """Out-of-fold predictions of y by a linear model; None if there are too few rows or columns."""
    features = np.asarray(features, dtype=np.float64).reshape(len(y), -1)
    features = features[:, np.isfinite(features).all(axis=0)]
    model = LogisticRegression(max_iter=200) if classification else Ridge()
    folds = StratifiedKFold if classification else KFold
    smallest = np.unique(y, return_counts=True)[1].min() if classification else len(y)
    if not features.shape[1] or smallest < 3:
        return None
    return cross_val_predict(
        make_pipeline(StandardScaler(), model),
        features,
        y,
        cv=folds(3, shuffle=True, random_state=0),
        method="predict_proba" if classification else "predict",
    )
