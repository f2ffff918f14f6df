"""Networks with a teacher: training, and that the teacher is never modified."""

import functools
import pickle

import numpy as np
import pytest
from imblearn.over_sampling import SMOTE
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.datasets import load_diabetes, load_iris, make_classification
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import skstack
from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasMultiTask,
    KerasRegressor,
    StackedKerasClassifier,
)
from skstack.losses import TeacherLoss
from skstack.losses._teacher_fit import TeacherFit
from skstack.networks import MLP, Autoencoder
from tests._models import regression

MODES = ("distill", "blend", "head", "features")
RATE, EPOCHS = 0.1, 4


def network(widths=(5,), units=3, end="softmax", seed=0, n_features=4, name="inner", **kwargs):
    import keras

    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((n_features,))
    for place, width in enumerate(widths):
        x = keras.layers.Dense(width, "tanh", name=f"{name}_{place}", **kwargs)(x)
    return keras.Model(inputs, keras.layers.Dense(units, end, name=f"{name}_end")(x))


def iris(n=None):
    X, y = load_iris(return_X_y=True)
    X = StandardScaler().fit_transform(X).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(X))[:n]
    return X[order], y[order]


def bits(model):
    return [variable.numpy().tobytes() for variable in model.variables]


def learned(estimator, *names):
    return {name: estimator.network_.variables[name] for name in names}


def fitted(estimator, X, y, engine="auto", **kwargs):
    kwargs = {"optimizer": "sgd", "learning_rate": RATE, "epochs": EPOCHS, **kwargs}
    return estimator.set_params(
        batch_size=len(X), early_stopping=False, engine=engine, random_state=0, **kwargs
    ).fit(X, y)


# By hand ---------------------------------------------------------------------------------------


def by_hand(loss_of, start, n_steps=EPOCHS):
    """Full-batch gradient descent on variables, in plain TensorFlow."""
    import tensorflow as tf

    variables = [tf.Variable(array) for array in start]
    for _ in range(n_steps):
        with tf.GradientTape() as tape:
            loss = loss_of(*variables)
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(RATE * gradient)
    return [variable.numpy() for variable in variables]


def weights_of(model):
    return [array for layer in model.layers for array in layer.get_weights()]


def hidden_and_end(X, k1, b1, k2, b2):
    import tensorflow as tf

    hidden = tf.tanh(X @ k1 + b1)
    return hidden, hidden @ k2 + b2


def assert_learned(estimator, expected, more=()):
    names = [f"inner_{part}/{kind}" for part in ("0", "end") for kind in ("kernel", "bias")]
    found = [estimator.network_.variables[name] for name in [*names, *more]]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def cross_entropy(logits, codes):
    import tensorflow as tf

    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=codes, logits=logits)
    )


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("engine", ["auto", "keras"])
def test_distill_equals_a_manual_training_loop(engine):
    import tensorflow as tf

    X, y = iris(60)
    student, teacher = network(), network((7,), seed=1, name="teaching")
    weight, temperature = 0.4, 3.0
    outputs = np.log(teacher(X).numpy()) / temperature
    soft = tf.nn.softmax(outputs)

    def loss(*weights):
        logits = hidden_and_end(X, *weights)[1]
        softened = tf.nn.log_softmax(logits / temperature)
        distance = -tf.reduce_mean(tf.reduce_sum(soft * softened, axis=1))
        return (1 - weight) * cross_entropy(logits, y) + weight * temperature**2 * distance

    taught = TeacherLoss(teacher, weight=weight, temperature=temperature)
    found = fitted(KerasClassifier(student, loss=taught), X, y, engine)
    assert_learned(found, by_hand(loss, weights_of(student)))


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("n_rows", [21, 16])
def test_losses_of_any_number_of_hold_out_rows_are_those_of_keras(n_rows):
    """Rows are padded to few different numbers, and the term of a teacher is NaN for zeros."""
    X, y = iris(60)
    taught = TeacherLoss(network((7,), seed=1, name="teaching"), temperature=2.0)
    settings = {"epochs": 3, "metrics": ["accuracy"], "random_state": 0}
    histories = [
        KerasClassifier(network(), loss=taught, engine=engine, **settings)
        .fit(X, y, X_val=X[:n_rows], y_val=y[:n_rows])
        .history_
        for engine in ("auto", "keras")
    ]
    for history in histories:
        assert history.keys() == {"loss", "accuracy", "val_loss", "val_accuracy"}
        for name, values in history.items():
            np.testing.assert_allclose(values, histories[0][name], rtol=1e-5, err_msg=name)


def test_blend_equals_a_manual_training_loop():
    import tensorflow as tf

    X, y = iris(60)
    student, teacher = network(), network((7,), seed=1, name="teaching")
    outputs = teacher(X).numpy()

    def loss(*weights):
        own = tf.nn.softmax(hidden_and_end(X, *weights)[1])
        p = tf.gather(0.7 * own + 0.3 * outputs, y, batch_dims=1)
        return -tf.reduce_mean(tf.math.log(p))

    taught = TeacherLoss(teacher, mode="blend", weight=0.3)
    found = fitted(KerasClassifier(student, loss=taught), X, y)
    assert_learned(found, by_hand(loss, weights_of(student)))
    own = tf.nn.softmax(hidden_and_end(X, *by_hand(loss, weights_of(student)))[1])
    np.testing.assert_allclose(found.predict_proba(X), 0.7 * own + 0.3 * outputs, atol=1e-5)


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("engine", ["auto", "keras"])
def test_head_equals_a_manual_training_loop(engine):
    import tensorflow as tf

    X, y = iris(60)
    student, teacher = network(), network((7,), seed=1, name="teaching")
    outputs = np.log(teacher(X).numpy())
    half = 0.5 * np.eye(3, dtype=np.float32)
    head = [np.vstack([half, half]), np.zeros(3, np.float32)]

    def loss(k1, b1, k2, b2, k3, b3):
        own = hidden_and_end(X, k1, b1, k2, b2)[1]
        return cross_entropy(tf.concat([own, outputs], axis=1) @ k3 + b3, y)

    taught = TeacherLoss(teacher, mode="head")
    found = fitted(KerasClassifier(student, loss=taught), X, y, engine)
    expected = by_hand(loss, [*weights_of(student), *head])
    assert_learned(found, expected, ("teacher_head/kernel", "teacher_head/bias"))
    assert np.abs(expected[4] - head[0]).max() > 0.01


@pytest.mark.slow(first=2)
@pytest.mark.parametrize(
    ("engine", "width"),
    [("auto", 5), ("keras", 7), ("auto", 7)],
    ids=["of one width", "projected by Keras", "projected"],
)
def test_features_equals_a_manual_training_loop(engine, width):
    import tensorflow as tf

    X, y = iris(60)
    student, teacher = network(), network((6, width), seed=1, name="teaching")
    outputs = np.tanh(np.tanh(X @ teacher.get_weights()[0]) @ teacher.get_weights()[2])
    taught = TeacherLoss(teacher, mode="features", weight=0.4, layer="inner_0")
    classifier = KerasClassifier(student, loss=taught)
    before = fitted(clone(classifier), X, y, learning_rate=1e-30)._beside_network
    assert len(before) == (0 if width == 5 else 2)

    def loss(k1, b1, k2, b2, *projection):
        hidden, logits = hidden_and_end(X, k1, b1, k2, b2)
        if projection:
            hidden = hidden @ projection[0] + projection[1]
        distance = tf.reduce_mean(tf.square(hidden - outputs))
        return 0.6 * cross_entropy(logits, y) + 0.4 * distance

    found = fitted(classifier, X, y, engine)
    projection = [before[f"teacher_projection/{kind}"] for kind in ("kernel", "bias") if before]
    expected = by_hand(loss, [*weights_of(student), *projection])
    assert_learned(found, expected[:4])
    for name, theirs in zip(("kernel", "bias"), expected[4:], strict=False):
        ours = found._beside_network[f"teacher_projection/{name}"]
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert set(found.network_.variables) == set(before) ^ set(before) | {
        f"inner_{part}/{kind}" for part in ("0", "end") for kind in ("kernel", "bias")
    }


