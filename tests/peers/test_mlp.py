from peers.stand_ins import in_place
from peers.suite import Suite

ONE = "one row has no moments to begin with"
PLATEAU = "early stopping watches rows set aside, not the training loss"

globals().update(
    Suite(
        "sklearn.neural_network.tests.test_mlp",
        in_place(
            "sklearn.neural_network.MLPClassifier",
            "sklearn.neural_network.MLPRegressor",
        ),
        left_out={
            "test_alpha": "about alpha",
            "test_fit": "sets weights, and names numbers of scikit-learn",
            "test_gradient": "about private methods",
            "test_lbfgs_regression": "needs L-BFGS",
            "test_lbfgs_classification_maxfun": "about L-BFGS",
            "test_lbfgs_regression_maxfun": "about L-BFGS",
            "test_learning_rate_warmstart": "about schedules of scikit-learn",
            "test_adaptive_learning_rate": "about schedules of scikit-learn",
            "test_multilabel_classification": "needs L-BFGS",
            "test_predict_proba_multilabel": "needs L-BFGS",
            "test_partial_fit_classes_error": ONE,
            "test_mlp_loading_from_joblib_partial_fit": ONE,
            "test_partial_fit_errors": "about L-BFGS",
            "test_nonfinite_params": "the ValueError has a message of our own",
            "test_early_stopping_stratified": "the ValueError has a message of our own",
            "test_shuffle": "rows are always shuffled",
            "test_tolerance": PLATEAU,
            "test_n_iter_no_change": PLATEAU,
            "test_n_iter_no_change_inf": PLATEAU,
            "test_mlp_warm_start_no_convergence": PLATEAU,
            "test_verbose_sgd": "progress has words of our own",
            "test_early_stopping": "best_loss_ does not exist",
            "test_mlp_param_dtypes[*-float64]": "weights and predictions are float32",
            "test_mlp_param_dtypes[MLPRegressor-*]": "predict of a regressor is float64",
            "test_preserve_feature_names[MLPClassifier]": "its y has one class, which is refused",
            "test_mlp_partial_fit_after_fit": "partial_fit is one epoch whatever early_stopping is",
            "test_mlp_diverging_loss": 'passes learning_rate="constant"',
            "test_mlp_vs_poisson_glm_equivalent": "needs L-BFGS",
            "test_minimum_input_sample_size": "one validation row suffices for a regressor",
            "test_warm_start": "a warm start accepts rows of some of the classes",
        },
    ).names()
)
