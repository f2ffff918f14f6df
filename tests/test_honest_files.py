"""Saved models of honest users: all that Keras can save and load is loaded as before."""

import sys
import zipfile

import keras
import numpy as np
import pytest
from keras import layers
from keras.optimizers import schedules

from skstack._model_files import allowed
from skstack.networks._model_parameter import load_model

pytestmark = pytest.mark.filterwarnings("ignore:Model .* had a build config")
RNG = np.random.default_rng(0)
VECTOR, SEQUENCE, IMAGE, VOLUME, FILM = (4,), (8, 4), (8, 8, 3), (6, 6, 6, 2), (3, 6, 6, 2)
CONV = {"filters": 2, "kernel_size": 3}
FACTOR = {"factor": 0.1}
RATE = {"rate": 0.1}


def by_rank(names, **settings):
    shapes = {"1D": SEQUENCE, "2D": IMAGE, "3D": VOLUME}
    return {
        name + rank: (shapes[rank], settings)
        for name in names.split()
        for rank in shapes
        if hasattr(layers, name + rank)
    }


# Name -> shape of its rows, and settings.
LAYERS = {
    **by_rank(
        "Cropping GlobalAveragePooling GlobalAvgPool GlobalMaxPool GlobalMaxPooling MaxPool "
        "MaxPooling UpSampling ZeroPadding"
    ),
    **by_rank("AveragePooling AvgPool", pool_size=2),
    **by_rank("AdaptiveAveragePooling AdaptiveMaxPooling", output_size=2),
    **by_rank("Conv Convolution SeparableConv SeparableConvolution", **CONV),
    **{f"{n}{r}Transpose": (s, CONV) for n in ("Conv", "Convolution")
       for r, s in (("1D", SEQUENCE), ("2D", IMAGE), ("3D", VOLUME))},
    **by_rank("DepthwiseConv", kernel_size=3),
    **by_rank("SpatialDropout", rate=0.1),
    "Activation": (VECTOR, {"activation": "tanh"}),
    "ActivityRegularization": (VECTOR, {"l1": 0.1}),
    "AlphaDropout": (VECTOR, RATE), "Dropout": (VECTOR, RATE), "GaussianDropout": (VECTOR, RATE),
    "BatchNormalization": (VECTOR, {}), "LayerNormalization": (VECTOR, {}),
    "RMSNormalization": (VECTOR, {}), "UnitNormalization": (VECTOR, {}),
    "GroupNormalization": (VECTOR, {"groups": 2}),
    "Bidirectional": (SEQUENCE, {"layer": layers.GRU(2)}),
    "ConvLSTM1D": ((3, 6, 2), CONV), "ConvLSTM2D": (FILM, CONV),
    "ConvLSTM3D": ((2, 4, 4, 4, 2), CONV),
    "Dense": (VECTOR, {"units": 3, "activation": "gelu", "kernel_initializer": "orthogonal"}),
    "Discretization": (VECTOR, {"bin_boundaries": [-1.0, 0.0, 1.0]}),
    "ELU": (VECTOR, {}), "LeakyReLU": (VECTOR, {}), "PReLU": (VECTOR, {}), "ReLU": (VECTOR, {}),
    "Softmax": (VECTOR, {}), "Identity": (VECTOR, {}), "Flatten": (SEQUENCE, {}),
    "EinsumDense": (SEQUENCE, {"equation": "abc,cd->abd", "output_shape": (None, 6)}),
    "GRU": (SEQUENCE, {"units": 3}), "LSTM": (SEQUENCE, {"units": 3}),
    "SimpleRNN": (SEQUENCE, {"units": 3}), "GaussianNoise": (VECTOR, {"stddev": 0.1}),
    "GRUCell": (SEQUENCE, {"units": 3}), "LSTMCell": (SEQUENCE, {"units": 3}),
    "SimpleRNNCell": (SEQUENCE, {"units": 3}),
    "RNN": (SEQUENCE, {"cell": layers.LSTMCell(3)}),
    "StackedRNNCells": (SEQUENCE, {"cells": [layers.LSTMCell(3), layers.GRUCell(2)]}),
    "Lambda": (VECTOR, {"function": keras.ops.tanh}),
    "Masking": (SEQUENCE, {}), "Permute": (SEQUENCE, {"dims": (2, 1)}),
    "MelSpectrogram": ((2560,), {}), "STFTSpectrogram": ((256, 1), {}),
    "Normalization": (VECTOR, {"mean": [0.5] * 4, "variance": [2.0] * 4}),
    "RepeatVector": (VECTOR, {"n": 3}), "Reshape": (SEQUENCE, {"target_shape": (4, 8)}),
    "Rescaling": (IMAGE, {"scale": 2.0}),
    "SpectralNormalization": (VECTOR, {"layer": layers.Dense(3)}),
    "TimeDistributed": (SEQUENCE, {"layer": layers.Dense(2)}),
    "Wrapper": (SEQUENCE, None), "InputLayer": (VECTOR, None),
    "CategoryEncoding": ((1,), {"num_tokens": 4, "output_mode": "one_hot"}),
    "Hashing": ((1,), {"num_bins": 4}),
    "Embedding": ((5,), {"input_dim": 7, "output_dim": 3, "mask_zero": True}),
    "ReversibleEmbedding": ((5,), {"input_dim": 7, "output_dim": 3}),
    "IntegerLookup": ((1,), {"vocabulary": [1, 2, 3]}),
    "StringLookup": ((1,), {"vocabulary": ["a", "b"]}),
    "TextVectorization": ((1,), {"vocabulary": ["a", "b"], "output_sequence_length": 4}),
    "HashedCrossing": ((1,), None), "MaxNumBoundingBoxes": (IMAGE, None),
    "Add": (VECTOR, {}), "Average": (VECTOR, {}), "Concatenate": (VECTOR, {}),
    "Dot": (VECTOR, {"axes": 1}), "Maximum": (VECTOR, {}), "Minimum": (VECTOR, {}),
    "Multiply": (VECTOR, {}), "Subtract": (VECTOR, {}),
    "Attention": (SEQUENCE, {}), "AdditiveAttention": (SEQUENCE, {}),
    "MultiHeadAttention": (SEQUENCE, {"num_heads": 2, "key_dim": 3}),
    "GroupQueryAttention": (
        SEQUENCE, {"head_dim": 3, "num_query_heads": 2, "num_key_value_heads": 1}
    ),
    "AugMix": (IMAGE, {}), "AutoContrast": (IMAGE, {}), "RandAugment": (IMAGE, {}),
    "CenterCrop": (IMAGE, {"height": 4, "width": 4}),
    "ContrastLimitedAdaptiveHistogramEqualization": (IMAGE, {}),
    "Pipeline": (IMAGE, {"layers": [layers.Rescaling(2.0), layers.RandomFlip()]}),
    "RandomBrightness": (IMAGE, FACTOR), "RandomColorDegeneration": (IMAGE, FACTOR),
    "RandomColorJitter": (IMAGE, {}), "RandomContrast": (IMAGE, FACTOR),
    "RandomCrop": (IMAGE, {"height": 4, "width": 4}), "RandomElasticTransform": (IMAGE, {}),
    "RandomErasing": (IMAGE, {}), "RandomFlip": (IMAGE, {}), "RandomGaussianBlur": (IMAGE, {}),
    "RandomGrayscale": (IMAGE, {}), "RandomHue": (IMAGE, FACTOR), "RandomInvert": (IMAGE, {}),
    "RandomPerspective": (IMAGE, {}), "RandomPosterization": (IMAGE, {"factor": 4}),
    "RandomRotation": (IMAGE, FACTOR), "RandomSaturation": (IMAGE, FACTOR),
    "RandomSharpness": (IMAGE, FACTOR), "RandomZoom": (IMAGE, {"height_factor": 0.1}),
    "RandomTranslation": (IMAGE, {"height_factor": 0.1, "width_factor": 0.1}),
    "Resizing": (IMAGE, {"height": 4, "width": 4}), "Solarization": (IMAGE, {}),
    # Keras itself cannot load or build these.
    "RandomShear": (IMAGE, None), "Equalization": (IMAGE, None), "CutMix": (IMAGE, None),
    "MixUp": (IMAGE, None),
}  # fmt: skip
# Keras itself cannot load these from its older format.
NOT_IN_H5 = {"Attention", "RandomBrightness", "RandomColorDegeneration", "RandomPosterization",
             "RandomSaturation", "RandomSharpness", "Solarization", "Lambda"}  # fmt: skip
