"""Rows on which a step may be fitted: folds, hold-out rows, groups, time; who learns from y."""
