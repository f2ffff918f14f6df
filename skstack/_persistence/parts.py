"""Objects of scikit-learn and imbalanced-learn, written and read by skops."""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import io
import json
import math
import warnings
import zipfile

import numpy as np
from scipy import sparse
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.svm import SVC, SVR, NuSVC, NuSVR, OneClassSVM

from skstack._base.sklearn import CALLBACKS_ATTRIBUTE
from skstack._model_files.container import check_members
from skstack._persistence.known import full_name, trusted_by_skops
from skstack._persistence.networks import check_archive

# Attributes that are not stored: joblib would read unchecked pickles from the folder.
EMPTIED = ("memory",)
_SVMS = (SVC, NuSVC, SVR, NuSVR, OneClassSVM)
_LARGEST_ITEM = 2**16  # bytes of one value of an array
_MOST_NODES = 10**7
# Node classes of skops that may create the types that we trust in addition to skops.
_LOADERS = {
    "sparse": ("SparseMatrixNode",),
    "numpy": ("DTypeNode", "TypeNode"),
    "other": ("ObjectNode", "TypeNode"),
}


def part_bytes(value):
    """What skops writes for an object, without `memory` and with uncompressed sparse matrices."""
    import skops.io

    content = skops.io.dumps(_without_memory(value, {}))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if not any(name.endswith(".npz") for name in archive.namelist()):
            return content
        members = {name: archive.read(name) for name in archive.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, _uncompressed(member) if name.endswith(".npz") else member)
    return buffer.getvalue()


def _uncompressed(content):
    """A sparse matrix with uncompressed arrays; compressed ones are refused on reading."""
    buffer = io.BytesIO()
    sparse.save_npz(buffer, sparse.load_npz(io.BytesIO(content)), compressed=False)
    return buffer.getvalue()


def _without_memory(value, done, check=None):
    """The object, or a copy if it, or what it holds at any depth, has a `memory`.

    ``check`` is called with every object on the way.
    """
    if isinstance(value, (str, bytes, int, float, np.generic, type, type(None))):
        return value
    if id(value) in done:
        return done[id(value)][0]
    done[id(value)] = value, value  # kept, so that no id is reused
    if isinstance(value, np.ndarray):
        if value.dtype != object:
            return value
        parts = [_without_memory(each, done, check) for each in value.ravel()]
        result = value
        if any(part is not each for part, each in zip(parts, value.ravel(), strict=True)):
            result = np.empty(value.size, dtype=object)
            result[:] = parts
            result = result.reshape(value.shape)
    elif isinstance(value, dict):
        parts = {key: _without_memory(each, done, check) for key, each in value.items()}
        result = value
        if any(parts[key] is not each for key, each in value.items()):
            result = copy.copy(value)
            result.update(parts)
    elif type(value) in (list, tuple):
        parts = [_without_memory(each, done, check) for each in value]
        same = all(part is each for part, each in zip(parts, value, strict=True))
        result = value if same else type(value)(parts)
    elif hasattr(value, "__dict__") and not callable(getattr(value, "__get__", None)):
        if check is not None:
            check(value)
        result = _emptied(value, done, check)
    else:
        result = value
    done[id(value)] = result, value
    return result


def _emptied(value, done, check):
    before = {key: each for key, each in vars(value).items() if key != CALLBACKS_ATTRIBUTE}
    state = {key: _without_memory(each, done, check) for key, each in before.items()}
    if hasattr(value, "get_params"):
        state.update({key: None for key in EMPTIED if key in state})
    changed = {key: each for key, each in state.items() if each is not before[key]}
    if not changed and len(before) == len(vars(value)):
        return value
    result = copy.copy(value)
    vars(result).pop(CALLBACKS_ATTRIBUTE, None)
    vars(result).update(changed)
    return result


# Reading -----------------------------------------------------------------------------------------


def untrusted_names(content):
    """Names in the bytes of a part that neither skops nor we trust, after a check of the part."""
    import skops.io

    check_archive(content, "a part of scikit-learn")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        _PartChecker(archive).check()
    return set(skops.io.get_untrusted_types(data=content)) - trusted_by_skops()


