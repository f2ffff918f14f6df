"""Save and load: an uncompressed zip, sealed by a SHA-256 of its bytes in the comment."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import secrets
import warnings
import zipfile
from importlib.metadata import version

from skstack._base.params import checked_path
from skstack._base.tensorflow_import import import_tensorflow
from skstack._persistence.known import Trust
from skstack._persistence.networks import check_stored
from skstack._persistence.reading import Reader
from skstack._persistence.writing import Writer, raise_full_disk

PROTOCOL = 2
_SEAL = b"skstack sha256 "  # followed by 64 digits: the comment of the zip
_SEAL_BYTES = len(_SEAL) + 64


def save(estimator, path):
    """Write an estimator to one file, without pickle.

    The estimator may be fitted or not. Parameters, networks, optimizer states, scalers, samplers
    and metadata requests are restored, and predictions are bit-identical. Pipelines,
    ColumnTransformers, searches and other meta-estimators of scikit-learn and imbalanced-learn may
    hold estimators of skstack.

    Parameters
    ----------
    estimator : estimator
        From skstack, or a meta-estimator of scikit-learn that holds one.

    path : str or os.PathLike
        The file, with any suffix, such as ``.skstack``. It is written atomically: an existing file
        is replaced once the new one is complete.

    Raises
    ------
    TypeError
        If ``estimator`` is not an estimator.

    ValueError
        If part of it could not be loaded again. The message names the part: lambdas (also in
        ``Lambda`` layers), generators, open files, callbacks of Keras that write files or hold
        functions, and some meta-estimators around networks.

    OSError
        If the file, or a temporary file of a network, cannot be written.

    See Also
    --------
    load : Read the file.

    Notes
    -----
    The file is a zip archive: ``networks/`` and ``models/`` hold networks as ``.keras``, ``parts/``
    objects of scikit-learn and imbalanced-learn, written by skops, ``arrays/`` NumPy arrays,
    ``state.json`` everything else, and ``manifest.json`` the protocol and the versions. Its comment
    holds the SHA-256 of all bytes before it.

    Caches are left out, and ``memory`` is None after loading: it names a folder of pickles on one
    machine, and unpickling runs code. Fitted samplers lose their fitted estimators (the
    neighbours of SMOTE), which hold training rows and are not needed by ``fit_resample``.

    Examples
    --------
    >>> import os, tempfile
    >>> from sklearn.datasets import load_iris
    >>> import skstack
    >>> from skstack.networks import MLP
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = skstack.KerasClassifier(MLP((8,)), epochs=5, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "iris.skstack")
    ...     skstack.save(classifier, path)
    ...     loaded = skstack.load(path)
    >>> bool((loaded.predict_proba(X) == classifier.predict_proba(X)).all())
    True
    """
    if isinstance(estimator, type) or not hasattr(estimator, "get_params"):
        raise TypeError(f"estimator={estimator!r} must be an estimator, fitted or not.")
    path = os.path.realpath(checked_path(path))
    if not os.path.isdir(folder := os.path.dirname(path)):
        raise FileNotFoundError(f"path={path!r}: there is no folder {folder!r}.")
    if os.path.isdir(path):
        raise IsADirectoryError(f"path={path!r} is a folder; `save` writes a file.")
    name = type(estimator).__name__
    writer = Writer()
    try:
        root = writer.node(estimator, name)
    except RecursionError as error:
        raise ValueError(f"This {name} cannot be saved: it is nested too deeply.") from error
    except ValueError as error:
        raise ValueError(f"This {name} cannot be saved: {error}.") from error
    local = sorted(each for each in writer.named if each.startswith("__main__.") or "<" in each)
    if local:
        warnings.warn(
            f"{', '.join(local)} cannot be imported by another process, so it cannot load this "
            "file. Move the definition to the top level of a module.",
            UserWarning,
            stacklevel=2,
        )
    content = _sealed(_zipped(root, writer.members))
    try:
        # Fail here rather than on the machine that loads the file.
        _estimator_in(content, Trust([obj or name for name, obj in writer.named.items()]))
    except Exception as error:  # Keras, skops and users' classes may raise anything
        raise_full_disk(error)
        reason = str(error).strip().rstrip(".")
        raise ValueError(
            f"This {name} cannot be saved, because it could not be loaded again: {reason}."
        ) from error
    _write(path, content)


def load(path, *, trusted=()):
    """Read an estimator from a file written by ``save``, without running code from the file.

    Parameters
    ----------
    path : str or os.PathLike
        The file.

    trusted : list of str, classes and functions, default=()
        What the file may hold in addition to skstack, Keras, scikit-learn and imbalanced-learn:
        your own recipes, layers, losses and callbacks, as objects or by their full names
        (``"my_module.wide"``). Loading does not import them: a name is found only if its module has
        been imported.

    Returns
    -------
    estimator
        As saved.

    Raises
    ------
    FileNotFoundError
        If there is no such file.

    ValueError
        If the file is truncated or altered, was not written by ``save``, was written with another
        protocol, or holds untrusted objects, which the message names. Trees of scikit-learn are
        not trusted by skops, because crafted ones could crash the process: name them if you know
        where the file comes from.

    TypeError
        If ``trusted`` is not a list of names, classes and functions.

    Warns
    -----
    UserWarning
        If the file was written with another version of scikit-learn or Keras.

    See Also
    --------
    save : Write the file.

    Notes
    -----
    The SHA-256 detects accidents, not attacks: whoever alters a file can compute it again. Against
    attacks, classes come from a fixed list and get their attributes without constructors; networks
    are loaded in Keras' safe mode, after a check that they hold no code and name only allowed
    classes and functions of Keras; parts of scikit-learn must pass skops, and their sparse matrices
    have no index out of range; arrays hold no objects; nothing takes much more memory than the size
    of the file. A loaded estimator is still only as trustworthy as its source: its predictions may
    be manipulated, and a parameter may name a file that the next ``fit`` would read.

    Examples
    --------
    >>> import os, tempfile
    >>> import skstack
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "regressor.skstack")
    ...     skstack.save(skstack.KerasRegressor(epochs=7), path)
    ...     skstack.load(path)
    KerasRegressor(epochs=7)
    """
    trust = Trust(trusted)
    name = checked_path(path)
    with open(name, "rb") as file:
        content = file.read()
    try:
        estimator, versions = _estimator_in(content, trust)
    except Exception as error:  # a crafted file may raise anything
        reason = str(error).strip().rstrip(".") or type(error).__name__
        if not isinstance(error, ValueError):
            reason = f"it is corrupted ({type(error).__name__}: {reason})"
        raise ValueError(f"{name!r} was not loaded: {reason}.") from error
    _warn_of_versions(name, versions)
    return estimator


def _estimator_in(content, trust):
    """Estimator and versions in the bytes of a file."""
    _check_seal(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        check_stored(archive, len(content), "it")
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members["manifest.json"])
    protocol = manifest["protocol"]
    if type(protocol) is not int or protocol != PROTOCOL:
        older = type(protocol) is int and 1 <= protocol < PROTOCOL
        remedy = "fit the estimator again and save it" if older else "update skstack"
        raise ValueError(
            f"its protocol is {protocol!r}, and this skstack reads {PROTOCOL}: it was written by "
            f"skstack {manifest['versions']['skstack']}; {remedy}"
        )
    root = json.loads(members["state.json"])
    import_tensorflow()
    reader = Reader(members, trust)
    reader.refuse_untrusted(root)
    estimator = reader.value(root)
    if not hasattr(estimator, "get_params"):
        raise ValueError("it holds no estimator")
    return estimator, manifest["versions"]


def _zipped(root, members):
    manifest = {"format": "skstack", "protocol": PROTOCOL, "versions": _versions()}
    texts = {
        "manifest.json": json.dumps(manifest, indent=1),
        "state.json": json.dumps(root, allow_nan=False),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {**texts, **members}.items():
            archive.writestr(zipfile.ZipInfo(name), content)
        archive.comment = _SEAL + b"0" * 64
    return buffer.getvalue()


def _sealed(content):
    """Fill in the digest of all bytes before the seal."""
    content = content[:-_SEAL_BYTES]
    return content + _SEAL + hashlib.sha256(content).hexdigest().encode()


def _check_seal(content):
    body, seal = content[:-_SEAL_BYTES], content[-_SEAL_BYTES:]
    if seal[: len(_SEAL)] == _SEAL and content[:4] == b"PK\x03\x04":
        if hashlib.sha256(body).hexdigest().encode() != seal[len(_SEAL) :]:
            raise ValueError("its checksum does not match: it was altered")
    elif not content:
        raise ValueError("it is empty")
    elif b"manifest.json" in content[:64] and content[:2] == b"PK":
        raise ValueError("it is truncated, or its end was altered")
    else:
        raise ValueError("it was not written by skstack.save, or its beginning was altered")


def _versions():
    packages = ("skstack", "scikit-learn", "keras", "numpy", "skops")
    return {package: version(package) for package in packages}


def _warn_of_versions(name, versions):
    """Warn of versions that differ in one of the first two numbers."""
    here = _versions()
    different = [
        f"{package} {versions[package]} (here: {here[package]})"
        for package in ("scikit-learn", "keras")
        if str(versions[package]).split(".")[:2] != here[package].split(".")[:2]
    ]
    if different:
        warnings.warn(
            f"{name!r} was written with {' and '.join(different)}; predictions may differ.",
            UserWarning,
            stacklevel=3,
        )


def _write(path, content):
    """Write a temporary file beside the path, and move it there."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
