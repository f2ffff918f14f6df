"""Export of a fitted estimator: one ``keras.Model``, and files for other runtimes."""

from __future__ import annotations

from sklearn.utils.validation import check_is_fitted

from skstack._base.tables import read_table


def to_keras(estimator):
    """Convert a fitted estimator to one ``keras.Model``.

    The estimators of skstack have a method of this name. The function also takes what scikit-learn
    puts around them.

    Parameters
    ----------
    estimator : estimator
        An estimator of skstack; a Pipeline that ends in one, and whose other steps can become
        layers; a ``CalibratedClassifierCV`` of such estimators without ``decision_function``; a
        ``FixedThresholdClassifier`` or ``TunedThresholdClassifierCV``, whose probabilities are
        those of its estimator; a search, of which the best estimator is taken.

    Returns
    -------
    keras.Model
        See :meth:`KerasClassifier.to_keras`.

    Raises
    ------
    ValueError
        If a part cannot become layers; the message names it.

    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.

    Examples
    --------
    >>> import skstack
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skstack.networks import MLP
    >>> X, y = load_iris(return_X_y=True)
    >>> network = skstack.KerasClassifier(MLP((8,)), epochs=2, random_state=0)
    >>> pipeline = make_pipeline(StandardScaler(), network).fit(X, y)
    >>> model = skstack.to_keras(pipeline)
    >>> inputs = skstack.keras_inputs(pipeline, X)
    >>> bool(abs(model.predict(inputs, verbose=0) - pipeline.predict_proba(X)).max() < 1e-5)
    True
    """
    check_is_fitted(estimator)
    from skstack._graph.dispatch import fused_model
    from skstack._training.xla_layers import without_einsum

    return without_einsum(fused_model(estimator))


def keras_inputs(estimator, X, *, numpy=None):
    """Convert X to the inputs of :func:`to_keras` and of the files of :func:`export`.

    Parameters
    ----------
    estimator : estimator
        As in :func:`to_keras`.

    X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
        Samples.

    numpy : bool, default=None
        Type of strings; see :meth:`KerasClassifier.keras_inputs`.

    Returns
    -------
    ndarray of float32 of shape (n_samples, n_features), or dict of str to array
        See :meth:`KerasClassifier.keras_inputs`.

    Raises
    ------
    ValueError
        If X does not fit the estimator.

    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.

    Examples
    --------
    >>> import skstack
    >>> from sklearn.datasets import load_iris
    >>> from skstack.networks import MLP
    >>> X, y = load_iris(return_X_y=True)
    >>> network = skstack.KerasClassifier(MLP((8,)), epochs=2, random_state=0).fit(X, y)
    >>> skstack.keras_inputs(network, X).shape
    (150, 4)
    """
    check_is_fitted(estimator)
    from skstack._graph.dispatch import first_part, raw_columns
    from skstack._graph.onnx_parts import onnx_parts

    with onnx_parts():
        columns = raw_columns(estimator)
    return columns.inputs_of(read_table(first_part(estimator), X, reset=False), numpy=numpy)


def export(estimator, path, *, format="saved_model"):
    """Write a fitted estimator for a runtime without Keras and skstack.

    Parameters
    ----------
    estimator : estimator
        As in :func:`to_keras`. An ONNX file may also hold gradient boosting, forests and linear
        models of scikit-learn.

    path : str or os.PathLike
        A folder for a SavedModel, else a file. It is replaced atomically.

    format : {"saved_model", "onnx", "litert"}, default="saved_model"
        See :meth:`KerasClassifier.export`.

    Raises
    ------
    ValueError
        If the format is unknown, or if a part is not accepted; the message names it.

    ImportError
        If a package is missing.

    OSError
        If the path cannot be written, or is a folder that is not a SavedModel.

    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import skstack
    >>> from sklearn.calibration import CalibratedClassifierCV
    >>> from sklearn.datasets import load_iris
    >>> from skstack.networks import MLP
    >>> X, y = load_iris(return_X_y=True)
    >>> network = skstack.KerasClassifier(MLP((8,)), epochs=2, random_state=0)
    >>> calibrated = CalibratedClassifierCV(network, cv=2).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     skstack.export(calibrated, pathlib.Path(folder) / "model")
    """
    check_is_fitted(estimator)
    from skstack._graph.formats import write

    write(estimator, path, format)
