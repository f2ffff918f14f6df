"""scikit-learn's closed forms of out-of-fold features, on KerasFeatureTransformer."""

from peers.stand_ins import in_place
from peers.suite import Suite

globals().update(
    Suite(
        "sklearn.preprocessing.tests.test_target_encoder",
        in_place("sklearn.preprocessing.TargetEncoder"),
        left_out={
            "test_errors[y1-*]": "a target of several columns is inferred otherwise",
            "test_use_regression_target": "folds that change the number of columns are refused",
            "test_target_encoder_raises_cv_overlap": "the same mistake has a message of our own",
            "test_target_encoder_shuffle_random_state_deprecated": "about a deprecation",
        },
    ).names()
)
