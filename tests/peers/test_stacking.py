"""scikit-learn's tests of its stacks, on ours."""

from peers.stand_ins import in_place
from peers.suite import Suite

PREFIT = "fitted parts are FrozenEstimators in a list of branches; cv has no 'prefit'"
MESSAGES = "the same mistakes raise ValueErrors with messages of our own"

globals().update(
    Suite(
        "sklearn.ensemble.tests.test_stacking",
        in_place("sklearn.ensemble.StackingClassifier", "sklearn.ensemble.StackingRegressor"),
        left_out={
            "test_stacking_regressor_sparse_passthrough": "what stacks learn from is dense",
            "test_stacking_classifier_sparse_passthrough": "what stacks learn from is dense",
            "test_stacking_classifier_error": MESSAGES,
            "test_stacking_regressor_error": MESSAGES,
            "test_stacking_prefit": PREFIT,
            "test_stacking_prefit_error": PREFIT,
            "test_stacking_classifier_multilabel_auto_predict": "there is no stack_method",
            "test_stacking_without_n_features_in": "n_features_in_ does not depend on branches",
            "test_get_feature_names_out": "names are branch__output",
            "test_routing_passed_metadata_not_supported": "its list of branches is invalid, too",
            "test_metadata_routing_for_stacking_estimators": (
                "the fit of a downstream gets metadata, too, and must say whether it wants them"
            ),
        },
    ).names()
)