@pytest.mark.slow(first=2)
@pytest.mark.parametrize("mode", ["distill", "blend", "head"])
def test_a_regressor_equals_a_manual_training_loop(mode):
    import tensorflow as tf

    X, _ = iris(60)
    y = np.stack([X[:, 0] * 3 + 7, X[:, 1] - 40], axis=1)
    teacher = LinearRegression().fit(X, y + np.sin(X[:, :2]))
    taught = TeacherLoss(teacher, mode=mode, weight=0.3)
    model = MLP((5,), activation="tanh", scaling=None)
    regressor = KerasRegressor(model, loss=taught)
    start = fitted(clone(regressor), X, y, learning_rate=1e-30).network_.variables
    names = [f"{layer}/{kind}" for layer in ("hidden_1", "output") for kind in ("kernel", "bias")]
    names += ["teacher_head/kernel", "teacher_head/bias"] if mode == "head" else []
    found = fitted(regressor, X, y)
    mean, scale = found.target_mean_, found.target_scale_
    t = ((y - mean) / scale).astype(np.float32)
    outputs = ((teacher.predict(X) - mean) / scale).astype(np.float32)

    def loss(k1, b1, k2, b2, k3=None, b3=None):
        own = hidden_and_end(X, k1, b1, k2, b2)[1]
        if mode == "blend":
            return tf.reduce_mean(tf.square(0.7 * own + 0.3 * outputs - t))
        if mode == "head":
            own = tf.concat([own, outputs], axis=1) @ k3 + b3
        loss = tf.reduce_mean(tf.square(own - t))
        if mode == "distill":
            loss = 0.7 * loss + 0.3 * tf.reduce_mean(tf.square(own - outputs))
        return loss

    expected = by_hand(loss, [start[name] for name in names])
    for name, theirs in zip(names, expected, strict=True):
        np.testing.assert_allclose(found.network_.variables[name], theirs, atol=1e-5)


def test_two_classes_are_distilled_as_one_unit():
    import tensorflow as tf

    X, y = iris()
    X, y = X[y < 2], y[y < 2]
    student = network(units=1, end="sigmoid")
    teacher = LogisticRegression().fit(X, y)
    p = teacher.predict_proba(X)[:, 1:]
    soft = 1 / (1 + np.exp(-np.log(p / (1 - p)) / 4.0))

    def loss(*weights):
        z = hidden_and_end(X, *weights)[1]
        hard = tf.nn.sigmoid_cross_entropy_with_logits(y[:, None].astype(np.float32), z)
        softened = tf.nn.sigmoid_cross_entropy_with_logits(soft.astype(np.float32), z / 4.0)
        return tf.reduce_mean(0.8 * hard + 0.2 * 16.0 * softened)

    taught = TeacherLoss(teacher, weight=0.2, temperature=4.0)
    found = fitted(KerasClassifier(student, loss=taught), X, y)
    assert_learned(found, by_hand(loss, weights_of(student)))


# What stays as it is ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["distill", "features"])
def test_a_teacher_is_not_trained_to_agree_with_its_student(mode):
    with pytest.raises(ValueError, match="learn to agree"):
        KerasClassifier(
            loss=TeacherLoss(network(), mode=mode, teacher_trainable=True), epochs=1
        ).fit(*iris())


@pytest.mark.slow(first=2)
@pytest.mark.parametrize(
    ("mode", "trains"),
    [
        ("blend", True),
        ("features", False),
        ("head", False),
        ("head", True),
        ("blend", False),
        ("distill", False),
    ],
)
def test_the_teacher_is_never_modified(mode, trains):
    X, y = iris()
    teacher = network((7,), seed=1, name="teaching")
    before, flags = bits(teacher), [layer.trainable for layer in teacher.layers]
    taught = TeacherLoss(teacher, mode=mode, teacher_trainable=trains)
    found = KerasClassifier(
        MLP((8,)), loss=taught, epochs=3, learning_rate=0.1, random_state=0
    ).fit(X, y)
    assert bits(teacher) == before
    assert [layer.trainable for layer in teacher.layers] == flags
    inside = [name for name in found.network_.variables if "teaching" in name]
    assert bool(inside) == trains
    for name in inside:  # the copy has learned
        original = dict(zip([v.path for v in teacher.variables], teacher.variables, strict=True))
        moved = found.network_.variables[name] - original[name.removeprefix("teacher/")].numpy()
        assert np.abs(moved).max() > 1e-3


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("mode", ["blend", "head"])
def test_a_trainable_teacher_starts_from_its_weights(mode):
    X, y = regression()
    teacher = KerasRegressor(MLP((8,)), epochs=20, random_state=1).fit(X, y)
    taught = TeacherLoss(teacher.model_, mode=mode, weight=0.5, teacher_trainable=True)
    regressor = KerasRegressor(MLP((8,)), loss=taught, random_state=0)
    still = fitted(clone(regressor), X, y, learning_rate=1e-30)
    frozen = clone(regressor).set_params(loss__teacher_trainable=False)
    frozen = fitted(frozen, X, y, learning_rate=1e-30)
    np.testing.assert_allclose(still.predict(X), frozen.predict(X), rtol=1e-4)
    assert fitted(regressor, X, y).score(X, y) > still.score(X, y)


def test_a_teacher_estimator_is_never_modified():
    X, y = iris()
    teacher = RandomForestClassifier(5, random_state=0).fit(X, y)
    before = pickle.dumps(teacher)
    for mode in ("distill", "blend", "head"):
        KerasClassifier(MLP((8,)), loss=TeacherLoss(teacher, mode=mode), epochs=1).fit(
            X, y
        ).predict(X)
    assert pickle.dumps(teacher) == before


ENGINES = {"xla": ("auto", 120), "stepwise": ("auto", 2), "keras": ("keras", 2)}


