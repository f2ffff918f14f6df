import copy
import pickle
import random

import keras
import numpy as np
import pytest
from keras import layers

from skstack import KerasFeatureTransformer, KerasRegressor
from skstack._base.params import is_keras_model
from skstack.networks import MLP, Block, Spec
from skstack.networks._adopted import FrozenBlueprint, ModelBlueprint
from skstack.networks._model_parameter import blueprint_for, load_model

# Keras writes models with np.array(variable), which NumPy 2 complains of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NUMERIC = Block("numeric", "numeric", (4,), None, "float32")
SHORT = Block("sequence", "sequence", (2, 2), None, "float32")
BINARY = Spec((NUMERIC,), "binary", 2)
THREE = Spec((NUMERIC,), "multiclass", 3)
TARGET = Spec((NUMERIC,), "regression", 1)
X = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)


def functional(units=1, activation=None, **names):
    inputs = keras.Input((4,))
    x = layers.Dropout(0.3)(layers.Dense(5, activation="relu", name="latent")(inputs))
    return keras.Model(inputs, layers.Dense(units, activation=activation)(x), **names)


def sequential(units=1, activation=None):
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(5), layers.Dense(units, activation=activation)]
    )


def unbuilt(units=1, activation=None):
    return keras.Sequential([layers.Dense(5), layers.Dense(units, activation=activation)])


@keras.saving.register_keras_serializable("tests")
class Told(keras.Model):
    def __init__(self, width=3, last="sigmoid", **kwargs):
        super().__init__(**kwargs)
        self.width, self.last = width, last
        self.hidden = layers.Dense(width)
        self.out = layers.Dense(1, activation=last)

    def call(self, x):
        return self.out(self.hidden(x))

    def get_config(self):
        return {**super().get_config(), "width": self.width, "last": self.last}


class Untold(Told):
    get_config = keras.Model.get_config


def with_names(**arguments):
    model = Told(**arguments)
    model(X)
    return model


def values(model):
    return [np.asarray(variable.value) for variable in model.variables]


def run(network, rows=X):
    return np.asarray(network({"numeric": rows}))


@pytest.mark.parametrize(
    "make",
    [
        functional,
        sequential,
        lambda: keras.Sequential([functional(activation="tanh"), layers.Dense(1)]),
        lambda: keras.Sequential(
            [keras.Input((4,)), sequential(3), layers.Lambda(lambda x: 2 * x), layers.Dense(1)]
        ),
        lambda: with_names(width=7, last="linear"),
    ],
)
def test_the_copy_is_equal_and_the_model_unchanged(make):
    model = make()
    model(X)
    before, config = values(model), str(model.get_config())
    blueprint = ModelBlueprint(model, TARGET)
    network = blueprint.build()
    np.testing.assert_allclose(run(network), np.asarray(model(X)), atol=1e-6)
    assert blueprint.continued
    assert not set(map(id, network.variables)) & set(map(id, model.variables))
    for variable in network.variables:
        variable.assign(variable.value + 1)
    assert str(model.get_config()) == config
    assert all(map(np.array_equal, before, values(model)))


def test_a_functional_model_keeps_its_layer_names():
    assert {layer.name for layer in ModelBlueprint(functional(), TARGET).build().layers} >= {
        "numeric",
        "latent",
    }


def test_an_unbuilt_model_is_a_template():
    model = unbuilt()
    blueprint = ModelBlueprint(model, TARGET)
    assert not blueprint.continued
    assert blueprint.start_variables() is None
    assert not model.built
    assert not np.array_equal(run(blueprint.build()), run(blueprint.build()))
    subclassed = Told()
    assert not ModelBlueprint(subclassed, BINARY).continued
    assert not subclassed.built


def test_no_global_random_number_is_drawn():
    models = [functional(), unbuilt(), with_names(), Told()]
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    for model in models:
        ModelBlueprint(model, BINARY).start_variables()
    FrozenBlueprint(models[2], (NUMERIC,))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002


def test_a_built_model_is_continued_from_its_weights_and_seeds():
    model = functional()
    start = ModelBlueprint(model, TARGET).start_variables()
    assert all(map(np.array_equal, start.values(), values(model)))
    assert any("seed" in path for path in start)


