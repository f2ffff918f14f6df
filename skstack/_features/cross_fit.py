"""Cross-fitting: the features of a row come from a model that was not trained on it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.linalg import orthogonal_procrustes
from sklearn.base import is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skstack._base.disk_table import DiskTable, in_memory, new_array
from skstack._base.parallel import run_parts
from skstack._base.params import (
    clone_part,
    is_bool,
    is_keras_model,
    is_network_estimator,
    without_passthrough,
)
from skstack._base.progress import errors_named, fitting, propagating, reserve_tasks
from skstack._base.sklearn import is_classifier_for, offers, take_metadata, wrapper_of
from skstack._base.tables import (
    check_target,
    glanced,
    kind_of_target,
    n_rows,
    own_rows,
    take_rows,
    taken,
)
from skstack._base.text import described
from skstack._estimators.bags import is_bagged, refuse_bags
from skstack._estimators.multi_task import KerasMultiTask
from skstack._estimators.resampling import resample
from skstack._features.adapters import (
    FEATURES,
    OF_CLASSES,
    OF_EXCLUSIVE_CLASSES,
    OF_PROBABILITIES,
    Columns,
    ModelAdapter,
    adapted,
    certain_names,
    columns_of,
    floats,
    is_detector,
    refuse_labels,
)
from skstack._features.cache import CachedNetwork
from skstack._splits.folds import smallest_training_rows
from skstack._splits.row_context import RowContext, may_split, pass_context, refuse_unreached
from skstack._splits.supervision import learns_from_y, parts_of, requires_y, trains
from skstack.networks._heads import probabilities_of
from skstack.preprocessing._column_profile import ColumnProfile

_WITHOUT_LAYERS = ("sklearn", "imblearn")  # packages; other estimators may keep a `model_`
_INDICATOR = [np.arange(2)]  # the classes of a label
FEW_ROWS = 8  # that tell the names of features


@dataclass(frozen=True)
class FeatureRequest:
    """Which features of an upstream model are requested."""

    features: tuple[str, ...]
    layers: tuple[str, ...]
    pooling: str
    steps_output: bool = False

    @classmethod
    def of(cls, features, layers, pooling, steps_output):
        """Read the parameters of a KerasFeatureTransformer."""
        requested, layers = _listed(features), _listed(layers)
        if features is None and not layers:
            requested = ("outputs",)
        unknown = [feature for feature in requested if feature not in FEATURES]
        if unknown:
            raise ValueError(
                f"features={features!r} holds {unknown}; expected some of {list(FEATURES)}."
            )
        if not requested and not layers:
            raise ValueError("features and layers are both empty; name at least one.")
        return cls(requested, layers, pooling, steps_output)

    def __post_init__(self):
        if not all(isinstance(layer, str) for layer in self.layers):
            raise TypeError(f"layers={self.layers!r} must be a name, or a list of names.")
        for name, listed in (("features", self.features), ("layers", self.layers)):
            if len(set(listed)) < len(listed):
                raise ValueError(f"{name}={list(listed)!r} contains duplicates.")


def _listed(value):
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


@dataclass(frozen=True)
class Metadata:
    """Metadata of the rows: keyword arguments of the splitter, the steps and the estimator."""

    split: dict = field(default_factory=dict)
    steps: dict = field(default_factory=dict)
    fit: dict = field(default_factory=dict)

    def of(self, X, rows):
        """The metadata of some rows of X."""
        parts = (self.split, self.steps, self.fit)
        return Metadata(*(take_metadata(X, part, rows) for part in parts))


@dataclass(frozen=True)
class FittedUpstream:
    """A fitted upstream model: steps, then a network or estimator."""

    steps: Any
    view: Any
    profile: ColumnProfile

    def columns(self, X, request, check=None):
        """Features of rows, a list of ``Columns``; ``check`` is called with the network's input."""
        if isinstance(X, DiskTable):
            return columns_in_chunks(lambda rows: self.columns(rows, request, check), X)
        X = X if self.steps is None else self.steps.transform(own_rows(X))
        if check is not None:
            check(X)
        columns = columns_of(self.view, X, request.features, request.layers, request.pooling)
        if request.steps_output:
            columns.append(self._steps_output(X))
        return columns

    def _steps_output(self, X):
        X = X.toarray() if hasattr(X, "toarray") else X
        names = list(getattr(X, "columns", [f"x{index}" for index in range(X.shape[1])]))
        values = floats(X)
        return Columns(tuple(names), values, self.view.out_of_fold, transformed=True)

    def graph(self, table, request, name):
        """Features as tensors, in the order of `columns`."""
        from skstack._graph.dispatch import transformed
        from skstack._graph.onnx_parts import on_profile
        from skstack._graph.sklearn_steps import listed_steps
        from skstack._graph.tables import numbers_of

        if self.steps is not None:
            table = transformed(listed_steps(self.steps), table, f"{name}_")
        with on_profile(self.profile):
            tensors = self.view.graph(table, request, name)
        if request.steps_output:
            tensors.append(numbers_of(table, range(len(table.columns)), f"{name}_steps", name))
        return tensors