@pytest.mark.slow(first=3)
@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("xla", "head"), ("stepwise", "features"), ("keras", "auto"), ("stepwise", "distill"),
        ("xla", "auto"), ("keras", "head"), ("stepwise", "blend"),
    ],
)  # fmt: skip
def test_non_trainable_layers_are_never_modified(name, loss, monkeypatch):
    from skstack._training import engines

    X, y = iris()
    model, teacher = network((5, 6)), network((6,), seed=1, name="teaching")
    model.get_layer("inner_0").trainable = False
    if loss != "auto":
        loss = TeacherLoss(teacher, mode=loss)
    taken, choose = [], engines.choose

    def spy(*args):
        taken.append(choose(*args))
        return taken[-1]

    monkeypatch.setattr(engines, "choose", spy)
    monkeypatch.setattr(engines, "_STEPS_WORTH_XLA", {"masked": 100, "exact": 1_000})
    engine, epochs = ENGINES[name]
    found = KerasClassifier(
        model, loss=loss, engine=engine, epochs=epochs, early_stopping=False, random_state=0
    ).fit(X, y)
    assert [each.name for each, _ in taken] == [name]
    kept, moved = model.get_layer("inner_0"), model.get_layer("inner_1")
    ours = found.network_.variables
    assert ours["inner_0/kernel"].tobytes() == kept.kernel.numpy().tobytes()
    assert ours["inner_0/bias"].tobytes() == kept.bias.numpy().tobytes()
    assert not np.array_equal(ours["inner_1/kernel"], moved.kernel.numpy())


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_compiled_engines_learn_the_same_as_keras(mode):
    X, y = iris(100)
    teacher = network((7,), seed=1, name="teaching")
    taught = TeacherLoss(teacher, mode=mode)
    found = [
        KerasClassifier(
            MLP((8,)), loss=taught, engine=engine, epochs=12, optimizer="sgd",
            metrics=["accuracy"], early_stopping=True, random_state=0,
        ).fit(X, y)
        for engine in ("auto", "keras")
    ]  # fmt: skip
    ours, theirs = found
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-4)
    assert ours.history_.keys() == theirs.history_.keys()
    plain = KerasClassifier(MLP((8,)), metrics=["accuracy"], epochs=1, early_stopping=True)
    plain.fit(X, y)
    assert ours.history_.keys() == plain.history_.keys()
    for name, values in ours.history_.items():
        np.testing.assert_allclose(values, theirs.history_[name], atol=1e-4, err_msg=name)


def test_metrics_are_those_of_the_task():
    X, y = iris()
    taught = TeacherLoss(LogisticRegression().fit(X, y))
    found = KerasClassifier(
        MLP((8,)), loss=taught, metrics=["accuracy"], epochs=5, early_stopping=False
    )
    found.fit(X, y, X_val=X, y_val=y)
    assert found.history_["val_accuracy"][-1] == pytest.approx(found.score(X, y))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["auto", "keras"])
def test_a_teacher_of_weight_zero_has_no_effect(engine):
    X, y = iris()
    teacher = network((64, 32), seed=1, name="teaching")
    settings = {"epochs": 3, "engine": engine, "random_state": 0}
    alone = KerasClassifier(MLP((8,)), **settings).fit(X, y).predict_proba(X)
    for mode in ("distill", "features", "blend"):
        taught = TeacherLoss(teacher, mode=mode, weight=0.0)
        found = KerasClassifier(MLP((8,)), loss=taught, **settings).fit(X, y).predict_proba(X)
        np.testing.assert_allclose(found, alone, atol=1e-5)


# The rows -----------------------------------------------------------------------------------------


class Watched(ClassifierMixin, BaseEstimator):
    """Returns probabilities that identify the row, and counts the rows."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.n_calls_ = self.n_rows_ = 0
        return self

    def predict_proba(self, X):
        self.n_calls_ += 1
        self.n_rows_ += len(X)
        odds = np.asarray(X, dtype=np.float64)[:, :1] * [[0.0, 1.0, 2.0]]
        odds = np.exp(odds)
        return odds / odds.sum(axis=1, keepdims=True)

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


@pytest.fixture
def seen(monkeypatch):
    """The arguments of training."""
    from skstack._training import train as training

    given, train = [], training.train

    def spy(blueprint, start, rows, plan, *, validation=None, **kwargs):
        given.append((rows, validation))
        return train(blueprint, start, rows, plan, validation=validation, **kwargs)

    monkeypatch.setattr(training, "train", spy)
    return given


@pytest.mark.parametrize("sampler", [None, SMOTE(random_state=0)], ids=["as given", "sampled"])
@pytest.mark.parametrize("mode", ["distill", "blend"])
def test_teacher_outputs_stay_aligned_with_rows(mode, sampler, seen):
    X, y = iris()
    keep = np.flatnonzero((y < 2) | (np.arange(len(y)) % 3 == 0))
    X, y = X[keep], y[keep]
    teacher = Watched().fit(X, y)
    KerasClassifier(
        MLP((8,)), loss=TeacherLoss(teacher, mode=mode, temperature=1.0), sampler=sampler,
        early_stopping=True, epochs=2, random_state=0,
    ).fit(X, y)  # fmt: skip
    ((rows, held_out),) = seen
    assert len(rows) + len(held_out) > len(X) if sampler else len(rows) + len(held_out) == len(X)
    assert (teacher.n_calls_, teacher.n_rows_) == (2, len(rows) + len(held_out))
    for part in (rows, held_out):
        outputs = part.targets[:, -3:] if mode == "distill" else part.inputs["teacher_prediction"]
        expected = teacher.predict_proba(part.inputs["numeric"])
        np.testing.assert_allclose(outputs, expected, atol=1e-6)


def test_the_teacher_receives_synthetic_rows_as_columns_of_X(seen):
    pd = pytest.importorskip("pandas")
    X, y = iris()
    keep = np.flatnonzero((y < 2) | (np.arange(len(y)) % 3 == 0))
    frame = pd.DataFrame(X[keep], columns=list("abcd"))
    frame["kind"] = np.where(frame["a"] > 0, "long", "short")
    teacher = LogisticRegression().fit(frame[["c", "a"]], y[keep])
    from imblearn.over_sampling import SMOTENC

    KerasClassifier(
        MLP((8,)),
        loss=TeacherLoss(teacher, temperature=1.0),
        sampler=SMOTENC(categorical_features=[4], random_state=0),
        epochs=1, random_state=0,
    ).fit(frame, y[keep])  # fmt: skip
    ((rows, _),) = seen
    assert len(rows) > len(frame)
    inputs = pd.DataFrame(rows.inputs["numeric"][:, [2, 0]], columns=["c", "a"])
    np.testing.assert_allclose(rows.targets[:, -3:], teacher.predict_proba(inputs), atol=1e-5)


def test_synthetic_rows_of_hashed_columns_are_refused():
    pd = pytest.importorskip("pandas")
    from imblearn.over_sampling import SMOTENC

    X, y = iris()
    frame = pd.DataFrame({"a": X[:, 0], "word": [f"w{i % 30}" for i in range(len(X))]})
    keep = np.flatnonzero((y < 2) | (np.arange(len(y)) % 3 == 0))
    teacher = LogisticRegression().fit(frame[["a"]], y)
    classifier = KerasClassifier(
        loss=TeacherLoss(teacher), n_hash_buckets=5, sampler=SMOTENC(["word"]), epochs=1
    )
    with pytest.raises(ValueError, match=r"'word'.*hashed"):
        classifier.fit(frame.iloc[keep], y[keep])


@pytest.mark.slow(first=3)
@pytest.mark.parametrize("mode", ["head over numbers", "features", "distill", "blend", "head"])
def test_sample_weight_applies_to_both_terms_of_the_loss(mode):
    X, y = iris(40)
    teacher = network((7,), seed=1, name="teaching")
    if mode == "head over numbers":  # which are standardised
        mode, teacher = "head", LinearRegression().fit(X, X[:, 0] * y)
    twice = np.r_[0:40, 0:10]
    weights = np.r_[np.full(10, 2.0), np.ones(30)]
    settings = {
        "loss": TeacherLoss(teacher, mode=mode), "model": network(), "optimizer": "sgd",
        "batch_size": 64, "epochs": 3, "random_state": 0,
    }  # fmt: skip
    weighed = KerasClassifier(**settings).fit(X, y, sample_weight=weights)
    repeated = KerasClassifier(**settings).fit(X[twice], y[twice])
    np.testing.assert_allclose(weighed.predict_proba(X), repeated.predict_proba(X), atol=1e-5)


def test_classes_are_matched_by_their_labels():
    X, y = iris()
    names = np.array(["b", "c", "a"])[y]
    shuffled = RandomForestClassifier(5, random_state=0).fit(X, names)
    shuffled.classes_ = shuffled.classes_[[2, 0, 1]]
    order, predict = [2, 0, 1], shuffled.predict_proba
    shuffled.predict_proba = lambda X: predict(X)[:, order]
    taught = TeacherLoss(shuffled, mode="blend", weight=1.0)
    found = KerasClassifier(MLP((8,)), loss=taught, epochs=1).fit(X, names)
    np.testing.assert_allclose(found.predict_proba(X), predict(X), atol=1e-6)


def test_a_teacher_may_use_other_columns():
    pd = pytest.importorskip("pandas")
    X, y = iris()
    frame = pd.DataFrame(X, columns=list("abcd"))
    named = LogisticRegression().fit(frame[["d", "b"]], y)
    unnamed = LogisticRegression().fit(X[:, [3, 1]], y)
    net = network(n_features=2)
    for teacher, columns, expected in (
        (named, None, named.predict_proba(frame[["d", "b"]])),
        (FrozenEstimator(named), ["d", "b"], named.predict_proba(frame[["d", "b"]])),
        (net, ["d", "b"], net(X[:, [3, 1]]).numpy()),
    ):
        taught = TeacherLoss(teacher, mode="blend", weight=1.0, columns=columns)
        found = KerasClassifier(MLP((8,)), loss=taught, epochs=1).fit(frame, y)
        np.testing.assert_allclose(found.predict_proba(frame), expected, atol=1e-6)
    taught = TeacherLoss(unnamed, mode="blend", weight=1.0, columns=[3, 1])
    found = KerasClassifier(MLP((8,)), loss=taught, epochs=1).fit(X, y)
    np.testing.assert_allclose(
        found.predict_proba(X), unnamed.predict_proba(X[:, [3, 1]]), atol=1e-6
    )


# Everywhere -----------------------------------------------------------------------------------


def two_classes():
    X, y = iris()
    return X[y < 2], y[y < 2]


@pytest.mark.slow(first=2)
@pytest.mark.parametrize("mode", MODES)
def test_a_student_can_be_pickled_saved_and_cloned(mode, tmp_path):
    X, y = iris()
    teacher = LogisticRegression().fit(X, y)
    if mode == "features":
        teacher = network((7,), seed=1, name="teaching")
    found = KerasClassifier(
        MLP((8,)), loss=TeacherLoss(teacher, mode=mode), epochs=2, random_state=0
    )
    assert clone(found).loss.teacher is teacher
    expected = found.fit(X, y).predict_proba(X)
    assert np.array_equal(pickle.loads(pickle.dumps(found)).predict_proba(X), expected)
    skstack.save(found, tmp_path / "taught.skstack")
    loaded = skstack.load(tmp_path / "taught.skstack")
    assert np.array_equal(loaded.predict_proba(X), expected)
    assert np.array_equal(clone(found).fit(X, y).predict_proba(X), expected)
    assert np.array_equal(loaded.fit(X, y).predict_proba(X), expected)


class Certain(ClassifierMixin, BaseEstimator):
    """Is nearly certain of the last class."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        return np.tile([1e-12, 0.0, 1.0] if len(self.classes_) == 3 else [1e-12, 1.0], (len(X), 1))


