"""Atomic fits, methods on a snapshot, and the state shared by all parts of one fit."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import sys
import warnings


class _FitScope:
    """State that the outermost fit shares with all fits inside it."""

    def __init__(self):
        self.warned = {}
        self.object_column_kinds = None
        self.ended = False


class FitEnded(RuntimeError):
    """The outermost fit has ended by an error while this thread still trains a part of it."""


_scope = contextvars.ContextVar("skstack_fit_scope", default=None)


@contextlib.contextmanager
def fit_scope():
    """Open the scope of a fit, unless an outer fit has opened one."""
    if _scope.get() is not None:
        yield
        return
    scope = _FitScope()
    token = _scope.set(scope)
    try:
        yield
    finally:
        scope.ended = True
        _scope.reset(token)


@contextlib.contextmanager
def trial_scope():
    """Context in which a fit is only tried: it warns of nothing, and has not warned afterwards."""
    trial, outer = _FitScope(), _scope.get()
    trial.object_column_kinds = None if outer is None else outer.object_column_kinds
    token = _scope.set(trial)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        _scope.reset(token)


def refuse_if_ended():
    """Raise FitEnded in a thread that joblib left running when another one failed, or on Ctrl-C."""
    scope = _scope.get()
    if scope is not None and scope.ended:
        raise FitEnded("The fit that this training belongs to has ended.")


def under_callers_policy(function):
    """Wrap a function so that it runs with this thread's dtype policy of Keras in any thread."""
    keras = sys.modules.get("keras")
    if keras is None:
        return function
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


def in_fit_scope(function):
    """Wrap a function so that in any thread it runs as a part of the current fit.

    It has the scope, the labels of progress and the dtype policy of the thread that wraps it.
    """
    context, function = contextvars.copy_context(), under_callers_policy(function)

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        return context.copy().run(function, *args, **kwargs)  # a context is entered once at a time

    return wrapped


class SentScope:
    """The scope and the dtype policy of the current fit, to be entered in another process."""

    def __init__(self):
        keras = sys.modules.get("keras")
        self._policy = None if keras is None else keras.config.dtype_policy()
        scope = _scope.get()
        self._object_column_kinds = None if scope is None else scope.object_column_kinds

    @contextlib.contextmanager
    def __call__(self):
        """Context in which a function runs as a part of that fit."""
        scope = _FitScope()
        scope.object_column_kinds = self._object_column_kinds
        token = _scope.set(scope)
        before = None
        if self._policy is not None:
            import keras

            before = keras.config.dtype_policy()
            keras.config.set_dtype_policy(self._policy)
        try:
            yield
        finally:
            _scope.reset(token)
            if before is not None:
                keras.config.set_dtype_policy(before)


_LIBRARIES = {"skstack", "sklearn", "imblearn", "joblib"}


def caller_level():
    """The ``stacklevel`` of a warning that points at the first caller outside of libraries."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _LIBRARIES:
            break
        frame, level = frame.f_back, level + 1
    return level


def warn_once(key, message, category=UserWarning):
    """Warn at most once per key in the outermost fit, and not at all outside a fit."""
    scope, mark = _scope.get(), object()
    # `setdefault` is atomic; a lock could not be sent to other processes.
    if scope is not None and scope.warned.setdefault(key, mark) is mark:
        warnings.warn(message, category, stacklevel=caller_level())


def suppress_warning(key):
    """Make `warn_once` silent for a key in the outermost fit."""
    scope = _scope.get()
    if scope is not None:
        scope.warned.setdefault(key, True)


def object_column_kinds(compute=None):
    """Kinds of object columns by name, from all rows of the outermost fit; {} outside a fit.

    The first call with `compute`, a function without arguments, determines them.
    """
    scope = _scope.get()
    if scope is None:
        return {}
    if compute is not None and scope.object_column_kinds is None:
        scope.object_column_kinds = {}  # while it is computed
        scope.object_column_kinds = compute()
    return scope.object_column_kinds or {}


def copy_of(estimator):
    """A shallow copy, without the constructor."""
    copied = object.__new__(type(estimator))
    copied.__dict__ = vars(estimator).copy()
    return copied


def atomic_fit(fit):
    """Run `fit` on a copy of the estimator, and take over its attributes in one step.

    If `fit` raises, or while it runs in another thread, the estimator is unchanged. Parameters set
    in the meantime are kept.
    """

    @functools.wraps(fit)
    def wrapped(self, *args, **kwargs):
        copied = copy_of(self)
        with fit_scope():
            result = fit(copied, *args, **kwargs)
        parameters = self.get_params(deep=False)
        kept = {name: value for name, value in vars(self).items() if name in parameters}
        self.__dict__ = {**vars(copied), **kept}
        return self if result is copied else result

    return wrapped


def on_snapshot(method):
    """Run a method that sets no attributes on a copy of the estimator.

    It then sees the attributes of one fit, whatever other threads fit in the meantime.
    """

    @functools.wraps(method)
    def wrapped(self, *args, **kwargs):
        return method(copy_of(self), *args, **kwargs)

    return wrapped
