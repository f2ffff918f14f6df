from peers.stand_ins import in_place
from peers.suite import UNUSED, Suite

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
        left_out={
            "test_voting_classifier_estimator_init": UNUSED,
            "test_weights_regressor": UNUSED,
            "test_sample_weight_kwargs": UNUSED,
            "test_routing_passed_metadata_not_supported": UNUSED,
            "test_get_metadata_routing_without_fit": UNUSED,
            "test_metadata_routing_for_voting_estimators": UNUSED,
            "test_metadata_routing_error_for_voting_estimators": UNUSED,
            "test_tie_situation": "which row is a tie depends on the models",
            "test_predict_proba_on_toy_problem": "numbers of scikit-learn's own models",
            "test_set_estimator_drop": "numbers of scikit-learn's own models",
        },
    ).names()
)
