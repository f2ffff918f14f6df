"""The file: a zip without compression whose last line seals all bytes before it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import secrets
import warnings
import zipfile

from skstack._persistence.known import Trust
from skstack._persistence.networks import check_stored
from skstack._persistence.reading import Reader
from skstack._persistence.writing import Writer, raise_full_disk

PROTOCOL = 2
_SEAL = b"skstack sha256 "  # and 64 digits: the comment of the zip
_SEAL_BYTES = len(_SEAL) + 64


def save(estimator, path):
    """Write an estimator to one file, without pickle.

    Fitted or not: parameters, networks, the state of optimizers, scalers, samplers and metadata
    requests come back, and predictions are the same bits. Pipelines, ColumnTransformers, searches
    and other meta-estimators of scikit-learn and imbalanced-learn may hold estimators of skstack.

    Parameters
    ----------
    estimator : estimator
        Of skstack, or one of scikit-learn's that holds such.

    path : str or os.PathLike
        The file, of any suffix; here ``.skstack`` is used. It appears whole or not at all: a file
        that was there stays as it is until the new one is complete.

    Raises
    ------
    TypeError
        If ``estimator`` is no estimator.

    ValueError
        If part of it could not be loaded again. The message names the part: lambdas (also in
        ``Lambda`` layers), generators, open files, callbacks of Keras that write files or hold
        functions, meta-estimators that seldom hold networks.

    OSError
        If the file cannot be written, or the temporary one of a network: a full disk, say.

    See Also
    --------
    load : The way back.

    Notes
    -----
    The file is a zip that any tool opens: ``networks/`` and ``models/`` hold networks as
    ``.keras``, ``parts/`` what is of scikit-learn and imbalanced-learn, written by skops,
    ``arrays/`` NumPy arrays, ``state.json`` all else, and ``manifest.json`` the protocol and the
    versions. Its comment holds the SHA-256 of all bytes before it.

    Left out are caches, and ``memory``, which is None afterwards: a folder of pickles belongs to
    one machine, and reading from it would run what somebody put there. Fitted samplers lose the
    estimators in them (the neighbours of SMOTE), which are training rows; no ``fit_resample`` needs
    them.

    Examples
    --------
    >>> import os, tempfile
    >>> from sklearn.datasets import load_iris
    >>> import skstack
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = skstack.KerasClassifier(epochs=5, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "iris.skstack")
    ...     skstack.save(classifier, path)
    ...     again = skstack.load(path)
    >>> bool((again.predict_proba(X) == classifier.predict_proba(X)).all())
    True
    """
    if isinstance(estimator, type) or not hasattr(estimator, "get_params"):
        raise TypeError(f"estimator={estimator!r} must be an estimator, fitted or not.")
    path = os.path.realpath(os.fspath(path))
    name = type(estimator).__name__
    writer = Writer()
    try:
        root = writer.node(estimator, name)
    except RecursionError as error:
        raise ValueError(f"This {name} cannot be saved: it is nested too deeply.") from error
    except ValueError as error:
        raise ValueError(f"This {name} cannot be saved: {error}.") from error
    content = _sealed(_zipped(root, writer.members))
    try:
        # What was not loaded here would fail on the machine that needs it.
        _estimator_in(content, Trust([thing or name for name, thing in writer.named.items()]))
    except Exception as error:  # Keras, skops and users' classes raise whatever they like
        raise_full_disk(error)
        reason = str(error).strip().rstrip(".")
        raise ValueError(
            f"This {name} cannot be saved, for it could not be loaded again: {reason}."
        ) from error
    _write(path, content)


def load(path, *, trusted=()):
    """Read an estimator from a file that ``save`` wrote; nothing in the file is executed.

    Parameters
    ----------
    path : str or os.PathLike
        The file.

    trusted : list of str, classes and functions, default=()
        What the file may hold besides what comes with skstack, Keras, scikit-learn and
        imbalanced-learn: recipes, layers, losses and callbacks of your own, as they are or by their
        full names (``"my_module.wide"``). Loading imports nothing of these: a name is found only
        where its module was imported before.

    Returns
    -------
    estimator
        As it was saved.

    Raises
    ------
    FileNotFoundError
        If there is no such file.

    ValueError
        If the file was cut or altered, was not written by ``save`` or by a later version of it, or
        holds what is not trusted: the message names it. Trees of scikit-learn are not trusted by
        skops, for crafted ones could crash the process: name them if you know where the file
        comes from.

    TypeError
        If ``trusted`` is no list of names, classes and functions.

    Warns
    -----
    UserWarning
        If the file was written with another version of scikit-learn or Keras.

    See Also
    --------
    save : Writes the file, and says what is in it.

    Notes
    -----
    The seal tells accidents, not intent: whoever alters a file can seal it again. What protects
    then is that classes come from a fixed list, and get their attributes without constructors;
    that networks are loaded in Keras' safe mode, once it is known that they hold no code and name
    only classes and functions of Keras that are on a list; that parts of scikit-learn must pass
    skops, and their sparse matrices have no index out of range; that arrays hold no objects; that
    nothing takes much more memory than the file has bytes. A loaded estimator is as
    trustworthy as its source all the same: its predictions are what somebody made them, and a
    parameter may name a file that the next ``fit`` would read.

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
    with open(path, "rb") as file:
        content = file.read()
    name = os.fspath(path)
    try:
        estimator, versions = _estimator_in(content, trust)
    except Exception as error:  # a crafted file may make anything raise
        reason = str(error).strip().rstrip(".") or type(error).__name__
        if not isinstance(error, ValueError):
            reason = f"it is damaged or was made by hand ({type(error).__name__}: {reason})"
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
    """Put the digest of all bytes before the seal into the seal."""
    content = content[:-_SEAL_BYTES]
    return content + _SEAL + hashlib.sha256(content).hexdigest().encode()


def _check_seal(content):
    body, seal = content[:-_SEAL_BYTES], content[-_SEAL_BYTES:]
    if seal[: len(_SEAL)] == _SEAL and content[:4] == b"PK\x03\x04":
        if hashlib.sha256(body).hexdigest().encode() != seal[len(_SEAL) :]:
            raise ValueError("its bytes are not those that were written: it was altered")
    elif not content:
        raise ValueError("it is empty")
    elif b"manifest.json" in content[:64] and content[:2] == b"PK":
        raise ValueError("its end is missing or altered: it was cut off, or changed")
    else:
        raise ValueError("it was not written by skstack.save, or its beginning was altered")


def _versions():
    import keras
    import numpy as np
    import sklearn
    import skops

    import skstack

    return {
        "skstack": skstack.__version__,
        "scikit-learn": sklearn.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "skops": skops.__version__,
    }


def _warn_of_versions(name, versions):
    """Say which versions differ in one of the first two numbers."""
    here = _versions()
    told = [
        f"{package} {versions[package]} (here: {here[package]})"
        for package in ("scikit-learn", "keras")
        if str(versions[package]).split(".")[:2] != here[package].split(".")[:2]
    ]
    if told:
        warnings.warn(
            f"{name!r} was written with {' and '.join(told)}; predictions may differ.",
            UserWarning,
            stacklevel=3,
        )


def _write(path, content):
    """Write a file beside the path and let it take the place, whole or not at all."""
    folder, name = os.path.split(path)
    beside = os.path.join(folder, f".{name}.{secrets.token_hex(8)}")
    try:
        with open(beside, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
