"""What a model is compiled with: optimizer, loss and metrics, checked, copied and hashable."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import keras
import tensorflow as tf

from skstack._base.keras_objects import complete_config, customs_of, from_config, remade
from skstack._base.text import described
from skstack._training.blueprint import Blueprint
from skstack._training.config import TrainConfig
from skstack._training.fingerprint import Unknown, fingerprint_config, fingerprint_value
from skstack._training.isolation import environment, refuse_after_fork
from skstack._training.objective import known_loss, known_metric


@functools.lru_cache(maxsize=64)
def _named_optimizer(name):
    # Cached: making an optimizer makes variables, which takes 3 ms.
    optimizer = keras.optimizers.get(name)
    return type(optimizer), optimizer.get_config()


_NO_LOSSES = (keras.layers.Layer, keras.metrics.Metric, keras.optimizers.Optimizer)


def check_settings(*, optimizer, learning_rate, losses, metrics, callbacks) -> None:
    """Refuse settings that Keras cannot train with; callables are checked when they are called.

    Parameters
    ----------
    optimizer, learning_rate, metrics, callbacks : as in `TrainConfig`
        The learning rate is None if it is not known yet.
    losses : sequence
        Each as in `TrainConfig`.

    Raises
    ------
    ValueError
        If Keras does not know a name.
    TypeError
        If an object has the wrong type.
    """
    refuse_after_fork()
    with _name_parameter(
        "optimizer", optimizer, "the name of a Keras optimizer or a keras.optimizers.Optimizer"
    ):
        if optimizer is None or isinstance(optimizer, type):
            raise TypeError("not an optimizer")
        _optimizer(optimizer)
    schedule = keras.optimizers.schedules.LearningRateSchedule
    with _name_parameter(
        "learning_rate", learning_rate, "a number above 0 or a LearningRateSchedule"
    ):
        if learning_rate is not None and not isinstance(learning_rate, (Real, schedule)):
            raise TypeError("not a learning rate")
    for loss in losses:
        accepted = "the name of a Keras loss, a keras.losses.Loss or f(y_true, y_pred)"
        with _name_parameter("loss", loss, accepted):
            if isinstance(loss, type) and not issubclass(loss, keras.losses.Loss):
                raise TypeError("not a loss")
            foreign = isinstance(loss, _NO_LOSSES) or not callable(loss)
            if foreign and not isinstance(loss, str):
                raise TypeError("not a loss")
            known_loss(loss)
    for metric in metrics:
        accepted = "names of Keras metrics, instances of keras.metrics.Metric and f(y_true, y_pred)"
        with _name_parameter("metrics", list(metrics), accepted):
            of_class = isinstance(metric, type) and not issubclass(metric, keras.metrics.Metric)
            if metric is None or of_class or isinstance(metric, dict):
                raise TypeError(f"{metric!r} is not a metric")
            known_metric(metric)
    for callback in callbacks:
        with _name_parameter("callbacks", callbacks, "instances of keras.callbacks.Callback"):
            if not isinstance(callback, keras.callbacks.Callback):
                raise TypeError(f"{callback!r} is not a callback")


@contextlib.contextmanager
def _name_parameter(name, value, accepted):
    """Name the parameter in errors that Keras raises."""
    try:
        yield
    except Exception as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        reason = str(error).strip().partition("\n")[0]
        raise kind(f"{name}={described(value)}: {reason}; expected {accepted}.") from error


def fresh_metrics(metrics) -> list:
    """Copies of metrics, without their state."""
    return [
        remade(metric) if isinstance(metric, keras.metrics.Metric) else metric for metric in metrics
    ]


def _optimizer(identifier):
    """Return the class and the config of an optimizer; a ValueError if the config is not whole."""
    if isinstance(identifier, str):
        return _named_optimizer(identifier)
    optimizer = keras.optimizers.get(identifier)
    return type(optimizer), complete_config(optimizer)


@dataclass(frozen=True)
class CompileSettings:
    """The parts of a `TrainConfig` that a program is compiled with."""

    loss: object
    metrics: tuple
    optimizer_class: Any
    optimizer_config: dict
    learning_rate: float | None  # a variable of the program; None for a schedule
    batch_size: int
    lr_multipliers: tuple = ()
    customs: Mapping[str, Any] = field(default_factory=dict)  # classes in the optimizer's config

    @classmethod
    def of(cls, config: TrainConfig) -> CompileSettings:
        """Read a configuration; raise ValueError if the optimizer is invalid."""
        optimizer_class, optimizer_config = _optimizer(config.optimizer)
        optimizer_config = dict(optimizer_config)
        if config.learning_rate is not None:
            optimizer_config["learning_rate"] = config.learning_rate
        rate = optimizer_config.get("learning_rate")
        fixed = isinstance(rate, (int, float)) or getattr(rate, "shape", None) == ()
        if rate is not None and fixed:
            optimizer_config["learning_rate"] = rate = float(rate)
        return cls(
            loss=config.loss,
            metrics=tuple(config.metrics or ()),
            optimizer_class=optimizer_class,
            optimizer_config=optimizer_config,
            learning_rate=rate if fixed else None,
            batch_size=int(config.batch_size),
            lr_multipliers=tuple(sorted(config.lr_multipliers.items())),
            customs=customs_of(config.optimizer),
        )

    def make_optimizer(self):
        """Make a new optimizer; the user's is never modified."""
        return from_config(self.optimizer_class, self.optimizer_config, self.customs)

    def make_metrics(self) -> list:
        """Make new metrics, because they hold state."""
        return fresh_metrics(self.metrics)

    def key(self, blueprint: Blueprint, signature: tuple) -> Hashable | None:
        """Equal for fits that may share a program; None if that is unknown."""
        if blueprint.key is None:
            return None
        frozen = {name: value for name, value in self.optimizer_config.items() if name != "name"}
        if self.learning_rate is not None:
            del frozen["learning_rate"]  # a variable, so that one program serves all learning rates
        try:
            return (
                blueprint.key,
                signature,
                self.batch_size,
                self.lr_multipliers,
                environment(),
                fingerprint_config(self.optimizer_class, frozen),
                fingerprint_value(self.loss),
                fingerprint_value(self.metrics),
            )
        except Unknown:
            return None


