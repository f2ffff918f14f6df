"""Joint fine-tuning: a fitted stack is trained further as one network; the better state is kept."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch

from skstack._base.atomic_fit import caller_level
from skstack._base.params import draw_seed, hint_at_parameters, is_keras_model, is_path
from skstack._base.sklearn import Interval, StrOptions
from skstack._base.tables import columns_at, take_rows, with_weight
from skstack._estimators.autoencoder import KerasAutoencoder
from skstack._estimators.bags import refuse_bags
from skstack._estimators.base import NetworkEstimator
from skstack._estimators.resampling import prior_ratio
from skstack._features.adapters import ModelAdapter, upstream_of
from skstack._features.cross_fit import UpstreamSpec
from skstack._stack.branches import branch_column_indices
from skstack._training.formulas import MEMBERS
from skstack.networks._cloning import has_own_steps
from skstack.networks._model_parameter import load_model
from skstack.networks._recipe import has_members, label_smoothing_of
from skstack.preprocessing._blocks import ColumnBlocks

# Former names of parameters.
_RENAMED = {"thaw_every": "unfreeze_every", "upstream_share": "upstream_lr_multiplier"}


def _refuse_old_names(params, error):
    for name in params:
        if name in _RENAMED:
            raise error(f"FineTune has no parameter {name!r}: it is now {_RENAMED[name]!r}.")


def _without_old_names(init):
    """Wrap the constructor so that its error for an old name says the new one."""

    @functools.wraps(init)
    def wrapped(self, *args, **params):
        _refuse_old_names(params, TypeError)
        init(self, *args, **params)

    return wrapped


class FineTune(BaseEstimator):
    """Joint fine-tuning of a stack as one network, after its parts were trained separately.

    ``StackedKerasClassifier(..., fine_tune=FineTune())`` trains upstream networks and downstream
    further in one graph, with the fixed scaler between them, on the raw training rows, with the
    loss, optimizer, batch size and engine of the downstream: labels are smoothed and gradients
    clipped as there, but the learning rates are constant, without the schedules of a recipe such as
    ``RealMLP``. The loss on hold-out rows, which no part was fitted on, decides when to stop,
    and whether the stack before or after is kept. Copies of frozen upstream networks are tuned,
    too: the ``keras.Model``, estimator or file that was passed is never modified.

    Parameters
    ----------
    epochs : int, default=5
        Maximum number of passes over the training rows.

    learning_rate : float, default=1e-4
        Learning rate of the downstream. In (0, inf).

    upstream_lr_multiplier : float, default=0.1
        Factor by which the updates of the upstream networks are multiplied. In (0, 1].

    layers : "all", int or list of str, default="all"
        Layers of the upstream networks that are trained, besides the whole downstream: all; this
        number of top layers of each network; or the named ones, where ``"risk/hidden_1"`` is the
        layer ``hidden_1`` of the branch ``risk`` (a single upstream is named ``upstream``).
        Branches without a named layer are not changed, and may be any estimator. Layers without
        weights do not count.

    unfreeze_every : int, default=None
        Unfreeze these layers one by one: in the first ``unfreeze_every`` epochs the topmost of
        each network, then one more every ``unfreeze_every`` epochs; layers that are not reached
        within ``epochs`` stay frozen. Each stage starts with a new optimizer. None unfreezes
        all of them at once.

    batch_normalization : bool, default=False
        Whether batch normalisation in unfrozen layers is trained, too; otherwise it stays in
        inference mode, except for layers that are named in ``layers``.

    early_stopping : bool, default=True
        Whether to stop when the loss on hold-out rows no longer improves, and to keep the weights
        of the best epoch; otherwise those of the last epoch.

    validation_fraction : float, default=0.1
        Fraction of the rows that is held out from all parts, if the downstream holds out none and
        ``X_val`` is not passed. In (0, 1).

    n_iter_no_change : int, default=5
        Number of epochs without improvement after which training (or a stage of
        ``unfreeze_every``) stops.

    tol : float, default=1e-4
        Smallest decrease of the loss that counts as an improvement.

    random_state : int, RandomState instance or None, default=None
        Seeds the order of rows. None uses that of the stack.

    verbose : int, default=0
        If > 0, print one line per epoch.

    Notes
    -----
    Before fine-tuning the downstream is trained on out-of-fold features. In one graph this is
    impossible: the features come from the network that is tuned, which was trained on the rows.
    Hence the small learning rate, and the hold-out rows, on which no part was fitted.

    A teacher of the downstream with ``mode="distill"`` takes part; it receives the features from
    before fine-tuning. One with ``mode="blend"`` or ``"head"`` that is not needed for predictions
    is left out, and others are refused.

    Synthetic rows of a sampler have features, but no raw row. Instead of the sampler, class weights
    give the classes the frequencies after sampling; hold-out rows are weighted in the same way.

    Layers with ``trainable=False`` in a network that was passed, and layers that standardise, are
    never modified. To train the former, set ``trainable=True`` in that network first. Steps of a
    Pipeline before a network are not changed either. Dropout is active in networks that are
    trained, also below their frozen layers. Ensembles of fold networks (``refit=False``) are
    refused.

    Gradual unfreezing and smaller learning rates for lower layers: J. Howard & S. Ruder, "Universal
    Language Model Fine-tuning for Text Classification", ACL 2018, sections 3.2 and 3.3.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from skstack import FineTune, KerasClassifier, StackedKerasClassifier
    >>> from skstack.networks import MLP
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> stack = StackedKerasClassifier(
    ...     upstream=[("risk", KerasClassifier(MLP((8,)), epochs=2))],
    ...     downstream=KerasClassifier(MLP((8,)), epochs=2),
    ...     cv=2,
    ...     fine_tune=FineTune(epochs=3, learning_rate=1e-3),
    ...     random_state=0,
    ... ).fit(X, y)
    >>> before, after = stack.fine_tune_losses_
    >>> stack.fine_tuned_ == (after < before)
    True
    """

    _parameter_constraints = {
        "epochs": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "upstream_lr_multiplier": [Interval(Real, 0, 1, closed="right")],
        "layers": [StrOptions({"all"}), Interval(Integral, 1, None, closed="left"), list, tuple],
        "unfreeze_every": [None, Interval(Integral, 1, None, closed="left")],
        "batch_normalization": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    @_without_old_names
    @hint_at_parameters
    def __init__(
        self,
        epochs: int = 5,
        *,
        learning_rate: Any = 1e-4,
        upstream_lr_multiplier: float = 0.1,
        layers: str | int | Sequence[str] = "all",
        unfreeze_every: int | None = None,
        batch_normalization: bool = False,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        tol: float = 1e-4,
        random_state: int | np.random.RandomState | None = None,
        verbose: int | bool = 0,
    ) -> None:
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.upstream_lr_multiplier = upstream_lr_multiplier
        self.layers = layers
        self.unfreeze_every = unfreeze_every
        self.batch_normalization = batch_normalization
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.random_state = random_state
        self.verbose = verbose

    def set_params(self, **params):
        """Set parameters.

        Parameters
        ----------
        **params : dict
            Parameters by name.

        Returns
        -------
        self : FineTune
            This object.

        Raises
        ------
        ValueError
            If a name does not exist.
        """
        _refuse_old_names(params, ValueError)
        return super().set_params(**params)


def check_fine_tune(stack, branches, downstream, X, y):
    """Refuse, before training, a stack with a part that is not a network or has no gradient."""
    from skstack._graph.sklearn_steps import layer_maker, listed_steps
    from skstack._training.optimizers import check_optimizer

    tuning = stack.fine_tune
    named = named_layers(tuning, [name for name, _, _ in branches])
    kind = type(downstream).__name__
    refuse_bags(downstream, "fine_tune")
    if not isinstance(downstream, NetworkEstimator):
        _refuse(
            f"the downstream {kind} is not a network of skstack",
            "expected KerasClassifier or KerasRegressor",
        )
    for parameter in ("imputer", "input_shape"):
        if getattr(downstream, parameter) is not None:
            _refuse(
                f"the downstream {kind} has {parameter}={getattr(downstream, parameter)!r}",
                "its columns must not be transformed there; use the scaler or a branch",
            )
    network = load_model(downstream.model) if is_path(downstream.model) else downstream.model
    if is_keras_model(network) and has_own_steps(network):
        _refuse(
            f"the network {network.name!r} of the downstream {kind} has a custom train_step",
            "as a part of another network this would be ignored",
        )
    try:
        check_optimizer(downstream._known_optimizer(), tuning.learning_rate, downstream.clipnorm)
    except ValueError as error:
        _refuse(
            f"the downstream {kind}: {str(error).partition(';')[0]}",
            "expected an optimizer with this setting, such as Adam",
        )
    if _reads_teacher(downstream):
        _refuse(
            f"the downstream {kind} has a teacher with mode={downstream.loss.mode!r}",
            "its predictions are inputs that one network of all parts lacks: use mode='distill', "
            "teacher_at_predict=False or teacher_trainable=True",
        )
    if _teacher_mode(downstream) == "features":
        _refuse(
            f"the downstream {kind} has a teacher with mode='features'",
            "the network of all parts has no second output for its features: use mode='distill'",
        )
    if stack.scaler not in (None, "standard"):
        for step in listed_steps(stack.scaler):
            layer_maker(step)
    samples = getattr(stack, "sampler", None) or getattr(downstream, "sampler", None)
    if samples is not None and y.ndim > 1:
        _refuse(
            f"sampler={samples!r} with a multilabel target",
            "class weights, which replace the sampler, are not supported for multilabel targets",
        )
    for name, transformer, columns in branches:
        if name in named:
            _check_branch(name, transformer, columns, named[name], X, y)


def _teacher_mode(estimator):
    """The mode of an estimator's teacher, or None."""
    from skstack.losses._teacher_loss import TeacherLoss

    loss = getattr(estimator, "loss", None)
    return loss.mode if isinstance(loss, TeacherLoss) else None


