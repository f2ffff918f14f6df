"""Constructor parameters: clones that share networks, error messages, seeds."""

from __future__ import annotations

import contextlib
import copy
import difflib
import functools
import inspect
import os
import secrets
import sys
import warnings
from numbers import Number

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from skstack._base.keras_objects import copied, has_settings, portable, with_settings
from skstack._base.sklearn import (
    BESIDE_PARAMETERS,
    routing_enabled,
    set_callbacks_of,
    wrapper_of,
)
from skstack._base.text import described


def is_bool(value, expected):
    """Whether a parameter is this truth value, of Python or NumPy."""
    return isinstance(value, bool | np.bool_) and bool(value) == expected


def clone_part(value):
    """Clone the value of a parameter so that fitting the clone does not change the original.

    A ``keras.Model`` is shared, because skstack never trains one in place. scikeras does, so its
    estimators get a copy with the same weights. ``keras.wrappers`` do not, but their own ``clone``
    loses ``fit_kwargs`` and shares the dict that ``fit`` writes to.
    """
    if is_keras_model(value):
        return value
    if type(value) in (list, tuple):
        return type(value)(clone_part(item) for item in value)
    if type(value) is dict:
        return {key: clone_part(item) for key, item in value.items()}
    if isinstance(value, type) or not (
        hasattr(value, "get_params") or hasattr(value, "__sklearn_clone__")
    ):
        return copied(value)
    wrapper = wrapper_of(value)
    if isinstance(value, Pipeline) or wrapper == "keras":
        return clone_sharing_models(value)
    if wrapper == "scikeras":
        with warnings.catch_warnings():
            # The state of the compiled model's optimizer is not copied.
            warnings.filterwarnings("ignore", message="Skipping variable loading for optimizer")
            return clone(value)
    return clone(value, safe=False)


def explain_uncopied(name, value, error):
    """Raise a TypeError that names the parameter, if a value could not be copied."""
    if str(error).startswith("cannot pickle"):
        raise TypeError(
            f"{name}={described(value)} cannot be copied ({error}), but each fit works on copies. "
            "Give its class a __deepcopy__ that shares or leaves out what cannot be copied."
        ) from error


def clone_sharing_models(estimator):
    """Clone an estimator, with every ``keras.Model`` among its parameters shared.

    A deep copy takes 0.2 s, warns, and makes equal models unequal for every cache.
    """
    params = {}
    for name, value in estimator.get_params(deep=False).items():
        try:
            params[name] = clone_part(value)
        except TypeError as error:
            explain_uncopied(name, value, error)
            raise
    cloned = type(estimator)(**params)
    for attribute in BESIDE_PARAMETERS:
        if hasattr(estimator, attribute):
            setattr(cloned, attribute, copy.deepcopy(getattr(estimator, attribute)))
    set_callbacks_of(cloned, estimator)
    if hasattr(estimator, "_row_context"):  # must survive the clone that a Pipeline makes
        cloned._row_context = estimator._row_context
    return cloned


def reduced(estimator, reduction):
    """What ``__reduce_ex__`` returns, with parameters of Keras' classes that can be pickled."""
    make, arguments, state, *rest = reduction
    names = estimator.get_params(deep=False)
    state = {key: portable(each) if key in names else each for key, each in state.items()}
    return make, arguments, state, *rest


def with_keras_settings(estimator, params):
    """Replace ``optimizer__momentum`` in ``params`` by a new ``optimizer`` with that setting.

    So for every parameter that is an object of Keras with a config, which is never modified.
    """
    own = estimator.get_params(deep=False)
    settings = {}
    for key, setting in params.items():
        name, nested, rest = key.partition("__")
        if nested and has_settings(params.get(name, own.get(name))):
            settings.setdefault(name, {})[rest] = setting
    others = {key: each for key, each in params.items() if key.partition("__")[0] not in settings}
    for name, inner in settings.items():
        others[name] = with_settings(params.get(name, own[name]), inner, name)
    return others