MERGES = {"Add", "Average", "Concatenate", "Dot", "Maximum", "Minimum", "Multiply", "Subtract",
          "Attention", "AdditiveAttention"}  # fmt: skip
WHOLE_NUMBERS = {"CategoryEncoding", "Hashing", "Embedding", "ReversibleEmbedding",
                 "IntegerLookup"}  # fmt: skip
WORDS = {"StringLookup", "TextVectorization"}


def output_of(name, inputs):
    layer = getattr(layers, name)(**LAYERS[name][1])
    if name.endswith(("Cell", "Cells")):
        layer = layers.RNN(layer)
    if name in MERGES:
        return layer([inputs, inputs])
    return layer(inputs, inputs) if name.endswith("HeadAttention") or "Query" in name else (
        layer(inputs)
    )  # fmt: skip


def family(shape, dtype, names):
    inputs = keras.Input(shape, dtype=dtype)
    return keras.Model(inputs, [output_of(name, inputs) for name in names])


def families():
    found = {}
    for name, (shape, settings) in LAYERS.items():
        if settings is not None:
            dtype = "int32" if name in WHOLE_NUMBERS else "string" if name in WORDS else "float32"
            found.setdefault((shape, dtype), []).append(name)
    return found


def rows_of(shape, dtype):
    if dtype == "string":
        return np.array([["a b"], ["b"]], dtype=object)
    if dtype == "int32":
        return RNG.integers(4, size=(2, *shape)).astype(np.int32)
    return RNG.normal(size=(2, *shape)).astype(np.float32)


