"""Adapters: outputs, inner layers and errors of a fitted upstream model, as features."""

from __future__ import annotations

import copy
import os
import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.base import is_classifier, is_outlier_detector, is_regressor
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch

from skstack._base.params import (
    clone_part,
    draw_seed,
    is_keras_model,
    is_network_estimator,
    is_path,
    set_missing_seeds,
)
from skstack._base.tables import own_rows
from skstack._estimators.autoencoder import KerasAutoencoder
from skstack._estimators.bags import is_bagged
from skstack._estimators.base import NetworkEstimator
from skstack._estimators.classifier import KerasClassifier
from skstack._estimators.multi_task import KerasMultiTask, both_classes
from skstack._features.cache import CachedNetwork
from skstack._training import formulas
from skstack._training.formulas import MEMBERS
from skstack.networks._adopted import FrozenBlueprint, refuse_strings
from skstack.networks._autoencoder import Autoencoder
from skstack.networks._heads import (
    columns_of_labels,
    in_order_of,
    logits_network,
    names_of_labels,
    probabilities_of,
)
from skstack.networks._model_parameter import check_categories, load_model
from skstack.preprocessing._blocks import ColumnBlocks


class ModelAdapter:
    """A frozen ``keras.Model``; ``network`` holds its weights, ``names`` are those of its outputs.

    ``out_of_fold`` is whether a step before it was trained, so that its features must be
    out-of-fold.
    """

    def __init__(self, network, blocks, names, out_of_fold=False, rows_at_once=None):
        self.network = network
        self.blocks = blocks
        self.names = names
        self.out_of_fold = out_of_fold
        self.rows_at_once = rows_at_once

    @classmethod
    def of(cls, model, X, blocks, memory=None, **settings):
        """Adapt a model to the kind of rows that it will receive."""
        from skstack._training.network import Network

        blocks = copy.copy(blocks).fit(X)
        blueprint = FrozenBlueprint(model, blocks.blocks_)
        check_categories(model, blocks.categories_)
        network = CachedNetwork(Network(blueprint, blueprint.start_variables()), memory)
        return cls(network, blocks, blueprint.output_names, **settings)

    def by_target(self, X):
        """See ``MultiTaskAdapter.by_target``: a network has no targets."""
        return [("", self)]

    def outputs(self, X, pooling=None):
        """Outputs by name; ``pooling`` as in ``Network.outputs``."""
        inputs = self.blocks.split(X)
        values = self.network.outputs(inputs, None, self.rows_at_once, pooling)
        return list(zip(self.names, values, strict=True))

    def layers(self, X, layers, pooling):
        """Outputs of inner layers."""
        inputs = self.blocks.split(X)
        return self.network.outputs(inputs, tuple(layers), self.rows_at_once, pooling)

    def probabilities(self, X):
        """Probabilities of shape (n_rows, n_classes), and the names of the classes."""
        ((_, p),) = self._single_output(X, "probabilities")
        inside = p.ndim == 2 and p.size and p.min() >= 0 and p.max() <= 1
        if inside and p.shape[1] == 1:
            return np.hstack([1 - p, p]), ["0", "1"]
        if not inside or np.abs(p.sum(axis=1) - 1).max() > 1e-3:
            raise ValueError(
                "features 'log_odds', 'entropy' and 'margin' need probabilities, but model "
                f"{self._name()!r} has an output of shape {(None, *p.shape[1:])} that is "
                "neither a sigmoid of one unit nor a softmax."
            )
        return p, [str(number) for number in range(p.shape[1])]

    def codes(self, X):
        """Indices of the predicted categories."""
        ((_, values),) = self._single_output(X, "codes")
        return codes(values, f"model {self._name()!r}")

    def logits_network(self):
        """The model without its last sigmoid, if it has one unit; else None."""
        one = self.network.blueprint.output_shapes == [(None, 1)]
        return logits_network(self.network) if one else None

    def log_odds(self, X):
        """Log-odds of shape (n_rows, n_classes), or of the second of two classes, and names."""
        exact = self.logits_network()
        if exact is not None:
            return clipped(exact.outputs(self.blocks.split(X))[0]), ["1"]
        p, names = self.probabilities(X)
        values = log_odds(p)
        return (values[:, 1:], names[1:]) if len(names) == 2 else (values, names)

    def reconstruction_error(self, X):
        """Mean squared difference of input and output, in squared units of the input."""
        inputs = self.blocks.split(X)
        ((_, reconstruction),) = self._single_output(X, "reconstruction_error")
        target = next(iter(inputs.values()))
        if len(inputs) > 1 or target.shape != reconstruction.shape:
            raise ValueError(
                "features='reconstruction_error' needs an output of the input's shape, but model "
                f"{self._name()!r} takes {[(None, *value.shape[1:]) for value in inputs.values()]} "
                f"and returns {(None, *reconstruction.shape[1:])}."
            )
        return np.square(target - reconstruction).reshape(len(target), -1).mean(axis=1)

    def _single_output(self, X, request):
        outputs = self.outputs(X)
        if len(outputs) != 1:
            raise ValueError(
                f"features={request!r} need a model with one output; {self._name()!r} has "
                f"{len(outputs)}: {self.names}. Name the layers to extract in `layers`."
            )
        return outputs

    def _name(self):
        return self.network.blueprint.model.name

    def graph(self, table, request, name):
        """Features as tensors, in the order of `columns_of`."""
        from skstack._graph.formulas import (
            Classes,
            as_columns,
            codes_of,
            log_odds_of,
            of_classes,
            squared_difference,
        )
        from skstack._graph.networks import apply_network
        from skstack._graph.tables import input_tensors, refuse

        tensors = input_tensors(table, self.blocks, name, f"The model {name!r}")
        exact = self.logits_network() if "log_odds" in request.features else None
        outputs, inner = apply_network(
            self.network if exact is None else exact,
            tensors,
            name,
            layers=request.layers,
            ends=bool(request.features),
            pooling=None if "reconstruction_error" in request.features else request.pooling,
        )
        features, logits = [], None
        if exact is not None:
            logits, outputs = outputs[0], [_sigmoid_graph(outputs[0], request, name)]
        for feature in request.features:
            if feature == "outputs":
                features += [
                    as_columns(tensor, request.pooling, f"{name}_{output}")
                    for output, tensor in zip(self.names, outputs, strict=True)
                ]
            elif feature == "reconstruction_error":
                (target,) = tensors.values()
                features.append(squared_difference(target, outputs[0], f"{name}_{feature}"))
            elif feature == "codes":
                single = outputs[0].shape[1:] == (1,)
                if single and self.logits_network() is None:
                    refuse(
                        f"The part {name!r}",
                        "features='codes' of one output that is not a sigmoid.",
                    )
                features.append(codes_of(outputs[0], name))
            elif feature == "log_odds" and logits is not None:
                features.append(log_odds_of(logits, 0.0, f"{name}_log_odds"))
            else:
                classes = Classes(outputs[0], outputs[0].shape[1] == 1)
                features.append(of_classes(feature, classes, name, binary=classes.n == 2))
        return features + _pooled_graph(inner, request, name)

    def _column_readers(self, indices, name, pad, transforms):
        from skstack._graph.dispatch import block_readers

        yield from block_readers(self.blocks, indices, pad)


