"""Networks with members: trained one by one, used as their mean."""

import io
import pickle

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, mean_squared_error, roc_auc_score
from sklearn.model_selection import cross_val_score

import skstack
from skstack import (
    FineTune,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasMultiTask,
    KerasRegressor,
    StackedKerasClassifier,
)
from skstack._training.members import MemberLoss, MemberOutputs
from skstack.losses import TeacherLoss
from skstack.networks import MLP, PiecewiseLinear, TabM, recipe
from tests._models import FIT, binary, mixed, regression

X, y = binary()
SMALL = TabM((6, 5), n_members=3, numeric_embedding=PiecewiseLinear(4, 2))
STILL = {"learning_rate": 1e-12, "optimizer": "sgd"}  # a fit that changes no weight


def classifier(network=SMALL, **settings):
    return KerasClassifier(network, **{"optimizer": "auto", **FIT, **settings})


def members(estimator, rows=X):
    """Outputs of each member, of shape (rows, members, units)."""
    model = estimator.model_
    part = keras.Model(model.input, model.get_layer("output_members_activation").output)
    return np.asarray(part(rows))


@pytest.fixture(scope="module")
def fitted():
    return classifier().fit(X, y)


def test_the_output_is_the_mean_of_the_members(fitted):
    apart = members(fitted)
    assert apart.shape == (60, 3, 1)
    assert np.abs(apart - apart.mean(axis=1, keepdims=True)).max() > 1e-3
    np.testing.assert_allclose(apart.mean(axis=1)[:, 0], fitted.predict_proba(X)[:, 1], atol=1e-6)


def test_members_are_trained_on_their_own_losses_and_judged_by_their_mean():
    plain = TabM((6,), n_members=3, dropout=0, numeric_embedding=None)
    weights = np.linspace(0.5, 2, 60)
    fit = classifier(plain, metrics=["auc"], epochs=1, batch_size=60, **STILL).fit(
        X, y, sample_weight=weights, X_val=X[:40], y_val=y[:40]
    )
    apart = members(fit).astype(np.float64)[:, :, 0]
    of_members = [log_loss(y, p, sample_weight=weights) for p in apart.T]
    mean = fit.predict_proba(X)[:, 1]
    assert np.mean(of_members) - log_loss(y, mean, sample_weight=weights) > 1e-3
    np.testing.assert_allclose(fit.history_["loss"], np.mean(of_members), rtol=1e-5)
    np.testing.assert_allclose(fit.history_["val_loss"], log_loss(y[:40], mean[:40]), rtol=1e-5)
    np.testing.assert_allclose(fit.validation_scores_, -log_loss(y[:40], mean[:40]), rtol=1e-5)
    # Keras' AUC interpolates between 200 thresholds.
    np.testing.assert_allclose(fit.history_["auc"], roc_auc_score(y, mean), atol=0.02)
    np.testing.assert_allclose(fit.history_["val_auc"], roc_auc_score(y[:40], mean[:40]), atol=0.02)


@pytest.mark.slow(first=2)
@pytest.mark.parametrize("engine", ["graph", "keras", "xla"])
@pytest.mark.parametrize("network", ["whole", "mini"])
def test_one_step_is_that_of_a_hand_written_loop(engine, network):
    recipe = TabM((5,), n_members=2, mini=network == "mini", dropout=0, numeric_embedding=None)
    settings = {"epochs": 1, "batch_size": 60, "optimizer": keras.optimizers.SGD(0.5)}
    estimator = classifier(recipe, **settings)
    estimator._parameter_constraints = {**estimator._parameter_constraints, "engine": [str]}
    before = classifier(recipe, **{**settings, **STILL}).fit(X, y)
    after = estimator.set_params(engine=engine).fit(X, y)

    import tensorflow as tf

    model = before.model_
    logits = keras.Model(model.input, model.get_layer("output_members").output)
    target = tf.constant(y[:, None], tf.float32)
    with tf.GradientTape() as tape:
        z = logits(X)
        loss = sum(
            tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(target, z[:, i]))
            for i in range(2)
        )
        loss = loss / 2
    gradients = tape.gradient(loss, [v.value for v in logits.trainable_variables])
    trained = {v.path: v.numpy() for v in after.model_.trainable_variables}
    assert len(gradients) == len(trained)
    for variable, gradient in zip(logits.trainable_variables, gradients, strict=True):
        expected = variable.numpy() - 0.5 * gradient.numpy()
        np.testing.assert_allclose(trained[variable.path], expected, atol=1e-5)