@pytest.mark.parametrize(("n_classes", "softened"), [(3, [1e-3, 0.0, 1.0]), (2, [1.0])])
def test_the_smallest_probabilities_of_a_teacher_are_softened(n_classes, softened, monkeypatch):
    X, y = iris(60)
    y = np.arange(len(y)) % n_classes
    seen, original = [], TeacherFit._softened

    def recorded(self, p):
        seen.append(original(self, p))
        return seen[-1]

    monkeypatch.setattr(TeacherFit, "_softened", recorded)
    loss = TeacherLoss(Certain().fit(X, y), temperature=4.0)
    student = KerasClassifier(MLP((8,)), loss=loss, epochs=2, random_state=0).fit(X, y)
    if n_classes == 3:  # of two classes, float32 holds the probability of the second alone
        softened = np.array(softened) / 1.001
    np.testing.assert_allclose(seen[0][0], softened, rtol=1e-5)
    assert np.isfinite(student.predict_proba(X)).all()


def test_weight_and_temperature_are_searched_without_recompiling(monkeypatch):
    from skstack._training import train

    made, program = [], train.Program

    def counted(*args, **settings):
        made.append(args)
        return program(*args, **settings)

    monkeypatch.setattr(train, "Program", counted)
    X, y = iris(90)
    teacher = LogisticRegression().fit(X, y)
    classifier = KerasClassifier(
        MLP((9,)), loss=TeacherLoss(teacher), epochs=2, batch_size=16, random_state=0
    )
    grid = {"loss__weight": [0.0, 0.3, 0.9], "loss__temperature": [1.0, 4.0]}
    search = GridSearchCV(classifier, grid, cv=3).fit(X, y)
    assert len(made) == 1
    scores = search.cv_results_["mean_test_score"]
    assert len(set(np.round(scores, 3))) > 1
    assert search.best_estimator_.loss.weight in grid["loss__weight"]


TEACHERS = {
    "model": lambda X, y, units: network(
        (7,), units, "softmax" if units > 1 else "sigmoid", seed=1
    ),
    "estimator": lambda X, y, units: KerasClassifier(MLP((8,)), epochs=2, random_state=1).fit(X, y),
    "pipeline": lambda X, y, units: make_pipeline(
        StandardScaler(), KerasClassifier(MLP((8,)), epochs=2)
    ).fit(X * 3, y),
}  # fmt: skip


