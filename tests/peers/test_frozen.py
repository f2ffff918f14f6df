from peers.stand_ins import in_place
from peers.suite import UNUSED, Suite

globals().update(
    Suite(
        "sklearn.frozen.tests.test_frozen",
        in_place(
            "sklearn.linear_model.LinearRegression",
            "sklearn.linear_model.LogisticRegression",
        ),
        left_out={
            **{f"test_frozen_methods[*-estimator{i}-*]": UNUSED for i in range(4, 8)},
            "test_frozen_metadata_routing": UNUSED,
            "test_composite_fit": UNUSED,
            "test_frozen_tags": UNUSED,
        },
    ).names()
)
