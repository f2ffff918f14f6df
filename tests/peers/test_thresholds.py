from peers.stand_ins import in_place
from peers.suite import UNUSED, Suite

globals().update(
    Suite(
        "sklearn.model_selection.tests.test_classification_threshold",
        in_place(
            "sklearn.linear_model.LogisticRegression",
            "sklearn.svm.SVC",
            "sklearn.tree.DecisionTreeClassifier",
            "sklearn.ensemble.GradientBoostingClassifier",
        ),
        left_out={
            "test_fit_and_score_over_thresholds_fit_params": UNUSED,
            "test_tuned_threshold_classifier_fit_params": UNUSED,
            "test_tuned_threshold_classifier_error_constant_predictor": UNUSED,
            "test_fit_and_score_over_thresholds_prefit": "needs a tree that memorizes its rows",
            "test_tuned_threshold_classifier_metric_with_parameter": (
                "whether two thresholds differ depends on the model"
            ),
        },
    ).names()
)
