"""What cannot be tuned is refused by name, before anything is trained."""

from __future__ import annotations

from dataclasses import replace

from skstack._autoencoder import KerasAutoencoder
from skstack._checks import columns_at
from skstack._network_estimator import NetworkEstimator
from skstack._parameters import upstream_of
from skstack._stack_parts import branch_places
from skstack.networks import has_own_steps, is_keras_model, is_path, load_model
from skstack.stages import ColumnBlocks, Source, Wanted

__all__ = ["check_fine_tune", "named_layers", "refuse_frozen"]


def check_fine_tune(stack, branches, downstream, X, y):
    """Refuse stacks that cannot be tuned.

    Parameters
    ----------
    stack : Stack
        Its columns that pass through are known.

    branches : list of (name, KerasFeatureTransformer, columns)

    downstream : estimator
        Not fitted.

    X, y : training rows and targets

    Raises
    ------
    ValueError
        If a part that would learn is no network, gives features without a gradient, or has no such
        layer; the message names it.
    """
    from skstack.shipping import listed_steps, maker_of

    tuning = stack.fine_tune
    named = named_layers(tuning, [name for name, _, _ in branches])
    kind = type(downstream).__name__
    if not isinstance(downstream, NetworkEstimator):
        _refuse(
            f"the downstream {kind} is no network of skstack",
            "accepted are KerasClassifier and KerasRegressor",
        )
    for parameter in ("imputer", "input_shape"):
        if getattr(downstream, parameter) is not None:
            _refuse(
                f"the downstream {kind} has {parameter}={getattr(downstream, parameter)!r}",
                "its columns must come to it as they are; leave that to the scaler or a branch",
            )
    network = load_model(downstream.model) if is_path(downstream.model) else downstream.model
    if is_keras_model(network) and has_own_steps(network):
        _refuse(
            f"the network {network.name!r} of the downstream {kind} trains in its own way",
            "as a part of another network it would not",
        )
    if stack.scaler not in (None, "standard"):
        for step in listed_steps(stack.scaler):
            maker_of(step)
    samples = getattr(stack, "sampler", None) or getattr(downstream, "sampler", None)
    if samples is not None and y.ndim > 1:
        _refuse(
            f"sampler={samples!r} with several labels a row",
            "weights of classes, which stand in its place, are for one label a row",
        )
    for name, transformer, columns in branches:
        if name in named:
            _check_branch(stack, name, transformer, columns, named[name], X, y)


def _refuse(what, why):
    raise ValueError(f"fine_tune: {what}; {why}.")


def named_layers(tuning, names):
    """Branches that learn; with the names of their layers, or None for all, or for some on top."""
    if not names:
        _refuse("the stack has no upstream", "there is nothing to tune but the downstream")
    if not isinstance(tuning.layers, (list, tuple)):
        return dict.fromkeys(names)
    named = {}
    for each in tuning.layers:
        branch, _, layer = each.partition("/") if isinstance(each, str) else (None, "", "")
        if branch not in names or not layer:
            _refuse(
                f"layers={tuning.layers!r} holds {each!r}",
                f"a layer is named 'branch/layer', and the branches are {names}",
            )
        named.setdefault(branch, []).append(layer)
    if not named:
        _refuse(f"layers={tuning.layers!r} names no layer", "name one, or leave fine_tune out")
    return named


def _check_branch(stack, name, transformer, columns, layers, X, y):
    from skstack import training

    given = KerasAutoencoder() if transformer.model is None else transformer.model
    source = Source(upstream_of(given, transformer.random_state), y, ColumnBlocks(None))
    wanted = Wanted.of(transformer.features, transformer.layers, transformer.pooling, False)
    model, what = source.model, f"the upstream {name!r}"
    others = "name the layers of other branches in `layers`, and it stays as it is"
    if not (is_keras_model(model) or isinstance(model, NetworkEstimator)):
        _refuse(f"{what} is {type(model).__name__}, no Keras network of its own", others)
    if "codes" in wanted.features:
        _refuse(f"features='codes' of {what} have no gradient", others)
    if not (source.frozen or transformer.refit):
        _refuse(
            f"{what} has refit=False, so that the mean over its folds makes new features",
            "tuning needs one network: use refit=True",
        )
    if is_keras_model(model):
        learning = training.find_layers(model, layers or []).values()
        for layer in learning if layers else [model]:
            if not layer.trainable_variables:
                refuse_frozen(layer.name, what)
    elif source.frozen:
        training.check_layers(model.network_.blueprint, layers or [])
    elif layers:
        wanted = replace(wanted, layers=(*wanted.layers, *layers))
        source.frame(columns_at(X, branch_places(X, name, columns)), y, wanted)


def refuse_frozen(layer, what):
    _refuse(
        f"{layer!r} of {what} has no weights that may learn",
        "layers with trainable=False in the network itself are never thawed: set trainable=True "
        "there first",
    )