class EstimatorAdapter:
    """A fitted estimator of any library.

    ``classes`` are all classes of the cross-fit, of which the estimator of a fold may have seen
    only some; None for multilabel and numeric targets. ``labels`` are those of each of several
    labels. ``out_of_fold`` is whether features of its training rows must come from another fit.
    """

    labels = None  # in files of earlier versions

    def __init__(self, estimator, out_of_fold, classes=None, rows_at_once=None, labels=None):
        self.estimator = estimator
        self.out_of_fold = out_of_fold
        self.classes = classes
        self.rows_at_once = rows_at_once
        self.labels = labels
        tagged = hasattr(estimator, "__sklearn_tags__")
        self._predicts = tagged and (is_classifier(estimator) or is_regressor(estimator))

    def _own(self, X):
        return X if is_network_estimator(self.estimator) else own_rows(X)

    @property
    def transforms(self):
        """Whether its outputs are those of ``transform``."""
        if not hasattr(self.estimator, "transform") or probabilities_of(self.estimator) is not None:
            return False
        if hasattr(self, "_predicts"):
            return not self._predicts
        return not is_regressor(self.estimator)  # in files of earlier versions classifiers did

    @property
    def has_components(self):
        """Whether outputs may change their order or sign with each fit, as classes do not."""
        mixes = probabilities_of(self.estimator) is not None and self.labels is None
        known = getattr(self.estimator, "classes_", None)
        return self.transforms or (mixes and self.classes is None and known is None)

    def by_target(self, X):
        """See ``MultiTaskAdapter.by_target``: all features are those of y."""
        return [("", self)]

    def outputs(self, X, pooling=None):
        """Result of the estimator's own method: probabilities, predictions or a transform."""
        if probabilities_of(self.estimator) is not None:
            p, names = self.probabilities(X)
            if self.classes is not None and len(names) == 2:
                p, names = p[:, 1:], names[1:]
            names = _of_classes("proba", names)
            return [(name, p[:, [index]]) for index, name in enumerate(names)]
        if not self.transforms:
            return self._decisions(X)
        values = _dense(self.estimator.transform(self._own(X)))
        names = self._transformed_names(values)
        if names is None:
            return [("output", values)]
        return [(name, values[:, [index]]) for index, name in enumerate(names)]

    def _decisions(self, X):
        """Decisions of a classifier without probabilities or of a detector, else predictions."""
        labels = getattr(self.estimator, "classes_", None)
        if isinstance(labels, list):
            predicted = np.asarray(self.estimator.predict(self._own(X)))
            indicators = [
                column[:, None] == own for column, own in zip(predicted.T, labels, strict=True)
            ]
            columns = columns_of_labels(indicators, labels, self.labels)
            names = names_of_labels(labels if self.labels is None else self.labels)
            if len(names) == 1:
                return [("prediction", columns)]
            return [(f"prediction_{name}", columns[:, [i]]) for i, name in enumerate(names)]
        if labels is None:
            if is_detector(self.estimator):
                name, decide = "decision", self.estimator.decision_function
            else:
                name, decide = "prediction", self.estimator.predict
            values = np.asarray(decide(self._own(X)))
            return [(name, values[:, None] if values.ndim == 1 else values)]
        if hasattr(self.estimator, "decision_function"):
            values = np.asarray(self.estimator.decision_function(self._own(X)))
            names = labels[-1:] if values.ndim == 1 else labels
            values = values.reshape(len(values), -1)
            if values.shape[1] == len(names):
                return [(f"decision_{name}", values[:, [i]]) for i, name in enumerate(names)]
            return [("decision", values)]
        # Labels have no order: one indicator column per label.
        predicted = np.asarray(self.estimator.predict(self._own(X)))
        if predicted.ndim > 1:
            return [("prediction", predicted)]
        classes = labels if self.classes is None else self.classes
        columns = (predicted[:, None] == np.asarray(classes)).astype(np.float32)
        pairs = list(zip(classes, columns.T, strict=True))
        return [(f"predicted_{name}", column[:, None]) for name, column in pairs[len(pairs) == 2 :]]

    def layers(self, X, layers, pooling):
        """Outputs of inner layers."""
        if hasattr(self.estimator, "_layer_outputs"):
            return self.estimator._layer_outputs(X, layers, self.rows_at_once, pooling)
        model = getattr(self.estimator, "model_", None)
        if not is_keras_model(model):
            raise ValueError(
                f"layers={list(layers)!r}: {type(self.estimator).__name__} has no fitted Keras "
                "network in `model_` whose layers could be read."
            )
        encoder = getattr(self.estimator, "feature_encoder_", None)
        if encoder is not None:
            X = encoder.transform(np.asarray(X))
        view = ModelAdapter.of(model, X, ColumnBlocks(None), rows_at_once=self.rows_at_once)
        return view.layers(X, layers, pooling)

    def probabilities(self, X):
        """Probabilities of shape (n_rows, n_classes), and the names of the classes."""
        predict_proba = probabilities_of(self.estimator)
        if predict_proba is None:
            raise ValueError(
                "features 'log_odds', 'entropy' and 'margin' need probabilities, but "
                f"{type(self.estimator).__name__} has no predict_proba."
            )
        p = predict_proba(self._own(X))
        classes, own = self.classes, getattr(self.estimator, "classes_", None)
        if isinstance(p, list) and len(p) == 1 and classes is not None:
            p, own = p[0], own[0]
        if isinstance(p, list):  # multilabel, as in scikit-learn's trees
            names = [range(np.shape(each)[1]) for each in p] if own is None else own
            names = names_of_labels(names if self.labels is None else self.labels)
            return columns_of_labels(p, own, self.labels).astype(np.float32), names
        p = np.asarray(p, dtype=np.float32)
        names = [str(name) for name in (range(p.shape[1]) if classes is None else classes)]
        if classes is None or own is None or isinstance(own, list):
            return p, names
        if len(classes) == p.shape[1]:
            return in_order_of(classes, p, own) if len(own) == len(classes) else p, names
        missing = [str(label) for label in classes if label not in own]
        warnings.warn(
            f"A fold's training rows lack the classes {missing}: {type(self.estimator).__name__} "
            "assigns them probability 0.",
            UserWarning,
            stacklevel=2,
        )
        return in_order_of(classes, p, own), names

    def codes(self, X):
        """Indices of the predicted classes."""
        what = type(self.estimator).__name__
        if self.labels is not None:
            refuse_labels(["codes"], what)
        if probabilities_of(self.estimator) is not None and self.classes is not None:
            return codes(self.probabilities(X)[0], what)
        if self.transforms:
            return codes(_dense(self.estimator.transform(self._own(X))), what)
        raise ValueError(
            f"features='codes' needs the classes of a classifier or whole numbers; {what} has none."
        )

    def log_odds(self, X):
        """Log-odds of shape (n_rows, n_classes), or of the second of two classes, and names."""
        if hasattr(self.estimator, "_logits"):
            values = self.estimator._logits(X)
            if values is not None:
                names = range(values.shape[1]) if self.classes is None else self.classes
                return clipped(values), [str(name) for name in names][-values.shape[1] :]
        p, names = self.probabilities(X)
        values = log_odds(p, exclusive=self.classes is not None)
        if len(names) == 2 and self.classes is not None:
            return values[:, 1:], names[1:]
        return values, names

    def reconstruction_error(self, X):
        """Reconstruction error of rows."""
        if hasattr(self.estimator, "reconstruction_error"):
            return np.asarray(self.estimator.reconstruction_error(self._own(X)))
        if not hasattr(self.estimator, "inverse_transform"):
            raise ValueError(
                "features='reconstruction_error' needs an output of the input's shape; "
                f"{type(self.estimator).__name__} has neither reconstruction_error nor "
                "inverse_transform."
            )
        rebuilt = self.estimator.inverse_transform(self.estimator.transform(self._own(X)))
        return np.square(_dense(X) - _dense(rebuilt)).mean(axis=1)

    def _transformed_names(self, values):
        try:
            names = list(self.estimator.get_feature_names_out())
        except (AttributeError, ValueError, TypeError):
            return None
        return names if len(names) == values.shape[1] else None

    def graph(self, table, request, name):
        """Features as tensors, in the order of `columns_of`."""
        from skstack._graph.dispatch import predicted
        from skstack._graph.formulas import Classes, as_columns, log_odds_of, of_classes
        from skstack._graph.tables import GraphTable, numbers_of, refuse

        estimator = self.estimator
        if "codes" in request.features and self.classes is None:
            refuse(f"The part {name!r}", "features='codes' requires a classifier.")
        latent, inner, result, logits = (), [], None, None
        if isinstance(estimator, NetworkEstimator) and not is_bagged(estimator):
            encodes = isinstance(estimator, KerasAutoencoder)
            classifies = isinstance(estimator, KerasClassifier)
            exact = None
            if "log_odds" in request.features and classifies:
                exact = estimator._logits_network()
            latent = (estimator.latent_layer_,) if encodes and "outputs" in request.features else ()
            only_latent = encodes and "reconstruction_error" not in request.features
            tensors, ends, inner = estimator._network_graph(
                table,
                name,
                layers=(*latent, *request.layers),
                ends=bool(request.features) and not only_latent,
                network=exact,
                pooling=None if encodes else request.pooling,
            )
            if exact is not None:
                logits = as_columns(ends[0], "flatten", name)
                ends = [_sigmoid_graph(ends[0], request, name)]
            latent, inner = inner[: len(latent)], inner[len(latent) :]
            if classifies and set(request.features) - (
                {"log_odds"} if exact is not None else set()
            ):
                result = estimator._graph_classes(ends[0], name)
            elif not encodes and not classifies and request.features:
                result = as_columns(ends[0], "flatten", name)
        elif request.features:
            result = predicted(estimator, table, name, f"{name}_")
        features = []
        for feature in request.features:
            if feature == "reconstruction_error":
                features.append(estimator._graph_error(tensors, ends[0], name))
            elif feature == "outputs" and latent:
                features.append(as_columns(latent[0], "flatten", f"{name}_latent"))
            elif feature == "log_odds" and logits is not None:
                features.append(log_odds_of(logits, estimator._prior_shift(), f"{name}_log_odds"))
            elif isinstance(result, GraphTable):
                every = range(len(result.columns))
                features.append(numbers_of(result, every, name, f"The part {name!r}"))
            elif not isinstance(result, Classes):
                features.append(result)
            else:
                if self.classes is not None and len(self.classes) != result.n:
                    refuse(
                        f"The part {name!r}", "the training rows of one of its folds lack classes."
                    )
                exclusive = self.classes is not None
                binary = exclusive and result.n == 2
                settings = {"binary": binary, "exclusive": exclusive}
                features.append(of_classes(feature, result, name, **settings))
        return features + _pooled_graph(inner, request, name)


