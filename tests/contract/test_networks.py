"""The same oracles where Keras networks learn, of one small shape that all cases share."""

import keras
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedKFold, TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skstack import KerasAutoencoder, KerasClassifier, KerasFeatureTransformer
from skstack.networks import MLP, Autoencoder

from .parts import SELECTOR, TREE, LooksAtRows, NeedsLabels, bare_stack, noise

pytestmark = [
    pytest.mark.filterwarnings("ignore:(?s).*(correlat|passes_y=False):UserWarning"),
    pytest.mark.filterwarnings("ignore:(?s).*time-ordered and never predicts:UserWarning"),
]

X, y = noise()
FOLDS = list(StratifiedKFold(3, shuffle=True, random_state=0).split(X, y))
NETWORK = KerasClassifier(MLP(hidden_layer_sizes=(3,)), epochs=2, batch_size=16)
CODER = KerasAutoencoder(
    Autoencoder(hidden_layer_sizes=(3,), latent_size=1), epochs=2, batch_size=16
)


@pytest.fixture(scope="module")
def frozen():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation="tanh")])


def flipped(rows):
    other = y.copy()
    other[rows] = 1 - y[rows]
    return other


def check_own_labels(transformer):
    before = clone(transformer).fit_transform(X, y)
    rows = FOLDS[0][1]
    after = clone(transformer).fit_transform(X, flipped(rows))
    np.testing.assert_array_equal(after[rows], before[rows])
    return before


def ours(part, **options):
    return KerasFeatureTransformer(part, cv=FOLDS, random_state=0, **options)


@pytest.mark.parametrize(
    "steps",
    [
        (SELECTOR,),
        (NeedsLabels(), LooksAtRows()),
        (KerasFeatureTransformer(TREE, cv=3), LooksAtRows()),
    ],
    ids=["selector", "user's own", "ours"],
)
def test_supervised_steps_before_an_autoencoder(steps):
    check_own_labels(ours(make_pipeline(*steps, CODER)))


def test_supervised_steps_before_error_and_layer_of_an_autoencoder():
    check_own_labels(ours(make_pipeline(SELECTOR, CODER), features=["reconstruction_error"]))
    check_own_labels(ours(make_pipeline(SELECTOR, CODER), layers="latent"))


# Before 1.8 scikit-learn asks a Pipeline's last step for its tags, and warns.
@pytest.mark.filterwarnings(
    "ignore:The following error was raised. 'Sequential':DeprecationWarning"
)
def test_supervised_steps_before_a_frozen_network(frozen):
    part = make_pipeline(SELECTOR, frozen)
    before = check_own_labels(ours(part))
    for train, test in FOLDS:  # closed form
        rows = clone(SELECTOR).fit(X[train], y[train]).transform(X[test]).astype(np.float32)
        np.testing.assert_allclose(before[test], frozen(rows).numpy(), atol=1e-6)
    table = bare_stack(part, FOLDS).fit_transform(X, y)
    np.testing.assert_array_equal(table, before)


@pytest.mark.parametrize("options", [{}, {"layers": "hidden_1"}])
def test_supervised_steps_before_a_classifier(options):
    check_own_labels(ours(make_pipeline(SELECTOR, NETWORK), **options))


def test_a_network_estimator_as_a_step_before_an_unsupervised_model():
    inside = KerasFeatureTransformer(NETWORK, cv=3, random_state=0)
    check_own_labels(ours(make_pipeline(inside, StandardScaler())))


def test_a_latent_after_unsupervised_steps_is_fitted_once():
    transformer = ours(make_pipeline(StandardScaler(), CODER))
    features = transformer.fit_transform(X, y)
    np.testing.assert_array_equal(features, transformer.transform(X))
    np.testing.assert_array_equal(features, clone(transformer).fit_transform(X, 1 - y))


@pytest.mark.parametrize(
    "part",
    [
        CODER,
        make_pipeline(StandardScaler(), CODER),
        KerasFeatureTransformer(CODER, features=["outputs", "reconstruction_error"]),
        KerasFeatureTransformer(CODER, layers="latent"),
        KerasFeatureTransformer(NETWORK, layers="hidden_1"),
        bare_stack(CODER, downstream=TREE),
    ],
    ids=["latent", "scaled latent", "latent and error", "layer", "layer of a classifier", "stack"],
)
def test_later_rows_do_not_affect_features_of_earlier_rows(part):
    """Moments of a network's own standardising layer are learned from earlier rows too."""
    order = TimeSeriesSplit(2)
    stack = bare_stack(part, order)
    before = clone(stack).fit_transform(X, y)
    end = 40  # the first block that is predicted ends here
    other, labels = X.copy(), y.copy()
    other[end:], labels[end:] = 50 * X[end:], 1 - y[end:]
    after = clone(stack).fit_transform(other, labels)
    np.testing.assert_array_equal(after[:end], before[:end])
    assert np.isfinite(before[20:]).all()
    assert np.isnan(before[:20]).all()


def test_a_latent_without_time_order_is_in_sample_and_depends_on_later_rows():
    """The oracle can fail."""
    stack = bare_stack(CODER, 3)
    before = clone(stack).fit_transform(X, y)
    other = X.copy()
    other[40:] *= 50
    assert (clone(stack).fit_transform(other, y)[:40] != before[:40]).any()


def test_unsupervised_axes_do_not_change_beside_networks_in_a_stack():
    stack = bare_stack(PCA(2), FOLDS)
    expected = PCA(2).fit(X).transform(X).astype(np.float32)
    np.testing.assert_array_equal(stack.fit_transform(X, y), expected)
