"""From scikeras' estimators to ours."""

from __future__ import annotations

import copy
import inspect

from skstack._base.params import is_keras_model
from skstack._estimators.classifier import KerasClassifier
from skstack._estimators.regressor import KerasRegressor
from skstack.networks._builder import BuilderRecipe

# Parameters of scikeras' constructors.
_OWN = {
    "model",
    "build_fn",
    "warm_start",
    "random_state",
    "optimizer",
    "loss",
    "metrics",
    "batch_size",
    "validation_batch_size",
    "verbose",
    "callbacks",
    "validation_split",
    "shuffle",
    "run_eagerly",
    "epochs",
    "class_weight",
}
# Where the parts of "part__parameter" are read below, or have no effect on any result.
_READ = {
    "fit": {"batch_size", "callbacks", "epochs", "shuffle", "validation_batch_size"}
    | {"validation_split", "verbose"},
    "compile": {"loss", "metrics", "optimizer", "run_eagerly"},
    "predict": {"batch_size", "verbose"},
}
_ROUTED = ("callbacks", "fit__callbacks", "loss", "metrics", "optimizer")
_REMEDIES = {
    "class_weight": "pass class_weight, by label",
    "initial_epoch": "leave it out: epochs counts those of one fit",
    "loss_weights": "leave it out: an estimator has one output",
    "sample_weight": "pass it to fit",
    "steps_per_epoch": "leave it out: an epoch is one pass over the rows",
    "validation_data": "pass X_val and y_val to fit",
    "validation_freq": "leave it out: the loss is watched in every epoch",
    "validation_steps": "leave it out: all validation rows are watched",
    "weighted_metrics": "pass metrics",
}