def is_detector(estimator):
    """Whether an estimator decides which rows are outliers; its decisions are features."""
    return hasattr(estimator, "decision_function") and is_outlier_detector(estimator)


def _dense(values):
    return values.toarray() if hasattr(values, "toarray") else np.asarray(values)


class MultiTaskAdapter(EstimatorAdapter):
    """A fitted KerasMultiTask."""

    def by_target(self, X):
        """(suffix of names, adapter) for each target, from one forward pass."""
        parts = []
        for target, values in self.estimator._by_target(X):
            if target.classes is None:
                single = Bunch(predict=lambda X, values=values: values)
            else:
                p = both_classes(values)
                single = Bunch(classes_=target.classes, predict_proba=lambda X, p=p: p)
            part = EstimatorAdapter(single, self.out_of_fold, target.classes)
            parts.append((f"__{target.name}", part))
        return parts

    def graph(self, table, request, name):
        """Features as tensors, in the order of `columns_of`."""
        from skstack._graph.formulas import Classes, of_classes

        inner, parts = [], ()
        if is_bagged(self.estimator):
            parts = self.estimator._graph_by_target(table, name, name)
        else:
            _, ends, inner = self.estimator._network_graph(
                table,
                name,
                layers=request.layers,
                ends=bool(request.features),
                pooling=request.pooling,
            )
            if request.features:
                parts = self.estimator._graph_targets(ends[0], name)
        features = []
        for feature in request.features:
            for target, result in parts:
                label = f"{name}_{target.key}"
                if not isinstance(result, Classes):
                    features += [result] if feature == "outputs" else []
                else:
                    features.append(of_classes(feature, result, label, binary=result.n == 2))
        return features + _pooled_graph(inner, request, name)