# What users of other libraries write, and what to write here; {0} is the value, {recipe} the recipe
# that an estimator uses by default.
_HINTS = {
    **dict.fromkeys(
        ("hidden", "hidden_layer_sizes", "hidden_layers", "hidden_units", "layer_sizes", "units"),
        "model={recipe}(hidden_layer_sizes={0})",
    ),
    "activation": "model={recipe}(activation={0})",
    "batch_normalization": "model={recipe}(batch_normalization={0})",
    "dropout": "model={recipe}(dropout={0})",
    **dict.fromkeys(("alpha", "l2"), "model={recipe}(l2={0})"),
    **dict.fromkeys(("base_estimator", "estimator"), "model={0}"),
    "standardize": "scaling='standard' or None",
    "build_fn": "model=... (a recipe or a keras.Model)",
    "layer": "layers={0}",
    **dict.fromkeys(("base_estimators", "estimators"), "upstream={0}"),
    **dict.fromkeys(
        ("final_estimator", "meta_classifier", "meta_estimator", "meta_learner", "meta_regressor"),
        "downstream={0}",
    ),
    "stack_method": "upstream=KerasFeatureTransformer(model, features=...)",
    "solver": "optimizer={0}",
    "momentum": "optimizer=keras.optimizers.SGD(momentum={0})",
    "weight_decay": "optimizer=keras.optimizers.AdamW(weight_decay={0})",
    **dict.fromkeys(
        ("learning_rate_init", "lr", "optimizer__learning_rate", "optimizer__lr"),
        "learning_rate={0}",
    ),
    **dict.fromkeys(("max_epochs", "max_iter", "n_epochs", "nb_epoch", "num_epochs"), "epochs={0}"),
    "label_smoothing": "model={recipe}(label_smoothing={0})",
    "monitor": "early_stopping_metric={0}",
    "global_clipnorm": "clipnorm={0}",
    "patience": "n_iter_no_change={0}",
    "validation_split": "validation_fraction={0}",
    **dict.fromkeys(
        ("eval_set", "validation_data", "X_val", "y_val"), "fit(X, y, X_val=..., y_val=...)"
    ),
    **dict.fromkeys(("random_seed", "seed"), "random_state={0}"),
}


def _hint(estimator, key, value, known):
    """What to write instead of a parameter that does not exist, or an empty string."""
    names = estimator._get_param_names()
    name, nested, rest = key.partition("__")
    template = _HINTS.get(key) or _HINTS.get(name, "")
    target = template.partition("=")[0]
    if key not in _HINTS and template == f"{target}={{0}}" and target in names:
        branches = isinstance(getattr(estimator, target, None), list)
        return f" Use {rest if branches else f'{target}__{rest}'}."
    if key in _HINTS and "{recipe}" in template:
        recipe = estimator._hinted_recipe() if hasattr(estimator, "_hinted_recipe") else None
        setting = template.partition("(")[2].partition("=")[0]
        if setting in names:
            return f" Use {setting}={value!r}."
        if recipe is not None and setting in recipe.get_params():
            return f" Use {template.format(repr(value), recipe=type(recipe).__name__)}."
    elif key in _HINTS and (target in names or template.startswith("fit(")):
        return f" Use {template.format(repr(value))}."
    if name in ("fit", "compile") and rest in names:  # as in scikeras
        return f" Use {rest}={value!r}."
    if nested and name in names:
        return f" Parameters of {name!r} are set in the object that is passed, or by set_params."
    inner = sorted(each for each in known if each.endswith(f"__{key}"))
    if inner:
        return f" Did you mean {' or '.join(map(repr, inner[:3]))}?"
    names = sorted({each.partition("__")[0] for each in known} | set(names))
    close = difflib.get_close_matches(name, names, n=1)
    return f" Did you mean {'__'.join([close[0], rest] if nested else close)!r}?" if close else ""