def columns_in_chunks(columns_of_rows, X):
    """``Columns`` of a table on disk: values that are many are kept in files."""
    columns = None
    for rows, chunk in X.chunks():
        part = columns_of_rows(chunk)
        if columns is None:
            shapes = [(len(X), each.values.shape[1]) for each in part]
            columns = [
                replace(each, values=new_array(shape, each.values.dtype))
                for each, shape in zip(part, shapes, strict=True)
            ]
        for whole, own in zip(columns, part, strict=True):
            whole.values[rows] = own.values
    return columns


class UpstreamSpec:
    """An upstream model before it is fitted: a keras.Model, a FrozenEstimator or an estimator.

    The last step of a Pipeline provides the features; the steps before are fitted with it in each
    fold. Samplers among them resample the training rows of the last step only.

    ``y`` are the targets of the whole fit, None if they are not passed to the model; ``blocks`` are
    not fitted, for the inputs of a ``keras.Model``; ``memory`` is a cache for outputs of a frozen
    network. ``crossed`` is whether all features must be out-of-fold, with or without y: in a
    time-ordered branch, with the folds ``ordered_cv``, everything is fitted on earlier rows only.
    """

    def __init__(
        self,
        model,
        y,
        blocks,
        rows_at_once=None,
        memory=None,
        *,
        ordered_cv=None,
        crossed=False,
        label="model",
    ):
        self.steps = None
        if isinstance(model, Pipeline):
            model = without_passthrough(model)
            self.steps, model = (model[:-1] if len(model.steps) > 1 else None), model.steps[-1][1]
        frozen_steps = None
        self.frozen = is_keras_model(model) or isinstance(model, FrozenEstimator)
        if isinstance(model, FrozenEstimator):
            model = without_passthrough(_unfrozen(model.estimator))
            if isinstance(model, Pipeline):
                frozen_steps, model = model[:-1] if len(model.steps) > 1 else None, model[-1]
        self.model = model
        self.frozen_steps = frozen_steps
        self.blocks = blocks
        self.rows_at_once = rows_at_once
        self.memory = memory
        self.ordered_cv = ordered_cv
        self.ordered = ordered_cv is not None
        self.label = label
        self.resamples = self.steps is not None and any(
            hasattr(step, "fit_resample") for _, step in self.steps.steps
        )
        # Models that are known to ignore y never receive it.
        self.steps_learn = y is not None and self.steps is not None and learns_from_y(self.steps)
        self.model_learns = y is not None and not self.frozen and learns_from_y(model)
        self.supervised = self.steps_learn or self.model_learns
        self.needs_y = (not self.frozen and requires_y(model)) or (
            self.steps is not None and requires_y(self.steps)
        )
        self.trained = not self.frozen or (self.steps is not None and trains(self.steps))
        self.out_of_fold = self.supervised or (crossed and self.trained)
        self.ours = is_network_estimator(model)
        # Networks alone are trained on, or read, a table on disk.
        self.needs_all_rows = self.steps is not None or not (self.ours or self.frozen)
        self.codes = _codes(model, y)
        self._prepared, self._blocks_of_all = None, None
        self.classes, self.labels, self.tasks = None, None, {}
        if not isinstance(model, KerasMultiTask):
            self.classes = self._classes_of(y)
            if self.classes is None:
                self.labels = self._labels_of(y)
        elif self.frozen or self.model_learns:
            self.tasks = model.tasks_ if self.frozen else model._tasks_of(y)

    def _classes_of(self, y):
        """All classes of a single target; None for numbers, several labels and unlabelled rows."""
        model = self.model
        if self.frozen:
            several = getattr(model, "_target_type", None) == "multilabel-indicator"
            return None if several else _one_dimensional(getattr(model, "classes_", None))
        if self.model_learns and is_regressor(model):
            check_target(y, estimator=model)  # older scikit-learn warns of whole numbers' kind
            return None
        kind = kind_of_target(y, model) if self.model_learns else None
        if kind in ("binary", "multiclass") and is_classifier_for(model, y):
            return np.unique(y)
        if is_classifier(model) and kind in ("continuous", "continuous-multioutput"):
            raise ValueError(
                f"y holds a continuous target, but the upstream {type(model).__name__} learns "
                "classes."
            )
        return None

    def _labels_of(self, y):
        """All classes of each of several labels; None for other targets."""
        if self.frozen:
            classes = getattr(self.model, "classes_", None)
            indices = classes is not None and not isinstance(classes, list)
            return _INDICATOR * len(classes) if indices else classes
        kind = kind_of_target(y, self.model) if self.model_learns else None
        several = kind in ("multilabel-indicator", "multiclass-multioutput")
        if not several or not is_classifier_for(self.model, y):
            return None
        return [np.unique(column) for column in np.asarray(y).T]

    def known_names(self, request, y):
        """Names of features that are certain before training; there may be more."""
        if self.tasks or self.labels is not None:
            request = replace(request, features=())
        single = y is not None and np.shape(y)[1:] in ((), (1,))
        return certain_names(self.model, request, self.classes, single=single)

    def needs_folds(self, request):
        """Whether some features of training rows must be out-of-fold."""
        differs = "reconstruction_error" in request.features
        differs |= "outputs" in request.features and is_detector(self.model)
        return self.out_of_fold or (differs and not self.frozen)

    def _check(self, request):
        """Refuse features that the estimator cannot provide, before training."""
        name = type(self.model).__name__
        of_classes = [feature for feature in request.features if feature in OF_CLASSES]
        if of_classes and self.tasks and "classification" not in self.tasks.values():
            raise ValueError(
                f"features={of_classes} need classification targets, but those of {name} are "
                f"{self.tasks}."
            )
        exclusive = [each for each in request.features if each in OF_EXCLUSIVE_CLASSES]
        if exclusive and self.labels is not None:
            refuse_labels(exclusive, name)
        if self.frozen:
            if self.ours and request.layers:
                refuse_bags(self.model, f"layers={list(request.layers)!r}")
                self._check_layers(self.model.network_, request)
            if not (is_keras_model(self.model) or wrapper_of(self.model)):
                self._refuse_what_it_lacks(request)
            return
        if not any(hasattr(self.model, method) for method in _OUTPUT_METHODS):
            raise ValueError(
                f"{self.label} is {described(self.model)}, which has none of the methods "
                f"{', '.join(_OUTPUT_METHODS)}."
            )
        _refuse_samplers_inside(self.steps, self.label)
        stops = is_bool(getattr(self.model, "early_stopping", False), True)
        # Without a fraction, boosting monitors its training rows.
        if self.resamples and stops and getattr(self.model, "validation_fraction", 0) is not None:
            raise ValueError(
                f"{self.label}: {name}(early_stopping=True) after a sampler would monitor "
                "synthetic or repeated rows. Use sampler=... of KerasClassifier, which holds out "
                "rows first, or early_stopping=False."
            )
        if wrapper_of(self.model):  # the output of wrappers is known only after the fit
            return
        requested = [feature for feature in request.features if feature in OF_PROBABILITIES]
        if requested and not offers(self.model, "predict_proba"):
            raise ValueError(
                f"features={requested} need probabilities, but {name} has no predict_proba."
            )
        self._refuse_what_it_lacks(request)
        if request.layers and self.ordered and not self.ours:
            raise ValueError(
                f"layers={list(request.layers)}: the units of separately trained networks of "
                f"{name} do not correspond, and in a time-ordered fit they cannot be rotated "
                "onto a network that was trained on later rows. Use a network estimator of "
                "skstack, or features=... instead of layers."
            )
        rebuilds = hasattr(self.model, "reconstruction_error") or (
            hasattr(self.model, "inverse_transform") and hasattr(self.model, "transform")
        )
        if "reconstruction_error" in request.features and not rebuilds:
            raise ValueError(
                "features='reconstruction_error' needs an output of the input's shape; "
                f"{name} has neither reconstruction_error nor inverse_transform."
            )

    def _refuse_what_it_lacks(self, request):
        """Refuse codes and layers that an estimator of this type does not have."""
        name = type(self.model).__name__
        if "codes" in request.features and not (self.tasks or self._has_codes()):
            raise ValueError(
                "features='codes' needs the classes of a classifier with predict_proba, or the "
                f"whole numbers of a transformer; {name} has none."
            )
        if request.layers and type(self.model).__module__.partition(".")[0] in _WITHOUT_LAYERS:
            raise ValueError(
                f"layers={list(request.layers)}: {name} has no Keras network whose layers could be "
                "read. Use a network estimator of skstack, or features=... instead of layers."
            )

    def _has_codes(self):
        """Whether an estimator has probabilities of classes, or transforms."""
        if offers(self.model, "predict_proba"):
            return self.classes is not None
        predicts = is_classifier(self.model) or is_regressor(self.model)
        return hasattr(self.model, "transform") and not predicts

    @staticmethod
    def _check_layers(network, request):
        from skstack._training.keras_model import check_layers

        check_layers(network.blueprint, request.layers)

    def prepared(self, X, y, metadata, repeats, request, *, refit, early=False):
        """Check what can be known before training; the result of ``shared_context``.

        ``early`` is whether steps are fitted only to try a frozen network on what they return.
        """
        if self._prepared is None:
            for folds in repeats:
                self.check_context(X, y, metadata, folds.pairs)
            foreign = self.out_of_fold and not (self.ours or self.frozen)
            if request.layers and not refit and foreign:
                raise ValueError(
                    "refit=False averages inner layers over folds, which requires equal initial "
                    f"weights; those of {type(self.model).__name__} cannot be set. Use refit=True."
                )
            if is_keras_model(self.model) and (early or self.steps is None):
                self._view = self._model_view(self._after_steps(X, y))
                if request.layers:
                    self._check_layers(self._view.network, request)
            if self.steps is None:  # else they are fitted first
                self._find_labels(in_memory(take_rows(X, slice(0, FEW_ROWS))))
            weights = metadata.fit.get("sample_weight")
            self._prepared = (self.shared_context(X, y, request, weights),)
        return self._prepared[0]

    def check_rows(self, X):
        """Refuse rows of the user that a network, without steps before it, cannot read."""
        if self.steps is not None or self.frozen_steps is not None:
            return
        if is_keras_model(self.model):
            self._view.blocks.split(X)
        elif self.frozen and self.ours:
            self.model.blocks_.split(X)
        elif self._blocks_of_all is not None:
            self._blocks_of_all.split(X)

    def _after_steps(self, X, y):
        """All rows as the last step receives them."""
        if self.steps is not None:
            X = in_memory(X)
            self._steps_of_all, _, _, _ = self._fitted_steps(own_rows(X), y, Metadata())
            if self._steps_of_all is not None:
                X = self._steps_of_all.transform(own_rows(X))
            self._width = X.shape[1] if hasattr(X, "shape") else None
        return X

    def shared_context(self, X, y, request, weights=None, check=None):
        """The ``CrossFitContext`` of the networks of a cross-fit; None for other estimators.

        If steps learn from y, or rows are time-ordered, columns and categories of all rows would
        leak into the folds; then only classes are shared. Latent features of a time-ordered fit
        also share categories, because their units must correspond. ``check`` is called with the
        blueprint of a network that is trained.
        """
        self._check(request)
        if self.frozen or not self.ours:
            return None
        X = self._after_steps(X, y)
        targets = y if self.model_learns else None
        shared = self.model._cross_fit_context(X, targets, request.layers, weights, check)
        # Inner layers and latent features need equal initial weights, hence shapes, in all folds.
        axes = request.layers or ("outputs" in request.features and not self.model_learns)
        own = self.steps_learn or (self.ordered and not axes)
        self._blocks_of_all = shared.blocks
        return replace(shared, blocks=None) if own else shared

    def splits_inside(self):
        """Whether a part may split its training rows by itself."""
        own = [] if self.frozen or (self.ours and not self.resamples) else [self.model]
        return any(map(may_split, own if self.steps is None else [self.steps, *own]))

    def check_context(self, X, y, metadata, pairs):
        """Refuse, before training, parts that would split rows without groups or time order."""
        if not self.splits_inside():
            return
        rows = smallest_training_rows(pairs, metadata.split.get("groups"))
        metadata = metadata.of(X, rows)
        X, y = taken(rows, X, y)
        context = RowContext(metadata.split.get("groups"), self.ordered_cv, all_rows=False)
        if self.steps is not None:
            pass_context(clone_part(self.steps), context, X, y)
        if self.resamples and not self.frozen:
            refuse_unreached(self.model, context, "a sampler before it changes the rows")
        elif not (self.frozen or self.ours):
            pass_context(clone_part(self.model), context, X, y, only_fit=True)

    def fit(self, X, y, metadata, shared, *, all_rows=True):
        """Fit steps and estimator; ``all_rows`` is False for the training rows of a fold."""
        steps, context = None, RowContext(metadata.split.get("groups"), self.ordered_cv, all_rows)
        X = in_memory(X) if self.needs_all_rows else X
        if self.steps is not None:
            X = own_rows(X) if all_rows else X  # those of a fold are a copy
            steps, X, y, metadata = self._fitted_steps(X, y, metadata, context, shared)
            same_blocks = shared is not None and shared.blocks is not None
            if same_blocks and self._width != getattr(X, "shape", (0, None))[1]:
                raise ValueError(
                    f"The steps before {type(self.model).__name__} return {X.shape[1]} columns for "
                    f"the training rows of a fold, but {self._width} for all training rows; the "
                    "networks of a cross-fit need equal shapes. Fix the number of columns, for "
                    "example with categories=... of OneHotEncoder."
                )
        model = self.model
        if self.frozen_steps is not None:
            steps = self._joined_steps(steps)
        if is_keras_model(model):
            view = self._model_view(X) if self.steps is not None else self._view
            profile = ColumnProfile.of(X, self.blocks.categorical_features)
            return FittedUpstream(steps, view, profile)
        if self.frozen and self.ours and not is_bagged(model):
            model = copy.copy(model)
            model.network_ = CachedNetwork(model.network_, self.memory)
        if not self.frozen:
            targets = y if self.model_learns else None
            model = self._fitted(X, targets, metadata.fit, shared, context)
        self._find_labels(X)
        # Networks of skstack record the profile of their training rows.
        profile = model.input_profile_ if self.ours else None
        if profile is None and self.frozen_steps is not None:
            rows = own_rows(in_memory(glanced(X)[0]))
            profile = ColumnProfile.of(self.frozen_steps.transform(rows))
        return FittedUpstream(
            steps,
            adapted(model, self.out_of_fold, self.classes, self.rows_at_once, self.labels),
            ColumnProfile.of(X) if profile is None else profile,
        )

    def _find_labels(self, X):
        """See on a few rows if the classes of a frozen classifier are indices of labels."""
        asks = self.frozen and self.classes is not None and hasattr(self.model, "predict")
        if not asks or self.ours:  # see `_classes_of`
            return
        rows = own_rows(take_rows(X, slice(0, FEW_ROWS)))
        if self.frozen_steps is not None:
            rows = self.frozen_steps.transform(rows)
        if np.shape(self.model.predict(own_rows(rows)))[1:] in ((), (1,)):
            return
        probabilities = probabilities_of(self.model)
        if probabilities is None or not np.allclose(np.sum(probabilities(rows), axis=1), 1):
            self.classes, self.labels = None, _INDICATOR * len(self.classes)

    def _model_view(self, X):
        """The adapter of a frozen ``keras.Model`` whose input is X."""
        settings = {"out_of_fold": self.out_of_fold, "rows_at_once": self.rows_at_once}
        return ModelAdapter.of(self.model, X, self.blocks, memory=self.memory, **settings)

    def _fitted_steps(self, X, y, metadata, context=None, shared=None):
        """Fitted steps, and rows, targets and metadata for the last step."""
        steps = clone_part(self.steps)
        if shared is not None:
            self._set_shapes(steps)
        pass_context(steps, RowContext() if context is None else context, X, y)
        if not self.resamples:
            X = steps.fit_transform(X, y if self.steps_learn else None, **metadata.steps)
            return steps, X, y, metadata
        if metadata.steps:
            raise ValueError(
                f"{sorted(metadata.steps)} were routed to the steps of {self.label}, but a sampler "
                "among them changes the rows."
            )
        fitted, run, fit = [], [], dict(metadata.fit)
        fit.pop("groups", None)
        for name, step in [*steps.steps, ("end", None)]:
            samples = hasattr(step, "fit_resample")
            if run and (samples or step is None):
                part = Pipeline(run)
                X = part.fit_transform(X, y if learns_from_y(part) else None)
                fitted, run = fitted + part.steps, []
            if samples:
                if hasattr(X, "columns") and not hasattr(X, "iloc"):
                    X = X.to_pandas()  # samplers support pandas only
                new = resample(step, X, y, fit.get("sample_weight"))
                X, y = new.X, new.y
                if "sample_weight" in fit:
                    fit["sample_weight"] = new.sample_weight
            elif step is not None:
                run.append((name, step))
        return Pipeline(fitted) if fitted else None, X, y, replace(metadata, fit=fit)

    def _set_shapes(self, steps):
        """Set the output shape of all training rows in steps that learn it."""
        of_all = {} if self._steps_of_all is None else dict(self._steps_of_all.steps)
        for name, step in steps.steps:
            if hasattr(step, "_take_shape"):
                step._take_shape(of_all[name])

    def _fitted(self, X, y, metadata, shared, context):
        estimator = clone_part(self.model)
        if self.resamples:
            if getattr(estimator, "early_stopping", None) == "auto":
                estimator.set_params(early_stopping=False)
            refuse_unreached(estimator, context, "a sampler before it changes the rows")
            context = RowContext(all_rows=context.all_rows)
        if shared is not None:
            with propagating(estimator):
                return estimator._fit_in_context(X, y, shared, ordered=context.ordered, **metadata)
        pass_context(estimator, context, X, y, only_fit=True)
        if self.codes is not None:
            y = np.searchsorted(self.codes, y)
        if "sample_weight" in metadata:  # scikeras modifies it in place
            metadata = {**metadata, "sample_weight": metadata["sample_weight"].copy()}
        X = own_rows(X)
        with propagating(estimator):
            if y is None:
                return estimator.fit(X, **metadata)
            return estimator.fit(X, y, **metadata)

    def _joined_steps(self, steps):
        parts = [] if steps is None else [("steps", steps)]
        return Pipeline([*parts, ("frozen", FrozenEstimator(self.frozen_steps))])