def adapted(estimator, *settings):
    """The adapter of a fitted estimator; ``settings`` as in ``EstimatorAdapter``."""
    several = isinstance(estimator, KerasMultiTask)
    return (MultiTaskAdapter if several else EstimatorAdapter)(estimator, *settings)


def columns_of(view, X, features, layers, pooling):
    """Extract features of rows: ``Columns`` in the order of ``features``, then of ``layers``."""
    columns, parts = [], view.by_target(X) if features else []
    for feature in features:
        for suffix, part in parts:
            numbers = suffix and part.classes is None  # have no probabilities
            if not numbers or feature == "outputs":
                columns += _columns_of_feature(part, X, feature, pooling, suffix)
    if layers:
        outputs = view.layers(X, layers, pooling)
        if len(outputs) != len(layers):
            raise ValueError(
                f"layers={list(layers)!r} have {len(outputs)} outputs together. A layer with "
                "several outputs (return_state=True) cannot be named; name a layer that uses the "
                "one you need."
            )
        for name, values in zip(map(column_name, layers), outputs, strict=True):
            values = as_columns(values, pooling)
            names = _numbered(name, values.shape[1])
            columns.append(Columns(names, values, view.out_of_fold, inner=True))
    return columns


def certain_names(model, request, classes, *, single):
    """Names that ``columns_of`` gives columns of a model before its fit; there may be more.

    ``classes`` are those of one target, or None; ``single`` is whether y holds one target.
    """
    names = [name for layer in request.layers for name in _numbered(column_name(layer), 1)]
    names += [name for name in request.features if name not in ("outputs", "log_odds")]
    labels = [] if classes is None else classes[len(classes) == 2 :]
    if "log_odds" in request.features:
        names += _of_classes("log_odds", labels)
    if "outputs" not in request.features or is_keras_model(model):
        return names
    if isinstance(model, KerasAutoencoder):
        own = model.model is None or isinstance(model.model, Autoencoder)
        return [*names, *(_numbered("latent", 1) if own else ())]
    if probabilities_of(model) is not None:
        return names + _of_classes("proba", labels)
    return [*names, "prediction"] if is_regressor(model) and single else names


