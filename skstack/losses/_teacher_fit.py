"""What one fit trains, with a teacher or without: network, initial weights, rows and loss."""

from __future__ import annotations

import dataclasses

import numpy as np

from skstack._base.text import described
from skstack._training.initial_weights import initial_variables
from skstack._training.members import MemberBlueprint, MemberLoss, metric_of_mean
from skstack._training.network import Network
from skstack._training.objective import check_averages
from skstack.losses._distillation import DistillationLoss, MetricOfTask
from skstack.losses._teacher import Student, Teacher, loaded, teacher_blueprint
from skstack.losses._teacher_loss import TeacherLoss
from skstack.losses._teacher_networks import (
    PROJECTION,
    TEACHER,
    WithProjection,
    WithTeacher,
    facts_of,
    initial_head,
)
from skstack.networks._heads import WithoutActivation
from skstack.networks._numeric import standardizing_variables
from skstack.networks._recipe import has_members
from skstack.networks._spec import PROBABILITY_ACTIVATIONS
from skstack.preprocessing._column_profile import weighted_moments


def prepared_fit(student: Student, blueprint, start, *, seed, before, tables, rows, resampled):
    """What one fit of ``student`` trains: a `PlainFit` or a `TeacherFit`.

    ``start`` holds initial weights; ``before`` the other weights of the previous fit (projection or
    head), if this one continues it; ``tables`` the training and validation data (or None); ``rows``
    the same rows of X before sampling. ``resampled`` is whether a sampler was used.
    """
    if not isinstance(student.loss, TeacherLoss):
        kind = MemberFit if has_members(blueprint, start) else PlainFit
        return kind(student, blueprint, start, *tables, before)
    fit = TeacherFit(student.loss, student, blueprint, start, rows[0], seed=seed, before=before)
    X = _rows_of_inputs(student, tables[0].inputs) if resampled else rows[0]
    fit.table = fit.rows(X, tables[0])
    fit.resumes = fit.start.keys() - start.keys() == before.keys()
    fit.validation = None if tables[1] is None else fit.rows(rows[1], tables[1])
    return fit


def _rows_of_inputs(student, inputs):
    """X of resampled rows."""
    blocks = student.blocks_
    hashed = [name for name in blocks.categories_ if getattr(blocks.part(name), "hashed", False)]
    if hashed:
        raise ValueError(
            f"The columns {hashed} are hashed (n_hash_buckets), so resampled rows cannot "
            "be passed to the teacher. Leave out the sampler, the hashing or the teacher."
        )
    table = blocks.table(inputs)
    names = getattr(student, "feature_names_in_", None)
    if names is not None and not hasattr(table, "columns"):
        import pandas as pd

        table = pd.DataFrame(table, columns=names)
    return table


class PlainFit:
    """One fit without a teacher; attributes as of `TeacherFit`."""

    keeps_outputs = True

    def __init__(self, student, blueprint, start, table, validation, before):
        self.blueprint, self.start = blueprint, start
        self.student_blueprint = blueprint
        self.loss = student._loss(blueprint)
        self.resumes = not before
        self.table, self.validation = table, validation

    def metrics(self, metrics):
        """The metrics unchanged."""
        return tuple(metrics)

    def public(self, model):
        """The network of ``finish``, from one that is trained."""
        return model

    def finish(self, network):
        """See ``TeacherFit.finish``."""
        return network, None, {}


class MemberFit(PlainFit):
    """One fit without a teacher of a network with members."""

    def __init__(self, student, blueprint, start, table, validation, before):
        super().__init__(student, blueprint, start, table, validation, before)
        self.blueprint = MemberBlueprint(blueprint)
        self.loss = MemberLoss(self.loss, student._objective(blueprint).by_row)

    def metrics(self, metrics):
        """The metrics of the mean of the members."""
        return tuple(map(metric_of_mean, metrics))

    def public(self, model):
        """See ``PlainFit.public``."""
        return self.student_blueprint.with_mean(model)

    def finish(self, network):
        """See ``TeacherFit.finish``."""
        return Network(self.student_blueprint, network.variables), None, {}


