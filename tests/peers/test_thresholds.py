from peers.stand_ins import in_place
from peers.suite import Suite

globals().update(
    Suite(
        "sklearn.model_selection.tests.test_classification_threshold",
        in_place(
            "sklearn.linear_model.LogisticRegression",
            "sklearn.svm.SVC",
            "sklearn.tree.DecisionTreeClassifier",
            "sklearn.ensemble.GradientBoostingClassifier",
        ),
        left_out={},
    ).names()
)
