"""Which rows may be learned from: folds, held-out rows, groups and time, and who learns from y."""
