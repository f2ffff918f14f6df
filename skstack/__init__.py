"""Leakage-safe stacks of Keras networks for scikit-learn.

The data's way: raw X -> named blocks of columns -> features of each upstream network (out-of-fold
while fitting) -> scaled -> resampled (training rows only) -> downstream network -> predictions.
"""

from skstack._autoencoder import KerasAutoencoder
from skstack._classifier import KerasClassifier
from skstack._regressor import KerasRegressor
from skstack._scikeras import from_scikeras
from skstack._stacked import StackedKerasClassifier, StackedKerasRegressor
from skstack._transformer import KerasFeatureTransformer

__version__ = "0.1.0"

__all__ = [
    "KerasAutoencoder",
    "KerasClassifier",
    "KerasFeatureTransformer",
    "KerasRegressor",
    "StackedKerasClassifier",
    "StackedKerasRegressor",
    "from_scikeras",
]
