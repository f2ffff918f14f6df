"""What a user writes to have a network taught by another."""

from __future__ import annotations

from numbers import Real

from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from skstack._base.params import is_keras_model, is_path
from skstack._base.sklearn import HasMethods, Interval, StrOptions

MODES = ("distill", "blend", "head", "features")


class TeacherLoss(BaseEstimator):
    """Have a network learn from a frozen teacher, besides y.

    Pass it as ``loss`` of any network estimator, also inside a stack, a Pipeline or a search. The
    teacher sees the same rows of X, once per fit, and what it gives follows them through shuffling,
    hold-out and sampling. It is never trained or changed.

    Parameters
    ----------
    teacher : keras.Model, str or path, or fitted estimator
        A built ``keras.Model`` (or the path of a saved one, ``.keras`` or ``.h5``) that takes the
        inputs of the network, or an estimator with ``predict_proba`` or ``predict``, in a
        :class:`~sklearn.frozen.FrozenEstimator` or not. It is shared by clones, never copied.

    mode : {"distill", "blend", "head", "features"}, default="distill"
        How it teaches.

        - ``"distill"``: the network's output is drawn to the teacher's, [1]_. Of classes both are
          softened at ``temperature``, and the loss is ``(1 - weight) * loss + weight *
          temperature**2 * KL``; of numbers the second term is the mean squared difference, in units
          of standardised targets.
        - ``"blend"``: the loss is that of ``(1 - weight) * own + weight * teacher's`` prediction,
          which is also what is predicted: 0.3 stands for 0.7 / 0.3.
        - ``"head"``: both predictions, of classes their log-odds, are joined and go through a
          trained layer ``teacher_head``, a part of the network, which begins as their mean.
        - ``"features"``: the output of ``layer`` is drawn to that of ``teacher_layer``, [2]_, where
          widths differ through a trained layer ``teacher_projection``, which is left out of the
          finished network. The loss is ``(1 - weight) * loss + weight * mean squared difference``.

    weight : float, default=0.5
        The teacher's share, in [0, 1]. With ``mode="head"`` it matters only without the teacher at
        prediction: see there.

    temperature : float, default=2.0
        In (0, inf). For ``"distill"`` of classes.

    loss : str, keras.losses.Loss, callable or "auto", default="auto"
        What compares predictions with y; ``"auto"`` as in the estimator. It has to average over
        rows.

    layer : str, default=None
        For ``"features"``: a layer of the network. None is what the last layer takes in; of an
        autoencoder the latent layer.

    teacher_layer : str, default=None
        A layer of the teacher; ``"outer/inner"`` for one of a nested model.

    columns : list of str, list of int, mask, slice or callable, default=None
        The columns of X that the teacher sees. None: those that it was fitted on, where both have
        names, else all.

    teacher_trainable : bool, default=False
        Whether a copy of a ``keras.Model`` is trained along, as a part of the network. For
        ``"blend"`` and ``"head"``: in the other modes the teacher would learn to agree.

    teacher_at_predict : bool, default=True
        Whether ``"blend"`` and ``"head"`` ask the teacher about new rows. False keeps the network
        alone; with ``"head"`` its own prediction then learns, too: the loss is ``(1 - weight) *
        loss of its own + weight * loss of the head``. Other modes never ask.

    Notes
    -----
    A fitted classifier must know the labels of y, in any order; the probabilities of a
    ``keras.Model`` stand for the sorted labels, its numbers are in y's units. Samplers: synthetic
    rows are shown to the teacher as the columns of X that they stand for, numbers as float32. The
    ``downstream`` of a stack is taught about the table that it sees, not about X. ``weight`` and
    ``temperature`` of ``"distill"`` and ``"features"`` can be searched without another
    compilation.

    Early stopping watches the same loss on the rows set aside. Do not judge the network on rows
    that the teacher has learned from, and in a stack do not let it teach an upstream network about
    rows that it knows the labels of: features that are out-of-fold for the network are not for the
    teacher.

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
    >>> X, y = load_iris(return_X_y=True)
    >>> forest = RandomForestClassifier(random_state=0).fit(X, y)
    >>> taught = KerasClassifier(loss=TeacherLoss(forest, weight=0.7), epochs=20, random_state=0)
    >>> taught.fit(X[::5], y[::5]).score(X, y) > 0.7
    True
    """

    # Learned before; a clone shares it, and the cache looks at what it has learned.
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
        """Parameters by name; those of the teacher, which is fitted, are not among them.

        Parameters
        ----------
        deep : bool, default=True
            Makes no difference.

        Returns
        -------
        dict
        """
        return super().get_params(deep=False)

    def set_params(self, **params):
        """Set parameters.

        Parameters
        ----------
        **params : dict
            By name.

        Returns
        -------
        self : TeacherLoss

        Raises
        ------
        ValueError
            For a name that does not exist, or a parameter of the teacher.
        """
        inside = [name for name in params if name.startswith("teacher__")]
        if inside:
            raise ValueError(
                f"Cannot set {inside}: the teacher is fitted, and nobody changes it. Set teacher."
            )
        return super().set_params(**params)

    def __sklearn_clone__(self):
        return type(self)(**self.get_params())

    def _validate_params(self):
        """Refuse what cannot teach.

        Raises
        ------
        ValueError or TypeError
            Naming the parameter.
        """
        super()._validate_params()
        check_teacher(self.teacher)
        if self.teacher_trainable and self.mode not in ("blend", "head"):
            raise ValueError(
                f"teacher_trainable=True goes with mode='blend' and mode='head', got mode="
                f"{self.mode!r}: a teacher that is trained to be like its student teaches nothing."
            )
        if self.teacher_trainable and not self.teacher_at_predict:
            raise ValueError(
                "teacher_trainable=True makes the teacher a part of the network: "
                "teacher_at_predict=False would leave it out again."
            )
        network = is_keras_model(self.teacher) or is_path(self.teacher)
        if self.teacher_trainable and not network:
            raise TypeError(
                "teacher_trainable=True trains a copy of a keras.Model; teacher is a "
                f"{type(_opened(self.teacher)).__name__}. Pass its network, such as "
                "teacher=fitted.model_."
            )
        if self.teacher_trainable and self.columns is not None:
            raise ValueError(
                f"columns={self.columns!r} does not go with teacher_trainable=True: a part of the "
                "network takes the network's inputs."
            )


