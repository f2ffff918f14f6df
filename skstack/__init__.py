"""Leakage-safe stacks of Keras networks for scikit-learn.

Data flow: raw X -> named blocks of columns -> features of each upstream network (out-of-fold
while fitting) -> scaled -> resampled (training rows only) -> downstream network -> predictions.
"""

import importlib.metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skstack._base.tensorflow_import import silence_tensorflow
    from skstack._estimators.autoencoder import KerasAutoencoder
    from skstack._estimators.classifier import KerasClassifier
    from skstack._estimators.multi_task import KerasMultiTask
    from skstack._estimators.regressor import KerasRegressor
    from skstack._features.transformer import KerasFeatureTransformer
    from skstack._graph.export import export, keras_inputs, to_keras
    from skstack._persistence.file import load, save
    from skstack._scikeras import from_scikeras
    from skstack._stack.fine_tune import FineTune
    from skstack._stack.stacked import StackedKerasClassifier, StackedKerasRegressor

__version__ = importlib.metadata.version("skstack")

__all__ = [
    "FineTune",
    "KerasAutoencoder",
    "KerasClassifier",
    "KerasFeatureTransformer",
    "KerasMultiTask",
    "KerasRegressor",
    "StackedKerasClassifier",
    "StackedKerasRegressor",
    "export",
    "from_scikeras",
    "keras_inputs",
    "load",
    "save",
    "silence_tensorflow",
    "to_keras",
]

# Names are imported on first access, so that `import skstack` does not load TensorFlow.
_MODULES = {
    "FineTune": "_stack.fine_tune",
    "KerasAutoencoder": "_estimators.autoencoder",
    "KerasClassifier": "_estimators.classifier",
    "KerasFeatureTransformer": "_features.transformer",
    "KerasMultiTask": "_estimators.multi_task",
    "KerasRegressor": "_estimators.regressor",
    "StackedKerasClassifier": "_stack.stacked",
    "StackedKerasRegressor": "_stack.stacked",
    "export": "_graph.export",
    "from_scikeras": "_scikeras",
    "keras_inputs": "_graph.export",
    "load": "_persistence.file",
    "save": "_persistence.file",
    "silence_tensorflow": "_base.tensorflow_import",
    "to_keras": "_graph.export",
}
_SUBPACKAGES = ("ensemble", "inspection", "losses", "networks", "preprocessing")


def __getattr__(name):
    if name in _SUBPACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__, *_SUBPACKAGES})
