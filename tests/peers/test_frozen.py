from peers.stand_ins import in_place
from peers.suite import Suite

globals().update(
    Suite(
        "sklearn.frozen.tests.test_frozen",
        in_place(
            "sklearn.linear_model.LinearRegression",
            "sklearn.linear_model.LogisticRegression",
        ),
        left_out={},
    ).names()
)