# Only in the modes "blend" and "head" the teacher is a part of the exported model.
@pytest.mark.slow(first=2)
@pytest.mark.parametrize(
    ("mode", "data", "kind"),
    [
        ("blend", two_classes, "estimator"),
        ("blend", iris, "pipeline"),
        ("blend", iris, "model"),
        ("head", two_classes, "model"),
        ("head", iris, "estimator"),
        ("head", two_classes, "pipeline"),
        ("distill", iris, "pipeline"),
        ("features", two_classes, "estimator"),
    ],
)
def test_the_exported_model_contains_network_and_teacher(mode, data, kind):
    X, y = data()
    classes = len(np.unique(y))
    teacher = TEACHERS[kind](X, y, classes if classes > 2 else 1)
    student = KerasClassifier(MLP((8,)), loss=TeacherLoss(teacher, mode=mode), epochs=2).fit(X, y)
    predicted = np.asarray(student.to_keras()(student.keras_inputs(X)))
    np.testing.assert_allclose(predicted, student.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize("kind", ["estimator", "model"])
def test_the_exported_model_of_a_regressor_predicts_in_units_of_y(kind):
    X, y = regression()
    y = 100 + 20 * y
    teacher = KerasRegressor(MLP((8,)), epochs=5, random_state=1).fit(X, y)
    mode = "blend"
    if kind == "model":
        teacher, mode = teacher.model_, "head"
    student = KerasRegressor(MLP((8,)), loss=TeacherLoss(teacher, mode=mode), epochs=2).fit(X, y)
    predicted = np.asarray(student.to_keras()(student.keras_inputs(X)))
    np.testing.assert_allclose(predicted.ravel(), student.predict(X), rtol=1e-4)


def test_export_is_refused_if_the_teacher_is_not_a_network():
    X, y = iris()
    forest = RandomForestClassifier(5, random_state=0).fit(X, y)
    found = KerasClassifier(MLP((8,)), loss=TeacherLoss(forest, mode="blend"), epochs=1).fit(X, y)
    with pytest.raises(ValueError, match=r"RandomForestClassifier.*cannot become part"):
        found.to_keras()
    KerasClassifier(MLP((8,)), loss=TeacherLoss(forest), epochs=1).fit(X, y).to_keras()


@pytest.mark.slow
def test_parts_of_a_stack_may_have_a_teacher():
    X, y = iris()
    teacher = LogisticRegression().fit(X, y)
    taught = KerasClassifier(MLP((8,)), loss=TeacherLoss(teacher, mode="blend"), epochs=2)
    stack = StackedKerasClassifier(
        [
            ("a", KerasFeatureTransformer(taught, cv=2)),
            ("b", KerasFeatureTransformer(KerasAutoencoder(epochs=5), cv=2)),
        ],
        downstream=KerasClassifier(MLP((8,)), epochs=2),
        blend=False,
        random_state=0,
    ).fit(X, y)
    assert stack.predict_proba(X).shape == (150, 3)
    (upstream,) = stack.upstream_[0][1]._upstreams
    assert upstream.view.estimator._teacher.estimator is teacher
    below = StackedKerasClassifier(
        [("b", KerasFeatureTransformer(KerasClassifier(MLP((8,)), epochs=2), cv=2))],
        downstream=KerasClassifier(
            MLP((8,)), loss=TeacherLoss(network((7,), n_features=3), mode="head"), epochs=2
        ),
        blend=False,
        passthrough=False,
        random_state=0,
    ).fit(X, y)
    model = below.to_keras()
    given = np.asarray(model(below.keras_inputs(X)))
    np.testing.assert_allclose(given, below.predict_proba(X), atol=1e-5)


def test_the_fitted_teacher_is_part_of_the_cache_key():
    from skstack._features.cache import estimator_key

    X, y = iris()
    keys = [
        estimator_key(KerasClassifier(MLP((8,)), loss=TeacherLoss(teacher), random_state=0))
        for teacher in (
            LogisticRegression().fit(X, y),
            LogisticRegression().fit(X[:90], y[:90]),
            LogisticRegression().fit(X, y),
        )
    ]
    assert keys[0] == keys[2] != keys[1]


def test_features_of_a_regressor_are_those_of_its_model():
    """Whose last layer only converts the hidden layers' prediction to the units of y."""
    X, y = regression()
    settings = {"epochs": 1, "random_state": 0}
    regressor = KerasRegressor(MLP((7,)), **settings).fit(X, y)
    for teacher in (regressor, regressor.model_):
        loss = TeacherLoss(teacher, mode="features")
        student = KerasRegressor(MLP((4,)), loss=loss, **settings).fit(X, y)
        assert student._beside_network["teacher_projection/kernel"].shape == (4, 7)


@pytest.mark.slow(first=2)
@pytest.mark.parametrize("mode", ["features", "head", "distill", "blend"])
def test_training_continues_with_the_teacher(mode):
    X, y = iris()
    teacher = network((7,), seed=1, name="teaching")
    settings = {"loss": TeacherLoss(teacher, mode=mode), "optimizer": "sgd", "random_state": 0}
    settings |= {"batch_size": 150, "learning_rate": 0.05}
    whole = KerasClassifier(MLP((8,)), epochs=4, **settings).fit(X, y)
    halves = KerasClassifier(MLP((8,)), epochs=2, warm_start=True, **settings).fit(X, y).fit(X, y)
    np.testing.assert_allclose(halves.predict_proba(X), whole.predict_proba(X), atol=1e-5)


def test_the_loss_may_change_in_continued_training():
    X, y = iris()
    teacher = network((7,), seed=1, name="teaching")
    found = KerasClassifier(
        MLP((8,)), epochs=2, learning_rate=0.02, warm_start=True, random_state=0
    ).fit(X, y)
    for mode in ("head", "distill", "features", "blend"):
        found.set_params(loss=TeacherLoss(teacher, mode=mode)).fit(X, y)
    assert "teacher_head/kernel" not in found.set_params(loss="auto").fit(X, y).network_.variables
    assert found.score(X, y) > 0.6


def test_metrics_are_not_recompiled_in_each_fit(monkeypatch):
    from skstack._training import train

    made, program = [], train.Program
    monkeypatch.setattr(train, "Program", lambda *a, **k: made.append(a) or program(*a, **k))
    X, y = iris(70)
    metrics = ["accuracy", "sparse_categorical_crossentropy"]
    for weight in (0.2, 0.4):
        loss = TeacherLoss(LogisticRegression().fit(X, y), weight=weight)
        KerasClassifier(MLP((7,)), loss=loss, metrics=metrics, epochs=1).fit(X, y)
    assert len(made) == 1


def test_training_may_continue_without_the_teacher():
    X, y = iris()
    teacher = network((7,), seed=1, name="teaching")
    # Seeded, for the bias of a unit that has never learned is 0, and even such a rate moves it.
    taught = KerasClassifier(
        MLP((8,)), loss=TeacherLoss(teacher, mode="head"), epochs=2, random_state=0
    )
    found = taught.fit(X, y)
    alone = KerasClassifier(FrozenEstimator(found), epochs=1, learning_rate=1e-30, random_state=0)
    alone.fit(X, y)
    ours, theirs = alone.network_.variables, found.network_.variables
    assert ours.keys() == theirs.keys() - {"teacher_head/kernel", "teacher_head/bias"}
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert alone.predict_proba(X).shape == (150, 3)


@pytest.mark.parametrize("mode", ["blend", "head"])
def test_the_teacher_may_be_unused_in_prediction(mode):
    X, y = iris()
    teacher = Watched().fit(X, y)
    taught = TeacherLoss(teacher, mode=mode, teacher_at_predict=False)
    found = KerasClassifier(
        MLP((8,)), loss=taught, epochs=30, learning_rate=0.02, random_state=0
    ).fit(X, y)
    before = teacher.n_calls_
    assert found.score(X, y) > 0.8  # its own prediction has learned
    found.to_keras()
    assert teacher.n_calls_ == before == 1
    assert set(found.network_.variables) == set(
        KerasClassifier(MLP((8,)), epochs=1).fit(X, y).network_.variables
    )


@pytest.mark.slow
def test_multilabel_targets_with_a_teacher():
    X, y = iris()
    labels = np.stack([y == 0, X[:, 0] > 0], axis=1).astype(int)
    teacher = RandomForestClassifier(5, random_state=0).fit(X, labels)
    for mode in ("distill", "blend", "head"):
        found = KerasClassifier(MLP((8,)), loss=TeacherLoss(teacher, mode=mode), epochs=3).fit(
            X, labels
        )
        assert found.predict(X).shape == labels.shape
    taught = TeacherLoss(teacher, mode="blend", weight=1.0)
    given = KerasClassifier(MLP((8,)), loss=taught, epochs=1).fit(X, labels).predict_proba(X)
    expected = np.stack([p[:, 1] for p in teacher.predict_proba(X)], axis=1)
    np.testing.assert_allclose(given, expected, atol=1e-6)
    constant = RandomForestClassifier(5, random_state=0).fit(X, np.array([[0, 1]] * len(X)))
    taught = TeacherLoss(constant, mode="blend", weight=1.0)
    given = KerasClassifier(MLP((8,)), loss=taught, epochs=1).fit(X, labels).predict_proba(X)
    np.testing.assert_allclose(given, np.array([[0, 1]] * len(X)), atol=1e-6)


def test_losses_with_one_hot_targets_have_a_teacher():
    X, y = iris()
    teacher = LogisticRegression().fit(X, y)
    for mode in ("distill", "blend"):
        found = [
            KerasClassifier(MLP((8,)), loss=TeacherLoss(teacher, mode=mode, loss=loss), epochs=3,
                            random_state=0).fit(X, y).predict_proba(X)
            for loss in ("auto", "categorical_crossentropy")
        ]  # fmt: skip
        np.testing.assert_allclose(*found, atol=1e-5)


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("mode", ["distill", "features"])
def test_an_autoencoder_approximates_its_teacher(mode):
    X, _ = iris()
    settings = {"model": Autoencoder((8,), latent_size=2), "epochs": 60, "learning_rate": 0.01}
    teacher = KerasAutoencoder(**settings, random_state=1).fit(X)
    settings["random_state"] = 0
    alone = KerasAutoencoder(**settings).fit(X)
    taught = TeacherLoss(teacher, mode=mode, weight=0.9)
    found = KerasAutoencoder(loss=taught, **settings).fit(X)

    def distance(student):
        if mode == "features":
            return np.square(student.transform(X) - teacher.transform(X)).mean()
        rebuilt = [each.inverse_transform(each.transform(X)) for each in (student, teacher)]
        return np.square(rebuilt[0] - rebuilt[1]).mean()

    assert distance(found) < 0.8 * distance(alone)
    with pytest.raises(ValueError, match="autoencoder"):
        KerasAutoencoder(loss=TeacherLoss(teacher, mode="blend"), epochs=1).fit(X)


def test_a_saved_network_may_be_the_teacher(tmp_path):
    X, y = iris()
    teacher = network((7,), seed=1, name="teaching")
    teacher.save(tmp_path / "teacher.keras")
    found = [
        KerasClassifier(MLP((8,)), loss=TeacherLoss(each), epochs=2, random_state=0).fit(X, y)
        for each in (teacher, tmp_path / "teacher.keras", str(tmp_path / "teacher.keras"))
    ]
    expected = found[0].predict_proba(X)
    assert all(np.array_equal(each.predict_proba(X), expected) for each in found)


# A head over outputs of any width ---------------------------------------------------------------


def mean_of_rows(values, weights):
    import tensorflow as tf

    return tf.reduce_sum(values * weights) / weights.sum()


def any_task(task):
    """Return X, y, units, activation and the loss of raw outputs for each row."""
    import tensorflow as tf

    X, y = iris(60)
    targets = np.stack([X[:, 0] - X[:, 1], X[:, 2]], axis=1)

    def squares(z, t):
        return tf.reduce_mean(tf.square(z - t.reshape(len(t), -1)), axis=1)

    def of_labels(z, t):
        t = t.reshape(len(t), -1).astype(np.float32)
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(t, z), axis=1)

    def of_classes(z, t):
        return tf.nn.sparse_softmax_cross_entropy_with_logits(t, z)

    return {
        "one target": (X, targets[:, 0], 1, "linear", squares),
        "targets": (X, targets, 2, "linear", squares),
        "binary": (X, (y > 0).astype(int), 1, "sigmoid", of_labels),
        "multiclass": (X, y, 3, "softmax", of_classes),
        "multilabel": (X, (targets > 0).astype(int), 2, "sigmoid", of_labels),
    }[task]


