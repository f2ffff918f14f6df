"""Networks that begin with Keras' adapted Normalization layer."""

import keras
import numpy as np
import pytest

from skstack import KerasClassifier, KerasFeatureTransformer, KerasRegressor

layers = keras.layers
rng = np.random.default_rng(0)
X = rng.normal([1000.0, -50.0, 0.01], [300.0, 5.0, 0.002], size=(90, 3)).astype(np.float32)
y = (X[:, 0] > 1000).astype(int)


def adapted(rows=X, axis=-1):
    layer = layers.Normalization(axis=axis, name="scaled")
    layer.adapt(rows)
    return layer


def head():
    return [layers.Dense(4, "tanh", name="hidden"), layers.Dense(1, "sigmoid", name="risk")]


def sequential():
    return keras.Sequential([keras.Input((3,), name="table"), adapted(), *head()], name="network")


def nested():
    inputs = keras.Input((3,))
    x = keras.Sequential([keras.Input((3,)), adapted()], name="inner")(inputs)
    for layer in head():
        x = layer(x)
    return keras.Model(inputs, x)


@keras.saving.register_keras_serializable("skstack-tests")
class Normalized(keras.Model):
    """A subclassed model that can be copied by its config."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scaled = layers.Normalization(name="scaled")
        self.hidden, self.risk = head()

    def call(self, inputs):
        return self.risk(self.hidden(self.scaled(inputs)))


def subclassed():
    model = Normalized()
    model.scaled.adapt(X)
    model(X[:2])
    return model


each = pytest.mark.parametrize("make", [sequential, nested, subclassed])


@each
def test_a_frozen_layer_equals_keras(make):
    model = make()
    expected = np.asarray(model(X))
    found = KerasFeatureTransformer(model).fit_transform(X)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    found = KerasFeatureTransformer(model, layers="hidden").fit_transform(X)
    scaled = (X - X.mean(axis=0, dtype=float)) / X.std(axis=0, dtype=float)
    kernel, bias = model.get_layer("hidden").get_weights()
    np.testing.assert_allclose(found, np.tanh(scaled @ kernel + bias), atol=1e-4)


def two_of_one_architecture():
    """As two versions of a saved model are, one of them trained on other rows."""
    one, other = sequential(), sequential()
    other.set_weights(one.get_weights())
    other.get_layer("scaled").adapt(X[:10] * 2)
    assert np.abs(np.asarray(one(X)) - np.asarray(other(X))).max() > 0.01
    return one, other


def test_two_of_one_architecture_keep_their_own_moments():
    for model in two_of_one_architecture():
        found = KerasFeatureTransformer(model).fit_transform(X)
        np.testing.assert_allclose(found, np.asarray(model(X)), atol=1e-5)


def test_two_of_one_architecture_learn_with_their_own_moments():
    settings = {"optimizer": "sgd", "learning_rate": 0.5, "epochs": 5, "batch_size": 90}
    for model in two_of_one_architecture():
        ours = KerasClassifier(model, **settings, random_state=0).fit(X, y)
        model.compile(keras.optimizers.SGD(0.5), "binary_crossentropy", run_eagerly=True)
        model.fit(X, y, epochs=5, batch_size=90, shuffle=False, verbose=0)
        expected = np.asarray(model(X)).ravel()
        np.testing.assert_allclose(ours.predict_proba(X)[:, 1], expected, atol=1e-4)


@pytest.mark.slow
def test_later_changes_to_the_model_do_not_affect_fitted_estimators():
    model = sequential()
    ours = KerasClassifier(model, epochs=1, random_state=0).fit(X, y)
    model.get_layer("scaled").adapt(X * 3)
    expected = ours.predict_proba(X)[:, 1]
    np.testing.assert_allclose(np.asarray(ours.model_(X)).ravel(), expected, atol=1e-5)


@pytest.mark.slow(first=1)
@each
def test_continued_training_equals_keras(make):
    """One full batch a step, so that the order of rows says nothing."""
    keras.utils.set_random_seed(0)
    model = make()
    model.compile(keras.optimizers.SGD(0.5), "binary_crossentropy", run_eagerly=True)
    before = [weight.copy() for weight in model.get_weights()]
    settings = {"optimizer": "sgd", "learning_rate": 0.5, "epochs": 15, "batch_size": 90}
    ours = KerasClassifier(model, **settings, random_state=0).fit(X, y)
    for one, left in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, left)
    model.fit(X, y, epochs=15, batch_size=90, shuffle=False, verbose=0)
    expected = np.asarray(model(X)).ravel()
    assert np.abs(expected - 0.5).max() > 0.2
    np.testing.assert_allclose(ours.predict_proba(X)[:, 1], expected, atol=1e-4)
    np.testing.assert_allclose(np.asarray(ours.model_(X)).ravel(), expected, atol=1e-4)


def test_the_keras_engine_behaves_equally():
    model = keras.Sequential([keras.Input((3,)), adapted(), layers.Dense(1)])
    settings = {"epochs": 5, "batch_size": 90, "learning_rate": 0.1, "optimizer": "sgd"}
    plain, by_keras = (
        KerasRegressor(model, **settings, engine=engine, random_state=0).fit(X, y)
        for engine in ("auto", "keras")
    )
    np.testing.assert_allclose(by_keras.predict(X), plain.predict(X), atol=1e-4)
    assert np.abs(plain.predict(X)).max() < 10  # on raw columns it would be thousands


def test_a_public_model_has_its_moments_and_is_saved_with_them(tmp_path):
    ours = KerasClassifier(sequential(), epochs=1, random_state=0).fit(X, y)
    public = ours.model_
    scaled = public.get_layer("scaled")
    np.testing.assert_allclose(np.asarray(scaled.mean)[0], X.mean(axis=0), rtol=1e-5)
    public.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        np.asarray(loaded(X)).ravel(), ours.predict_proba(X)[:, 1], atol=1e-5
    )


def test_adapted_lookups_keep_their_vocabulary():
    def model_of(known):
        lookup = keras.layers.IntegerLookup()
        lookup.adapt(np.array(known))
        layers = [keras.Input((1,), dtype="int64"), lookup, keras.layers.Rescaling(1.0)]
        return keras.Sequential(layers)

    X = np.array([[5.0], [9.0], [4.0]])
    for known in ([5, 7, 9], [9, 4]):  # the second has the same layers and weights
        model = model_of(known)
        found = KerasFeatureTransformer(model).fit_transform(X)
        np.testing.assert_array_equal(found, np.asarray(model(X.astype("int64"))))


def test_a_template_with_adapted_layers_is_refused():
    layer = keras.layers.Normalization()
    layer.adapt(np.ones((4, 2)))
    template = keras.Sequential([layer, keras.layers.Dense(1)])
    with pytest.raises(ValueError, match=r"'normalization.*adapted to data.*keras.Input"):
        KerasClassifier(template, epochs=1).fit(np.ones((4, 2)), [0, 1, 0, 1])
