"""What all parts of one fit share: what was warned of, and which columns hold words."""

# Fits that happen at once or not at all, and predictions that know one fit only.

from __future__ import annotations

import contextlib
import contextvars
import functools
import warnings

_fit = contextvars.ContextVar("the outermost fit", default=None)


class _Fit:
    def __init__(self):
        self.told = {}
        self.kinds = {}
        self.settled = False


@contextlib.contextmanager
def one_fit():
    """While open, all fits inside belong to the outermost one."""
    if _fit.get() is not None:
        yield
        return
    token = _fit.set(_Fit())
    try:
        yield
    finally:
        _fit.reset(token)


def shared_by_threads(function):
    """Give a function that belongs to the fit of this thread in whichever thread it runs."""
    fit = _fit.get()

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        token = _fit.set(fit)
        try:
            return function(*args, **kwargs)
        finally:
            _fit.reset(token)

    return wrapped


def warn_once(key, message):
    """Warn at most once in the outermost fit; outside a fit not at all.

    Parameters
    ----------
    key : hashable
        What the warning is about.

    message : str
    """
    fit, mark = _fit.get(), object()
    # `setdefault` is atomic, and a lock could not go to other processes.
    if fit is not None and fit.told.setdefault(key, mark) is mark:
        warnings.warn(message, UserWarning, stacklevel=2)


def hush(key):
    """Let nothing more be said about something in the outermost fit."""
    fit = _fit.get()
    if fit is not None:
        fit.told.setdefault(key, True)


def kinds_of_fit(look=None):
    """Kinds of the columns of the outermost fit, as all its rows tell them.

    Parameters
    ----------
    look : callable, default=None
        Without arguments, gives a dict of column name to kind. Asked by the outermost fit only, and
        once.

    Returns
    -------
    dict
        Empty outside a fit.
    """
    fit = _fit.get()
    if fit is None:
        return {}
    if look is not None and not fit.settled:
        fit.settled, fit.kinds = True, look()
    return fit.kinds


def _twin(estimator):
    twin = object.__new__(type(estimator))
    twin.__dict__ = vars(estimator).copy()
    return twin


def atomic_fit(fit):
    """Fit a twin; what it has learned becomes the estimator's own in one step.

    Parameters
    ----------
    fit : method
        May return the estimator, or anything else.

    Returns
    -------
    method
        Where it raises, the estimator is what it was.
    """

    @functools.wraps(fit)
    def wrapped(self, *args, **kwargs):
        twin = _twin(self)
        with one_fit():
            result = fit(twin, *args, **kwargs)
        parameters = self.get_params(deep=False)
        kept = {name: value for name, value in vars(self).items() if name in parameters}
        self.__dict__ = {**vars(twin), **kept}
        return self if result is twin else result

    return wrapped


def on_snapshot(method):
    """Run a method on the estimator as it is now, whatever another thread fits meanwhile.

    Parameters
    ----------
    method : method
        Sets no attributes.

    Returns
    -------
    method
    """

    @functools.wraps(method)
    def wrapped(self, *args, **kwargs):
        return method(_twin(self), *args, **kwargs)

    return wrapped
