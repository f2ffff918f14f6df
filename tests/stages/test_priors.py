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

from skstack.stages import correct_priors, prior_ratio, refuse_cleaning


class AnySampler:
    """Tells nothing about itself."""

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


def test_ratio_of_shares():
    ratio = prior_ratio(["b"] * 3 + ["a"] * 6, ["a", "b", "b", "b"], ["a", "b", "gone"])
    np.testing.assert_allclose(ratio, [(6 / 9) / (1 / 4), (3 / 9) / (3 / 4), 0])


def test_ratio_of_weighted_shares():
    y, weights = np.array([0, 0, 1]), np.array([1.0, 3.0, 4.0])
    np.testing.assert_allclose(prior_ratio(y, [0, 1, 1], [0, 1], weights), [1.5, 0.75])
    np.testing.assert_allclose(prior_ratio(y, y, [0, 1], weights, weights), [1, 1])
    repeated = np.repeat(y, weights.astype(int))
    np.testing.assert_allclose(
        prior_ratio(repeated, [0, 1, 1], [0, 1]), prior_ratio(y, [0, 1, 1], [0, 1], weights)
    )


def test_a_class_that_the_sampler_lost_is_an_error():
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


def test_mass_on_classes_without_rows_stays():
    given = np.array([[0.0, 1.0], [0.5, 0.5]])
    np.testing.assert_array_equal(correct_priors(given, np.array([1.0, 0.0])), [[0, 1], [1, 0]])
    assert given.tolist() == [[0, 1], [0.5, 0.5]]
