"""Scaling and embeddings of numeric columns, as layers of a network."""

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from skstack import KerasAutoencoder, KerasClassifier, KerasMultiTask, KerasRegressor
from skstack._training.program import POOL
from skstack.networks import MLP, Autoencoder, Periodic, PiecewiseLinear, recipe
from skstack.preprocessing._numeric_maps import Distribution, robust_center_and_scale
from tests._models import FIT, binary, mixed, regression

RNG = np.random.default_rng(0)
X, y = binary()
WIDE = np.column_stack([X[:, 0], np.exp(3 * X[:, 1]), 1e3 + X[:, 2], np.round(X[:, 3])])


def layer(estimator, name, rows=WIDE):
    """Output of a layer of the fitted network, as users take it."""
    model = estimator.model_
    part = keras.Model(model.input, model.get_layer(name).output)
    return np.asarray(part(rows.astype(np.float64)))


def fitted(recipe, rows=WIDE, target=y, **settings):
    return KerasClassifier(recipe, **{**FIT, "epochs": 1, **settings}).fit(rows, target)


def test_quantiles_become_normal_scores_of_the_training_rows():
    scores = layer(fitted(MLP((4,), scaling="quantile")), "numeric_scores")
    for index, column in enumerate(WIDE.T):
        distribution = Distribution.of(column)
        expected = np.interp(column, distribution.values, distribution.scores())
        np.testing.assert_allclose(scores[:, index], expected, atol=2e-3)


@pytest.mark.parametrize("far", [1e7, -1e10, 1e30])
def test_quantiles_do_not_depend_on_how_far_an_outlier_lies(far):
    rows = np.vstack([WIDE, WIDE[:1]])
    rows[-1, :2] = far  # a placeholder of a missing value, perhaps
    network = fitted(MLP((4,), scaling="quantile"), rows, np.append(y, 0))
    scores = layer(network, "numeric_scores", rows)
    for index, column in enumerate(rows[:, :2].T):
        distribution = Distribution.of(column)
        expected = np.interp(column, distribution.values, distribution.scores())
        np.testing.assert_allclose(scores[:-1, index], expected[:-1], atol=2e-3)


def test_values_beyond_the_training_rows_have_the_score_of_the_extremes():
    network = fitted(MLP((4,), scaling="quantile"))
    ends = np.stack([WIDE.min(axis=0), WIDE.min(axis=0) - 1e3, WIDE.max(axis=0)])
    low, lower, high = layer(network, "numeric_scores", ends)
    np.testing.assert_allclose(low, lower, atol=1e-3)
    assert (high > low).all()


def test_robust_scaling_is_the_formula_of_realmlp():
    clipped = layer(fitted(MLP((4,), scaling="robust")), "numeric_clipped")
    for index, column in enumerate(WIDE.T):
        center, scale = robust_center_and_scale(column)
        z = (column - center) / scale
        np.testing.assert_allclose(clipped[:, index], z / np.sqrt(1 + (z / 3) ** 2), atol=1e-3)
    assert np.abs(clipped).max() < 3


@pytest.mark.parametrize("bins", ["tree", "quantile"])
def test_bins_cover_the_training_rows(bins):
    embedding = PiecewiseLinear(n_bins=6, width=3, bins=bins)
    network = fitted(MLP((4,), numeric_embedding=embedding))
    positions = layer(network, f"numeric_{bins}_bins_position")
    assert positions.shape == (60, 4, 6)
    assert positions.min() >= 0
    assert positions.max() <= 1
    for index, column in enumerate(WIDE.T):
        used = positions[:, index].max(axis=0) > 0
        assert used[0]
        total = positions[:, index].sum(axis=1)[np.argsort(column, kind="stable")]
        assert (np.diff(total) > -1e-3).all()
        np.testing.assert_allclose(total[-1], used.sum(), atol=1e-3)
        assert total[0] < 1e-3


