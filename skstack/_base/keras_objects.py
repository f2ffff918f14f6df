"""Optimizers, losses and the like of Keras as parameters: copies, pickles, settings.

Keras copies and pickles them by a registered name. Here their own class makes them from their
config, so that custom classes need not be registered.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import sys
import types

import numpy as np

# Arguments that every Keras object has; a copy may have another value of these.
_USUAL = {"self", "name", "dtype", "reduction", "trainable"}
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_PLAIN = (str, bytes, int, float, np.ndarray, np.generic, type(None))


def _kinds():
    """Classes whose objects are copied by their config; () while Keras is not imported."""
    keras = sys.modules.get("keras")
    if keras is None:
        return ()
    return keras.optimizers.Optimizer, keras.losses.Loss, keras.metrics.Metric


def has_settings(value):
    """Whether ``value`` is an optimizer, loss, metric, schedule of learning rates or layer."""
    keras = sys.modules.get("keras")
    if keras is None or isinstance(value, keras.Model):
        return False
    schedule = keras.optimizers.schedules.LearningRateSchedule
    return isinstance(value, (*_kinds(), schedule, keras.Layer))


def is_from_keras(value):
    """Whether a class or function comes with Keras."""
    return (getattr(value, "__module__", None) or "").partition(".")[0] == "keras"


# What an object consists of ----------------------------------------------------------------------


def _parts(value):
    """Everything in containers, and in attributes of Keras objects, at any depth."""
    seen, kept, open_values = set(), [], [value]
    callback = sys.modules["keras"].callbacks.Callback
    while open_values:
        part = open_values.pop()
        if id(part) in seen or isinstance(part, _PLAIN):
            continue
        seen.add(id(part))
        kept.append(part)  # so that no id is reused
        yield part
        if isinstance(part, (list, tuple, set, frozenset)):
            open_values += part
        elif isinstance(part, dict):
            open_values += part.values()
        elif (
            hasattr(part, "get_config") or isinstance(part, callback) or is_from_keras(type(part))
        ) and not isinstance(part, type):
            attributes = dict(getattr(part, "__dict__", {}))
            if isinstance(part, callback):
                attributes.pop("_model", None)  # that of an earlier Model.fit
            open_values += attributes.values()


def customs_of(value):
    """Classes and functions that are not Keras' own, by the name that Keras stores."""
    import keras

    customs = {}
    for part in _parts(value):
        if isinstance(part, types.FunctionType):
            if not is_from_keras(part):
                customs[keras.saving.get_registered_name(part)] = part
        elif (
            hasattr(part, "get_config")
            and not isinstance(part, type)
            and not is_from_keras(type(part))
        ):
            customs[keras.saving.get_registered_name(type(part))] = type(part)
    return customs


@contextlib.contextmanager
def customs_known(customs):
    """Context in which Keras finds custom classes and functions by name."""
    if not customs:
        yield
        return
    import keras

    with keras.saving.custom_object_scope(dict(customs)):
        yield


def lost_arguments(value):
    """Arguments of the constructor of a custom class that the config of ``value`` lacks."""
    cls = type(value)
    custom = [base for base in cls.__mro__ if not is_from_keras(base)]
    if is_from_keras(cls) or any("from_config" in vars(base) for base in custom):
        return []
    config = value.get_config()
    parameters = inspect.signature(cls.__init__).parameters.values()
    return [
        each.name
        for each in parameters
        if each.kind not in _VARIADIC and each.name not in _USUAL and each.name not in config
    ]


def lost_settings(value):
    """Classes and arguments, as text, that objects made from the config of ``value`` would lose."""
    lost = {}
    for part in _parts(value):
        arguments = lost_arguments(part) if has_settings(part) else []
        if arguments and _differs(part, type(part).from_config(part.get_config())):
            lost[type(part).__name__] = arguments
    return [f"{name} lacks {', '.join(arguments)}" for name, arguments in lost.items()]


def _differs(value, made):
    """Whether two objects have different settings among those that can be compared."""
    ours, others = vars(value), vars(made)
    return any(
        name not in others or not np.array_equal(each, others[name])
        for name, each in ours.items()
        if _is_comparable(each)
    )


def _is_comparable(value):
    if isinstance(value, (list, tuple)):
        return all(map(_is_comparable, value))
    return isinstance(value, (*_PLAIN, types.FunctionType))


# Copies ------------------------------------------------------------------------------------------


def remade(value):
    """A new object of the class and the config of ``value``, without its state.

    A ValueError if the config lacks arguments of the constructor.
    """
    return from_config(type(value), complete_config(value), customs_of(value))


def complete_config(value):
    """The config of ``value``, without what its constructor does not take.

    A ValueError if it lacks arguments of the constructor.
    """
    lost = lost_arguments(value)
    if lost:
        raise ValueError(
            f"{type(value).__name__} cannot be copied, because its get_config lacks "
            f"{', '.join(lost)} (it must return all arguments of the constructor)"
        )
    config, cls = value.get_config(), type(value)
    if is_from_keras(cls) or not is_from_keras(cls.from_config):
        return config
    parameters = inspect.signature(cls.__init__).parameters
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        return config
    return {key: each for key, each in config.items() if key in parameters or key not in _USUAL}


def from_config(cls, config, customs):
    """Make an object of a Keras class from its config, with custom objects by name."""
    with customs_known(customs):
        # Keras' own from_config may change its argument.
        return cls.from_config(dict(config))


