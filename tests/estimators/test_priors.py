import numpy as np
import pytest
from imblearn import FunctionSampler
from imblearn.combine import SMOTEENN, SMOTETomek
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.pipeline import make_pipeline
from imblearn.under_sampling import (
    EditedNearestNeighbours,
    InstanceHardnessThreshold,
    NearMiss,
    RandomUnderSampler,
    TomekLinks,
)
from sklearn.datasets import make_classification
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC, LinearSVC

from skstack import KerasClassifier, StackedKerasClassifier
from skstack._estimators.resampling import (
    correct_decisions,
    correct_priors,
    prior_ratio,
    refuse_cleaning,
)
from skstack.networks import MLP
from tests._models import FIT, SMALL, binary


class AnySampler:
    """Has no tags."""

    def fit_resample(self, X, y):
        return X, y


@pytest.mark.parametrize(
    "sampler",
    [
        EditedNearestNeighbours(),
        TomekLinks(),
        SMOTEENN(),
        NearMiss(),
        InstanceHardnessThreshold(),
        SMOTETomek(),
        make_pipeline(SMOTE(), TomekLinks()),
    ],
)
def test_cleaning_is_refused(sampler):
    with pytest.raises(ValueError, match=r"prior_correction.*sampler="):
        refuse_cleaning(sampler)


@pytest.mark.parametrize(
    "sampler",
    [None, SMOTE(), RandomUnderSampler(), RandomOverSampler(), FunctionSampler(), AnySampler()],
)
def test_samplers_that_keep_classes_pass(sampler):
    refuse_cleaning(sampler)


def test_ratio_of_class_frequencies():
    ratio = prior_ratio(["b"] * 3 + ["a"] * 6, ["a", "b", "b", "b"], ["a", "b", "gone"])
    np.testing.assert_allclose(ratio, [(6 / 9) / (1 / 4), (3 / 9) / (3 / 4), 0])


def test_ratio_of_weighted_class_frequencies():
    y, weights = np.array([0, 0, 1]), np.array([1.0, 3.0, 4.0])
    np.testing.assert_allclose(prior_ratio(y, [0, 1, 1], [0, 1], weights), [1.5, 0.75])
    np.testing.assert_allclose(prior_ratio(y, y, [0, 1], weights, weights), [1, 1])
    repeated = np.repeat(y, weights.astype(int))
    np.testing.assert_allclose(
        prior_ratio(repeated, [0, 1, 1], [0, 1]), prior_ratio(y, [0, 1, 1], [0, 1], weights)
    )


def test_a_class_removed_by_the_sampler_is_an_error():
    with pytest.raises(ValueError, match="class rare"):
        prior_ratio(["a", "rare"], ["a", "a"], ["a", "rare"])
    with pytest.raises(ValueError, match="positive weight"):
        prior_ratio([0, 1], [0, 1], [0, 1], [0, 0])


def test_corrected_probabilities_are_those_of_bayes_rule():
    rng = np.random.default_rng(0)
    likelihood, before, after = rng.random((50, 3)), np.array([0.7, 0.2, 0.1]), np.full(3, 1 / 3)

    def posterior(prior):
        joint = likelihood * prior
        return joint / joint.sum(axis=1, keepdims=True)

    corrected = correct_priors(posterior(after), before / after)
    np.testing.assert_allclose(corrected, posterior(before), rtol=1e-12)
    single = correct_priors(posterior(after).astype(np.float32), before / after)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single.sum(axis=1), 1, rtol=1e-6)


def test_probability_of_classes_without_rows_is_kept():
    given = np.array([[0.0, 1.0], [0.5, 0.5]])
    np.testing.assert_array_equal(correct_priors(given, np.array([1.0, 0.0])), [[0, 1], [1, 0]])
    assert given.tolist() == [[0, 1], [0.5, 0.5]]


# Decisions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(
    "downstream",
    [
        LogisticRegression(),
        SVC(probability=True, random_state=0),
        SVC(probability=True, random_state=0, decision_function_shape="ovo"),
        GradientBoostingClassifier(n_estimators=5, random_state=0),
    ],
    ids=["logits", "scores", "pairs", "raw"],
)
@pytest.mark.filterwarnings("ignore:The `probability` parameter was deprecated:FutureWarning")
def test_decisions_match_corrected_probabilities(downstream, n_classes):
    X, y = make_classification(
        400, 6, n_informative=4, n_redundant=0, n_classes=n_classes, flip_y=0.2, random_state=0,
        weights=[0.85, 0.15] if n_classes == 2 else [0.7, 0.2, 0.1],
    )  # fmt: skip
    stack = StackedKerasClassifier(
        [("one", LogisticRegression())],
        downstream=downstream, sampler=RandomUnderSampler(random_state=0), blend=False, cv=2,
        random_state=0,
    ).fit(X, np.array(list("abc"))[y])  # fmt: skip
    plain = stack.decision_function(X)
    np.testing.assert_array_equal(plain, stack.downstream_.decision_function(stack.transform(X)))
    stack.set_params(prior_correction=True).fit(X, np.array(list("abc"))[y])
    found, p = stack.decision_function(X), stack.predict_proba(X)
    if n_classes == 2:
        np.testing.assert_allclose(found, np.log(p[:, 1] / p[:, 0]), atol=1e-4)
        chosen = (found > 0).astype(int)
    else:
        logs = np.log(p)
        differences = found - found[:, :1]
        np.testing.assert_allclose(differences, logs - logs[:, :1], atol=1e-4)
        chosen = found.argmax(axis=1)
    np.testing.assert_array_equal(stack.classes_[chosen], stack.predict(X))
    assert np.mean(stack.predict(X) == stack.downstream_.predict(stack.transform(X))) < 0.97