def test_members_start_as_in_the_paper():
    start = classifier(epochs=1, **STILL).fit(X, y).model_
    factors = start.get_layer("member_inputs").get_weights()[0]
    assert factors.shape == (3, 8)
    np.testing.assert_array_equal(factors[:, ::2], factors[:, 1::2])  # one factor for a column
    assert len(np.unique(factors)) == 12
    assert (start.get_layer("hidden_2_inputs").get_weights()[0] == 1).all()
    factors, bias = start.get_layer("hidden_1_outputs").get_weights()
    assert (factors == 1).all()
    np.testing.assert_array_equal(bias, np.tile(bias[:1], (3, 1)))
    assert len(np.unique(bias)) == 6
    heads = start.get_layer("output_members").get_weights()[0]
    assert len(np.unique(heads)) == heads.size


def test_without_embedding_factors_are_signs():
    table, words = mixed()
    network = TabM((4,), n_members=5, numeric_embedding=None)
    start = classifier(network, epochs=1, **STILL).fit(table, words).model_
    factors = start.get_layer("member_inputs").get_weights()[0]
    assert set(np.unique(factors)) == {-1.0, 1.0}
    n_numbers = 4
    job = factors[:, n_numbers : n_numbers + 5]  # 3 words, missing and unseen
    assert (job == job[:, :1]).all()


@pytest.mark.slow
def test_weights_of_two_count_as_two_rows():
    rows, target = np.vstack([X, X[:20]]), np.append(y, y[:20])
    weights = np.repeat([2.0, 1.0], [20, 40])
    network = TabM((6,), n_members=3, dropout=0, numeric_embedding=PiecewiseLinear(4, 2))
    settings = {"epochs": 5, "batch_size": 128, "learning_rate": 0.01}
    weighted = classifier(network, **settings).fit(X, y, sample_weight=weights)
    repeated = classifier(network, **settings).fit(rows, target)
    p, q = weighted.predict_proba(X), repeated.predict_proba(X)
    np.testing.assert_allclose(p, q, atol=1e-5)
    assert np.abs(p - classifier(network, **settings).fit(X, y).predict_proba(X)).max() > 1e-4


def _losses(name):
    if name == "one-hot":
        return "categorical_crossentropy"
    if name == "custom":
        return lambda y_true, y_pred: keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)
    return "auto"


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("kind", ["three classes", "one-hot", "several labels", "custom"])
def test_every_kind_of_classes(kind):
    if kind == "several labels":
        rows, target = X, np.column_stack([y, 1 - y, X[:, 3] > 3]).astype(int)
    elif kind == "custom":
        rows, target = X, y
    else:
        rows, target = mixed()
    fit = classifier(loss=_losses(kind), learning_rate=0.01, epochs=30).fit(rows, target)
    assert fit.history_["loss"][-1] < 0.9 * fit.history_["loss"][0]
    p = fit.predict_proba(rows)
    if kind != "several labels":
        np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    assert fit.score(rows, target) > 0.6


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("loss", ["auto", "mae", "poisson"])
def test_numbers(loss):
    rows, target = regression(2)
    if loss == "poisson":
        target = np.exp(target / 4)
    fit = KerasRegressor(SMALL, loss=loss, optimizer="auto", **{**FIT, "epochs": 60})
    fit.fit(rows, target)
    before = mean_squared_error(target, np.tile(target.mean(axis=0), (60, 1)))
    assert mean_squared_error(target, fit.predict(rows)) < 0.9 * before
    model = fit.model_
    np.testing.assert_allclose(np.asarray(model(rows)), fit.predict(rows), rtol=1e-4, atol=1e-5)


