"""A Keras network for several targets of different kinds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.metrics import r2_score
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from skstack._base.atomic_fit import on_snapshot, warn_once
from skstack._base.docstrings import substitute
from skstack._base.in_chunks import in_chunks
from skstack._base.params import clone_sharing_models, hint_at_parameters, is_keras_model, is_path
from skstack._base.sklearn import Interval, StrOptions, fit_context
from skstack._base.tables import check_weights, indexed_like, refuse_missing_target
from skstack._base.text import described
from skstack._estimators.bags import graphs_of_bags, is_bagged, mean_of_graphs
from skstack._estimators.base import DOCS, NetworkEstimator, declaring
from skstack._estimators.regressor import refuse_outside, scale_between, start_at_mean
from skstack._graph.mixin import ExportMixin
from skstack.networks._heads import output_bounds, with_target_units
from skstack.networks._model_parameter import continued_estimator
from skstack.networks._spec import Head, Spec
from skstack.preprocessing._blocks import keras_name
from skstack.preprocessing._column_profile import warn_if_validation_targets_moved, weighted_moments

_KINDS = ("classification", "regression")
_DEFAULT_LOSSES = {
    "binary": "binary_crossentropy",
    "multiclass": "sparse_categorical_crossentropy",
    "regression": "mean_squared_error",
}


@dataclass(frozen=True)
class Target:
    """A column of y: its name, its classes and the dtype of its labels.

    ``key`` is the name of its head. A target without ``classes`` is one of regression.
    ``categories`` are (values, their dtype, whether they are ordered) of a categorical column.
    """

    name: Hashable
    key: str
    classes: np.ndarray | None = None
    dtype: str | None = None
    categories: tuple | None = None

    @classmethod
    def of(cls, column, name, key, classes):
        """Describe a column of labels; ``classes`` are all of them, if they are known."""
        import pandas as pd

        if classes is None:
            try:
                classes = np.unique(_labels(column))
            except TypeError as error:
                raise TypeError(
                    f"y[{name!r}] holds labels of types that cannot be compared: {error}."
                ) from error
        if len(classes) < 2:
            raise ValueError(
                f"KerasMultiTask needs samples of at least 2 classes in each target, but "
                f"y[{name!r}] holds only one class: {classes.tolist()!r}."
            )
        dtype, categories = column.dtype, None
        if isinstance(dtype, pd.CategoricalDtype):
            values = dtype.categories
            categories = (values.tolist(), str(values.dtype), dtype.ordered)
        return cls(name, key, classes, str(dtype), categories)

    def head(self):
        """The head of the network."""
        if self.classes is None:
            return Head(self.key, "regression", 1)
        n = len(self.classes)
        return Head(self.key, "binary" if n == 2 else "multiclass", n)

    def codes(self, column):
        """Indices of the classes of labels, -1 for unknown ones."""
        import pandas as pd

        return pd.Index(self.classes).get_indexer(_labels(column))

    def read(self, column):
        """Numbers, or indices of classes, as float64; unknown labels raise an error."""
        if self.classes is None:
            return _numbers(column, self.name)
        codes = self.codes(column)
        if (codes < 0).any():
            unknown = column[codes < 0].unique()[:5].tolist()
            raise ValueError(
                f"y[{self.name!r}] holds labels {unknown!r} that are not among the classes "
                f"{self.classes.tolist()!r}."
            )
        return codes.astype(np.float64)

    def labels(self, codes):
        """Labels of indices of classes, as a Series of the dtype of y."""
        import pandas as pd

        dtype = self.dtype
        if self.categories is not None:
            values, inner, ordered = self.categories
            dtype = pd.CategoricalDtype(pd.Index(values, dtype=inner), ordered)
        return pd.Series(self.classes[codes]).astype(dtype)


def _labels(column):
    """Labels as an array, strings and bools as NumPy's own."""
    import pandas as pd

    values = column.to_numpy()
    if values.dtype != object:
        return values
    kind = {"string": str, "boolean": bool}.get(pd.api.types.infer_dtype(values, skipna=False))
    return values if kind is None else values.astype(kind)