def from_scikeras(estimator):
    """Turn an estimator of scikeras into the same one of skstack.

    The function that builds the network stays as it is; its arguments become parameters, so that
    ``model__hidden`` is searched as before. The network gets raw columns and learns y in its own
    units, as in scikeras: put a :class:`~sklearn.preprocessing.StandardScaler` before it, or write
    the function as a ``recipe``, which standardises by itself.

    Parameters
    ----------
    estimator : scikeras.wrappers.KerasClassifier or scikeras.wrappers.KerasRegressor
        Its parameters are taken over, fitted weights are not. It is not changed.

    Returns
    -------
    KerasClassifier or KerasRegressor
        Not fitted.

    Raises
    ------
    TypeError
        If ``estimator`` is no scikeras estimator.

    ValueError
        If parameters have no equivalent. The message names all of them, and what to do.

    Notes
    -----
    What becomes of the parameters:

    - ``model``: a function's arguments, those among the keywords of the constructor and
      ``model__...`` become ``model__...``. It is handed ``meta`` (widths, ``n_classes_``,
      ``target_type_``; no labels, encoders or number of rows) and ``compile_kwargs`` where it asks
      for them. A ``keras.Model`` is passed on, never trained itself; a built one is continued from
      its weights.
    - ``optimizer``, ``loss`` and what is routed to them: what the function compiles the network
      with; else they are kept in ``model__compile_kwargs``. Both are ``"auto"`` in the result, and
      setting them (or ``learning_rate``) there overrules that.
    - An output without activation gets the sigmoid or softmax that its loss implies.
    - ``epochs``, ``batch_size``, ``verbose`` and ``metrics``, also as ``fit__...``;
      ``class_weight``, ``random_state`` and ``warm_start``: the same. Class weights are averaged
      over, where scikeras divides by the number of rows.
    - A regressor gets ``standardize_target=False``: scikeras' networks learn y as it is.
    - ``callbacks`` and ``callbacks__...``: callbacks, copied for each fit.
    - ``validation_split`` with an ``EarlyStopping`` that watches ``val_loss``: ``early_stopping``,
      ``validation_fraction``, ``n_iter_no_change`` and ``tol``. The rows are drawn, stratified for
      a classifier, where scikeras takes the last ones; the best weights come back.
    - ``predict__batch_size``, ``validation_batch_size``: dropped, for they change no result.

    Rows are always shuffled.

    Examples
    --------
    >>> import keras
    >>> from scikeras.wrappers import KerasClassifier
    >>> from skstack import from_scikeras
    >>> def network(meta, hidden=8):
    ...     return keras.Sequential(
    ...         [
    ...             keras.Input((meta["n_features_in_"],)),
    ...             keras.layers.Dense(hidden, activation="relu"),
    ...             keras.layers.Dense(1, activation="sigmoid"),
    ...         ]
    ...     )
    >>> classifier = from_scikeras(
    ...     KerasClassifier(network, loss="binary_crossentropy", hidden=16, epochs=5)
    ... )
    >>> classifier.get_params()["model__hidden"]
    16
    >>> from_scikeras(KerasClassifier(network, shuffle=False, epohcs=5))
    Traceback (most recent call last):
        ...
    ValueError: This KerasClassifier of scikeras has parameters without equivalent in skstack:
    - epohcs: the function that builds the network takes no such argument; it takes ['hidden']
    - shuffle=False: leave it out, rows are shuffled in every epoch
    """
    try:
        from scikeras import wrappers
    except ImportError as error:
        raise ImportError(
            'from_scikeras needs scikeras: pip install "skstack[scikeras]".'
        ) from error
    if not isinstance(estimator, (wrappers.KerasClassifier, wrappers.KerasRegressor)):
        raise TypeError(
            "from_scikeras takes a KerasClassifier or KerasRegressor of scikeras; got "
            f"{estimator!r}."
        )
    reading = _Reading(estimator)
    own_class = wrappers.KerasClassifier, wrappers.KerasRegressor
    if type(estimator) not in own_class:
        reading.refuse(
            type(estimator).__name__,
            "a class of your own may do anything; pass scikeras' own, with the function that "
            "builds the network as `model`",
        )
    settings = {
        **_network(reading),
        **_stopping(reading),
        "epochs": reading.fit("epochs"),
        "batch_size": _batch_size(reading),
        "categorical_features": None,
        "verbose": int(bool(reading.fit("verbose"))),
        **{name: reading.params[name] for name in ("warm_start", "random_state")},
    }
    if isinstance(estimator, wrappers.KerasClassifier):
        settings["class_weight"] = reading.params["class_weight"]
    else:
        settings["standardize_target"] = False
    _refuse_what_changes_results(reading)
    reading.finish()
    ours = KerasClassifier if isinstance(estimator, wrappers.KerasClassifier) else KerasRegressor
    return ours(**settings)


class _Reading:
    """The parameters of an estimator, and what was found to have no equivalent."""

    def __init__(self, estimator):
        self.estimator = estimator
        self.params = estimator.get_params(deep=False)
        self.refused = {}

    def fit(self, name):
        """What reaches ``Model.fit`` under a name."""
        return self.params.get(f"fit__{name}", self.params[name])

    def refuse(self, name, remedy):
        self.refused[name] = remedy

    def finish(self):
        if self.refused:
            lines = [f"- {name}: {remedy}" for name, remedy in sorted(self.refused.items())]
            raise ValueError(
                "\n".join(
                    [
                        f"This {type(self.estimator).__name__} of scikeras has parameters without "
                        "equivalent in skstack:",
                        *lines,
                    ]
                )
            )


