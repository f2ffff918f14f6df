from peers.stand_ins import in_place
from peers.suite import Suite

globals().update(
    Suite(
        "sklearn.ensemble.tests.test_stacking",
        in_place(
            "sklearn.linear_model.LogisticRegression",
            "sklearn.linear_model.LinearRegression",
            "sklearn.linear_model.Ridge",
            "sklearn.neural_network.MLPClassifier",
        ),
        left_out={},
    ).names()
)
