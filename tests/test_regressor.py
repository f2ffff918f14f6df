"""Units of targets, several targets, weights and models of ``KerasRegressor``."""

import copy

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, make_friedman1
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, cross_val_score

import skstack
from skstack import KerasRegressor
from skstack.networks import MLP, Block, Spec, recipe
from skstack.networks._adopted import ModelBlueprint
from skstack.networks._heads import output_bounds
from skstack.networks._recipe import RecipeBlueprint

X, y = load_diabetes(return_X_y=True)


def quick(**parameters):
    return KerasRegressor(**{"model": MLP((32,)), "epochs": 20, "random_state": 0, **parameters})


def test_it_generalises_to_new_rows():
    assert cross_val_score(quick(epochs=30), X, y, cv=3).min() > 0.3


@pytest.mark.parametrize(("factor", "shift"), [(1e-6, 0.0), (1e6, 0.0), (1.0, 1e6)])
def test_units_of_the_target_do_not_matter(factor, shift):
    plain = quick().fit(X, y).predict(X)
    scaled = quick().fit(X, y * factor + shift).predict(X)
    tolerance = 0.5 + (np.finfo(np.float32).eps * shift)
    np.testing.assert_allclose((scaled - shift) / factor, plain, atol=tolerance)


def test_a_constant_target_is_predicted():
    np.testing.assert_allclose(quick().fit(X, np.full(len(X), 7.0)).predict(X), 7.0, atol=0.5)


def test_shapes_follow_those_of_the_target():
    both = np.column_stack([y, -1000 * y])
    for target, shape in ((y, (442,)), (y[:, None], (442,)), (both, (442, 2))):
        if target.shape == (442, 1):
            continue
        regressor = quick(epochs=2).fit(X, target)
        assert regressor.predict(X).shape == shape
        assert regressor.predict(X[:1]).shape == (1, *shape[1:])
        np.testing.assert_allclose(
            np.reshape(regressor.model_(X), shape),
            regressor.predict(X),
            rtol=1e-3,
            atol=1e-2,
        )


def test_several_targets_of_different_units_are_all_learned():
    both = np.column_stack([y, 1e5 * X[:, 2]])
    predicted = quick(epochs=40).fit(X, both).predict(X)
    residual = ((both - predicted) ** 2).mean(axis=0) / both.var(axis=0)
    assert (residual < 0.6).all()


def test_weighting_equals_repeating_rows():
    times = np.random.default_rng(0).integers(1, 4, size=len(y))
    exact = {"batch_size": 10_000, "learning_rate": 0.01}
    weighted = quick(**exact).fit(X, y, sample_weight=times).predict(X)
    repeated = quick(**exact).fit(np.repeat(X, times, axis=0), np.repeat(y, times)).predict(X)
    np.testing.assert_allclose(weighted, repeated, atol=1e-3 * y.std())


@pytest.mark.slow
def test_losses_and_optimizers_in_a_grid():
    grid = {"loss": ["mae", "huber"], "optimizer": ["adam", "rmsprop"], "learning_rate": [0.01]}
    search = GridSearchCV(quick(), grid, cv=2).fit(X, y)
    assert search.best_score_ > 0.3


def test_early_stopping_on_X_val_scores_X_val():
    regressor = quick(epochs=60, n_iter_no_change=3, learning_rate=0.01)
    regressor.fit(X[:300], y[:300], X_val=X[300:], y_val=y[300:])
    assert regressor.n_iter_ < 60
    assert len(regressor.validation_scores_) == regressor.n_iter_
    residual = (regressor.predict(X[300:]) - y[300:]) / y[:300].std()
    assert -max(regressor.validation_scores_) == pytest.approx(np.mean(residual**2), rel=1e-2)


