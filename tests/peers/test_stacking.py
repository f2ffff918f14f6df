from peers.stand_ins import in_place
from peers.suite import Suite

globals().update(
    Suite(
        "sklearn.ensemble.tests.test_stacking",
        in_place(
            "sklearn.ensemble.StackingClassifier",
            "sklearn.ensemble.StackingRegressor",
        ),
        left_out={},
    ).names()
)