def _reads_teacher(estimator):
    """Whether the predictions of a teacher are inputs of an estimator's network."""
    if _teacher_mode(estimator) not in ("blend", "head"):
        return False
    return estimator.loss.teacher_at_predict and not estimator.loss.teacher_trainable


def _refuse(what, why):
    raise ValueError(f"fine_tune: {what}; {why}.")


def named_layers(tuning, names):
    """Layers to train by branch: their names, None for all, or the number of top layers."""
    if not names:
        _refuse("the stack has no upstream", "only the downstream could be tuned")
    if isinstance(tuning.layers, bool | np.bool_):
        _refuse(f"layers={tuning.layers!r} is a truth value", "for all layers pass 'all'")
    if not isinstance(tuning.layers, (list, tuple)):
        return dict.fromkeys(names)
    named = {}
    for each in tuning.layers:
        branch, _, layer = each.partition("/") if isinstance(each, str) else (None, "", "")
        if branch not in names or not layer:
            _refuse(
                f"layers={tuning.layers!r} holds {each!r}",
                f"layers are named 'branch/layer', and the branches are {names}",
            )
        named.setdefault(branch, []).append(layer)
    if not named:
        _refuse(f"layers={tuning.layers!r} names no layer", "name one, or leave fine_tune out")
    return named