def copied(value, variables=None):
    """A deep copy; optimizers, losses and metrics in it are made from their config.

    A loss whose class has no complete config is copied by its attributes. Other such objects are
    shared: skstack never modifies the objects of a user, and training refuses them by name.
    Variables of callbacks and losses are shared, too: one assigns them, the other reads them. With
    ``variables``, callbacks share those only, and others are copied: the state of one fit.
    """
    if isinstance(value, (*_PLAIN, type, types.FunctionType)) or "keras" not in sys.modules:
        return copy.deepcopy(value)
    keras = sys.modules["keras"]
    memo, kept = {}, []
    for part in _parts(value):
        if isinstance(part, _kinds()) and not isinstance(part, type):
            kept.append(part)  # so that no id is reused
            memo[id(part)] = _copied_object(part)
        elif isinstance(part, keras.callbacks.Callback):
            shared = None if variables is None else set(map(id, variables))
            memo.update(
                (id(variable), variable)
                for variable in _held_variables(part)
                if shared is None or id(variable) in shared
            )
            if part.model is not None:
                memo[id(part.model)] = None  # of an earlier Model.fit; training sets another
    if id(value) in memo:
        return memo[id(value)]
    with customs_known(customs_of(value)):
        return copy.deepcopy(value, memo)


def _held_variables(value):
    """Variables among the attributes of an object, also in lists and dicts of them."""
    kinds = (sys.modules["keras"].Variable, sys.modules["tensorflow"].Variable)
    for each in vars(value).values():
        parts = each.values() if isinstance(each, dict) else each
        parts = parts if isinstance(each, (dict, list, tuple)) else [each]
        yield from (part for part in parts if isinstance(part, kinds))


def _copied_object(value):
    import keras

    if isinstance(value, keras.losses.Loss) and list(_held_variables(value)):
        return value
    try:
        return remade(value)
    except Exception:  # custom classes may raise anything
        if not isinstance(value, keras.losses.Loss):
            return value
    new = object.__new__(type(value))
    memo = {id(value): new}
    for part in _parts(vars(value)):
        if isinstance(part, keras.Model):
            memo[id(part)] = part  # shared, as in parameters
        elif isinstance(part, _kinds()) and part is not value:
            memo[id(part)] = _copied_object(part)
    with customs_known(customs_of(value)):
        vars(new).update(copy.deepcopy(vars(value), memo))
    return new


class Portable:
    """Pickles an object by its class and config; when unpickled, it is the object again."""

    def __init__(self, value):
        self.value = value

    def __deepcopy__(self, memo):
        return copied(self.value)

    def __reduce__(self):
        import keras

        cls = type(self.value)
        if isinstance(self.value, keras.losses.Loss) and not _can_be_remade(self.value):
            return _from_attributes, (cls, portable(vars(self.value)))
        customs = {name: each for name, each in customs_of(self.value).items() if each is not cls}
        return from_config, (cls, portable(complete_config(self.value)), customs)


def _can_be_remade(value):
    try:
        remade(value)
    except Exception:  # custom classes may raise anything
        return False
    return True


def _from_attributes(cls, attributes):
    value = object.__new__(cls)
    vars(value).update(attributes)
    return value


def portable(value):
    """Replace optimizers, losses and metrics, also in containers, by what can be pickled."""
    if type(value) in (list, tuple):
        return type(value)(portable(item) for item in value)
    if type(value) is dict:
        return {key: portable(item) for key, item in value.items()}
    return Portable(value) if isinstance(value, _kinds()) else value


# Settings ----------------------------------------------------------------------------------------


def with_settings(value, settings, where):
    """A new object with other settings, such as ``{"momentum": 0.9}``.

    ``where`` is the name of the parameter. ``outer__inner`` is a setting of an object inside, such
    as the schedule that is the learning rate of an optimizer.
    """
    import keras

    kind = type(value).__name__
    customs = {**customs_of(value), **customs_of(settings)}
    try:
        config = complete_config(value)
    except ValueError as error:
        raise ValueError(f"Cannot set '{where}__{next(iter(settings))}': {error}.") from error
    nested = {}
    for key, setting in settings.items():
        name, inner, rest = key.partition("__")
        if name not in config:
            raise ValueError(
                f"Cannot set '{where}__{key}': a {kind} has no setting {name!r}; it has "
                f"{sorted(config)}."
            )
        if inner:
            nested.setdefault(name, {})[rest] = setting
        else:
            config[name] = _like(config[name], setting)
    for name, inner_settings in nested.items():
        with customs_known(customs):
            inner = config[name]
            inner = keras.saving.deserialize_keras_object(inner) if is_serialized(inner) else inner
        if not has_settings(inner):
            raise ValueError(
                f"Cannot set '{where}__{name}__{next(iter(inner_settings))}': the setting "
                f"{name!r} of the {kind} is {config[name]!r}, which has no settings."
            )
        config[name] = _like(config[name], with_settings(inner, inner_settings, f"{where}__{name}"))
    try:
        return from_config(type(value), config, customs)
    except (ValueError, TypeError) as error:
        given = ", ".join(f"{where}__{key}={setting!r}" for key, setting in settings.items())
        raise ValueError(f"{given} is not valid for {kind}: {error}") from error


def is_serialized(value):
    """Whether a value of a config is an object in the form that Keras stores."""
    return isinstance(value, dict) and {"class_name", "config"} <= value.keys()


def _like(old, new):
    """A new value in the form of the old one: serialised if that was."""
    import keras

    if is_serialized(old) and has_settings(new):
        return keras.saving.serialize_keras_object(new)
    return new
