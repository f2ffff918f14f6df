"""Cross-fitting: the network that makes a row's features has not seen the row."""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.linalg import orthogonal_procrustes
from sklearn.base import is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from skstack._checks import (
    is_classifier_for,
    kind_of_target,
    n_rows,
    take_metadata,
    take_rows,
    wrapper_of,
)
from skstack._one_fit import shared_by_threads
from skstack._parameters import clone_part
from skstack.networks import is_keras_model
from skstack.stages._cache import Remembered
from skstack.stages._features import FEATURES, OF_PROBABILITIES, Columns
from skstack.stages._profile import ColumnProfile
from skstack.stages._upstream import EstimatorView, ModelView, columns_of, learns_from_y

__all__ = ["Metadata", "Source", "Upstream", "Wanted", "cross_fit", "fit_upstreams", "mean_of"]


@dataclass(frozen=True)
class Wanted:
    """Which features of an upstream are wanted."""

    features: tuple[str, ...]
    layers: tuple[str, ...]
    pooling: str
    steps_output: bool = False

    @classmethod
    def of(cls, features, layers, pooling, steps_output):
        """Read the parameters of a KerasFeatureTransformer."""
        given, layers = _listed(features), _listed(layers)
        if features is None and not layers:
            given = ("outputs",)
        unknown = [feature for feature in given if feature not in FEATURES]
        if unknown:
            raise ValueError(
                f"features={features!r} holds {unknown}; accepted are {list(FEATURES)}."
            )
        if not given and not layers:
            raise ValueError("features and layers are both empty; name at least one.")
        return cls(given, layers, pooling, steps_output)

    def __post_init__(self):
        if not all(isinstance(layer, str) for layer in self.layers):
            raise TypeError(f"layers={self.layers!r} must be a name, or a list of names.")


def _listed(value):
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


@dataclass(frozen=True)
class Metadata:
    """What goes along with the rows: keywords of the splitter, the steps and the estimator."""

    split: dict = field(default_factory=dict)
    steps: dict = field(default_factory=dict)
    fit: dict = field(default_factory=dict)

    def of(self, X, rows):
        """The same for some rows of X."""
        parts = (self.split, self.steps, self.fit)
        return Metadata(*(take_metadata(X, part, rows) for part in parts))


@dataclass(frozen=True)
class Upstream:
    """A fitted upstream: steps, then a network or estimator."""

    steps: Any
    view: Any
    profile: ColumnProfile

    def columns(self, X, wanted, look=None):
        """Features of rows, a list of ``Columns``; ``look`` sees what comes to the network."""
        X = X if self.steps is None else self.steps.transform(X)
        if look is not None:
            look(X)
        columns = columns_of(self.view, X, wanted.features, wanted.layers, wanted.pooling)
        if wanted.steps_output:
            columns.append(self._steps_output(X))
        return columns

    def _steps_output(self, X):
        X = X.toarray() if hasattr(X, "toarray") else X
        names = list(getattr(X, "columns", [f"x{place}" for place in range(X.shape[1])]))
        return Columns(tuple(names), np.asarray(X, dtype=np.float32), self.view.supervised)


