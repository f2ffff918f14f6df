"""One fit with a teacher: the network that is trained, its rows and its loss."""

from __future__ import annotations

import dataclasses

import numpy as np

from skstack._training.initial_weights import initial_variables
from skstack._training.network import Network
from skstack.losses._distillation import DistillationLoss, MetricOfTask
from skstack.losses._teacher import Teacher, log_odds, opened
from skstack.losses._teacher_loss import TeacherLoss
from skstack.losses._teacher_networks import (
    WithoutActivation,
    WithProjection,
    WithTeacher,
    facts_of,
    head_start,
)
from skstack.networks._adopted import ModelBlueprint
from skstack.networks._spec import Spec

_ENDS = {"binary": "sigmoid", "multilabel": "sigmoid", "multiclass": "softmax"}


def taught(student, blueprint, start, *, seed, before, tables, rows, drawn):
    """What one fit trains, on which rows, with a teacher or without.

    Parameters
    ----------
    student : network estimator
        About to be trained, all but the weights known.
    blueprint : blueprint
        Of its own network.
    start : dict of str to ndarray
        Its weights to start from.
    seed : int
    before : dict of str to ndarray
        Weights beside the network that the last fit left, where this one goes on.
    tables : tuple of Rows, the second or None
        To learn from, and to watch.
    rows : tuple of tables, the second or None
        The same as X, before any sampler.
    drawn : bool
        Whether a sampler made the rows to learn from.

    Returns
    -------
    Alone or Taught

    Raises
    ------
    ValueError, TypeError or NotFittedError
        If the teacher does not suit.
    """
    if not isinstance(student.loss, TeacherLoss):
        return PlainFit(student, blueprint, start, *tables, before)
    found = TeacherFit(student.loss, student, blueprint, start, rows[0], seed=seed, before=before)
    X = raw_rows(student, tables[0].inputs) if drawn else rows[0]
    found.table = found.rows(X, tables[0])
    found.goes_on = found.start.keys() - start.keys() == before.keys()
    found.validation = None if tables[1] is None else found.rows(rows[1], tables[1])
    return found


def raw_rows(student, inputs):
    """X of rows that a sampler made, as far as it can be told."""
    blocks = student.blocks_
    hashed = [name for name in blocks.categories_ if getattr(blocks.part(name), "hashed", False)]
    if hashed:
        raise ValueError(
            f"sampler makes rows whose columns {hashed} are hashed (n_hash_buckets): there is no "
            "row of X that the teacher could be shown. Leave one of them out."
        )
    table = blocks.table(inputs)
    names = getattr(student, "feature_names_in_", None)
    if names is not None and not hasattr(table, "columns"):
        import pandas as pd

        table = pd.DataFrame(table, columns=names)
    return table


class PlainFit:
    """One fit without a teacher."""

    finishes = True

    def __init__(self, student, blueprint, start, table, validation, before):
        self.blueprint, self.start = blueprint, start
        self.own = blueprint
        self.loss = student._loss(blueprint)
        self.goes_on = not before
        self.table, self.validation = table, validation

    def metrics(self, given):
        """Metrics as they are."""
        return tuple(given)

    def finished(self, network):
        """See ``TeacherFit.finished``."""
        return network, None, {}


