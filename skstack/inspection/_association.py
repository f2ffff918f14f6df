"""How well something tells the target, and how well chance does."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm, rankdata
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def association(told, y, classification):
    """Mean one-against-rest ROC AUC, or R2.

    Parameters
    ----------
    told : ndarray of shape (n_rows,) or (n_rows, n_classes)
        Predictions; for classes, probabilities or decisions in the order of the labels.

    y : ndarray of shape (n_rows,)

    classification : bool

    Returns
    -------
    float
        AUC in [0, 1], with chance at 0.5; R2 at most 1, with chance at 0.
    """
    y = np.asarray(y)
    if not classification:
        total = np.sum((y - y.mean()) ** 2)
        return 1 - np.sum((y - np.ravel(told)) ** 2) / total if total > 0 else 0.0
    labels = np.unique(y)
    told = np.asarray(told).reshape(len(y), -1)
    if len(labels) == 2:
        return _auc(told[:, -1], y == labels[1])
    return float(np.mean([_auc(told[:, k], y == label) for k, label in enumerate(labels)]))


def _auc(score, positive):
    n = positive.sum()
    rest = len(positive) - n
    return (rankdata(score)[positive].sum() - n * (n + 1) / 2) / (n * rest) if n * rest else 0.5


def beyond_chance(told, y, classification):
    """How far an association lies above that with shuffled targets.

    Parameters
    ----------
    told, y, classification : as in association

    Returns
    -------
    value : float
        The association; for numbers the correlation, for R2 has no symmetric chance.

    z : float
        Its distance from chance, in standard deviations.

    p : float
        One-sided, of the normal distribution.

    Notes
    -----
    Of two classes the AUC under chance has the variance of Mann & Whitney (Annals of Mathematical
    Statistics 18, 1947); the mean over more classes is taken to vary like its most certain part,
    which makes z too small rather than too large. A correlation varies like 1 / sqrt(n - 1).
    """
    y = np.asarray(y)
    if classification:
        value = association(told, y, True)
        _, n = np.unique(y, return_counts=True)
        spread = np.sqrt((len(y) + 1) / (12.0 * n * (len(y) - n))).min() if len(n) > 1 else np.inf
        z = (value - 0.5) / spread
    else:
        told = np.ravel(told)
        varies = told.std() > 0 and y.std() > 0
        value = float(np.corrcoef(told, y)[0, 1]) if varies else 0.0
        z = value * np.sqrt(len(y) - 1)
    return float(value), float(z), float(norm.sf(z))


def told_by(features, y, classification):
    """Out-of-fold predictions of y by a linear model on a table; None where it cannot be had.

    Parameters
    ----------
    features : ndarray of shape (n_rows, n_columns)

    y : ndarray of shape (n_rows,)

    classification : bool

    Returns
    -------
    ndarray or None
    """
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