def _numbers(column, name):
    """A column of numbers as float64."""
    import pandas as pd
    from pandas.api import types

    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.dtype.categories.dtype)
    numeric = types.is_numeric_dtype(column.dtype) or types.is_bool_dtype(column.dtype)
    if not numeric or types.is_complex_dtype(column.dtype):
        raise ValueError(
            f"y[{name!r}] is a regression target, but has dtype {column.dtype}; expected numbers."
        )
    values = column.to_numpy(dtype=np.float64)
    if not (np.abs(values) <= np.finfo(np.float32).max).all():
        raise ValueError(f"y[{name!r}] holds infinity or values that are too large for float32.")
    return values


def _kind_by_dtype(column, name):
    """Kind of a target by the dtype of its column: "classification" or "regression"."""
    import pandas as pd
    from pandas.api import types

    dtype = column.dtype
    if types.is_float_dtype(dtype):
        return "regression"
    named = (types.is_object_dtype, types.is_string_dtype, types.is_bool_dtype)
    if isinstance(dtype, pd.CategoricalDtype) or any(is_kind(dtype) for is_kind in named):
        return "classification"
    if types.is_integer_dtype(dtype):
        return "classification"
    raise ValueError(
        f"y[{name!r}] has dtype {dtype}, which is neither a class nor a number. Convert it, or set "
        f"its kind: tasks={{{name!r}: 'classification'}}."
    )


def _warn_of_many_classes(name, classes, n_samples):
    if np.issubdtype(classes.dtype, np.integer) and len(classes) > n_samples / 2:
        warn_once(
            ("many classes", name),
            f"y[{name!r}] holds integers, which are learned as classes, and {len(classes)} "
            f"different ones in {n_samples} rows. If they are numbers, set "
            f"tasks={{{name!r}: 'regression'}}, or convert the column to float.",
        )


def _may_have_classes(estimator):
    """Whether a target is of classification, or may be: kinds by dtype are known after a fit."""
    tasks = getattr(estimator, "tasks_", estimator.tasks)
    if isinstance(tasks, dict):
        return not hasattr(estimator, "tasks_") or "classification" in tasks.values()
    return tasks is None or "classification" in tasks