# Methods that provide features.
_OUTPUT_METHODS = ("predict_proba", "decision_function", "predict", "transform")


def _refuse_samplers_inside(steps, label):
    """Refuse samplers that would resample X without y, or only some columns."""
    if steps is None:
        return
    of_imblearn = type(steps).__module__.partition(".")[0] == "imblearn"
    left = [step for _, step in steps.steps if not (of_imblearn and hasattr(step, "fit_resample"))]
    while left:
        part = left.pop()
        if hasattr(part, "fit_resample") and parts_of(part) is None:
            raise ValueError(
                f"{label}: the sampler {described(part)} would resample X without y, "
                "or only some columns. Make it a step of one Pipeline of "
                "imbalanced-learn: imblearn.pipeline.make_pipeline(scaler, sampler, estimator)."
            )
        left += parts_of(part) or ()


def _unfrozen(estimator):
    """The estimator inside a ``FrozenEstimator``, which must be fitted.

    Keras documents ``FrozenEstimator(SKLearnTransformer(model))`` for a trained model; such a
    wrapper is never fitted, and the model itself is used.
    """
    model = getattr(estimator, "model", None)
    documented = wrapper_of(estimator) == "keras" and hasattr(estimator, "transform")
    if documented and not hasattr(estimator, "model_"):
        if is_keras_model(model) and model.built:
            return model
        raise NotFittedError(
            f"FrozenEstimator({type(estimator).__name__}(...)) was never fitted, and its model is "
            "not a built keras.Model. Fit it first, build the model, or pass the estimator without "
            "FrozenEstimator."
        )
    check_is_fitted(estimator)
    return estimator