def hint_at_parameters(method):
    """Wrap a constructor or `fit`, so that its error for an unknown argument says what to write."""
    signature = inspect.signature(method).parameters
    names = [name for name, each in signature.items() if each.kind is not each.VAR_KEYWORD]
    builds, routes = method.__name__ == "__init__", len(names) < len(signature)

    @functools.wraps(method)
    def wrapped(self, *args, **kwargs):
        unknown = [name for name in kwargs if name not in names]
        if unknown and not (routes and routing_enabled()):
            name = unknown[0]
            if builds:
                passed = {**dict(zip(names[1:], args, strict=False)), **kwargs}
                hint = _hint(self, name, kwargs[name], _nested_names(passed, names))
            else:
                hint = _fit_hint(self, name, kwargs[name], names)
            if hint or not routes:  # else scikit-learn explains what it does with metadata
                raise TypeError(
                    f"{type(self).__name__}.{method.__name__}() got an unexpected keyword argument "
                    f"{name!r}.{hint}"
                )
        return method(self, *args, **kwargs)

    return wrapped


def _nested_names(passed, names):
    """Names such as "model__dropout" of the parameters of what was passed to a constructor."""
    return [
        f"{outer}__{name}"
        for outer, value in passed.items()
        if outer in names  # what nobody accepts is no proposal
        and hasattr(value, "get_params")
        and not isinstance(value, type)
        for name in value.get_params()
    ]