def test_several_kinds_of_target():
    rows, words = mixed()
    targets = pd.DataFrame({"word": words, "number": rows["a"] + rows["b"]})
    fit = KerasMultiTask(SMALL, optimizer="auto", **{**FIT, "epochs": 60}).fit(rows, targets)
    assert fit.score(rows, targets) > 0.3
    assert list(fit.predict(rows)) == ["word", "number"]


def test_a_network_of_the_user_may_have_members():
    @recipe
    def two_members(spec):
        inputs = spec.inputs()
        x = keras.layers.Dense(6, "relu")(spec.join(inputs))
        x = keras.layers.Reshape((2, 3))(x)
        return keras.Model(inputs, spec.outputs(x, members=True))

    fit = classifier(two_members(), epochs=1, batch_size=60, **STILL).fit(X, y)
    apart = members(fit).astype(np.float64)[:, :, 0]
    np.testing.assert_allclose(
        fit.history_["loss"], np.mean([log_loss(y, p) for p in apart.T]), rtol=1e-5
    )


@pytest.mark.slow
def test_a_column_may_be_called_as_a_layer_is():
    table = pd.DataFrame({"members": np.repeat(["a", "b", "c"], 20), "u": X[:, 0]})
    renamed = table.rename(columns={"members": "job"})
    np.testing.assert_array_equal(
        classifier().fit(table, y).predict_proba(table),
        classifier().fit(renamed, y).predict_proba(renamed),
    )