def _network(reading):
    """``model``, ``optimizer``, ``loss`` and ``metrics``."""
    params = reading.params
    model = params["build_fn"] if params["model"] is None else params["model"]
    compile_kwargs = reading.estimator._get_compile_kwargs()
    loss, metrics = compile_kwargs["loss"], compile_kwargs["metrics"]
    if isinstance(loss, (dict, list, tuple)):
        reading.refuse("loss", "pass one loss, for an estimator has one output")
    if isinstance(metrics, dict):
        reading.refuse("metrics", "pass a list, for an estimator has one output")
    given = params["metrics"]
    given = [given] if isinstance(given, str) else given
    if isinstance(given, (list, tuple)) and all(isinstance(metric, str) for metric in given):
        metrics = list(given)  # Keras reads "accuracy" by what the network gives
    settings = {"optimizer": "auto", "loss": "auto", "metrics": metrics}
    chosen = {name: compile_kwargs[name] for name in ("optimizer", "loss", "metrics")}
    if model is None:
        reading.refuse("model=None", "pass the function that builds the network")
        _arguments(reading, {})
        return settings
    if is_keras_model(model):
        _arguments(reading, None)
        if not model.compiled:
            settings["optimizer"] = chosen["optimizer"]
            settings["loss"] = "auto" if loss is None else loss
        return {"model": model, **settings}
    takes = inspect.signature(model).parameters
    if "params" in takes:
        reading.refuse("model", "it takes `params`, all parameters: name those that it needs")
    if any(taken.kind is taken.VAR_KEYWORD for taken in takes.values()):
        reading.refuse("model", "it takes **kwargs: name the arguments that it needs")
    known = BuilderRecipe.arguments_of(model)
    arguments = _arguments(reading, known)
    if reading.refused:
        return settings
    return {"model": BuilderRecipe.of(model, chosen, arguments), **settings}


def _arguments(reading, known):
    """Arguments of the function ``known``; None for a ``keras.Model``, which takes none."""
    plain, routed = {}, {}
    for name, value in reading.params.items():
        part, nested, parameter = name.partition("__")
        if name in _OWN:
            continue
        if not nested:
            plain[name] = value
        elif part == "model":
            routed[parameter] = value
        elif not _is_read(name, part, parameter):
            reading.refuse(name, _REMEDIES.get(parameter, "leave it out"))
    arguments = {}
    for name, value in {**plain, **routed}.items():
        full = f"model__{name}" if name in routed else name
        if name in (known or ()) and "__" not in name:
            arguments[name] = value
        elif name in _REMEDIES and name in plain:
            reading.refuse(name, _REMEDIES[name])
        elif known is None:
            reading.refuse(
                full, "a keras.Model takes no arguments; pass the function that builds it"
            )
        else:
            reading.refuse(
                full,
                "the function that builds the network takes no such argument; it takes "
                f"{list(known)}",
            )
    return arguments


def _is_read(name, part, parameter):
    if any(name.startswith(f"{routed}__") for routed in _ROUTED):
        return True
    return parameter in _READ.get(part, ())


def _batch_size(reading):
    size = reading.fit("batch_size")
    if size == -1:
        reading.refuse("batch_size=-1", "pass the number of rows")
    return 32 if size is None else size


def _stopping(reading):
    """Callbacks, and what stops early on rows set aside."""
    import keras

    holder = copy.copy(reading.estimator)
    holder._initialize_callbacks()
    callbacks = keras.tree.flatten(holder._fit_callbacks)
    split = reading.fit("validation_split")
    settings = {"early_stopping": False}
    if split:
        watching = [
            callback
            for callback in callbacks
            if isinstance(callback, keras.callbacks.EarlyStopping)
            and callback.monitor.startswith("val_")
        ]
        if len(watching) != 1 or not _is_like_ours(watching[0]):
            reading.refuse(
                f"validation_split={split}",
                "leave it out, or add one EarlyStopping(monitor='val_loss') without baseline and "
                "start_from_epoch, which becomes early_stopping=True",
            )
        else:
            (stop,) = watching
            callbacks = [callback for callback in callbacks if callback is not stop]
            settings = {
                "early_stopping": True,
                "validation_fraction": split,
                "n_iter_no_change": max(1, stop.patience),
                "tol": abs(float(stop.min_delta)),
            }
    return {"callbacks": callbacks or None, **settings}


def _is_like_ours(stop):
    plain = stop.baseline is None and stop.start_from_epoch == 0
    return plain and stop.monitor == "val_loss" and stop.mode in ("auto", "min")


def _refuse_what_changes_results(reading):
    if reading.fit("shuffle") is not True:
        shuffle = reading.fit("shuffle")
        reading.refuse(f"shuffle={shuffle}", "leave it out, rows are shuffled in every epoch")
    if reading.params.get("compile__run_eagerly", reading.params["run_eagerly"]):
        reading.refuse(
            "run_eagerly=True", "leave it out, and call tf.config.run_functions_eagerly to debug"
        )
