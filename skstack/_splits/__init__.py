"""Which rows may learn from which: folds, held-out rows, groups and time, who learns from y."""