def check_states(content, trust):
    """Raise for attributes in a trusted part that would shadow those of their class."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        _PartChecker(archive, find=functools.partial(_find, trust=trust)).check()


def read_part(content, trust):
    """Make a part from bytes that were checked."""
    import skops.io

    untrusted = skops.io.get_untrusted_types(data=content)
    trusted = [name for name in untrusted if name in trusted_by_skops() or name in trust]
    with warnings.catch_warnings():
        # `load` warns once for the whole file.
        warnings.simplefilter("ignore", InconsistentVersionWarning)
        # A crafted file may hold a `memory`.
        value = skops.io.loads(content, trusted=trusted)
        return _without_memory(value, {}, _check_fitted)


def _find(module, name, *, trust):
    """The class of a trusted node."""
    full = f"{module}.{name}"
    if full in trust:
        return trust.find(full)
    return getattr(importlib.import_module(module), name, None)


class _PartChecker:
    """Checks the tree of nodes that skops reads.

    With `find`, which returns the class of a node once all classes are trusted, states are compared
    with classes.
    """

    def __init__(self, archive, find=None):
        self._archive = archive
        self._find = find
        self._n_nodes = {}

    def check(self):
        self._count(json.loads(self._archive.read("schema.json")))

    def _count(self, node):
        """Check a node; return the number of nodes in it, with repeated ones counted each time."""
        if isinstance(node, list):
            return sum([self._count(each) for each in node])
        if not isinstance(node, dict):
            return 0
        number = node.get("__id__")
        if isinstance(number, (list, dict)):
            raise ValueError("a part of scikit-learn has a node whose id is not a number")
        if number is not None and number in self._n_nodes:
            return self._n_nodes[number]
        if "__loader__" in node:
            self._check_node(node)
        total = 1 + sum([self._count(each) for each in node.values()])
        if total > _MOST_NODES:
            raise ValueError("a part of scikit-learn takes too long to read")
        if number is not None:
            self._n_nodes[number] = total
        return total

    def _check_node(self, node):
        loader = node["__loader__"]
        module, name = str(node["__module__"]), str(node["__class__"])
        if f"{module}.{name}" in trusted_by_skops():
            kind = module.partition(".")[0] if module.startswith("numpy") else "other"
            kind = "sparse" if module.startswith("scipy.sparse") else kind
            if loader not in _LOADERS[kind]:
                raise ValueError(f"a part of scikit-learn has a {loader} for {module}.{name}")
        if loader == "SparseMatrixNode":
            _check_sparse(self._archive.read(node["file"]))
        elif loader == "NdArrayNode" and node.get("type") == "numpy":
            read_array_header(io.BytesIO(self._archive.read(node["file"])))
        elif loader == "ObjectNode" and self._find is not None:
            content = node.get("content")
            state = content.get("content") if isinstance(content, dict) else None
            if isinstance(state, dict):
                check_state(self._find(module, name), state)


def _check_fitted(estimator):
    """Raise if compiled code of scikit-learn would read beyond the end of an array."""
    state = vars(estimator)
    if isinstance(estimator, _SVMS) and "_dual_coef_" in state:
        _check_support_vectors(estimator, state)
    if state.get("_fit_X") is not None and state["_fit_X"].shape[0] != state["n_samples_fit_"]:
        raise ValueError(f"a {type(estimator).__name__} has lost rows that it was fitted on")
    if state.get("n_samples_fit_") == 0:
        raise ValueError(f"a {type(estimator).__name__} was fitted on no rows")


def _check_support_vectors(machine, state):
    n_vectors = len(state["support_"])
    classes = isinstance(machine, _SVMS[:2])
    n_classes = len(state["classes_"]) if classes else 2
    n_pairs = n_classes * (n_classes - 1) // 2
    counts, coefficients = state["_n_support"], state["_dual_coef_"]
    consistent = (
        counts.shape == (n_classes,)
        and counts.min() >= 0 if classes else counts.shape == (2,)
    ) and (
        (counts.sum() if classes else counts[0]) == n_vectors
        and coefficients.shape == (n_classes - 1, n_vectors)
        and state["_intercept_"].shape == (n_pairs,)
        and state["_probA"].shape == state["_probB"].shape
        and len(state["_probA"]) in (0, n_pairs)
        and state["support_"].min(initial=0) >= 0
        and state["support_"].max(initial=-1) < state["shape_fit_"][0]
        and (
            state["kernel"] == "precomputed"
            or callable(state["kernel"])
            or state["support_vectors_"].shape == (n_vectors, state["n_features_in_"])
        )
    )  # fmt: skip
    if sparse.issparse(coefficients):
        consistent = consistent and coefficients.nnz == (n_classes - 1) * n_vectors
    if not consistent:
        raise ValueError(f"the arrays of a {type(machine).__name__} do not fit together")


def check_state(cls, names):
    """Raise for attributes that would shadow methods and properties of their class."""
    for name in names:
        own = inspect.getattr_static(cls, name, None)
        if hasattr(type(own), "__get__") and not isinstance(own, functools.cached_property):
            raise ValueError(f"an attribute {name!r} would shadow that of {full_name(cls)}")


def _check_sparse(content):
    """Raise for a sparse matrix that is larger than its file, or has indices out of range."""
    file = io.BytesIO(content)
    with zipfile.ZipFile(file) as archive:
        check_members(archive, len(content))
        for name in archive.namelist():
            with archive.open(name) as member:
                read_array_header(member, size=archive.getinfo(name).file_size)
    matrix = sparse.load_npz(io.BytesIO(content))
    if matrix.format in ("csr", "csc", "bsr"):
        matrix.check_format(full_check=True)
    elif matrix.format == "dia":
        if np.abs(matrix.offsets.astype(float)).max(initial=0) > max(matrix.shape):
            raise ValueError("a sparse matrix has diagonals out of range")
    elif matrix.format != "coo":  # the constructor checks its indices
        raise ValueError(f"a sparse matrix has the format {matrix.format!r}")


def read_array_header(file, size=None):
    """Shape, order and dtype of a .npy file, whose number of bytes must match its header.

    `size` is the number of bytes; None for a file in memory.
    """
    if size is None:
        size = len(file.getbuffer())
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"an array has the format version {version}")
    shape, fortran, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError("an array holds pickled objects")
    if dtype.itemsize > max(_LARGEST_ITEM, size):
        raise ValueError("an array has values that are larger than the array")
    if math.prod(shape) * dtype.itemsize != size - file.tell():
        raise ValueError("the size of an array does not match its header")
    if dtype.itemsize == 0 and math.prod(shape) > size:
        raise ValueError("an array has more values than bytes")
    return shape, fortran, dtype
