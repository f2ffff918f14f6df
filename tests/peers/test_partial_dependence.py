from peers.stand_ins import in_place
from peers.suite import UNUSED, Suite

globals().update(
    Suite(
        "sklearn.inspection.tests.test_partial_dependence",
        in_place(
            "sklearn.linear_model.LogisticRegression",
            "sklearn.linear_model.LinearRegression",
            "sklearn.linear_model.MultiTaskLasso",
        ),
        left_out={
            "test_partial_dependence_helpers[est1-*]": UNUSED,
            "test_partial_dependence_helpers[est3-*]": UNUSED,
            "test_partial_dependence_error[estimator0-*]": UNUSED,
            "test_partial_dependence_error[estimator2-*]": UNUSED,
            "test_partial_dependence_error[estimator3-*]": UNUSED,
            "test_partial_dependence_unknown_feature_indices[*-estimator1]": UNUSED,
            "test_partial_dependence_unknown_feature_string[estimator1]": UNUSED,
            "test_partial_dependence_X_list[estimator1]": UNUSED,
            "test_partial_dependence_sample_weight_of_fitted_estimator": UNUSED,
            "test_partial_dependence_pipeline": UNUSED,
            "test_partial_dependence_binary_model_grid_resolution": UNUSED,
            "test_partial_dependence_binary_model_custom_values": UNUSED,
            "test_partial_dependence_pipeline_custom_values": UNUSED,
            "test_partial_dependence_dataframe[*-estimator-recursion]": UNUSED,
            "test_partial_dependence_unfitted": UNUSED,
            "test_partial_dependence_non_null_weight_idx[*-estimator2]": UNUSED,
            "test_partial_dependence_non_null_weight_idx[*-estimator3]": UNUSED,
            "test_partial_dependence_sample_weight_with_recursion": UNUSED,
            "test_output_shape[*GradientBoosting*]": UNUSED,
            "test_output_shape[*DecisionTree*]": UNUSED,
            "test_grid_from_X": UNUSED,
            "test_grid_from_X_with_categorical": UNUSED,
            "test_grid_from_X_heterogeneous_type": UNUSED,
            "test_grid_from_X_error": UNUSED,
            "test_partial_dependence_helpers[*recursion*]": UNUSED,
            "test_recursion_decision_tree_vs_forest_and_gbdt": UNUSED,
            "test_recursion_decision_function": UNUSED,
            "test_partial_dependence_easy_target": "its judge is a LinearRegression, too",
            "test_multiclass_multioutput": UNUSED,
            "test_hist_gbdt_sw_not_supported": UNUSED,
            "test_warning_recursion_non_constant_init": UNUSED,
            "test_reject_array_with_integer_dtype": UNUSED,
            "test_reject_pandas_with_integer_dtype": UNUSED,
        },
    ).names()
)
