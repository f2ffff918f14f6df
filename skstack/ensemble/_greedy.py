"""Greedy selection with replacement: weights of a convex combination of predictions."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import check_scoring

from skstack._base.disk_table import in_memory
from skstack._base.tables import take_rows
from skstack._training.formulas import with_temperature
from skstack.networks._heads import columns_of_labels, in_order_of

MAX_ITER = 100
SMALLEST = np.finfo(np.float32).eps  # below which probabilities are clipped in the log loss
_TIE = 1e-9  # difference of equal scores, relative to those of single predictions


def greedy_counts(predictions, score, max_iter=MAX_ITER):
    """How often forward selection with replacement adds each prediction.

    In each step the prediction is added, once more, with which the mean of all that were added
    scores best; the best step is kept (Caruana et al., ICML 2004, section 2.1). Of equal scores the
    simpler one is kept: fewer predictions, then those that come first.

    ``score`` of a combination is greater if it is better. The proportions of the counts are the
    weights of a convex combination.

    Examples
    --------
    >>> import numpy as np
    >>> from skstack.ensemble._greedy import greedy_counts
    >>> parts = [np.array([0.0, 1.0]), np.array([1.0, 0.0])]
    >>> greedy_counts(parts, lambda mean: -np.abs(mean - 0.5).max()).tolist()
    [1, 1]
    """
    counts = np.zeros(len(predictions), dtype=int)
    total = np.zeros(np.shape(predictions[0]))
    best, best_score, tie = None, -np.inf, 0.0
    for step in range(1, max_iter + 1):
        scores = [score((total + each) / step) for each in predictions]
        tie = tie if best is not None else _TIE * np.abs(scores).max()
        ties = [index for index, each in enumerate(scores) if each >= max(scores) - tie]
        chosen = min(ties, key=lambda index: (counts[index] == 0, index))
        counts[chosen] += 1
        total += predictions[chosen]
        simpler = best is not None and (counts > 0).sum() < (best > 0).sum()
        margin = -tie if simpler else tie
        if best is None or scores[chosen] > best_score + margin:
            best, best_score = counts.copy(), scores[chosen]
        if len(predictions) == 1:
            break
    return best


class LogLoss:
    """Negative log loss of probabilities; that of several labels is averaged over them.

    Of a combination only the probability that it gives to the true class matters, which
    ``prepared`` takes from the probabilities of each part.
    """

    def __init__(self, y, classes, sample_weight=None):
        self.several = y.ndim == 2
        self.true = y != 0 if self.several else np.searchsorted(classes, y)
        self.weights = sample_weight

    def prepared(self, probabilities):
        """Probabilities of the true classes."""
        if self.several:
            return np.where(self.true, probabilities, 1 - probabilities)
        return probabilities[np.arange(len(self.true)), self.true]

    def by_row(self, prepared):
        """The score of each row."""
        scores = np.log(np.clip(prepared, SMALLEST, 1))
        return scores.mean(axis=1) if self.several else scores

    def __call__(self, prepared):
        return float(np.average(self.by_row(prepared), weights=self.weights))


class SquaredError:
    """Negative mean squared error; of several targets the mean, each in units of its variance."""

    def __init__(self, y, sample_weight=None):
        self.y = y
        self.weights = sample_weight
        self.units = np.ones(())
        if y.ndim == 2 and y.shape[1] > 1:
            means = np.average(y, axis=0, weights=sample_weight)
            variances = np.average(np.square(y - means), axis=0, weights=sample_weight)
            self.units = np.where(variances > 0, variances, 1)

    def prepared(self, predictions):
        """Errors."""
        return predictions - self.y

    def by_row(self, prepared):
        """The score of each row."""
        scores = -np.square(prepared) / self.units
        return scores.mean(axis=1) if scores.ndim == 2 else scores

    def __call__(self, prepared):
        return float(np.average(self.by_row(prepared), weights=self.weights))


class Scored:
    """Score of a scorer of scikit-learn; ``name`` is that of the parameter.

    A callable may read the rows ``X``.
    """

    by_row = None  # the score of rows does not add up to that of all

    def __init__(self, scoring, X, y, classes=None, sample_weight=None, name="scoring"):
        self.scoring = scoring
        self.X = X
        self.y = y
        self.classes = classes
        self.params = {} if sample_weight is None else {"sample_weight": sample_weight}
        self.name = name

    def prepared(self, predictions):
        """The predictions themselves."""
        return predictions

    def __call__(self, prepared):
        if self.classes is None:
            model = _FixedRegressor(prepared)
        else:
            model = _FixedClassifier(prepared, self.classes, np.ndim(self.y) == 2)
        what = f"{self.name}={self.scoring!r}"
        try:
            scorer = check_scoring(model, scoring=self.scoring)
            value = float(scorer(model, self.X, self.y, **self.params))
        except Exception as error:  # a scorer may be any callable
            weighted = " with sample_weight" if self.params else ""
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"{what} cannot score predictions{weighted} ({reason}).") from error
        if not np.isfinite(value):
            raise ValueError(f"{what} of the predictions is {value}.")
        return value

    def check(self):
        """Refuse, before training, a scorer that cannot score predictions of this target."""
        y = self.y
        if self.classes is None:
            self(np.zeros_like(y, dtype=np.float64) + np.mean(y, axis=0))
        else:
            several = np.ndim(y) == 2
            self(np.full((len(y), len(self.classes)), 0.5 if several else 1 / len(self.classes)))


class _Fixed(BaseEstimator):
    def fit(self, X, y):
        """Nothing is learned."""
        return self

    def __sklearn_is_fitted__(self):
        return True


class _FixedRegressor(RegressorMixin, _Fixed):
    """Returns given predictions, for a scorer."""

    def __init__(self, predictions):
        self.predictions = predictions

    def predict(self, X):
        """The given predictions."""
        return self.predictions


class _FixedClassifier(ClassifierMixin, _Fixed):
    """Returns given probabilities, for a scorer."""

    def __init__(self, probabilities, classes_, several):
        self.probabilities = probabilities
        # Of labels those of each, as scorers expect: two labels are not two classes.
        self.classes_ = [np.arange(2)] * len(classes_) if several else classes_
        self.several = several

    def predict_proba(self, X):
        """The given probabilities."""
        return self.probabilities

    def predict(self, X):
        """The most probable classes."""
        return classes_of(self.probabilities, self.classes_, several=self.several)


def objective(scoring, X, y, *, rows=None, classes=None, sample_weight=None, name="scoring"):
    """The score to maximise: log loss of classes, squared error of numbers, or a scorer.

    ``y`` and ``sample_weight`` are those of some ``rows`` of X, or of all (None). A scorer that
    does not suit the target raises a ValueError.
    """
    if scoring is None and classes is None:
        return SquaredError(y, sample_weight)
    if scoring is None:
        return LogLoss(y, classes, sample_weight)
    if callable(scoring):
        X = in_memory(X if rows is None else take_rows(X, rows))
    scored = Scored(scoring, X, y, classes, sample_weight, name)
    scored.check()
    return scored


def blend(parts, weights):
    """The convex combination of predictions, by name; parts of weight 0 may be missing."""
    return sum(weight * parts[name] for name, weight in weights.items() if weight > 0)


def learned_blend(parts, score, max_iter=MAX_ITER):
    """Weights and scores by name, and the number of steps; the simpler predictions first.

    A part is left out if the score without it is worse by less than one standard error, unless the
    score is that of a scorer, or without it worse than that of the best part: a single row of which
    a part is wrongly certain has a standard error as large as what it costs. The scores are those
    of the parts, and that of their combination, named ``blend``.
    """
    prepared = {name: score.prepared(each) for name, each in parts.items()}
    scores = {name: score(each) for name, each in prepared.items()}
    least = max(scores.values())
    least -= _TIE * abs(least)
    counts, mean = _selected(prepared, prepared, score, max_iter)
    while score.by_row is not None and (counts > 0).sum() > 1:
        used = [name for name, count in zip(parts, counts, strict=True) if count]
        costs = {}
        for name in reversed(used):  # of equal ones the simpler stays
            rest = [other for other in used if other != name]
            without = _selected(prepared, rest, score, max_iter)
            if score(without[1]) >= least:
                costs[name] = _standardized(score, mean, without[1]), without
        cheapest = min(costs, key=lambda name: costs[name][0], default=None)
        if cheapest is None or costs[cheapest][0] >= 1:
            break
        counts, mean = costs[cheapest][1]
    weights = dict(zip(parts, map(float, counts / counts.sum()), strict=True))
    return weights, {**scores, "blend": score(mean)}, int(counts.sum())


def _selected(prepared, names, score, max_iter):
    """Counts of all predictions, of which only some may be selected, and their combination."""
    chosen = greedy_counts([prepared[name] for name in names], score, max_iter)
    by_name = dict(zip(names, chosen, strict=True))
    counts = np.array([by_name.get(name, 0) for name in prepared])
    mean = sum(n * prepared[name] for name, n in by_name.items() if n) / counts.sum()
    return counts, mean


def _standardized(score, better, worse):
    """The difference of two scores in units of its standard error.

    Each row is one observation, whatever its weight: of weights only proportions count.
    """
    differences = score.by_row(better) - score.by_row(worse)
    weights = np.ones(len(differences)) if score.weights is None else score.weights
    mean = np.average(differences, weights=weights)
    error = np.sqrt(np.sum(np.square(weights * (differences - mean)))) / weights.sum()
    return mean / error if error > 0 else np.inf * np.sign(mean)


def classes_of(probabilities, classes, *, several):
    """Labels of the largest probability, or an indicator of those above 0.5."""
    if several:
        return (probabilities > 0.5).astype(int)
    return classes[probabilities.argmax(axis=1)]


def probabilities_for(classes, estimator_classes, probabilities, *, several=False):
    """Probabilities of all classes as float64; 0 for those that the estimator does not know.

    Those of several labels, also in the form of scikit-learn's trees, become one column per label.
    """
    if isinstance(probabilities, list):
        probabilities, several = columns_of_labels(probabilities, estimator_classes), True
    probabilities = np.asarray(probabilities)
    rounded = probabilities.dtype != np.float64
    probabilities = probabilities.astype(np.float64)
    if not several:
        probabilities = normalized(probabilities) if rounded else probabilities
        if estimator_classes is not None:
            probabilities = in_order_of(classes, probabilities, estimator_classes)
    if probabilities.shape[1:] != (len(classes),):
        what = "labels" if several else "classes"
        raise ValueError(
            f"its probabilities have the shape {probabilities.shape}, but y holds {len(classes)} "
            f"{what}."
        )
    return probabilities


def normalized(probabilities):
    """Probabilities with rows that add up to 1 in float64, as the scores of scikit-learn expect."""
    total = probabilities.sum(axis=1, keepdims=True)
    return probabilities / np.where(total > 0, total, 1)


# Calibration -------------------------------------------------------------------------------------


def learned_temperature(probabilities, score):
    """The temperature with the smallest log loss; ``score`` is a `LogLoss`.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2.
    """

    def loss(log_temperature):
        temperature = np.exp(log_temperature)
        p = with_temperature(probabilities, temperature, np, exclusive=not score.several)
        return -score(score.prepared(p))

    found = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-4})
    return 1.0 if found.fun >= loss(0) else float(np.exp(found.x))
