"""A fused model as a file, or folder, that another runtime loads."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import warnings
from pathlib import Path

from skstack._graph.dispatch import fused_model, raw_columns
from skstack._graph.networks import inner_layers

FORMATS = ("saved_model", "onnx", "litert")
_CHATTY = ("tensorflow", "absl", "tf2onnx")


def write(estimator, path, format):
    """Write a fitted estimator for another runtime; see ``ExportMixin.export``."""
    if format not in FORMATS:
        raise ValueError(f"format={format!r} is unknown; accepted are {list(FORMATS)}.")
    if format == "onnx":
        _onnx_package()
    path = Path(os.path.abspath(path))
    _check_place(path, format)
    writers = {"saved_model": _saved_model, "onnx": _onnx, "litert": _litert}
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        made = Path(folder) / "made"
        with _quiet():
            made = writers[format](estimator, made)
        if path.is_dir():
            os.replace(path, Path(folder) / "before")
        os.replace(made, path)


def _check_place(path, format):
    """Refuse places where nothing can be written, or something else would be lost."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path={str(path)!r}: there is no folder {str(path.parent)!r}.")
    if format != "saved_model":
        if path.is_dir():
            raise IsADirectoryError(f"path={str(path)!r} is a folder; {format!r} makes a file.")
    elif path.exists():
        ours = path.is_dir() and ((path / "saved_model.pb").exists() or not any(path.iterdir()))
        if not ours:
            raise FileExistsError(
                f"path={str(path)!r} exists and is no SavedModel; it is left as it is."
            )


def _saved_model(estimator, path):
    fused_model(estimator).export(path, format="tf_saved_model", verbose=False)
    return path


def _litert(estimator, path):
    import tensorflow as tf

    path = path.with_suffix(".tflite")
    # Its runtime looks up words, but no numbers.
    fused = fused_model(estimator, look_up="equality")
    # No more than the interpreter can run: Keras would let operations of TensorFlow in.
    runs = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
    try:
        fused.export(path, format="litert", verbose=False, target_spec=runs)
    except Exception as error:
        if not any(words in str(error) for words in ("Select TF", "SELECT_TF_OPS", "Flex")):
            raise
        raise ValueError(
            f"format='litert': its interpreter cannot run layers of the classes "
            f"{_suspects(fused)}. The formats 'saved_model' and 'onnx' can hold them."
        ) from error
    return path


def _suspects(model):
    """Names of the classes of layers that a converter stumbles over: recurrent ones, or any."""
    import keras

    every = [each for each in inner_layers(model) if not isinstance(each, keras.Model)]
    kinds = keras.layers.RNN | keras.layers.Bidirectional
    recurrent = [each for each in every if isinstance(each, kinds)]
    return sorted({type(each).__name__ for each in recurrent or every} - {"InputLayer"})


def _onnx(estimator, path):
    """Words come in as codes from a node of ONNX' own, for its converter knows no look-up."""
    onnx = _onnx_package()
    path = path.with_suffix(".onnx")
    fused = fused_model(estimator, look_up="given words")
    fused.export(path, format="onnx", verbose=False, input_signature=[_signature(fused)])
    model = onnx.load(path)
    graph = model.graph
    _rename_output(graph, "output_0")
    for name, words in raw_columns(estimator).categories.items():
        if words.dtype == "string":
            _look_up_words(onnx, graph, name, words.tokens.tolist())
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def _onnx_package():
    try:
        with _quiet():
            import onnx
            import tf2onnx  # noqa: F401  Keras converts with it
    except ImportError as error:
        raise ImportError(
            f"export(format='onnx') needs a package that is not there ({error}): "
            "pip install 'skstack[onnx]'."
        ) from error
    return onnx


def _signature(model):
    import keras

    return keras.tree.map_structure(
        lambda tensor: keras.InputSpec(shape=tensor.shape, dtype=tensor.dtype, name=tensor.name),
        model.input,
    )


def _rename_output(graph, name):
    (output,) = graph.output
    for node in graph.node:
        node.output[:] = [name if own == output.name else own for own in node.output]
        node.input[:] = [name if own == output.name else own for own in node.input]
    output.name = name


def _look_up_words(onnx, graph, name, tokens):
    (given,) = [value for value in graph.input if value.name == name]
    codes = f"{name}/codes"
    for node in graph.node:
        node.input[:] = [codes if own == name else own for own in node.input]
    given.type.tensor_type.elem_type = onnx.TensorProto.STRING
    node = onnx.helper.make_node(
        "LabelEncoder",
        [name],
        [codes],
        name=f"{name}/look_up",
        domain="ai.onnx.ml",
        keys_strings=tokens[1:],
        values_int64s=list(range(1, len(tokens))),
        default_int64=0,
    )
    graph.node.insert(0, node)


@contextlib.contextmanager
def _quiet():
    """While open, exporters say nothing."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
