"""Models and programs that nobody uses at the moment, kept for the next who needs one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Hashable, Iterator
from typing import Any, Generic, TypeVar

from skstack._training.blueprint import Blueprint
from skstack._training.isolation import build, environment

Value = TypeVar("Value")


class Spares(Generic[Value]):
    """Values of which each has one user at a time; the oldest are dropped first."""

    def __init__(self, limit: int):
        self._limit = limit
        self._values: list[tuple[Hashable, Value]] = []  # the most recently left last
        self._lock = threading.Lock()

    def leave(self, key: Hashable, value: Value) -> None:
        """Leave a value to the next user of its key."""
        with self._lock:
            self._values.append((key, value))
            del self._values[: -self._limit]

    def take(self, key: Hashable) -> Value | None:
        """Take the most recently left value of a key, or None if there is none."""
        with self._lock:
            for i in reversed(range(len(self._values))):
                if self._values[i][0] == key:
                    return self._values.pop(i)[1]
            return None

    def values(self) -> list[Value]:
        """All values, the most recently left last."""
        with self._lock:
            return [value for _, value in self._values]

    def clear(self) -> None:
        """Drop all values."""
        with self._lock:
            self._values.clear()


_MODELS: Spares[Any] = Spares(4)


def leave_model(blueprint: Blueprint, model: Any) -> None:
    """Leave an unmodified model, which was built for a look at it, to `any_model`.

    Nothing but the values of its variables, and the seeds of its initializers, may depend on the
    seed that it was built with.
    """
    if blueprint.key is not None:
        _MODELS.leave((blueprint.key, environment()), model)


def any_model(blueprint: Blueprint) -> Any:
    """Return a new or spare model of a blueprint, with any weights."""
    model = None
    if blueprint.key is not None:
        model = _MODELS.take((blueprint.key, environment()))
    return build(blueprint) if model is None else model


@contextlib.contextmanager
def model_to_read(blueprint: Blueprint) -> Iterator[Any]:
    """Context with `any_model` of a blueprint; it must not be modified, and is left to the next."""
    model = any_model(blueprint)
    yield model
    leave_model(blueprint, model)
