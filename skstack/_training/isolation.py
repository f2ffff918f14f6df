"""Build networks so that the same seed gives the same weights, whatever the process did before."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import random
import threading
from typing import Any

import keras

from skstack._base.atomic_fit import under_callers_policy
from skstack._training.blueprint import Blueprint

_building = threading.Lock()
_inside = threading.local()


def in_fresh_thread(function):
    """Call `function` in a short-lived thread and return its result.

    Keras numbers automatic layer names per thread: in a new thread they restart, and Keras'
    thread-local state is freed with it.
    """
    function = under_callers_policy(function)
    context = contextvars.copy_context()
    outcome, ended = {}, threading.Event()

    def work():
        _inside.generator = random.Random()
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
        # After an interrupt, perhaps in `start`, it must not go on making layers. (`join` would not
        # wait: in Python 3.11 and 3.12 a thread whose `join` was interrupted counts as stopped.)
        while thread in threading.enumerate() and not ended.wait(0.1):
            pass
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]


def build(blueprint: Blueprint, seed: int = 0, *, drawn: list | None = None) -> Any:
    """Build a new `keras.Model` whose initial weights depend on `blueprint` and `seed` alone.

    The final state of Python's generator is appended to `drawn`.
    """

    def seeded():
        _inside.generator = random.Random(int(seed))
        model = blueprint.build()
        if drawn is not None:
            drawn.append(_inside.generator.getstate())
        return model

    with preserve_rng():
        return in_fresh_thread(seeded)


def inside_build() -> bool:
    """Whether this thread is building a network."""
    return getattr(_inside, "generator", None) is not None


@contextlib.contextmanager
def preserve_rng():
    """Context in which only this thread makes layers, with a random generator of its own.

    Keras draws the seeds of layers and initializers from Python's global generator. Draws of
    another thread, such as the event loop of a server, would change a seeded network. So in a
    building thread the functions of ``random`` use a private generator; the global one is not used.
    """
    refuse_after_fork()  # in a fork the lock may be held by a thread that does not exist
    if inside_build():  # a blueprint that builds another one
        state = _inside.generator.getstate()
        try:
            yield
        finally:
            _inside.generator.setstate(state)
        return
    with _building:
        originals = {
            name: function
            for name, function in vars(random).items()
            if isinstance(getattr(function, "__self__", None), random.Random)
        }
        try:
            _inside.generator = random.Random()
            vars(random).update({name: _by_thread(name, f) for name, f in originals.items()})
            yield
        finally:
            vars(random).update(originals)
            _inside.generator = None


def _by_thread(name, function):
    """Wrap a function of ``random``: building threads draw from their own generator."""

    @functools.wraps(function)
    def called(*args, **kwargs):
        own = getattr(_inside, "generator", None)
        return (function if own is None else getattr(own, name))(*args, **kwargs)

    return called


def environment() -> tuple:
    """Global settings of Keras that affect how networks are built and what losses return."""
    return (
        keras.config.epsilon(),
        keras.config.floatx(),
        keras.config.dtype_policy().name,
        keras.config.image_data_format(),
    )


_forked = False


def _mark_forked() -> None:
    global _forked
    _forked = True


# This module is only imported together with TensorFlow.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_forked)


def refuse_after_fork() -> None:
    """Raise RuntimeError in a process that was forked after TensorFlow had been loaded."""
    if _forked:
        raise RuntimeError(
            "This process was forked after TensorFlow had started, and TensorFlow does not work in "
            "such a process. Use threads, joblib's 'loky' backend, or multiprocessing's 'spawn' "
            "start method."
        )
