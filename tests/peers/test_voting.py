from peers.stand_ins import in_place
from peers.suite import Suite

globals().update(
    Suite(
        "sklearn.ensemble.tests.test_voting",
        in_place(
            "sklearn.linear_model.LogisticRegression",
            "sklearn.linear_model.LinearRegression",
            "sklearn.linear_model.Ridge",
            "sklearn.svm.SVC",
            "sklearn.naive_bayes.GaussianNB",
            "sklearn.tree.DecisionTreeClassifier",
            "sklearn.tree.DecisionTreeRegressor",
            "sklearn.ensemble.RandomForestClassifier",
        ),
        left_out={},
    ).names()
)
