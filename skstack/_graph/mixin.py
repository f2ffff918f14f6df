"""Methods of the estimators that can be exported."""

from __future__ import annotations

from skstack._base.atomic_fit import on_snapshot
from skstack._graph.export import export, keras_inputs, to_keras


class ExportMixin:
    """Mixin of the estimators that can be exported as one network."""

    @on_snapshot
    def to_keras(self):
        """Convert the whole estimator to one ``keras.Model``.

        Upstream networks, scalers, the lookup of categories, imputation and the downstream network
        become named layers. The model is an uncompiled copy that loads without skstack. Calling
        ``fit`` on it trains the networks, but neither scalers nor frozen networks.

        Returns
        -------
        keras.Model
            Its float32 output is that of ``predict_proba``, of shape (batch, n_classes), else of
            ``predict``, of shape (batch, n_targets), or of ``transform``; for a KerasMultiTask a
            dict of them by target. Its input is the result of :meth:`keras_inputs`: the rows
            themselves if all columns are numbers.

        Raises
        ------
        ValueError
            If a part is neither a network of skstack nor a scaler of scikit-learn that is affine by
            column, ``SimpleImputer``, ``PCA``, ``OneHotEncoder``, ``OrdinalEncoder``, a feature
            selector or a ``ColumnTransformer`` of these; the message names it.

        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.

        Notes
        -----
        The inputs are float32. If a Pipeline scales float64 columns before a network, digits beyond
        the seventh are lost. Custom layers need their class to be loaded.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from skstack import KerasClassifier
        >>> from skstack.networks import MLP
        >>> X, y = load_iris(return_X_y=True)
        >>> classifier = KerasClassifier(MLP((8,)), epochs=2, random_state=0).fit(X, y)
        >>> model = classifier.to_keras()
        >>> bool(abs(model.predict(X, verbose=0) - classifier.predict_proba(X)).max() < 1e-5)
        True
        """
        return to_keras(self)

    @on_snapshot
    def keras_inputs(self, X, *, numpy=None):
        """Convert X to the inputs of :meth:`to_keras` and of the files of :meth:`export`.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Samples.

        numpy : bool, default=None
            Type of strings. If None, NumPy arrays of ``str`` objects, which the model, its
            ``predict`` and ``fit``, and other runtimes accept. If True, NumPy arrays of fixed
            width, which can be saved without pickle. If False, tensors.

        Returns
        -------
        ndarray of float32 of shape (n_samples, n_features), or dict of str to array
            With categories a dict: ``"numeric"`` of shape (n_samples, n_numeric), float32, in
            column order, and each category by its column's name, of shape (n_samples, 1), strings
            or int64. A column that is numeric for one part and categorical for another is in both.
            A missing category is ``""`` or -1; if that is a category, or if the column is hashed,
            another value. Columns that no part of the estimator uses are 0, or left out of a dict.

        Raises
        ------
        ValueError
            If X does not fit the estimator, or if a hashed column has values of another type,
            strings or integers, than its input.

        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        """
        return keras_inputs(self, X, numpy=numpy)

    @on_snapshot
    def export(self, path, *, format="saved_model"):
        """Write the whole estimator for a runtime without Keras and skstack.

        The file holds what :meth:`to_keras` computes. An ONNX file may also hold gradient boosting,
        forests and linear models of scikit-learn, as branches or downstream of a stack.

        Parameters
        ----------
        path : str or os.PathLike
            A folder for a SavedModel, else a file. It is replaced atomically.

        format : {"saved_model", "onnx", "litert"}, default="saved_model"
            For TensorFlow Serving, onnxruntime (requires the extra ``skstack[onnx]``) and the
            LiteRT interpreter.

        Raises
        ------
        ValueError
            If the format is unknown or its runtime cannot run a layer, such as LSTM in LiteRT; if a
            part is not accepted, as in :meth:`to_keras`; or if an estimator of scikit-learn, in
            float32, predicts something else, on rows at the thresholds of its trees and
            in the range of its training rows. The message names the part.

        ImportError
            If a package is missing.

        OSError
            If the path cannot be written, or is a folder that is not a SavedModel.

        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.

        Notes
        -----
        The names of inputs are those of :meth:`keras_inputs` (``"features"`` for a single array);
        the name of the output is ``"output_0"``, those of a KerasMultiTask are its targets.

        Estimators of scikit-learn in ONNX files: ``HistGradientBoosting*`` with missing values,
        categories and every loss, ``RandomForest*``, ``ExtraTrees*``, decision trees,
        ``GradientBoosting*``, ``LinearRegression``, ``LogisticRegression``, ``Ridge``, ``Lasso``,
        ``ElasticNet`` and those that select their penalty by cross-validation. Thresholds are
        rounded such that trees on columns of X split float32 values as before. Trees on columns
        that other parts compute, scalers included, may split rows otherwise that lie within a
        rounding error of a threshold, such as training rows, whose values are often thresholds.
        """
        export(self, path, format=format)