class Source:
    """What an upstream is before it is fitted.

    Parameters
    ----------
    model : keras.Model, FrozenEstimator, estimator or Pipeline
        With a Pipeline, the features are those of its last step; the steps before are fitted
        along with it, in each fold anew.

    y : array-like or None
        Targets of the whole fit.

    blocks : ColumnBlocks
        Not fitted: how X becomes the inputs of a frozen ``keras.Model``.

    rows_at_once : int or None

    memory : None, str or joblib.Memory
        Where outputs of a frozen network are stored.
    """

    def __init__(self, model, y, blocks, rows_at_once=None, memory=None):
        self.steps = None
        if isinstance(model, Pipeline):
            self.steps, model = (model[:-1] if len(model.steps) > 1 else None), model.steps[-1][1]
        frozen_steps = None
        self.frozen = is_keras_model(model) or isinstance(model, FrozenEstimator)
        if isinstance(model, FrozenEstimator):
            model = _unfrozen(model.estimator)
            if isinstance(model, Pipeline):
                frozen_steps, model = model[:-1] if len(model.steps) > 1 else None, model[-1]
        self.model = model
        self.frozen_steps = frozen_steps
        self.blocks = blocks
        self.rows_at_once = rows_at_once
        self.memory = memory
        self.learns_from_y = not self.frozen and learns_from_y(model, y)
        steps = [] if self.steps is None else [step for _, step in self.steps.steps]
        self.supervised = self.learns_from_y or any(
            hasattr(step, "fit") and get_tags(step).target_tags.required for step in steps
        )
        self.ours = hasattr(model, "_fit_in_frame")
        self.codes = _codes(model, y)
        self.classes = None
        kind = kind_of_target(y, model) if self.learns_from_y and y is not None else None
        if self.frozen:
            self.classes = _one_dimensional(getattr(model, "classes_", None))
        elif is_classifier_for(model, y) and kind in ("binary", "multiclass"):
            self.classes = np.unique(y)
        elif is_classifier(model) and kind in ("continuous", "continuous-multioutput"):
            raise ValueError(
                f"y holds a continuous target, but the upstream {type(model).__name__} learns "
                "classes."
            )

    def needs_folds(self, wanted):
        """Whether some features of training rows must come from networks that did not see them."""
        errors = "reconstruction_error" in wanted.features and not self.frozen
        return self.supervised or errors

    def _check(self, wanted):
        """Refuse features that the estimator cannot give, before it is trained."""
        if self.frozen or wrapper_of(self.model):  # what wrappers give, the fitted network tells
            return
        name = type(self.model).__name__
        asked = [feature for feature in wanted.features if feature in OF_PROBABILITIES]
        if asked and not hasattr(self.model, "predict_proba"):
            raise ValueError(
                f"features={asked} need probabilities, but {name} has no predict_proba."
            )
        rebuilds = hasattr(self.model, "reconstruction_error") or (
            hasattr(self.model, "inverse_transform") and hasattr(self.model, "transform")
        )
        if "reconstruction_error" in wanted.features and not rebuilds:
            raise ValueError(
                "features='reconstruction_error' needs an output of the input's shape; "
                f"{name} has neither reconstruction_error nor inverse_transform."
            )

    def frame(self, X, y, wanted):
        """What the networks of a cross-fit share; None where they are not ours.

        Raises
        ------
        ValueError
            If the estimator cannot give the features that are wanted.
        """
        self._check(wanted)
        if self.frozen or not self.ours:
            return None
        if self.steps is not None:
            self._steps_of_all = clone_part(self.steps).fit(X, y)
            X = self._steps_of_all.transform(X)
            self._width = X.shape[1] if hasattr(X, "shape") else None
        return self.model._frame(X, y if self.learns_from_y else None, wanted.layers)

    def fit(self, X, y, metadata, frame, *, ordered=False):
        """Fit steps and estimator on training rows.

        Parameters
        ----------
        X, y : table and targets

        metadata : Metadata

        frame : Frame or None

        ordered : bool, default=False
            Whether rows stand in order of time, so that early stopping watches the last ones.

        Returns
        -------
        Upstream
        """
        steps = None
        if self.steps is not None:
            steps = clone_part(self.steps)
            if frame is not None:
                self._shape_alike(steps)
            X = steps.fit_transform(X, y, **metadata.steps)
            if frame is not None and self._width != getattr(X, "shape", (0, None))[1]:
                raise ValueError(
                    f"The steps before {type(self.model).__name__} make {X.shape[1]} columns of "
                    f"the training rows of a fold, but {self._width} of all training rows, and the "
                    "networks of a cross-fit have one shape. Fix what these steps learn, such as "
                    "categories=... of OneHotEncoder."
                )
        model = self.model
        if self.frozen_steps is not None:
            steps = self._joined_steps(steps)
        if is_keras_model(model):
            view = ModelView.of(
                model,
                X,
                self.blocks,
                memory=self.memory,
                supervised=self.supervised,
                rows_at_once=self.rows_at_once,
            )
            return Upstream(steps, view, ColumnProfile.of(X, self.blocks.categorical_features))
        if self.frozen and self.ours:
            model = copy.copy(model)
            model.network_ = Remembered(model.network_, self.memory)
        if not self.frozen:
            targets = y if self.learns_from_y else None
            model = self._fitted(X, targets, metadata.fit, frame, ordered)
        profile = getattr(model, "input_profile_", None)  # ours tell what they have learned from
        return Upstream(
            steps,
            EstimatorView(model, self.supervised, self.classes, self.rows_at_once),
            ColumnProfile.of(X) if profile is None else profile,
        )

    def _shape_alike(self, steps):
        """Steps that learn a shape take that of all training rows."""
        for (_, step), (_, of_all) in zip(steps.steps, self._steps_of_all.steps, strict=True):
            if hasattr(step, "_take_shape"):
                step._take_shape(of_all)

    def _fitted(self, X, y, metadata, frame, ordered):
        estimator = clone_part(self.model)
        if frame is not None:
            return estimator._fit_in_frame(X, y, frame, ordered=ordered, **metadata)
        if self.codes is not None:
            y = np.searchsorted(self.codes, y)
        if "sample_weight" in metadata:  # scikeras multiplies it in place
            metadata = {**metadata, "sample_weight": metadata["sample_weight"].copy()}
        return estimator.fit(X, y, **metadata) if y is not None else estimator.fit(X, **metadata)

    def _joined_steps(self, steps):
        parts = [] if steps is None else [("steps", steps)]
        return Pipeline([*parts, ("frozen", FrozenEstimator(self.frozen_steps))])


