from peers.stand_ins import in_place
from peers.suite import Suite

globals().update(
    Suite(
        "sklearn.ensemble.tests.test_bagging",
        in_place(
            "sklearn.linear_model.LogisticRegression",
            "sklearn.tree.DecisionTreeClassifier",
            "sklearn.tree.DecisionTreeRegressor",
            "sklearn.svm.SVC",
            "sklearn.svm.SVR",
        ),
        left_out={},
    ).names()
)
