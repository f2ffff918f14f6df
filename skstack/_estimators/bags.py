"""Bags: networks of one estimator on other hold-out rows each, whose predictions are averaged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from skstack._base.parallel import run_parts
from skstack._base.params import clone_part
from skstack._base.progress import errors_named, fitting, reserve_tasks
from skstack._base.sklearn import drop_callbacks
from skstack._base.tables import n_rows, taken

# Attributes of one network, which the estimator of several does not have.
_OF_ONE_NETWORK = (
    "network_",
    "moments_",
    "prior_ratio_",
    "sampler_",
    "_sampled_counts",
    "target_mean_",
    "target_scale_",
    "_optimizer_variables",
    "_optimizer_layout",
)
_LISTED = ("n_iter_", "loss_curve_", "history_", "validation_scores_", "early_stopped_")


def is_bagged(estimator) -> bool:
    """Whether a fitted estimator has several networks."""
    return hasattr(estimator, "bags_")


def refuse_bags(estimator, what) -> None:
    """Refuse what needs one network."""
    n_bags = len(estimator.bags_) if is_bagged(estimator) else getattr(estimator, "n_bags", 1)
    if n_bags > 1:
        raise ValueError(
            f"{what} needs one network, but {type(estimator).__name__} has n_bags={n_bags}. Use "
            "n_bags=1."
        )


def fit_bags(estimator, rows, shared, splits, seed, *, weights, validation, groups, ordered):
    """Train the networks of an estimator, and set its attributes.

    ``rows`` are X and y as the user passed them, ``splits`` training and hold-out rows of each bag,
    or None, ``validation`` is ``X_val``, ``y_val`` and the weights of these rows.
    """
    n_bags = len(splits)
    seeds = np.random.default_rng(seed).integers(2**31 - 1, size=n_bags)

    first, n_epochs = reserve_tasks(n_bags), estimator._max_epochs()

    def fit_bag(number):
        label = f"bag {number + 1} of {n_bags}"
        bag = clone_part(estimator).set_params(n_bags=1, random_state=int(seeds[number]))
        drop_callbacks(bag)  # its epochs are tasks of the estimator
        with errors_named(label), fitting(label, n_epochs=n_epochs, task_id=first + number):
            return bag._fit_in_context(
                *rows,
                shared,
                sample_weight=weights,
                X_val=validation[0],
                y_val=validation[1],
                weights_val=validation[2],
                groups=groups,
                ordered=ordered,
                split=splits[number],
                is_bag=True,
            )

    bags = run_parts(fit_bag, (), [(number,) for number in range(n_bags)])
    for name in _OF_ONE_NETWORK:
        vars(estimator).pop(name, None)
    estimator.bags_ = bags
    for name in _LISTED:
        setattr(estimator, name, [getattr(bag, name) for bag in bags])


def bag_splits(estimator, X, y, seed, *, groups, ordered):
    """Training and hold-out rows of each bag; None for bags that are trained on all rows.

    The hold-out rows of bags are disjoint as long as that is possible, so that each row trains
    some of them. If rows are ordered, all bags hold out the last ones.
    """
    splits, held_out = [], np.array([], dtype=np.intp)
    for number in range(estimator.n_bags):
        settings = {"groups": groups, "ordered": ordered}
        split = None
        if len(held_out) and not ordered:
            split = _split_among_others(estimator, X, y, seed + number, held_out, groups)
        if split is None:
            held_out = np.array([], dtype=np.intp)
            split = estimator._held_out_rows(X, y, seed + number, **settings)
        splits.append(split)
        if split is not None:
            held_out = np.union1d(held_out, split[1])
    return splits


def _split_among_others(estimator, X, y, seed, held_out, groups):
    """A split whose hold-out rows no bag has held out yet; None if too few are left."""
    n = n_rows(X)
    rest = np.setdiff1d(np.arange(n), held_out)
    wanted = estimator.validation_fraction * n
    if groups is None and abs(len(rest) - wanted) < 1:  # the last part
        labels = () if y is None else estimator._class_columns(y)
        lost = any(len(np.unique(each[held_out])) < len(np.unique(each)) for each in labels)
        return None if lost else (held_out, rest)
    if wanted >= len(rest):
        return None
    try:
        y, groups = taken(rest, y, groups)
        settings = {"groups": groups, "ordered": False, "fraction": wanted / len(rest)}
        split = estimator._held_out_rows(rest, y, seed, **settings)
    except ValueError:  # too few rows of a class, or groups
        return None
    if split is None:
        return None
    chosen = rest[split[1]]
    return np.setdiff1d(np.arange(n), chosen), chosen


def context_of_bags(shared, own):
    """The context of bags inside a cross-fit, or else that of the rows themselves."""
    if shared is None:
        return own
    return shared if shared.blocks is not None else replace(shared, blocks=own.blocks)


def mean_of_bags(estimator, method, X):
    """Mean of the predictions of the bags."""
    return np.mean([getattr(bag, method)(X) for bag in estimator.bags_], axis=0)


def bagged_model(estimator):
    """One ``keras.Model`` that returns the mean of the bags' models."""
    import keras

    if estimator.imputer is not None:
        raise ValueError(
            "model_ of several bags does not exist with imputer=..., because each bag imputes "
            "values of its own. Use to_keras()."
        )
    models = [bag.model_ for bag in estimator.bags_]
    inputs = keras.tree.map_structure(
        lambda tensor: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=tensor.name),
        models[0].input,
    )
    outputs = []
    for number, model in enumerate(models):
        model.name = f"bag_{number + 1}"
        outputs.append(model(inputs))
    mean = keras.tree.map_structure(
        lambda *tensors: keras.layers.Average(dtype="float32")(tensors), *outputs
    )
    return keras.Model(inputs, mean, name=type(estimator).__name__.lower())


def mean_of_graphs(results, name):
    """Mean of `Classes` or of tensors, as a layer."""
    import keras

    from skstack._graph.formulas import Classes
    from skstack._graph.tables import layer_name

    mean = keras.layers.Average(name=layer_name(f"{name}_mean"), dtype="float32")
    if isinstance(results[0], Classes):
        return replace(results[0], tensor=mean([classes.tensor for classes in results]))
    return mean(results)


def graphs_of_bags(estimator, name, build):
    """What ``build(bag, name)`` returns for each bag, with names of layers of its own."""
    return [
        build(bag, f"{name}_bag_{number}") for number, bag in enumerate(estimator.bags_, start=1)
    ]