def outputs(model, rows):
    made = model(keras.ops.convert_to_tensor(rows), training=False)
    return [np.asarray(each) for each in keras.tree.flatten(made)]


def loads(model, folder, rows=None, suffixes=(".keras",)):
    """The model after the way through a file, with equal outputs."""
    for suffix in suffixes:
        path = str(folder / f"a{suffix}")
        model.save(path)
        loaded = load_model(path)
        if rows is not None:
            for one, other in zip(outputs(model, rows), outputs(loaded, rows), strict=True):
                np.testing.assert_array_equal(one, other)
    return loaded


def test_all_allowed_layers_are_tested():
    assert allowed._CLASSES["keras.layers"] == LAYERS.keys()


@pytest.mark.parametrize(("shape", "dtype"), families())
def test_layers_are_loaded_with_equal_outputs(tmp_path, shape, dtype):
    names = families()[shape, dtype]
    rows = rows_of(shape, dtype)
    model = family(shape, dtype, names)
    loads(model, tmp_path, rows)
    outputs = [
        output for name, output in zip(names, model.outputs, strict=True) if name not in NOT_IN_H5
    ]
    loads(keras.Model(model.inputs, outputs), tmp_path, rows, suffixes=(".h5",))


def test_allowed_names_are_classes_and_functions_of_keras():
    for module, names in {**allowed._CLASSES, **allowed._INNER_CLASSES}.items():
        for name in names:
            assert allowed.allowed_class(module, name) is not None, (module, name)
            assert allowed.is_allowed_name(allowed.allowed_class(module, name).__name__)
    rooms = [module for module in sys.modules if module.startswith("keras.src.ops.")]
    for name in allowed._OPERATIONS:
        assert any(allowed.allowed_class(room, name) for room in rooms), name
    for module, names in allowed._FUNCTIONS.items():
        for name in names:
            assert allowed.allowed_function(module, name) is not None, (module, name)