@pytest.mark.slow
def test_keras_models_are_continued_in_the_units_of_y(tmp_path):
    first = quick().fit(X, y)
    path = tmp_path / "model.keras"
    first.model_.save(path)
    for model in (first.model_, str(path), path):
        continued = quick(model=model, epochs=1, learning_rate=1e-9).fit(X, y)
        np.testing.assert_allclose(continued.predict(X), first.predict(X), atol=0.5)
    template = keras.Sequential([keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    assert quick(model=template, learning_rate=0.01).fit(X * 20, y).score(X * 20, y) > 0.3
    assert not template.built


def test_warm_start_keeps_the_scale_of_the_target():
    regressor = quick(warm_start=True).fit(X, y)
    before = regressor.score(X, y)
    assert regressor.fit(X[:100], y[:100]).score(X, y) > before - 0.2


def test_mixed_columns_and_integer_targets():
    frame = pd.DataFrame({"bmi": X[:, 2], "sex": np.where(X[:, 1] > 0, "f", "m")})
    regressor = quick(model=MLP((16,)), learning_rate=0.01).fit(frame, y.astype(int))
    assert regressor.predict(frame).dtype == np.float64
    assert regressor.score(frame, y) > 0.3


# Heads, losses and units --------------------------------------------------------------------------

FRIEDMAN = make_friedman1(600, noise=1, random_state=0)


@recipe
def ending(spec, *, head="relu"):
    """A network that ends as a name in HEADS says."""
    inputs = spec.inputs()
    x = keras.layers.Dense(32, "relu")(spec.join(inputs))
    return keras.Model(inputs, HEADS[head](x, spec.units))


def dense(x, units, activation=None):
    return keras.layers.Dense(units, activation)(x)


class Squared(keras.layers.Layer):
    def call(self, x):
        return keras.ops.square(x)


HEADS = {
    "relu": lambda x, n: dense(x, n, "relu"),
    "softplus": lambda x, n: dense(x, n, "softplus"),
    "exponential": lambda x, n: dense(x, n, "exponential"),
    "elu": lambda x, n: dense(x, n, "elu"),
    "sigmoid": lambda x, n: dense(x, n, "sigmoid"),
    "tanh": lambda x, n: dense(x, n, "tanh"),
    "linear": lambda x, n: dense(x, n),
    "leaky": lambda x, n: keras.layers.LeakyReLU()(dense(x, n)),
    "Activation": lambda x, n: keras.layers.Activation("softplus")(dense(x, n)),
    "ReLU": lambda x, n: keras.layers.ReLU(max_value=6)(dense(x, n)),
    "nested": lambda x, n: keras.Sequential([keras.layers.Dense(n, "sigmoid")])(x),
    "reshaped": lambda x, n: keras.layers.Reshape((n,))(dense(x, n, "relu")),
    "rescaled": lambda x, n: keras.layers.Rescaling(-10, offset=2)(dense(x, n, "sigmoid")),
    "one of each": lambda x, n: keras.layers.Concatenate()([dense(x, 1), dense(x, 1, "relu")]),
    "sum": lambda x, n: keras.layers.Add()([dense(x, n), dense(x, n)]),
    "operation": lambda x, n: keras.ops.softplus(dense(x, n)),
    "operation of both": lambda x, n: keras.ops.tanh(dense(x, n)),
    "own layer": lambda x, n: Squared()(dense(x, n)),
    "own layer below": lambda x, n: keras.ops.negative(keras.ops.square(dense(x, n))),
    "free operation": lambda x, n: dense(x, n) - 3 * dense(x, n),
}
FREE = [-np.inf, np.inf]
BOUNDS = {
    "relu": [0, np.inf], "softplus": [0, np.inf], "exponential": [0, np.inf], "elu": [-1, np.inf],
    "sigmoid": [0, 1], "tanh": [-1, 1], "linear": FREE, "leaky": FREE, "Activation": [0, np.inf],
    "ReLU": [0, 6], "nested": [0, 1], "reshaped": [0, np.inf], "rescaled": [-8, 2], "sum": FREE,
    "operation": [0, np.inf], "operation of both": [-1, 1], "own layer": [0, np.inf],
    "own layer below": [-np.inf, 0], "free operation": FREE,
}  # fmt: skip
NUMERIC = (Block("numeric", "numeric", (3,), None, "float32"),)


@pytest.mark.parametrize("head", BOUNDS)
def test_output_bounds_of_recipes(head):
    spec = Spec(NUMERIC, "regression", 1)
    found = output_bounds(RecipeBlueprint(ending(head=head), spec))
    assert np.ravel(found).tolist() == BOUNDS[head]


def test_bounds_of_each_output_and_of_keras_models():
    spec = Spec(NUMERIC, "regression", 2)
    low, high = output_bounds(RecipeBlueprint(ending(head="one of each"), spec))
    assert (low.tolist(), high.tolist()) == ([-np.inf, 0], [np.inf, np.inf])
    layers = [keras.layers.Dense(4, "relu"), keras.layers.Dense(2, "softmax")]
    for model in (keras.Sequential(layers), keras.Sequential([keras.Input((3,)), *layers])):
        low, high = output_bounds(ModelBlueprint(model, spec))
        assert (low.tolist(), high.tolist()) == ([0, 0], [1, 1])


@pytest.mark.slow(first=2)
@pytest.mark.parametrize("head", ["relu", "softplus", "exponential", "elu", "operation"])
def test_a_head_with_one_bound_works_in_any_units(head):
    """0 stays 0: no mean is subtracted, and any scale is possible."""
    X, y = FRIEDMAN
    y = np.maximum(y, 0.1)
    scores = []
    for factor in (1.0, 1000.0):
        regressor = KerasRegressor(ending(head=head), epochs=100, random_state=0)
        regressor.fit(X[:400], factor * y[:400])
        assert regressor.target_mean_ == 0
        assert regressor.target_scale_ == pytest.approx(factor * np.sqrt(np.mean(y[:400] ** 2)))
        scores.append(regressor.score(X[400:], factor * y[400:]))
    assert min(scores) > 0.76
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
    assert regressor.predict(X).min() < factor * y.mean() / 2


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("head", ["sigmoid", "tanh", "nested"])
def test_a_head_with_two_bounds_learns_unscaled_y(head):
    X, y = FRIEDMAN
    share = (y - y.min()) / np.ptp(y)
    regressor = KerasRegressor(ending(head=head), epochs=100, random_state=0)
    regressor.fit(X[:400], share[:400])
    assert (regressor.target_mean_, regressor.target_scale_) == (0, 1)
    assert regressor.score(X[400:], share[400:]) > 0.75
    np.testing.assert_allclose(np.ravel(regressor.model_(X)), regressor.predict(X), atol=1e-5)
    with pytest.raises(ValueError, match=r"y holds values from .* to .*\[-?[01], 1\]"):
        regressor.fit(X, y)


def test_each_output_has_the_scale_of_its_own_head():
    X, y = FRIEDMAN
    both = np.column_stack([y - 100, 1000 * np.maximum(y, 0)])
    times = np.random.default_rng(0).integers(0, 3, size=len(y))
    regressor = KerasRegressor(ending(head="one of each"), epochs=60, random_state=0)
    regressor.fit(X, both, sample_weight=times)
    repeated = np.repeat(both, times, axis=0)
    mean, rms = repeated.mean(axis=0), np.sqrt((repeated**2).mean(axis=0))
    np.testing.assert_allclose(regressor.target_mean_, [mean[0], 0])
    np.testing.assert_allclose(regressor.target_scale_, [repeated[:, 0].std(), rms[1]])
    assert regressor.score(X, both) > 0.75


def test_standardize_target_overrides_auto():
    X, y = FRIEDMAN
    y = np.maximum(y, 0.1)
    forced = {"epochs": 1, "random_state": 0}
    with pytest.raises(ValueError, match=r"from -.*\[0, inf\] \(standardize_target=True\)"):
        KerasRegressor(ending(), standardize_target=True, **forced).fit(X, y)
    plain = KerasRegressor(MLP(), **forced).fit(X, y)
    yes = KerasRegressor(MLP(), standardize_target=True, **forced).fit(X, y)
    np.testing.assert_array_equal(plain.predict(X), yes.predict(X))
    for model in (MLP(), ending()):
        no = KerasRegressor(model, standardize_target=False, **forced).fit(X, y)
        assert (no.target_mean_, no.target_scale_) == (0, 1)
    built = keras.Sequential([keras.Input((10,)), keras.layers.Dense(1)])
    assert KerasRegressor(built, **forced).fit(X, y).target_scale_ == 1
    standard = KerasRegressor(built, standardize_target=True, **forced).fit(X, y)
    assert standard.target_mean_ == pytest.approx(y.mean())
    assert standard.predict(X).mean() == pytest.approx(y.mean(), abs=2 * y.std())
    for value in ("yes", 1, None):
        with pytest.raises(ValueError, match="standardize_target"):
            KerasRegressor(MLP(), standardize_target=value).fit(X, y)


def relative(y, p):
    return 100 * keras.ops.mean(keras.ops.abs(y - p) / keras.ops.abs(y), axis=-1)


class Relative(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return relative(y_true, y_pred)


@pytest.mark.slow
def test_every_form_of_a_relative_error_is_bit_identical():
    X, y = FRIEDMAN
    y = np.maximum(y, 1)
    losses = keras.losses
    found = [
        KerasRegressor(MLP(), loss=loss, epochs=15, random_state=0).fit(X, y).predict(X)
        for loss in (
            "mape", "MAPE", "mean_absolute_percentage_error", "MeanAbsolutePercentageError",
            losses.MeanAbsolutePercentageError, losses.MeanAbsolutePercentageError(),
            losses.mean_absolute_percentage_error, relative, Relative(),
        )
    ]  # fmt: skip
    for other in found[1:7]:
        np.testing.assert_array_equal(other, found[0])
    for own in found[7:]:  # its last batch is not filled up
        np.testing.assert_allclose(own, found[0], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["poisson", keras.losses.MeanSquaredLogarithmicError()])
def test_losses_for_counts_work_in_any_units_and_for_all_seeds(loss):
    X, y = FRIEDMAN
    y = np.maximum(y - 4, 0)
    assert np.sum(y == 0) > 5
    for seed, factor in enumerate([1, 1000, 0.01, 1]):
        regressor = KerasRegressor(MLP(), loss=loss, epochs=100, random_state=seed).fit(
            X[:400], factor * y[:400]
        )
        assert regressor.score(X[400:], factor * y[400:]) > 0.7
        assert regressor.predict(X).min() > 0
    assert (
        regressor.network_.blueprint.build().layers[-1].activation is keras.activations.exponential
    )


def test_a_head_for_counts_starts_at_the_mean():
    X, y = FRIEDMAN
    both = np.column_stack([np.maximum(y, 0), 5e4 + y])
    regressor = KerasRegressor(MLP((8,)), loss="poisson", epochs=1, learning_rate=1e-9)
    regressor.fit(X, both, sample_weight=np.arange(600) % 2)
    means = np.broadcast_to(both[1::2].mean(axis=0), both.shape)
    np.testing.assert_allclose(regressor.predict(X), means, rtol=1e-4)


def test_fractions_get_the_head_of_their_loss():
    X, y = FRIEDMAN
    share = (y - y.min()) / np.ptp(y)
    regressor = KerasRegressor(MLP(), loss="bce", random_state=0).fit(X[:400], share[:400])
    assert regressor.score(X[400:], share[400:]) > 0.8
    both = np.column_stack([share, 1 - share])
    predicted = KerasRegressor(MLP(), loss="kld", epochs=30, random_state=0).fit(X, both).predict(X)
    np.testing.assert_allclose(predicted.sum(axis=1), 1, atol=1e-5)
    assert np.corrcoef(predicted[:, 0], share)[0, 1] > 0.85
    with pytest.raises(ValueError, match="rows of y must sum to 1"):
        KerasRegressor(MLP(), loss="kld").fit(X, both / 2)


REFUSED = {
    "negative counts": ({"loss": "poisson"}, -1.0, r"y holds values from -.*'poisson'.*\[0, inf\]"),
    "logarithms": ({"loss": "msle"}, -1.0, r"y holds values from -.*'msle'"),
    "shares": ({"loss": "bce"}, 1.0, r"y holds values.*'bce'.*\[0, 1\]"),
    "relative to 0": ({"loss": keras.losses.mean_absolute_percentage_error}, 0.0, "zero"),
    "standardised": (
        {"loss": "poisson", "standardize_target": True},
        1.0,
        "standardize_target=True",
    ),
    "head": (
        {"loss": "poisson", "model": "linear"},
        1.0,
        r"'poisson' needs predictions in \[0, inf\]",
    ),
    "relu": ({"model": "relu"}, -1.0, r"y holds values.*\[0, inf\]"),
    "below": ({"model": "own layer below"}, 1.0, r"y holds values.*\[-inf, 0\]"),
    "metric": ({"metrics": ["poisson"]}, 1.0, r"metrics: 'poisson' is defined for"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_incompatible_settings_are_refused(case):
    settings, factor, match = REFUSED[case]
    X, y = FRIEDMAN
    settings = dict(settings, epochs=1)
    if "model" in settings:
        settings["model"] = ending(head=settings["model"])
    with pytest.raises(ValueError, match=match):
        KerasRegressor(**settings).fit(X, factor * np.maximum(y, 1))


def test_metrics_are_in_the_units_that_they_are_defined_in():
    X, y = FRIEDMAN
    y = np.maximum(y, 1)
    regressor = quick(metrics=["mae", "MAPE", "msle", relative, keras.metrics.R2Score(name="r2")])
    regressor.set_params(n_iter_no_change=1000).fit(X, y, X_val=X, y_val=y)
    best = int(np.argmax(regressor.validation_scores_))
    found = {name: values[best] for name, values in regressor.history_.items()}
    p = regressor.predict(X)
    assert found["val_mae"] == pytest.approx(np.abs(y - p).mean() / y.std(), rel=1e-4)
    assert found["val_MAPE"] == pytest.approx(100 * np.mean(np.abs(y - p) / y), rel=1e-4)
    assert found["val_relative"] == pytest.approx(found["val_MAPE"], rel=1e-4)
    assert found["val_msle"] == pytest.approx(np.mean(np.log((1 + y) / (1 + p)) ** 2), rel=1e-3)
    assert found["val_r2"] == pytest.approx(regressor.score(X, y), rel=1e-4)


def test_a_continued_fit_keeps_units_or_is_refused(tmp_path):
    X, y = FRIEDMAN
    y = np.maximum(y, 0.1)
    first = quick(model=ending(), epochs=5, warm_start=True).fit(X, y)
    scale = first.target_scale_
    assert first.fit(X[:99], 9 * y[:99]).target_scale_ == scale
    with pytest.raises(ValueError, match="y holds values"):
        first.partial_fit(X, -y)
    with pytest.raises(ValueError, match="loss='mape' needs unscaled targets"):
        clone_of(first, loss="mape").fit(X, y)
    with pytest.raises(ValueError, match="standardize_target=False"):
        clone_of(first, standardize_target=False).fit(X, y)
    skstack.save(first, tmp_path / "first.skstack")
    loaded = skstack.load(tmp_path / "first.skstack", trusted=[f"{__name__}.ending"])
    np.testing.assert_array_equal(loaded.predict(X), first.predict(X))
    assert loaded.standardize_target == "auto"
    first.to_keras().save(tmp_path / "first.keras")
    shipped = keras.models.load_model(tmp_path / "first.keras")
    np.testing.assert_allclose(np.ravel(shipped(X)), first.predict(X), rtol=1e-4)
    still = {"epochs": 1, "learning_rate": 1e-9}
    for model in (FrozenEstimator(first), tmp_path / "first.keras"):
        continued = KerasRegressor(model, **still).fit(X, y)
        np.testing.assert_allclose(continued.predict(X), first.predict(X), rtol=1e-3)
    with pytest.raises(ValueError, match="standardize_target=False"):
        KerasRegressor(FrozenEstimator(first), standardize_target=False, **still).fit(X, y)


def clone_of(fitted, **parameters):
    return copy.copy(fitted).set_params(**parameters)


class OwnSteps(keras.Model):
    """It defines its own loss, in its own units."""

    def __init__(self, units=1, **settings):
        super().__init__(**settings)
        self.units = units
        self.last = keras.layers.Dense(units)

    def call(self, x):
        return self.last(x)

    def get_config(self):
        return {"units": self.units}

    def train_step(self, data):
        return super().train_step(data)


def test_a_network_with_a_custom_train_step_learns_unscaled_y():
    X, y = FRIEDMAN
    regressor = quick(model=OwnSteps(), epochs=2).fit(X, y)
    assert (regressor.target_mean_, regressor.target_scale_) == (0, 1)
    np.testing.assert_allclose(
        np.ravel(regressor.model_(X.astype(np.float32))), regressor.predict(X),
        rtol=1e-4,
    )  # fmt: skip
