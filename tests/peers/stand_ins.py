"""Estimators of ours with the constructors of scikit-learn's."""

import functools
import inspect

import numpy as np
import sklearn.base
import sklearn.ensemble
import sklearn.linear_model
import sklearn.naive_bayes
import sklearn.neural_network
import sklearn.preprocessing
import sklearn.svm
import sklearn.tree
from keras.optimizers import SGD
from sklearn.utils import Bunch

from skstack import (
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
    StackedKerasRegressor,
)
from skstack.networks import MLP

USES = set()
"""The stand-ins that were used since it was last cleared."""


def _noting(method):
    def noted(self, *args, **kwargs):
        USES.add(type(self))
        return method(self, *args, **kwargs)

    return functools.wraps(method)(noted)


def stand_in(peer, ours, settings, without=(), **methods):
    """Return a subclass of ours that is constructed as the peer's class.

    Parameters
    ----------
    peer : type
        The class of the peer.

    ours : type
        The class of ours.

    settings : dict of str to object
        Our parameters: a value, or a function of the estimator, which knows the peer's parameters.
        A value is the default where the peer has a parameter of this name, too.

    without : sequence of str
        Parameters of the peer that mean something else with us.

    **methods : callables
        What the peer's class has and ours does not.
    """
    signature = inspect.signature(peer.__init__)
    parameters = {k: each for k, each in signature.parameters.items() if k not in without}
    for name in parameters.keys() & settings.keys():
        if not inspect.isfunction(settings[name]):
            parameters[name] = parameters[name].replace(default=settings[name])
    signature = signature.replace(parameters=parameters.values())

    def __init__(self, *args, **kwargs):
        USES.add(type(self))
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            if name != "self":
                setattr(self, name, value)

    __init__.__signature__ = signature
    names = {
        name: each.default
        for name, each in inspect.signature(ours.__init__).parameters.items()
        if name != "self"
    }
    for name, setting in settings.items():
        names[name] = property(setting) if inspect.isfunction(setting) else setting
    for name in ("fit", "get_params"):
        names[name] = _noting(getattr(ours, name))
    names |= methods | {"__init__": __init__, "__module__": __name__, "__doc__": None}
    return type(peer.__name__, (ours,), names)


# Enough for scikit-learn's bounds of accuracy. All rows are one batch, so that a row of weight 2 is
# as two rows; the same settings everywhere, since compiling takes seconds.
QUICK = {
    "model": MLP((8,)),
    "epochs": 40,
    "batch_size": 1024,
    "learning_rate": 0.05,
    "early_stopping": False,
    "warm_start": False,
    "random_state": 0,
    "verbose": 0,
}
# Parameters of the same name and another meaning.
OTHER_MEANING = ("loss", "learning_rate", "n_iter_no_change")


def _coefficients(self):
    """All weights in one row, in the place of what a linear model learned."""
    return np.concatenate([weights.ravel() for weights in self.model_.get_weights()])[None]


def decision_function(self, X):
    """Log-odds, or logarithms of probabilities, in the place of distances."""
    logarithms = np.log(np.clip(self.predict_proba(X), 1e-12, 1))
    return logarithms[:, 1] - logarithms[:, 0] if len(self.classes_) == 2 else logarithms


def network(peer):
    """Return a small network in the place of any classifier or regressor of scikit-learn.

    Without a seed, it is as reproducible as those are.
    """
    ours = KerasClassifier if sklearn.base.is_classifier(peer()) else KerasRegressor
    settings = dict(QUICK)
    if "linear_model" in peer.__module__:
        settings["coef_"] = settings["intercept_"] = _coefficients
    if hasattr(peer, "decision_function") and ours is KerasClassifier:
        return stand_in(peer, ours, settings, OTHER_MEANING, decision_function=decision_function)
    return stand_in(peer, ours, settings, OTHER_MEANING)