@pytest.mark.slow(first=3)
@pytest.mark.parametrize(
    ("task", "engine", "trains", "at_predict"),
    [
        ("one target", "auto", False, True),
        ("one target", "keras", True, True),
        ("targets", "auto", True, True),
        ("binary", "auto", False, True),
        ("multiclass", "keras", False, True),
        ("multiclass", "auto", True, True),
        ("multilabel", "auto", False, True),
        ("one target", "auto", False, False),
        ("multiclass", "auto", False, False),
    ],
)
def test_a_head_over_any_width_takes_the_steps_of_a_loop_by_hand(task, engine, trains, at_predict):
    import tensorflow as tf

    X, y, units, end, loss_of_rows = any_task(task)
    student = network(units=units, end=end)
    teacher = network((), 6, "tanh", seed=1, name="teaching")
    weights = np.linspace(0.5, 1.5, len(X)).astype(np.float32)
    head = [np.vstack([np.eye(units), np.zeros((6, units))]).astype(np.float32)]
    head.append(np.zeros(units, np.float32))

    def loss(k1, b1, k2, b2, k3, b3, *inner):
        own = hidden_and_end(X, k1, b1, k2, b2)[1]
        k, b = inner or teacher.get_weights()
        joined = tf.concat([own, tf.tanh(X @ k + b)], axis=1) @ k3 + b3
        loss = mean_of_rows(loss_of_rows(joined, y), weights)
        if at_predict:
            return loss
        return 0.7 * mean_of_rows(loss_of_rows(own, y), weights) + 0.3 * loss

    taught = TeacherLoss(
        teacher, mode="head", weight=0.3, teacher_trainable=trains, teacher_at_predict=at_predict
    )
    estimator = KerasRegressor if end == "linear" else KerasClassifier
    found = estimator(
        student, loss=taught, optimizer="sgd", learning_rate=RATE, epochs=EPOCHS, engine=engine,
        batch_size=len(X), random_state=0,
    ).fit(X, y, sample_weight=weights)  # fmt: skip
    inner = teacher.get_weights() if trains else []
    expected = by_hand(loss, [*weights_of(student), *head, *inner])
    assert np.abs(expected[4][units:]).max() > 0.01
    more = ["teacher_head/kernel", "teacher_head/bias"]
    more += ["teacher/teaching_end/kernel", "teacher/teaching_end/bias"] if trains else []
    if at_predict:
        assert_learned(found, expected, more)
    else:
        assert_learned(found, expected[:4])
        for name, theirs in zip(more, expected[4:], strict=True):
            np.testing.assert_allclose(found._beside_network[name], theirs, atol=1e-5)


def test_a_teacher_of_the_width_of_the_task_need_not_predict_it():
    X, y = iris(60)
    found = KerasClassifier(
        network(), loss=TeacherLoss(network((), 3, "relu", seed=1), mode="head"), epochs=1,
        optimizer="sgd", learning_rate=1e-30,
    ).fit(X, y)  # fmt: skip
    np.testing.assert_allclose(found.predict_proba(X), network()(X).numpy(), atol=1e-6)


