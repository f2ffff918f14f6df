"""Convex combinations of estimators, weighted by their out-of-fold predictions."""

from skstack.ensemble._ensembles import GreedyEnsembleClassifier, GreedyEnsembleRegressor

__all__ = ["GreedyEnsembleClassifier", "GreedyEnsembleRegressor"]