def _codes(model, y):
    """The labels of the codes 0, 1, ...; None if y can be passed unchanged.

    The transformer of ``keras.wrappers`` is not a classifier and passes y to its network unchanged.
    """
    passes_y = wrapper_of(model) == "keras" and hasattr(model, "transform")
    if not passes_y or y is None or np.asarray(y).dtype.kind not in "OUS":
        return None
    return np.unique(np.asarray(y))


def _one_dimensional(classes):
    return None if classes is None or isinstance(classes, list) else classes


@dataclass(frozen=True)
class FoldFeatures:
    """Features of all rows as a stack without one fold would make them.

    Those of the rows of the fold come from ``upstream``, the model of the other folds; those of the
    other rows from models that were fitted without this fold, and without their own. ``rows`` are
    those that have features, None if all have.
    """

    columns: list[Columns]
    upstream: FittedUpstream
    rows: np.ndarray | None = None


@dataclass(frozen=True)
class CrossFit:
    """Result of ``fit_upstreams``."""

    columns: list[Columns] | None  # features of all rows, if there are folds
    upstreams: list[FittedUpstream]  # for new rows: that of all rows, or one per fold
    without_fold: list[dict[int, FoldFeatures]] | ValueError  # by repeat and fold, if requested
    histories: tuple = ()  # losses and metrics by epoch of the networks of the folds


