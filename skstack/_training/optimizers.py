"""What a program is compiled with: optimizer, loss and metrics, copied and comparable."""

# Smaller steps for some variables: what learning rates by layer are.

from __future__ import annotations

import contextlib
import functools
from collections.abc import Hashable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import keras
import tensorflow as tf

from skstack._training.config import TrainConfig
from skstack._training.fingerprint import Unknown, fingerprint_config, fingerprint_value
from skstack._training.fork_guard import refuse_after_fork
from skstack._training.objective import known_loss, known_metric
from skstack._training.seeds import environment


@functools.lru_cache(maxsize=64)
def _named_optimizer(name):
    # Making one costs 3 ms, for it makes variables.
    optimizer = keras.optimizers.get(name)
    return type(optimizer), optimizer.get_config()


_NO_LOSSES = (keras.layers.Layer, keras.metrics.Metric, keras.optimizers.Optimizer)


def check_settings(*, optimizer, learning_rate, loss, metrics, callbacks) -> None:
    """Refuse what Keras could not train with; callables are known when they are called only.

    Parameters
    ----------
    optimizer, learning_rate, loss, metrics, callbacks : as in `TrainConfig`
        None stands for what is not known yet.

    Raises
    ------
    ValueError
        For names that Keras does not know.
    TypeError
        For objects of another kind.
    """
    refuse_after_fork()
    with _told("optimizer", optimizer, "the name of a Keras optimizer or a keras.optimizers one"):
        if optimizer is None or isinstance(optimizer, type):
            raise TypeError("not an optimizer")
        _optimizer(optimizer)
    schedule = keras.optimizers.schedules.LearningRateSchedule
    with _told("learning_rate", learning_rate, "a number above 0 or a LearningRateSchedule"):
        if learning_rate is not None and not isinstance(learning_rate, (Real, schedule)):
            raise TypeError("neither")
    with _told("loss", loss, "the name of a Keras loss, a keras.losses one or f(y_true, y_pred)"):
        if isinstance(loss, type) and not issubclass(loss, keras.losses.Loss):
            raise TypeError("not a loss")
        known = loss is None or isinstance(loss, str)
        if not known and (isinstance(loss, _NO_LOSSES) or not callable(loss)):
            raise TypeError("not a loss")
        known_loss(loss)
    for metric in metrics:
        accepted = "names of Keras metrics, keras.metrics ones and functions f(y_true, y_pred)"
        with _told("metrics", list(metrics), accepted):
            of_class = isinstance(metric, type) and not issubclass(metric, keras.metrics.Metric)
            if metric is None or of_class or isinstance(metric, dict):
                raise TypeError(f"{metric!r} is no metric")
            known_metric(metric)
    for callback in callbacks:
        with _told("callbacks", callbacks, "instances of keras.callbacks.Callback"):
            if not isinstance(callback, keras.callbacks.Callback):
                raise TypeError(f"{callback!r} is none")


@contextlib.contextmanager
def _told(name, value, accepted):
    """Say which parameter it was, whatever Keras raises."""
    try:
        yield
    except Exception as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        reason = str(error).strip().partition("\n")[0]
        raise kind(f"{name}={value!r}: {reason}; accepted are {accepted}.") from error


def made_anew(metrics) -> list:
    """The same metrics without what they have counted."""
    return [
        type(m).from_config(m.get_config()) if isinstance(m, keras.metrics.Metric) else m
        for m in metrics
    ]


def _optimizer(given):
    """Class and settings of an optimizer."""
    if isinstance(given, str):
        return _named_optimizer(given)
    optimizer = keras.optimizers.get(given)
    return type(optimizer), optimizer.get_config()


@dataclass(frozen=True)
class Ingredients:
    """The parts of a plan that are frozen into a program."""

    loss: object
    metrics: tuple
    optimizer_class: Any
    optimizer_config: dict
    learning_rate: (
        float | None
    )  # a variable of the program; None where a schedule is frozen into it
    batch_size: int
    shares: tuple = ()

    @classmethod
    def of(cls, plan: TrainConfig) -> Ingredients:
        """Read a plan.

        Raises
        ------
        ValueError
            If the optimizer is not one.
        """
        optimizer_class, config = _optimizer(plan.optimizer)
        config = dict(config)
        if plan.learning_rate is not None:
            config["learning_rate"] = plan.learning_rate
        rate = config.get("learning_rate")
        fixed = isinstance(rate, (int, float)) or getattr(rate, "shape", None) == ()
        if rate is not None and fixed:
            config["learning_rate"] = rate = float(rate)
        return cls(
            loss=plan.loss,
            metrics=tuple(plan.metrics or ()),
            optimizer_class=optimizer_class,
            optimizer_config=config,
            learning_rate=rate if fixed else None,
            batch_size=int(plan.batch_size),
            shares=tuple(sorted(plan.shares.items())),
        )

    def make_optimizer(self):
        """Make a new optimizer; the user's own stays as it is."""
        return self.optimizer_class.from_config(dict(self.optimizer_config))

    def make_metrics(self) -> list:
        """Make new metrics, for they hold state."""
        return made_anew(self.metrics)

    def key(self, blueprint, signature) -> Hashable | None:
        """Equal for what may share a program; None where that cannot be known."""
        if blueprint.key is None:
            return None
        frozen = {name: value for name, value in self.optimizer_config.items() if name != "name"}
        if self.learning_rate is not None:
            del frozen["learning_rate"]  # a variable: programs of different rates are the same
        try:
            return (
                blueprint.key,
                signature,
                self.batch_size,
                self.shares,
                environment(),
                fingerprint_config(self.optimizer_class, frozen),
                fingerprint_value(self.loss),
                fingerprint_value(self.metrics),
            )
        except Unknown:
            return None


def share_steps(optimizer, shares) -> None:
    """Have an optimizer take only a share of each step with some variables.

    A smaller gradient would not do: Adam and its kin divide by its size. Of the step itself a share
    is a share of the learning rate, and of weight decay, for every rule that is linear in it.

    Parameters
    ----------
    optimizer : keras.optimizers.Optimizer
        Of one program alone. Changed.
    shares : list of (keras.Variable, float)
    """
    if not shares:
        return
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # mixed_float16: wrapped
    share_of = {id(variable.value): (variable.value, share) for variable, share in shares}
    apply, update_step = optimizer.apply, optimizer.update_step
    before: dict = {}

    def applied(gradients, trainable_variables=None):
        # Decay changes them before the step, the moving average looks at them after it.
        before.update((key, tf.identity(own)) for key, (own, _) in share_of.items())
        return apply(gradients, trainable_variables)

    def updated(gradient, variable, learning_rate):
        update_step(gradient, variable, learning_rate)
        if id(variable) in share_of:
            (own, share), old = share_of[id(variable)], before[id(variable)]
            own.assign(old + tf.cast(share, old.dtype) * (own - old))

    # The instance's __dict__, for Keras tracks attributes that are set the usual way.
    vars(optimizer).update(apply=applied, update_step=updated)


def apply_without_reducing(optimizer) -> None:
    """Have an optimizer skip the sum of gradients over replicas where there is only one.

    TensorFlow registers a gradient for each such sum, for ever, and that keeps the traced graph.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # mixed_float16: wrapped
    apply = optimizer.apply

    def applied(gradients, trainable_variables=None):
        if tf.distribute.has_strategy() or tf.distribute.in_cross_replica_context():
            return apply(gradients, trainable_variables)
        replica = tf.distribute.get_replica_context()
        return replica.merge_call(lambda _: apply(gradients, trainable_variables))

    vars(optimizer)["apply"] = applied
