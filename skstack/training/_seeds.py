"""Building networks so that the same seed gives the same weights, whatever ran before."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import random
import threading

import keras
import numpy as np

from skstack.training._forks import refuse_after_fork

_building = threading.Lock()
_inside = threading.local()


def under_callers_policy(function):
    """Give a function that keeps, in whichever thread it runs, the dtype policy of this one."""
    policy = keras.config.dtype_policy()

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            return function(*args, **kwargs)
        finally:
            keras.config.set_dtype_policy(before)

    return wrapped


def in_fresh_thread(function):
    """Call `function` in a short-lived thread and return what it returns.

    Keras numbers automatic layer names by thread: in a new one they start from the beginning, and
    what Keras keeps by thread goes away with it.
    """
    function = under_callers_policy(function)
    context = contextvars.copy_context()
    outcome, ended = {}, threading.Event()

    def work():
        _inside.active = True
        try:
            outcome["value"] = function()
        except BaseException as error:
            outcome["error"] = error
        finally:
            ended.set()

    thread = threading.Thread(target=context.run, args=(work,), name="skstack-build")
    try:
        thread.start()
        ended.wait()
    finally:
        # Interrupted, perhaps in `start`: until it ends, the global seed is not the user's. (`join`
        # would not wait: in Python 3.11 and 3.12 a thread whose `join` was interrupted counts as
        # stopped.)
        while thread in threading.enumerate() and not ended.wait(0.1):
            pass
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]


def build(blueprint, seed: int = 0, *, drawn: list | None = None):
    """Build a new `keras.Model` whose initial weights depend on `blueprint` and `seed` alone.

    The state in which Python's generator is left is appended to `drawn`.
    """

    def seeded():
        random.seed(int(seed))
        model = blueprint.build()
        if drawn is not None:
            drawn.append(random.getstate())
        return model

    with undisturbed():
        return in_fresh_thread(seeded)


def inside_build() -> bool:
    """Whether this thread is building a network."""
    return getattr(_inside, "active", False)


@contextlib.contextmanager
def undisturbed():
    """While open, no other thread of ours makes layers, and Python's random numbers are restored.

    Keras draws the seeds of layers and initialisers from Python's generator, of which there is one
    for all threads: what another thread draws meanwhile would be missing in a seeded network.
    """
    refuse_after_fork()  # the lock may have been held by a thread that is no more
    mine = inside_build()  # a blueprint that builds another
    with contextlib.nullcontext() if mine else _building:
        state = random.getstate()
        _inside.active = True
        try:
            yield
        finally:
            _inside.active = mine
            random.setstate(state)


def named_variables(model) -> dict:
    """All variables of a model by a unique path, seed states included, in the model's order."""
    named = {}
    for variable in model.variables:
        path, count = variable.path, 1
        while path in named:
            count += 1
            path = f"{variable.path}#{count}"
        named[path] = variable
    return named


def values(variables) -> list[np.ndarray]:
    """Copies of Keras variables as NumPy arrays."""
    return [variable.numpy().copy() for variable in variables]


def environment() -> tuple:
    """What Keras' settings put into every network that is built."""
    return (
        keras.config.floatx(),
        keras.config.dtype_policy().name,
        keras.config.image_data_format(),
    )
