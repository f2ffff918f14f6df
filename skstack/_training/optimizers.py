"""What a model is compiled with: optimizer, loss and metrics, checked, copied and hashable."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from skstack._base.keras_objects import complete_config, customs_of, from_config, remade
from skstack._base.text import described
from skstack._training.blueprint import Blueprint
from skstack._training.config import StepRules, TrainConfig
from skstack._training.fingerprint import Unknown, fingerprint_config, fingerprint_value
from skstack._training.isolation import environment, refuse_after_fork
from skstack._training.objective import known_loss, known_metric


@functools.lru_cache(maxsize=64)
def _named_optimizer(name):
    # Cached: making an optimizer makes variables, which takes 3 ms.
    optimizer = keras.optimizers.get(name)
    return type(optimizer), optimizer.get_config()


_NO_LOSSES = (keras.layers.Layer, keras.metrics.Metric, keras.optimizers.Optimizer)


def check_settings(*, optimizer, learning_rate, clipnorm, losses, metrics, callbacks) -> None:
    """Refuse settings that Keras cannot train with; callables are checked when they are called.

    Parameters
    ----------
    optimizer, learning_rate, clipnorm, metrics, callbacks : as in `TrainConfig`
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
        known = _optimizer(optimizer)
    schedule = keras.optimizers.schedules.LearningRateSchedule
    with _name_parameter(
        "learning_rate", learning_rate, "a number above 0 or a LearningRateSchedule"
    ):
        if learning_rate is not None and not isinstance(learning_rate, (Real, schedule)):
            raise TypeError("not a learning rate")
    _with_rate_and_norm(known, learning_rate, clipnorm)
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


def check_optimizer(optimizer, learning_rate, clipnorm) -> None:
    """Raise ValueError if an optimizer does not have these settings; None is not set."""
    _with_rate_and_norm(_optimizer(optimizer), learning_rate, clipnorm)


def _with_rate_and_norm(known, learning_rate, clipnorm):
    """Return the config of an optimizer with these settings; a ValueError if it lacks them."""
    cls, config = known[0], dict(known[1])
    if learning_rate is not None:
        if "learning_rate" not in config:
            raise ValueError(
                f"learning_rate={learning_rate!r}: optimizer={cls.__name__} has no learning rate "
                "of its own; expected 'auto' here, and the learning rate in the optimizer that it "
                "holds, or another optimizer."
            )
        config["learning_rate"] = learning_rate
    if clipnorm is not None:
        if "global_clipnorm" not in config:
            raise ValueError(
                f"clipnorm={clipnorm!r}: optimizer={cls.__name__} cannot clip gradients; expected "
                "None, or an optimizer with the setting global_clipnorm."
            )
        config.update(clipnorm=None, clipvalue=None, global_clipnorm=float(clipnorm))
    return config