def column_name(layer):
    """Beginning of the names of a layer's columns."""
    return layer.replace("/", "_").replace(MEMBERS, "_members")


def _numbered(name, n_columns):
    return tuple(f"{name}_{index}" for index in range(n_columns))


def _of_classes(name, classes):
    return [f"{name}_{label}" for label in classes]


def _columns_of_feature(view, X, feature, pooling, suffix):
    oof = view.out_of_fold
    if feature == "outputs":
        transformed = getattr(view, "has_components", False)
        # On the rows that trained it, a detector's decisions are too high, as errors are too small.
        oof |= is_detector(getattr(view, "estimator", None))
        return [
            _columns(f"{name}{suffix}", as_columns(values, pooling), oof, transformed)
            for name, values in view.outputs(X, pooling)
        ]
    if feature == "log_odds":
        values, labels = view.log_odds(X)
        names = tuple(f"{name}{suffix}" for name in _of_classes(feature, labels))
        return [Columns(names, values, oof)]
    names = (f"{feature}{suffix}",)
    if feature == "codes":
        return [Columns(names, view.codes(X), oof, categorical=True)]
    if feature == "reconstruction_error":
        values = np.asarray(view.reconstruction_error(X), dtype=np.float32)[:, None]
        return [Columns(names, values, out_of_fold=not isinstance(view, ModelAdapter))]
    if getattr(view, "labels", None) is not None:
        refuse_labels([feature], type(view.estimator).__name__)
    values = (entropy if feature == "entropy" else margin)(view.probabilities(X)[0])
    return [Columns(names, values, oof)]


