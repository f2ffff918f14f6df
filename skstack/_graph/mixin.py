"""What ships a fitted estimator: one ``keras.Model``, and files for other runtimes."""

from __future__ import annotations

from sklearn.utils.validation import check_is_fitted

from skstack._base.atomic_fit import on_snapshot
from skstack._base.tables import read_table


class ExportMixin:
    """Mixin of the estimators that can be shipped as one network."""

    @on_snapshot
    def to_keras(self):
        """One ``keras.Model`` of all that this estimator does with rows.

        Upstream networks, scalers, the look-up of categories, imputation and downstream stand in it
        as layers with names; it is a copy, not compiled, and needs no skstack to be loaded.
        Scalers are not trained by ``fit``; networks are, but frozen ones.

        Returns
        -------
        keras.Model
            Its output, float32, is what ``predict_proba`` gives, of shape (batch, n_classes); else
            what ``predict`` gives, of shape (batch, n_targets), or ``transform``. Its input is
            what :meth:`keras_inputs` gives: where all columns are numbers the rows themselves.

        Raises
        ------
        ValueError
            If a part is neither a network of ours nor one of scikit-learn's scalers that are affine
            by column (or ``SimpleImputer``, ``PCA``, a selector of columns); the message names it.

        sklearn.exceptions.NotFittedError
            If it is not fitted.

        Notes
        -----
        Its inputs are float32. Where a Pipeline scales float64 columns before a network, digits
        beyond the seventh are lost. Layers of a class of your own need that class to be loaded.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from skstack import KerasClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> classifier = KerasClassifier(epochs=2, random_state=0).fit(X, y)
        >>> model = classifier.to_keras()
        >>> bool(abs(model.predict(X, verbose=0) - classifier.predict_proba(X)).max() < 1e-5)
        True
        """
        check_is_fitted(self)
        from skstack._graph.dispatch import fused_model

        return fused_model(self)

    @on_snapshot
    def keras_inputs(self, X, *, numpy=None):
        """Rows as :meth:`to_keras` and the files of :meth:`export` take them.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Rows.

        numpy : bool, default=None
            How words come. None: as NumPy arrays of ``str`` objects, which the model, its
            ``predict`` and ``fit``, and other runtimes take. True: as NumPy arrays of fixed width,
            which can be written to a file without pickle. False: as tensors.

        Returns
        -------
        ndarray of float32 of shape (n_samples, n_features), or dict of str to array
            With categories a dict: ``"numeric"`` of shape (n_samples, n_numeric), float32, in
            column order, and each category by its column's name, of shape (n_samples, 1), words or
            int64. A column that one part reads as numbers and another as categories is in both. A
            missing category is ``""`` or -1, or, where that is a category, another value that is
            none, as always where the column is hashed. Columns that no part of the estimator reads
            are 0, or left out of a dict.

        Raises
        ------
        ValueError
            For rows that do not fit, or a value of a hashed column that is not of the kind, words
            or whole numbers, that its input takes.

        sklearn.exceptions.NotFittedError
            If it is not fitted.
        """
        check_is_fitted(self)
        from skstack._graph.dispatch import raw_columns

        return raw_columns(self).arrays(read_table(self, X, reset=False), numpy=numpy)

    @on_snapshot
    def export(self, path, *, format="saved_model"):
        """Write :meth:`to_keras` for a runtime that knows neither Keras nor skstack.

        Parameters
        ----------
        path : str or os.PathLike
            A folder for a SavedModel, else a file. It is written as a whole or not at all, over
            what stood there.

        format : {"saved_model", "onnx", "litert"}, default="saved_model"
            For TensorFlow Serving, onnxruntime (takes the extra ``skstack[onnx]``) and the LiteRT
            interpreter.

        Raises
        ------
        ValueError
            For an unknown format, or one whose runtime cannot run a layer, such as LSTM in LiteRT,
            or as :meth:`to_keras`.

        ImportError
            If a package is missing.

        OSError
            If the path cannot be written, or a folder stands there that is no SavedModel.

        sklearn.exceptions.NotFittedError
            If it is not fitted.

        Notes
        -----
        Inputs have the names that :meth:`keras_inputs` gives (``"features"`` for a lone array), the
        output is called ``"output_0"``.
        """
        check_is_fitted(self)
        from skstack._graph.formats import write

        write(self, path, format)
