"""A teacher that was opened: what it says of rows, in the form of its student's output."""

from __future__ import annotations

import contextlib

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from skstack._base.params import is_keras_model, is_path
from skstack._base.tables import column_indices, is_dataframe, take_columns
from skstack._training.initial_weights import initial_variables
from skstack._training.layers import check_layers
from skstack._training.network import Network
from skstack.losses._teacher_networks import TEACHER, WithTeacher, facts_of
from skstack.networks._adopted import ModelBlueprint
from skstack.networks._continued import check_categories
from skstack.networks._frozen import FrozenBlueprint
from skstack.networks._heads import probabilities_of
from skstack.networks._model_parameter import load_model
from skstack.networks._spec import Spec
from skstack.preprocessing._blocks import ColumnBlocks

_LEAST = 1e-7


@contextlib.contextmanager
def _told():
    """Speak of the teacher where others speak of a model."""
    try:
        yield
    except (ValueError, TypeError, NotFittedError) as error:
        text = str(error)
        if not text.startswith("model="):
            raise
        raise type(error)(text.replace("model=", "teacher=", 1)) from error


def opened(teacher):
    """The keras.Model or the fitted estimator that teaches."""
    if is_path(teacher):
        with _told():
            return load_model(teacher)
    return teacher.estimator if isinstance(teacher, FrozenEstimator) else teacher


def log_odds(p, task):
    """What stands before the last activation, of probabilities."""
    p = p.astype(np.float64)
    odds = np.log(np.clip(p, _LEAST, 1.0))
    if task != "multiclass":
        odds -= np.log(np.clip(1.0 - p, _LEAST, 1.0))
    return odds.astype(np.float32)


