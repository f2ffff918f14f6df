"""scikit-learn's tests of metadata routing, on the meta-estimators of ours in place of its own."""

import pytest
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from peers.suite import Suite
from skstack import KerasFeatureTransformer, StackedKerasClassifier, StackedKerasRegressor

SUITE = Suite(
    "sklearn.tests.test_metaestimators_metadata_routing",
    {},
    left_out={
        "test_unsupported_estimators_get_metadata_routing": "ours support routing",
        "test_unsupported_estimators_fit_with_metadata": "ours support routing",
        "test_registry_copy": "about a helper of the tests",
        "test_metadata_routed_to_group_splitter[features-classifier]": "scores predictions",
        "test_metadata_routed_to_group_splitter[features-regressor]": "scores predictions",
    },
)


# The splitter of these tests does; that there is a warning is tested elsewhere.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*puts rows of one group:UserWarning")


def described(cls, part, kind, splits_in="fit", **other):
    """A description of a meta-estimator in the form of scikit-learn's own list."""
    return {
        "metaestimator": cls,
        "estimator_name": part,
        "estimator": kind,
        "X": SUITE.loaded.X,
        "y": SUITE.loaded.y,
        "estimator_routing_methods": ["fit"],
        "preserves_metadata": "subset",
        "cv_name": "cv",
        "cv_routing_methods": [splits_in],
        "init_args": other,
    }


# Beside the splits of all rows, a blend splits those without each fold; these tests compare each.
NO_BLEND = {"blend": False}
DOWNSTREAM = {"upstream": PCA(2), "scaler": None}
OURS = {
    "classifier-downstream": described(
        StackedKerasClassifier, "downstream", "classifier", **DOWNSTREAM
    ),
    "regressor-downstream": described(
        StackedKerasRegressor, "downstream", "regressor", **DOWNSTREAM
    ),
    "classifier-upstream": described(
        StackedKerasClassifier,
        "upstream",
        "classifier",
        downstream=KNeighborsClassifier(),
        **NO_BLEND,
    ),
    "regressor-upstream": described(
        StackedKerasRegressor, "upstream", "regressor", downstream=KNeighborsRegressor(), **NO_BLEND
    ),
    "features-classifier": described(
        KerasFeatureTransformer, "model", "classifier", "fit_transform"
    ),
    "features-regressor": described(KerasFeatureTransformer, "model", "regressor", "fit_transform"),
}
# The marks of the tests hold these two lists.
SUITE.loaded.METAESTIMATORS[:] = OURS.values()
SUITE.loaded.METAESTIMATOR_IDS[:] = OURS

globals().update(SUITE.names())