def test_bins_of_a_tree_learn_from_y_and_only_from_training_rows():
    embedding = PiecewiseLinear(n_bins=6, width=2, bins="tree")
    bins = "numeric_tree_bins"

    def edges(rows, target, **data):
        network = KerasClassifier(MLP((4,), numeric_embedding=embedding), **FIT)
        weights = network.fit(rows, target, **data).model_.get_layer(bins).get_weights()
        return np.concatenate([part.ravel() for part in weights])

    before = edges(X, y)
    assert not np.array_equal(before, edges(X, RNG.permutation(y)))
    rows = np.vstack([X, X + 0.1])  # hold-out rows are not seen, nor rows of weight 0
    target = np.concatenate([y, 1 - y])
    held_out = {"X_val": rows[60:], "y_val": target[60:]}
    np.testing.assert_array_equal(before, edges(X, y, **held_out))
    weight = np.repeat([1.0, 0.0], 60)
    np.testing.assert_array_equal(before, edges(rows, target, sample_weight=weight))


def test_an_embedding_starts_linear():
    network = fitted(MLP((4,), numeric_embedding=PiecewiseLinear(4, 3)), learning_rate=1e-12)
    linear, whole = layer(network, "numeric_linear"), layer(network, "numeric_embedding")
    np.testing.assert_allclose(linear, whole, atol=1e-6)


def test_frequencies_are_cosines_beside_the_value():
    network = fitted(MLP((4,), numeric_embedding=Periodic(3, 3, frequency_scale=0.5)))
    mean, scale = network.moments_["numeric"]
    rows = (WIDE - mean) / scale
    model = network.model_
    frequencies, phases = model.get_layer("numeric_frequencies").get_weights()
    weights, bias = model.get_layer("numeric_waves").get_weights()
    waves = np.cos(2 * np.pi * rows[:, :, None] * frequencies + phases)
    expected = np.einsum("bfe,fed->bfd", waves, weights) + bias
    embedded = layer(network, "numeric_embedding")
    np.testing.assert_allclose(embedded[:, :, :2], expected, atol=1e-3)
    np.testing.assert_allclose(embedded[:, :, 2], rows, atol=1e-3)


def test_folds_and_candidates_share_one_program(monkeypatch):
    made = []
    from skstack._training import program

    original = program.Program.__init__
    monkeypatch.setattr(
        program.Program, "__init__", lambda *a, **k: made.append(1) or original(*a, **k)
    )
    recipe = MLP((5,), scaling="quantile", numeric_embedding=PiecewiseLinear(7, 3))
    search = GridSearchCV(
        KerasClassifier(recipe, **FIT), {"learning_rate": [0.01, 0.02]}, cv=3, error_score="raise"
    )
    search.fit(np.vstack([WIDE, WIDE[:4]]), np.append(y, [0, 1, 0, 1]))
    assert len(made) == 1
    assert POOL is not None


def test_parameters_of_an_embedding_are_set_by_name():
    network = KerasClassifier(MLP((4,), numeric_embedding=PiecewiseLinear()))
    network.set_params(model__numeric_embedding__n_bins=5)
    assert network.model.numeric_embedding.n_bins == 5
    other = clone(network).set_params(model__numeric_embedding__width=2)
    assert network.model.numeric_embedding.width == 8
    assert "numeric_embedding=PiecewiseLinear(n_bins=5, width=2)" in repr(other)
    with pytest.raises(ValueError, match=r"has no parameter 'n_bins'.*=PiecewiseLinear\(\)"):
        KerasClassifier(MLP()).set_params(model__numeric_embedding__n_bins=5)


@pytest.mark.parametrize(
    ("embedding", "message"),
    [
        (PiecewiseLinear(0), "n_bins=0 of PiecewiseLinear must be an int >= 1"),
        (PiecewiseLinear(width=1.5), "width=1.5 of PiecewiseLinear must be an int >= 1"),
        (PiecewiseLinear(bins="trees"), "bins='trees' of PiecewiseLinear must be 'quantile' or"),
        (PiecewiseLinear(bins=["tree"]), r"bins=\['tree'\] of PiecewiseLinear must be 'quantile'"),
        (PiecewiseLinear(bins=np.array(["tree", "x"])), "of PiecewiseLinear must be 'quantile' or"),
        (Periodic(0), "n_frequencies=0 of Periodic must be an int >= 1"),
        (Periodic(width=1), "width=1 of Periodic must be an int >= 2"),
        (Periodic(frequency_scale=0), "frequency_scale=0 of Periodic must be a number > 0"),
        ("tree", "numeric_embedding='tree' of MLP must be PiecewiseLinear"),
        (PiecewiseLinear, "numeric_embedding=.*PiecewiseLinear.* must be PiecewiseLinear"),
    ],
)
def test_wrong_embeddings_are_refused_by_name(embedding, message):
    with pytest.raises((ValueError, TypeError), match=message):
        KerasClassifier(MLP(numeric_embedding=embedding)).fit(X, y)


