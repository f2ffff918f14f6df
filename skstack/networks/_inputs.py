"""Which block of X goes into which input of a user's ``keras.Model``."""

from __future__ import annotations

import math


def _known_inputs(model):
    """Shapes and dtypes of a model's inputs, by name, in its order; None where unknown."""
    tensors = getattr(model, "inputs", None)
    if tensors:
        structure = getattr(model, "input", None)
        if isinstance(structure, dict):
            by_identity = {id(tensor): name for name, tensor in structure.items()}
            names = [by_identity.get(id(tensor), tensor.name) for tensor in tensors]
        else:
            names = [tensor.name for tensor in tensors]
        return {
            name: (tuple(tensor.shape[1:]), tensor.dtype)
            for name, tensor in zip(names, tensors, strict=True)
        }
    if not model.built:
        return None
    shapes = (model.get_build_config() or {}).get("input_shape")
    if isinstance(shapes, dict):
        return {name: (tuple(shape[1:]), None) for name, shape in shapes.items()}
    if shapes and not any(isinstance(size, (list, tuple)) for size in shapes):
        return {"input": (tuple(shapes[1:]), None)}
    return None


def _fits(shape, block):
    if block.shape == () and shape == (1,):
        return True
    return len(shape) == len(block.shape) and all(
        size is None or size == own for size, own in zip(shape, block.shape, strict=True)
    )


def _remedy(shape, block):
    """What to write where a plain reshape may be meant."""
    fixed = None not in shape and math.prod(shape) == math.prod(block.shape)
    return f" Where a reshape is meant, say input_shape={tuple(shape)}." if fixed else ""


def _looks_up(model):
    """Whether a model, or one inside it, turns values into codes by itself."""
    import keras

    lookups = (keras.layers.StringLookup, keras.layers.IntegerLookup, keras.layers.Hashing)
    return any(
        isinstance(layer, lookups) or (isinstance(layer, keras.Model) and _looks_up(layer))
        for layer in model.layers
    )


def _refuse_looking_up(model, have):
    """Refuse codes of categories for a model that takes the categories themselves."""
    coded = [name for name, block in have.items() if block.kind == "categorical"]
    if coded and _looks_up(model):
        raise ValueError(
            f"model={model.name!r} looks categories up by itself, but would get the codes of "
            f"{coded}. Where it came from an estimator of skstack, use that one, which knows its "
            "columns: FrozenEstimator(estimator), saved with skstack.save."
        )


def match_inputs(model, blocks):
    """Pair a model's inputs with the blocks of X: one with one, several by name or by order.

    Parameters
    ----------
    model : keras.Model

    blocks : tuple of Block

    Returns
    -------
    dict of str to (tuple, str)
        By block name, in the order of the model's inputs: shape of one row and dtype.

    Raises
    ------
    ValueError
        If names, number or shapes differ; the message has both.
    """
    known = _known_inputs(model)
    have = {block.name: block for block in blocks}
    told = {name: (None, *block.shape) for name, block in have.items()}
    if known is None:
        sequential = type(model).__name__ == "Sequential"
        if sequential and len(have) > 1:
            raise ValueError(
                f"model={model.name!r} is a Sequential and takes one input, but X has the blocks "
                f"{told}. Encode the categories as numbers first, or pass a recipe."
            )
        return {name: (block.shape, block.dtype) for name, block in have.items()}
    if len(known) == 1 and len(have) == 1:
        pairs = {next(iter(have)): next(iter(known.values()))}
    elif set(known) == set(have):
        pairs = known
    elif len(known) == len(have) and list(have) == [f"input_{i}" for i in range(len(have))]:
        pairs = dict(zip(have, known.values(), strict=True))  # columns were listed in their order
    else:
        needed = {name: (None, *shape) for name, (shape, _) in known.items()}
        raise ValueError(
            f"model={model.name!r} takes the inputs {needed}, but X has the blocks {told}. Several "
            "inputs are matched by name: say with `inputs` which columns make up which, encode the "
            "categories as numbers first, or pass a recipe."
        )
    _refuse_looking_up(model, have)
    for name, (shape, _) in pairs.items():
        if not _fits(shape, have[name]):
            raise ValueError(
                f"model={model.name!r} takes an input of shape {(None, *shape)}, but the block "
                f"{name!r} of X has shape {told[name]}.{_remedy(shape, have[name])}"
            )
    return {name: (shape, dtype or have[name].dtype) for name, (shape, dtype) in pairs.items()}