def number_of_fits(source, repeats, *, refit, scored=None):
    """The number of tasks of ``fit_upstreams``; see there."""
    counts = [len(folds.pairs) for folds in repeats]
    n = sum(counts) + (refit or source.frozen)
    return n + sum(len(each.two) for each in scored or ())


def fit_upstreams(
    source, X, y, metadata, repeats, request, *, refit, n_jobs, scored=None, verbose=0
):
    """Fit the model of all rows, those of the folds, or both.

    ``repeats`` holds the ``Folds`` of each repeat of the cross-fit: features of all rows, and of
    new rows without ``refit``, are means over them. ``scored`` holds the `ScoredFolds`, by repeat,
    whose `FoldFeatures` are requested, or is None.
    """
    shared = source.prepared(X, y, metadata, repeats, request, refit=refit)
    reference = None
    if refit or source.frozen:
        trained = verbose and not source.frozen
        progress = fitting("all rows", n_rows(X), verbose=trained)
        with errors_named(f"{source.label}, all rows"), progress:
            reference = source.fit(X, y, metadata, shared)
    each, upstreams, histories, without_fold, error = [], [], [], [], None
    for folds, of_repeat in zip(repeats, scored or [None] * len(repeats), strict=True):
        settings = {"reference": reference, "shared": shared, "n_jobs": n_jobs, "verbose": verbose}
        columns, fitted = cross_fit(source, X, y, metadata, folds, request, **settings)
        if scored and source.out_of_fold and error is None:
            common = (source, X, y, metadata, folds, request)
            try:
                without_fold.append(_without_folds(*common, columns, fitted, of_repeat, **settings))
            except ValueError as reason:  # too few rows for this estimator: the caller decides
                error = reason
        each.append(columns)
        upstreams += fitted
        for upstream in fitted:
            history = getattr(getattr(upstream.view, "estimator", None), "history_", None)
            histories += history if isinstance(history, list) else [history]  # those of bags
    return CrossFit(
        mean_columns(each) if each else None,
        upstreams if reference is None else [reference],
        without_fold if error is None else error,
        tuple(history for history in histories if isinstance(history, dict)),
    )