def _is_number(rate):
    return isinstance(rate, (int, float)) or getattr(rate, "shape", None) == ()


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
    rules: StepRules = field(default_factory=StepRules)
    dense_gradients: bool = False
    customs: Mapping[str, Any] = field(default_factory=dict)  # classes in the optimizer's config

    @classmethod
    def of(cls, config: TrainConfig) -> CompileSettings:
        """Read a configuration; raise ValueError if the optimizer is invalid."""
        known = _optimizer(config.optimizer)
        settings = _with_rate_and_norm(known, config.learning_rate, config.clipnorm)
        rate = settings.get("learning_rate")
        fixed = _is_number(rate)
        inner = settings.get("inner_optimizer", {"config": settings})["config"]
        follows = _is_number(inner.get("learning_rate"))  # and not a schedule of its own
        rules = config.rules if follows else replace(config.rules, learning_rate=None)
        if rate is not None and fixed:
            settings["learning_rate"] = rate = float(rate)
        return cls(
            loss=config.loss,
            metrics=tuple(config.metrics or ()),
            optimizer_class=known[0],
            optimizer_config=settings,
            learning_rate=rate if fixed else None,
            batch_size=int(config.batch_size),
            lr_multipliers=tuple(sorted(config.lr_multipliers.items())),
            rules=rules,
            dense_gradients=config.dense_gradients,
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
        network = blueprint.key
        if network is None:
            return None
        frozen = {name: value for name, value in self.optimizer_config.items() if name != "name"}
        if self.learning_rate is not None:
            del frozen["learning_rate"]  # a variable, so that one program serves all learning rates
        try:
            return (
                network,
                signature,
                self.batch_size,
                self.lr_multipliers,
                self.rules,
                self.dense_gradients,
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
    optimizer = _inner(optimizer)
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

    _override(optimizer, apply=applied, update_step=updated)


def _coslog4(t):
    """Four half-waves, each twice as long as the one before, from 0 to 1 and back to 0."""
    return (1.0 - tf.cos(2.0 * math.pi * tf.math.log(1.0 + 15.0 * t) / math.log(2.0))) / 2.0


def _flat_cos(t):
    """1 in the first half, then half a cosine to 0."""
    return (1.0 + tf.cos(math.pi * tf.maximum(2.0 * t - 1.0, 0.0))) / 2.0


# Functions of the fraction of the steps that are done before a step, in [0, 1).
SCHEDULES = {"coslog4": _coslog4, "flat_cos": _flat_cos}


# Settings that add variables, or decide what they are.
_STATEFUL = ("amsgrad", "centered", "gradient_accumulation_steps", "momentum", "use_ema")


def state_layout(optimizer) -> tuple:
    """What the variables of an optimizer are; equal for optimizers that can exchange them."""
    inner = _inner(optimizer)
    settings = inner.get_config()
    kinds = [f"{type(each).__module__}.{type(each).__qualname__}" for each in (optimizer, inner)]
    switches = [bool(settings.get(name)) for name in _STATEFUL]
    return (*kinds, len(optimizer.variables), *switches)


class FitSteps:
    """What rules know of the steps of a fit, as a variable of a program.

    Four numbers: the first step of the fit, its number of steps (0 if schedules are constant), the
    number of steps of an epoch, and how many of this epoch are done.
    """

    def __init__(self, optimizer):
        self._optimizer = optimizer
        # Integers: Keras converts others to the dtype of the layer that reads them.
        self.variable = keras.Variable(
            [0, 0, 1, 0], trainable=False, dtype="int64", name="fit_steps"
        )

    @functools.cached_property
    def _taken(self):
        # Not `iterations`, which with accumulated gradients counts the steps between updates once.
        return next(v for v in _inner(self._optimizer).variables if v.name == "iteration")

    def state(self, optimizer_variables, n_steps: int, steps_in_epoch: int) -> np.ndarray:
        """Value of the variable for a fit that starts with these variables of the optimizer."""
        done = next(
            value
            for variable, value in zip(self._optimizer.variables, optimizer_variables, strict=True)
            if variable is self._taken
        )
        return np.array([done, n_steps, steps_in_epoch, 0], dtype=np.int64)

    def factor(self, schedule: str | None):
        """Factor of a schedule at the present step, inside a trace."""
        if schedule is None:
            return tf.constant(1.0)
        first, n_steps, *_ = tf.unstack(self.variable.value)
        done = tf.cast(self._taken.value, tf.int64) - first
        share = tf.cast(done, tf.float32) / tf.cast(tf.maximum(n_steps, 1), tf.float32)
        t = tf.clip_by_value(share, 0.0, 1.0)
        return tf.where(n_steps > 0, SCHEDULES[schedule](t), 1.0)


def follow_rules(optimizer, rules: StepRules, variables: Mapping, steps: FitSteps) -> None:
    """Have an optimizer follow rules for its steps.

    Must be called before the optimizer is built. It then leaves weight decay, which has factors of
    its own, to this function.

    Parameters
    ----------
    optimizer : keras.optimizers.Optimizer
        Used by one program only. Modified.
    rules : StepRules
    variables : dict of str to keras.Variable
        Those of the network, by path.
    steps : FitSteps
    """
    optimizer = _inner(optimizer)
    if type(optimizer).__name__ == "MultiOptimizer":
        raise ValueError(
            f"optimizer={described(optimizer)}: those in a MultiOptimizer cannot follow the "
            "schedules and factors of this network; expected a single optimizer."
        )
    factors = {
        id(variables[path].value): (rate, decay)
        for path, rate, decay in rules.factors
        if path in variables
    }
    weight_decay, update_step = optimizer.weight_decay, optimizer.update_step
    optimizer.exclude_from_weight_decay(var_list=list(variables.values()))
    shared = _OncePerStep(optimizer)

    def updated(gradient, variable, learning_rate):
        rate_factor, decay_factor = factors.get(id(variable), (1.0, 1.0))
        factor = shared.get("rate", lambda: steps.factor(rules.learning_rate))
        rate = tf.cast(learning_rate, tf.float32) * factor
        if weight_decay and decay_factor:
            factor = shared.get("decay", lambda: steps.factor(rules.weight_decay))
            decay = weight_decay * decay_factor * rate * factor
            variable.assign(variable * tf.cast(1.0 - decay, variable.dtype))
        update_step(gradient, variable, rate * rate_factor)

    _override(optimizer, update_step=updated)


_LONGEST_AVERAGE = 20  # steps


def average_weights(optimizer, variables: list, steps: FitSteps) -> list:
    """Have an optimizer end each epoch with a moving average of the weights over its last steps.

    The average spans about half of an epoch, at most 20 steps; an epoch of two steps has none. It
    removes the noise of large steps, which may then be taken until the end.

    Parameters
    ----------
    optimizer : keras.optimizers.Optimizer
        Used by one program only. Modified.
    variables : list of keras.Variable
        Weights that are trained.
    steps : FitSteps

    Returns
    -------
    averages : list of keras.Variable
        They carry nothing from one epoch to the next.
    """
    apply, ops = optimizer.apply, tf.raw_ops
    # In float16 small steps of an average would be lost.
    dtypes = ["float64" if v.dtype == "float64" else "float32" for v in variables]
    averages = [
        keras.Variable(tf.zeros(v.shape, dtype), trainable=False, dtype=dtype)
        for v, dtype in zip(variables, dtypes, strict=True)
    ]

    def applied(gradients, trainable_variables=None):
        apply(gradients, trainable_variables)
        # Without those that callbacks froze.
        trained = set(map(id, variables if trainable_variables is None else trainable_variables))
        first, n_steps, per_epoch, done = tf.unstack(steps.variable.value)
        ends = done + 1 >= per_epoch

        def shares_in(dtype):
            """Shares of the present weights, and of earlier ones, in the average."""
            length = tf.clip_by_value(tf.cast(per_epoch, dtype) / 2.0, 1.0, _LONGEST_AVERAGE)
            share = tf.where(done > 0, 1.0 / length, tf.ones_like(length))
            return share, 1.0 - share

        shares = {dtype: shares_in(dtype) for dtype in set(dtypes)}
        for variable, average in zip(variables, averages, strict=True):
            if id(variable) not in trained:
                continue
            own, mean = variable.value, average.value
            new, rest = shares[average.dtype]
            value = ops.ReadVariableOp(resource=own.handle, dtype=own.dtype)
            old = ops.ReadVariableOp(resource=mean.handle, dtype=mean.dtype)
            # 0 * NaN = 0: an earlier fit may have diverged.
            shared = ops.Mul(x=tf.cast(value, mean.dtype), y=new)
            moved = ops.AddV2(x=shared, y=ops.MulNoNan(x=old, y=rest))
            ops.AssignVariableOp(resource=mean.handle, value=moved)
            kept = ops.SelectV2(condition=ends, t=tf.cast(moved, own.dtype), e=value)
            ops.AssignVariableOp(resource=own.handle, value=kept)
        done = tf.where(ends, tf.zeros_like(done), done + 1)
        steps.variable.assign([first, n_steps, per_epoch, done])

    _override(optimizer, apply=applied)
    return averages


def _inner(optimizer):
    return getattr(optimizer, "inner_optimizer", optimizer)  # mixed_float16: wrapped


def _override(optimizer, **methods):
    """Replace methods of one optimizer."""
    # Through its __dict__: Keras tracks attributes that are set the usual way.
    vars(optimizer).update(methods)


def _dense(gradients):
    return [None if each is None else tf.convert_to_tensor(each) for each in gradients]


class _OncePerStep:
    """Tensors that the updates of the variables in one step share, inside a trace."""

    def __init__(self, optimizer):
        apply = optimizer.apply
        self._tensors: dict[Hashable, Any] = {}

        def applied(gradients, trainable_variables=None):
            self._tensors.clear()
            return apply(gradients, trainable_variables)

        _override(optimizer, apply=applied)

    def get(self, key: Hashable, make: Callable[[], Any]):
        """The tensors of a key, made at its first use in a step."""
        if key not in self._tensors:
            self._tensors[key] = make()
        return self._tensors[key]


def update_in_few_operations(optimizer, trainable_variables: list) -> None:
    """Have Adam and AdamW take steps of fewer operations, which are traced in less time.

    Keras computes the bias corrections and the size of a step once for each variable. The results
    are the same, to the last bit.

    Parameters
    ----------
    optimizer : keras.optimizers.Optimizer
        Used by one program only. Modified.
    trainable_variables : list of keras.Variable
        Those that it will be built with.
    """
    optimizer = _inner(optimizer)
    plain = type(optimizer) in (keras.optimizers.Adam, keras.optimizers.AdamW)
    if not plain or optimizer.amsgrad:
        return
    keras_step, shared = optimizer.update_step, _OncePerStep(optimizer)
    ops = tf.raw_ops
    moments: dict[int, list] = {}

    def moments_of(variable):
        if not moments:
            means, squares = (
                [each.value for each in optimizer.variables if each.name.endswith(f"_{name}")]
                for name in ("momentum", "velocity")
            )
            weights = [each.value for each in trainable_variables]
            triples = zip(weights, means, squares, strict=True)
            moments.update((id(own), pair) for own, *pair in triples)
        return moments[id(variable)]

    def corrections(dtype):
        step = tf.cast(optimizer.iterations + 1, dtype)
        betas = optimizer.beta_1, optimizer.beta_2
        return [1 - tf.pow(tf.constant(beta, dtype), step) for beta in betas]

    def step_size(learning_rate, dtype):
        first, second = shared.get(("corrections", dtype), lambda: corrections(dtype))
        return tf.cast(learning_rate, dtype) * tf.sqrt(second) / first

    def constants(dtype):
        values = 1 - optimizer.beta_1, 1 - optimizer.beta_2, optimizer.epsilon
        return [tf.constant(value, dtype) for value in values]

    def updated(gradient, variable, learning_rate):
        # Slices; in float64 Keras rounds the betas to float32.
        if not isinstance(gradient, tf.Tensor) or variable.dtype == tf.float64:
            keras_step(gradient, variable, learning_rate)
            return
        dtype = variable.dtype
        gradient = tf.cast(gradient, dtype)
        key = id(learning_rate), dtype  # kept with it, because of its id
        alpha, _ = shared.get(key, lambda: (step_size(learning_rate, dtype), learning_rate))
        *rests, epsilon = shared.get(("constants", dtype), lambda: constants(dtype))
        targets, moved = (gradient, ops.Square(x=gradient)), []
        for moment, target, rest in zip(moments_of(variable), targets, rests, strict=True):
            old = ops.ReadVariableOp(resource=moment.handle, dtype=dtype)
            new = ops.AddV2(x=old, y=ops.Mul(x=ops.Sub(x=target, y=old), y=rest))
            ops.AssignVariableOp(resource=moment.handle, value=new)
            moved.append(new)
        mean, square = moved
        scale = ops.AddV2(x=ops.Sqrt(x=square), y=epsilon)
        step = ops.RealDiv(x=ops.Mul(x=mean, y=alpha), y=scale)
        ops.AssignSubVariableOp(resource=variable.handle, value=step)

    _override(optimizer, update_step=updated)


def apply_without_reducing(optimizer) -> None:
    """Have an optimizer skip the sum of gradients over replicas where there is only one.

    TensorFlow registers a gradient for each such sum permanently, which keeps the traced graph.
    """
    optimizer = _inner(optimizer)
    apply = optimizer.apply

    def applied(gradients, trainable_variables=None):
        if tf.distribute.has_strategy() or tf.distribute.in_cross_replica_context():
            return apply(gradients, trainable_variables)
        replica = tf.distribute.get_replica_context()
        return replica.merge_call(lambda _: apply(gradients, trainable_variables))

    _override(optimizer, apply=applied)


def apply_dense(optimizer) -> None:
    """Have an optimizer take dense gradients.

    The gradient of an embedding holds one slice for each row of a batch. Keras squares the slices
    and not their sum, so that Adam would not train a row of weight 2 as it trains two rows.
    """
    optimizer = _inner(optimizer)
    apply = optimizer.apply

    def applied(gradients, trainable_variables=None):
        return apply(_dense(gradients), trainable_variables)

    _override(optimizer, apply=applied)


def clip_across_dtypes(optimizer, trainable_variables: list) -> None:
    """Have an optimizer clip the norm of gradients of several dtypes, which Keras cannot.

    Recipes have them where a dtype policy is not float32: they scale columns, and compute outputs,
    in float32.

    Parameters
    ----------
    optimizer : keras.optimizers.Optimizer
        Used by one program only. Modified.
    trainable_variables : list of keras.Variable
    """
    optimizer = _inner(optimizer)
    norm = getattr(optimizer, "global_clipnorm", None)
    dtypes = {variable.dtype for variable in trainable_variables}
    # Keras clips sums of accumulated gradients, which only it knows.
    if norm is None or len(dtypes) == 1 or optimizer.gradient_accumulation_steps:
        return
    norm *= optimizer.loss_scale_factor or 1.0  # by which Keras divides before it clips
    common = tf.float64 if "float64" in dtypes else tf.float32
    apply, optimizer.global_clipnorm = optimizer.apply, None

    def applied(gradients, trainable_variables=None):
        dense = _dense(gradients)
        norms = [tf.norm(tf.cast(each, common)) for each in dense if each is not None]
        scale = norm / tf.maximum(tf.norm(tf.stack(norms)), norm)
        clipped = [None if each is None else each * tf.cast(scale, each.dtype) for each in dense]
        return apply(clipped, trainable_variables)

    _override(optimizer, apply=applied)
