"""Folds, hold-out rows, groups and time order, and which estimators learn from y."""