def cross_fit(source, X, y, metadata, folds, request, *, reference, shared, n_jobs, verbose=0):
    """Features of training rows, and the fitted models of the folds.

    ``reference`` is fitted on all rows: it provides the features that need not be out-of-fold, and
    the axes for inner layers of networks whose initial weights cannot be set. Features of rows that
    are never predicted are NaN.
    """
    labels = [f"fold {number + 1} of {len(folds.pairs)}" for number in range(len(folds.pairs))]
    results = _fit_folds(
        source, X, y, metadata, folds.pairs, labels, request,
        reference=reference, shared=shared, n_jobs=n_jobs, verbose=verbose,
    )  # fmt: skip
    upstreams = [upstream for upstream, _ in results]
    if not source.ours and not source.frozen:
        _refuse_one_network(source.model, [reference, *upstreams])
    whole = None
    if isinstance(X, DiskTable) and reference is not None:
        # A few rows tell the names of features that are all out-of-fold.
        whole = reference.columns(take_rows(X, slice(0, FEW_ROWS)), request)
    if reference is not None and (whole is None or not all(c.out_of_fold for c in whole)):
        whole = reference.columns(X, request)
    fold_columns = [columns for _, columns in results]
    _check_same_columns(source, fold_columns if whole is None else [whole, *fold_columns])
    _warn_if_axes_differ(source, X, folds, request, reference, upstreams, fold_columns)
    merged = []
    for index, first in enumerate(fold_columns[0] if whole is None else whole):
        if whole is not None and not first.out_of_fold:
            merged.append(first)
            continue
        dtype = np.result_type(*(columns[index].values for columns in fold_columns))
        shape = n_rows(X), first.values.shape[1]
        if isinstance(X, DiskTable):
            values = new_array(shape, dtype)
        else:
            values = np.empty(shape, dtype)
        if not folds.covered.all():
            values[~folds.covered] = np.nan
        for (_, test), columns in zip(folds.pairs, fold_columns, strict=True):
            values[test] = columns[index].values
        merged.append(replace(first, values=values))
    return merged, upstreams


