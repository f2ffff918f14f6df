"""Convert estimators of scikeras."""

from __future__ import annotations

import copy
import inspect

from skstack._base.params import is_bool, is_keras_model
from skstack._estimators.classifier import KerasClassifier
from skstack._estimators.regressor import KerasRegressor
from skstack.networks._builder import BuilderRecipe

# Parameters of scikeras' constructors.
_CONSTRUCTOR = set(
    """
    model build_fn warm_start random_state optimizer loss metrics batch_size verbose callbacks
    validation_batch_size validation_split shuffle run_eagerly epochs class_weight
    """.split()  # noqa: SIM905
)
# Parameters "part__parameter" that are read below, or have no effect on any result.
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
    "validation_freq": "leave it out: the validation loss is computed in every epoch",
    "validation_steps": "leave it out: all validation rows are used",
    "weighted_metrics": "pass metrics",
}


def from_scikeras(estimator):
    """Convert an estimator of scikeras to the equivalent one of skstack.

    The function that builds the network is kept; its arguments become parameters, so that
    ``model__hidden`` is searched as before. As in scikeras, the network gets raw columns, and y is
    not standardised: put a :class:`~sklearn.preprocessing.StandardScaler` before it, or rewrite the
    function as a ``recipe``, which standardises by default.

    Parameters
    ----------
    estimator : scikeras.wrappers.KerasClassifier or scikeras.wrappers.KerasRegressor
        Its parameters are converted, fitted weights are not. It is not changed.

    Returns
    -------
    KerasClassifier or KerasRegressor
        Not fitted.

    Raises
    ------
    TypeError
        If ``estimator`` is not a scikeras estimator.

    ValueError
        If parameters have no equivalent. The message names all of them, and what to do instead.

    ImportError
        If scikeras is not installed.

    Notes
    -----
    Parameters are converted as follows:

    - ``model``: the arguments of a function, given as keywords of the constructor or as
      ``model__...``, become ``model__...``. If the function has the arguments ``meta`` and
      ``compile_kwargs``, they are passed; ``meta`` holds widths, ``n_classes_`` and
      ``target_type_``, but no labels, encoders or number of rows. A ``keras.Model`` is passed on,
      and never trained itself; training continues from the weights of a built one.
    - ``optimizer``, ``loss`` and their routed parameters: those that the function compiles the
      network with; otherwise they are kept in ``model__compile_kwargs``. Both are ``"auto"`` in the
      result; setting them (or ``learning_rate``) there takes precedence.
    - An output without activation gets the sigmoid or softmax that its loss implies.
    - ``epochs``, ``batch_size``, ``verbose`` and ``metrics``, also as ``fit__...``;
      ``class_weight``, ``random_state`` and ``warm_start``: unchanged. Losses are averaged over
      class weights, where scikeras divides by the number of rows.
    - A regressor gets ``standardize_target=False``, because scikeras does not scale y.
    - ``callbacks`` and ``callbacks__...``: callbacks, copied for each fit.
    - ``validation_split`` with an ``EarlyStopping`` on ``val_loss``: ``early_stopping``,
      ``validation_fraction``, ``n_iter_no_change`` and ``tol``. The rows are drawn at random,
      stratified for a classifier, where scikeras takes the last ones; the best weights are
      restored.
    - ``predict__batch_size``, ``validation_batch_size``: dropped, because they change no result.

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
    converter = _Converter(estimator)
    if type(estimator) not in (wrappers.KerasClassifier, wrappers.KerasRegressor):
        converter.refuse(
            type(estimator).__name__,
            "subclasses are not supported; pass a class of scikeras, with the function that "
            "builds the network as `model`",
        )
    settings = {
        **_network(converter),
        **_stopping(converter),
        "epochs": converter.fit("epochs"),
        "batch_size": _batch_size(converter),
        "categorical_features": None,
        "verbose": int(bool(converter.fit("verbose"))),
        **{name: converter.params[name] for name in ("warm_start", "random_state")},
    }
    if isinstance(estimator, wrappers.KerasClassifier):
        settings["class_weight"] = converter.params["class_weight"]
    else:
        settings["standardize_target"] = False
    _refuse_changed_results(converter)
    converter.finish()
    ours = KerasClassifier if isinstance(estimator, wrappers.KerasClassifier) else KerasRegressor
    return ours(**settings)


class _Converter:
    """The parameters of an estimator, and those without an equivalent."""

    def __init__(self, estimator):
        self.estimator = estimator
        self.params = estimator.get_params(deep=False)
        self.refused = {}

    def fit(self, name):
        """The value of a parameter of ``Model.fit``."""
        return self.params.get(f"fit__{name}", self.params[name])

    def refuse(self, name, remedy):
        self.refused[name] = remedy

    def finish(self):
        if self.refused:
            lines = [f"- {name}: {remedy}" for name, remedy in sorted(self.refused.items())]
            name = type(self.estimator).__name__
            raise ValueError(
                f"This {name} of scikeras has parameters without equivalent in skstack:\n"
                + "\n".join(lines)
            )


def _network(converter):
    """``model``, ``optimizer``, ``loss`` and ``metrics``."""
    params = converter.params
    model = params["build_fn"] if params["model"] is None else params["model"]
    compile_kwargs = converter.estimator._get_compile_kwargs()
    loss, metrics = compile_kwargs["loss"], compile_kwargs["metrics"]
    if isinstance(loss, (dict, list, tuple)):
        converter.refuse("loss", "pass one loss, because an estimator has one output")
    if isinstance(metrics, dict):
        converter.refuse("metrics", "pass a list, because an estimator has one output")
    names = params["metrics"]
    names = [names] if isinstance(names, str) else names
    if isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names):
        metrics = list(names)  # Keras resolves "accuracy" by the output of the network
    settings = {"optimizer": "auto", "loss": "auto", "metrics": metrics}
    chosen = {name: compile_kwargs[name] for name in ("optimizer", "loss", "metrics")}
    if model is None:
        converter.refuse("model=None", "pass the function that builds the network")
        _arguments(converter, {})
        return settings
    if is_keras_model(model):
        _arguments(converter, None)
        if not model.compiled:
            settings["optimizer"] = chosen["optimizer"]
            settings["loss"] = "auto" if loss is None else loss
        return {"model": model, **settings}
    signature = inspect.signature(model).parameters
    if "params" in signature:
        converter.refuse("model", "it takes all parameters as `params`: name those that it needs")
    if any(each.kind is each.VAR_KEYWORD for each in signature.values()):
        converter.refuse("model", "it takes **kwargs: name the arguments that it needs")
    known = BuilderRecipe.arguments_of(model)
    arguments = _arguments(converter, known)
    if converter.refused:
        return settings
    return {"model": BuilderRecipe.of(model, chosen, arguments), **settings}


def _arguments(converter, known):
    """The arguments of the function, among ``known`` names; None stands for a ``keras.Model``."""
    plain, routed = {}, {}
    for name, value in converter.params.items():
        part, nested, parameter = name.partition("__")
        if name in _CONSTRUCTOR:
            continue
        if not nested:
            plain[name] = value
        elif part == "model":
            routed[parameter] = value
        elif not _is_read(name, part, parameter):
            converter.refuse(name, _REMEDIES.get(parameter, "leave it out"))
    arguments = {}
    for name, value in {**plain, **routed}.items():
        full = f"model__{name}" if name in routed else name
        if name in (known or ()) and "__" not in name:
            arguments[name] = value
        elif name in _REMEDIES and name in plain:
            converter.refuse(name, _REMEDIES[name])
        elif known is None:
            converter.refuse(
                full, "a keras.Model takes no arguments; pass the function that builds it"
            )
        else:
            converter.refuse(
                full,
                "the function that builds the network takes no such argument; it takes "
                f"{list(known)}",
            )
    return arguments


def _is_read(name, part, parameter):
    if any(name.startswith(f"{routed}__") for routed in _ROUTED):
        return True
    return parameter in _READ.get(part, ())


def _batch_size(converter):
    size = converter.fit("batch_size")
    if size == -1:
        converter.refuse("batch_size=-1", "pass the number of rows")
    return 32 if size is None else size


def _stopping(converter):
    """``callbacks``, and the parameters of early stopping."""
    import keras

    copied = copy.copy(converter.estimator)
    copied._initialize_callbacks()
    callbacks = keras.tree.flatten(copied._fit_callbacks)
    split = converter.fit("validation_split")
    settings = {"early_stopping": False}
    if split:
        monitors = [
            callback
            for callback in callbacks
            if isinstance(callback, keras.callbacks.EarlyStopping)
            and callback.monitor.startswith("val_")
        ]
        if len(monitors) != 1 or not _is_supported(monitors[0]):
            converter.refuse(
                f"validation_split={split}",
                "leave it out, or add one EarlyStopping(monitor='val_loss') without baseline and "
                "start_from_epoch, which becomes early_stopping=True",
            )
        else:
            (stop,) = monitors
            callbacks = [callback for callback in callbacks if callback is not stop]
            settings = {
                "early_stopping": True,
                "validation_fraction": split,
                "n_iter_no_change": max(1, stop.patience),
                "tol": abs(float(stop.min_delta)),
            }
    return {"callbacks": callbacks or None, **settings}


def _is_supported(stop):
    plain = stop.baseline is None and stop.start_from_epoch == 0
    return plain and stop.monitor == "val_loss" and stop.mode in ("auto", "min")


def _refuse_changed_results(converter):
    if not is_bool(converter.fit("shuffle"), True):
        shuffle = converter.fit("shuffle")
        converter.refuse(f"shuffle={shuffle}", "leave it out, rows are shuffled in every epoch")
    if converter.params.get("compile__run_eagerly", converter.params["run_eagerly"]):
        converter.refuse(
            "run_eagerly=True", "leave it out, and call tf.config.run_functions_eagerly to debug"
        )