def _check_branch(name, transformer, columns, layers, X, y):
    from skstack._training.isolation import build

    model = upstream_of(transformer._upstream_model, transformer.random_state)
    source, request = UpstreamSpec(model, y, ColumnBlocks(None)), transformer._request()
    model, what = source.model, f"the upstream {name!r}"
    others = "name layers of other branches in `layers` to leave it unchanged"
    if not (is_keras_model(model) or isinstance(model, NetworkEstimator)):
        _refuse(f"{what} is {type(model).__name__}, not a Keras network", others)
    if not is_keras_model(model):
        refuse_bags(model, "fine_tune")
    if "codes" in request.features:
        _refuse(f"features='codes' of {what} have no gradient", others)
    if not (source.frozen or transformer.refit):
        _refuse(
            f"{what} has refit=False: its features are a mean over the networks of the folds",
            "fine-tuning needs one network: use refit=True",
        )

    encodes = isinstance(model, KerasAutoencoder)

    def check(network):
        _check_hidden(network, request.layers, what)
        _check_layers(network, layers, _read_variables(network, request, encodes), what)

    if is_keras_model(model):
        check(model)
    elif source.frozen:
        check(build(model.network_.blueprint))
    elif layers or request.layers:
        rows = columns_at(X, branch_column_indices(X, name, columns))
        source.shared_context(rows, y, request, check=lambda blueprint: check(build(blueprint)))


