"""TensorFlow's threads do not survive a fork: raise an error instead of hanging."""

from __future__ import annotations

import os

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
