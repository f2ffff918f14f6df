import numpy as np
import pytest

from skstack.networks import Block, Spec
from skstack.networks._numeric import standardizing_variables
from skstack.networks._spec import embedding_width


def numeric(width):
    return Block("numeric", "numeric", (width,), None, "float32")


def category(name, cardinality):
    return Block(name, "categorical", (), cardinality, "int32")


def sequence(*shape):
    return Block("sequence", "sequence", shape, None, "float32")


MIXED = (numeric(3), category("job", 7), category("city", 40))


def test_inputs_are_named_by_block():
    inputs = Spec(MIXED, "binary", 2).inputs()
    assert {name: (tuple(x.shape), x.dtype) for name, x in inputs.items()} == {
        "numeric": ((None, 3), "float32"),
        "job": ((None,), "int32"),
        "city": ((None,), "int32"),
    }


@pytest.mark.parametrize(
    ("task", "n_outputs", "units", "activation"),
    [
        ("binary", 2, 1, "sigmoid"),
        ("multiclass", 5, 5, "softmax"),
        ("multilabel", 3, 3, "sigmoid"),
        ("regression", 2, 2, "linear"),
        ("reconstruction", 3, 3, "linear"),
    ],
)
def test_task_decides_units_and_activation(task, n_outputs, units, activation):
    import keras

    spec = Spec((numeric(3),), task, n_outputs)
    inputs = spec.inputs()
    model = keras.Model(inputs, spec.outputs(spec.join(inputs)))
    assert model.output_shape == (None, units) == spec.output_shape
    assert model.get_layer("output").activation.__name__ == activation


def test_join_concatenates_blocks_in_order():
    import keras

    spec = Spec(MIXED, "binary", 2)
    inputs = spec.inputs()
    table = keras.Model(inputs, spec.join(inputs, scaling=None, categorical="one-hot"))
    rows = {
        "numeric": np.arange(6, dtype=np.float32).reshape(2, 3),
        "job": np.array([6, 0], dtype=np.int32),
        "city": np.array([1, 39], dtype=np.int32),
    }
    expected = np.hstack([rows["numeric"], np.eye(7)[rows["job"]], np.eye(40)[rows["city"]]])
    assert spec.width == 50
    np.testing.assert_array_equal(np.asarray(table(rows)), expected)


def test_embedded_width_follows_the_rule():
    spec = Spec(MIXED, "binary", 2)
    joined = spec.join(spec.inputs())
    assert joined.shape[1] == 3 + embedding_width(7) + embedding_width(40)
    assert embedding_width(1) >= 1
    assert embedding_width(10**6) == 50


def test_one_block_needs_no_concatenation():
    spec = Spec((numeric(2),), "binary", 2)
    inputs = spec.inputs()
    assert spec.join(inputs, scaling=None) is inputs["numeric"]


def test_standardising_keeps_the_precision_of_large_numbers():
    import keras

    spec = Spec((numeric(2),), "binary", 2)
    inputs = spec.inputs()
    model = keras.Model(inputs, spec.join(inputs))
    rows = np.array([[1e6 + 0.0625, 7], [1e6 - 0.125, 7]], dtype=np.float32)
    values = standardizing_variables("numeric", [1e6, 7.0], [0.25, 0.0])
    assert {variable.path for variable in model.variables} == set(values)
    assert not model.trainable_variables
    for variable in model.variables:
        variable.assign(values[variable.path])
    expected = [[0.25, 0.0], [-0.5, 0.0]]
    np.testing.assert_array_equal(np.asarray(model({"numeric": rows})), expected)


def test_standardising_stays_in_float32_under_mixed_precision():
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        spec = Spec((numeric(1),), "regression", 1)
        inputs = spec.inputs()
        x = spec.join(inputs)
        assert x.dtype == "float32"
        assert spec.outputs(x).dtype == "float32"
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("shape", [(5, 2), (4, 4, 3)])
def test_join_refuses_blocks_that_are_not_tabular(shape):
    spec = Spec((sequence(*shape),), "binary", 2)
    with pytest.raises(ValueError, match=rf"rank {len(shape) + 1}.*Write a recipe"):
        spec.join(spec.inputs())
    with pytest.raises(ValueError, match="only tables"):
        _ = spec.width


def test_a_single_sequence_is_reconstructed_in_its_shape():
    assert Spec((sequence(5, 2),), "reconstruction", 10).output_shape == (None, 5, 2)


def test_errors_name_the_value_received():
    spec = Spec((numeric(2),), "binary", 2)
    inputs = spec.inputs()
    with pytest.raises(ValueError, match="categorical='onehot'"):
        spec.join(inputs, categorical="onehot")
    with pytest.raises(ValueError, match=r"join got the inputs \['age'\]"):
        spec.join({"age": inputs["numeric"]})
    with pytest.raises(ValueError, match="shape \\(batch, width\\)"):
        Spec((sequence(5, 2),), "binary", 2).outputs(
            Spec((sequence(5, 2),), "binary", 2).inputs()["sequence"]
        )
    with pytest.raises(ValueError, match=r"shape \(batch, members, width\)"):
        spec.outputs(spec.join(inputs), members=True)
    with pytest.raises(ValueError, match="task='classify'"):
        Spec((numeric(2),), "classify", 2)
    with pytest.raises(ValueError, match="at least one block"):
        Spec((), "binary", 2)
    with pytest.raises(ValueError, match="rename these columns"):
        Spec((numeric(2), category("numeric_center", 3)), "binary", 2)


def test_columns_may_be_named_like_layers():
    from skstack.networks import MLP

    spec = Spec((numeric(2), category("hidden_1", 3), category("joined", 3)), "binary", 2)
    names = [layer.name for layer in MLP().build(spec).layers]
    assert {"hidden_1", "hidden_1_", "joined", "joined_", "output"} <= set(names)
