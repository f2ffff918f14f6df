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
        left_out={
            "test_sparse_classification[*csc_*]": "as CSR, and takes as long",
            "test_sparse_classification[*_matrix*]": "as arrays, and takes as long",
            "test_sparse_regression[csc_*]": "as CSR, and takes as long",
            "test_sparse_regression[*_matrix]": "as arrays, and takes as long",
        },
    ).names()
)
