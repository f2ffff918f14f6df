"""scikit-learn's own checks, over every estimator: all on small fits, some on the defaults."""

import inspect

import numpy as np
import pytest
from _models import SMALL, regression
from scipy.sparse import csr_array
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.utils import estimator_checks, get_tags
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
from skstack.networks import Autoencoder, TabM

# Enough epochs for scikit-learn's checks of accuracy, too few steps for a compilation with XLA.
QUICK = {"epochs": 8, "learning_rate": 0.05, "batch_size": 64}
CLASSIFIER, REGRESSOR = KerasClassifier(SMALL, **QUICK), KerasRegressor(SMALL, **QUICK)
ENCODER = KerasAutoencoder(Autoencoder((4,), latent_size=2), epochs=2, batch_size=64)
ESTIMATORS = [
    CLASSIFIER,
    REGRESSOR,
    ENCODER,
    KerasFeatureTransformer(ENCODER),
    StackedKerasClassifier(ENCODER, downstream=CLASSIFIER),
    StackedKerasRegressor(ENCODER, downstream=REGRESSOR),
]
DEFAULTS = [type(estimator)() for estimator in ESTIMATORS]
# The checks pass y as an array of one column, whose kind must be given.
ESTIMATORS.append(KerasMultiTask(SMALL, tasks=["regression"], **QUICK))


def expected_failures(estimator):
    return {
        "check_sample_weight_equivalence_on_dense_data": (
            "batches in float32 cannot meet it; see test_weighting_a_row_equals_repeating_it"
        ),
        "check_sample_weight_equivalence_on_sparse_data": "as on dense data",
    }


# Not strict: it is rounding that decides. Before scikit-learn 1.8 pytest's own setting holds.
SETTINGS = {"expected_failed_checks": expected_failures, "xfail_strict": False}
KNOWN = inspect.signature(parametrize_with_checks).parameters
ALL_CHECKS = parametrize_with_checks(
    ESTIMATORS, **{name: value for name, value in SETTINGS.items() if name in KNOWN}
)

# Checks that train networks of many shapes. The code that they are about is that of a base class,
# so one estimator of each base class is enough.
COSTLY = [
    "check_classifier_data_not_an_array",
    "check_classifiers_multilabel_representation_invariance",
    "check_dataframe_column_names_consistency",
    "check_dont_overwrite_parameters",
    "check_dtype_object",
    "check_estimator_sparse_array",
    "check_estimators_dtypes",
    "check_estimators_fit_returns_self",
    "check_estimators_nan_inf",
    "check_estimators_overwrite_params",
    "check_estimators_partial_fit_n_features",
    "check_estimators_pickle",
    "check_f_contiguous_array_estimator",
    "check_fit2d_1feature",
    "check_fit_idempotent",
    "check_fit_score_takes_y",
    "check_methods_subset_invariance",
    "check_n_features_in_after_fitting",
    "check_pipeline_consistency",
    "check_positive_only_tag_during_fit",
    "check_sample_weights_list",
    "check_sample_weights_not_an_array",
    "check_sample_weights_not_overwritten",
    "check_sample_weights_pandas_series",
    "check_sample_weights_shape",
    "check_transformer_data_not_an_array",
]
ONE_OF_EACH = (KerasClassifier, KerasFeatureTransformer, StackedKerasRegressor)


def slow_case(estimator, name):
    """Whether a case holds nothing that another one does not, or cannot fail."""
    if name in expected_failures(estimator):
        return True
    if name == "check_estimator_sparse_matrix":  # which check_estimator_sparse_array repeats
        return not isinstance(estimator, KerasFeatureTransformer)
    return name in COSTLY and not isinstance(estimator, ONE_OF_EACH)


def marked(case):
    """A case of `parametrize_with_checks`, which may be slow."""
    values, marks = getattr(case, "values", case), getattr(case, "marks", ())
    estimator, check = values
    if slow_case(estimator, getattr(check, "func", check).__name__):
        marks = [*marks, pytest.mark.slow]
    return pytest.param(*values, marks=marks)