def test_outputs_of_members_are_float32_with_every_policy():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        layer = MemberOutputs(("exponential",))
    finally:
        keras.config.set_dtype_policy("float32")
    counts = np.asarray(layer([np.full((1, 2, 1), 20, dtype=np.float32)]))
    np.testing.assert_allclose(counts, np.exp(20), rtol=1e-5)  # the largest float16 is 65504


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["onnx", "tflite"])
def test_exported_files_return_the_mean(fitted, ending, tmp_path):
    path = tmp_path / f"network.{ending}"
    fitted.export(path, format="onnx" if ending == "onnx" else "litert")
    if ending == "onnx":
        session = pytest.importorskip("onnxruntime").InferenceSession(str(path))
        (feed,) = session.get_inputs()
        outputs = session.run(None, {feed.name: X.astype(np.float32)})[0]
    else:
        module = pytest.importorskip("ai_edge_litert.interpreter")
        interpreter = module.Interpreter(str(path))
        (feed,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
        interpreter.resize_tensor_input(feed["index"], X.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(feed["index"], X.astype(np.float32))
        interpreter.invoke()
        outputs = interpreter.get_tensor(result["index"])
    np.testing.assert_allclose(outputs, fitted.predict_proba(X), atol=1e-5)


def test_saved_files_need_nothing_of_skstack(fitted, tmp_path):
    path = tmp_path / "network.keras"
    fitted.model_.save(path)
    assert b"skstack" not in path.read_bytes()
    np.testing.assert_array_equal(
        np.asarray(keras.models.load_model(path, safe_mode=True)(X)), np.asarray(fitted.model_(X))
    )


def test_copies_predict_the_same_bits(fitted, tmp_path):
    p = fitted.predict_proba(X)
    skstack.save(fitted, tmp_path / "fit.skstack")
    for copied in (
        pickle.loads(pickle.dumps(fitted)),
        skstack.load(tmp_path / "fit.skstack"),
        clone(fitted).fit(X, y),
    ):
        np.testing.assert_array_equal(copied.predict_proba(X), p)


def test_training_continues_with_the_optimizer():
    network = classifier(epochs=10, learning_rate=0.01, warm_start=True).fit(X, y)
    first = network.history_["loss"]
    assert network.fit(X, y).history_["loss"][-1] < first[-1] < first[0]
    before = network.predict_proba(X)
    assert not np.array_equal(network.partial_fit(X, y).predict_proba(X), before)


class Saves(keras.callbacks.Callback):
    """Callback that predicts with the network and saves it after each epoch."""

    def on_epoch_end(self, epoch, logs=None):
        p = self.model.predict(X, verbose=0)
        assert p.shape == (60, 1)
        FILES.append(io.BytesIO())
        self.model.save(PATHS[0])
        SEEN.append(p)


FILES, PATHS, SEEN = [], [], []


@pytest.mark.slow
def test_callbacks_see_the_network_that_predicts(tmp_path):
    PATHS[:], SEEN[:] = [tmp_path / "seen.keras"], []
    fit = classifier(callbacks=[Saves()]).fit(X, y)
    np.testing.assert_allclose(SEEN[-1][:, 0], fit.predict_proba(X)[:, 1], atol=1e-6)
    assert not np.array_equal(SEEN[0], SEEN[-1])
    loaded = keras.models.load_model(PATHS[0], safe_mode=True)
    np.testing.assert_allclose(np.asarray(loaded(X))[:, 0], fit.predict_proba(X)[:, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_members": 0}, "n_members=0 of TabM must be an int >= 1"),
        ({"n_members": True}, "n_members=True of TabM must be an int >= 1"),
        ({"hidden_layer_sizes": ()}, r"hidden_layer_sizes=\(\) of TabM must name at least one"),
        ({"mini": 1}, "mini=1 of TabM must be True or False"),
        ({"dropout": 1}, r"dropout=1 of TabM must be a number in \[0, 1\)"),
        ({"scaling": "minmax"}, "scaling='minmax' of TabM must be one of"),
        ({"numeric_embedding": "tree"}, "numeric_embedding='tree' of TabM must be PiecewiseLinear"),
    ],
)
def test_wrong_values_are_named(settings, message):
    with pytest.raises((ValueError, TypeError), match=message):
        classifier(TabM(**settings)).fit(X, y)


@pytest.mark.slow
def test_members_are_better_than_one():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 6))
    target = (np.sin(2 * rows[:, 0]) + rows[:, 1] * rows[:, 2] + rng.normal(0, 0.5, 400) > 0) * 1
    half = slice(0, 200), slice(200, 400)
    settings = {"epochs": 40, "batch_size": 32, "random_state": 0, "optimizer": "auto"}
    together = KerasClassifier(TabM((16,), n_members=8), **settings).fit(
        rows[half[0]], target[:200]
    )
    loss = log_loss(target[200:], together.predict_proba(rows[half[1]]))
    apart = members(together, rows[half[1]])[:, :, 0].astype(np.float64)
    assert loss < np.mean([log_loss(target[200:], p) for p in apart.T])
    alone = KerasClassifier(MLP((16,)), **settings).fit(rows[half[0]], target[:200])
    assert loss < log_loss(target[200:], alone.predict_proba(rows[half[1]]))


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("cv", [None, 3])
def test_inner_layers_are_means_or_all_members(cv):
    layers = ["hidden_1", "hidden_2:members"]
    inner = classifier() if cv else classifier().fit(X, y).model_
    features = KerasFeatureTransformer(inner, layers=layers, features=["outputs"], cv=cv)
    table = features.fit(X, y).transform(X)
    names = list(features.get_feature_names_out())
    assert names[1:8] == [f"hidden_1_{i}" for i in range(6)] + ["hidden_2_members_0"]
    assert table.shape == (60, 1 + 6 + 3 * 5)
    np.testing.assert_allclose(np.asarray(features.to_keras()(X)), table, atol=1e-5)
    if cv:
        return
    model = inner
    hidden = keras.Model(model.input, [model.get_layer(f"hidden_{i}").output for i in (1, 2)])
    first, second = map(np.asarray, hidden(X))
    np.testing.assert_allclose(table[:, 1:7], first.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(table[:, 7:], second.reshape(60, -1), atol=1e-6)


def test_inner_layers_of_a_nested_network_are_means_too():
    model = classifier(epochs=1).fit(X, y).model_
    model.name = "bag_1"
    rows = keras.Input((X.shape[1],), name="rows")
    outer = keras.Model(rows, keras.layers.Rescaling(2.0)(model(rows)))
    own = KerasFeatureTransformer(model, layers=["hidden_1", "hidden_2:members"]).fit(X)
    for prefix in ("bag_1/", ""):
        layers = [f"{prefix}hidden_1", f"{prefix}hidden_2:members"]
        features = KerasFeatureTransformer(outer, layers=layers).fit(X)
        table = features.transform(X)
        np.testing.assert_allclose(table, own.transform(X), atol=1e-6)
        np.testing.assert_allclose(np.asarray(features.to_keras()(X)), table, atol=1e-5)


@pytest.mark.slow
def test_members_of_folds_share_their_start():
    """Inner layers of fold networks have common axes: a linear model reads them."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 5))
    target = (rows[:, 0] + rows[:, 1] > 0).astype(int) + (rows[:, 2] > 0)
    network = classifier(TabM((16,), n_members=4), epochs=20, learning_rate=0.01)
    features = KerasFeatureTransformer(network, layers="hidden_1", random_state=0)
    table = features.fit_transform(rows, target)
    assert cross_val_score(LogisticRegression(max_iter=2000), table, target, cv=3).mean() > 0.85


def test_as_many_columns_as_members_are_not_members():
    rows = X[:, :3]
    model = classifier(epochs=1).fit(rows, y).model_
    embedded = keras.Model(model.input, model.get_layer("numeric_embedding").output)(rows)
    features = KerasFeatureTransformer(model, layers="numeric_embedding").fit(rows, y)
    np.testing.assert_allclose(features.transform(rows), np.reshape(embedded, (60, 6)), atol=1e-6)
    np.testing.assert_allclose(
        np.asarray(features.to_keras()(rows)), features.transform(rows), atol=1e-6
    )
    with pytest.raises(ValueError, match=r"'numeric_embedding' of 'numeric_embedding:members' has"):
        features.set_params(layers="numeric_embedding:members").fit(rows, y)


@pytest.mark.parametrize("mode", ["distill", "features"])
def test_a_teacher_guides_each_member(mode):
    """The gradient of one step is that of the mean of the members' losses."""
    teacher = classifier(MLP((5,)), epochs=3, random_state=1).fit(X, y)
    network = TabM((6,), n_members=2, dropout=0, numeric_embedding=None)
    loss = TeacherLoss(FrozenEstimator(teacher), mode=mode, weight=0.5, temperature=1.0)
    settings = {"epochs": 1, "batch_size": 60, "metrics": ["accuracy"]}
    fit = classifier(network, loss=loss, **settings, **STILL).fit(X, y)
    apart = members(fit).astype(np.float64)[:, :, 0]
    own = np.mean([log_loss(y, p) for p in apart.T])
    if mode == "distill":
        q = teacher.predict_proba(X)[:, 1].astype(np.float64)
        bits = [q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p)) for p in apart.T]
        expected = 0.5 * own + 0.5 * np.mean(bits)
        np.testing.assert_allclose(fit.history_["loss"], expected, rtol=1e-4)
    else:
        assert fit.history_["loss"][0] > 0.5 * own
    np.testing.assert_allclose(fit.history_["accuracy"], fit.score(X, y), rtol=1e-5)
    assert fit.model_.output_shape == (None, 1)