def _check_hidden(model, names, what):
    """Refuse features of layers that a class hides: they are not outputs of a graph."""
    from skstack._training.keras_model import find_layers, graph_layers

    graph = getattr(model, "inputs", None)
    known = [name for name, _ in graph_layers(model)] if graph else []
    for name in find_layers(model, names):
        if not any(map(_is_named(name.removesuffix(MEMBERS)), known)):
            _refuse(
                f"{what} gives features of its layer {name!r}, which its class hides",
                "one network of all parts needs layers of a functional or Sequential model",
            )


def _check_layers(model, names, read, what):
    """Refuse a network, or layers of it, without trainable weights among the `read` ones."""
    from skstack._training.keras_model import find_layers, graph_layers

    known = [name for name, _ in graph_layers(model)]
    for name, layer in find_layers(model, names).items() if names else [("", model)]:
        if name and not any(map(_is_named(name), known)):
            _refuse(
                f"{name!r} of {what} is inside a model whose class hides its layers",
                f"such a model is trained whole, or not at all: name one of {known}",
            )
        if not layer.trainable_variables:
            refuse_frozen(layer.name, what, model)
        if any(read is None or id(each) in read for each in layer.trainable_variables):
            continue
        after = "after the layers whose outputs are its features"
        if names:
            _refuse(f"{layer.name!r} of {what} comes {after}", "no feature depends on it")
        _refuse(f"all trainable weights of {what} come {after}", "no feature depends on them")


def _read_variables(model, request, encodes):
    """Ids of the variables that features of inner layers depend on; None if all may be read.

    ``encodes`` is whether it is an autoencoder, whose outputs as features are those of an inner
    layer.
    """
    from skstack._training.keras_model import find_layers, variables_up_to
    from skstack.networks._autoencoder import latent_layer

    names = list(request.layers)
    if encodes and request.features == ("outputs",):
        names.append(latent_layer(model))
    elif request.features:
        return None
    layers = find_layers(model, names).values()
    try:
        return {id(variable) for layer in layers for variable in variables_up_to(model, layer)}
    except (AttributeError, ValueError):  # of a class of one's own, or called more than once
        return None


def refuse_frozen(layer, what, model=None):
    """Refuse a layer, or "every layer", without trainable weights."""
    trained = [each.name for each in getattr(model, "layers", ()) if each.trainable_variables]
    remedy = "set trainable=True there first"
    if trained:
        remedy += f". The layers with trainable weights are {trained}"
    _refuse(
        f"{layer!r} of {what} has no trainable weights",
        f"layers with trainable=False in the network itself are never unfrozen: {remedy}",
    )


def fine_tune(stack, fit, before, after):
    """Train a fitted stack further as one network, and keep the better of before and after.

    ``fit`` is the `StackFit` so far; ``before`` and ``after`` are (y, weights) of the downstream
    before and after sampling.
    """
    from skstack._stack.joint_network import JointNetwork

    tuning = stack.fine_tune
    ratio = _sampled(stack, before, after)
    rows, validation = (
        with_weight(rows[2], *rows) for rows in (fit.training_rows(), fit.validation_rows())
    )
    loss, rows, validation = _objective(stack, rows, validation, ratio)
    names = [name for name, _, _ in stack.upstream_]
    named = named_layers(tuning, names)
    sample = take_rows(rows[0], slice(0, 2))
    normalizes = bool(tuning.batch_normalization)
    if isinstance(tuning.layers, (list, tuple)) and not normalizes:
        normalizes = tuple(tuning.layers)
    joint = JointNetwork(stack, list(named), sample, batch_normalization=normalizes)
    loss_before = _mean_loss(stack, loss, *validation)
    try:
        history, tuned = _train_jointly(stack, joint, named, loss, rows, validation, fit.seed)
    except FineTuningDiverged as reason:
        warnings.warn(
            f"Fine-tuning diverged; the stack was left unchanged: {reason}",
            UserWarning,
            stacklevel=caller_level(),
        )
        stack.fine_tune_history_ = reason.history
        stack.fine_tune_losses_, stack.fine_tuned_ = (loss_before, np.inf), False
        return
    stages = stack.upstream_, stack.downstream_
    _set_weights(stack, joint, list(named), tuned)
    loss_after = _mean_loss(stack, loss, *validation)
    stack.fine_tune_history_ = history
    stack.fine_tune_losses_ = loss_before, loss_after
    stack.fine_tuned_ = loss_after < loss_before
    if not stack.fine_tuned_:
        _assign(stack, *stages)