def _fit_folds(
    source, X, y, metadata, pairs, labels, request, *, reference, shared, n_jobs, verbose
):
    """For each (train, test) a fitted model and the features of the test rows."""
    rotates = source.out_of_fold and not source.ours and not source.frozen
    first = reserve_tasks(len(pairs))
    if wrapper_of(source.model) == "scikeras" and source.model.random_state is not None:
        n_jobs = 1  # it sets, and resets, determinism of the whole process
    reference = reference if rotates else None
    return run_parts(
        _fit_fold,
        (source, X, y, metadata, request, shared, reference, verbose),
        _PartsOfFolds(labels, first, pairs),
        n_jobs=n_jobs,
    )


class _PartsOfFolds(Sequence):
    """Label, task and rows of each fold, made when asked for: all of them may be many rows."""

    def __init__(self, labels, first, pairs):
        self._labels, self._first, self._pairs = labels, first, pairs

    def __len__(self):
        return len(self._labels)

    def __getitem__(self, number):
        return (self._labels[number], self._first + number, *self._pairs[number])


def _fit_fold(
    source, X, y, metadata, request, shared, reference, verbose, label, task_id, train, test
):
    """The model of the training rows of a fold, and the features of its test rows."""
    rows, targets = taken(train, X, y)
    with errors_named(f"{source.label}, {label}"):
        with fitting(label, len(train), verbose=verbose, task_id=task_id):
            upstream = source.fit(rows, targets, metadata.of(X, train), shared, all_rows=False)
        columns = upstream.columns(take_rows(X, test), request)
    if reference is not None and any(column.inner for column in columns):
        columns = _aligned(columns, upstream.columns(rows, request), reference, rows, request)
    return upstream, columns


def _without_folds(source, X, y, metadata, folds, request, columns, upstreams, scored, **settings):
    """The `FoldFeatures` of `ScoredFolds`, by number.

    For each pair of folds one model is fitted without both. In time-ordered folds none is: those
    that make the features of earlier rows were fitted on still earlier ones.
    """
    numbers, two = scored
    if not two:
        return {number: FoldFeatures(columns, upstreams[number]) for number in numbers}
    tests = [test for _, test in folds.pairs]
    pairs = _WithoutTwo(folds.pairs, two)
    labels = [f"without folds {one + 1} and {other + 1} of {len(tests)}" for one, other in two]
    results = _fit_folds(source, X, y, metadata, pairs, labels, request, **settings)
    rows, without = {}, {}
    for number in numbers:
        without[number] = [replace(each, values=_copied(each.values, X)) for each in columns]
        others = scored.others(number)
        rows[number] = None
        if len(others) < len(tests) - 1:
            rows[number] = np.sort(np.concatenate([tests[fold] for fold in (number, *others)]))
            unknown = np.delete(np.arange(n_rows(X)), rows[number])
            for each in without[number]:  # their features know labels of the fold
                each.values[unknown] = np.nan if each.values.dtype.kind == "f" else 0
    for (first, second), (_, features) in zip(two, results, strict=True):
        cut = len(tests[first])
        for own, feature in enumerate(features):
            if second in without:
                without[second][own].values[tests[first]] = feature.values[:cut]
            if first in without:
                without[first][own].values[tests[second]] = feature.values[cut:]
    return {
        number: FoldFeatures(own, upstreams[number], rows[number])
        for number, own in without.items()
    }


class _WithoutTwo(Sequence):
    """Training rows without two folds, and the rows of these, made when asked for."""

    def __init__(self, pairs, two):
        self._pairs, self._two = pairs, two

    def __len__(self):
        return len(self._two)

    def __getitem__(self, number):
        (own, test), (others, other) = (self._pairs[fold] for fold in self._two[number])
        # What the folds train on may be fewer rows than those of the other folds.
        return np.intersect1d(own, others), np.concatenate([test, other])


def _copied(values, X):
    """A copy of features, in a file if they are large and those of a table on disk."""
    if not isinstance(X, DiskTable):
        return values.copy()
    copied = new_array(values.shape, values.dtype)
    copied[:] = values
    return copied


def mean_columns(each):
    """The mean of several results for the same rows."""
    first, *others = each
    if not others:
        return first
    return [
        replace(group[0], values=np.mean([columns.values for columns in group], axis=0))
        for group in zip(first, *others, strict=True)
    ]


