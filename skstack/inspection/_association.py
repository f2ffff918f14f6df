"""How well predictions are associated with a target, compared with chance."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skstack._base.tables import n_rows


def association(predictions, y, classification):
    """Mean one-versus-rest ROC AUC (chance: 0.5), or R2 (chance: 0).

    For classes, `predictions` are probabilities or decisions in the order of the labels.
    """
    y = np.asarray(y)
    if not classification:
        total = np.sum((y - y.mean(axis=0)) ** 2)
        errors = y - np.reshape(predictions, y.shape)
        return 1 - np.sum(errors**2) / total if total > 0 else 0.0
    labels = np.unique(y)
    predictions = np.asarray(predictions).reshape(len(y), -1)
    if len(labels) == 2:
        return _auc(predictions[:, -1], y == labels[1])
    return float(np.mean([_auc(predictions[:, k], y == label) for k, label in enumerate(labels)]))


def _auc(score, positive):
    n = positive.sum()
    n_rest = len(positive) - n
    return (rankdata(score)[positive].sum() - n * (n + 1) / 2) / (n * n_rest) if n * n_rest else 0.5


def beyond_chance(predictions, y, classification, units=None, least=0.0):
    """The association (for numbers, the rank correlation), its z-score under shuffled targets.

    `units` are the groups of rows that share one target: their predictions are averaged, because
    rows that were shuffled together are not independent. `least` is the effect (2 AUC - 1, or
    correlation) that is compared with; by default no effect at all.

    For two classes the AUC under chance has the variance of Mann & Whitney (Annals of Mathematical
    Statistics 18, 1947); for the mean over more classes the smallest variance of one class is used,
    so that z is too small rather than too large. A correlation has the standard deviation
    1 / sqrt(n - 1).
    """
    y = np.asarray(y)
    if units is not None:
        _, first, unit = np.unique(units, return_index=True, return_inverse=True)
        predictions = np.asarray(predictions, dtype=float).reshape(len(y), -1)
        count = np.bincount(unit)
        columns = [np.bincount(unit, column) / count for column in predictions.T]
        predictions, y = np.column_stack(columns), y[first]
    if classification:
        value = association(predictions, y, True)
        _, n = np.unique(y, return_counts=True)
        spread = np.sqrt((len(y) + 1) / (12.0 * n * (len(y) - n))).min() if len(n) > 1 else np.inf
        z = (value - 0.5 - least / 2) / spread
    else:
        predictions = np.ravel(predictions)
        varies = predictions.std() > 0 and y.std() > 0 and len(y) > 2
        value = np.corrcoef(rankdata(predictions), rankdata(y))[0, 1] if varies else 0.0
        z = (value - least) * np.sqrt(len(y) - 1)
    return float(value), float(z)


def pooled(scores):
    """(mean association, z) of several shuffles; None without any."""
    scores = [score for score in scores if score is not None]
    if not scores:
        return None
    z = np.sum([z for _, z in scores]) / np.sqrt(len(scores))
    return np.mean([value for value, _ in scores]), z


def effect(value, classification):
    """How far an association is from chance, in [0, 1]."""
    return float(np.clip(2 * value - 1 if classification else value, 0, 1))


def predictions_of(fitted, X, *, classification, labels):
    """Predictions of a fitted estimator: numbers, or for classes values in the order of labels."""
    if not classification:
        predictions = np.asarray(fitted.predict(X))
        several = predictions.ndim > 1 and predictions.shape[1] > 1
        return predictions if several else np.ravel(predictions)
    if labels is None:
        return np.asarray(fitted.predict(X), dtype=float)
    if hasattr(fitted, "predict_proba"):
        predictions = np.asarray(fitted.predict_proba(X)).reshape(n_rows(X), -1)
        if predictions.shape[1] == len(labels):
            return predictions
    elif hasattr(fitted, "decision_function"):
        predictions = np.asarray(fitted.decision_function(X)).reshape(n_rows(X), -1)
        if predictions.shape[1] == len(labels):
            return predictions
        if len(labels) == 2:
            return np.hstack([-predictions, predictions])
    return (np.asarray(fitted.predict(X))[:, None] == labels).astype(float)


def linear_predictions(features, y, predicted, classification):
    """Predictions of a linear model of features for other rows; None if it cannot be fitted."""
    usable = np.isfinite(features).all(axis=0) & np.isfinite(predicted).all(axis=0)
    features, predicted = features[:, usable], predicted[:, usable]
    if not features.shape[1] or len(y) < 10 or len(np.unique(y)) < 2:
        return None
    model = LogisticRegression(max_iter=200) if classification else Ridge()
    model = make_pipeline(StandardScaler(), model).fit(features, y)
    return model.predict_proba(predicted) if classification else model.predict(predicted)