def test_features_of_members_are_those_of_the_last_hidden_layer(fitted):
    """And not what their output layers make of it, one number of each member."""
    width = 5

    def projection(network, teacher):
        loss = TeacherLoss(FrozenEstimator(teacher), mode="features")
        student = classifier(network, loss=loss, epochs=1).fit(X, y)
        return student._beside_network["teacher_projection/kernel"].shape

    plain = classifier(MLP((4,)), epochs=1).fit(X, y)
    assert projection(SMALL, plain) == (width, 4)
    assert projection(MLP((4,)), fitted) == (4, width)


@pytest.mark.parametrize("mode", ["blend", "head"])
def test_a_teacher_joined_to_members_is_refused(mode):
    teacher = FrozenEstimator(classifier(MLP((5,)), epochs=1).fit(X, y))
    with pytest.raises(ValueError, match=rf"(?s)mode='{mode}'.*several members. Use model=MLP"):
        classifier(loss=TeacherLoss(teacher, mode=mode)).fit(X, y)


def test_fine_tuning_trains_members_on_their_own_losses():
    stack = StackedKerasClassifier(
        [("a", classifier(MLP((5,))))],
        downstream=classifier(TabM((6,), n_members=3, dropout=0, numeric_embedding=None)),
        fine_tune=FineTune(epochs=1, learning_rate=1e-9),
        cv=3,
        blend=False,
        random_state=0,
    ).fit(X, y)
    losses = stack.fine_tune_history_["loss"]
    apart = members(stack.downstream_, stack.transform(X)).astype(np.float64)[:, :, 0]
    of_members = np.mean([log_loss(y, p) for p in apart.T])
    mean = log_loss(y, apart.mean(axis=1))
    assert abs(losses[0] - of_members) < abs(losses[0] - mean)
    np.testing.assert_allclose(np.asarray(stack.to_keras()(X)), stack.predict_proba(X), atol=1e-5)


