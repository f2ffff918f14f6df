"""What a program is compiled with: optimizer, loss and metrics, copied and comparable."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from dataclasses import dataclass

import keras

from skstack.training._fingerprint import Unknown, fingerprint_config, fingerprint_value
from skstack.training._plan import Plan
from skstack.training._seeds import environment


@functools.lru_cache(maxsize=64)
def _named_optimizer(name):
    # Making one costs 3 ms, for it makes variables.
    optimizer = keras.optimizers.get(name)
    return type(optimizer), optimizer.get_config()


@dataclass(frozen=True)
class Ingredients:
    """The parts of a plan that are frozen into a program."""

    loss: object
    metrics: tuple
    optimizer_class: type
    optimizer_config: dict
    learning_rate: (
        float | None
    )  # a variable of the program; None where a schedule is frozen into it
    batch_size: int

    @classmethod
    def of(cls, plan: Plan) -> Ingredients:
        """Read a plan.

        Raises
        ------
        ValueError
            If the optimizer is not one.
        """
        if isinstance(plan.optimizer, str):
            optimizer_class, config = _named_optimizer(plan.optimizer)
        else:
            optimizer = keras.optimizers.get(plan.optimizer)
            optimizer_class, config = type(optimizer), optimizer.get_config()
        config = dict(config)
        if plan.learning_rate is not None:
            config["learning_rate"] = plan.learning_rate
        rate = config.get("learning_rate")
        fixed = isinstance(rate, (int, float)) or getattr(rate, "shape", None) == ()
        if fixed:
            config["learning_rate"] = rate = float(rate)
        return cls(
            loss=plan.loss,
            metrics=tuple(plan.metrics or ()),
            optimizer_class=optimizer_class,
            optimizer_config=config,
            learning_rate=rate if fixed else None,
            batch_size=int(plan.batch_size),
        )

    def make_optimizer(self):
        """Make a new optimizer; the user's own stays as it is."""
        return self.optimizer_class.from_config(dict(self.optimizer_config))

    def make_metrics(self) -> list:
        """Make new metrics, for they hold state."""
        return [
            type(m).from_config(m.get_config()) if isinstance(m, keras.metrics.Metric) else m
            for m in self.metrics
        ]

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
                environment(),
                fingerprint_config(self.optimizer_class, frozen),
                fingerprint_value(self.loss),
                fingerprint_value(self.metrics),
            )
        except Unknown:
            return None