def _columns(name, values, out_of_fold, transformed):
    names = (name,) if values.shape[1] == 1 else _numbered(name, values.shape[1])
    return Columns(names, values, out_of_fold, transformed=transformed)


def clone_with_networks(model):
    """Clone an estimator; a Pipeline that ends in a ``keras.Model`` or a path keeps it."""
    model = clone_part(model)
    last = model.steps[-1][1] if isinstance(model, Pipeline) else None
    if is_path(last) and last != "passthrough":
        model.steps[-1] = (model.steps[-1][0], load_model(last))
    return model


def upstream_of(model, random_state):
    """The upstream model: loaded from its path, or a clone with seeds set; else a TypeError."""
    if is_path(model):
        model = load_model(os.fspath(model))
        refuse_strings(model)
    if is_keras_model(model):
        return model
    if isinstance(model, type) or not (hasattr(model, "get_params") and hasattr(model, "fit")):
        raise TypeError(
            f"model={model!r} must be a path to a saved Keras model, a built keras.Model, a "
            "FrozenEstimator, an estimator or a Pipeline that ends in one."
        )
    model = clone_with_networks(model)
    return set_missing_seeds(model, draw_seed(random_state), scikeras=random_state is not None)


def _sigmoid_graph(logits, request, name):
    """Probabilities, if more than their log-odds is requested."""
    if set(request.features) == {"log_odds"}:
        return None
    from keras import ops

    from skstack._graph.tables import function_layer

    return function_layer(f"{name}_sigmoid", [logits], ops.sigmoid)


def _pooled_graph(tensors, request, name):
    """Outputs of inner layers as columns."""
    from skstack._graph.formulas import as_columns

    names = map(column_name, request.layers)
    return [
        as_columns(tensor, request.pooling, f"{name}_{layer}")
        for layer, tensor in zip(names, tensors, strict=True)
    ]