@pytest.mark.parametrize("make", [functional, sequential, unbuilt])
@pytest.mark.parametrize(
    ("spec", "units", "activation"), [(BINARY, 1, "sigmoid"), (THREE, 3, "softmax")]
)
def test_linear_outputs_become_probabilities(make, spec, units, activation):
    blueprint = ModelBlueprint(make(units), spec)
    outputs = run(blueprint.build())
    assert blueprint.activation == activation
    assert np.all((outputs > 0) & (outputs < 1))
    if units > 1:
        np.testing.assert_allclose(outputs.sum(axis=1), 1, rtol=1e-5)
    finished = ModelBlueprint(make(units, activation), spec)
    assert len(finished.build().layers) == len(blueprint.build().layers) - 1


@pytest.mark.parametrize("activation", ["softmax", None])
def test_two_units_for_two_classes_are_a_softmax(activation):
    blueprint = ModelBlueprint(functional(2, activation), BINARY)
    assert (blueprint.spec.task, blueprint.spec.units) == ("multiclass", 2)
    np.testing.assert_allclose(run(blueprint.build()).sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "spec", "message"),
    [
        (functional(3), BINARY, r"\(None, 3\).*2 classes needs \(None, 1\) or \(None, 2\)"),
        (functional(1), THREE, r"\(None, 1\).*3 classes needs \(None, 3\)"),
        (functional(2), TARGET, r"\(None, 2\).*1 targets needs \(None, 1\)"),
        (functional(3, "sigmoid"), THREE, "ends with the activation 'sigmoid'.*needs 'softmax'"),
        (functional(1, "relu"), BINARY, "ends with the activation 'relu'.*needs 'sigmoid'"),
        (functional(1), Spec((Block("numeric", "numeric", (7,), None, "float32"),), "binary", 2),
         r"input of shape \(None, 4\).*'numeric' of X has shape \(None, 7\)"),
        (functional(1), Spec((SHORT,), "binary", 2),
         r"\(None, 4\).*\(None, 2, 2\)"),
        (functional(1), Spec((NUMERIC, Block("job", "categorical", (), 5, "int32")), "binary", 2),
         r"takes the inputs .*\(None, 4\).*X has the blocks .*'job': \(None,\)"),
        (unbuilt(1), Spec((NUMERIC, Block("job", "categorical", (), 5, "int32")), "binary", 2),
         "is a Sequential and takes one input"),
    ],
)  # fmt: skip
def test_models_that_do_not_match_the_data_are_refused(model, spec, message):
    with pytest.raises(ValueError, match=message):
        ModelBlueprint(model, spec)


def test_unknown_output_layers_are_evaluated():
    inputs = keras.Input((4,))
    odd = layers.Dense(3)(inputs)
    total = keras.Model(inputs, keras.ops.sum(keras.ops.softplus(odd), axis=1, keepdims=True))
    with pytest.raises(ValueError, match="are not probabilities"):
        ModelBlueprint(total, BINARY)
    assert ModelBlueprint(total, TARGET).activation is None
    ends = keras.Model(inputs, keras.ops.sigmoid(layers.Dense(1)(inputs)))
    assert ModelBlueprint(ends, BINARY).activation == "sigmoid"
    assert ModelBlueprint(with_names(last="sigmoid"), BINARY).activation is None


def test_several_inputs_are_matched_by_name():
    job = keras.Input((1,), name="job", dtype="int32")
    numbers = keras.Input((4,), name="numeric")
    x = layers.Concatenate()([numbers, layers.Flatten()(layers.Embedding(5, 2)(job))])
    model = keras.Model([job, numbers], layers.Dense(1)(x))
    blocks = (NUMERIC, Block("job", "categorical", (), 5, "int32"))
    network = ModelBlueprint(model, Spec(blocks, "regression", 1)).build()
    codes = np.arange(9, dtype=np.int32) % 5
    np.testing.assert_allclose(
        np.asarray(network({"numeric": X, "job": codes})),
        np.asarray(model([codes[:, None], X])),
        atol=1e-6,
    )


