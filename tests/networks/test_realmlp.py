"""RealMLP: scheduled steps with factors by variable, and a start that depends on the rows."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV

import skstack
from skstack import KerasClassifier, KerasFeatureTransformer
from skstack._training.initial_weights import initial_variables
from skstack._training.network import Network
from skstack._training.optimizers import SCHEDULES
from skstack._training.program import POOL
from skstack.networks import Block, RealMLP, Spec
from skstack.networks._recipe import RecipeBlueprint
from tests._models import FIT, binary

X, y = binary()
SMALL = RealMLP((6, 5))
PLAIN = RealMLP((5,), dropout=0)
RNG = np.random.default_rng(0)
SPEC = Spec(
    (
        Block("numeric", "numeric", (3,), None, "float32"),
        Block("job", "categorical", (), 4, "int32"),
        Block("town", "categorical", (), 100, "int32"),
    ),
    "multiclass",
    3,
)


def classifier(network=SMALL, **settings):
    return KerasClassifier(network, **{**FIT, **settings})


@pytest.fixture(scope="module")
def fitted():
    return classifier().fit(X, y)


def coslog4(t):
    return (1 - np.cos(2 * np.pi * np.log2(1 + 15 * t))) / 2


def flat_cos(t):
    return 1.0 if t <= 0.5 else (1 + np.cos(2 * np.pi * (t - 0.5))) / 2


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_schedules_are_those_of_the_paper(name):
    times = np.linspace(0, 1, 31, dtype=np.float32)
    expected = [{"coslog4": coslog4, "flat_cos": flat_cos}[name](float(t)) for t in times]
    np.testing.assert_allclose(SCHEDULES[name](tf.constant(times)), expected, atol=1e-5)
    assert coslog4(1 / 15) == pytest.approx(0, abs=1e-12)  # the end of the first of four waves


# Factors of the learning rate, and of the weight decay.
FACTORS = {
    "numeric_frequencies": {"kernel": (0.1, 0.01), "bias": (0.1, 0.01)},
    "numeric_waves": {"kernel": (0.1, 0.01), "bias": (0.1, 0.01)},
    "input_factors": {"kernel": (6, 36)},
    "hidden_1_linear": {"kernel": (1, 1), "bias": (0.1, 0)},
    "hidden_1_shares": {"kernel": (0.1, 0.01)},
    "output": {"kernel": (2, 1), "bias": (0.2, 0)},  # one unit for two of the authors' network
}


def test_steps_are_those_of_a_hand_written_loop():
    n_steps, rate, decay = 6, 0.04, 0.02
    settings = {"batch_size": 60}
    model = classifier(PLAIN, **{**settings, "epochs": 1}).fit(X, y).model_  # a step of rate 0
    before = keras.Model(model.input, model.get_layer("output_inputs").output)
    output = model.get_layer("output")
    target = tf.constant(y[:, None], tf.float32)
    variables = model.trainable_variables
    m, v = ([np.zeros(each.shape) for each in variables] for _ in range(2))
    for step in range(n_steps):
        with tf.GradientTape() as tape:
            z = before(X) @ output.kernel + output.bias
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(target, z))
        gradients = tape.gradient(loss, [each.value for each in variables])
        t = step / n_steps
        for i, (variable, gradient) in enumerate(zip(variables, gradients, strict=True)):
            layer, _, role = variable.path.partition("/")
            of_rate, of_decay = FACTORS[layer][role]
            own = rate * coslog4(t)
            value = variable.numpy() * (1 - own * decay * flat_cos(t) * of_decay)
            m[i] = 0.9 * m[i] + 0.1 * gradient.numpy()
            v[i] = 0.95 * v[i] + 0.05 * gradient.numpy() ** 2
            mean, square = m[i] / (1 - 0.9 ** (step + 1)), v[i] / (1 - 0.95 ** (step + 1))
            variable.assign(value - own * of_rate * mean / (np.sqrt(square) + 1e-8))
    trained = classifier(PLAIN, **settings, epochs=n_steps).fit(X, y).model_
    for variable, expected in zip(trained.trainable_variables, variables, strict=True):
        np.testing.assert_allclose(variable.numpy(), expected.numpy(), atol=2e-4)
    assert np.abs(trained(X) - before(X) @ output.kernel).max() > 1e-2


def test_one_epoch_of_partial_fit_has_a_constant_rate():
    start = classifier(PLAIN, batch_size=60, epochs=1).fit(X, y)
    changed = classifier(PLAIN, batch_size=60).partial_fit(X, y)
    difference = {
        v.path: np.abs(v.numpy() - w.numpy())
        for v, w in zip(
            changed.model_.trainable_variables, start.model_.trainable_variables, strict=True
        )
    }
    # The first step of Adam has the size of its rate; a little of it is weight decay.
    assert np.median(difference["hidden_1_linear/kernel"]) == pytest.approx(0.04, rel=0.1)
    assert np.median(difference["hidden_1_linear/bias"]) == pytest.approx(0.004, rel=0.1)


def test_a_fit_that_continues_follows_the_schedule_again():
    whole = classifier(PLAIN, batch_size=60, epochs=4, warm_start=True).fit(X, y)
    weights = whole.model_.get_weights()
    one = whole.set_params(epochs=1).fit(X, y)  # its only step has rate 0, as those at the end
    assert all(map(np.array_equal, one.model_.get_weights(), weights))
    kernel = one.network_.variables["hidden_1_linear/kernel"].copy()
    four = whole.set_params(epochs=4).fit(X, y)
    assert np.abs(four.network_.variables["hidden_1_linear/kernel"] - kernel).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["xla", "keras"])
def test_engines_agree(engine, fitted):
    other = classifier()
    other._parameter_constraints = {**other._parameter_constraints, "engine": [str]}
    p = other.set_params(engine=engine).fit(X, y).predict_proba(X)
    np.testing.assert_allclose(p, fitted.predict_proba(X), atol=1e-5)


def test_a_search_over_learning_rates_compiles_one_program(fitted):
    made = POOL.made
    grid = [{"learning_rate": [0.01, 0.04]}, {"epochs": [1]}]
    folds = [(np.arange(40), np.arange(40, 60))]
    GridSearchCV(classifier(), grid, cv=folds, refit=False).fit(X, y)
    assert POOL.made <= made + 1


def test_early_stopping_chooses_among_all_epochs():
    settings = {"epochs": 20, "early_stopping": True, "n_iter_no_change": 1}
    fit = classifier(**settings).fit(X[:40], y[:40], X_val=X[40:], y_val=y[40:])
    assert fit.n_iter_ == 20
    loss = log_loss(y[40:], fit.predict_proba(X[40:]))
    assert max(fit.validation_scores_) == pytest.approx(-loss, rel=1e-4)


def start_of(inputs, weights=None):
    blueprint = RecipeBlueprint(RealMLP((8, 7)), SPEC)
    start = initial_variables(blueprint, 0)
    blueprint.initialize_from_rows(start, inputs, weights, 0)
    return blueprint, start


def rows(n=200):
    numeric = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    job = np.repeat([0, 1, 2, 3], [0, n // 2, n // 4 + n // 8, n - n // 2 - n // 4 - n // 8])
    return {
        "numeric": numeric,
        "job": np.random.default_rng(1).permutation(job).astype(np.int32),
        "town": np.random.default_rng(2).integers(100, size=n).astype(np.int32),
    }


def test_units_start_with_unit_variance_and_bend_inside_the_data():
    inputs = rows()
    blueprint, start = start_of(inputs)
    model = Network(blueprint, start).build()
    layers = ["hidden_1_linear", "hidden_2_linear", "output_inputs"]
    *hidden, last = keras.Model(model.input, [model.get_layer(n).output for n in layers])(inputs)
    output = last @ start["output/kernel"] + start["output/bias"]
    for z in map(np.asarray, (*hidden, output)):
        np.testing.assert_allclose(z.std(axis=0), 1, rtol=1e-3)
        assert (z.min(axis=0) < 0).all()
        assert (z.max(axis=0) > 0).all()


def test_units_that_do_not_vary_keep_small_weights():
    """The deviation of such a unit is a rounding error, by which nothing is divided."""
    inputs = {name: np.repeat(array[:1], 60, axis=0) for name, array in rows().items()}
    _, start = start_of(inputs)
    for path in ("hidden_1_linear/kernel", "hidden_2_linear/kernel", "output/kernel"):
        assert np.abs(start[path]).max() < 100


def test_categories_are_scaled_like_numbers_or_embedded():
    _, start = start_of(rows())
    table = start["job_one_hot/embeddings"]
    on, off = 1 / np.sqrt(1 + 1 / 9), 0.0  # quartiles 0 and 1, median 0
    assert (table[:, 0] == 0).all()  # a code without rows
    np.testing.assert_allclose(table[2], [0, table[2, 1], on, off], atol=1e-6)
    rare = 2 / np.sqrt(1 + 4 / 9)  # both quartiles 0: half of the range
    np.testing.assert_allclose(table[3], [0, table[3, 1], off, rare], atol=1e-6)
    assert 0.8 < start["town_embedding/embeddings"].std() < 1.2


def test_a_category_of_one_row_among_many_has_a_column():
    inputs = rows(6000)
    inputs["job"] = (np.arange(6000) == 7).astype(np.int32)
    _, start = start_of(inputs)
    assert start["job_one_hot/embeddings"][1, 1] > 1


def test_weights_of_two_count_as_two_rows():
    inputs = rows()
    twice = np.append(np.arange(200), np.arange(50))
    repeated = {name: array[twice] for name, array in inputs.items()}
    _, start = start_of(repeated)
    _, weighted = start_of(inputs, np.repeat([2.0, 1.0], [50, 150]))
    _, plain = start_of(inputs)
    for path, array in start.items():
        np.testing.assert_allclose(array, weighted[path], rtol=1e-4, atol=1e-5)
    assert np.abs(plain["hidden_1_linear/bias"] - start["hidden_1_linear/bias"]).max() > 1e-3


def test_inner_layers_of_folds_have_common_axes():
    network = classifier(epochs=10, learning_rate=0.01)
    features = KerasFeatureTransformer(network, layers="hidden_1", cv=3, random_state=0)
    out_of_fold = features.fit_transform(X, y)
    refitted = features.transform(X)
    pairs = zip(out_of_fold.T, refitted.T, strict=True)
    assert np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs]) > 0.85


def test_saved_files_need_nothing_of_skstack(fitted, tmp_path):
    path = tmp_path / "network.keras"
    fitted.model_.save(path)
    assert b"skstack" not in path.read_bytes()
    loaded = keras.models.load_model(path, safe_mode=True)
    np.testing.assert_allclose(
        np.asarray(loaded(X))[:, 0], fitted.predict_proba(X)[:, 1], atol=1e-6
    )
    skstack.save(fitted, tmp_path / "fit.skstack")
    copied = skstack.load(tmp_path / "fit.skstack")
    np.testing.assert_array_equal(copied.predict_proba(X), fitted.predict_proba(X))


@pytest.mark.slow
def test_callbacks_may_save_the_network(fitted, tmp_path):
    path = tmp_path / "seen.keras"
    save = keras.callbacks.ModelCheckpoint(str(path))
    fit = classifier(callbacks=[save]).fit(X, y)
    np.testing.assert_array_equal(fit.predict_proba(X), fitted.predict_proba(X))
    loaded = keras.models.load_model(path, safe_mode=True)
    np.testing.assert_allclose(np.asarray(loaded(X))[:, 0], fit.predict_proba(X)[:, 1], atol=1e-6)


def test_numbers_have_another_activation_and_learning_rate():
    spec = Spec(SPEC.blocks, "regression", 1)
    assert float(RealMLP().default_optimizer(spec).learning_rate.numpy()) == pytest.approx(0.2)
    layers = {layer.name: layer for layer in RealMLP().build(spec).layers}
    assert layers["hidden_1_active"].activation is keras.activations.mish
    layers = {layer.name: layer for layer in RealMLP().build(SPEC).layers}
    assert layers["hidden_1_active"].activation is keras.activations.selu


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_layer_sizes": ()}, r"hidden_layer_sizes=\(\) of RealMLP must name at least one"),
        ({"activation": "swosh"}, "activation='swosh' of RealMLP must be the name of a Keras"),
        ({"dropout": 1}, r"dropout=1 of RealMLP must be a number in \[0, 1\)"),
        ({"schedule": "cosine"}, "schedule='cosine' of RealMLP must be one of"),
        ({"scaling": "minmax"}, "scaling='minmax' of RealMLP must be one of"),
        ({"numeric_embedding": "tree"}, "numeric_embedding='tree' of RealMLP must be Piecewise"),
        ({"label_smoothing": 1}, r"label_smoothing=1 of RealMLP must be a number in \[0, 1\)"),
    ],
)
def test_wrong_values_are_named(settings, message):
    with pytest.raises((ValueError, TypeError), match=message):
        classifier(RealMLP(**settings)).fit(X, y)


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="not in old Keras")
def test_several_optimizers_are_refused():
    several = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(
            keras.optimizers.Adam(), {"output/.*": keras.optimizers.SGD()}
        )
    )
    with pytest.raises(ValueError, match="MultiOptimizer cannot follow the schedules"):
        classifier(optimizer=several).fit(X, y)


def test_columns_may_be_called_as_layers_are():
    block = Block("input_factors", "categorical", (), 3, "int32")
    blueprint = RecipeBlueprint(RealMLP((4,)), Spec((SPEC.blocks[0], block), "binary", 2))
    paths = {path for path, _, _ in blueprint.step_rules.factors}
    assert len(paths) == 9
    assert paths <= {variable.path for variable in blueprint.build().variables}
