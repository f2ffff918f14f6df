"""Checks of the containers of a saved model, zip and HDF5, before anything is read from them."""

from __future__ import annotations

import io
import math
import stat
import zipfile

import numpy as np

from skstack._model_files.config import check_words

# Largest growth of a file when it is read: compressed files are allowed, zip bombs are not.
_GROWTH = 8
_MARGIN = 2**20
_WEIGHTS = "model.weights.h5"
_FILTERS = ("deflate", "fletcher32", "lzf", "shuffle")
_FILTER_NAMES = {1: "deflate", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
_LARGEST_NUMBER = 32  # bytes of a complex number of extended precision


def check_members(archive, size):
    """Raise for members of a zip of `size` bytes with unsafe names, duplicates, and zip bombs."""
    members = archive.infolist()
    for member in members:
        name = member.filename
        parts = name.replace("\\", "/").split("/")
        if name.startswith(("/", "\\")) or ".." in parts or ":" in name or "\\" in name:
            raise ValueError(f"its member {name!r} points outside of it")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise ValueError(f"its member {name!r} is a link")
        if member.flag_bits & 1:
            raise ValueError(f"its member {name!r} is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"its member {name!r} has a compression that is not allowed")
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise ValueError("it holds two members with one name")
    total = sum(member.file_size for member in members)
    if total > _GROWTH * size + _MARGIN:
        raise ValueError(f"its {size} bytes expand to {total} bytes, which is too much")


def check_vocabularies(archive):
    """Raise for vocabularies that are much larger in NumPy."""
    for name in archive.namelist():
        if name.startswith("assets/") and name.endswith("vocabulary.txt"):
            check_words(archive.read(name).decode("utf-8", "replace").splitlines())


def read_weights(archive):
    """The HDF5 file of a .keras file, opened for h5py."""
    if _WEIGHTS not in archive.namelist():
        raise ValueError(f"it holds no {_WEIGHTS}")
    return io.BytesIO(archive.read(_WEIGHTS))


def check_hdf5(file, size):
    """Raise for an HDF5 file of `size` bytes that refers to others or is larger when it is read.

    Returns the bytes of all data sets.
    """
    import h5py

    stored = declared = 0
    seen, groups, names = set(), [file], 0
    while groups:
        group = groups.pop()
        _check_attributes(group, size)
        names += len(group)
        if 8 * names > size:
            raise ValueError("its HDF5 part has more names than fit into it")
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(
                    f"its HDF5 part has the link {name!r}, which may point to another file"
                )
            node = group[name]
            if not isinstance(node, (h5py.Group, h5py.Dataset)):
                raise ValueError(f"its HDF5 part holds {name!r}, neither a group nor a data set")
            address = h5py.h5o.get_info(node.id).addr
            if address in seen:
                raise ValueError(f"its HDF5 part holds {name!r} under two names")
            seen.add(address)
            if isinstance(node, h5py.Group):
                groups.append(node)
                continue
            _check_attributes(node, size)
            sizes = _bytes_of(node, name)
            stored, declared = stored + sizes[0], declared + sizes[1]
            if stored > size or declared > _GROWTH * stored + _MARGIN:
                raise ValueError(f"its HDF5 data set {name!r} is larger than its stored bytes")
    return declared


def _bytes_of(dataset, name):
    """Bytes of a data set in the file, and when it is read."""
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"its HDF5 data set {name!r} reads other files")
    dtype = dataset.dtype
    if dtype.kind not in "biufcV" or dtype.names or dtype.itemsize > _LARGEST_NUMBER:
        raise ValueError(f"its HDF5 data set {name!r} holds {dtype} instead of numbers")
    if dataset.shape is None:
        raise ValueError(f"its HDF5 data set {name!r} is empty")
    plist = dataset.id.get_create_plist()
    filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    if any(_FILTER_NAMES.get(each) not in _FILTERS for each in filters):
        raise ValueError(f"its HDF5 data set {name!r} needs a filter that is not allowed")
    stored = dataset.id.get_storage_size()
    chunk = math.prod(dataset.chunks or (0,)) * dtype.itemsize
    return stored, max(math.prod(dataset.shape) * dtype.itemsize, chunk)


def _check_attributes(node, size):
    """Raise for attributes that are neither text nor numbers, and duplicate weight names."""
    import h5py

    names = []
    for attribute in node.attrs:
        handle = node.attrs.get_id(attribute)
        kind, shape = handle.get_type(), handle.shape
        text = isinstance(kind, h5py.h5t.TypeStringID)
        number = isinstance(kind, (h5py.h5t.TypeIntegerID, h5py.h5t.TypeFloatID,
                                   h5py.h5t.TypeEnumID))  # fmt: skip
        if not (text or number):
            raise ValueError(f"its HDF5 attribute {attribute!r} is neither text nor a number")
        if math.prod(shape or ()) * kind.get_size() > size:
            raise ValueError(f"its HDF5 attribute {attribute!r} is larger than the file")
        if text and attribute.startswith(("weight_names", "layer_names")):
            names += [str(name, "utf-8") if isinstance(name, bytes) else str(name)
                      for name in np.ravel(node.attrs[attribute])]  # fmt: skip
    parts = [part for name in names for part in name.split("/")]
    if len(set(names)) < len(names) or any(part in ("", ".", "..") for part in parts):
        raise ValueError("its HDF5 part names one weight twice")


def hdf5_text(file, name):
    """A text that Keras 2 stored as an attribute, or None."""
    if name not in file.attrs:
        return None
    if file.attrs.get_id(name).shape != ():
        raise ValueError(f"its HDF5 attribute {name!r} is not text")
    text = file.attrs[name]
    return text.decode("utf-8") if isinstance(text, bytes) else str(text)
