from peers.stand_ins import in_place
from peers.suite import UNUSED, Suite

ONE_CLASS = "a bootstrap sample of one class is refused"

globals().update(
    Suite(
        "sklearn.ensemble.tests.test_bagging",
        in_place(
            "sklearn.linear_model.LogisticRegression",
            "sklearn.tree.DecisionTreeClassifier",
            "sklearn.tree.DecisionTreeRegressor",
            "sklearn.svm.SVC",
            "sklearn.svm.SVR",
        ),
        left_out={
            "test_bootstrap_samples": "needs a tree that memorizes its rows",
            "test_estimator": "about the default estimator",
            "test_parallel_classification": "compares log-odds of float32 to 6 decimals",
            "test_estimators_samples": "compares weights of float32 to 6 decimals",
            "test_bagging_classifier_with_missing_inputs": ONE_CLASS,
            "test_bagging_small_max_features": ONE_CLASS,
            "test_oob_score_classification": "fits 200 networks; the same for regression runs",
            "test_single_estimator": UNUSED,
            "test_warm_start": UNUSED,
            "test_warm_start_smaller_n_estimators": UNUSED,
            "test_warm_start_equal_n_estimators": UNUSED,
            "test_warm_start_equivalence": UNUSED,
            "test_warm_start_with_oob_score_fails": UNUSED,
            "test_warning_bootstrap_sample_weight": UNUSED,
            "test_invalid_sample_weight_max_samples_bootstrap_combinations": UNUSED,
            "test_draw_indices_using_sample_weight": UNUSED,
            "test_oob_score_removed_on_warm_start": UNUSED,
            "test_oob_score_consistency": UNUSED,
            "test_max_samples_consistency": UNUSED,
            "test_set_oob_score_label_encoding": UNUSED,
            "test_bagging_allow_nan_tag": UNUSED,
            "test_bagging_with_metadata_routing": UNUSED,
            "test_metadata_routing_with_dynamic_method_selection": UNUSED,
            "test_bagging_without_support_metadata_routing": UNUSED,
            "test_sparse_classification[*csc_*]": "as CSR, and takes as long",
            "test_sparse_classification[*_matrix*]": "as arrays, and takes as long",
            "test_sparse_regression[csc_*]": "as CSR, and takes as long",
            "test_sparse_regression[*_matrix]": "as arrays, and takes as long",
        },
    ).names()
)
