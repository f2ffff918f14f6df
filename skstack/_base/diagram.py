"""HTML diagrams of transformers and stacks, as scikit-learn draws them in notebooks."""

from __future__ import annotations

from skstack._base.params import is_keras_model, is_path
from skstack._base.sklearn import VisualBlock


def diagram_of_stack(stack, default_downstream):
    """The diagram of a stack: branches side by side, then scaler, sampler and downstream."""
    upstream = stack.upstream
    weights = getattr(stack, "blend_weights_", {})
    entries = upstream if isinstance(upstream, list) else [("upstream", upstream)]
    branches = VisualBlock(
        "parallel",
        [_block(entry[1], "KerasAutoencoder") for entry in entries],
        names=[weighted(_label(*entry), weights, entry[0]) for entry in entries],
        dash_wrapped=False,
    )
    steps = {
        "scaler": stack.scaler if stack.scaler != "standard" else "StandardScaler()",
        "sampler": getattr(stack, "sampler", None),
        "downstream": _block(stack.downstream, type(default_downstream).__name__),
    }
    blocks = [
        VisualBlock("parallel", [step], names=[weighted(name, weights)], dash_wrapped=False)
        for name, step in steps.items()
        if step is not None
    ]
    return VisualBlock("serial", (branches, *blocks), dash_wrapped=False)


def diagram_of_parts(pairs, weights):
    """The diagram of estimators side by side, with their weights where these are known."""
    names = [weighted(name, weights) for name, _ in pairs]
    return VisualBlock("parallel", [part for _, part in pairs], names=names)


def weighted(label, weights, name=None):
    """A label with the weight of a part, if it is known."""
    weight = weights.get(label if name is None else name)
    return label if weight is None else f"{label} (weight {weight:.2f})"


def diagram_of_features(transformer):
    """The diagram of a KerasFeatureTransformer."""
    block = _block(transformer.model, "KerasAutoencoder")
    return VisualBlock("parallel", [block], names=["model"])


def _label(name, _, columns=None):
    return name if columns is None else f"{name} (columns {columns})"


def _block(value, default):
    if value is None:
        return VisualBlock("single", None, names=f"{default}()", name_details="the default")
    if is_keras_model(value):
        size = f"{value.count_params()} weights" if value.built else "unbuilt"
        name = f"{type(value).__name__} {value.name!r}"
        return VisualBlock("single", value, names=name, name_details=size)
    if is_path(value) and value != "drop":
        return VisualBlock("single", value, names=str(value), name_details="a saved network")
    return value
