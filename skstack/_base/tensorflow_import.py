"""The import of TensorFlow: how long it takes, and what it writes."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import sys
import tempfile

# Information, and how to get rid of it; errors and warnings of other kinds are shown.
_GREETING = re.compile(
    r"(I\d{4} |\d{4}-\d\d-\d\d \S+ I |WARNING: All log messages before absl|"
    r"To enable the following instructions|E\d{4} .*cuInit)"
)


@contextlib.contextmanager
def no_garbage_collection():
    """Import modules without any search for garbage among what they define.

    Python's collector walks all objects again and again while TensorFlow makes a million that stay:
    a quarter of the time of the import, and as much once more in the first fit. What was made here
    counts as old afterwards.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # else these are another's
            gc.freeze()
            gc.unfreeze()  # into the oldest generation
        if collects:
            gc.enable()


def import_tensorflow() -> None:
    """Import TensorFlow and Keras, in less time than a plain import takes."""
    if "tensorflow" not in sys.modules:
        with no_garbage_collection():
            import keras  # noqa: F401
            import tensorflow  # noqa: F401


def silence_tensorflow() -> None:
    """Import TensorFlow without its greetings on stderr.

    Call it before anything imports TensorFlow. The messages of the import are held back: those that
    inform about the machine are dropped, others are shown. ``TF_CPP_MIN_LOG_LEVEL`` is set to 3
    unless it is set already, so that TensorFlow's own log is off later, its warnings and errors
    included, also in processes that are started from this one, other than when these import
    TensorFlow. Warnings and exceptions of Python are not changed.

    Examples
    --------
    >>> import skstack
    >>> skstack.silence_tensorflow()
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)  # TensorFlow writes there before it reads its settings
        try:
            import_tensorflow()
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            lines = held.read().decode(errors="replace").splitlines(keepends=True)
            sys.stderr.write("".join(line for line in lines if not _GREETING.match(line)))
