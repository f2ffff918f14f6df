"""The public loss for knowledge transfer from a teacher, and the checks of its parameters."""

from __future__ import annotations

import contextlib
from numbers import Real

from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from skstack._base.params import is_keras_model, is_path, with_keras_settings
from skstack._base.sklearn import HasMethods, Interval, StrOptions
from skstack.networks._model_parameter import check_path

MODES = ("distill", "blend", "head", "features")


class TeacherLoss(BaseEstimator):
    """Train a network on a frozen teacher in addition to y.

    Pass it as ``loss`` of a KerasClassifier, KerasRegressor or KerasAutoencoder, also inside a
    stack, a Pipeline or a search. The teacher predicts the same rows of X once per fit; its outputs
    are shuffled, held out and sampled with their rows. It is never trained or changed.

    Parameters
    ----------
    teacher : keras.Model, str or path, or fitted estimator
        A built ``keras.Model`` (or the path of a saved one, ``.keras`` or ``.h5``) with the inputs
        of the network, or an estimator with ``predict_proba`` or ``predict`` (for ``"head"`` also
        ``transform``), which may be in a :class:`~sklearn.frozen.FrozenEstimator`. Clones share it;
        it is never copied.

    mode : {"distill", "blend", "head", "features"}, default="distill"
        How the teacher enters the loss.

        - ``"distill"``: the output of the network approximates that of the teacher [1]_. For
          classes both are softened at ``temperature``, and the loss is ``(1 - weight) * loss +
          weight * temperature**2 * KL``; for numbers the second term is the mean squared
          difference in units of standardised targets.
        - ``"blend"``: the loss is that of the prediction ``(1 - weight) * own + weight *
          teacher``, which is also what ``predict`` returns. ``model=None`` is then ``MLP()``, as
          with ``"head"``.
        - ``"head"``: both predictions (for classes, their log-odds) are concatenated and passed
          through a trained layer ``teacher_head`` of the network, initially their mean. The
          teacher may also have outputs of any other width: see Notes.
        - ``"features"``: the output of ``layer`` approximates that of ``teacher_layer`` [2]_. If
          their widths differ, it passes through a trained layer ``teacher_projection``, which the
          fitted network does not contain. The loss is ``(1 - weight) * loss + weight * mean
          squared difference``.

    weight : float, default=0.5
        Weight of the teacher, in [0, 1]. With ``mode="head"`` it is only used with
        ``teacher_at_predict=False``.

    temperature : float, default=2.0
        Temperature in (0, inf), for ``"distill"`` and classes.

    loss : str, keras.losses.Loss, callable or "auto", default="auto"
        Loss between predictions and y, as in the estimator. It must average over rows.

    layer : str, default=None
        For ``"features"``: a layer of the network. If None, the layer before the output layer, for
        ``TabM`` the last hidden layer of each member; for an autoencoder, the latent layer.

    teacher_layer : str, default=None
        A layer of the teacher; ``"outer/inner"`` for one of a nested model. If None, as ``layer``;
        for ``TabM`` the mean of its members.

    columns : list of str, list of int, mask, slice or callable, default=None
        The columns of X that the teacher uses. If None, those that it was fitted on if both have
        names, else all.

    teacher_trainable : bool, default=False
        Whether a copy of a ``keras.Model`` is trained as a part of the network, for ``"blend"`` and
        ``"head"``. In the other modes the teacher would learn to agree with its student.

    teacher_at_predict : bool, default=True
        Whether ``"blend"`` and ``"head"`` use the teacher for new rows. If False, the network alone
        predicts; with ``"head"`` the loss is then ``(1 - weight) * loss of the network + weight *
        loss of the head``. The other modes never use the teacher for new rows.

    Notes
    -----
    With ``mode="head"`` the teacher need not predict y. The units of an encoder, the ``transform``
    of a fitted KerasAutoencoder or of any transformer, other targets or another number of classes
    are columns for ``teacher_head``, which then starts as the network's own prediction: the
    identity for it, and weights of 0 for the teacher. These learn from the first step on, because
    their gradient is the teacher's output times the error; a teacher that is trained learns from
    the second step on. Outputs of rank 3 and more are flattened. Outputs of a ``keras.Model``,
    probabilities and transformed columns enter as they are; predictions of a regressor are
    standardised. A ``keras.Model`` with the width and the activation of the task (or none) is taken
    as a prediction of y.

    A fitted classifier must have the labels of y, in any order; the probabilities of a
    ``keras.Model`` are those of the sorted labels, its numbers are in the units of y. Synthetic
    rows of a sampler are passed to the teacher as columns of X, numbers as float32. The teacher of
    a stack's ``downstream`` predicts the table of features, not X. For ``"distill"`` and
    ``"features"`` a search over ``weight`` and ``temperature`` needs no new compilation.

    Early stopping monitors the same loss on the rows set aside. Do not evaluate the network on the
    training rows of the teacher. In a stack, do not use a teacher of an upstream network that was
    trained on the same rows: features that are out-of-fold for the network are not for the teacher.

    References
    ----------
    .. [1] G. Hinton, O. Vinyals and J. Dean, "Distilling the Knowledge in a Neural Network",
       arXiv:1503.02531, 2015.
    .. [2] A. Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from skstack import KerasClassifier
    >>> from skstack.losses import TeacherLoss
    >>> from skstack.networks import MLP
    >>> X, y = load_iris(return_X_y=True)
    >>> forest = RandomForestClassifier(random_state=0).fit(X, y)
    >>> student = KerasClassifier(
    ...     MLP((16,)),
    ...     loss=TeacherLoss(forest, weight=0.7),
    ...     epochs=20,
    ...     learning_rate=0.01,
    ...     random_state=0,
    ... )
    >>> student.fit(X[::5], y[::5]).score(X, y) > 0.7
    True
    """

    # Clones share the fitted teacher, and cache keys contain its fitted attributes.
    _fitted_parameters = ("teacher",)

    _parameter_constraints = {
        "mode": [StrOptions(set(MODES))],
        "weight": [Interval(Real, 0, 1, closed="both")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "loss": [str, callable, HasMethods(["get_config"])],
        "layer": [str, None],
        "teacher_layer": [str, None],
        "columns": "no_validation",
        "teacher_trainable": ["boolean"],
        "teacher_at_predict": ["boolean"],
        "teacher": "no_validation",
    }

    def __init__(
        self,
        teacher,
        *,
        mode="distill",
        weight=0.5,
        temperature=2.0,
        loss="auto",
        layer=None,
        teacher_layer=None,
        columns=None,
        teacher_trainable=False,
        teacher_at_predict=True,
    ):
        self.teacher = teacher
        self.mode = mode
        self.weight = weight
        self.temperature = temperature
        self.loss = loss
        self.layer = layer
        self.teacher_layer = teacher_layer
        self.columns = columns
        self.teacher_trainable = teacher_trainable
        self.teacher_at_predict = teacher_at_predict

    def get_params(self, deep=True):
        """Get parameters, without those of the fitted teacher.

        Parameters
        ----------
        deep : bool, default=True
            Ignored.

        Returns
        -------
        dict
            Values by name.
        """
        return super().get_params(deep=False)

    def set_params(self, **params):
        """Set parameters.

        Parameters
        ----------
        **params : dict
            Parameters by name.

        Returns
        -------
        self : TeacherLoss
            The loss itself.

        Raises
        ------
        ValueError
            If a name does not exist, or is a parameter of the teacher.
        """
        nested = [name for name in params if name.startswith("teacher__")]
        if nested:
            raise ValueError(
                f"Cannot set {nested}: the teacher is never changed. Set `teacher` itself."
            )
        return super().set_params(**with_keras_settings(self, params))

    def __sklearn_clone__(self):
        return type(self)(**self.get_params())

    def _validate_params(self):
        """Validate the parameters and their combinations."""
        super()._validate_params()
        check_teacher(self.teacher)
        if self.teacher_trainable and self.mode not in ("blend", "head"):
            raise ValueError(
                f"teacher_trainable=True requires mode='blend' or mode='head'; got mode="
                f"{self.mode!r}, where the teacher would learn to agree with its student."
            )
        if self.teacher_trainable and not self.teacher_at_predict:
            raise ValueError(
                "teacher_trainable=True makes the teacher a part of the network, which "
                "teacher_at_predict=False would remove."
            )
        network = is_keras_model(self.teacher) or is_path(self.teacher)
        if self.teacher_trainable and not network:
            raise TypeError(
                "teacher_trainable=True trains a copy of a keras.Model; teacher is a "
                f"{type(unfrozen(self.teacher)).__name__}. Pass its network, such as "
                "teacher=fitted.model_."
            )
        if self.teacher_trainable and self.columns is not None:
            raise ValueError(
                f"columns={self.columns!r} cannot be combined with teacher_trainable=True: a part "
                "of the network has the inputs of the network."
            )


def unfrozen(teacher):
    """The estimator in a ``FrozenEstimator``, or the teacher itself."""
    return teacher.estimator if isinstance(teacher, FrozenEstimator) else teacher


@contextlib.contextmanager
def named_teacher():
    """Replace ``model=`` by ``teacher=`` in messages."""
    try:
        yield
    except (ValueError, TypeError, NotFittedError) as error:
        message = str(error)
        if not message.startswith("model="):
            raise
        raise type(error)(message.replace("model=", "teacher=", 1)) from error


def check_teacher(teacher):
    """Check that a teacher is fitted and makes predictions."""
    expected = (
        "a built keras.Model, the path to a saved one (.keras, .h5), or a fitted estimator with "
        "predict_proba or predict (with mode='head' also transform)"
    )
    if is_path(teacher):
        with named_teacher():
            check_path(teacher)
        return  # its content is checked when it is loaded
    if is_keras_model(teacher):
        if not teacher.built:
            raise ValueError(
                f"teacher={teacher.name!r} is unbuilt: it has no weights yet. Expected {expected}."
            )
        return
    inner = unfrozen(teacher)
    predicts = any(hasattr(inner, name) for name in ("predict_proba", "predict", "transform"))
    if isinstance(inner, type) or not (predicts and hasattr(inner, "fit")):
        raise TypeError(f"teacher={inner!r} is not a teacher; expected {expected}.")
    try:
        check_is_fitted(inner)
    except NotFittedError as error:
        raise NotFittedError(
            f"teacher={type(inner).__name__}(...) is not fitted; expected {expected}."
        ) from error


def task_loss(loss):
    """The loss between predictions and y, without a teacher's term."""
    return loss.loss if isinstance(loss, TeacherLoss) else loss