def _check_same_columns(source, fits):
    """Refuse features whose number, or meaning, differs between fits."""
    names = [[name for columns in each for name in columns.names] for each in fits]
    counts = sorted({len(each) for each in names})
    if len(counts) > 1:
        raise ValueError(
            f"{source.label} returns {counts[0]} columns if it is fitted on some training rows and "
            f"{counts[-1]} on others ({', '.join(max(names, key=len)[:5])}, ...), but the "
            "number of columns must be constant. Fix it, for example with k=... of SelectKBest or "
            "categories=... of an encoder."
        )
    # The columns of a transformer may be called after those that it has selected.
    fixed = [[each.names for each in fit if not each.transformed] for fit in fits]
    if any(each != fixed[0] for each in fixed):
        own = sorted({name for each in fixed for group in each for name in group})
        raise ValueError(
            f"{source.label} returns columns with another meaning if it is fitted on other "
            f"training rows ({', '.join(own[:5])}), because some of these lack classes. Use folds "
            "that hold all classes, such as StratifiedKFold, or an estimator with predict_proba."
        )


SMALLEST_CORRELATION = 0.5
ROWS_COMPARED = 2_000


def _warn_if_axes_differ(source, X, folds, request, reference, upstreams, fold_columns):
    """Warn if a column of a transformer has different meanings in different folds.

    Each fold's model is compared with the refitted one (or that of the first fold) on rows that
    both were trained on.
    """
    averages = reference is None  # also features that come from one fit otherwise
    transforms = any(
        columns.transformed and (columns.out_of_fold or averages) for columns in fold_columns[0]
    )
    if not transforms or type(source.model).__name__ == "TargetEncoder":
        return
    target, target_rows = reference, np.arange(n_rows(X))
    if target is None:
        target, target_rows = upstreams[0], folds.pairs[0][0]
    lowest = {}
    for upstream, (train, _) in zip(upstreams, folds.pairs, strict=True):
        both = np.intersect1d(train, target_rows)[:ROWS_COMPARED]
        if upstream is target or len(both) < 3:
            continue
        rows = take_rows(X, both)
        pairs = zip(upstream.columns(rows, request), target.columns(rows, request), strict=True)
        for own, other in pairs:
            if own.transformed:
                for name, r in zip(other.names, _correlations(own, other), strict=True):
                    lowest[name] = min(r, lowest.get(name, 1))
    lowest = {name: r for name, r in lowest.items() if r < SMALLEST_CORRELATION}
    if lowest:
        name = min(lowest, key=lowest.get)
        settings = "passes_y=False, refit=True" if averages else "passes_y=False"
        remedy = (
            f"If it does not need y, KerasFeatureTransformer(..., {settings}) fits it once, "
            "without y."
        )
        if not source.supervised:
            remedy = "Use refit=True, which fits it once."
            if source.ordered:
                remedy = "Use features with a fixed meaning, such as reconstruction_error."
        warnings.warn(
            f"{source.label}: the meaning of {len(lowest)} column(s) of "
            f"{type(source.model).__name__} differs between folds. Fitted on "
            f"{'two folds' if averages else 'a fold and on all rows'}, the two columns {name!r} "
            f"have a correlation of {lowest[name]:.2f} on the same rows. {remedy}",
            UserWarning,
            stacklevel=2,
        )


def _correlations(own, other):
    """Correlation of each column with its counterpart; 1 if both are constant."""
    a, b = (each.values - each.values.mean(axis=0, dtype=np.float64) for each in (own, other))
    norms = np.linalg.norm(a, axis=0), np.linalg.norm(b, axis=0)
    product = norms[0] * norms[1]
    r = (a * b).sum(axis=0) / np.where(product > 0, product, 1)
    return np.where((norms[0] == 0) & (norms[1] == 0), 1.0, r)


def _refuse_one_network(model, upstreams):
    """Refuse fits that continued training one network: its features would be in-sample."""
    seen = set()
    for upstream in upstreams:
        estimator = getattr(getattr(upstream, "view", None), "estimator", None)
        network = getattr(estimator, "model_", None)
        if not is_keras_model(network):
            continue
        own = {id(variable) for variable in network.variables}
        if own & seen:
            raise ValueError(
                f"The function that builds the network of {type(model).__name__} returns the same "
                "network or layers in every call, so that each fold continued training a network "
                "that was trained on its test rows. Create the layers inside the function."
            )
        seen |= own


def _aligned(columns, own, reference, rows, request):
    """Rotate the inner layers of a fold onto the axes of the reference.

    The rotation (orthogonal Procrustes: Schoenemann, Psychometrika 31, 1966) is estimated on rows
    that both networks were trained on.
    """
    aligned = []
    for test, train, target in zip(columns, own, reference.columns(rows, request), strict=True):
        if test.inner:
            centre, shift = train.values.mean(axis=0), target.values.mean(axis=0)
            rotation, _ = orthogonal_procrustes(train.values - centre, target.values - shift)
            test = replace(test, values=((test.values - centre) @ rotation + shift))
        aligned.append(test)
    return aligned


def mean_of(upstreams, X, request, check=None):
    """Mean features of several upstream models; ``check`` is called with the first one's input."""
    first, *others = upstreams
    each = [first.columns(X, request, check)]
    return mean_columns(each + [upstream.columns(X, request) for upstream in others])