def scale_steps(optimizer, multipliers) -> None:
    """Have an optimizer multiply its steps for some variables: learning rates by layer.

    Scaling the gradient would have no effect on Adam and similar rules, which normalise it.
    Scaling the step scales the learning rate and the weight decay, for every rule that is linear in
    them.

    Parameters
    ----------
    optimizer : keras.optimizers.Optimizer
        Used by one program only. Modified.
    multipliers : list of (keras.Variable, float)
    """
    if not multipliers:
        return
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # mixed_float16: wrapped
    scaled = {id(variable.value): (variable.value, factor) for variable, factor in multipliers}
    apply, update_step = optimizer.apply, optimizer.update_step
    before: dict = {}

    def applied(gradients, trainable_variables=None):
        # Before `apply`, because weight decay changes variables before the step.
        before.update((key, tf.identity(own)) for key, (own, _) in scaled.items())
        return apply(gradients, trainable_variables)

    def updated(gradient, variable, learning_rate):
        update_step(gradient, variable, learning_rate)
        if id(variable) in scaled:
            (own, factor), old = scaled[id(variable)], before[id(variable)]
            own.assign(old + tf.cast(factor, old.dtype) * (own - old))

    # Through the instance's __dict__: Keras tracks attributes that are set the usual way.
    vars(optimizer).update(apply=applied, update_step=updated)


def apply_without_reducing(optimizer) -> None:
    """Have an optimizer skip the sum of gradients over replicas where there is only one.

    TensorFlow registers a gradient for each such sum permanently, which keeps the traced graph.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # mixed_float16: wrapped
    apply = optimizer.apply

    def applied(gradients, trainable_variables=None):
        if tf.distribute.has_strategy() or tf.distribute.in_cross_replica_context():
            return apply(gradients, trainable_variables)
        replica = tf.distribute.get_replica_context()
        return replica.merge_call(lambda _: apply(gradients, trainable_variables))

    vars(optimizer)["apply"] = applied
