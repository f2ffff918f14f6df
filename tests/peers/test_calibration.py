from peers.stand_ins import in_place
from peers.suite import Suite

globals().update(
    Suite(
        "sklearn.tests.test_calibration",
        in_place(
            "sklearn.linear_model.LogisticRegression",
            "sklearn.svm.LinearSVC",
            "sklearn.ensemble.RandomForestClassifier",
            "sklearn.tree.DecisionTreeClassifier",
        ),
        left_out={},
    ).names()
)
