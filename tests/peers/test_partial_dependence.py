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
