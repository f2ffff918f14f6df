from peers.stand_ins import in_place
from peers.suite import UNUSED, Suite

BOUND = "a bound on the loss that depends on the models"

globals().update(
    Suite(
        "sklearn.tests.test_calibration",
        in_place(
            "sklearn.linear_model.LogisticRegression",
            "sklearn.svm.LinearSVC",
            "sklearn.ensemble.RandomForestClassifier",
            "sklearn.tree.DecisionTreeClassifier",
        ),
        left_out={
            "test_calibration_frozen": UNUSED,
            "test_float32_predict_proba": UNUSED,
            "test_temperature_scaling[False-*]": "its temperature is that of a calibrated model",
            "test_calibrated_classifier_cv_double_sample_weights_equivalence[False-sigmoid]": (
                "the calibrator amplifies rounding in float32"
            ),
            "test_calibration_default_estimator": "about the default estimator",
            "test_calibration_multiclass[1-True-sigmoid]": BOUND,
            "test_calibration_multiclass[1-False-isotonic]": BOUND,
            "test_calibration_method_raises": UNUSED,
            "test_calibration": UNUSED,
            "test_calibration_cv_splitter": UNUSED,
            "test_calibration_cv_nfold": UNUSED,
            "test_calibration_zero_probability": UNUSED,
            "test_sigmoid_calibration": UNUSED,
            "test_temperature_scaling_input_validation": UNUSED,
            "test_calibration_curve": UNUSED,
            "test_calibration_accepts_ndarray": UNUSED,
            "test_calibration_display_default_labels": UNUSED,
            "test_calibration_display_label_class_plot": UNUSED,
            "test_calibration_curve_pos_label_error_str": UNUSED,
            "test_calibration_curve_pos_label": UNUSED,
            "test_calibration_with_fit_params": UNUSED,
            "test_calibration_with_sample_weight_estimator": UNUSED,
            "test_calibration_without_sample_weight_estimator": UNUSED,
            "test_calibrated_classifier_cv_works_with_large_confidence_scores": UNUSED,
            "test_sigmoid_calibration_max_abs_prediction_threshold": UNUSED,
            "test_error_less_class_samples_than_folds": UNUSED,
            "test_temperature_scaling_array_api_compliance": UNUSED,
            "test_temperature_scaling_array_api_with_str_y_estimator_not_prefit": UNUSED,
        },
    ).names()
)
