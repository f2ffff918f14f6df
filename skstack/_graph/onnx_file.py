"""The exported model as an ONNX file, compared with the network that it was written from."""

from __future__ import annotations

import contextlib

import numpy as np

from skstack._graph.dispatch import first_part, model_with_parts, raw_columns
from skstack._graph.onnx_parts import insert, onnx_packages, onnx_parts
from skstack._training.keras_model import all_layers, embedded_inputs

# The file is compared with the network on so many rows, and on one.
_N_ROWS = 128
_TOLERANCES = {"float32": 1e-3, "float16": 1e-2}
# Share of rows that must agree: rounding decides near a step, as between two class codes.
_LEAST_SHARE = 0.98


def write_onnx(estimator, path):
    """Export with codes as inputs, then add what Keras cannot export: trees, lookups of strings."""
    onnx, _ = onnx_packages()
    path = path.with_suffix(".onnx")
    fused, parts = model_with_parts(estimator)
    _check_names(fused)
    fused.export(path, format="onnx", verbose=False, input_signature=[_signature(fused)])
    model = onnx.load(path)
    graph = model.graph
    insert(model, parts)
    with onnx_parts():
        raw = raw_columns(estimator)
    words = {name: each for name, each in raw.categories.items() if each.dtype == "string"}
    for name, column in words.items():
        _add_lookup(onnx, graph, name, column.tokens.tolist())
    onnx.checker.check_model(model)
    _compare(model, fused, [part.key for part in parts], raw, _ranges(first_part(estimator)))
    onnx.save(model, path)
    return path


def _check_names(fused):
    """Refuse outputs, such as targets, that have the name of an input or none."""
    inputs = {tensor.name for tensor in fused.inputs}
    for name in fused.output:
        if not name or name in inputs:
            why = "is also the name of an input" if name else "is empty"
            raise ValueError(
                f"format='onnx': the name {name!r} of a target {why}, which ONNX does not allow. "
                "Rename the target before fit, or use the format 'saved_model'."
            )


def _signature(model):
    import keras

    return keras.tree.map_structure(
        lambda tensor: keras.InputSpec(shape=tensor.shape, dtype=tensor.dtype, name=tensor.name),
        model.input,
    )


def _add_lookup(onnx, graph, name, tokens):
    """Replace an input of codes by one of strings."""
    (value,) = [value for value in graph.input if value.name == name]
    codes = f"{name}/codes"
    for node in graph.node:
        node.input[:] = [codes if own == name else own for own in node.input]
    value.type.tensor_type.elem_type = onnx.TensorProto.STRING
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


# The comparison -------------------------------------------------------------------------------


def _compare(model, fused, keys, raw, ranges):
    """Refuse a file that computes anything but the network; `keys` are inputs from its parts.

    The nodes of parts have been compared with their estimators. What they predict here is read from
    the file, and given to the network.
    """
    onnx, onnxruntime = onnx_packages()
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    value = onnx.helper.make_tensor_value_info
    inner = [*keys, *(f"{key}_table" for key in keys)]
    whole.graph.output.extend(value(name, onnx.TensorProto.FLOAT, [None, None]) for name in inner)
    run = _runner(onnxruntime, whole)
    half = any(layer.compute_dtype == "float16" for layer in all_layers(fused))
    tolerance = _TOLERANCES["float16" if half else "float32"]
    for n_rows in (_N_ROWS, 1):
        rows = _rows(fused, keys, raw, ranges, n_rows)
        words = {
            name: column.tokens[rows[name]].astype(object)
            for name, column in raw.categories.items()
            if column.dtype == "string"
        }
        found = run({**rows, **words})
        expected = fused({**rows, **{key: found[key] for key in keys}})
        for name, tensor in expected.items():
            _check_equal(name, found[name], np.asarray(tensor), tolerance)


def _runner(onnxruntime, model):
    """Function of inputs by name that runs a file and returns its outputs by name."""

    @contextlib.contextmanager
    def explained():
        try:
            yield
        except Exception as error:  # onnxruntime has classes of its own
            raise ValueError(
                f"format='onnx': onnxruntime cannot run the file ({error}); nothing was written. "
                "Use the format 'saved_model'."
            ) from error

    with explained():
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
    names = [each.name for each in session.get_outputs()]

    def run(inputs):
        with explained():
            return dict(zip(names, session.run(None, inputs), strict=True))

    return run


def _rows(fused, keys, raw, ranges, n_rows):
    """Inputs of the network by name; a category of words as its code."""
    rng = np.random.default_rng(0)
    embedded = embedded_inputs(fused) or {}
    rows = {}
    for number, tensor in enumerate(fused.inputs):
        name, shape = tensor.name, (n_rows, *tensor.shape[1:])
        if name in raw.categories:
            column = raw.categories[name]
            codes = rng.integers(len(column.tokens), size=shape)
            rows[name] = codes if column.dtype == "string" else column.tokens[codes]
        elif "int" in tensor.dtype:
            _, size = embedded.get(number, (None, 2))
            rows[name] = rng.integers(size, size=shape).astype(tensor.dtype)
        elif name not in keys:
            array = rng.uniform(size=shape)
            if raw.shape is None and name not in raw.arrays:
                array = _numbers(array, raw, ranges, rng)
            rows[name] = array.astype(tensor.dtype)
    return rows


def _ranges(first):
    """Minimum and maximum of training rows by column name, as far as the estimator knows them."""
    profile = getattr(first, "input_profile_", None)
    if profile is None:
        return {}
    return dict(zip(profile.names, zip(profile.minimum, profile.maximum, strict=True), strict=True))


def _numbers(array, raw, ranges, rng):
    """Numbers in the range of the training rows where that is known; some are missing."""
    for position, index in enumerate(raw.numbers):
        low, high = ranges.get(raw.label(index), (0.0, 1.0))
        if np.isfinite(high - low):  # not of an empty column
            array[:, position] = low + (high - low) * array[:, position]
    if raw.allow_nan:
        gaps = rng.uniform(size=array.shape) < 0.1
        gaps[: len(array) // 2] = False
        array[gaps] = np.nan
    return array


def _check_equal(name, found, expected, tolerance):
    """Refuse an output of the file that is not that of the network."""
    if found.shape == expected.shape:
        finite = np.abs(expected[np.isfinite(expected)])
        scale = float(finite.max()) if finite.size else 1.0
        equal = np.isclose(found, expected, tolerance, tolerance * scale, equal_nan=True)
        share = equal.reshape(len(found), -1).all(axis=1).mean()
        if share >= _LEAST_SHARE:
            return
        what = f"differs from the network in {1 - share:.0%} of {len(found)} rows"
    else:
        what = f"has the shape {found.shape}, and that of the network {expected.shape}"
    raise ValueError(
        f"format='onnx': the output {name!r} of the file, as onnxruntime computes it, {what}; "
        "nothing was written. Use the format 'saved_model'."
    )
