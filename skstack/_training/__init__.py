"""How weights are learned: compiled programs, epochs, early stopping, seeds, predictions.

`train` takes a `Blueprint`, initial weights, rows and a `TrainConfig`, and returns a `Network`,
whose weights are NumPy arrays.
"""
