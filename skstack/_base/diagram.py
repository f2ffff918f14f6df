"""The diagram of a stack in a notebook: branches side by side, then scaler, sampler, downstream."""

from __future__ import annotations

from skstack._base.params import is_keras_model, is_path
from skstack._base.sklearn import VisualBlock


def diagram_of_stack(stack):
    """Give scikit-learn what it draws for a stack.

    Parameters
    ----------
    stack : Stack

    Returns
    -------
    VisualBlock
    """
    upstream = stack.upstream
    entries = upstream if isinstance(upstream, list) else [("upstream", upstream)]
    branches = VisualBlock(
        "parallel",
        [_block(entry[1], "KerasAutoencoder") for entry in entries],
        names=[_label(entry) for entry in entries],
        dash_wrapped=False,
    )
    default = type(stack._default_downstream()).__name__
    below = [
        ("scaler", stack.scaler if stack.scaler != "standard" else "StandardScaler()"),
        ("sampler", getattr(stack, "sampler", None)),
        ("downstream", _block(stack.downstream, default)),
    ]
    parts = [
        VisualBlock("parallel", [part], names=[name], dash_wrapped=False)
        for name, part in below
        if part is not None
    ]
    return VisualBlock("serial", (branches, *parts), dash_wrapped=False)


def diagram_of_features(transformer):
    """Give scikit-learn what it draws for a KerasFeatureTransformer.

    Parameters
    ----------
    transformer : KerasFeatureTransformer

    Returns
    -------
    VisualBlock
    """
    block = _block(transformer.model, "KerasAutoencoder")
    return VisualBlock("parallel", [block], names=["model"])


def _label(entry):
    name, columns = entry[0], entry[2] if len(entry) > 2 else None
    return name if columns is None else f"{name} (columns {columns})"


def _block(thing, default):
    if thing is None:
        return VisualBlock("single", None, names=f"{default}()", name_details="the default")
    if is_keras_model(thing):
        size = f"{thing.count_params()} weights" if thing.built else "unbuilt"
        name = f"{type(thing).__name__} {thing.name!r}"
        return VisualBlock("single", thing, names=name, name_details=size)
    if is_path(thing) and thing != "drop":
        return VisualBlock("single", thing, names=str(thing), name_details="a saved network")
    return thing
