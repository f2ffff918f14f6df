"""``CalibratedClassifierCV`` of scikit-learn as layers: probabilities mapped for each class."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops
from sklearn.isotonic import IsotonicRegression

from skstack._base.sklearn import SigmoidCalibration
from skstack._graph.formulas import Classes
from skstack._graph.onnx_parts import writes_onnx
from skstack._graph.tables import function_layer, layer_name, refuse, selection

_TINY = 1e-12  # what scikit-learn adds before it takes logarithms


def calibrated_classes(part, name, predict):
    """`Classes` of a fitted CalibratedClassifierCV.

    ``predict(estimator, name)`` returns those of the classifier of a fold.
    """
    folds = part.calibrated_classifiers_
    outputs = []
    for number, fold in enumerate(folds, start=1):
        label = name if len(folds) == 1 else f"{name}_fold_{number}"
        _check(fold, name)
        p = predict(fold.estimator, label).all(f"{label}_probabilities")
        outputs.append(function_layer(f"{label}_calibrated", [p], _calibrated(fold, name)))
    if len(outputs) == 1:
        return Classes(outputs[0])
    return Classes(keras.layers.Average(name=layer_name(f"{name}_mean"))(outputs))


def _check(fold, name):
    if hasattr(fold.estimator, "decision_function"):
        _refuse(
            name,
            f"it calibrates decision_function of {type(fold.estimator).__name__}; expected a "
            "classifier that has predict_proba alone, such as KerasClassifier.",
        )
    if len(fold.estimator.classes_) != len(fold.classes):
        _refuse(name, "one of its folds has seen some of the classes only.")


def _refuse(name, why):
    whole = "file" if writes_onnx() else "keras.Model"
    refuse(f"CalibratedClassifierCV (the part {name!r})", why, whole)


def _calibrated(fold, name):
    """The function of probabilities of all classes that a fold has learned."""
    if fold.method == "temperature":
        exponent = float(fold.calibrators[0].beta_)
        return lambda p: ops.softmax(ops.log(p + _TINY) * exponent, axis=1)
    maps = [_map(calibrator, name) for calibrator in fold.calibrators]
    return lambda p: _joined(p, maps)


def _map(calibrator, name):
    """The function of probabilities that a calibrator has learned."""
    if isinstance(calibrator, SigmoidCalibration):
        slope, offset = float(calibrator.a_), float(calibrator.b_)
        return lambda p: ops.sigmoid(p * -slope - offset)
    if isinstance(calibrator, IsotonicRegression):
        x = np.asarray(calibrator.X_thresholds_, dtype=np.float32)
        y = np.asarray(calibrator.y_thresholds_, dtype=np.float32)
        # Between two thresholds a share of the step is added: no slope grows beyond float32.
        start, steps = x[:-1], np.diff(y)
        widths = np.maximum(np.diff(x), np.finfo(np.float32).tiny)
        return lambda p: (
            ops.sum(ops.clip((p - start) / widths, 0.0, 1.0) * steps, axis=1, keepdims=True)
            + float(y[0])
        )
    _refuse(name, f"{type(calibrator).__name__} is not the calibrator of a known method.")


def _joined(p, maps):
    if len(maps) == 1:  # of the second of two classes
        second = maps[0](selection([1])(p))
        return ops.concatenate([1.0 - second, second], axis=1)
    columns = [each(selection([index])(p)) for index, each in enumerate(maps)]
    mapped = ops.concatenate(columns, axis=1)
    total = ops.sum(mapped, axis=1, keepdims=True)
    return ops.where(total > 0, mapped / ops.where(total > 0, total, 1.0), 1.0 / len(maps))
