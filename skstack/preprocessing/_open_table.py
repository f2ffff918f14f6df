"""Tables in files of NumPy, Arrow and Parquet."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import weakref
from pathlib import Path

import numpy as np

from skstack._base.disk_table import BLOCK_ROWS, BinaryReader, DiskTable, FileState
from skstack._base.params import checked_path

_ACCEPTED = "a .npy, .feather, .arrow or .parquet file, or a folder of .parquet files"
_FEW_ROWS = 1_000


def open_table(path, columns=None):
    """Open a table on disk, without reading its rows.

    ``fit``, ``predict`` and ``transform`` of this library then read rows when they need them, so
    that a table may be larger than memory. The same holds for a ``numpy.memmap``.

    Parameters
    ----------
    path : str or path-like
        A ``.npy`` file with two dimensions; a Feather file (``.feather`` or ``.arrow``); a
        ``.parquet`` file; or a folder of Parquet files, in the order of their names.

    columns : list of str or list of int, default=None
        Columns to keep, in this order: names, or positions in a ``.npy`` file. None keeps all.

    Returns
    -------
    DiskTable
        With ``shape``, and with ``columns`` if they have names. ``table[rows]``, for a slice, row
        numbers or a mask, and ``table[["age", "job"]]`` are tables, too, and read nothing;
        ``table["y"]`` reads one column, ``numpy.asarray(table)`` everything.

    Raises
    ------
    FileNotFoundError
        If there is no such file.

    ValueError
        If the file is of another kind, is cut off or has no such column, if the files of a folder
        have several schemas, or, later, if a file changes while it is in use.

    TypeError
        If ``columns`` is not a list of names or positions.

    ImportError
        If pyarrow is not installed, which all but ``.npy`` files need.

    Notes
    -----
    Networks read rows in random order, for which Parquet is not made: at the first fit such a table
    is unpacked into a temporary file, as large as its columns would be in memory. Categories
    and numbers are those that pandas reads: dictionaries, strings and booleans are categorical, as
    in a DataFrame.

    Examples
    --------
    >>> import numpy as np
    >>> from skstack.preprocessing import open_table
    >>> path = getfixture("tmp_path") / "sensors.npy"
    >>> np.save(path, np.arange(12.0).reshape(4, 3))
    >>> table = open_table(path, columns=[0, 2])
    >>> table
    DiskTable(4 rows, 2 columns)
    >>> np.asarray(table[1:3]).tolist()
    [[3.0, 5.0], [6.0, 8.0]]
    """
    path = Path(checked_path(path))
    if path.is_dir():
        # As in Spark and pyarrow, names that begin like this are no data.
        names = sorted(file.name for file in path.glob("[!._]*.parquet") if file.is_file())
        files = [path / name for name in names]
        if not files:
            raise ValueError(f"path={str(path)!r} is a folder without .parquet files.")
        table = _table_of(_ParquetReader(files))
    elif not path.exists():
        raise FileNotFoundError(f"path={str(path)!r} does not exist; expected {_ACCEPTED}.")
    elif path.suffix == ".npy":
        table = _npy_table(path)
    elif path.suffix in (".feather", ".arrow"):
        table = _table_of(_ArrowReader(path))
    elif path.suffix == ".parquet":
        table = _table_of(_ParquetReader([path]))
    else:
        raise ValueError(f"path={str(path)!r} is not supported; expected {_ACCEPTED}.")
    return table if columns is None else table.take_columns(_positions(table, columns))


def _positions(table, columns):
    """Positions of columns by name, or by position in a table without names."""
    known = getattr(table, "columns", list(range(table.shape[1])))
    listed = np.iterable(columns) and not isinstance(columns, str)
    kinds = (str, int, np.integer)
    if not listed or not all(isinstance(c, kinds) and not isinstance(c, bool) for c in columns):
        raise TypeError(f"columns={columns!r} must be a list of names or of positions.")
    if len(columns) != len(set(columns)) or not len(columns):
        raise ValueError(f"columns={columns!r} must name at least one column, and none twice.")
    missing = [column for column in columns if column not in known]
    if missing:
        raise ValueError(f"columns holds {missing}, which are not among {known}.")
    return [known.index(column) for column in columns]


def _npy_table(path):
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        raise ValueError(f"path={str(path)!r} cannot be read, or is cut off: {error}") from error
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise ValueError(
            f"path={str(path)!r} holds an array of shape {array.shape} and dtype {array.dtype}; "
            "expected numbers of shape (n_rows, n_columns). numpy.load reads other arrays."
        )
    if not array.flags.c_contiguous:
        raise ValueError(
            f"path={str(path)!r} is stored by columns (Fortran order), so that its rows cannot be "
            "read. Store numpy.ascontiguousarray(...) instead."
        )
    reader = BinaryReader(path, array.offset, array.dtype, array.shape)
    return DiskTable(reader, None, array.shape[1])


def _table_of(reader):
    return DiskTable(reader, reader.names, len(reader.names))


def _pyarrow():
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            'open_table reads this file with pyarrow. Install it: pip install "skstack[arrow]"'
        ) from error
    return pyarrow


@contextlib.contextmanager
def _readable(path):
    """Errors of pyarrow, and of the file system, that name the file."""
    arrow = _pyarrow()
    try:
        yield arrow
    except arrow.ArrowInvalid as error:
        raise ValueError(f"{str(path)!r} cannot be read, or is cut off: {error}") from error
    except OSError as error:
        raise ValueError(f"{str(path)!r} can no longer be read: {error}") from error


class _ColumnReader:
    """What the readers of columnar files share: names, and the size of a row."""

    def _describe(self, schema, n_rows):
        index = [str(name) for name in (schema.pandas_metadata or {}).get("index_columns", [])]
        self.names = [name for name in schema.names if name not in index]
        if not self.names:
            raise ValueError(f"{self._path!r} has no columns.")
        repeated = sorted({name for name in schema.names if schema.names.count(name) > 1})
        if repeated:
            raise ValueError(f"{self._path!r} has several columns called {repeated}.")
        self.n_rows = n_rows
        self._bytes = [_width(schema.field(name).type) for name in self.names]
        self.row_bytes = sum(self._bytes)

    def take_columns(self, columns):
        """A reader of some columns, by position."""
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other.names = [self.names[column] for column in columns]
        other._bytes = [self._bytes[column] for column in columns]
        other.row_bytes = sum(other._bytes)
        return other


def _width(kind):
    try:
        return max(kind.bit_width // 8, 1)
    except ValueError:  # strings, lists, dictionaries
        return 4 if hasattr(kind, "index_type") else 16


class _ArrowReader(_ColumnReader):
    """Rows of an Arrow file, batch by batch."""

    def __init__(self, path):
        self._path = str(path)
        self._file = FileState(path)
        with _readable(path) as arrow, arrow.OSFile(self._path) as source:
            schema = arrow.ipc.open_file(source).schema
            one = arrow.ipc.IpcReadOptions(included_fields=[0] if schema.names else None)
            reader = arrow.ipc.open_file(source, options=one)
            counts = [reader.get_batch(i).num_rows for i in range(reader.num_record_batches)]
        self._ends = np.cumsum(counts, dtype=np.int64)
        self._positions = {name: place for place, name in enumerate(schema.names)}
        self._describe(schema, sum(counts))

    def read(self, rows):
        """See `Reader`: a DataFrame."""
        if isinstance(rows, slice):
            bounds = np.array([rows.start, rows.stop])
        else:
            bounds = np.array([rows[0], rows[-1] + 1]) if len(rows) else np.zeros(2, int)
        fields = sorted(self._positions[name] for name in self.names)
        parts = []
        with _readable(self._path) as arrow, arrow.OSFile(self._path) as source:
            options = arrow.ipc.IpcReadOptions(included_fields=fields)
            reader = arrow.ipc.open_file(source, options=options)
            first, last = np.searchsorted(self._ends, bounds - [0, 1], side="right")
            for number in range(first, min(last, len(self._ends) - 1) + 1):
                start = int(self._ends[number - 1]) if number else 0
                stop = int(self._ends[number])
                if isinstance(rows, slice):
                    batch = reader.get_batch(number)
                    here = max(rows.start, start)
                    parts.append(batch.slice(here - start, max(min(rows.stop, stop) - here, 0)))
                    continue
                some = rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)]
                if len(some):
                    batch = _without_views(reader.get_batch(number))
                    parts.append(batch.take(arrow.array(some - start)))
            table = arrow.Table.from_batches(parts, schema=None if parts else reader.schema)
        self._file.check()
        return _frame(table.select(self.names))


def _frame(table):
    """A table of Arrow as a DataFrame; a column of missing decimals, too, holds numbers.

    Integers with gaps stay integers: as floats, large ones would lose digits.
    """
    from pandas.api.types import pandas_dtype

    arrow = _pyarrow()
    with_gaps = {}
    for place, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True)):
        if arrow.types.is_decimal(column.type) and column.null_count == len(column):
            table = table.set_column(place, name, column.cast(arrow.float64()))
        elif arrow.types.is_integer(column.type) and column.null_count:
            with_gaps[name] = column
    frame = table.to_pandas(ignore_metadata=True)
    for name, column in with_gaps.items():
        kind = str(column.type).replace("uint", "UInt").replace("int", "Int")
        frame[name] = column.to_pandas(types_mapper=lambda _, kind=kind: pandas_dtype(kind))
    return frame


def _without_views(batch):
    """A batch with plain strings in place of the views of Polars, of which Arrow takes no rows."""
    arrow = _pyarrow()
    plain = {arrow.string_view(): arrow.large_string(), arrow.binary_view(): arrow.large_binary()}
    schema = batch.schema
    for place, field in enumerate(schema):
        if field.type in plain:
            schema = schema.set(place, field.with_type(plain[field.type]))
    return batch if schema is batch.schema else batch.cast(schema)


class _ParquetReader(_ColumnReader):
    """Rows of Parquet files: the first ones and whole columns directly, others unpacked."""

    def __init__(self, files):
        parquet = _pyarrow().parquet

        self._path = str(files[0])
        self._files = [FileState(path) for path in files]
        schema, n_rows = None, 0
        for path in files:
            with _readable(path):
                file = parquet.ParquetFile(path)
                own, count = file.schema_arrow, file.metadata.num_rows
                file.close()
            if schema is None:
                schema = own
            elif own != schema:
                raise ValueError(
                    f"{str(path)!r} has another schema than {self._path!r}: "
                    f"{_difference(schema, own)}."
                )
            n_rows += count
        self._schema, self._unpacked = schema, _Unpacked(files, schema)
        self._describe(schema, n_rows)

    def read(self, rows):
        """See `Reader`: a DataFrame."""
        whole = isinstance(rows, slice) and rows.start == 0
        if whole and (rows.stop == self.n_rows or rows.stop <= _FEW_ROWS):
            frame = self._first(rows.stop)
        else:
            frame = self._unpacked.reader(self._check, self.names).read(rows)
        self._check()
        return frame

    def _check(self):
        for file in self._files:
            file.check()

    def _first(self, n_rows):
        arrow = _pyarrow()

        parts, left = [], n_rows
        for batch in _batches([file.path for file in self._files], self.names):
            parts.append(batch.slice(0, left))
            left -= len(parts[-1])
            if left <= 0:
                break
        table = arrow.Table.from_batches(parts) if parts else self._schema.empty_table()
        return _frame(table.select(self.names))


def _difference(schema, other):
    """How two schemas differ, in a few words."""
    missing = [name for name in schema.names if name not in other.names]
    added = [name for name in other.names if name not in schema.names]
    changed = [
        f"{name!r} is {other.field(name).type} in place of {schema.field(name).type}"
        for name in schema.names
        if name in other.names and schema.field(name).type != other.field(name).type
    ]
    parts = [f"it lacks {missing}"] * bool(missing) + [f"it also has {added}"] * bool(added)
    return "; ".join(parts + changed) or "its columns are in another order"


def _batches(files, names, n_rows=BLOCK_ROWS):
    """Record batches of Parquet files, in order."""
    parquet = _pyarrow().parquet

    for path in files:
        with _readable(path):
            file = parquet.ParquetFile(path)
            try:
                yield from file.iter_batches(batch_size=n_rows, columns=names)
            finally:
                file.close()


class _Dictionaries:
    """The categories of Parquet files, for a file of Arrow, in which all batches share them."""

    def __init__(self, files, schema):
        arrow = _pyarrow()
        self.schema, self._known = schema, {}
        for place, field in enumerate(schema):
            if arrow.types.is_dictionary(field.type):
                kind = arrow.dictionary(arrow.int32(), field.type.value_type, field.type.ordered)
                self.schema = self.schema.set(place, field.with_type(kind))
                self._known[field.name] = arrow.array([], field.type.value_type)
        for batch in _batches(files, list(self._known)) if self._known else ():
            for name, known in self._known.items():
                both = arrow.concat_arrays([known, batch.column(name).dictionary])
                self._known[name] = both.unique().drop_null()

    def shared(self, batch):
        """The batch, with these categories."""
        arrow = _pyarrow()
        for name, known in self._known.items():
            column, field = batch.column(name), self.schema.field(name)
            codes = arrow.compute.index_in(column.dictionary, known).take(column.indices)
            column = arrow.DictionaryArray.from_arrays(codes, known, ordered=field.type.ordered)
            batch = batch.set_column(self.schema.names.index(name), field, column)
        return batch


class _Unpacked:
    """A temporary Arrow file with the rows of Parquet files, made when first needed."""

    def __init__(self, files, schema):
        self._files, self._schema = [str(path) for path in files], schema
        self._reader = None
        self._lock = threading.Lock()

    def __getstate__(self):
        return self._files, self._schema

    def __setstate__(self, state):
        self.__init__(*state)

    def reader(self, check, names):
        """A reader of columns of the file; ``check`` raises if the Parquet files changed."""
        with self._lock:
            if self._reader is None:
                check()
                path = self._write()
                self._reader = _ArrowReader(path)
                weakref.finalize(self, _remove, path)
        return self._reader.take_columns([self._reader.names.index(name) for name in names])

    def _write(self):
        arrow = _pyarrow()
        handle, path = tempfile.mkstemp(prefix="skstack-", suffix=".arrow")
        os.close(handle)
        try:
            categories = _Dictionaries(self._files, self._schema)
            with (
                arrow.OSFile(path, "wb") as sink,
                arrow.ipc.new_file(sink, categories.schema) as writer,
            ):
                for batch in _batches(self._files, None):
                    writer.write_batch(categories.shared(batch.cast(self._schema)))
        except BaseException as error:
            _remove(path)
            if isinstance(error, OSError):
                raise OSError(
                    error.errno,
                    f"{self._files[0]!r} could not be unpacked into {tempfile.gettempdir()}: "
                    f"{error}. Set TMPDIR to a folder with more room.",
                ) from error
            raise
        return path


def _remove(path):
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)