class Teacher:
    """What a teacher gives for rows.

    Parameters
    ----------
    loss : TeacherLoss
    student : network estimator
        Its columns and targets are read.
    X : table
        Some of its rows.

    Attributes
    ----------
    estimator : estimator or None
        Who is asked, where it is no ``keras.Model``.
    network : Network or None
        The network that is asked.
    blocks : ColumnBlocks or None
        How columns of its own become its inputs.
    places : ndarray of int or None
        Positions of the columns that it sees, where these are not all.
    order : list of int or None
        Its classes in the order of y's.
    task : str
        As in ``Spec``, of the student's network.
    """

    def __init__(self, loss, student, X):
        teacher = opened(loss.teacher)
        self.mode = loss.mode
        self.estimator = None if is_keras_model(teacher) else teacher
        self.name = f"teacher={type(teacher).__name__}(...)"
        self._columns = self._seen(loss.columns, X)
        self.places = None if self._columns is None else column_indices(X, self._columns, "columns")
        self.network = self.blocks = self.order = None
        self._layer = None
        self.task = student._network_task
        if self._columns is not None and self.estimator is None:
            self.blocks = ColumnBlocks().fit(self.table(X))
        if self.mode == "features":
            self._open_layers(teacher, student, loss.teacher_layer)
        elif self.estimator is None:
            with _told():
                blocks = self.blocks or student.blocks_
                check_categories(teacher, blocks.categories_)
                task, n_outputs = student._task()
                if task == "reconstruction":
                    self._refuse(
                        "whose output may be in any units. Accepted is a fitted KerasAutoencoder, "
                        "or mode='features'."
                    )
                blueprint = ModelBlueprint(teacher, Spec(blocks.blocks_, task, n_outputs))
                self.network = Network(blueprint, blueprint.start_variables())
        else:
            self._check_outputs(student)

    def _refuse(self, why):
        raise ValueError(f"{self.name} with mode={self.mode!r}: {why}")

    def _seen(self, columns, X):
        """Which columns the teacher sees; None for all."""
        if columns is not None:
            take_columns(X, columns, "columns")
            return columns
        known = getattr(self.estimator, "feature_names_in_", None)
        if known is None or not is_dataframe(X):
            n = getattr(self.estimator, "n_features_in_", None)
            if n is not None and X.ndim == 2 and n != X.shape[1]:
                self._refuse(
                    f"it was fitted on {n} columns, and X has {X.shape[1]}. Say in `columns` which "
                    "it sees."
                )
            return None
        missing = [name for name in known if name not in list(X.columns)]
        if missing:
            self._refuse(f"it was fitted on columns that X lacks: {missing[:5]}.")
        return None if list(known) == list(X.columns) else list(known)

    def _check_outputs(self, student):
        """Refuse other classes or another number of targets, before anything is computed."""
        if self.task == "reconstruction":
            if not hasattr(self.estimator, "_apart"):
                self._refuse("it rebuilds nothing; accepted is a fitted KerasAutoencoder.")
            return
        if self.task == "regression":
            if not hasattr(self.estimator, "predict") or hasattr(self.estimator, "classes_"):
                self._refuse("it predicts no numbers; accepted are fitted regressors.")
            return
        if not hasattr(self.estimator, "classes_"):
            self._refuse("it knows no classes (classes_); accepted are fitted classifiers.")
        if probabilities_of(self.estimator) is None and self.mode != "head":
            self._refuse(
                "it gives no probabilities (predict_proba). Calibrate it, with "
                "sklearn.calibration.CalibratedClassifierCV(FrozenEstimator(...)), or use "
                "mode='head', which takes its labels."
            )
        theirs, ours = self.estimator.classes_, student.classes_
        if self.task == "multilabel":
            if len(theirs) != len(ours):
                self._refuse(f"it knows {len(theirs)} labels, and y has {len(ours)}.")
            return
        theirs, ours = np.asarray(theirs).tolist(), ours.tolist()
        if set(theirs) != set(ours):
            self._refuse(
                f"it knows the {len(theirs)} classes {theirs[:10]}, and y has the {len(ours)} "
                f"classes {ours[:10]}."
            )
        self.order = [theirs.index(label) for label in ours]

    def _open_layers(self, teacher, student, layer):
        inner, self._steps = teacher, None
        if isinstance(inner, Pipeline):
            self._steps, inner = inner[:-1] if len(inner) > 1 else None, inner[-1]
        latent = hasattr(inner, "latent_layer_")
        if hasattr(inner, "_layer_outputs"):
            self._inner = inner
            network = inner.network_
        else:
            model = inner if is_keras_model(inner) else getattr(inner, "model_", None)
            if not is_keras_model(model):
                self._refuse(
                    "it has no layers; accepted are a keras.Model, the path to one, and fitted "
                    "network estimators."
                )
            if self._steps is not None:
                self._refuse("pass the Pipeline's network, for its steps make other columns.")
            self._inner = None
            with _told():
                blocks = self.blocks or student.blocks_
                check_categories(model, blocks.categories_)
                blueprint = FrozenBlueprint(model, blocks.blocks_)
                network = Network(blueprint, blueprint.start_variables())
            self.network = network
        facts = facts_of(network.blueprint, network.variables, latent=latent)
        layer = facts.hidden if layer is None else layer
        if layer is None:
            self._refuse("say in `teacher_layer` which of its layers is meant.")
        if layer not in facts.layers:  # of a model inside, perhaps; to look takes time
            try:
                check_layers(network.blueprint, [layer])
            except ValueError as error:
                raise ValueError(f"teacher_layer={layer!r}: {error}") from error
        self._layer = layer

    # What it says of rows ------------------------------------------------------------------------

    def table(self, X):
        """The columns of X that the teacher sees."""
        return X if self._columns is None else take_columns(X, self._columns, "columns")

    def _inputs(self, X, inputs):
        return inputs if self.blocks is None else self.blocks.split(self.table(X))

    def prediction(self, student, X, inputs):
        """What the student should give: float32 of shape (n_rows, units).

        Parameters
        ----------
        student : network estimator
        X : table
        inputs : dict of str to ndarray
            The same rows, as the student's network takes them.
        """
        if self.task == "reconstruction":
            teacher = self.estimator
            rebuilt = teacher.network_.outputs(teacher._inputs(self.table(X)))[0]
            made = student._targets(teacher._apart(rebuilt), None)
            return made.reshape(len(made), -1).astype(np.float32)
        if self.estimator is None:
            found = self.network.outputs(self._inputs(X, inputs))[0]
            found = found.reshape(len(found), -1).astype(np.float64)
        elif self.task == "regression":
            found = np.asarray(self.estimator.predict(self.table(X)), dtype=np.float64)
            found = found.reshape(len(found), -1)
            if found.shape[1] != student._n_targets:
                self._refuse(
                    f"it predicts {found.shape[1]} target(s), and y has {student._n_targets}."
                )
        else:
            found = self._classes(self.table(X))
        if self.task == "regression":
            return student._targets(None, found)
        if self.task == "binary" and found.shape[1] == 2:
            found = found[:, 1:]
        elif self.task == "multiclass" and found.shape[1] == 1:
            found = np.hstack([1.0 - found, found])
        return found.astype(np.float32)

    def _classes(self, X):
        probabilities = probabilities_of(self.estimator)
        if probabilities is None:
            labels = np.asarray(self.estimator.predict(X))
            return (labels[:, None] == np.asarray(self.estimator.classes_)[self.order]).astype(
                np.float64
            )
        found = probabilities(X)
        if isinstance(found, list):  # of scikit-learn's trees, for several labels
            found = np.column_stack([p[:, 1] if p.shape[1] == 2 else 0 * p[:, 0] for p in found])
        found = np.asarray(found, dtype=np.float64)
        if self.order is None:
            return found
        if found.shape[1] == 1:
            found = np.hstack([1.0 - found, found])
        return found[:, self.order]

    def features(self, X, inputs):
        """What the teacher's layer gives: float32 of shape (n_rows, width)."""
        if self._inner is None:
            rows = self._inputs(X, inputs)
            return self.network.outputs(rows, (self._layer,), None, "flatten")[0]
        X = self.table(X)
        X = X if self._steps is None else self._steps.transform(X)
        return self._inner._layer_outputs(X, [self._layer], pooling="flatten")[0]

    def given(self, student, X, inputs):
        """What a network that takes its teacher's prediction is given."""
        found = self.prediction(student, X, inputs)
        probable = self.task in ("binary", "multiclass", "multilabel")
        return log_odds(found, self.task) if self.mode == "head" and probable else found

    def beside(self, student, X, inputs):
        """The inputs of such a network."""
        return {**inputs, TEACHER: self.given(student, X, inputs)}

    def graph_inputs(self, student, table, tensors, name):
        """Input tensors of the student's network, with what the teacher computes beside them."""
        from keras import ops

        from skstack._graph.dispatch import computed
        from skstack._graph.formulas import Classes, as_columns, of_odds
        from skstack._graph.networks import called
        from skstack._graph.tables import affine, arrays, grouped, taken

        table = table if self.places is None else taken(table, self.places)
        if self.estimator is None:
            own = tensors
            if self.blocks is not None:
                own = arrays(table, self.blocks, name, f"The teacher {name!r}")
            found = as_columns(called(self.network, own, name)[0][0], "flatten", name)
            classes = Classes(found, found.shape[1] == 1 and self.task != "multilabel")
        elif self.task == "regression":
            found = computed(self.estimator, table, name, f"{name}_")
        else:
            classes = computed(self.estimator, table, name, f"{name}_")
            if self.order is not None and self.order != sorted(self.order):
                order, p = np.int32(self.order), classes.all(f"{name}_all")
                classes = Classes(
                    grouped(f"{name}_order", [p], lambda p: ops.take(p, order, axis=1))
                )
        if self.task == "regression":
            scale = student.target_scale_
            found = affine(found, student.target_mean_, 1.0 / scale, 0.0, f"{name}_standardised")
            return {**tensors, TEACHER: found}
        found = classes.second(name) if self.task == "binary" else classes.all(f"{name}_classes")
        if self.mode != "blend":
            found = of_odds(found, self.task == "multiclass", f"{name}_log_odds")
        return {**tensors, TEACHER: found}

    def column_readers(self, indices, name):
        """Readers of the columns that the teacher needs, as in `GraphPart._column_readers`."""
        from skstack._graph.dispatch import column_readers

        indices = indices if self.places is None else indices[self.places]
        if self.estimator is not None:
            yield from column_readers(self.estimator, indices, f"{name}_teacher")
        elif self.blocks is not None:
            yield indices, self.blocks, None, False


def without_guide(network):
    """Blueprint and variables of the network alone, where another takes its teacher's prediction.

    Parameters
    ----------
    network : Network

    Returns
    -------
    blueprint
    dict of str to ndarray
    """
    if not isinstance(network.blueprint, WithTeacher):
        return network.blueprint, network.variables
    own = network.blueprint.blueprint
    names = initial_variables(own, 0)
    return own, {name: network.variables[name] for name in names}
