"""scikit-learn's tests of its stacks, with networks as their parts."""

from peers.stand_ins import in_place
from peers.suite import UNUSED, Suite

globals().update(
    Suite(
        "sklearn.ensemble.tests.test_stacking",
        in_place(
            "sklearn.linear_model.LogisticRegression",
            "sklearn.linear_model.LinearRegression",
            "sklearn.linear_model.Ridge",
            "sklearn.neural_network.MLPClassifier",
        ),
        left_out={
            "test_stacking_classifier_drop_estimator": UNUSED,
            "test_stacking_classifier_error[y0-*]": UNUSED,
            "test_stacking_regressor_error[y0-*]": UNUSED,
            "test_stacking_classifier_sample_weight_fit_param": UNUSED,
            "test_stacking_prefit_error": UNUSED,
            "test_stacking_classifier_multilabel_predict_proba[RandomForestClassifier]": UNUSED,
            "test_stacking_classifier_multilabel_decision_function": UNUSED,
            "test_routing_passed_metadata_not_supported": UNUSED,
            "test_get_metadata_routing_without_fit": UNUSED,
            "test_metadata_routing_for_stacking_estimators": UNUSED,
            "test_metadata_routing_error_for_stacking_estimators": UNUSED,
        },
    ).names()
)