def _unfrozen(estimator):
    """What a ``FrozenEstimator`` holds, which must be fitted.

    Keras documents ``FrozenEstimator(SKLearnTransformer(model))`` for a trained model, which is
    never fitted: that means the model.
    """
    model = getattr(estimator, "model", None)
    documented = wrapper_of(estimator) == "keras" and hasattr(estimator, "transform")
    if documented and not hasattr(estimator, "model_"):
        if is_keras_model(model) and model.built:
            return model
        raise NotFittedError(
            f"FrozenEstimator({type(estimator).__name__}(...)) is used as it is, but it was never "
            "fitted, and its model is no built keras.Model. Fit it first, build the model, or pass "
            "the estimator without FrozenEstimator."
        )
    check_is_fitted(estimator)
    return estimator


def _codes(model, y):
    """Labels that stand for the numbers 0, 1, ...; None where y can be learned as it is.

    The transformer of ``keras.wrappers`` is no classifier and hands y to its network unchanged.
    """
    hands_on = wrapper_of(model) == "keras" and hasattr(model, "transform")
    if not hands_on or y is None or np.asarray(y).dtype.kind not in "OUS":
        return None
    return np.unique(np.asarray(y))


def _one_dimensional(classes):
    return None if classes is None or isinstance(classes, list) else classes


def fit_upstreams(source, X, y, metadata, folds, wanted, *, refit, ordered, n_jobs, verbose=0):
    """Fit what a transformer needs: the network of all rows, those of the folds, or both.

    Parameters
    ----------
    source, X, y, metadata, wanted, ordered, n_jobs, verbose : as in cross_fit

    folds : Folds or None
        None where no fold needs a network of its own.

    refit : bool
        Whether a network of all rows is wanted.

    Returns
    -------
    columns : list of Columns or None
        Features of all rows, where there are folds.

    upstreams : list of Upstream
        For new rows: the one of all rows, or one for each fold.
    """
    frame = source.frame(X, y, wanted)
    reference = None
    if refit or source.frozen:
        reference = source.fit(X, y, metadata, frame, ordered=ordered)
    if folds is None:
        return None, [reference]
    columns, upstreams = cross_fit(
        source, X, y, metadata, folds, wanted,
        reference=reference, frame=frame, ordered=ordered, n_jobs=n_jobs, verbose=verbose,
    )  # fmt: skip
    return columns, upstreams if reference is None else [reference]