class TeacherFit:
    """One fit with a teacher.

    ``blueprint`` and ``start`` are those of the network that is trained, ``student_blueprint`` is
    that of the network without its teacher; ``resumes`` is whether the variables are those of the
    previous fit, so that its optimizer can continue; ``loss_of_mean`` is the loss of one output,
    such as the mean of members. Without ``logits`` the network that distils keeps its last
    activation: it is a part of another one.
    """

    def __init__(self, loss, student, blueprint, start, X, *, seed, before, logits=True):
        self._student = student
        self.student_blueprint = blueprint
        self._names = list(start)
        self._mode = loss.mode
        self._joins = loss.mode in ("blend", "head") and loss.teacher_at_predict
        self._weights = (1.0 - loss.weight, loss.weight)
        self._temperature = float(loss.temperature)
        self._task = student._network_task
        self._facts = facts_of(blueprint, hasattr(student, "latent_layer_"))
        self._members = has_members(blueprint, start)
        self._check(loss)
        # A teacher that is trained is a part of the network.
        self._teacher = None if loss.teacher_trainable else Teacher(loss, student, X)
        task_loss = student._loss(blueprint)
        self._distillation = None
        self.blueprint, self.start = blueprint, start
        if loss.mode == "distill":
            self._set_distill(loss, task_loss, logits)
        elif loss.mode == "features":
            self._set_features(loss, task_loss, seed, before)
        else:
            self._set_joined(loss, task_loss, before)
        self.loss_of_mean = task_loss if self._distillation is None else self._distillation
        self.loss = self.loss_of_mean
        if self._members:
            self.loss = MemberLoss(self.loss, student._objective(blueprint).by_row)

    def public(self, model):
        """See ``PlainFit.public``."""
        return self.student_blueprint.with_mean(model) if self._members else model

    @property
    def keeps_outputs(self):
        """Whether the trained network has the outputs of the final one."""
        distills = self._members and self._mode == "distill"
        return self._joins or distills or self.blueprint is self.student_blueprint

    def _check(self, loss):
        if self._facts.inputs is None:
            raise ValueError(
                f"loss=TeacherLoss(mode={loss.mode!r}): a network with a custom train_step "
                "cannot have a teacher. Make it a functional keras.Model or a recipe."
            )
        if self._task == "reconstruction" and self._mode in ("blend", "head"):
            raise ValueError(
                f"mode={self._mode!r} combines predictions, which an autoencoder does not return; "
                "use 'distill' or 'features'."
            )
        if self._members and self._mode in ("blend", "head"):
            raise ValueError(
                f"loss=TeacherLoss(mode={loss.mode!r}) combines the teacher with one network, and "
                f"model={described(self._student.model)} has several members. Use model=MLP(), or "
                "the mode 'distill' or 'features'."
            )

    # The networks --------------------------------------------------------------------------------

    def _distillation_loss(self, task_loss, kind, activation):
        check_averages(task_loss, "with a teacher")
        shape = self._facts.shape
        integer = self._task == "multiclass" and not self._student._one_hot
        applied = None if activation else PROBABILITY_ACTIVATIONS.get(self._task)
        return DistillationLoss(
            task_loss, kind, () if integer else shape, shape, activation, applied
        )

    def _set_distill(self, loss, task_loss, logits):
        soft = self._task in PROBABILITY_ACTIVATIONS
        activation = self._facts.activation if soft and logits else None
        kind = "soft" if soft else "squared"
        self._distillation = self._distillation_loss(task_loss, kind, activation)
        if self._members:
            self.blueprint = MemberBlueprint(self.student_blueprint)
        elif activation or len(self._facts.shape) > 1:
            self.blueprint = WithoutActivation(self.student_blueprint)
        if soft:
            self._weights = (1.0 - loss.weight, loss.weight * loss.temperature**2)

    def _set_features(self, loss, task_loss, seed, before):
        layer = self._facts.hidden if loss.layer is None else loss.layer
        if layer not in self._facts.layers:
            raise ValueError(
                f"layer={loss.layer!r}: the network has no layer of that name that is called "
                f"exactly once. Its layers are: {', '.join(self._facts.layers)}."
            )
        self._layer = layer
        self._distillation = self._distillation_loss(task_loss, "second", self._facts.activation)
        self._seed, self._before = seed, before

    def _set_joined(self, loss, task_loss, before):
        both = not self._joins and loss.mode == "head"
        teacher = self._inner_teacher(loss) if self._teacher is None else self._outer_teacher()
        self.blueprint = WithTeacher(
            self.student_blueprint,
            loss.mode,
            float(loss.weight) if loss.mode == "blend" else None,
            activation=PROBABILITY_ACTIVATIONS.get(self._task),
            both=both,
            **teacher,
        )
        self.start = dict(self.start)
        if self._teacher is None:
            weights = initial_variables(self.blueprint, 0, shared=False)
            self.start = {**self._others(weights), **self.start}
        if loss.mode == "head":
            self.start.update(initial_head(self._facts.shape[-1], self.blueprint.width))
        self._before = before
        self.start.update(_fitting(before, self.start))
        if both:
            self._distillation = self._distillation_loss(task_loss, "both", self._facts.activation)

    def _inner_teacher(self, loss):
        """Blueprint of a teacher that is trained, and the form of its outputs."""
        task, n_outputs = self._student._task()
        blocks = self._student.blocks_.blocks_
        inside, width = teacher_blueprint(loaded(loss.teacher), blocks, task, n_outputs, self._mode)
        units = None
        if self._task == "regression" and width is None:
            scale, mean = self._student.target_scale_, self._student.target_mean_
            units = tuple(map(float, scale)), tuple(map(float, mean))
        return {"inside": inside, "units": units, "width": width}

    def _outer_teacher(self):
        """The form of the outputs of a teacher that is not trained."""
        return {"width": self._teacher.width, "standardize": self._teacher.standardizes}

    # The rows ------------------------------------------------------------------------------------

    def rows(self, X, table):
        """Training or validation data with the teacher's outputs for them."""
        inputs, y = table.inputs, table.targets
        if self._mode == "features":
            teacher_outputs = self._teacher.features(X, inputs)
            self._project(teacher_outputs.shape[1])
        elif self._teacher is None:
            return table
        elif self._mode == "distill":
            teacher_outputs = self._softened(self._teacher.prediction(self._student, X, inputs))
        else:
            inputs = self._teacher.add_input(self._student, X, inputs)
            self._standardize(inputs[TEACHER], table.weights)
            teacher_outputs = np.empty((len(y), 0), np.float32)
        if self._distillation is not None:
            y = self._distillation.targets(y, teacher_outputs, self._weights, self._temperature)
        return dataclasses.replace(table, inputs=inputs, targets=y)

    def _softened(self, p):
        if self._task not in PROBABILITY_ACTIVATIONS or self._temperature == 1.0:
            return p
        # Not from clipped logits: a high temperature raises the smallest probabilities.
        each = p.astype(np.float64)
        each = each if self._task == "multiclass" else np.stack([1.0 - each, each], axis=-1)
        each = (each / each.max(axis=-1, keepdims=True)) ** (1.0 / self._temperature)
        each /= each.sum(axis=-1, keepdims=True)
        return (each if self._task == "multiclass" else each[..., 1]).astype(np.float32)

    def _standardize(self, outputs, weights):
        """Set the layers that standardise the teacher's outputs, from the training rows."""
        if not self._teacher.standardizes or f"{TEACHER}_center/bias" in self.start:
            return
        moments = standardizing_variables(TEACHER, *weighted_moments(outputs, weights))
        self.start.update({**moments, **_fitting(self._before, moments)})

    def _project(self, width):
        """Add the second output, once the width of the teacher's layer is known."""
        if self.blueprint is not self.student_blueprint:
            return
        self.blueprint = WithProjection(self.student_blueprint, self._layer, width)
        if self._members:
            projected = (self._layer, width, PROJECTION)
            self.blueprint = MemberBlueprint(self.student_blueprint, projected)
        if len(self.start) == len(self._names):
            weights = initial_variables(self.blueprint, self._seed)
            self.start = {**weights, **self.start, **_fitting(self._before, weights)}

    def metrics(self, metrics):
        """Metrics for the output of the task alone."""
        if self._members:
            metrics = map(metric_of_mean, metrics)
        if self._distillation is None:
            return tuple(metrics)
        return tuple(MetricOfTask(metric, self._distillation) for metric in metrics)

    # The result ----------------------------------------------------------------------------------

    def finish(self, network):
        """(final network, teacher for predictions or None, weights for the next fit)."""
        others = self._others(network.variables)
        if self._joins:
            return network, self._teacher, others
        own = {name: network.variables[name] for name in self._names}
        return Network(self.student_blueprint, own), None, others

    def _others(self, weights):
        """Weights that are not those of the student."""
        own = set(self._names)
        return {name: array for name, array in weights.items() if name not in own}


def _fitting(before, start):
    """Weights of the previous fit that this network also has; its mode may differ."""
    return {
        name: array
        for name, array in before.items()
        if name in start and start[name].shape == array.shape
    }
