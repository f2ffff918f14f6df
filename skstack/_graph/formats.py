"""The exported model as a file, or folder, for another runtime."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import warnings
from pathlib import Path

from skstack._base.atomic_fit import caller_level
from skstack._base.params import checked_path
from skstack._graph.dispatch import fused_model
from skstack._graph.onnx_file import write_onnx
from skstack._graph.onnx_parts import onnx_packages
from skstack._graph.tables import LostPrecision
from skstack._training.keras_model import all_layers

FORMATS = ("saved_model", "onnx", "litert")
_LOGGERS = ("tensorflow", "absl", "tf2onnx")


def write(estimator, path, format):
    """Write a fitted estimator for another runtime; see ``ExportMixin.export``."""
    if format not in FORMATS:
        raise ValueError(f"format={format!r} is unknown; expected one of {list(FORMATS)}.")
    if format == "onnx":
        with _quiet():
            onnx_packages()
    path = Path(os.path.abspath(checked_path(path)))
    _check_path(path, format)
    writers = {"saved_model": _saved_model, "onnx": write_onnx, "litert": _litert}
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        with _quiet() as warned:
            written = writers[format](estimator, Path(folder) / "model")
        if path.is_dir():
            os.replace(path, Path(folder) / "replaced")
        os.replace(written, path)
    for message in dict.fromkeys(str(each.message) for each in warned):
        warnings.warn(message, LostPrecision, stacklevel=caller_level())


def _check_path(path, format):
    """Refuse paths that cannot be written, or that hold anything but an earlier export."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path={str(path)!r}: there is no folder {str(path.parent)!r}.")
    if format != "saved_model":
        if path.is_dir():
            raise IsADirectoryError(f"path={str(path)!r} is a folder; {format!r} writes a file.")
    elif path.exists():
        empty = path.is_dir() and not any(path.iterdir())
        if not empty and not (path / "saved_model.pb").exists():
            raise FileExistsError(
                f"path={str(path)!r} exists and is not a SavedModel; it was not replaced."
            )


def _saved_model(estimator, path):
    fused_model(estimator).export(path, format="tf_saved_model", verbose=False)
    return path


def _litert(estimator, path):
    import tensorflow as tf

    path = path.with_suffix(".tflite")
    # The interpreter has lookups of strings, but not of integers.
    fused = fused_model(estimator, look_up="equality")
    # By default Keras allows operations of TensorFlow, which the interpreter cannot run.
    builtin = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
    try:
        with _biases_by_addition(all_layers(fused)):
            fused.export(str(path), format="litert", verbose=False, target_spec=builtin)
    except Exception as error:
        if not any(part in str(error) for part in ("Select TF", "SELECT_TF_OPS", "Flex")):
            raise
        raise ValueError(
            f"format='litert': its interpreter cannot run layers of the classes "
            f"{_unsupported(fused)}. Use the format 'saved_model' or 'onnx'."
        ) from error
    return path


@contextlib.contextmanager
def _biases_by_addition(layers):
    """Context in which a bias such as that of members, of shape (members, 1), is added as it is.

    Keras adds it with TensorFlow's BiasAdd along axis 1, which the converter knows for images only.
    """
    import keras

    changed = []
    try:
        for layer in layers:
            plain = type(layer) is keras.layers.EinsumDense and layer.quantization_mode is None
            if plain and layer.bias is not None and len(layer.bias.shape) > 1:
                vars(layer)["call"] = _with_addition(layer)
                changed.append(layer)
        yield
    finally:
        for layer in changed:
            del vars(layer)["call"]


def _with_addition(layer):
    import tensorflow as tf
    from keras import ops

    def call(x, training=None):
        x = ops.einsum(layer.equation, x, layer.kernel)
        x = x + tf.cast(layer.bias, x.dtype)
        return x if layer.activation is None else layer.activation(x)

    return call


def _unsupported(model):
    """Names of the layer classes that the converter may have refused: recurrent ones, or all."""
    import keras

    layers = [layer for layer in all_layers(model) if not isinstance(layer, keras.Model)]
    kinds = keras.layers.RNN | keras.layers.Bidirectional
    recurrent = [layer for layer in layers if isinstance(layer, kinds)]
    return sorted({type(layer).__name__ for layer in recurrent or layers} - {"InputLayer"})


@contextlib.contextmanager
def _quiet():
    """Context without output, warnings and log messages of exporters; collects our warnings."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with (
        warnings.catch_warnings(record=True) as warned,
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", LostPrecision)
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield warned
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