def cross_fit(
    source, X, y, metadata, folds, wanted, *, reference, frame, ordered, n_jobs, verbose=0
):
    """Features of training rows, and the fitted networks of the folds.

    Parameters
    ----------
    source : Source

    X, y, metadata : table, targets and Metadata of all training rows

    folds : Folds

    wanted : Wanted

    reference : Upstream or None
        Fitted on all rows. It gives the features that need not be out-of-fold, and the axes for
        inner layers of networks whose start cannot be set.

    frame : Frame or None

    ordered : bool
        Whether rows stand in order of time.

    n_jobs : int or None
        Threads that fit folds side by side.

    Returns
    -------
    columns : list of Columns
        For all rows, in the order of X; NaN where the folds never predict a row.

    upstreams : list of Upstream
        One for each fold.
    """
    foreign = source.supervised and not source.ours and not source.frozen

    pairs = folds.pairs

    def fit_fold(number, train, test):
        if verbose:
            print(f"fold {number + 1} of {len(pairs)}: {len(train)} rows train the upstream")
        rows = take_rows(X, train)
        upstream = source.fit(
            rows,
            None if y is None else take_rows(y, train),
            metadata.of(X, train),
            frame,
            ordered=ordered,
        )
        columns = upstream.columns(take_rows(X, test), wanted)
        if foreign and any(column.inner for column in columns):
            if reference is None:
                raise ValueError(
                    f"refit=False averages the folds' inner layers, which takes networks with one "
                    f"common start; that of {type(source.model).__name__} cannot be set. Use "
                    "refit=True."
                )
            columns = _aligned(columns, upstream.columns(rows, wanted), reference, rows, wanted)
        return upstream, columns

    if wrapper_of(source.model) == "scikeras" and source.model.random_state is not None:
        n_jobs = 1  # it switches the whole process to deterministic kernels and back
    if "keras" in sys.modules:  # its dtype policy is one of each thread
        from skstack.training import under_callers_policy

        fit_fold = under_callers_policy(fit_fold)
    fit_fold = shared_by_threads(fit_fold)
    results = Parallel(n_jobs=n_jobs, prefer="threads")(
        delayed(fit_fold)(number, train, test) for number, (train, test) in enumerate(pairs)
    )
    upstreams = [upstream for upstream, _ in results]
    if not source.ours and not source.frozen:
        _refuse_one_network(source.model, [reference, *upstreams])
    whole = None if reference is None else reference.columns(X, wanted)
    merged = []
    for place, first in enumerate(results[0][1]):
        if whole is not None and not first.out_of_fold:
            merged.append(whole[place])
            continue
        values = np.full((n_rows(X), first.values.shape[1]), np.nan, dtype=np.float32)
        for (_, test), (_, columns) in zip(pairs, results, strict=True):
            if columns[place].values.shape[1] != values.shape[1]:
                raise ValueError(
                    f"The feature {first.names[0]!r} has {values.shape[1]} columns in one fold and "
                    f"{columns[place].values.shape[1]} in another."
                )
            values[test] = columns[place].values
        merged.append(replace(first, values=values))
    return merged, upstreams


def _refuse_one_network(model, upstreams):
    """Refuse fits that went on training one network: its features would be in-sample."""
    seen = set()
    for upstream in upstreams:
        estimator = getattr(getattr(upstream, "view", None), "estimator", None)
        network = getattr(estimator, "model_", None)
        if not is_keras_model(network):
            continue
        own = {id(variable) for variable in network.variables}
        if own & seen:
            raise ValueError(
                f"The function that builds the network of {type(model).__name__} gives the same "
                "network, or layers of it, in every call, so that each fold went on training what "
                "had seen its test rows. Make the layers inside the function."
            )
        seen |= own


def _aligned(columns, own, reference, rows, wanted):
    """Turn a fold's inner layers onto the reference's axes.

    The rotation is learned on rows that both networks were trained on, from what each makes of
    them (orthogonal Procrustes: Schoenemann, Psychometrika 31, 1966).
    """
    turned = []
    for test, train, aim in zip(columns, own, reference.columns(rows, wanted), strict=True):
        if test.inner:
            centre, target = train.values.mean(axis=0), aim.values.mean(axis=0)
            rotation, _ = orthogonal_procrustes(train.values - centre, aim.values - target)
            test = replace(test, values=((test.values - centre) @ rotation + target))
        turned.append(test)
    return turned


def mean_of(upstreams, X, wanted, look=None):
    """Features as the mean of several upstreams'; ``look`` sees what comes to the first."""
    first, *others = upstreams
    each = [first.columns(X, wanted, look)]
    each += [upstream.columns(X, wanted) for upstream in others]
    return [
        replace(group[0], values=np.mean([columns.values for columns in group], axis=0))
        for group in zip(*each, strict=True)
    ]