@pytest.mark.parametrize(
    ALL_CHECKS.args[0], list(map(marked, ALL_CHECKS.args[1])), ids=ALL_CHECKS.kwargs["ids"]
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", DEFAULTS, ids=lambda e: type(e).__name__)
def test_default_estimators_pass_checks(estimator):
    name = type(estimator).__name__
    assert estimator_checks.check_parameters_default_constructible(name, estimator) is None
    if hasattr(estimator, "predict"):
        kind = "classifiers" if is_classifier(estimator) else "regressors"
        getattr(estimator_checks, f"check_{kind}_train")(name, clone(estimator))
    else:
        estimator_checks.check_transformer_general(name, clone(estimator))


COMMON = [
    "check_param_validation",
    "check_dataframe_column_names_consistency",
]
TRANSFORMER = [
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_set_output_transform_polars",
    "check_global_output_transform_pandas",
    "check_global_set_output_transform_polars",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
]


@pytest.mark.parametrize(
    ("name", "estimator"),
    [
        pytest.param(
            name,
            estimator,
            marks=[pytest.mark.slow] if slow_case(estimator, name) else [],
            id=f"{name}-{type(estimator).__name__}",
        )
        for name in COMMON
        for estimator in ESTIMATORS
    ],
)
def test_common_checks(name, estimator):
    getattr(estimator_checks, name)(type(estimator).__name__, clone(estimator))


# The checks fit on a frame and transform an array, and the other way round; scikit-learn warns.
@pytest.mark.filterwarnings("ignore:X (has|does not have valid) feature names")
@pytest.mark.parametrize("name", TRANSFORMER)
@pytest.mark.parametrize(
    "estimator", [ENCODER, KerasFeatureTransformer(ENCODER)], ids=lambda e: type(e).__name__
)
def test_transformer_checks(estimator, name):
    getattr(estimator_checks, name)(type(estimator).__name__, clone(estimator))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "load", "method"),
    [
        (KerasClassifier(TabM(dropout=0)), load_iris, "predict_proba"),
        (KerasRegressor(TabM(dropout=0)), load_diabetes, "predict"),
        (KerasAutoencoder(), load_iris, "transform"),
    ],
    ids=["KerasClassifier", "KerasRegressor", "KerasAutoencoder"],
)
def test_weighting_a_row_equals_repeating_it(estimator, load, method):
    """In one full batch a step, to 1e-5; rows of weight 0 are as if they were not there."""
    X, y = load(return_X_y=True)
    weights = np.random.default_rng(0).integers(0, 3, len(X))
    weights[:3] = 1
    rows = np.repeat(np.arange(len(X)), weights)
    estimator = estimator.set_params(batch_size=4096, epochs=10, random_state=0)
    weighted = clone(estimator).fit(X, y, sample_weight=weights)
    repeated = clone(estimator).fit(X[rows], y[rows])
    np.testing.assert_allclose(
        getattr(weighted, method)(X), getattr(repeated, method)(X), rtol=1e-5, atol=1e-5
    )


def test_no_estimator_has_the_non_deterministic_tag():
    assert not any(get_tags(estimator).non_deterministic for estimator in ESTIMATORS)


def test_sparse_rows_need_not_suit_a_downstream_that_gets_dense_ones():
    X, y = regression()
    dense = HistGradientBoostingRegressor(max_iter=2)
    stack = StackedKerasRegressor([("linear", Ridge())], downstream=dense, cv=2)
    assert get_tags(stack).input_tags.sparse
    assert not get_tags(dense).input_tags.sparse
    found = stack.fit(csr_array(X), y).predict(csr_array(X))
    np.testing.assert_allclose(found, stack.fit(X, y).predict(X), rtol=1e-6)
    stack.set_params(upstream=[("boosting", dense)])
    assert not get_tags(stack).input_tags.sparse