def _fit_hint(estimator, name, value, names):
    """What to write instead of an argument that `fit` does not have, or an empty string."""
    kind, template = type(estimator).__name__, _HINTS.get(name, "")
    if name in estimator._get_param_names():
        return f" It is a parameter of the constructor: {kind}({name}=...)."
    if template.startswith("fit("):
        return f" Use {template}." if {"X_val", "y_val"} <= set(names) else ""
    if template:
        hint = _hint(estimator, name, value, ())
        return hint and f"{hint[:-1]}, a parameter of the constructor."
    close = difflib.get_close_matches(name, names, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def explain_missing_parameters(estimator, params, remedy):
    """Raise for a parameter that does not exist, and say what to set instead.

    Besides unknown names it is ``name__parameter`` where ``name`` is a path, a ``keras.Model`` or
    None; ``remedy(name, value)`` says what to pass.
    """
    if not params:
        return
    kind, known = type(estimator).__name__, estimator.get_params(deep=True)
    own = estimator.get_params(deep=False)
    new = {name: value for name, value in params.items() if name in own}
    if 0 < len(new) < len(params):  # the others may belong to what is new, such as branches
        known = type(estimator)(**{**own, **new}).get_params(deep=True)
    for key in params:
        name, nested, parameter = key.partition("__")
        if name not in known:
            names = sorted(each for each in known if "__" not in each)
            raise ValueError(
                f"Invalid parameter {key!r} for estimator {kind}."
                f"{_hint(estimator, key, params[key], known)} Valid parameters are: {names}."
            )
        value = params.get(name, known[name])
        if not nested or hasattr(value, "set_params") or has_settings(value):
            continue
        branches = [each[0] for each in value if each] if isinstance(value, list) else []
        branch = parameter.partition("__")[0]
        if branch in branches:
            remedy_text = f"Parameters of a branch begin with its name: set {parameter!r}."
        elif branches:
            remedy_text = f"Parameters of a branch begin with its name; it has {branches}."
        elif key in _HINTS:
            remedy_text = _hint(estimator, key, params[key], known).strip()
        else:
            remedy_text = remedy(name, value)
        text = f"a {type(value).__name__}"
        if value is None or isinstance(value, str):
            text = "None" if value is None else f"the string {value!r}"
        raise ValueError(
            f"Cannot set {key!r}: {name!r} of {kind} is {text}, which has no parameter "
            f"{parameter!r}. {remedy_text}"
        )


def draw_seed(random_state):
    """A seed in [0, 2**31 - 1); for None from fresh entropy, not from NumPy's global state."""
    if random_state is None:
        return secrets.randbelow(2**31 - 1)
    if isinstance(random_state, (int, np.integer)):
        return int(np.random.default_rng(int(random_state)).integers(2**31 - 1))
    return int(random_state.randint(2**31 - 1))


def _read_determinism():
    """Make TensorFlow read now whether kernels are deterministic.

    TensorFlow reads the environment at the first query only. scikeras writes to the environment
    before its own query, which would make the whole process deterministic.
    """
    import keras

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Model doesn't support `jit_compile")
        keras.Sequential().jit_compile = True  # the setter of Keras queries it


def set_missing_seeds(estimator, seed, *, scikeras=True):
    """Seed every ``random_state`` that is None in ``estimator``, at any depth.

    With ``scikeras=False``, scikeras estimators are left out: with a seed, they switch the process
    to deterministic kernels while they are fitted.
    """
    if not isinstance(estimator, BaseEstimator) and not hasattr(estimator, "get_params"):
        return estimator
    generator = np.random.default_rng(seed)
    parts = {"": estimator, **estimator.get_params(deep=True)}
    for name, value in sorted(parts.items()):
        is_seed = name == "random_state" or name.endswith("__random_state")
        if is_seed and value is None:
            owner = parts[name.removesuffix("random_state").removesuffix("__")]
            if wrapper_of(owner) == "scikeras":
                if not scikeras:
                    continue
                _read_determinism()
            if type(owner).__name__ == "TargetEncoder" and is_bool(
                getattr(owner, "shuffle", None), False
            ):
                continue  # before scikit-learn 1.9 it passes the seed to KFold, which refuses it
            estimator.set_params(**{name: int(generator.integers(2**31 - 1))})
    return estimator


def is_keras_model(value):
    """Whether ``value`` is a ``keras.Model``, without importing Keras."""
    keras = sys.modules.get("keras")
    return isinstance(value, getattr(keras, "Model", ()))


def checked_path(path):
    """A path as str. Numbers are refused, which `open` takes for descriptors of open files."""
    try:
        return os.fsdecode(path)
    except TypeError:
        raise TypeError(f"path={path!r} must be a str or a path-like object.") from None


def is_path(value):
    """Whether ``value`` may be the path to a saved model."""
    return isinstance(value, (str, os.PathLike))


def without_passthrough(model):
    """A Pipeline without "passthrough" at its end; other models are returned unchanged."""
    if not isinstance(model, Pipeline):
        return model
    while len(model.steps) > 1 and _passes(model.steps[-1][1]):
        model = model[:-1]
    name, given = model.steps[-1]
    last = without_passthrough(given)
    if _passes(last):
        last = FunctionTransformer(feature_names_out="one-to-one")
    if last is not given:
        model = copy.copy(model)
        model.steps = [*model.steps[:-1], (name, last)]
    return model


def last_step(model):
    """The last step of a Pipeline, also of one inside another; other models are unchanged."""
    while isinstance(model, Pipeline):
        model = model.steps[-1][1]
    return model


def _passes(step):
    return step is None or (isinstance(step, str) and step == "passthrough")


def is_network_estimator(value):
    """Whether ``value`` is an estimator of skstack that trains one network, fitted or not."""
    return hasattr(value, "_fit_in_context")


def comparable(value):
    """A parameter in a form that is equal for equal values in any container."""
    if hasattr(value, "get_params") and not isinstance(value, type):
        params = value.get_params(deep=False)
        if isinstance(layers := params.get("hidden_layer_sizes"), Number):  # as in MLP(64)
            params["hidden_layer_sizes"] = [layers]
        return type(value), comparable(params)
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {name: comparable(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [comparable(each) for each in value]
    if hasattr(value, "get_config") and not isinstance(value, type):  # of Keras
        with contextlib.suppress(Exception):  # of a user's class
            return type(value), comparable(_without_names(value.get_config()))
    plain = value is None or hasattr(value, "__name__") or isinstance(value, str | Number)
    return value if plain else described(value)


def _without_names(config):
    """The config of an object of Keras without names, which are numbered automatically."""
    if isinstance(config, dict):
        return {key: _without_names(each) for key, each in config.items() if key != "name"}
    return [_without_names(each) for each in config] if isinstance(config, list) else config
