"""A fitted stack is trained on as one network; the better of before and after is kept."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from numbers import Integral

import numpy as np
from sklearn.utils import Bunch

from skstack._checks import take_rows
from skstack._fine_tune._checks import named_layers, refuse_frozen
from skstack._parameters import draw_seed
from skstack.stages import ModelView, prior_ratio

__all__ = ["fine_tune"]


def fine_tune(stack, given, way, before, after, seed):
    """Train a fitted stack on as one network, and keep the better of before and after.

    Parameters
    ----------
    stack : Stack
        Fitted. It gets ``fine_tuned_``, ``fine_tune_losses_`` and ``fine_tune_history_``.

    given : Bunch
        ``X``, ``y`` and, of what came along for the downstream, ``sample_weight``, ``X_val`` and
        ``y_val``.

    way : Bunch
        With ``train`` and ``rest``: numbers of the rows to learn from and to watch, or None where
        the rows to watch came by themselves.

    before, after : tuple of (y, weights)
        Of the downstream's training rows, before and after the sampler.

    seed : int
    """
    from skstack.shipping import JointNetwork

    tuning, downstream = stack.fine_tune, stack.downstream_
    weights = given.get("sample_weight")
    ratio = _sampled(stack, before, after)
    if way.rest is None:
        rows = given.X, given.y, weights
        watched = given.X_val, given.y_val, None
    else:
        rows, watched = (
            tuple(
                None if part is None else take_rows(part, some) for part in (*_xy(given), weights)
            )
            for some in (way.train, way.rest)
        )
    watched = watched[0], *_targets(downstream, *watched[1:], ratio)
    names = [name for name, _, _ in stack.upstream_]
    named = named_layers(tuning, names)
    few = take_rows(rows[0], slice(0, 2))
    normalizes = tuning.batch_normalization
    if isinstance(tuning.layers, (list, tuple)) and not normalizes:
        normalizes = tuple(tuning.layers)
    joint = JointNetwork(stack, list(named), few, batch_normalization=normalizes)
    loss_before = _loss(stack, *watched)
    try:
        history, tuned = _trained(stack, joint, named, few, rows, watched, ratio, seed)
    except _Astray as reason:
        warnings.warn(
            f"fine_tune went astray, and the stack is as it was before: {reason}",
            UserWarning,
            stacklevel=7,
        )
        stack.fine_tune_history_ = reason.history
        stack.fine_tune_losses_, stack.fine_tuned_ = (loss_before, np.inf), False
        return
    stages = stack.upstream_, stack.downstream_
    _put(stack, joint, list(named), tuned)
    loss_after = _loss(stack, *watched)
    stack.fine_tune_history_ = history
    stack.fine_tune_losses_ = loss_before, loss_after
    stack.fine_tuned_ = loss_after < loss_before
    if not stack.fine_tuned_:
        _take_up(stack, *stages)


def _xy(given):
    return given.X, given.y


def _sampled(stack, before, after):
    """Share of each class in the data over its share among the rows of the sampler, or None."""
    downstream = stack.downstream_
    if getattr(stack, "sampler", None) is not None:
        (y, weights), (y_after, weights_after) = before, after
        return prior_ratio(y, y_after, downstream.classes_, weights, weights_after)
    return downstream.prior_ratio_ if getattr(downstream, "sampler", None) is not None else None


def _targets(downstream, y, weights, ratio):
    """Targets as the loss takes them, and what each row weighs in it."""
    y = downstream._read_target(y, frame=None, reset=False)
    # The downstream's weights of classes are those of resampled rows.
    if ratio is not None:
        shares = np.divide(1.0, ratio, out=np.zeros_like(ratio), where=ratio > 0)
        by_class = shares[np.searchsorted(downstream.classes_, y)]
        weights = by_class if weights is None else by_class * weights
    return downstream._targets(None, y), downstream._row_weights(y, weights)


def _loss(stack, X, targets, weights):
    from skstack import training

    downstream = stack.downstream_
    outputs = downstream._outputs(stack._transform(X))
    loss = downstream._loss(downstream.network_.blueprint)
    return training.mean_loss(loss, targets, outputs, weights)


class _Astray(Exception):
    """Losses or weights that are not finite; with the history so far."""

    def __init__(self, reason, history):
        super().__init__(str(reason))
        self.history = history


def _trained(stack, joint, named, few, rows, watched, ratio, seed):
    """History of the tuning, and the weights that it ends with."""
    from skstack import training

    tuning, downstream = stack.fine_tune, stack.downstream_
    seed = seed if tuning.random_state is None else draw_seed(tuning.random_state)
    table = training.Rows(joint.arrays(rows[0]), *_targets(downstream, *rows[1:], ratio))
    held_out = training.Rows(joint.arrays(watched[0]), *watched[1:])
    blueprint = downstream.network_.blueprint
    shares = {path: float(tuning.upstream_share) for name in named for path in joint.paths_of(name)}
    plan = training.Plan(
        loss=downstream._loss(blueprint),
        optimizer=downstream._optimizer(blueprint),
        learning_rate=float(tuning.learning_rate),
        batch_size=downstream.batch_size,
        patience=tuning.n_iter_no_change if tuning.early_stopping else None,
        tol=tuning.tol,
        engine=downstream.engine,
        verbose=tuning.verbose,
        shares=shares if tuning.upstream_share < 1 else {},
    )
    history = {"loss": [], "val_loss": [], "n_thawed": []}
    state, best, least = joint.start, joint.start, np.inf
    for thawed, epochs in _stages(tuning, _layers_to_thaw(tuning, joint, named)):
        plan = replace(plan, epochs=epochs, seed=seed + len(history["loss"]))
        try:
            fit = training.train(
                joint.with_thawed(few, thawed), state, table, plan, validation=held_out
            )
        except training.Diverged as reason:
            raise _Astray(reason, history) from reason
        for key in ("loss", "val_loss"):
            history[key] += fit.history[key]
        history["n_thawed"] += [sum(map(len, thawed.values()))] * fit.n_epochs
        state = fit.network.variables
        if min(fit.history["val_loss"]) < least:
            best, least = state, min(fit.history["val_loss"])
    return history, best if tuning.early_stopping else state


def _layers_to_thaw(tuning, joint, named):
    """Names of the layers that are to learn in the end, by branch, from the bottom up."""
    found = {}
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
        found[branch] = layers
    return found


def _is_named(name):
    """Whether a layer, by its full name, is the one called so, or stands in the model called so."""
    return lambda full: f"/{name}/" in f"/{full}/"


def _stages(tuning, layers):
    """(layers that learn, by branch; epochs), one after another."""
    if tuning.thaw_every is None:
        yield layers, tuning.epochs
        return
    deepest, left, number = max(map(len, layers.values())), tuning.epochs, 1
    while left:
        epochs = left if number >= deepest else min(tuning.thaw_every, left)
        yield {branch: names[-number:] for branch, names in layers.items()}, epochs
        left, number = left - epochs, number + 1


def _put(stack, joint, branches, variables):
    """Give a stack other weights, in copies of its parts."""
    from skstack.shipping import DOWNSTREAM

    upstream = []
    for name, fitted, columns in stack.upstream_:
        if name in branches:
            weights = joint.weights_of(name, variables)
            fitted, (before,) = copy.copy(fitted), fitted._upstreams
            view = copy.copy(before.view)
            if isinstance(view, ModelView):
                view.network = view.network.changed(weights)
            else:
                view.estimator = fitted.estimator_ = _changed(view.estimator, weights)
            fitted._upstreams = [replace(before, view=view)]
        upstream.append((name, fitted, columns))
    _take_up(stack, upstream, _changed(stack.downstream_, joint.weights_of(DOWNSTREAM, variables)))


def _changed(estimator, weights):
    estimator = copy.copy(estimator)
    estimator.network_ = estimator.network_.changed(weights)
    return estimator


def _take_up(stack, upstream, downstream):
    stack.upstream_, stack.downstream_ = upstream, downstream
    stack.named_upstream_ = Bunch(**{name: fitted for name, fitted, _ in upstream})