def _sampled(stack, before, after):
    """Ratio of class frequencies before and after sampling, or None."""
    downstream = stack.downstream_
    if getattr(stack, "sampler", None) is not None:
        (y, weights), (y_after, weights_after) = before, after
        return prior_ratio(y, y_after, downstream.classes_, weights, weights_after)
    return downstream.prior_ratio_ if getattr(downstream, "sampler", None) is not None else None


def _objective(stack, rows, validation, ratio):
    """The loss of the downstream; (X, targets, weights in the loss) to train on and to monitor.

    Labels are smoothed in the former. A teacher sees the table that the downstream has before.
    """
    downstream = stack.downstream_
    blueprint = downstream.network_.blueprint
    objective, teacher = downstream._objective(blueprint), None
    loss = downstream._loss(blueprint)
    if _teacher_mode(downstream) == "distill":
        from skstack.losses._teacher_fit import TeacherFit

        teacher = TeacherFit(
            downstream.loss, downstream, blueprint, downstream.network_.variables,
            stack._transform(take_rows(rows[0], slice(0, 2))), seed=0, before={}, logits=False,
        )  # fmt: skip
        loss = teacher.loss_of_mean

    def prepared(X, y, weights, smoothing):
        y = downstream._read_target(y, shared=None, reset=False)
        # The downstream's class weights are those of the resampled rows.
        if ratio is not None:
            shares = np.divide(1.0, ratio, out=np.zeros_like(ratio), where=ratio > 0)
            by_class = shares[np.searchsorted(downstream.classes_, y)]
            weights = by_class if weights is None else by_class * weights
        table = downstream._table(None, y, weights, objective)
        table = downstream._smoothed(table, smoothing, objective)
        if teacher is not None:
            own = stack._transform(X)
            table = teacher.rows(own, replace(table, inputs=downstream.blocks_.split(own)))
        return X, table.targets, table.weights

    return loss, prepared(*rows, label_smoothing_of(blueprint)), prepared(*validation, 0.0)


def _mean_loss(stack, loss, X, targets, weights):
    from skstack._training.objective import mean_loss

    outputs = stack.downstream_._outputs(stack._transform(X))
    return mean_loss(loss, targets, outputs, weights)


class FineTuningDiverged(Exception):
    """Losses or weights are not finite; holds the history so far."""

    def __init__(self, reason, history):
        super().__init__(str(reason))
        self.history = history