def moved(X):
    """Return two targets far from 0."""
    return np.stack([X[:, 0] * 30 + 1e5, X[:, 1] * 500 - 40], axis=1)


OTHER_TEACHERS = {
    "autoencoder": (lambda X, y: KerasAutoencoder(epochs=1).fit(X), "transform"),
    "pipeline": (
        lambda X, y: make_pipeline(StandardScaler(), PCA(2)).fit(X), "transform"
    ),
    "transformer": (
        lambda X, y: KerasFeatureTransformer(network((), 6, "relu", seed=1)).fit(X), "transform"
    ),
    "classes": (lambda X, y: KerasClassifier(MLP((4,)), epochs=1).fit(X, y % 2), "predict_proba"),
    "labels": (
        lambda X, y: LogisticRegression().fit(X, np.array(["a", "b", "c", "d"])[y + (y > 1)]),
        "predict_proba",
    ),
    "targets": (lambda X, y: LinearRegression().fit(X, moved(X)), "predict"),
}  # fmt: skip


@pytest.mark.slow(first=2)
@pytest.mark.parametrize("kind", OTHER_TEACHERS)
def test_a_fitted_estimator_of_any_width_teaches_in_a_head(kind, seen, tmp_path):
    X, y = iris(60)
    make, method = OTHER_TEACHERS[kind]
    teacher = make(X, y)
    expected = getattr(teacher, method)(X)
    weights = np.linspace(0.5, 1.5, len(X))
    found = KerasRegressor(
        MLP((4,)), loss=TeacherLoss(teacher, mode="head"), epochs=2, random_state=0
    ).fit(X, X[:, 0], sample_weight=weights)
    assert np.array_equal(getattr(teacher, method)(X), expected)
    taught = seen[-1][0].inputs["teacher_prediction"]
    np.testing.assert_allclose(taught, expected, rtol=1e-6)
    names = [name for name in found.network_.variables if name.startswith("teacher_prediction")]
    assert bool(names) == (kind == "targets")
    if names:
        mean = np.average(expected, axis=0, weights=weights)
        scale = np.sqrt(np.average(np.square(expected - mean), axis=0, weights=weights))
        center, factor = found.network_.variables[names[1]], found.network_.variables[names[2]]
        np.testing.assert_allclose(center, -mean, rtol=1e-6)
        np.testing.assert_allclose(factor, 1 / scale, rtol=1e-6)
    predicted = found.predict(X)
    assert np.array_equal(pickle.loads(pickle.dumps(found)).predict(X), predicted)
    skstack.save(found, tmp_path / "taught.skstack")
    assert np.array_equal(skstack.load(tmp_path / "taught.skstack").predict(X), predicted)
    assert np.array_equal(clone(found).fit(X, X[:, 0], sample_weight=weights).predict(X), predicted)
    if kind in ("labels", "targets"):
        with pytest.raises(ValueError, match="cannot become part"):
            found.to_keras()
        return
    given = np.asarray(found.to_keras()(found.keras_inputs(X)))
    np.testing.assert_allclose(given.ravel(), predicted, atol=1e-5)


@pytest.mark.slow
def test_other_targets_of_a_network_are_exported_with_their_units():
    X, _ = iris(60)
    teacher = KerasRegressor(MLP((4,)), epochs=1, random_state=1).fit(X, moved(X))
    taught = TeacherLoss(teacher, mode="head")
    found = KerasRegressor(MLP((4,)), loss=taught, epochs=2).fit(X, X[:, 0])
    given = np.asarray(found.to_keras()(found.keras_inputs(X)))
    np.testing.assert_allclose(given.ravel(), found.predict(X), atol=1e-4)
    before = dict(found.network_.variables)
    found.partial_fit(X[:20], X[:20, 0])
    for name in before:
        same = np.array_equal(before[name], found.network_.variables[name])
        assert same == ("_center" in name or "_scale" in name), name


@pytest.mark.slow
def test_teachers_of_several_widths_are_searched_in_a_stack():
    X, y = iris(60)
    encoders = [network((), width, "tanh", seed=1, name=f"of_{width}") for width in (2, 6)]
    taught = KerasClassifier(
        MLP((4,)), loss=TeacherLoss(encoders[0], mode="head"), epochs=2, random_state=0
    )
    stack = StackedKerasClassifier(
        [("a", KerasFeatureTransformer(taught, cv=2))],
        downstream=KerasClassifier(MLP((4,)), epochs=1),
        blend=False,
        random_state=0,
    )
    search = GridSearchCV(stack, {"a__model__loss__teacher": encoders}, cv=2).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    best = search.best_estimator_
    given = np.asarray(best.to_keras()(best.keras_inputs(X)))
    np.testing.assert_allclose(given, best.predict_proba(X), atol=1e-5)


class Returns(TransformerMixin, BaseEstimator):
    """Transforms with a function."""

    def __init__(self, function):
        self.function = function

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        return self.function(X)


def of_two_outputs():
    import keras

    columns = keras.Input((4,))
    ends = [keras.layers.Dense(units)(columns) for units in (2, 6)]
    return keras.Model(columns, ends, name="two")


@pytest.mark.parametrize("trains", [False, True], ids=["frozen", "trainable"])
def test_several_outputs_of_a_teacher_are_refused(trains, seen):
    X, y = iris(60)
    taught = TeacherLoss(of_two_outputs(), mode="head", teacher_trainable=trains)
    with pytest.raises(ValueError, match="teacher='two' has 2 outputs"):
        KerasRegressor(MLP((8,)), loss=taught, epochs=1).fit(X, y)
    assert seen == []


def test_a_teacher_of_several_targets_is_refused(seen):
    pd = pytest.importorskip("pandas")
    X, y = iris(60)
    teacher = KerasMultiTask(MLP((4,)), epochs=1).fit(X, pd.DataFrame({"a": y, "b": X[:, 0]}))
    n_fits = len(seen)
    for estimator in (KerasRegressor, KerasClassifier):
        with pytest.raises(ValueError, match=r"teacher=KerasMultiTask.*several targets"):
            estimator(loss=TeacherLoss(teacher, mode="head"), epochs=1).fit(X, y)
    assert len(seen) == n_fits


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda X: [X, X[:, :1]], "no table of numbers"),
        (lambda X: np.full((len(X), 2), "a"), "no table of numbers"),
        (lambda X: X[1:], r"shape \(0, 4\) for 1 rows"),
        (lambda X: X[:, :0], r"shape \(1, 0\) for 1 rows"),
    ],
    ids=["several", "words", "fewer rows", "nothing"],
)
def test_outputs_that_are_no_columns_are_refused(function, message, seen):
    X, y = iris(60)
    taught = TeacherLoss(Returns(function).fit(X), mode="head")
    with pytest.raises(ValueError, match=rf"teacher=Returns.*{message}"):
        KerasRegressor(MLP((8,)), loss=taught, epochs=1).fit(X, y)
    assert seen == []


