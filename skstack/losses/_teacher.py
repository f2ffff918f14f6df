"""A teacher's predictions and features, in the form of its student's outputs."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from scipy.sparse import issparse
from sklearn.base import is_regressor
from sklearn.pipeline import Pipeline

from skstack._base.params import is_keras_model, is_path
from skstack._base.tables import column_indices, is_dataframe, n_rows, take_columns, take_rows
from skstack._training.formulas import log, log_odds
from skstack._training.initial_weights import initial_variables
from skstack._training.keras_model import check_layers
from skstack._training.network import Network
from skstack.losses._teacher_loss import named_teacher, unfrozen
from skstack.losses._teacher_networks import TEACHER, WithTeacher, facts_of
from skstack.networks._adopted import FrozenBlueprint, ModelBlueprint, UnfitHead
from skstack.networks._heads import columns_of_labels, probabilities_of
from skstack.networks._model_parameter import check_categories, load_model
from skstack.networks._spec import PROBABILITY_ACTIVATIONS, Spec
from skstack.preprocessing._blocks import ColumnBlocks


class Student(Protocol):
    """Hooks of a network estimator that can have a teacher."""

    _network_task: str  # task of the network; see `Spec`
    _one_hot: bool  # whether the targets of several classes are one-hot encoded

    def _task(self) -> tuple[str, int]:
        """Task of y, and the number of classes, labels, targets or columns."""

    def _targets(self, inputs: dict | None, y: np.ndarray | None) -> np.ndarray:
        """Targets in the form and the units of the output."""

    def _loss(self, blueprint: Any) -> Any:
        """Loss between predictions and y."""

    def _objective(self, blueprint: Any) -> Any:
        """That loss and what is known of it, see `Objective`."""


def loaded(teacher):
    """The ``keras.Model`` or fitted estimator of the parameter ``teacher``."""
    if is_path(teacher):
        with named_teacher():
            return load_model(teacher)
    return unfrozen(teacher)


def teacher_blueprint(model, blocks, task, n_outputs, mode):
    """Blueprint of a ``keras.Model``, and the width of its output if that does not predict y."""
    with named_teacher():
        try:
            return ModelBlueprint(model, Spec(blocks, task, n_outputs)), None
        except UnfitHead:
            if mode != "head":
                raise
        blueprint = FrozenBlueprint(model, blocks)
        shapes = blueprint.output_shapes
        if None in shapes[0][1:]:
            raise ValueError(
                f"model={model.name!r} has an output of shape {shapes[0]}, which cannot be "
                "flattened to a fixed number of columns. End it with a layer that pools the "
                "steps, such as GlobalAveragePooling1D."
            )
        return blueprint, math.prod(shapes[0][1:])


def logits(p, task):
    """Values before the last activation, from probabilities."""
    p = p.astype(np.float64)
    return (log(p, np) if task == "multiclass" else log_odds(p, 1.0 - p, np)).astype(np.float32)


class Teacher:
    """A teacher of ``student``; X are some of its rows.

    ``estimator`` predicts, or ``network`` if the teacher is a ``keras.Model``; the inputs of
    ``network`` are those of the student, or ``blocks`` of the teacher's own columns. ``indices``
    are the columns that it uses, if not all; ``order`` sorts its classes as those of y.
    With ``mode="head"`` its output need not predict y: ``width`` is then the number of its columns,
    else None, and ``method`` the method of the estimator that returns them.
    """

    width = method = None
    name_of_input = TEACHER

    def __init__(self, loss, student: Student, X):
        teacher = loaded(loss.teacher)
        self.mode = loss.mode
        self.estimator = None if is_keras_model(teacher) else teacher
        self.name = f"teacher={type(teacher).__name__}(...)"
        self._columns = self._used_columns(loss.columns, X)
        self.indices = None
        if self._columns is not None:
            self.indices = column_indices(X, self._columns, "columns")
        self.network = self.blocks = self.order = None
        self._layer = None
        self.task = student._network_task
        if self._columns is not None and self.estimator is None:
            self.blocks = ColumnBlocks().fit(self.table(X))
        if self.mode == "features":
            self._open_layers(teacher, student, loss.teacher_layer)
        elif self.estimator is None:
            with named_teacher():
                blocks = self.blocks or student.blocks_
                check_categories(teacher, blocks.categories_)
                task, n_outputs = student._task()
                if task == "reconstruction":
                    self._refuse(
                        "the units of its output are unknown. Use a fitted "
                        "KerasAutoencoder, or mode='features'."
                    )
            blueprint, self.width = teacher_blueprint(
                teacher, blocks.blocks_, task, n_outputs, self.mode
            )
            self.network = Network(blueprint, blueprint.start_variables())
        else:
            if self.mode == "head":
                self._set_width(student, X)
            if self.width is None:
                self._check_outputs(student)

    def _refuse(self, why):
        raise ValueError(f"{self.name} with mode={self.mode!r}: {why}")

    def _used_columns(self, columns, X):
        """Columns that the teacher uses; None for all."""
        if columns is not None:
            take_columns(X, columns, "columns")
            return columns
        names = getattr(self.estimator, "feature_names_in_", None)
        if names is None or not is_dataframe(X):
            n = getattr(self.estimator, "n_features_in_", None)
            if n is not None and X.ndim == 2 and n != X.shape[1]:
                self._refuse(
                    f"it was fitted on {n} columns, but X has {X.shape[1]}. Select them with "
                    "`columns`."
                )
            return None
        missing = [name for name in names if name not in list(X.columns)]
        if missing:
            self._refuse(f"it was fitted on columns that X lacks: {missing[:5]}.")
        return None if list(names) == list(X.columns) else list(names)

    def _set_width(self, student, X):
        """Set ``method`` and ``width`` if the output of the estimator does not predict y."""
        estimator, n_outputs = self.estimator, student._task()[1]
        row = take_rows(X, [0])
        if isinstance(getattr(estimator, "classes_", None), dict):
            self._refuse("it predicts several targets of different kinds; expected one output.")
        if hasattr(estimator, "classes_"):
            several = isinstance(estimator.classes_, list) and self.task != "multilabel"
            if self.task == "regression" or several or len(estimator.classes_) != n_outputs:
                self.method = "predict_proba"
        elif hasattr(estimator, "predict") and (
            is_regressor(estimator) or not hasattr(estimator, "transform")
        ):
            width = self._numbers("predict", row).shape[1]
            if self.task != "regression" or width != n_outputs:
                self.method = "predict"
        elif hasattr(estimator, "transform"):
            self.method = "transform"
        else:
            self._refuse("it has none of classes_, predict and transform.")
        if self.method is not None:
            self.width = self._numbers(self.method, row).shape[1]

    @property
    def standardizes(self):
        """Whether the outputs are standardised with the moments of the training rows."""
        return self.method == "predict"

    def _check_outputs(self, student):
        """Refuse different classes or numbers of targets before anything is computed."""
        if self.task == "reconstruction":
            if not hasattr(self.estimator, "_reconstructed_parts"):
                self._refuse("it does not reconstruct X; expected a fitted KerasAutoencoder.")
            return
        if self.task == "regression":
            if not hasattr(self.estimator, "predict") or hasattr(self.estimator, "classes_"):
                self._refuse("it is not a regressor; expected a fitted regressor.")
            return
        if not hasattr(self.estimator, "classes_"):
            self._refuse("it has no attribute classes_; expected a fitted classifier.")
        if isinstance(self.estimator.classes_, dict):
            self._refuse("it predicts several targets; expected a fitted classifier.")
        if probabilities_of(self.estimator) is None and self.mode != "head":
            self._refuse(
                "it has no predict_proba. Calibrate it with "
                "sklearn.calibration.CalibratedClassifierCV(FrozenEstimator(...)), or use "
                "mode='head', which accepts its labels."
            )
        known, classes = self.estimator.classes_, student.classes_
        if self.task == "multilabel":
            if len(known) != len(classes):
                self._refuse(f"it was fitted on {len(known)} labels, but y has {len(classes)}.")
            return
        known, classes = np.asarray(known).tolist(), classes.tolist()
        if set(known) != set(classes):
            self._refuse(
                f"it was fitted on the {len(known)} classes {known[:10]}, but y has the "
                f"{len(classes)} classes {classes[:10]}."
            )
        self.order = [known.index(label) for label in classes]

    def _open_layers(self, teacher, student, layer):
        inner, self._steps = teacher, None
        if isinstance(inner, Pipeline):
            self._steps, inner = inner[:-1] if len(inner) > 1 else None, inner[-1]
        latent = hasattr(inner, "latent_layer_")
        if hasattr(inner, "_layer_outputs"):
            if hasattr(inner, "bags_"):
                self._refuse(
                    f"it has n_bags={len(inner.bags_)}, and their layers do not correspond. Pass "
                    "one of its bags_, or use mode='distill' or 'blend'."
                )
            self._inner = inner
            network = inner.network_
        else:
            model = inner if is_keras_model(inner) else getattr(inner, "model_", None)
            if not is_keras_model(model):
                self._refuse(
                    "it has no layers; expected a keras.Model, the path to one, or a fitted "
                    "network estimator."
                )
            if self._steps is not None:
                self._refuse("pass the network of the Pipeline: its steps change the columns.")
            self._inner = None
            with named_teacher():
                blocks = self.blocks or student.blocks_
                check_categories(model, blocks.categories_)
                blueprint = FrozenBlueprint(model, blocks.blocks_)
                network = Network(blueprint, blueprint.start_variables())
            self.network = network
        facts = facts_of(network.blueprint, latent)
        layer = facts.hidden if layer is None else layer
        if layer is None:
            self._refuse("select one of its layers with `teacher_layer`.")
        if layer not in facts.layers:  # a layer of a nested model, or unknown
            try:
                check_layers(network.blueprint, [layer])
            except ValueError as error:
                raise ValueError(f"teacher_layer={layer!r}: {error}") from error
        self._layer = layer

    # Outputs -------------------------------------------------------------------------------------

    def table(self, X):
        """The columns of X that the teacher uses."""
        return X if self._columns is None else take_columns(X, self._columns, "columns")

    def _inputs(self, X, inputs):
        return inputs if self.blocks is None else self.blocks.split(self.table(X))

    def prediction(self, student, X, inputs):
        """Prediction in the form of the student's output: float32 of shape (n_rows, units)."""
        if self.task == "reconstruction":
            parts = self.estimator._reconstructed_parts(self.table(X))
            targets = student._targets(parts, None)
            return targets.reshape(len(targets), -1).astype(np.float32)
        if self.estimator is None:
            result = self.network.outputs(self._inputs(X, inputs))[0]
            result = result.reshape(len(result), -1).astype(np.float64)
        elif self.task == "regression":
            result = np.asarray(self.estimator.predict(self.table(X)), dtype=np.float64)
            result = result.reshape(len(result), -1)
            n_targets = student._task()[1]
            if result.shape[1] != n_targets:
                self._refuse(f"it predicts {result.shape[1]} target(s), but y has {n_targets}.")
        else:
            result = self._probabilities(self.table(X))
        if self.task == "regression":
            return student._targets(None, result)
        if self.task == "binary" and result.shape[1] == 2:
            result = result[:, 1:]
        elif self.task == "multiclass" and result.shape[1] == 1:
            result = np.hstack([1.0 - result, result])
        return result.astype(np.float32)

    def _probabilities(self, X):
        """Probabilities of the classes of y; without predict_proba the labels, one-hot encoded."""
        probabilities = probabilities_of(self.estimator)
        if probabilities is None:
            labels = self._labels(X)
            return labels if self.order is None else labels[:, self.order]
        p = probabilities(X)
        if isinstance(p, list):  # trees of scikit-learn, for several labels
            p = columns_of_labels(p, getattr(self.estimator, "classes_", None))
        p = np.asarray(p, dtype=np.float64)
        if self.order is None:
            return p
        if p.shape[1] == 1:
            p = np.hstack([1.0 - p, p])
        return p[:, self.order]

    def _labels(self, X):
        """Predicted labels, one-hot encoded; several labels as they are."""
        labels = np.asarray(self.estimator.predict(X))
        if labels.ndim > 1:
            return labels.astype(np.float64)
        return (labels[:, None] == np.asarray(self.estimator.classes_)).astype(np.float64)

    def outputs(self, X, inputs):
        """Outputs that do not predict y: float32 of shape (n_rows, width)."""
        if self.estimator is not None:
            return self._numbers(self.method, X)
        result = self.network.outputs(self._inputs(X, inputs))[0]
        return result.reshape(len(result), -1)

    def _numbers(self, method, X):
        """The result of a method of the estimator as columns of float32."""
        X = self.table(X)
        function = getattr(self.estimator, method, None)
        if method == "predict_proba":
            function = probabilities_of(self.estimator) or self._labels
        result = function(X)
        if method == "predict_proba" and isinstance(result, list):  # trees, for several labels
            result = np.hstack(result)
        result = result.toarray() if issparse(result) else result
        try:
            array = np.asarray(result, dtype=np.float32)
        except (TypeError, ValueError) as error:
            self._refuse(f"its {method} returns no table of numbers ({error}).")
        n = n_rows(X)
        if array.ndim == 0 or len(array) != n or not array.size:
            self._refuse(
                f"its {method} returns an array of shape {array.shape} for {n} rows; expected "
                "one output of shape (n_rows, ...)."
            )
        return array.reshape(n, -1)

    def features(self, X, inputs):
        """Flat output of the teacher's layer: float32 of shape (n_rows, width)."""
        if self._inner is None:
            rows = self._inputs(X, inputs)
            return self.network.outputs(rows, (self._layer,), None, "flatten")[0]
        X = self.table(X)
        X = X if self._steps is None else self._steps.transform(X)
        return self._inner._layer_outputs(X, [self._layer], pooling="flatten")[0]

    def add_input(self, student, X, inputs):
        """Inputs of a network that uses its teacher's output."""
        if self.width is not None:
            return {**inputs, TEACHER: self.outputs(X, inputs)}
        prediction = self.prediction(student, X, inputs)
        if self.mode == "head" and self.task in PROBABILITY_ACTIVATIONS:
            prediction = logits(prediction, self.task)
        return {**inputs, TEACHER: prediction}

    def graph_inputs(self, student, table, tensors, name):
        """Like `add_input`, for tensors."""
        from keras import ops

        from skstack._graph.dispatch import predicted, transformed
        from skstack._graph.formulas import Classes, as_columns, logits_of
        from skstack._graph.networks import apply_network
        from skstack._graph.sklearn_steps import listed_steps
        from skstack._graph.tables import (
            affine,
            function_layer,
            input_tensors,
            numbers_of,
            select_columns,
        )

        table = table if self.indices is None else select_columns(table, self.indices)
        if self.estimator is None:
            inputs = tensors
            if self.blocks is not None:
                inputs = input_tensors(table, self.blocks, name, f"The teacher {name!r}")
            output = as_columns(apply_network(self.network, inputs, name)[0][0], "flatten", name)
            classes = Classes(output, output.shape[1] == 1 and self.task != "multilabel")
        elif self.method == "transform":
            table = transformed(listed_steps(self.estimator), table, f"{name}_")
            output = numbers_of(table, range(len(table.columns)), name, self.name)
        elif self.method == "predict" or (self.task == "regression" and self.method is None):
            output = predicted(self.estimator, table, name, f"{name}_")
        else:
            classes = predicted(self.estimator, table, name, f"{name}_")
            if self.order is not None and self.order != sorted(self.order):
                order, p = np.int32(self.order), classes.all(f"{name}_all")
                classes = Classes(
                    function_layer(f"{name}_order", [p], lambda p: ops.take(p, order, axis=1))
                )
        if self.method == "predict_proba":
            output = classes.all(f"{name}_classes")
        if self.width is not None:
            return {**tensors, TEACHER: output}
        if self.task == "regression":
            scale = student.target_scale_
            output = affine(output, student.target_mean_, 1.0 / scale, 0.0, f"{name}_standardised")
            return {**tensors, TEACHER: output}
        output = classes.second(name) if self.task == "binary" else classes.all(f"{name}_classes")
        if self.mode != "blend":
            output = logits_of(output, self.task == "multiclass", f"{name}_log_odds")
        return {**tensors, TEACHER: output}

    def column_readers(self, indices, name):
        """See `GraphPart._column_readers`."""
        from skstack._graph.dispatch import column_readers

        indices = indices if self.indices is None else indices[self.indices]
        if self.estimator is not None:
            yield from column_readers(self.estimator, indices, f"{name}_teacher")
        elif self.blocks is not None:
            yield indices, self.blocks, None, False


def without_teacher(network):
    """Blueprint and variables of a network without the input for its teacher's prediction."""
    if not isinstance(network.blueprint, WithTeacher):
        return network.blueprint, network.variables
    own = network.blueprint.blueprint
    names = initial_variables(own, 0)
    return own, {name: network.variables[name] for name in names}