@substitute(**DOCS)
class KerasMultiTask(ExportMixin, NetworkEstimator):
    """A Keras network for several targets, some of which may be classes and others numbers.

    The layers of one network are shared by all targets; each has an output layer and a loss of its
    own. Numeric targets are standardised, as by :class:`~skstack.KerasRegressor`.

    Parameters
    ----------
    model : recipe or FrozenEstimator, default=None
        The network. A recipe (``MLP(...)``, or a function under ``@recipe``) is built for the
        columns of X and y: ``spec.outputs(x)`` adds one output layer per target. None
        means ``TabM()``. ``FrozenEstimator(fitted)``, from :mod:`sklearn.frozen`, continues from
        the network of a KerasMultiTask that was fitted on another table with the same targets,
        with its categories, codes and moments (new categories count as unseen). Each fold of a
        cross-fit starts from the same weights, with a new optimizer. Target means and scales are
        those of the other table.

    tasks : dict, list or None, default=None
        ``"classification"`` or ``"regression"`` for each target: a dict by name, or a list in the
        order of y. Targets that a dict lacks, and all if None, follow the dtype of the column:
        floats are numbers; integers, bools, strings and categories are classes. Required if y is
        an array, whose columns share one dtype.

    {optimizer_parameters}

    loss : dict or "auto", default="auto"
        Losses by target, each as in :class:`~skstack.KerasClassifier` and
        :class:`~skstack.KerasRegressor`, without a teacher. ``"auto"``, and targets that a dict
        lacks: cross-entropy for classes, the mean squared error of standardised targets for
        numbers.

    loss_weights : dict, default=None
        Weights in (0, inf) of the targets in the total loss, which is the weighted sum of their
        losses; 1 for targets that it lacks.

    metrics : dict, default=None
        Lists of metrics by target, as in ``keras.Model.compile``. Recorded in ``history_`` as
        ``churn_accuracy``: the name of the target, with underscores for what Keras does not accept
        in names, and that of the metric. Those of numeric targets have the units of KerasRegressor.

    {epoch_parameters}

    early_stopping_metric : str, default="loss"
        What early stopping monitors on hold-out rows: ``"loss"``, which is that of all targets
        together, or one of ``metrics``, by its name in ``history_``. Among equally good epochs the
        last one is the best. A metric of your own needs an attribute ``greater_is_better``, True or
        False. Unlike the loss, metrics count each row once, whatever its ``sample_weight``.

    callbacks : list of keras.callbacks.Callback, default=None
        Copied for each fit. Their ``model`` is the network of ``model_``.

    {column_parameters}

    {bag_parameters}

    {run_parameters}

    Attributes
    ----------
    target_names_ : list
        Names of the columns of y; of an array their indices.

    tasks_ : dict of target name to str
        ``"classification"`` or ``"regression"``.

    classes_ : dict of target name to ndarray of shape (n_classes,)
        Labels of the classification targets.

    target_mean_, target_scale_ : dict of target name to float
        Offset and scale of the regression targets: mean and standard deviation of the training
        targets; 0 and 1 if the loss is defined for unscaled targets.

    {input_attributes}

    model_ : keras.Model
        A copy of the trained network, with one output: probabilities of classes (of two classes
        that of the second), and numbers in the units of y, target by target in the order of y.
        :meth:`to_keras` has an output for each target.

    {history_attributes}

    {bag_attributes}

    Notes
    -----
    As an upstream of :class:`~skstack.KerasFeatureTransformer` it is cross-fitted, and its features
    are those of each target, named after it: ``proba_yes__churn``, ``prediction__amount``.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.datasets import load_iris
    >>> from skstack import KerasMultiTask
    >>> from skstack.networks import MLP
    >>> iris = load_iris(as_frame=True)
    >>> X = iris.data[["sepal length (cm)", "sepal width (cm)", "petal length (cm)"]]
    >>> species = pd.Categorical.from_codes(iris.target, iris.target_names)
    >>> y = pd.DataFrame({"species": species, "petal_width": iris.data["petal width (cm)"]})
    >>> network = KerasMultiTask(MLP((16,)), epochs=20, learning_rate=0.02, random_state=0)
    >>> network = network.fit(X, y)
    >>> network.tasks_
    {'species': 'classification', 'petal_width': 'regression'}
    >>> network.predict(X).columns.tolist()
    ['species', 'petal_width']
    >>> network.predict(X[:2])["species"].tolist()
    ['setosa', 'setosa']
    >>> network.predict_proba(X[:2])["species"].shape
    (2, 3)
    >>> network.score(X, y) > 0.9
    True
    """

    _parameter_constraints = {
        **NetworkEstimator._parameter_constraints,
        "n_bags": [Interval(Integral, 1, None, closed="left")],
        "tasks": [None, dict, list, tuple],
        "loss": [StrOptions({"auto"}), dict],
        "loss_weights": [None, dict],
        "metrics": [None, dict],
    }

    @hint_at_parameters
    def __init__(
        self,
        model: Any = None,
        *,
        tasks: Mapping[Hashable, str] | Sequence[str] | None = None,
        optimizer: Any = "auto",
        learning_rate: Any = "auto",
        clipnorm: float | None = None,
        loss: Mapping[Hashable, Any] | str = "auto",
        loss_weights: Mapping[Hashable, float] | None = None,
        metrics: Mapping[Hashable, Sequence[Any]] | None = None,
        epochs: int | str = "auto",
        batch_size: int | str = "auto",
        early_stopping: bool | str = "auto",
        validation_fraction: float = 0.15,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        early_stopping_metric: str = "loss",
        callbacks: Any = None,
        categorical_features: Any = "from_dtype",
        inputs: Any = None,
        input_shape: Any = None,
        n_hash_buckets: int | None = None,
        imputer: SimpleImputer | None = None,
        n_bags: int = 1,
        warm_start: bool = False,
        engine: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int | bool = 0,
    ) -> None:
        self.n_bags = n_bags
        super().__init__(
            model,
            optimizer=optimizer,
            learning_rate=learning_rate,
            clipnorm=clipnorm,
            loss=loss,
            metrics=metrics,
            epochs=epochs,
            batch_size=batch_size,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            early_stopping_metric=early_stopping_metric,
            callbacks=callbacks,
            categorical_features=categorical_features,
            inputs=inputs,
            input_shape=input_shape,
            n_hash_buckets=n_hash_buckets,
            imputer=imputer,
            warm_start=warm_start,
            engine=engine,
            random_state=random_state,
            verbose=verbose,
        )
        self.tasks = tasks
        self.loss_weights = loss_weights

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        return tags

    def _validate_params(self):
        self._refuse_teachers()
        super()._validate_params()
        tasks = self.tasks.values() if isinstance(self.tasks, dict) else self.tasks or ()
        for kind in tasks:
            if not isinstance(kind, str) or kind not in _KINDS:
                raise ValueError(
                    f"tasks={self.tasks!r} holds {kind!r}; expected one of {list(_KINDS)}."
                )
        for name, weight in (self.loss_weights or {}).items():
            if not isinstance(weight, Real) or isinstance(weight, bool) or not 0 < weight < np.inf:
                raise ValueError(f"loss_weights[{name!r}]={weight!r} must be a number in (0, inf).")
        if is_keras_model(self.model) or is_path(self.model):
            raise TypeError(
                f"model={described(self.model)} is a keras.Model or the path to one, and the "
                "heads of KerasMultiTask follow from y; expected a recipe, which makes them with "
                "spec.outputs(x), or a FrozenEstimator of a fitted KerasMultiTask."
            )

    def _refuse_teachers(self):
        from skstack.losses._teacher_loss import TeacherLoss

        losses = self.loss.values() if isinstance(self.loss, dict) else [self.loss]
        teacher = next((loss for loss in losses if isinstance(loss, TeacherLoss)), None)
        if teacher is not None:
            raise TypeError(
                f"loss={described(self.loss)}: KerasMultiTask has no teachers; expected a dict of "
                "a loss of Keras, or of your own, for each target. A TeacherLoss is for one "
                "target, in KerasClassifier or KerasRegressor."
            )

    def _losses_and_metrics(self):
        losses = {} if self.loss == "auto" else self.loss
        listed = []
        for name, metrics in (self.metrics or {}).items():
            if not isinstance(metrics, (list, tuple)):
                raise TypeError(f"metrics[{name!r}]={metrics!r} must be a list of metrics.")
            listed += metrics
        return list(losses.values()), listed

    @fit_context(prefer_skip_nested_validation=True)
    @hint_at_parameters
    @substitute(**DOCS)
    def fit(self, X, y, sample_weight=None, *, groups=None, X_val=None, y_val=None):
        """Train the network.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Training rows.

        y : DataFrame or array-like of shape (n_samples, n_targets)
            One column for each target. An array needs ``tasks``.

        {row_parameters}

        Returns
        -------
        self : KerasMultiTask
            The fitted estimator.

        Raises
        ------
        ValueError, TypeError
            If data or parameters are invalid; the message names them, and the column of y.

        Notes
        -----
        {interrupts}
        """
        with declaring(self, None):
            return self._train(
                X, y, sample_weight, X_val, y_val, groups=groups, resume=self.warm_start
            )

    @fit_context(prefer_skip_nested_validation=True)
    @hint_at_parameters
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train for one more epoch.

        Categories of columns, and moments of columns and targets, are those of the first call.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.

        y : DataFrame or array-like of shape (n_samples, n_targets)
            One column for each target.

        classes : dict of target name to array-like, default=None
            All classes of targets; required in the first call for targets of which y lacks some.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative. A row of weight w counts as w rows, one of weight 0 is ignored.

        Returns
        -------
        self : KerasMultiTask
            The fitted estimator.
        """
        declared = getattr(self, "_declared_classes", None)
        if classes is not None:
            if not isinstance(classes, dict):
                raise TypeError(f"classes={classes!r} must be a dict of target name to classes.")
            declared = {name: np.unique(labels) for name, labels in classes.items()}
            known = getattr(self, "classes_", None)
            for name, labels in declared.items():
                if known is not None and not np.array_equal(known.get(name), labels):
                    raise ValueError(
                        f"classes[{name!r}]={labels.tolist()!r} are not those of the first call to "
                        f"partial_fit: {known.get(name, np.array(())).tolist()!r}."
                    )
        with declaring(self, declared):
            return self._train(X, y, sample_weight, resume=True, epochs=1, watch=False)

    @on_snapshot
    def predict(self, X):
        """Predict all targets: the most probable class, or a number.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        DataFrame of shape (n_samples, n_targets)
            With the columns of y and the index of X: labels in the dtype of y, numbers in float64.
        """
        import pandas as pd

        columns = {}
        for target, values in self._by_target(X):
            if target.classes is None:
                columns[target.name] = values[:, 0]
            else:
                columns[target.name] = target.labels(both_classes(values).argmax(axis=1))
        return indexed_like(pd.DataFrame(columns), X)

    @available_if(_may_have_classes)
    @on_snapshot
    def predict_proba(self, X):
        """Probabilities of the classes; not defined if all targets are numbers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        dict of target name to ndarray of float32 of shape (n_samples, n_classes)
            For each classification target: in [0, 1], rows sum to 1.
        """
        parts = self._by_target(X)
        return {t.name: both_classes(values) for t, values in parts if t.classes is not None}

    @on_snapshot
    def score(self, X, y, sample_weight=None):
        """Mean over targets of the accuracy (classification) or R2 (regression).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        y : DataFrame or array-like of shape (n_samples, n_targets)
            True targets. Labels that are no class of the fit count as errors.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative.

        Returns
        -------
        float
            At most 1.
        """
        check_is_fitted(self)
        table, framed = self._target_table(y)
        self._check_columns(table, framed)
        check_consistent_length(X, table)
        weights = check_weights(sample_weight, X)
        scores = []
        for index, (target, values) in enumerate(self._by_target(X)):
            column = _column(table, index)
            if target.classes is None:
                true = _numbers(column, target.name)
                scores.append(r2_score(true, values[:, 0], sample_weight=weights))
            else:
                hits = target.codes(column) == both_classes(values).argmax(axis=1)
                scores.append(np.average(hits, weights=weights))
        return float(np.mean(scores))

    # Targets ---------------------------------------------------------------------------------

    def _target_table(self, y):
        """Targets as a DataFrame, and whether they were one."""
        import pandas as pd

        refuse_missing_target(self, y)
        if isinstance(y, Mapping):
            raise TypeError(
                "y is a dict; expected a DataFrame with one column for each target: "
                "pd.DataFrame(y)."
            )
        y = y.to_pandas() if hasattr(y, "to_pandas") else y
        framed = isinstance(y, pd.DataFrame)
        if not framed:
            y = np.asarray(y)
            if y.ndim != 2:
                raise ValueError(
                    f"y has shape {y.shape}, but {type(self).__name__} learns several targets; "
                    "expected a DataFrame or an array of shape (n_samples, n_targets). For a "
                    "single target use KerasClassifier or KerasRegressor."
                )
            y = pd.DataFrame(y)
        if y.shape[1] < 1:
            raise ValueError("y has no columns; expected one column for each target.")
        names = list(map(str, y.columns))
        if len(set(names)) < len(names):
            duplicates = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"y has duplicate column names: {duplicates}. Rename them.")
        missing = {name: int(n) for name, n in y.isna().sum().items() if n}
        if missing:
            raise ValueError(
                f"y holds missing values (NaN) in {missing} (number by column); every row needs "
                "all targets."
            )
        return y, framed

    def _class_columns(self, y):
        return [y[:, i] for i, target in enumerate(self._y_targets) if target.classes is not None]

    def _check_columns(self, table, framed):
        names = table.columns.tolist()
        by_index = names == list(range(len(self.target_names_)))  # an array
        if framed and set(names) == set(self.target_names_):  # numbers are names too
            by_index = False
        if names != self.target_names_ and not by_index:
            raise ValueError(
                f"y has the columns {names!r}, but the estimator was fitted with "
                f"{self.target_names_!r}."
            )

    def _read_target(self, y, *, shared, reset):
        table, framed = self._target_table(y)
        if reset:
            self._learn_targets(table, framed, shared)
        self._check_columns(table, framed)
        columns = [
            target.read(_column(table, index)) for index, target in enumerate(self._y_targets)
        ]
        return np.column_stack(columns)

    def _learn_targets(self, table, framed, shared):
        self.target_names_ = table.columns.tolist()
        if shared is not None:
            self._y_targets = shared.classes
        else:
            self._y_targets = tuple(self._described_targets(table, framed))
        self.tasks_ = {t.name: _KINDS[t.classes is None] for t in self._y_targets}
        self.classes_ = {t.name: t.classes for t in self._y_targets if t.classes is not None}
        losses = {} if self.loss == "auto" else self.loss
        for parameter, by_target in (
            ("loss", losses), ("loss_weights", self.loss_weights or {}),
            ("metrics", self.metrics or {}), ("classes", getattr(self, "_declared_classes", {})),
        ):  # fmt: skip
            _check_names(parameter, by_target, self.target_names_)

    def _described_targets(self, table, framed):
        declared = getattr(self, "_declared_classes", {})
        taken = set()
        for index, (name, kind) in enumerate(self._kinds(table, framed).items()):
            column, key = _column(table, index), keras_name(name, taken)
            taken.add(key)
            chosen = kind or _kind_by_dtype(column, name)
            if chosen == "regression":
                yield Target(name, key)
                continue
            target = Target.of(column, name, key, declared.get(name))
            target = replace(target, dtype=str(table.dtypes.iloc[index]))
            if kind is None:
                _warn_of_many_classes(name, target.classes, len(table))
            yield target

    def _kinds(self, table, framed):
        """Kinds that ``tasks`` gives, by target; None for those by dtype."""
        names, tasks = table.columns.tolist(), self.tasks
        if isinstance(tasks, dict):
            _check_names("tasks", tasks, names)
        elif tasks is not None and len(tasks) != len(names):
            raise ValueError(
                f"tasks={tasks!r} has {len(tasks)} entries, but y has {len(names)} columns."
            )
        else:
            tasks = {} if tasks is None else dict(zip(names, tasks, strict=True))
        missing = [name for name in names if name not in tasks]
        if missing and not framed:
            raise ValueError(
                f"y is an array, whose columns share one dtype, and tasks={self.tasks!r} gives no "
                f"kind for the columns {missing}. Pass a DataFrame, or a list with "
                "'classification' or 'regression' for each column."
            )
        return {name: tasks.get(name) for name in names}

    def _tasks_of(self, y):
        """The ``tasks_`` of a fit on y, after all checks of y."""
        twin = clone_sharing_models(self)
        twin._read_target(y, shared=None, reset=True)
        return twin.tasks_

    def _shared_targets(self):
        return self._y_targets

    # The network -----------------------------------------------------------------------------

    def _loss_of(self, target):
        """Loss of a target that the user chose, or None."""
        loss = "auto" if self.loss == "auto" else self.loss.get(target.name, "auto")
        return None if isinstance(loss, str) and loss == "auto" else loss

    def _heads(self):
        from skstack._training.objective import head_for

        for target in self._y_targets:
            head, loss = target.head(), self._loss_of(target)
            changes = {} if loss is None else head_for(loss, head.task, head.n_outputs)
            yield replace(head, **changes)

    def _task(self):
        return "multitask", tuple(self._heads())

    def _spec(self):
        heads = tuple(self._heads())
        return Spec(self.blocks_.blocks_, "multitask", len(heads), heads=heads), {}

    def _objective(self, blueprint):
        from skstack._training.multi_task import JoinedObjective
        from skstack._training.objective import check_averages, resolve_objective

        objectives = {}
        for target, head in zip(self._y_targets, blueprint.spec.heads, strict=True):
            loss = self._loss_of(target)
            loss = _DEFAULT_LOSSES[head.task] if loss is None else loss
            try:
                objective = resolve_objective(loss, task=head.task, n_outputs=head.n_outputs)
                check_averages(objective.loss, "beside those of other targets")
            except ValueError as error:
                raise ValueError(f"The target {target.name!r}: {error}") from error
            objectives[target.key] = objective
        weights = self.loss_weights or {}
        return JoinedObjective(objectives, [weights.get(t.name, 1.0) for t in self._y_targets])

    def _check_monitored(self):
        """Names of targets are known with y only."""

    def _monitor(self, blueprint):
        from skstack._training.objective import find_monitored, name_in_logs

        name = self.early_stopping_metric
        if name == "loss":
            return None
        listed = {
            f"{target.key}_{name_in_logs(metric)}": metric
            for target in self._y_targets
            for metric in (self.metrics or {}).get(target.name, ())
        }
        if name not in listed:
            raise ValueError(
                f"early_stopping_metric={name!r} is unknown; accepted are 'loss' and the names of "
                f"`metrics` with their targets, {list(listed)}."
            )
        return name, find_monitored(name_in_logs(listed[name]), [listed[name]])[1]

    def _metrics(self, blueprint, objective):
        by_target = self.metrics or {}
        metrics = {t.key: by_target.get(t.name, ()) for t in self._y_targets}
        units, bounds = {}, {}
        for _, target, (low, high) in self._regression(blueprint):
            mean, scale = self.target_mean_[target.name], self.target_scale_[target.name]
            units[target.key] = np.array([mean]), np.array([scale])
            bounds[target.key] = low * scale + mean, high * scale + mean
        return objective.metrics(metrics, units, bounds), objective.metrics(metrics, {}, bounds)

    def _regression(self, blueprint):
        """(index, target, bounds of the output) of each target of regression."""
        low, high = output_bounds(blueprint)
        for index, (target, _, own) in enumerate(self._with_outputs()):
            if target.classes is None:
                yield index, target, (low[own], high[own])

    def _with_outputs(self):
        """(target, head, slice of the outputs of the network) for each target."""
        first = 0
        for target, head in zip(self._y_targets, self._y_heads, strict=True):
            yield target, head, slice(first, first + head.units)
            first += head.units

    def _bin_targets(self, y, weights):
        # One tree for all targets: classes have no order, and no target has more weight.
        columns = [
            column[:, None]
            if target.classes is None
            else np.eye(len(target.classes))[column.astype(int)]
            for target, column in zip(self._y_targets, y.T, strict=True)
        ]
        table = np.hstack(columns)
        mean, scale = weighted_moments(table, weights)
        return (table - mean) / scale, False

    def _learn_target_scale(self, blueprint, start, inputs, y, weights):
        self._y_heads = blueprint.spec.heads
        origin = continued_estimator(self.model)
        if origin is not None:  # the units on which the weights were trained
            pairs = list(zip(self._y_targets, origin._y_targets, strict=True))
            for name in ("target_mean_", "target_scale_"):
                known = getattr(origin, name)
                setattr(self, name, {a.name: known[b.name] for a, b in pairs if b.name in known})
            return
        self.target_mean_, self.target_scale_ = {}, {}
        objectives = self._objective(blueprint).objectives
        for index, target, bounds in self._regression(blueprint):
            column, scaling = y[:, [index]], ([0.0], [1.0])
            if not objectives[target.key].raw_units:
                scaling = scale_between(column, weights, *bounds)
            self.target_mean_[target.name], self.target_scale_[target.name] = (
                float(part[0]) for part in scaling
            )
            head = self._y_heads[index]
            if head.activation == "exponential":
                start_at_mean(start, blueprint.spec, head.layer, column, weights)

    def _check_numbers(self, blueprint, y, what):
        objectives = self._objective(blueprint).objectives
        for index, target, (low, high) in self._regression(blueprint):
            objective, label = objectives[target.key], f"{what}[{target.name!r}]"
            mean, scale = self.target_mean_[target.name], self.target_scale_[target.name]
            raw = mean == 0 and scale == 1
            if objective.raw_units and not raw:
                raise ValueError(
                    f"The target {target.name!r}: loss={described(objective.user_loss)} needs "
                    "unscaled targets, but the network of model=FrozenEstimator(...) was trained "
                    "on standardised targets."
                )
            objective.check_head(low, high)
            objective.check_numbers(y[:, [index]], label)
            scaled = (y[:, index] - mean) / scale
            refuse_outside(label, scaled, low, high, raw=raw, model=self.model)

    def _warn_of_moved_targets(self, y, y_val):
        numbers = [index for index, t in enumerate(self._y_targets) if t.classes is None]
        if numbers:
            names = [self.target_names_[index] for index in numbers]
            warn_if_validation_targets_moved(y[:, numbers], y_val[:, numbers], names)

    def _table(self, inputs, y, weights, objective):
        from skstack._training.config import TrainingData

        objective.check_weights(weights)
        y = y.copy()
        for index, target in enumerate(self._y_targets):
            if target.classes is None:
                y[:, index] -= self.target_mean_[target.name]
                y[:, index] /= self.target_scale_[target.name]
        return TrainingData(inputs, objective.targets(y), weights)

    def _unit_scaling(self):
        """Offset and scale of each output of the network."""
        mean = [self.target_mean_.get(t.name, 0.0) for t in self._y_targets]
        scale = [self.target_scale_.get(t.name, 1.0) for t in self._y_targets]
        widths = [head.units for head in self._y_heads]
        return np.repeat(mean, widths), np.repeat(scale, widths)

    def _finish_model(self, model):
        return with_target_units(model, *self._unit_scaling())

    def _callback_network(self, prepared, objective, metrics):
        shown = super()._callback_network(prepared, objective, metrics)
        # Keras alone could not load what callbacks save, if it were compiled with our classes.
        return None if shown is None else replace(shown, loss=None, metrics=())

    # Predictions -----------------------------------------------------------------------------

    @in_chunks
    def _joined_outputs(self, X):
        return self._outputs(X)

    def _by_target(self, X):
        """(target, its outputs) for each target: numbers in the units of y, in float64."""
        if is_bagged(self):
            by_bag = zip(*[bag._by_target(X) for bag in self.bags_], strict=True)
            return [
                (pairs[0][0], np.mean([values for _, values in pairs], axis=0)) for pairs in by_bag
            ]
        joined, parts = self._joined_outputs(X), []
        for target, _, own in self._with_outputs():
            values = joined[:, own]
            if target.classes is None:
                scale, mean = self.target_scale_[target.name], self.target_mean_[target.name]
                values = values.astype(np.float64) * scale + mean
            parts.append((target, values))
        return parts

    # As layers of one model; see `_graph.dispatch.GraphPart` ---------------------------------

    def _graph_targets(self, outputs, name):
        """(target, `Classes` or a tensor of numbers) for each target."""
        from skstack._graph.formulas import Classes
        from skstack._graph.tables import function_layer, selection

        parts, indices = [], np.arange(outputs.shape[1])
        for target, head, own in self._with_outputs():
            values = function_layer(f"{name}_{target.key}", [outputs], selection(indices[own]))
            binary = head.task == "binary"
            parts.append((target, values if target.classes is None else Classes(values, binary)))
        return parts

    def _graph_outputs(self, table):
        return {
            str(target.name): result
            if target.classes is None
            else result.all(f"{target.key}_probabilities")
            for target, result in self._graph_by_target(table, "network", "target")
        }

    def _graph_by_target(self, table, network_name, name):
        """(target, `Classes` or a tensor of numbers) for each target, from the columns of X."""
        if not is_bagged(self):
            outputs = self._network_graph(table, network_name)[1][0]
            return self._graph_targets(outputs, name)
        by_bag = zip(
            *graphs_of_bags(
                self,
                network_name,
                lambda bag, label: bag._graph_by_target(table, label, f"{label}_{name}"),
            ),
            strict=True,
        )
        return [
            (pairs[0][0], mean_of_graphs([result for _, result in pairs], f"{name}_{i}"))
            for i, pairs in enumerate(by_bag)
        ]


def _column(table, index):
    """A column of y; objects that are all numbers or bools as such."""
    return table.iloc[:, index].infer_objects()


def both_classes(p):
    """Probabilities of all classes, from those of the second of two or of all."""
    return np.hstack([1 - p, p]) if p.shape[1] == 1 else p


def _check_names(parameter, by_target, names):
    unknown = [name for name in by_target if name not in names]
    if unknown:
        raise ValueError(f"{parameter} names {unknown!r}, but the targets in y are {names!r}.")