def test_bins_of_a_tree_need_a_target():
    @recipe
    def embedded(spec, *, bins="tree"):
        inputs = spec.inputs()
        x = spec.join(inputs, numeric_embedding=PiecewiseLinear(4, 2, bins=bins))
        x = keras.layers.Dense(2, name="latent")(x)
        return keras.Model(inputs, spec.outputs(x))

    with pytest.raises(ValueError, match=r"bins='tree' .* needs y.*bins='quantile'"):
        KerasAutoencoder(embedded(), **FIT).fit(X)
    assert KerasAutoencoder(embedded(bins="quantile"), **FIT).fit(X).transform(X).shape == (60, 2)


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("target", ["several labels", "several numbers", "three classes"])
def test_trees_for_every_kind_of_target(target):
    network = MLP((4,), numeric_embedding=PiecewiseLinear(4, 2, bins="tree"))
    if target == "several labels":
        fit = KerasClassifier(network, **FIT).fit(X, np.column_stack([y, 1 - y, X[:, 3] > 3]))
    elif target == "several numbers":
        rows, numbers = regression(2)
        fit = KerasRegressor(network, **FIT).fit(rows, numbers)
    else:
        rows, words = mixed()
        fit = KerasClassifier(network, **FIT).fit(rows, words)
    slopes = fit.model_.get_layer("numeric_tree_bins").get_weights()[0]
    assert (slopes > 0).any(axis=1).all()


def test_a_tree_of_several_targets_gives_all_of_them_the_same_weight():
    network = MLP((4,), numeric_embedding=PiecewiseLinear(4, 2, bins="tree"))
    words = np.array(["low", "middle", "high"])[np.argsort(np.argsort(X[:, 1])) // 20]

    def slopes(unit):
        targets = pd.DataFrame({"word": words, "number": unit * X[:, 0]})
        fit = KerasMultiTask(network, **FIT).fit(X, targets)
        return fit.model_.get_layer("numeric_tree_bins").get_weights()[0]

    np.testing.assert_array_equal(slopes(1.0), slopes(2.0**20))


@pytest.mark.slow(first=1)
@pytest.mark.parametrize(
    ("name", "scaling"),
    [("quantiles", "quantile"), ("scores", "quantile"), ("pair", "robust"), ("tree_bins", None)],
)
def test_a_column_may_be_called_as_a_layer_is(name, scaling):
    """A column of strings is an input of its own, with the column's name."""
    network = MLP((4,), scaling=scaling, numeric_embedding=PiecewiseLinear(4, 2, bins="tree"))
    table = pd.DataFrame(X[:, :2], columns=["a", "b"])
    table["numeric_" + name] = np.repeat(["x", "y", "z"], 20)
    renamed = table.rename(columns={"numeric_" + name: "job"})
    np.testing.assert_array_equal(
        fitted(network, table).predict_proba(table),
        fitted(network, renamed).predict_proba(renamed),
    )


def test_columns_far_from_zero_and_heavy_tails_are_learned():
    rng = np.random.default_rng(0)
    rows = np.column_stack([1e5 + 9 * rng.random(300), np.exp(8 * rng.random(300))])
    target = (rows[:, 0] - 1e5 > 4.5) ^ (rows[:, 1] > np.exp(4))
    settings = {"epochs": 60, "learning_rate": 0.02, "random_state": 0}
    network = MLP((8,), scaling="quantile", numeric_embedding=PiecewiseLinear(8, 4))
    assert KerasClassifier(network, **settings).fit(rows, target).score(rows, target) > 0.95


def test_an_autoencoder_and_sequences_are_only_standardised():
    with pytest.raises(ValueError, match=r"scaling='quantile' of Autoencoder must be one of"):
        KerasAutoencoder(Autoencoder(scaling="quantile")).fit(X)


def test_the_old_name_says_the_new_one():
    with pytest.raises(TypeError, match=r"'standardize'. Use scaling='standard' or None"):
        MLP(standardize=False)