def _train_jointly(stack, joint, named, loss, rows, validation, seed):
    """History of the fine-tuning, and the final weights."""
    from skstack._training.config import TrainConfig, TrainingData
    from skstack._training.members import MemberLoss
    from skstack._training.monitor import Diverged
    from skstack._training.train import train

    tuning, downstream = stack.fine_tune, stack.downstream_
    seed = seed if tuning.random_state is None else draw_seed(tuning.random_state)
    sample = take_rows(rows[0], slice(0, 2))
    table = TrainingData(joint.arrays(rows[0]), *rows[1:])
    held_out = TrainingData(joint.arrays(validation[0]), *validation[1:])
    blueprint = downstream.network_.blueprint
    lr_multipliers = {
        path: float(tuning.upstream_lr_multiplier)
        for name in named
        for path in joint.paths_of(name)
    }
    if has_members(blueprint, downstream.network_.variables):
        loss = MemberLoss(loss, downstream._objective(blueprint).by_row)
    config = TrainConfig(
        loss=loss,
        optimizer=downstream._optimizer(blueprint),
        learning_rate=float(tuning.learning_rate),
        clipnorm=downstream.clipnorm,
        batch_size=downstream._rows_in_batch(len(table)),
        patience=tuning.n_iter_no_change if tuning.early_stopping else None,
        tol=tuning.tol,
        engine=downstream.engine,
        verbose=tuning.verbose,
        lr_multipliers=lr_multipliers if tuning.upstream_lr_multiplier < 1 else {},
        dense_gradients=True,
    )
    history = {"loss": [], "val_loss": [], "n_thawed": []}
    state, best, least = joint.start, joint.start, np.inf
    for unfrozen, epochs in _stages(tuning, _layers_to_unfreeze(tuning, joint, named)):
        config = replace(config, epochs=epochs, seed=seed + len(history["loss"]))
        try:
            fit = train(
                joint.with_unfrozen(sample, unfrozen), state, table, config, validation=held_out
            )
        except Diverged as reason:
            raise FineTuningDiverged(reason, history) from reason
        for key in ("loss", "val_loss"):
            history[key] += fit.history[key]
        history["n_thawed"] += [sum(map(len, unfrozen.values()))] * fit.n_epochs
        state = fit.network.variables
        if min(fit.history["val_loss"]) < least:
            best, least = state, min(fit.history["val_loss"])
    return history, best if tuning.early_stopping else state


def _layers_to_unfreeze(tuning, joint, named):
    """Names of the layers to unfreeze, by branch, from bottom to top."""
    by_branch = {}
    for branch, layers in joint.layers.items():
        what = f"the upstream {branch!r}"
        if not layers:
            refuse_frozen("every layer", what)
        if isinstance(tuning.layers, Integral):
            layers = layers[-tuning.layers :]
        elif named[branch] is not None:
            for name in named[branch]:
                if not any(map(_is_named(name), layers)):
                    refuse_frozen(name, what)
            layers = [each for each in layers if any(_is_named(n)(each) for n in named[branch])]
        by_branch[branch] = layers
    return by_branch


def _is_named(name):
    """Whether a layer, by its full name, has this name or is inside a model of this name."""
    return lambda full: f"/{name}/" in f"/{full}/"


def _stages(tuning, layers):
    """Stages of gradual unfreezing: (layers by branch, epochs)."""
    if tuning.unfreeze_every is None:
        yield layers, tuning.epochs
        return
    deepest, left, number = max(map(len, layers.values())), tuning.epochs, 1
    while left:
        epochs = left if number >= deepest else min(tuning.unfreeze_every, left)
        yield {branch: names[-number:] for branch, names in layers.items()}, epochs
        left, number = left - epochs, number + 1


def _set_weights(stack, joint, branches, variables):
    """Set other weights in copies of the parts of a stack."""
    from skstack._stack.joint_network import DOWNSTREAM

    upstream = []
    for name, fitted, columns in stack.upstream_:
        if name in branches:
            weights = joint.weights_of(name, variables)
            fitted, (before,) = copy.copy(fitted), fitted._upstreams
            view = copy.copy(before.view)
            if isinstance(view, ModelAdapter):
                view.network = view.network.changed(weights)
            else:
                view.estimator = fitted.estimator_ = _changed(view.estimator, weights)
            fitted._upstreams = [replace(before, view=view)]
        upstream.append((name, fitted, columns))
    _assign(stack, upstream, _changed(stack.downstream_, joint.weights_of(DOWNSTREAM, variables)))


def _changed(estimator, weights):
    estimator = copy.copy(estimator)
    estimator.network_ = estimator.network_.changed(weights)
    return estimator


def _assign(stack, upstream, downstream):
    stack.upstream_, stack.downstream_ = upstream, downstream
    stack.named_upstream_ = Bunch(**{name: fitted for name, fitted, _ in upstream})