def test_outputs_of_unknown_length_are_refused(seen):
    import keras

    columns = keras.Input((None, 1))
    teacher = keras.Model(columns, keras.layers.Dense(3, "relu")(columns), name="steps")
    taught = TeacherLoss(teacher, mode="head")
    X = np.random.default_rng(0).normal(size=(60, 5, 1)).astype(np.float32)
    with pytest.raises(ValueError, match=r"teacher='steps'.*\(None, None, 3\).*flattened"):
        KerasRegressor(
            keras.Sequential([keras.Input((5, 1)), keras.layers.Flatten(), keras.layers.Dense(1)]),
            loss=taught, epochs=1,
        ).fit(X, X[:, 0, 0])  # fmt: skip
    assert seen == []


# Refused -----------------------------------------------------------------------------------------


def with_classes(n):
    X, y = iris()
    return LogisticRegression().fit(X, y % n)


def summed():
    import keras

    return keras.losses.SparseCategoricalCrossentropy(reduction="sum")


REFUSED = {
    "mode": (lambda: TeacherLoss(with_classes(3), mode="learn"), "'mode'.*'learn'"),
    "weight": (lambda: TeacherLoss(with_classes(3), weight=1.5), "'weight'.*1.5"),
    "temperature": (lambda: TeacherLoss(with_classes(3), temperature=0), "'temperature'.*0"),
    "classes": (lambda: TeacherLoss(with_classes(2)), "2 classes.*3 classes"),
    "units": (lambda: TeacherLoss(network(units=4)), r"teacher=.*\(None, 4\).*3 classes"),
    "unfitted": (lambda: TeacherLoss(LogisticRegression()), "is not fitted"),
    "path": (lambda: TeacherLoss("nowhere.keras"), "teacher='nowhere.keras'"),
    "a class": (lambda: TeacherLoss(LogisticRegression), "teacher=.*expected"),
    "no probabilities": (lambda: TeacherLoss(LinearSVC().fit(*iris())), "no predict_proba"),
    "no network": (lambda: TeacherLoss(with_classes(3), mode="features"), "no layers"),
    "layer": (
        lambda: TeacherLoss(network(), mode="features", layer="nope"),
        "layer='nope'.*hidden_1",
    ),
    "teacher_layer": (
        lambda: TeacherLoss(network(), mode="features", teacher_layer="nope"),
        "teacher_layer='nope'.*inner_0",
    ),
    "columns": (lambda: TeacherLoss(with_classes(3), columns=[9]), "columns=.9."),
    "width": (lambda: TeacherLoss(network(n_features=3)), r"teacher=.*\(None, 3\)"),
    "number of columns": (
        lambda: TeacherLoss(LogisticRegression().fit(iris()[0][:, :2], iris()[1])),
        "fitted on 2 columns, but X has 4",
    ),
    "regressor": (lambda: TeacherLoss(LinearRegression().fit(*iris())), "no attribute classes_"),
    "trainable": (lambda: TeacherLoss(with_classes(3), mode="blend", teacher_trainable=True),
                  "teacher_trainable=True.*LogisticRegression"),
    "reduction": (
        lambda: TeacherLoss(with_classes(3), loss=summed()),
        "reduction='sum'.*average over rows",
    ),
    "a loss": (lambda: LogisticRegression(), "loss="),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_invalid_teachers_are_refused_before_training(what, seen):
    X, y = iris()
    make, message = REFUSED[what]
    with pytest.raises((ValueError, TypeError, NotFittedError), match=message):
        KerasClassifier(MLP((8,)), loss=make(), epochs=1).fit(X, y)
    assert seen == []


def test_numbers_of_targets_must_agree():
    X, y = load_diabetes(return_X_y=True)
    teacher = LinearRegression().fit(X, np.stack([y, y], axis=1))
    with pytest.raises(ValueError, match=r"2 target.*1"):
        KerasRegressor(MLP((8,)), loss=TeacherLoss(teacher), epochs=1).fit(X, y)
    with pytest.raises(ValueError, match="not a regressor"):
        KerasRegressor(
            MLP((8,)), loss=TeacherLoss(LogisticRegression().fit(*iris())), epochs=1
        ).fit(*iris())


def test_a_network_with_a_custom_train_step_is_refused():
    import keras

    class Own(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = keras.layers.Dense(3, "softmax")

        def build(self, shape):
            self.dense.build(shape)

        def call(self, x):
            return self.dense(x)

        def train_step(self, data):
            return super().train_step(data)

    X, y = iris()
    model = Own()
    model.build((None, 4))
    with pytest.raises(ValueError, match="custom train_step"):
        KerasClassifier(model, loss=TeacherLoss(with_classes(3)), epochs=1).fit(X, y)


def test_parameters_of_the_teacher_are_not_exposed():
    teacher = with_classes(3)
    classifier = KerasClassifier(MLP((8,)), loss=TeacherLoss(teacher))
    assert not [name for name in classifier.get_params() if name.startswith("loss__teacher__")]
    with pytest.raises(ValueError, match="never changed"):
        classifier.set_params(loss__teacher__C=3.0)
    assert teacher.C == 1.0


# Whether it helps ----------------------------------------------------------------------------


@functools.cache
def planted(seed, useless=False):
    """Few rows, some with wrong labels, and a teacher trained on many correct ones."""
    X, y = make_classification(
        3000, 12, n_informative=6, n_redundant=0, n_classes=3, class_sep=1.3, random_state=seed
    )
    rng = np.random.default_rng(seed)
    X = X.astype(np.float32)
    few, many, new = np.split(np.arange(3000), [60, 1500])
    wrong = y.copy()
    flipped = rng.random(len(y)) < 0.25
    wrong[flipped] = rng.integers(3, size=flipped.sum())
    known = rng.permutation(y[many]) if useless else y[many]
    teacher = KerasClassifier(MLP(), epochs=15, random_state=seed).fit(X[many], known)
    return teacher, (X[few], wrong[few]), (X[new], y[new])


@pytest.fixture(scope="module")
def gains():
    """Accuracy of each mode minus that of the network alone, for ten seeds."""
    found = {mode: [] for mode in MODES}
    for seed in range(10):
        teacher, few, new = planted(seed)
        settings = {"epochs": 60, "batch_size": 16, "random_state": seed}
        alone = KerasClassifier(MLP(), **settings).fit(*few).score(*new)
        for mode in MODES:
            taught = TeacherLoss(teacher, mode=mode, weight=0.8)
            score = KerasClassifier(MLP(), loss=taught, **settings).fit(*few).score(*new)
            found[mode].append(score - alone)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_good_teacher_helps_where_labels_are_few(mode, gains):
    gain = np.array(gains[mode])
    assert gain.mean() > 2 * gain.std(ddof=1) / np.sqrt(10)
    assert gain.mean() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["distill", "features"])
def test_a_useless_teacher_does_no_harm_if_its_weight_is_searched(mode):
    lost = []
    for seed in range(5):
        teacher, few, new = planted(seed, useless=True)
        classifier = KerasClassifier(
            MLP(),
            loss=TeacherLoss(teacher, mode=mode),
            epochs=40,
            batch_size=16,
            random_state=seed,
        )
        search = GridSearchCV(classifier, {"loss__weight": [0.0, 0.3, 0.9]}, cv=5).fit(*few)
        alone = clone(classifier).set_params(loss="auto").fit(*few).score(*new)
        lost.append(alone - search.score(*new))
    lost = np.array(lost)
    assert lost.mean() < max(2 * lost.std(ddof=1) / np.sqrt(5), 0.02)
