"""The checks of scikit-learn and imbalanced-learn, on estimators with settings of their own."""

from imblearn.over_sampling import RandomOverSampler
from imblearn.utils.estimator_checks import parametrize_with_checks as imblearn_checks
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.utils.estimator_checks import parametrize_with_checks

from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasMultiTask,
    KerasRegressor,
    StackedKerasClassifier,
    StackedKerasRegressor,
)
from skstack.networks import MLP, Autoencoder, TabM

# Enough epochs for scikit-learn's checks of accuracy.
QUICK = {"epochs": 8, "learning_rate": 0.05, "batch_size": 64}
NETWORK = MLP((4,))
CLASSIFIER, REGRESSOR = KerasClassifier(NETWORK, **QUICK), KerasRegressor(NETWORK, **QUICK)
ENCODER = KerasAutoencoder(Autoencoder((4,), latent_size=2), epochs=1, batch_size=64)
SAMPLER = RandomOverSampler(random_state=0)

ESTIMATORS = {
    "sampler": KerasClassifier(NETWORK, sampler=SAMPLER, **QUICK),
    "sampler, prior correction": KerasClassifier(
        NETWORK, sampler=SAMPLER, prior_correction=True, **QUICK
    ),
    "imputer": KerasClassifier(NETWORK, imputer=SimpleImputer(), **QUICK),
    "imputer, regression": KerasRegressor(NETWORK, imputer=SimpleImputer(), **QUICK),
    "early stopping": KerasClassifier(NETWORK, early_stopping=True, **QUICK),
    "class weight": KerasClassifier(NETWORK, class_weight="balanced", **QUICK),
    "members": KerasClassifier(TabM((4,), n_members=2), epochs=1, batch_size=64),
    "members, regression": KerasRegressor(TabM((4,), n_members=2), epochs=1, batch_size=64),
    "no passthrough": StackedKerasClassifier(CLASSIFIER, downstream=CLASSIFIER, passthrough=False),
    "two branches": StackedKerasClassifier(
        [("encoder", ENCODER), ("network", CLASSIFIER)], downstream=LogisticRegression(), cv=2
    ),
    "plain branch": StackedKerasClassifier(LogisticRegression(), downstream=CLASSIFIER, cv=2),
    "plain branch, regression": StackedKerasRegressor(Ridge(), downstream=REGRESSOR, cv=2),
    "no refit": StackedKerasRegressor(REGRESSOR, downstream=Ridge(), cv=2, refit=False),
    "supervised features": KerasFeatureTransformer(CLASSIFIER, cv=2),
    "supervised features, no refit": KerasFeatureTransformer(REGRESSOR, cv=2, refit=False),
    "multi-task": KerasMultiTask(NETWORK, tasks=["regression"], **QUICK),
    "wide autoencoder": KerasAutoencoder(Autoencoder((6,), latent_size=3), epochs=1, batch_size=32),
}


@parametrize_with_checks(list(ESTIMATORS.values()))
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


@imblearn_checks(list(ESTIMATORS.values()))
def test_checks_of_imbalanced_learn(estimator, check):
    check(estimator)