def test_several_outputs_are_refused_by_estimators_and_named_by_transformers():
    inputs = keras.Input((4,))
    outputs = [layers.Dense(2, name="left")(inputs), layers.Dense(3, name="right")(inputs)]
    model = keras.Model(inputs, outputs)
    with pytest.raises(ValueError, match="has 2 outputs"):
        ModelBlueprint(model, BINARY)
    frozen = FrozenBlueprint(model, (NUMERIC,))
    assert frozen.output_names == ["left", "right"]
    assert frozen.output_shapes == [(None, 2), (None, 3)]
    assert frozen.input_shapes == {"numeric": (None, 4)}
    network = frozen.build()
    assert not network.trainable_variables
    for ours, theirs in zip(network({"numeric": X}), model(X), strict=True):
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), atol=1e-6)
    by_key = FrozenBlueprint(keras.Model(inputs, {"b": outputs[0], "a": outputs[1]}), (NUMERIC,))
    assert by_key.output_names == ["a", "b"]
    assert by_key.output_shapes == [(None, 3), (None, 2)]
    assert [tuple(tensor.shape) for tensor in by_key.build().outputs] == by_key.output_shapes
    assert model.trainable


class Paired(keras.Model):
    """A subclassed model with a dict of outputs."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.one, self.other = layers.Dense(2), layers.Dense(3)

    def call(self, inputs):
        return {"wide": self.other(inputs), "slim": self.one(inputs)}


def named_outputs(*outputs):
    """A functional model; each output is a name, or None where Keras names it."""
    inputs = keras.Input((4,))
    return keras.Model(inputs, [layers.Dense(1, name=name)(inputs) for name in outputs])


def paired():
    model = Paired()
    model(X)
    return model


def shared_head():
    inputs, head = keras.Input((4,)), layers.Dense(4, name="head")
    return keras.Model(inputs, [head(inputs), head(head(inputs))])


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: keras.Sequential([keras.Input((4,)), layers.Dense(2, name="score")]), ["score"]),
        (lambda: keras.Sequential([keras.Input((4,)), layers.Dense(2)]), ["output"]),
        (lambda: named_outputs("score"), ["score"]),
        (lambda: named_outputs("score_2"), ["score_2"]),
        (lambda: named_outputs(None), ["output"]),
        (lambda: named_outputs("score", None, "rank"), ["score", "output_1", "rank"]),
        (shared_head, ["output_0", "output_1"]),
        (with_names, ["output"]),
        (paired, ["slim", "wide"]),
    ],
)
def test_output_names_do_not_depend_on_earlier_models(make, names):
    for _ in range(2):  # the second model has other automatic names than the first
        frozen = FrozenBlueprint(make(), (NUMERIC,))
        assert frozen.output_names == names
        assert [tuple(tensor.shape) for tensor in frozen.build().outputs] == frozen.output_shapes


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: layers.BatchNormalization(), (4,)),
        (lambda: layers.PReLU(), (4,)),
        (lambda: layers.Conv1D(2, 1), (2, 2)),
        (lambda: layers.LSTM(2), (2, 2)),
        (lambda: layers.GlobalAveragePooling1D(), (2, 2)),
        (lambda: keras.Sequential([layers.Dense(2)]), (4,)),
        (lambda: keras.ops.tanh, (4,)),
    ],
)
def test_automatic_names_of_keras_are_recognised(layer, shape):
    inputs = keras.Input(shape)
    blocks = (NUMERIC if len(shape) == 1 else SHORT,)
    for _ in range(2):
        assert FrozenBlueprint(keras.Model(inputs, layer()(inputs)), blocks).output_names == [
            "output"
        ]


def test_frozen_models_need_weights_and_fitting_rows():
    with pytest.raises(ValueError, match="is unbuilt"):
        FrozenBlueprint(unbuilt(), (NUMERIC,))
    with pytest.raises(ValueError, match=r"\(None, 4\).*\(None, 2\)"):
        FrozenBlueprint(functional(), (Block("numeric", "numeric", (2,), None, "float32"),))


def test_frozen_sequences_of_any_length():
    inputs = keras.Input((None, 2))
    model = keras.Model(inputs, layers.LSTM(3)(inputs))
    blocks = (Block("sequence", "sequence", (6, 2), None, "float32"),)
    rows = np.ones((2, 6, 2), dtype=np.float32)
    outputs = FrozenBlueprint(model, blocks).build()({"sequence": rows})
    np.testing.assert_allclose(np.asarray(outputs), np.asarray(model(rows)), atol=1e-6)


def test_models_that_cannot_be_copied_are_refused():
    untold = Untold(width=5)
    untold(X)
    with pytest.raises(ValueError, match=r"cannot be copied.*get_config that holds width, last"):
        ModelBlueprint(untold, BINARY)
    changed = with_names()
    changed.out.activation = keras.activations.tanh
    with pytest.raises(ValueError, match="a copy made from its config computes other outputs"):
        ModelBlueprint(changed, TARGET)


class OwnStep(keras.Model):
    def train_step(self, data):
        return super().train_step(data)


def test_a_model_with_a_custom_train_step_keeps_its_class():
    inputs = keras.Input((4,))
    hidden = layers.Dense(1)(inputs)
    model = OwnStep(inputs, layers.Activation("sigmoid")(hidden))
    network = ModelBlueprint(model, BINARY).build()
    assert type(network) is OwnStep
    assert network is not model
    np.testing.assert_allclose(np.asarray(network(X)), np.asarray(model(X)), atol=1e-6)
    with pytest.raises(ValueError, match="overrides train_step"):
        ModelBlueprint(OwnStep(inputs, hidden), BINARY)


def test_compiled_loss_and_optimizer_are_copied():
    model = functional()
    assert ModelBlueprint(model, BINARY).loss is None
    assert ModelBlueprint(model, BINARY).optimizer is None
    loss = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1)
    model.compile(keras.optimizers.SGD(0.3, momentum=0.5), loss)
    blueprint = ModelBlueprint(model, BINARY)
    assert blueprint.loss.get_config()["from_logits"] is False
    assert blueprint.loss.get_config()["label_smoothing"] == 0.1
    assert loss.get_config()["from_logits"] is True
    assert blueprint.optimizer is not model.optimizer
    assert blueprint.optimizer.get_config() == model.optimizer.get_config()
    model.compile("adam", "mse")
    assert ModelBlueprint(model, TARGET).loss == "mse"
    model.compile("adam", lambda y, p: keras.ops.mean(y * p))
    with pytest.raises(ValueError, match="with the custom loss"):
        _ = ModelBlueprint(model, BINARY).loss
    assert callable(ModelBlueprint(model, TARGET).loss)
    assert not ModelBlueprint(model, BINARY).build().compiled


def afresh(make, **options):
    """A model whose automatic layer names start from the beginning, as in a new process."""
    keras.utils.clear_session(free_memory=False)  # else a second of garbage collection
    return make(**options)


def test_keys():
    def key(model, spec=TARGET):
        return ModelBlueprint(model, spec).key

    assert key(afresh(functional)) == key(afresh(functional))
    assert hash(key(afresh(unbuilt))) == hash(key(afresh(unbuilt)))
    frozen = afresh(functional)
    frozen.layers[1].trainable = False
    one_variable = afresh(functional)
    one_variable.layers[1].kernel.trainable = False
    different = [
        afresh(functional),
        afresh(sequential),
        afresh(unbuilt),
        frozen,
        one_variable,
        afresh(functional, activation="softplus"),
    ]
    keys = [key(model) for model in different]
    assert None not in keys
    assert len(set(keys)) == len(keys)
    assert key(different[0], TARGET) != key(different[0], BINARY)
    assert FrozenBlueprint(different[0], (NUMERIC,)).key != key(different[0])


def test_models_with_other_layer_names_have_other_keys():
    """Weights and inner layers are found by name, so a shared program would mix them up."""
    one, other = sequential(), sequential()
    assert ModelBlueprint(one, TARGET).key != ModelBlueprint(other, TARGET).key


def test_models_that_cannot_be_compared_have_no_key():
    lambdas = keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: x), layers.Dense(1)])
    called = functional(activation=lambda x: 2 * x)
    copied = ModelBlueprint(called, TARGET).build()
    np.testing.assert_allclose(run(copied), np.asarray(called(X)), atol=1e-6)
    for model in (
        with_names(),
        lambdas,
        called,
        OwnStep(*(lambda i: (i, i[:, :1]))(keras.Input((4,)))),
    ):
        assert ModelBlueprint(model, TARGET).key is None


@pytest.mark.parametrize("make", [functional, sequential, unbuilt, with_names])
def test_blueprints_pickle_and_share_the_model_in_deep_copies(make):
    blueprint = ModelBlueprint(make(), BINARY)
    assert copy.deepcopy(blueprint).model is blueprint.model
    assert copy.deepcopy([blueprint])[0].key == blueprint.key
    loaded = pickle.loads(pickle.dumps(blueprint))
    assert loaded.key == blueprint.key
    assert loaded.continued == blueprint.continued
    if blueprint.continued:
        ours, theirs = loaded.start_variables(), blueprint.start_variables()
        assert list(ours) == list(theirs)
        assert all(map(np.array_equal, ours.values(), theirs.values()))


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".hdf5"])
def test_saved_models_are_loaded_compiled(tmp_path, suffix):
    model = functional()
    model.compile("sgd", keras.losses.MeanAbsoluteError())
    path = tmp_path / f"model{suffix}"
    model.save(path)
    for given in (path, str(path)):
        blueprint = blueprint_for(given, TARGET, MLP())
        np.testing.assert_allclose(run(blueprint.build()), np.asarray(model(X)), atol=1e-6)
        assert type(blueprint.optimizer).__name__ == "SGD"
        assert blueprint.loss is not None


def test_paths_without_a_model_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"model='.*no.keras': the file does not exist"):
        load_model(tmp_path / "no.keras")
    with pytest.raises(ValueError, match=r"must end with one of .keras, .h5, .hdf5"):
        load_model("model.pkl")
    with pytest.raises(ValueError, match="hands columns of X on with its parameter `passthrough`"):
        load_model("passthrough")
    for name in ("bad.keras", "bad.h5"):
        (tmp_path / name).write_text("no model")
        with pytest.raises(ValueError, match="holds no Keras model") as raised:
            load_model(tmp_path / name)
        assert raised.value.__cause__ is not None


def test_other_objects_are_not_models():
    assert is_keras_model(functional())
    assert not is_keras_model(keras.Model)
    assert not is_keras_model(layers.Dense(1))


class OfTwo(keras.Model):
    """Takes its two inputs as a list."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.last = keras.layers.Dense(1)

    def call(self, inputs):
        first, second = inputs
        return self.last(keras.ops.concatenate([first, second], axis=-1))


