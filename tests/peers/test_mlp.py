from peers.stand_ins import in_place
from peers.suite import Suite

globals().update(
    Suite(
        "sklearn.neural_network.tests.test_mlp",
        in_place(
            "sklearn.neural_network.MLPClassifier",
            "sklearn.neural_network.MLPRegressor",
        ),
        left_out={},
    ).names()
)
