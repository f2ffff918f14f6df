from peers.stand_ins import in_place
from peers.suite import UNUSED, Suite

globals().update(
    Suite(
        "imblearn.tests.test_pipeline",
        in_place(
            "sklearn.linear_model.LogisticRegression",
            "sklearn.linear_model.LinearRegression",
            "sklearn.svm.SVC",
        ),
        left_out={
            "test_pipeline_init_tuple": UNUSED,
            "test_pipeline_fit_params": UNUSED,
            "test_pipeline_sample_weight_supported": UNUSED,
            "test_pipeline_sample_weight_unsupported": UNUSED,
            "test_fit_predict_on_pipeline": UNUSED,
            "test_fit_predict_on_pipeline_without_fit_predict": UNUSED,
            "test_fit_predict_with_intermediate_fit_params": UNUSED,
            "test_pipeline_transform": UNUSED,
            "test_pipeline_fit_transform": UNUSED,
            "test_set_pipeline_steps": UNUSED,
            "test_pipeline_correctly_adjusts_steps": UNUSED,
            "test_set_pipeline_step_passthrough": UNUSED,
            "test_pipeline_ducktyping": UNUSED,
            "test_make_pipeline": UNUSED,
            "test_pipeline_sample": UNUSED,
            "test_pipeline_sample_transform": UNUSED,
            "test_pipeline_none_sampler_sample": UNUSED,
            "test_pipeline_none_transformer": UNUSED,
            "test_pipeline_fit_then_sample_with_sampler_last_estimator": UNUSED,
            "test_pipeline_fit_then_sample_3_samplers_with_sampler_last_estimator": UNUSED,
            "test_predict_with_predict_params": UNUSED,
            "test_resampler_last_stage_passthrough": UNUSED,
            "test_pipeline_score_samples_pca_lof_binary": UNUSED,
            "test_verbose": UNUSED,
            "test_pipeline_score_samples_pca_lof_multiclass": UNUSED,
            "test_pipeline_warns_not_fitted": UNUSED,
            "test_transform_input_explicit_value_check": UNUSED,
            "test_transform_input_no_slep6": UNUSED,
        },
    ).names()
)