LogisticRegression = network(sklearn.linear_model.LogisticRegression)
SGDClassifier = network(sklearn.linear_model.SGDClassifier)
SVC = network(sklearn.svm.SVC)
LinearSVC = network(sklearn.svm.LinearSVC)
GaussianNB = network(sklearn.naive_bayes.GaussianNB)
DecisionTreeClassifier = network(sklearn.tree.DecisionTreeClassifier)
RandomForestClassifier = network(sklearn.ensemble.RandomForestClassifier)
GradientBoostingClassifier = network(sklearn.ensemble.GradientBoostingClassifier)

LinearRegression = network(sklearn.linear_model.LinearRegression)
MultiTaskLasso = network(sklearn.linear_model.MultiTaskLasso)
Ridge = network(sklearn.linear_model.Ridge)
LinearSVR = network(sklearn.svm.LinearSVR)
SVR = network(sklearn.svm.SVR)
DecisionTreeRegressor = network(sklearn.tree.DecisionTreeRegressor)
RandomForestRegressor = network(sklearn.ensemble.RandomForestRegressor)
GradientBoostingRegressor = network(sklearn.ensemble.GradientBoostingRegressor)


def _hidden_layers(self):
    sizes = self.hidden_layer_sizes
    activation = {"logistic": "sigmoid", "identity": "linear"}.get(self.activation, self.activation)
    return MLP((sizes,) if isinstance(sizes, int) else tuple(sizes), activation=activation)


AS_MLP = {
    "batch_size": 200,
    "early_stopping": False,
    "model": _hidden_layers,
    "epochs": lambda self: self.max_iter,
    "learning_rate": lambda self: self.learning_rate_init,
    "coefs_": lambda self: [each for each in self.model_.get_weights() if each.ndim == 2],
    "intercepts_": lambda self: [each for each in self.model_.get_weights() if each.ndim == 1],
    "optimizer": lambda self: (
        SGD(momentum=float(self.momentum)) if self.solver == "sgd" else "adam"
    ),
}
MLPClassifier = stand_in(
    sklearn.neural_network.MLPClassifier, KerasClassifier, AS_MLP, ["learning_rate"]
)
MLPRegressor = stand_in(
    sklearn.neural_network.MLPRegressor, KerasRegressor, AS_MLP, ["learning_rate", "loss"]
)


def _stack(peer, ours, default):
    """A stack of plain scikit-learn parts, as scikit-learn's: nothing is scaled between them."""
    return stand_in(
        peer,
        ours,
        {
            "upstream": property(
                lambda self: self.estimators,
                lambda self, branches: setattr(self, "estimators", branches),
            ),
            "downstream": lambda self: (
                default() if self.final_estimator is None else self.final_estimator
            ),
            "scaler": None,
            "estimators_": lambda self: [branch.estimator_ for _, branch, _ in self.upstream_],
            "named_estimators_": lambda self: Bunch(
                **{name: branch.estimator_ for name, branch, _ in self.upstream_}
            ),
            "final_estimator_": lambda self: self.downstream_,
        },
    )


StackingClassifier = _stack(
    sklearn.ensemble.StackingClassifier,
    StackedKerasClassifier,
    sklearn.linear_model.LogisticRegression,
)
StackingRegressor = _stack(
    sklearn.ensemble.StackingRegressor, StackedKerasRegressor, sklearn.linear_model.RidgeCV
)


def _learned(name):
    """A fitted attribute of the encoder inside."""
    return lambda self: getattr(self.estimator_, name)


LEARNED = ("categories_", "classes_", "encodings_", "target_mean_", "target_type_")
TargetEncoder = stand_in(
    sklearn.preprocessing.TargetEncoder,
    KerasFeatureTransformer,
    {
        "model": lambda self: sklearn.preprocessing.TargetEncoder(
            categories=self.categories, target_type=self.target_type, smooth=self.smooth
        ),
        **{name: _learned(name) for name in LEARNED},
        "random_state": None,
    },
    ["shuffle"],
)


def in_place(*paths):
    """Return the stand-ins for these classes by the names that a peer's test imports."""
    return {path: globals()[path.rpartition(".")[2]] for path in paths}
