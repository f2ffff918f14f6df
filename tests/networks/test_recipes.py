import inspect
import pickle
import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone

from skstack.networks import MLP, Autoencoder, Block, Spec, recipe
from skstack.networks._model_parameter import blueprint_for
from skstack.networks._recipe import RecipeBlueprint

# Keras writes models with np.array(variable), which NumPy 2 complains of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NUMERIC = Block("numeric", "numeric", (3,), None, "float32")
JOB = Block("job", "categorical", (), 7, "int32")
SPEC = Spec((NUMERIC, JOB), "multiclass", 4)
ROWS = {
    "numeric": np.linspace(-2, 2, 18, dtype=np.float32).reshape(6, 3),
    "job": np.arange(6, dtype=np.int32),
}


@recipe
def wide(spec, *, hidden=64, sizes=[1], depth):  # noqa: B006 - what the test is about
    """One wide layer."""
    import keras

    inputs = spec.inputs()
    x = keras.layers.Dense(hidden, name="latent")(spec.join(inputs))
    return keras.Model(inputs, spec.outputs(x))


def test_a_recipe_is_an_estimator_of_its_parameters():
    made = wide(hidden=8, depth=2)
    assert repr(made) == "wide(depth=2, hidden=8)"
    assert made.get_params() == {"hidden": 8, "sizes": [1], "depth": 2}
    assert clone(made).set_params(hidden=9).hidden == 9
    assert (wide.__name__, wide.__qualname__, wide.__doc__) == ("wide", "wide", "One wide layer.")
    assert list(inspect.signature(wide).parameters) == ["hidden", "sizes", "depth"]
    assert inspect.signature(wide).parameters["hidden"].default == 64
    with pytest.raises(ValueError, match="Invalid parameter 'hiden'"):
        made.set_params(hiden=3)


def test_mutable_defaults_are_not_shared():
    first = wide(depth=1)
    first.sizes.append(2)
    assert wide(depth=1).sizes == [1]


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        (
            (),
            {"hiden": 3, "depth": 1},
            "'hiden'; it accepts 'hidden', 'sizes', 'depth'",
        ),
        ((3,), {}, "keyword arguments only"),
        ((), {}, "needs a value for 'depth'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, keywords, message):
    with pytest.raises(TypeError, match=message):
        wide(*arguments, **keywords)


def test_invalid_recipe_functions_are_refused():
    def no_spec(*, hidden=3): ...
    def positional(spec, hidden=3): ...
    def variadic(spec, *args): ...
    def open_ended(spec, **kwargs): ...
    def shadowing(spec, *, get_params=3): ...
    def nested(spec, *, a__b=3): ...

    with pytest.raises(TypeError, match=r"first parameter of .*no_spec.* is not 'spec'"):
        recipe(no_spec)
    for function in (positional, variadic, open_ended):
        with pytest.raises(TypeError, match="not keyword-only"):
            recipe(function)
    for function in (shadowing, nested):
        with pytest.raises(TypeError, match="cannot have a parameter called"):
            recipe(function)
    with pytest.raises(TypeError, match="got 3"):
        recipe(3)


def test_a_recipe_must_return_a_model():
    @recipe
    def forgetful(spec):
        spec.inputs()

    with pytest.raises(TypeError, match=r"forgetful\(\) must return a keras.Model; .* NoneType"):
        forgetful().build(SPEC)


def test_local_recipes_fail_to_pickle_with_pythons_error():
    @recipe
    def local(spec): ...

    with pytest.raises((AttributeError, pickle.PicklingError), match="local"):
        pickle.dumps(local())


SCRIPT = """
import pickle, sys
import cloudpickle
from skstack._base.params import is_keras_model
from skstack.networks import recipe

is_keras_model(3)
assert "keras" not in sys.modules

@recipe
def deep(spec, *, hidden=3):
    return spec + hidden + offset

offset = 10
assert pickle.loads(pickle.dumps(deep(hidden=5))).hidden == 5
sys.stdout.buffer.write(cloudpickle.dumps(deep(hidden=5)))
"""


def test_recipes_of_main_pickle_with_cloudpickle_and_without_an_import_of_keras():
    sent = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True).stdout
    made = pickle.loads(sent)
    assert repr(made) == "deep(hidden=5)"
    assert type(made).function(1, hidden=2) == 13


@pytest.mark.parametrize(
    "made",
    [
        MLP(),
        MLP(()),
        MLP(5, activation="gelu", dropout=0.2, batch_normalization=True, l2=0.1),
        MLP([4, 3], scaling=None),
    ],
)
@pytest.mark.parametrize("blocks", [(NUMERIC,), (JOB,), (NUMERIC, JOB)])
def test_mlp_builds_for_all_blocks(made, blocks):
    model = RecipeBlueprint(made, Spec(blocks, "multiclass", 4)).build()
    outputs = np.asarray(model({block.name: ROWS[block.name] for block in blocks}))
    assert outputs.shape == (6, 4)
    np.testing.assert_allclose(outputs.sum(axis=1), 1, rtol=1e-5)


def test_mlp_names_the_activated_layers():
    for normalised in (False, True):
        model = MLP((5, 4), batch_normalization=normalised, dropout=0.1, l2=0.5).build(SPEC)
        for number, width in enumerate((5, 4), start=1):
            layer = model.get_layer(f"hidden_{number}")
            assert layer.output.shape == (None, width)
            assert layer.activation.__name__ == "relu"
        assert len(model.losses) == 2


