"""Which part is being fitted: in lines of progress, and in errors."""

from __future__ import annotations

import contextlib
import sys
import time
from contextvars import ContextVar

_PARTS: ContextVar[tuple] = ContextVar("parts", default=())


def report(line: str) -> None:
    """Print a line with the labels; one write, so that lines of threads do not mix."""
    label = f"[{', '.join(_PARTS.get())}] " if _PARTS.get() else ""
    sys.stdout.write(f"{label}{line}\n")
    sys.stdout.flush()


@contextlib.contextmanager
def fitting(label: str, n: int | None = None, *, verbose=0):
    """Context in which `report` adds a label; at its end, with `verbose`, its time is reported.

    `n` is the number of rows.
    """
    token = _PARTS.set((*_PARTS.get(), label))
    start = time.perf_counter()
    try:
        yield
        if verbose:
            rows = "" if n is None else f" on {n} rows"
            report(f"fitted{rows} in {time.perf_counter() - start:.1f} s")
    finally:
        _PARTS.reset(token)


@contextlib.contextmanager
def errors_named(label: str):
    """Context in which errors name the part that raised them."""
    try:
        yield
    except Exception as error:
        if label in str(error):
            raise
        if len(error.args) == 1 and error.args[0] == str(error):
            error.args = (f"{label}: {error}",)
        else:  # the message is made of several values
            error.add_note(f"Raised by: {label}")
        raise