FEATURES = ("outputs", "log_odds", "entropy", "margin", "reconstruction_error", "codes")
OF_PROBABILITIES = ("log_odds", "entropy", "margin")
OF_CLASSES = (*OF_PROBABILITIES, "codes")
OF_EXCLUSIVE_CLASSES = ("entropy", "margin", "codes")
POOLINGS = ("flatten", "mean", "max", "last")


@dataclass(frozen=True)
class Columns:
    """Some columns of the extracted table.

    ``out_of_fold``: rows that trained the network need the values of another one. ``inner``: an
    inner layer, whose axes have no meaning outside its network. ``categorical``: category codes.
    ``transformed``: the result of an estimator's ``transform``, whose columns may change their
    meaning with each fit. Values are float32, or float64 if they were, so that a scaler can
    subtract an offset.
    """

    names: tuple[str, ...]
    values: np.ndarray
    out_of_fold: bool
    inner: bool = False
    categorical: bool = False
    transformed: bool = False


def refuse_labels(features, what):
    """Refuse features of exclusive classes for a classifier of several labels."""
    raise ValueError(
        f"features={features} need exclusive classes, but {what} predicts several labels. Use "
        "'outputs' or 'log_odds', which have a column for each label."
    )


def as_columns(values, pooling):
    """Outputs of any rank as an array or view of shape (n_rows, n_columns); see `pooled`."""
    values = floats(values)
    return formulas.pooled(values, pooling if values.ndim > 2 else "flatten", np)


def floats(values):
    """Convert to float32 if no precision is lost, else to float64."""
    values = np.asarray(values)
    return values.astype(
        np.float32 if np.can_cast(values.dtype, np.float32) else np.float64, copy=False
    )


def log_odds(probabilities, *, exclusive=True):
    """Logarithm of p / (1 - p), with p clipped to [1e-7, 1 - 1e-7]; in [-16.12, 16.12].

    For exclusive classes, 1 - p is computed as the sum of the others: near 1 it is more precise.
    """
    p = probabilities.astype(np.float64)
    rest = p.sum(axis=1, keepdims=True) - p if exclusive else 1 - p
    return formulas.log_odds(p, rest, np).astype(np.float32)


def clipped(logits):
    """Log-odds clipped to the interval of those of probabilities."""
    largest = formulas.LARGEST_LOG_ODDS
    return np.clip(logits, -largest, largest).astype(np.float32)


def entropy(probabilities):
    """Shannon entropy of each row, of shape (n_rows, 1), in nats: in [0, log(n_classes)]."""
    return formulas.entropy(probabilities.astype(np.float64), np).astype(np.float32)


def margin(probabilities):
    """Largest probability minus the second largest, of shape (n_rows, 1); in [0, 1]."""
    two = np.partition(probabilities, -2, axis=1)[:, -2:]
    return (two[:, 1:] - two[:, :1]).astype(np.float32)


def codes(values, what):
    """Index of the largest output of each row, or integer outputs, of shape (n_rows, 1)."""
    if values.ndim == 2 and values.shape[1] > 1:
        return values.argmax(axis=1).astype(np.float32)[:, None]
    if values.shape[1:] not in ((), (1,)):
        raise ValueError(
            f"features='codes' needs one output per category, or integers; {what} has an "
            f"output of shape {(None, *values.shape[1:])}."
        )
    values = values.reshape(-1, 1)
    if not np.array_equal(values, np.round(values)):
        if values.min() < 0 or values.max() > 1:
            raise ValueError(
                f"features='codes' needs one output per category, or integers; {what} "
                f"returns numbers from {values.min():.3g} to {values.max():.3g}."
            )
        values = values > 0.5
    return values.astype(np.float32)


def to_dataframe(columns, passed=None):
    """Columns, and those that pass through, as a DataFrame with categorical dtypes."""
    import pandas as pd

    parts = []
    for part in columns:
        frame = pd.DataFrame(part.values, columns=list(part.names))
        if part.categorical:
            frame = frame.round().astype("Int64").astype("category")
            for index, column in enumerate(part.names):  # others read nullable ones as objects
                levels = frame[column].cat.categories.astype("int64")
                frame.isetitem(index, frame[column].cat.rename_categories(levels))
        parts.append(frame)
    if passed is not None:
        parts.append(pd.DataFrame(passed))
    return pd.concat(parts, axis=1)