def _opened(teacher):
    return teacher.estimator if isinstance(teacher, FrozenEstimator) else teacher


def check_teacher(teacher):
    """Refuse what has learned nothing, or gives nothing.

    Raises
    ------
    TypeError, ValueError or NotFittedError
    """
    accepted = (
        "a built keras.Model, the path to a saved one (.keras, .h5), or a fitted estimator with "
        "predict_proba or predict"
    )
    if is_path(teacher):
        return  # reading it tells
    if is_keras_model(teacher):
        if not teacher.built:
            raise ValueError(
                f"teacher={teacher.name!r} is unbuilt: it has no weights yet. Accepted are "
                f"{accepted}."
            )
        return
    inner = _opened(teacher)
    gives = any(hasattr(inner, name) for name in ("predict_proba", "predict", "transform"))
    if isinstance(inner, type) or not (gives and hasattr(inner, "fit")):
        raise TypeError(f"teacher={inner!r} cannot teach; accepted are {accepted}.")
    try:
        check_is_fitted(inner)
    except NotFittedError as error:
        raise NotFittedError(
            f"teacher={type(inner).__name__}(...) was never fitted; accepted are {accepted}."
        ) from error


def task_loss(loss):
    """The loss that compares predictions with y, whoever teaches besides."""
    return loss.loss if isinstance(loss, TeacherLoss) else loss