class TeacherFit:
    """One fit with a teacher; parameters as of ``taught``.

    Attributes
    ----------
    blueprint, start
        Of the network that is trained.
    loss : as in ``Plan``
    table, validation : Rows or None
    own : blueprint
        Of the network without its teacher.
    goes_on : bool
        Whether these are the variables of the last fit, so that its optimizer can go on.
    finishes : bool
        Whether what is trained has the outputs of what will be kept.
    """

    def __init__(self, loss, student, blueprint, start, X, *, seed, before):
        self._pupil = student
        self.own = blueprint
        self._names = list(start)
        self._mode = loss.mode
        self._alone = loss.mode in ("blend", "head") and not loss.teacher_at_predict
        self._share, self._factors = float(loss.weight), (1.0 - loss.weight, loss.weight)
        self._temperature = float(loss.temperature)
        self._task = student._network_task
        self._facts = facts_of(blueprint, start, latent=hasattr(student, "latent_layer_"))
        self._check(loss)
        self._guide = None
        if not loss.teacher_trainable:
            self._guide = Teacher(loss, student, X)
        else:
            self._inside = self._copied(loss)
        task_loss = student._loss(blueprint)
        self._lesson = None
        self.blueprint, self.start = blueprint, start
        make = {"distill": self._distill, "features": self._draw}.get(loss.mode, self._join)
        make(loss, task_loss, start, seed, before)
        self.loss = task_loss if self._lesson is None else self._lesson

    @property
    def finishes(self):
        """See the class."""
        joined = self._mode in ("blend", "head") and not self._alone
        return joined or self.blueprint is self.own

    def _check(self, loss):
        if self._facts.inputs is None:
            raise ValueError(
                f"loss=TeacherLoss(mode={loss.mode!r}): the class of this network trains in its "
                "own way, so that no teacher can take part. Make it a functional keras.Model or a "
                "recipe."
            )
        if self._task == "reconstruction" and self._mode in ("blend", "head"):
            raise ValueError(
                f"mode={self._mode!r} is about predictions, of which an autoencoder makes none; "
                "accepted are 'distill' and 'features'."
            )

    # The networks --------------------------------------------------------------------------------

    def _lesson_of(self, task_loss, kind, activation):
        y_shape = self._target_shape()
        reduction = getattr(task_loss, "reduction", "mean")
        if reduction not in ("mean", "sum_over_batch_size"):
            raise ValueError(
                f"loss={task_loss!r} has reduction={reduction!r}; a loss beside that of a teacher "
                "has to average over rows: reduction='sum_over_batch_size'."
            )
        given = None if activation else _ENDS.get(self._task)
        return DistillationLoss(
            task_loss, kind, y_shape, self._facts.shape, activation=activation, given=given
        )

    def _target_shape(self):
        if self._task == "reconstruction":
            return self._facts.shape
        if self._task == "multiclass" and not self._pupil._one_hot:
            return ()
        return self._facts.shape

    def _distill(self, loss, task_loss, start, seed, before):
        soft = self._task in _ENDS
        activation = self._facts.activation if soft else None
        self._lesson = self._lesson_of(task_loss, "soft" if soft else "squared", activation)
        if activation or len(self._facts.shape) > 1:
            self.blueprint = WithoutActivation(self.own)
        if soft:
            share, temperature = loss.weight, loss.temperature
            self._factors = (1.0 - share, share * temperature**2)

    def _draw(self, loss, task_loss, start, seed, before):
        layer = self._facts.hidden if loss.layer is None else loss.layer
        if layer not in self._facts.layers:
            raise ValueError(
                f"layer={loss.layer!r}: the network has no layer of that name that is called "
                f"once. Its layers are: {', '.join(self._facts.layers)}."
            )
        self._layer = layer
        self._lesson = self._lesson_of(task_loss, "second", self._facts.activation)
        self._seed, self._before = seed, before

    def _join(self, loss, task_loss, start, seed, before):
        both = self._alone and loss.mode == "head"
        kept = {"units": self._units()} if self._guide is None else {}
        self.blueprint = WithTeacher(
            self.own,
            loss.mode,
            self._share if loss.mode == "blend" else None,
            inside=None if self._guide is not None else self._inside,
            activation=_ENDS.get(self._task),
            both=both,
            **kept,
        )
        self.start = dict(start)
        if self._guide is None:
            self.start = {**self._extra(0), **self.start}
        if loss.mode == "head":
            self.start.update(head_start(self._facts.shape[-1]))
        self.start.update(_fitting(before, self.start))
        if both:
            self._lesson = self._lesson_of(task_loss, "both", self._facts.activation)

    def _extra(self, seed):
        """Weights of the network that is trained beside those of the student's own."""
        found = initial_variables(_Unshared(self.blueprint.build), seed)
        return {name: array for name, array in found.items() if name not in self._names}

    def _units(self):
        if self._task != "regression":
            return None
        scale, mean = self._pupil.target_scale_, self._pupil.target_mean_
        return tuple(map(float, scale)), tuple(map(float, mean))

    def _copied(self, loss):
        blocks = self._pupil.blocks_.blocks_
        task, n_outputs = self._pupil._task()
        return ModelBlueprint(opened(loss.teacher), Spec(blocks, task, n_outputs))

    # The rows ------------------------------------------------------------------------------------

    def rows(self, X, table):
        """Rows to learn from, or to watch, with what the teacher says of them.

        Parameters
        ----------
        X : table
        table : Rows
            As they were without a teacher.

        Returns
        -------
        Rows
        """
        inputs, y = table.inputs, table.targets
        if self._mode == "features":
            taught = self._guide.features(X, inputs)
            self._project(taught.shape[1])
        elif self._guide is None:
            return table
        elif self._mode == "distill":
            taught = self._softened(self._guide.prediction(self._pupil, X, inputs))
        else:
            inputs = self._guide.beside(self._pupil, X, inputs)
            taught = np.empty((len(y), 0), np.float32)
        if self._lesson is not None:
            y = self._lesson.targets(y, taught, self._factors, self._temperature)
        return dataclasses.replace(table, inputs=inputs, targets=y)

    def _softened(self, p):
        if self._task not in _ENDS or self._temperature == 1.0:
            return p
        z = log_odds(p, self._task).astype(np.float64) / self._temperature
        if self._task == "multiclass":
            z = np.exp(z - z.max(axis=1, keepdims=True))
            return (z / z.sum(axis=1, keepdims=True)).astype(np.float32)
        return (1.0 / (1.0 + np.exp(-z))).astype(np.float32)

    def _project(self, width):
        """The width is known once the teacher was asked."""
        if self.blueprint is not self.own:
            return
        self.blueprint = WithProjection(self.own, self._layer, width)
        if len(self.start) == len(self._names):
            extra = initial_variables(self.blueprint, self._seed)
            self.start = {**extra, **self.start, **_fitting(self._before, extra)}

    def metrics(self, given):
        """Metrics of the task alone."""
        if self._lesson is None:
            return tuple(given)
        return tuple(MetricOfTask(metric, self._lesson) for metric in given)

    # Afterwards ----------------------------------------------------------------------------------

    def finished(self, network):
        """What is kept of a trained network.

        Parameters
        ----------
        network : Network

        Returns
        -------
        network : Network
        guide : Guide or None
            Who gives the input that it takes beside those of X.
        beside : dict of str to ndarray
            Weights that it does not need; a fit that goes on does.
        """
        if self._mode in ("blend", "head") and not self._alone:
            return network, self._guide, self._others(network)
        own = {name: network.variables[name] for name in self._names}
        return Network(self.own, own), None, self._others(network)

    def _others(self, network):
        own = set(self._names)
        return {name: array for name, array in network.variables.items() if name not in own}


def _fitting(before, start):
    """Those weights that the network has, too: the mode may have changed."""
    return {
        name: array
        for name, array in before.items()
        if name in start and start[name].shape == array.shape
    }


class _Unshared:
    """A blueprint that nothing is kept of: two teachers of one architecture differ in weights."""

    key = None

    def __init__(self, build):
        self.build = build