@pytest.mark.parametrize("width", [1, 2, 3, 10, 30])
def test_the_latent_layer_is_narrower_than_the_table(width):
    block = Block("numeric", "numeric", (width,), None, "float32")
    model = RecipeBlueprint(Autoencoder(), Spec((block,), "reconstruction", width)).build()
    latent = model.get_layer("latent").output.shape[1]
    assert latent == min(8, (width + 1) // 2)
    assert model.output_shape == (None, width)


def test_autoencoder_mirrors_its_encoder():
    spec = Spec((NUMERIC, JOB), "reconstruction", 10)
    model = RecipeBlueprint(Autoencoder((9, 5), latent_size=2, noise=0.3), spec).build()
    widths = {layer.name: layer.output.shape[-1] for layer in model.layers}
    assert [widths[n] for n in ("encoder_1", "encoder_2", "latent", "decoder_1", "decoder_2")] == [
        9,
        5,
        2,
        5,
        9,
    ]
    assert widths["output"] == 10
    once, again = (np.asarray(model(ROWS)) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, np.asarray(model(ROWS, training=True)))


@pytest.mark.parametrize("cls", [MLP, Autoencoder])
@pytest.mark.parametrize(
    ("parameter", "values"),
    [
        ("hidden_layer_sizes", [0, (3, -1), (2.5,), "64", True]),
        ("activation", ["relo", 3, None]),
        ("dropout", [-0.1, 1.0, "no", float("nan"), True]),
        ("batch_normalization", ["yes", 1]),
        ("l2", [-1e-3, None, float("inf")]),
        ("scaling", [0, "std", ["standard"], True]),
        ("noise", [-1, None]),
        ("latent_size", [0, 1.5, "half", None]),
    ],
)
def test_wrong_values_are_named(cls, parameter, values):
    if parameter not in cls().get_params():
        pytest.skip("not a parameter of this recipe")
    spec = Spec((NUMERIC,), "reconstruction", 3)
    for value in values:
        with pytest.raises(
            ValueError, match=rf"{parameter}=.* of {cls.__name__} must be"
        ) as raised:
            cls(**{parameter: value}).build(spec)
        assert repr(value) in str(raised.value)


def _wrong_inputs(spec):
    import keras

    inputs = {"age": keras.Input((3,), name="age")}
    return keras.Model(inputs, spec.outputs(inputs["age"]))


def _wrong_units(spec):
    import keras

    inputs = spec.inputs()
    return keras.Model(inputs, keras.layers.Dense(2)(spec.join(inputs)))


def _compiled(spec):
    model = MLP().build(spec)
    model.compile("adam", "mse")
    return model


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (_wrong_inputs, r"inputs \{'numeric': \(None, 3\), 'job': \(None,\)\}.*has \{'age'"),
        (_wrong_units, r"shape \(None, 4\).*\[\(None, 2\)\]"),
        (_compiled, "Leave compile out"),
    ],
)
def test_a_network_that_does_not_match_the_task_is_refused(build, message):
    @recipe
    def wrong(spec):
        return build(spec)

    with pytest.raises(ValueError, match=message):
        RecipeBlueprint(wrong(), SPEC).build()


def test_different_recipes_have_different_keys():
    def key(made, spec=SPEC):
        return RecipeBlueprint(made, spec).key

    assert key(MLP()) == key(clone(MLP())) == key(MLP((64, 32)))
    assert hash(key(MLP())) == hash(key(MLP()))
    different = [
        MLP(),
        MLP((64,)),
        MLP(l2=1),
        MLP(scaling=None),
        MLP(activation="tanh"),
        wide(depth=1),
        wide(depth=2),
        Autoencoder(),
    ]
    assert len({key(made) for made in different}) == len(different)
    assert key(MLP()) != key(MLP(), Spec((NUMERIC,), "multiclass", 4))
    assert key(wide(depth=object())) is None


def test_the_default_and_classes():
    assert blueprint_for(None, SPEC, MLP()).recipe.get_params() == MLP().get_params()
    with pytest.raises(TypeError, match=r"pass wide\(\), not wide"):
        blueprint_for(wide, SPEC, MLP())
    with pytest.raises(TypeError, match=r"pass MLP\(\), not MLP"):
        blueprint_for(MLP, SPEC, MLP())
    with pytest.raises(TypeError, match="decorate it with @recipe"):
        blueprint_for(_wrong_units, SPEC, MLP())
    with pytest.raises(TypeError, match="must be a recipe"):
        blueprint_for(3, SPEC, MLP())


def test_a_saved_network_loads_without_skstack(tmp_path):
    import keras

    model = MLP((4,), dropout=0.1, batch_normalization=True, l2=0.1).build(SPEC)
    one_hot = Autoencoder(noise=0.1).build(Spec((NUMERIC, JOB), "reconstruction", 10))
    for made in (model, one_hot):
        made.save(tmp_path / "network.keras")
        content = (tmp_path / "network.keras").read_bytes()
        assert b"Dense" in content
        assert b"skstack" not in content  # Keras' own layers alone
        loaded = keras.models.load_model(tmp_path / "network.keras", safe_mode=True)
        keras.tree.map_structure(
            lambda found, value: np.testing.assert_allclose(found, value, rtol=1e-6),
            loaded(ROWS),
            made(ROWS),
        )