def test_the_learning_rate_of_tabm_grows_with_the_steps_of_an_epoch():
    """The larger rate needs the average of several steps."""

    def weights(average_weights=True, **changes):
        settings = {"epochs": 1, "random_state": 0, "early_stopping": False, **changes}
        plain = {"n_members": 2, "scaling": None, "numeric_embedding": None}
        network = TabM((4,), average_weights=average_weights, **plain)
        fitted = KerasClassifier(network, **settings).fit(X, y)
        return np.concatenate([each.ravel() for each in fitted.network_.variables.values()])

    assert TabM().default_learning_rate(4) == pytest.approx(0.0032)  # 16 rows a batch
    for batch_size, rate in ((60, 0.002), (6, 0.008)):
        default = weights(batch_size=batch_size)
        np.testing.assert_allclose(default, weights(batch_size=batch_size, learning_rate=rate))
        assert not np.allclose(default, weights(batch_size=batch_size, learning_rate=rate * 1.1))
    plain = {"batch_size": 6, "average_weights": False}
    np.testing.assert_array_equal(weights(**plain), weights(**plain, learning_rate=0.002))
    own = {"batch_size": 60, "optimizer": "sgd"}
    np.testing.assert_array_equal(weights(**own), weights(**own, learning_rate=0.01))

    class Slow(TabM):
        def default_optimizer(self, spec):
            return keras.optimizers.Adam(1e-4)

    assert Slow().default_learning_rate(100) is None  # that of its own optimizer


def test_a_loss_of_whole_batches_is_that_of_each_member():
    """All members as rows of one batch would have the loss of their mean, and learn as one."""
    dice = keras.losses.Dice()
    network = TabM((6,), n_members=3, dropout=0, numeric_embedding=None)
    fit = classifier(network, loss=dice, epochs=1, batch_size=60, **STILL).fit(X, y)
    target = y[:, None].astype(np.float32)
    apart = [float(dice(target, part)) for part in members(fit).transpose(1, 0, 2)]
    np.testing.assert_allclose(fit.history_["loss"], np.mean(apart), rtol=1e-5)
    assert abs(float(dice(target, members(fit).mean(axis=1))) - np.mean(apart)) > 1e-4


@pytest.mark.parametrize("reduction", ["sum", "sum_over_batch_size", None])
def test_a_loss_keeps_its_reduction_over_rows(reduction):
    loss = keras.losses.BinaryCrossentropy(reduction=reduction)
    targets = np.array([[0.0], [1.0]], np.float32)
    outputs = np.array([[0.2], [0.2], [0.7], [0.7]], np.float32)  # of two members
    found = MemberLoss(loss)(targets, outputs)
    np.testing.assert_allclose(found, loss(targets, outputs[::2]), rtol=1e-6)