def test_operations_are_loaded_with_equal_outputs(tmp_path):
    inputs = keras.Input((4,))
    x = layers.Dense(4)(inputs)
    found = [(x + 1) * 2 - x / 3, x**2 @ keras.ops.transpose(x), -x[:, 1:], abs(x) // 2, x > 0]
    for name in sorted(allowed._FUNCTIONS["keras.ops"]):
        function = getattr(keras.ops, name, None)  # older versions lack some
        for arguments in ((x,), (x, x), (x, 1), ([x, x],)):
            try:
                made = keras.tree.flatten(function(*arguments))
                made = [each for each in made if keras.backend.is_keras_tensor(each)]
                keras.Model(inputs, made).to_json()
            except Exception:  # takes other arguments, or Keras cannot save it
                continue
            found += made
            break
    assert len(found) > 150
    found += keras.ops.split(x, 2, axis=1) + keras.ops.unstack(x, 4, axis=1)
    names = {each._keras_history.operation.name.rstrip("_0123456789") for each in found}
    assert len(names) > 150
    model = keras.Model(inputs, found)
    model.save(tmp_path / "a.keras")
    reference = keras.models.load_model(tmp_path / "a.keras")
    again = load_model(str(tmp_path / "a.keras"))
    assert [each.name for each in again.layers] == [each.name for each in reference.layers]


@keras.saving.register_keras_serializable("honest")
def halved(x):
    return x / 2


@keras.saving.register_keras_serializable("honest")
class Own(layers.Layer):
    def __init__(self, units, start="ones", **kwargs):
        super().__init__(**kwargs)
        self.units, self.start = units, keras.initializers.get(start)

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), initializer=self.start)
        self.constant = keras.Variable(np.ones(3, np.float32), trainable=False)
        self.inner = layers.Dense(self.units)
        self.inner.build((None, self.units))

    def call(self, x, times=1):
        return self.inner(x @ self.kernel) * times

    def get_config(self):
        start = keras.initializers.serialize(self.start)
        return {**super().get_config(), "units": self.units, "start": start}


