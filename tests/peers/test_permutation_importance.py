from peers.stand_ins import in_place
from peers.suite import UNUSED, Suite

globals().update(
    Suite(
        "sklearn.inspection.tests.test_permutation_importance",
        in_place(
            "sklearn.linear_model.LogisticRegression",
            "sklearn.linear_model.LinearRegression",
            "sklearn.ensemble.RandomForestClassifier",
            "sklearn.ensemble.RandomForestRegressor",
        ),
        left_out={
            "test_permutation_importance_large_memmaped_data": UNUSED,
            "test_robustness_to_high_cardinality_noisy_feature": "reads feature_importances_",
            "test_permutation_importance_linear_regression": "computes with linear coefficients",
            "test_permutation_importance_sample_weight": "needs an exact linear fit",
        },
    ).names()
)
