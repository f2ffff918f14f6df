from peers.stand_ins import in_place
from peers.suite import Suite

globals().update(
    Suite(
        "imblearn.tests.test_pipeline",
        in_place(
            "sklearn.linear_model.LogisticRegression",
            "sklearn.linear_model.LinearRegression",
            "sklearn.svm.SVC",
        ),
        left_out={},
    ).names()
)