def test_extreme_log_odds_keep_their_precision():
    decisions = np.array([-60.0, 0.0, 60.0])
    p = np.c_[[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]]
    found = correct_decisions(decisions, p, np.array([1.8, 0.2]))
    np.testing.assert_allclose(found, decisions + np.log(0.2 / 1.8))
    lost = correct_decisions(decisions, p[::-1], np.array([1.8, 0.2]))  # these are no log-odds
    assert lost[0] == np.inf


def test_missing_probabilities_and_multilabel_targets_are_refused_before_training():
    X, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 3
    settings = {"sampler": RandomUnderSampler(random_state=0), "prior_correction": True}
    with pytest.raises(ValueError, match=r"LinearSVC\(\) has no predict_proba"):
        StackedKerasClassifier(downstream=LinearSVC(), **settings).fit(X, y)
    network = KerasClassifier(MLP(hidden_layer_sizes=()), epochs=1, random_state=0)
    for estimator in (network, StackedKerasClassifier([("one", network)], downstream=network)):
        with (
            pytest.warns(UserWarning, match="one 1 in each row"),
            pytest.raises(ValueError, match=r"not supported for multilabel.*\(60, 3\)"),
        ):
            estimator.set_params(**settings).fit(X, np.eye(3, dtype=int)[y])
    with pytest.warns(UserWarning, match="one 1 in each row"):
        network.set_params(prior_correction=False).fit(X, np.eye(3, dtype=int)[y])
    assert network.predict(X).shape == (60, 3)


def test_a_fit_without_a_sampler_forgets_the_ratio_of_an_earlier_one():
    X, y = binary()
    rare = np.where(np.arange(len(y)) < 20, 0, y)
    sampled = KerasClassifier(
        SMALL, sampler=RandomUnderSampler(random_state=0), prior_correction=True, **FIT
    )
    plain = KerasClassifier(SMALL, **FIT)
    fitted = sampled.fit(X, rare).set_params(sampler=None).fit(X, rare)
    expected = plain.fit(X, rare)
    assert not {"sampler_", "prior_ratio_"} & set(vars(fitted))
    np.testing.assert_array_equal(fitted.predict_proba(X), expected.predict_proba(X))
    np.testing.assert_array_equal(fitted._logits(X), expected._logits(X))
    np.testing.assert_allclose(fitted.to_keras()(X), expected.predict_proba(X), rtol=1e-5)


@pytest.mark.parametrize("way", ["partial_fit", "warm start", "then no sampler"])
def test_the_ratio_counts_all_rows_that_a_network_was_trained_on(way):
    X, y = binary()
    y = np.where(np.arange(len(y)) < 12, 2, y)
    part = np.r_[np.flatnonzero(y == 0)[:6], np.flatnonzero(y == 1)[:10]]
    weights = np.arange(len(y)) % 3 + 1.0
    network = KerasClassifier(
        SMALL, sampler=RandomOverSampler(random_state=0), prior_correction=True, **FIT
    )
    if way == "partial_fit":
        network.partial_fit(X, y, [0, 1, 2], weights)
        network.partial_fit(X[part], y[part], sample_weight=weights[part])
    else:
        network.set_params(warm_start=True).fit(X, y, weights)
        if way == "then no sampler":
            network.set_params(sampler=None)
        network.fit(X[part], y[part], weights[part])
    before = np.array([weights[y == k].sum() + weights[part][y[part] == k].sum() for k in range(3)])
    after = np.zeros(3)
    for rows in (np.arange(len(y)), part):
        taken = rows
        if len(rows) == len(y) or way != "then no sampler":
            sampler = RandomOverSampler(random_state=0)
            sampler.fit_resample(X[rows], y[rows])
            taken = rows[sampler.sample_indices_]
        after += [weights[taken][y[taken] == k].sum() for k in range(3)]
    expected = (before / before.sum()) / (after / after.sum())
    np.testing.assert_allclose(network.prior_ratio_, expected)
    assert (network.predict_proba(X)[:, 2] > 0).all()
    network.set_params(warm_start=False, sampler=RandomOverSampler(random_state=0)).fit(X, y)
    np.testing.assert_allclose(network.prior_ratio_, 3 * np.bincount(y) / len(y))


def test_a_fit_without_calibration_forgets_the_temperature_of_an_earlier_one():
    X, y = binary()
    stack = StackedKerasClassifier(
        [("linear", LogisticRegression())], downstream=LogisticRegression(), cv=3, random_state=0
    )
    stack.set_params(calibration="temperature").fit(X, y)
    assert hasattr(stack, "temperature_")
    assert not hasattr(stack.set_params(calibration=None).fit(X, y), "temperature_")
