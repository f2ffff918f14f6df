"""Fits that happen at once or not at all, and predictions that know one fit only.

A fit sets dozens of attributes, in seconds. Whoever predicts meanwhile in another thread, or after
a fit that failed halfway, would compute with the old network and the new columns.
"""

from __future__ import annotations

import functools

from skstack._one_fit import one_fit

__all__ = ["all_or_nothing", "of_one_fit"]


def _twin(estimator):
    twin = object.__new__(type(estimator))
    twin.__dict__ = vars(estimator).copy()
    return twin


def all_or_nothing(fit):
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


def of_one_fit(method):
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