@keras.saving.register_keras_serializable("honest")
class OwnModel(keras.Model):
    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units, self.hidden, self.last = units, layers.Dense(units), layers.Dense(1)

    def call(self, x):
        return self.last(self.hidden(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def test_networks_with_custom_objects_are_loaded(tmp_path):
    rows = rows_of(VECTOR, "float32")
    inputs = keras.Input(VECTOR)
    x = Own(3, keras.initializers.Constant(2.0))(inputs, times=3)
    x = layers.Dense(2, halved, kernel_regularizer=keras.regularizers.OrthogonalRegularizer())(x)
    model = keras.Model(inputs, layers.Lambda(halved)(x))
    model.compile("sgd", loss=halved, metrics=[halved])
    loads(model, tmp_path, rows)
    model = OwnModel()
    model.compile("adam", "mse")
    model(rows)
    assert loads(model, tmp_path, rows).compiled
    with keras.saving.custom_object_scope({"Local": type("Local", (Own,), {})}):
        local = keras.saving.get_registered_object("Local")
        loads(keras.Sequential([keras.Input(VECTOR), local(2)]), tmp_path, rows)


def test_networks_in_networks_are_loaded(tmp_path):
    rows = rows_of(VECTOR, "float32")
    inputs = keras.Input(VECTOR, name="rows")
    inner = keras.Sequential([keras.Input(VECTOR), layers.Dense(4)], name="inner")
    shared = keras.Model(inputs, inner(inner(inputs)), name="shared")
    repeated = layers.TimeDistributed(layers.Dense(4))(layers.RepeatVector(3)(shared(inputs)))
    states = layers.LSTM(4, return_state=True)(repeated)
    last = layers.GRU(4)(repeated, initial_state=states[1])
    loads(keras.Model({"rows": inputs}, {"last": last, "all": repeated}), tmp_path)
    loads(keras.Model(inputs, layers.Add()([shared(inputs), last])), tmp_path, rows)
    kept = keras.Input(batch_shape=(2, 5, 3))
    loads(keras.Model(kept, layers.LSTM(4, stateful=True)(kept)), tmp_path)
    unbuilt = keras.Sequential([layers.Dense(3), layers.Dense(1)])
    with pytest.warns(UserWarning, match="not yet been built"):
        assert not loads(unbuilt, tmp_path).built


OPTIMIZERS = {
    "adam": lambda: "adam",
    "sgd": lambda: keras.optimizers.SGD(
        schedules.CosineDecay(0.1, 10), momentum=0.9, use_ema=True, global_clipnorm=1.0
    ),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.AdamW(amsgrad=True, gradient_accumulation_steps=2)
    ),
    "pieces": lambda: keras.optimizers.Lamb(schedules.PiecewiseConstantDecay([1], [0.1, 0.2])),
    "muon": lambda: keras.optimizers.Muon(0.1),
    "adafactor": keras.optimizers.Adafactor,
}


def test_networks_are_loaded_compiled(tmp_path):
    rows = rows_of(VECTOR, "float32")
    for name, make in OPTIMIZERS.items():
        model = keras.Sequential([keras.Input(VECTOR), layers.Dense(3, activation="softmax")])
        metrics = ["accuracy", "AUC", keras.metrics.F1Score(), keras.metrics.MeanIoU(3),
                   keras.metrics.MeanMetricWrapper(keras.losses.kl_divergence)]  # fmt: skip
        loss = keras.losses.CategoricalFocalCrossentropy()
        model.compile(make(), loss, metrics=metrics, weighted_metrics=["mae"], jit_compile=False)
        if name == "scaled":
            model.train_on_batch(rows, np.eye(3)[[0, 2]])
        loaded = loads(model, tmp_path, rows)
        assert type(loaded.optimizer) is type(model.optimizer)
        assert loaded.loss.name == model.loss.name


def test_dtypes_and_quantized_networks_are_loaded(tmp_path):
    rows = rows_of((16,), "float32")
    for policy in ("mixed_float16", "mixed_bfloat16", "bfloat16", "float64"):
        model = keras.Sequential([keras.Input((16,)), layers.Dense(3, dtype=policy)])
        loads(model, tmp_path, rows)
    for mode in ("int8", "int4", "float8"):
        model = keras.Sequential([keras.Input((16,)), layers.Dense(32)])
        model.layers[0].quantize(mode)
        loads(model, tmp_path, rows)


def test_layers_that_learned_a_vocabulary_or_bins_are_loaded(tmp_path):
    text = layers.TextVectorization(output_mode="tf_idf")
    text.adapt(["a b c", "ä b d"])
    words = layers.StringLookup()
    words.adapt(["a", "b", "ä x"])
    for layer, shape in ((text, ()), (words, (1,))):
        model = keras.Sequential([keras.Input(shape, dtype="string"), layer])
        rows = np.array([["a"], ["ä x"]], dtype=object)
        loads(model, tmp_path, rows if shape else rows[:, 0])
    numbers, bins = layers.Normalization(), layers.Discretization(num_bins=3)
    numbers.adapt(RNG.normal(size=(20, 4)))
    bins.adapt(RNG.normal(size=20))
    model = keras.Sequential([keras.Input(VECTOR), numbers, bins])
    loads(model, tmp_path, rows_of(VECTOR, "float32"), suffixes=(".keras", ".h5"))


def test_a_repacked_archive_is_loaded(tmp_path):
    model = keras.Sequential([keras.Input(VECTOR), layers.Dense(3)])
    model.save(tmp_path / "a.keras")
    with (
        zipfile.ZipFile(tmp_path / "a.keras") as old,
        zipfile.ZipFile(tmp_path / "b.keras", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    rows = rows_of(VECTOR, "float32")
    loaded = load_model(tmp_path / "b.keras")
    np.testing.assert_array_equal(outputs(loaded, rows), outputs(model, rows))