def test_a_model_that_takes_a_list_of_inputs_is_told_what_it_receives():
    X = np.ones((20, 4), np.float32)
    regressor = KerasRegressor(OfTwo(), inputs={"a": [0, 1], "b": [2, 3]}, epochs=1)
    with pytest.raises(ValueError, match=r"class OfTwo .*receives a dict.*\['a', 'b'\]"):
        regressor.fit(X, X[:, 0])


def towers(nested):
    """Two towers that share weights: a layer, or a network with it, is called for each half."""
    tower = layers.Dense(3, name="shared")
    if nested:
        tower = keras.Sequential([keras.Input((2,)), tower], name="tower")
    inputs = keras.Input((4,))
    x = layers.Subtract(name="apart")([tower(inputs[:, :2]), tower(inputs[:, 2:])])
    return keras.Model(inputs, layers.Dense(1)(x)), tower


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("trained", [False, True])
def test_features_of_a_layer_with_several_calls_are_warned_of(nested, trained):
    model, tower = towers(nested)
    upstream = KerasRegressor(model, epochs=1) if trained else model
    features = KerasFeatureTransformer(upstream, layers="shared", cv=2, random_state=0)
    with pytest.warns(UserWarning, match=r"'shared' 2 times\. Its features .* last call") as caught:
        features.fit(X, X[:, 0])
    assert len(caught) == 1
    if not trained:
        np.testing.assert_allclose(features.transform(X), tower(X[:, 2:]), rtol=1e-6)
    features.set_params(layers="apart").fit(X, X[:, 0])
