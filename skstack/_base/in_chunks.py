"""Predictions for tables on disk, in chunks of rows, in memory or into a file."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os

import numpy as np

from skstack._base.disk_table import DiskTable, chunk_rows, joined_parts
from skstack._base.docstrings import substitute
from skstack._base.tables import n_rows

_warned = contextvars.ContextVar("skstack_warned_in_call", default=None)


def once_per_call(owner, warn):
    """Call `warn`, which returns whether it warned, until it has warned in this chunked call."""
    warned = _warned.get()
    if warned is None:
        warn()
    elif id(owner) not in warned and warn():
        warned.add(id(owner))


_OUT = """
out : str, path-like or ndarray, default=None
    Where to write the result: the path of a ``.npy`` file to make, which is returned as a
    ``numpy.memmap``, or an array of its shape.
"""


def in_chunks(method):
    """Compute a method for a table on disk in chunks of rows, never all in memory.

    The result for a row must not depend on the other rows. ``out`` of the method is handled here,
    and described: a line ``{out}`` of its docstring is replaced.
    """

    @substitute(out=_OUT)
    @functools.wraps(method)
    def wrapped(self, X, *, out=None, **kwargs):
        # Other keyword arguments may hold a value for each row.
        on_disk = isinstance(X, (np.memmap, DiskTable)) and X.ndim >= 2 and not kwargs
        if out is None and not (on_disk and len(X) > chunk_rows(X.shape[1])):
            return method(self, X, **kwargs)
        if out is not None and not isinstance(out, np.ndarray):
            _refuse_file_of(X, npy_path(out))
        token = _warned.set(set())
        try:
            chunks = _chunks(X) if on_disk else [X]
            parts = (method(self, chunk, **kwargs) for chunk in chunks)
            if out is None:
                return joined_parts(parts, len(X))
            labels = getattr(self, "classes_", None)
            return written((_storable(part, labels) for part in parts), n_rows(X), out)
        finally:
            _warned.reset(token)

    return wrapped


def _refuse_file_of(X, path):
    """Raise ValueError if ``path`` is the file of X, which the result would replace."""
    source = None
    if isinstance(X, np.memmap):
        source = X.filename
    elif isinstance(X, DiskTable):
        source = X.path
    with contextlib.suppress(FileNotFoundError):
        if source is not None and os.path.samefile(source, path):
            raise ValueError(f"out={str(path)!r} is the file that X is read from.")


def _chunks(X):
    n_at_once = chunk_rows(X.shape[1])
    for start in range(0, len(X), n_at_once):
        chunk = X[start : start + n_at_once]
        yield chunk.in_memory() if isinstance(chunk, DiskTable) else np.asarray(chunk)


def written(parts, n_rows, out):
    """Write arrays of rows that follow each other into ``out``: a path, or an array of the shape.

    Returns a memory map of the file, or the array. A file that is not complete is removed.
    """
    if isinstance(out, np.ndarray):
        if not out.flags.writeable:
            raise ValueError("out is an array that is read-only.")
        start = 0
        for part in parts:
            if out.shape != (n_rows, *part.shape[1:]) or not np.can_cast(part.dtype, out.dtype):
                raise ValueError(
                    f"out has shape {out.shape} and dtype {out.dtype}; expected "
                    f"{(n_rows, *part.shape[1:])} and {part.dtype}."
                )
            out[start : start + len(part)] = part
            start += len(part)
        return out
    path = npy_path(out)
    unfinished = f"{path}.part"
    try:
        with open(unfinished, "wb") as file:
            for number, part in enumerate(parts):
                if not number:
                    header = {"descr": part.dtype.str, "fortran_order": False}
                    header["shape"] = (n_rows, *part.shape[1:])
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(np.ascontiguousarray(part).data.cast("B") if part.size else b"")
        os.replace(unfinished, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.remove(unfinished)
        if isinstance(error, OSError):
            says = f"out={str(path)!r} cannot be written: {error.strerror}"
            raise type(error)(error.errno, says) from error
        raise
    return np.load(path, mmap_mode="r+")


def npy_path(out):
    """The path that ``out`` means."""
    try:
        path = os.fspath(out)
    except TypeError as error:
        raise TypeError(
            f"out={out!r} must be the path of a .npy file to write, or an array to fill."
        ) from error
    if not str(path).endswith(".npy"):
        raise ValueError(f"out={str(path)!r} must end in .npy.")
    return path


def _storable(part, labels):
    """A part of a result; labels that are objects as strings."""
    if isinstance(part, np.ndarray) and part.dtype != object:
        return part
    if isinstance(part, np.ndarray) and all(isinstance(label, str) for label in labels):
        return part.astype(np.asarray(labels, dtype=str).dtype)
    raise TypeError("out is for arrays of numbers or strings, but the result holds other objects.")
