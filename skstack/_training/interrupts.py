"""Ctrl-C: whether training ends with the weights so far, or the interrupt goes on."""

from __future__ import annotations

import math
import sys
import threading
import time
from types import FrameType

from skstack._base.sklearn import WRAPPER_MODULES

_SECONDS_OF_INSISTING = 2.0
_last_time = -math.inf  # of the last interrupt

# Packages that call `fit` for many candidates or parts: the next one would follow.
_CALLERS = {
    "concurrent",
    "dask_ml",
    "distributed",
    "hyperopt",
    "imblearn",
    "joblib",
    "mlxtend",
    "multiprocessing",
    "optuna",
    "ray",
    "sklearn",
    "skopt",
    "skstack",
}
_PARTS = "skstack._base.parallel"  # calls bags, of which the next one would follow, inside `fit`
# Decorators and mixins, which stand between a user and the `fit` of an estimator.
_WRAPPERS = (*WRAPPER_MODULES, "skstack._base.")


def ends_training(n_epochs: int) -> bool:
    """Whether an interrupt after `n_epochs` epochs ends training like early stopping.

    It does in the `fit` of a network estimator that the user has called: anywhere else, the caller
    would continue with a network that was hardly trained. The second interrupt within 2 seconds
    never does. Call it once, where KeyboardInterrupt is caught.
    """
    global _last_time
    before, _last_time = _last_time, time.monotonic()
    insists = _last_time - before < _SECONDS_OF_INSISTING
    in_main = threading.current_thread() is threading.main_thread()
    return n_epochs > 0 and not insists and in_main and _user_called_fit()


def _user_called_fit():
    """Whether the `fit` of one network runs that no other estimator or search called."""
    frame: FrameType | None = sys._getframe(2)
    fits = False
    while frame is not None:
        module = frame.f_globals.get("__name__") or ""
        if module == _PARTS:
            return False
        if not fits:
            fits = module.startswith("skstack._estimators.") and frame.f_code.co_name == "fit"
        elif not module.startswith(_WRAPPERS) and module.partition(".")[0] in _CALLERS:
            return False
        frame = frame.f_back
    return fits
