"""Tables on disk: rows that are read when they are needed."""

from __future__ import annotations

import math
import os
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import narwhals.stable.v2 as nw
import numpy as np

from skstack._base.atomic_fit import caller_level

# Tables of more rows than a window are trained on in an order of blocks, and of rows within windows
# of blocks. All that is learned of single columns, but for moments and categories, is then learned
# from a sample of rows. Both hold for tables in memory, too.
BLOCK_ROWS = 2**16
BLOCKS_IN_WINDOW = 16
SAMPLE_ROWS = 2**17
# What only warns looks at rows on disk of at most so many bytes, in runs of at most so many rows or
# bytes.
_GLANCED_BYTES, _RUN_ROWS, _RUN_BYTES = 2**27, 64, 2**16
# A table that is not larger is read whole.
_WHOLE_BYTES = 2**26
_CHUNK_NUMBERS = 2**24
# Rows are read in spans of at most so many bytes, together with those between them, up to so many
# bytes: a read of its own takes longer.
_SPAN_BYTES, _GAP_BYTES = 2**22, 2**14


def window_rows() -> int:
    """Number of rows up to which a table is shuffled whole."""
    return BLOCK_ROWS * BLOCKS_IN_WINDOW


def chunk_rows(width: int) -> int:
    """Number of rows that are read at once where all are; depends on the number of columns only."""
    return max(min(BLOCK_ROWS, _CHUNK_NUMBERS // max(width, 1)), 1)


def sample_of_rows(n_rows: int) -> np.ndarray | None:
    """Rows, evenly spread, that stand for all rows of a large table; None for a smaller one."""
    if n_rows <= window_rows():
        return None
    return np.arange(SAMPLE_ROWS, dtype=np.int64) * n_rows // SAMPLE_ROWS


def runs_of_rows(n_rows: int, row_bytes: int = 0) -> np.ndarray | None:
    """As `sample_of_rows`, in runs of neighbours, which are read from a file much faster.

    Of wide rows there are fewer.
    """
    most = SAMPLE_ROWS if n_rows > window_rows() else n_rows
    most = max(min(most, _GLANCED_BYTES // max(row_bytes, 1)), 1)
    if n_rows <= most:
        return None
    length = min(max(_RUN_BYTES // max(row_bytes, 1), 1), _RUN_ROWS, most)
    n_runs = most // length
    starts = np.arange(n_runs, dtype=np.int64) * n_rows // n_runs
    return (starts[:, None] + np.arange(length)).ravel()


class Reader(Protocol):
    """Where the rows of a table come from; safe to share between threads."""

    n_rows: int
    row_bytes: int

    def read(self, rows: np.ndarray | slice) -> Any:
        """Some rows, by a slice or ascending numbers, as an ndarray or a DataFrame."""
        ...


class FileState:
    """Size and time of change of a file, to notice that it changes while it is read."""

    def __init__(self, path: Any):
        self.path = os.path.abspath(os.fspath(path))
        status = os.stat(self.path)
        self.size, self.changed = status.st_size, status.st_mtime_ns

    def opened(self) -> Any:
        """The file, opened for reading."""
        try:
            return open(self.path, "rb", buffering=0)
        except OSError as error:
            raise ValueError(f"{self.path} can no longer be read: {error.strerror}.") from error

    def check(self) -> None:
        """Raise a ValueError if the file is another one, or gone."""
        with self.opened() as file:
            status = os.fstat(file.fileno())
        if (status.st_size, status.st_mtime_ns) != (self.size, self.changed):
            sizes = f"it had {self.size:,} bytes and now has {status.st_size:,}"
            how = "it was written to" if status.st_size == self.size else sizes
            raise ValueError(
                f"{self.path} changed while it was in use: {how}. Open it again, and leave it as "
                "it is until the call returns."
            )


class BinaryReader:
    """Rows of a C-ordered array in a file, read without mapping it into memory."""

    def __init__(self, path: Any, offset: int, dtype: np.dtype, shape: tuple[int, ...]):
        self._file = FileState(path)
        self.path = self._file.path
        self._offset, self._dtype, self._shape = offset, dtype, shape
        self.n_rows = shape[0]
        self.row_bytes = dtype.itemsize * int(np.prod(shape[1:]))

    def read(self, rows: np.ndarray | slice) -> np.ndarray:
        """See `Reader`."""
        with self._file.opened() as file:
            if isinstance(rows, slice):
                values = self._span(file, rows.start, rows.stop)
            else:
                values = self._some(file, rows)
        self._file.check()
        return values

    def _some(self, file, rows):
        values = np.empty((len(rows), *self._shape[1:]), self._dtype)
        if not len(rows):
            return values
        steps = np.diff(rows, prepend=-1)
        cuts = np.diff(rows // max(_SPAN_BYTES // self.row_bytes, 1), prepend=-1) != 0
        starts = np.flatnonzero(cuts | (steps > _GAP_BYTES // self.row_bytes + 1))
        for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
            first = int(rows[start])
            span = self._span(file, first, int(rows[stop - 1]) + 1)
            gapless = (steps[start + 1 : stop] == 1).all()
            values[start:stop] = span if gapless else span[rows[start:stop] - first]
        return values

    def _span(self, file, start, stop):
        values = np.empty((stop - start, *self._shape[1:]), self._dtype)
        view, place = values.reshape(-1).view(np.uint8), self._offset + start * self.row_bytes
        done = 0
        while done < len(view):
            n = os.preadv(file.fileno(), [view[done:]], place + done)
            if not n:
                self._file.check()
                raise ValueError(f"{self._file.path} ends before row {stop}; it was cut off.")
            done += n
        return values


class ArrayReader:
    """Rows of an array, such as a memory map without a file of its own."""

    def __init__(self, array: np.ndarray):
        self._array = array
        self.n_rows = len(array)
        self.row_bytes = array.dtype.itemsize * int(np.prod(array.shape[1:]))

    def read(self, rows: np.ndarray | slice) -> np.ndarray:
        """See `Reader`."""
        return np.array(self._array[rows], subok=False)


class FrameReader:
    """Rows of a DataFrame of pandas."""

    def __init__(self, frame: Any):
        self._frame = frame
        self.n_rows = len(frame)
        self.row_bytes = 8 * frame.shape[1]

    def read(self, rows: np.ndarray | slice) -> Any:
        """See `Reader`."""
        return self._frame.iloc[rows].reset_index(drop=True)


class _Mapped:
    """What a function makes of the rows of another reader, row by row."""

    def __init__(self, reader: Reader, function: Callable):
        self._reader, self._function = reader, function
        self.n_rows, self.row_bytes = reader.n_rows, reader.row_bytes
        self.path = getattr(reader, "path", None)

    def read(self, rows):
        """See `Reader`."""
        return self._function(self._reader.read(rows))


class _Joined:
    """Tables of the same rows, joined by a function."""

    def __init__(self, tables: Sequence[DiskTable], join: Callable):
        self._tables, self._join = tables, join
        self.n_rows, self.row_bytes = len(tables[0]), 0

    def read(self, rows):
        """See `Reader`."""
        return self._join([table[rows].in_memory() for table in self._tables])


class DiskTable:
    """A table whose rows are read from disk when they are needed.

    Made by :func:`~skstack.preprocessing.open_table`. Selecting rows or columns reads nothing:
    ``table[rows]``, with a slice, numbers or a mask, and ``table[["age", "job"]]`` are tables, too.
    ``table["y"]`` reads one column, and ``numpy.asarray(table)`` or :meth:`in_memory` all of it.

    Attributes
    ----------
    shape : tuple of int
        Number of rows and columns.

    columns : list of str
        Names of the columns; no such attribute if they have none.
    """

    ndim = 2

    def __init__(self, reader: Reader, names: Sequence[Any] | None, width: int, rows: Any = None):
        self._reader = reader
        self._names = None if names is None else list(names)
        self._rows = slice(0, reader.n_rows) if rows is None else rows
        self._width = width

    @property
    def columns(self) -> list:
        """Names of the columns."""
        if self._names is None:
            raise AttributeError("The columns of this table have no names.")
        return list(self._names)

    @property
    def path(self) -> str | None:
        """The ``.npy`` file that holds the rows, None if they come from another source."""
        return getattr(self._reader, "path", None)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return len(self), self._width

    @property
    def nbytes(self) -> int:
        """About the memory that all rows would take, in bytes."""
        return len(self) * self._reader.row_bytes

    def __len__(self) -> int:
        rows = self._rows
        return rows.stop - rows.start if isinstance(rows, slice) else len(rows)

    def __repr__(self) -> str:
        named = "" if self._names is None else f", columns={self._names[:6]!r}"
        more = ", ..." if self._names is not None and len(self._names) > 6 else ""
        return f"DiskTable({len(self)} rows, {self._width} columns{named}{more})"

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple):
            rows, columns = key if len(key) == 2 else (None, None)
            if columns is Ellipsis or _is_all(columns):
                return self[rows]
            if _is_all(rows) and not np.isscalar(columns):
                return self.take_columns(np.arange(self._width)[columns])
            raise TypeError(f"A DiskTable has rows and columns; it cannot be indexed by {key!r}.")
        if isinstance(key, str):
            return self._column(key)
        if isinstance(key, list) and key and all(isinstance(name, str) for name in key):
            return self.take_columns([self._index_of(name) for name in key])
        return type(self)(self._reader, self._names, self._width, self._numbers(key))

    def _index_of(self, name):
        if self._names is None or name not in self._names:
            raise KeyError(f"{name!r} is not a column of this table; its columns are {self._names}")
        return self._names.index(name)

    def _column(self, name):
        """One column in memory."""
        table = self.take_columns([self._index_of(name)]).in_memory()
        return table.iloc[:, 0] if hasattr(table, "iloc") else table[:, 0]

    def _numbers(self, key):
        """Row numbers of the reader: a slice if they follow each other, else an array."""
        n = len(self)
        if isinstance(key, slice):
            start, stop, step = key.indices(n)
            if step == 1 and isinstance(self._rows, slice):
                start, stop = start + self._rows.start, max(stop, start) + self._rows.start
                return slice(start, stop)
            key = np.arange(start, stop, step)
        key = np.asarray(key)
        if key.ndim != 1 or (key.dtype.kind not in "biu" and key.size):
            raise TypeError(
                "Rows of a DiskTable are selected by a slice, row numbers or a mask; got an array "
                f"of shape {key.shape} and dtype {key.dtype}."
            )
        if key.dtype.kind == "b":
            if len(key) != n:
                raise IndexError(f"A mask of {len(key)} rows for a table of {n} rows.")
            key = np.flatnonzero(key)
        key = key.astype(np.int64, copy=False)
        least, most = key.min(initial=0), key.max(initial=-1)
        if least < -n or most >= n:
            row = most if most >= n else least
            raise IndexError(f"Row {int(row)} is not in this table of {n} rows.")
        if least < 0:
            key = np.where(key < 0, key + n, key)
        if not isinstance(self._rows, slice):
            return self._rows[key]
        small = np.int32 if self._rows.stop < 2**31 else np.int64
        return (key + self._rows.start if self._rows.start else key).astype(small, copy=False)

    def take_columns(self, columns: Any) -> DiskTable:
        """Some columns, by position, as a table; nothing is read."""
        columns = [int(column) for column in columns]
        names = None if self._names is None else [self._names[column] for column in columns]
        reader: Any = self._reader
        if hasattr(reader, "take_columns"):
            reader = reader.take_columns(columns)
        else:
            reader = _Mapped(self._reader, _Columns(columns))
            share = self._reader.row_bytes * len(columns) // max(self._width, 1)
            reader.row_bytes = max(share, 1)
        return type(self)(reader, names, len(columns), self._rows)

    def map(self, function: Callable) -> DiskTable:
        """The table of ``function(rows)``, which must treat each row by itself."""
        return self._of(_Mapped(self._reader, function), function(self.head()), self._rows)

    @classmethod
    def joined(cls, tables: Sequence[Any], join: Callable) -> DiskTable:
        """What ``join`` makes of rows of several tables, arrays or DataFrames, side by side."""
        tables = [as_disk_table(table) for table in tables]
        first = join([table.head() for table in tables])
        return cls._of(_Joined(tables, join), first, None)

    @classmethod
    def _of(cls, reader, first, rows):
        """A table of a reader whose first rows are known."""
        framed = hasattr(first, "iloc")
        reader.row_bytes = sum(d.itemsize for d in first.dtypes) if framed else first[:1].nbytes
        names = list(first.columns) if framed else None
        return cls(reader, names, first.shape[1], rows)

    def stored(self) -> Any:
        """All rows: a DataFrame in memory, or an array, which may be in a file."""
        return joined_parts((part for _, part in self.chunks()), len(self), new_array)

    def in_memory(self) -> Any:
        """All rows, as an ndarray, or as a DataFrame if there are column names."""
        rows = self._rows
        if isinstance(rows, slice) or rows.size < 2 or (np.diff(rows) > 0).all():
            return self._reader.read(rows)
        # Rows are read in the order of the file, each once.
        wanted, place = np.unique(rows, return_inverse=True)
        values = self._reader.read(wanted)
        return values.iloc[place] if hasattr(values, "iloc") else values[place]

    def chunks(self) -> Iterator[tuple[slice, Any]]:
        """Slices of rows, and these rows in memory."""
        n_rows = chunk_rows(self._width)
        for start in range(0, len(self), n_rows):
            part = slice(start, min(start + n_rows, len(self)))
            yield part, self[part].in_memory()

    def head(self, n: int = 5) -> Any:
        """The first rows in memory; five of them tell the kinds of columns."""
        return self[:n].in_memory()

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.in_memory(), dtype=dtype)


def _is_all(key):
    return isinstance(key, slice) and key == slice(None)


class _Columns:
    """Selects columns by position."""

    def __init__(self, columns: Sequence[int]):
        self._columns = list(columns)

    def __call__(self, table):
        if hasattr(table, "iloc"):
            return table.iloc[:, self._columns]
        return table[:, self._columns]


class DiskArray:
    """What a function makes of the rows of a table: one input of a network.

    All arrays of one table have one ``shared``, which reads rows once for all of them.
    """

    def __init__(self, shared: SharedRows, name: str, shape: tuple[int, ...], dtype: Any):
        self._shared, self._name = shared, name
        self.shape, self.dtype = (len(shared.table), *shape), np.dtype(dtype)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Rows in memory, by a slice or by numbers."""
        return self._shared.read(rows)[self._name]

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self[:], dtype=dtype)


class SharedRows:
    """Arrays by name that a function makes of rows of a table; keeps the last that were read."""

    def __init__(self, table: DiskTable, function: Callable):
        self.table, self._function = table, function
        self._local = threading.local()

    def __getstate__(self):
        return {"table": self.table, "_function": self._function}

    def __setstate__(self, state):
        self.__init__(state["table"], state["_function"])

    def read(self, rows: Any) -> dict:
        """Arrays of rows; the same object `rows` is read once."""
        if isinstance(rows, slice):
            return self._function(self.table[rows].in_memory())
        if getattr(self._local, "rows", None) is not rows:
            self._local.__dict__.clear()  # frees the last ones before others are read
            self._local.arrays = self._function(self.table[rows].in_memory())
            self._local.rows = rows
        return self._local.arrays


def as_disk_table(table: Any) -> DiskTable:
    """An array or a DataFrame of pandas as a table whose rows are read."""
    if isinstance(table, DiskTable):
        return table
    if hasattr(table, "iloc"):
        return DiskTable(FrameReader(table), list(table.columns), table.shape[1])
    return DiskTable(ArrayReader(table), None, table.shape[1])


def on_disk(X: Any) -> Any:
    """A memory map, or a part of one, as a table on disk; other X unchanged.

    A table that fits into memory easily is read.
    """
    if isinstance(X, np.memmap) and X.ndim == 2:
        X = DiskTable(_reader_of(X), None, X.shape[1])
    if not isinstance(X, DiskTable):
        return X
    return X.in_memory() if X.nbytes <= _WHOLE_BYTES or not X.shape[0] else X


def new_array(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array to be filled: in memory, or if it is large in a file that is removed with it."""
    n_bytes = np.dtype(dtype).itemsize * math.prod(shape)
    if n_bytes <= _WHOLE_BYTES:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(prefix="skstack-") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, n_bytes)  # a map of a full disk would crash
        except OSError as error:
            raise OSError(
                error.errno,
                f"{os.strerror(error.errno or 0)}: {n_bytes:,} bytes for features of "
                f"{shape[0]:,} rows do not fit into {tempfile.gettempdir()}",
            ) from error
        return np.memmap(file, dtype, "r+", shape=shape)


def announce_memory(X: Any, part: str) -> None:
    """Say, before training, what memory a part takes that needs all rows of a table on disk.

    Raises a ValueError if that is more than the machine has.
    """
    if not isinstance(X, DiskTable):
        return
    says = (
        f"{part} needs all rows in memory, about {X.nbytes:,} bytes of X, which is on disk. "
        "Network estimators of skstack, without a sampler, read rows when they need them."
    )
    if X.nbytes > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        raise ValueError(f"{says} This machine has less memory.")
    warnings.warn(says, UserWarning, stacklevel=caller_level())


def spread_rows(X: Any, most: int) -> np.ndarray:
    """At most so many row numbers, evenly spread."""
    n_rows = len(X)
    return np.unique(np.arange(most) * n_rows // most) if n_rows > most else np.arange(n_rows)


def in_memory(X: Any) -> Any:
    """The rows of a table on disk; other X unchanged."""
    return X.in_memory() if isinstance(X, DiskTable) else X


def joined_parts(parts: Iterable[Any], n_rows: int, new: Callable = np.empty) -> Any:
    """All rows of parts that follow each other: a DataFrame, or an array made by ``new``."""
    result, start, frames = None, 0, []
    for part in parts:
        if not isinstance(part, np.ndarray):  # for categories that pass through
            frames.append(part)
            continue
        if result is None:
            result = new((n_rows, *part.shape[1:]), part.dtype)
        result[start : start + len(part)] = part
        start += len(part)
    if not frames:
        return result
    if not hasattr(frames[0], "iloc"):
        return nw.concat([nw.from_native(frame) for frame in frames]).to_native()
    return joined_frames(frames).reset_index(drop=True)


def joined_frames(frames: Sequence[Any]) -> Any:
    """The rows of pandas DataFrames; columns of categories hold the categories of all."""
    import pandas as pd
    from pandas.api.types import union_categoricals

    joined = pd.concat(frames)
    for name in frames[0].select_dtypes("category").columns:
        if joined[name].dtype != "category":
            parts = [frame[name] for frame in frames]
            try:
                joined[name] = union_categoricals(parts, sort_categories=True)
            except (TypeError, AttributeError):  # ordered, of several dtypes, or none in a frame
                joined[name] = joined[name].astype("category")
    return joined


def _reader_of(array):
    """A reader of a memory map: of its file, unless that holds other values or another order."""
    root = array
    while isinstance(root.base, np.memmap):
        root = root.base
    private = getattr(root, "mode", "c") == "c" or root.filename is None
    if private or not array.flags.c_contiguous or root.dtype != array.dtype:
        return ArrayReader(array)
    first = array.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    if root.mode != "r":
        root.flush()
    try:
        reader = BinaryReader(root.filename, root.offset + first, array.dtype, array.shape)
    except FileNotFoundError:  # the map still holds its rows
        return ArrayReader(array)
    rows = np.unique([0, len(array) - 1]) if len(array) else slice(0, 0)
    same = reader.read(rows).tobytes() == array[rows].tobytes()
    return reader if same else ArrayReader(array)  # else another file has its name now
